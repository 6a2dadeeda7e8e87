"""This file is the commands that only look."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from branchline.cli import show, tail
from branchline.cli.follow import REFUSED
from branchline.cli.parity import drift_lines
from branchline.cli.session import Session, as_json, naming, pass_session
from branchline.cli.watch import live_lines, watched
from branchline.core.codes import NOTICES, exit_of, leaves, status_of
from branchline.errors import BranchlineError, NothingToDo, UnknownCode, UnknownService, UsageError

Document = Mapping[str, Any]
CODE = re.compile(r"BL\d{3}: ")
DECIDED = {"BuildFailed": "no", "GatesFailed": "no", "Won": "ok", "Lost": "no", "Undecided": "??", "Breached": "no",
           "Aborted": "no", "Withdrew": "no", "Overrode": "??"}  # fmt: skip
HIDDEN = {"GatesPassed": ("share",), "Overrode": ("side", "by", "said")}  # said in words, or by what follows
MARKS = {"ran": "ok", "reused": "=", "failed": "no", "stopped": "..", "pass": "ok", "fail": "no", "inconclusive": "??"}
HEAD = ("SERVICE", "BRANCH", "REVISION", "PERIMETER", "READY", "TRAFFIC", "STATE", "")
READY = HEAD.index("READY")  # shown where a revision has more than one process: of one its state says it


@click.command()
@naming("reference", required=False, default="")
@click.option("--watch", is_flag=True, help="Show it again whenever it changes; Ctrl-C detaches and cancels nothing.")
@as_json
@pass_session
def status(session: Session, reference: str, watch: bool) -> None:
    """Show which revision serves where, and how every branch stands."""
    client = session.client()
    if watch:
        watched(lambda: client.get("/v1/status", reference=reference), screen_lines, session.json)
        return
    found = client.get("/v1/status", reference=reference)
    if session.json:
        show.document(found)
        return
    for line in screen_lines(found):
        show.out(line)


def screen_lines(found: Document) -> list[str]:
    """The status as wide as the terminal; as wide as it is where it goes into a file."""
    return status_lines(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else 0)


def status_lines(found: Document, width: int = 0) -> list[str]:
    """The status as a table, then parity, addresses and troubles; on a screen of that width, if it has one."""
    rows: list[tuple[str, ...]] = [HEAD]
    for service in found["services"]:
        for number, row in enumerate(service["rows"]):
            rows.append(cells(service["name"] if not number else "", row))
        if not service["rows"]:
            rows.append((service["name"], "-", "-", "-", "-", "-", "no revision yet", ""))
    counts = (row["instances"] for each in found["services"] for row in each["rows"])
    if not any(each and each["wanted"] > 1 for each in counts):
        rows = [(*row[:READY], *row[READY + 1 :]) for row in rows]
    lines = fitting(rows, width) if found["services"] else ["no service is known yet; next: branchline init SERVICE"]
    if len(found["services"]) == 1:
        lines += live_lines(found["services"][0])
    drifts = found["parity"]["drifts"]
    if drifts:
        lines += [line for drift in drifts for line in drift_lines(drift)]
    elif found["services"]:
        lines.append("parity    ok: git and production agree")
    serving = [each for each in found["services"] if any(row["share"] for row in each["rows"])]
    lines += [line for each in serving for line in addresses(each)]
    lines += [
        f"frozen    {each['name']}: branchline thaw {each['name']}" for each in found["services"] if each["frozen"]
    ]
    lines += [trouble(text, each["name"]) for each in found["services"] for text in each["troubles"]]
    lines += [trouble(text) for text in found.get("troubles", ())]
    if not found["remote"]["reachable"]:
        lines.append(trouble("BL202: the remote cannot be reached; traffic goes on, git waits"))
    return lines


def addresses(service: Document) -> list[str]:
    """Where a service answers: with several majors, each of them, the newest first."""
    live = [row for row in service["rows"] if row["phase"] == "live"]
    if len(live) < 2:
        return [f"address   {service['address']}"]
    return [f"address   {row['address']}  {row['line']}.x" for row in reversed(live)]


def cells(service: str, row: Document) -> tuple[str, ...]:
    """One row of the table; in the last cell what is said of its state."""
    traffic = f"{row['share']:>3}% {show.bar(row['share'])}" if row["share"] else "-"
    state = str(row["state"])
    detail = str(row.get("detail") or "")
    if row["perimeter"] == "production" and not row["healthy"]:
        state = click.style(f"{state}, not healthy", fg="red")
    elif row["phase"] in ("evaluation failed", "rolled back"):
        state = click.style(state, fg="red")
    counts = row["instances"]
    ready = f"{counts['ready']}/{counts['wanted']}" if counts else "-"
    if counts and counts["ready"] < counts["wanted"]:
        ready = click.style(ready, fg="yellow")
    revision = row["version"] or str(row["commit"])[:7] or "-"
    more = f"{':' if row['phase'] in REFUSED else ','} {detail}" if detail else ""
    return (service, str(row["branch"]), revision, str(row["perimeter"]) or "-", ready, traffic, state, more)


def fitting(rows: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """The table; where it would be wider than the screen, what is said of a state stands below its row."""
    whole = show.table([(*row[:-2], row[-2] + row[-1]) for row in rows])
    if not width or max(len(click.unstyle(line)) for line in whole) <= width:
        return whole
    lines: list[str] = []
    for row, line in zip(rows, show.table([row[:-1] for row in rows]), strict=True):
        below = row[-1].lstrip(":, ")
        lines += [line, *(click.style(f"  {each}", dim=True) for each in textwrap.wrap(below, width - 2))]
    return lines


def trouble(text: str, service: str = "") -> str:
    """One line of trouble; what has no code is none, and only to be known."""
    word = click.style("trouble  ", fg="yellow") if CODE.match(text) else "note     "
    return " ".join(filter(None, (word, service and f"{service}:", text)))


@click.command()
@naming("service", required=False, default="")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@click.option("--before", type=click.IntRange(0), default=0, metavar="NUMBER", help="Only what is older than this one.")
@as_json
@pass_session
def history(session: Session, service: str, limit: int, before: int) -> None:
    """Show who did what, when and why.

    Newest first.
    """
    found = session.client().get("/v1/history", service=service, limit=limit, before=before)
    if service and not found["entries"] and not before:
        session.known(service)
    if session.json:
        show.document(found)
        return
    now = time.time()
    rows = [history_cells(entry, now) for entry in found["entries"]]
    for line in show.table(rows):
        show.out(line)
    if not rows:
        show.say(f"nothing has happened yet{f' to {service}' if service else ''}")


def history_cells(entry: Document, now: float) -> tuple[str, ...]:
    """One line of the audit."""
    hidden = ("type", "branch", *HIDDEN.get(entry["event"], ()))
    detail = {k: v for k, v in entry["detail"].items() if k not in hidden and v not in ("", None, 0, False)}
    left = "".join(f"  {branch} is now behind" for branch in detail.pop("left_behind", ()))
    reason = str(detail.pop("reason", "") or entry["because"]).splitlines() or [""]
    told = reason[0][:200]
    if entry["event"] == "Overrode":
        told = "; ".join(show.override({"said": "", **entry["detail"], "reason": told}).splitlines())
    rest = " ".join(f"{k}={str(v)[:12]}" for k, v in detail.items())
    subject = str(entry["detail"].get("branch") or "")
    words = "  ".join(each for each in (subject, rest, told) if each) + left
    return (f"{entry['number']}", show.when(entry["at"], now), entry["service"], entry["event"], words, entry["actor"])


@click.command()
@naming("reference")
@click.argument("step", required=False, default="")
@click.option("--reused", is_flag=True, help="Of a STEP: each line of its key, and each fact that guards its result.")
@as_json
@pass_session
def why(session: Session, reference: str, step: str, reused: bool) -> None:
    """Say why each step ran or was reused, and what the gates found."""
    if reused and not step:
        raise UsageError("--reused is about one step", hint=f"branchline why {reference} STEP --reused")
    found = asked(session, "/v1/why", reference, step=step)
    if session.json:
        show.document(found)
        return
    of_run = f"  run {reference}" if reference.isdecimal() else ""
    show.say(f"{'@'.join(filter(None, (found['service'], found['version'])))}  {found['commit'][:7]}{of_run}")
    for note in why_notes(found):
        show.out(show.note(note))
    for run in found["steps"] if step else ():
        for line in guards(run, reused):
            show.out(f"       {line}")
    if not found["steps"] and not found["gates"] and not found["events"]:
        show.say("nothing of it was built here yet")


def asked(session: Session, path: str, reference: str, **query: str | float) -> dict[str, Any]:
    """What the daemon says of a revision; raises NothingToDo of a service that it has not been shown yet."""
    try:
        return session.client().get(path, 60.0, reference=reference, **query)
    except show.Answered as error:
        service = reference.partition("@")[0]
        if error.problem["code"] != UnknownService.code or service not in session.services:
            raise
        hint = f"branchline run {service}, or commit it to a branch and: branchline deploy"
        raise NothingToDo(what=f"no branch of {service} has been deployed yet", hint=hint) from None


def guards(run: Document, each: bool) -> Iterator[str]:
    """What a step's result depends on: its key in numbers or line by line, the facts that guard it, and what a person
    should know.
    """
    kinds = Counter(line["name"].partition(" ")[0] for line in run["lines"])
    made = ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "the results that it joins"
    yield f"key     {run['key'][:12]}: {made}"
    for line in run["lines"] if each else ():
        way = " > ".join(line["via"])
        yield f"  {line['hash'][:8]}  {line['name']}  {line['where']}  {way}".rstrip()
    for fact in run["facts"]:
        yield f"guard   {fact['kind']} {fact['name'] or '.'}  {fact['value'][:8]}"
    for notice in run["notices"]:
        yield f"note    {notice['code']}: {notice['text']}"


def why_notes(found: Document) -> Iterator[Document]:
    """A line for each step and gate, and for what was decided; below what failed the last lines of it."""
    for run in found["steps"]:
        text = "; ".join(each for each in (run["why"], run["summary"]) if each) or run["state"]
        text += f"  artifact {run['artifact'][:12]}" if run["artifact"] else ""
        mark = MARKS.get(run["state"], "..")
        name = f"{run['step']}[{run['item']}]" if run["item"] else run["step"]
        yield {"mark": mark, "name": name, "text": text, "seconds": run["seconds"] or None}
    for gate in found["gates"]:
        told = {"mark": MARKS[gate["result"]], "name": f"gate {gate['gate']}", "text": measured(gate)}
        yield {**told, "seconds": gate["seconds"] or None}
    for event in found["events"]:
        told_already = event["event"] == "GatesFailed" and any(gate["result"] != "pass" for gate in found["gates"])
        if event["event"] in DECIDED and not told_already:
            text = show.override(event, event["actor"]) if event["event"] == "Overrode" else event["reason"]
            yield {"mark": DECIDED[event["event"]], "name": event["event"], "text": text}


def measured(gate: Document) -> str:
    """What a gate found, and below it the numbers that it found it by."""
    numbers = ", ".join(f"{name} {value:g}" for name, value in gate["numbers"].items())
    said = [f"| {line}" for line in gate["said"].splitlines()]
    return "\n".join(filter(None, (gate["summary"], numbers, *said)))


@click.command()
@naming("reference", metavar="REFERENCE|gateway|daemon")
@click.option("--lines", "-n", type=click.IntRange(1, 2000), default=40, show_default=True, help="How many lines.")
@click.option("--follow", "-f", "follows", is_flag=True,
              help="Go on with what is printed from now on; Ctrl-C ends that.")  # fmt: skip
@as_json
@pass_session
def logs(session: Session, reference: str, lines: int, follows: bool) -> None:
    """Show what a revision, the gateway or the daemon printed last.

    To follow a SERVICE without a revision is to follow all of its revisions.
    """
    state = session.settings.state
    files = {"daemon": state / "daemon.log", "gateway": state / "gateway" / "envoy.log"}
    if follows:
        log_on(session, files.get(reference), reference, lines)
    elif reference in files:
        path = files[reference]
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        last = "\n".join(text.splitlines()[-lines:])
        named: list[dict[str, str]] = [{"name": reference, "state": "", "text": last}]
        show_logs(session, reference, {"schema": "branchline.logs/1", "service": "", "logs": named})
    else:
        show_logs(session, reference, asked(session, "/v1/logs", reference, lines=lines))


def log_on(session: Session, file: Path | None, reference: str, lines: int) -> None:
    """Follow one of our own logs, or those of a service's or a revision's processes; ends with Ctrl-C."""
    if file:
        tail.follow(lambda: {file: tail.Source()}, lines, tail.teller("", session.json))
        return
    known = asked(session, "/v1/why", reference)
    service, commit = known["service"], "" if reference == known["service"] else known["commit"]
    state = session.settings.state
    if not any(not each.ended for each in tail.processes(state, service, commit).values()):
        show.say(f"nothing of {reference} runs now; what it prints once it does comes here (Ctrl-C ends)")
    tail.follow(lambda: tail.processes(state, service, commit), lines, tail.teller(service, session.json))


def show_logs(session: Session, reference: str, found: Document) -> None:
    """Show logs one after another; one that has ended and printed nothing is left out."""
    if session.json:
        show.document(found)
        return
    for log in [log for log in found["logs"] if log["text"] or log["state"] != "stopped"]:
        show.say(click.style(f"-- {log['name']} {log['state']}".rstrip(), bold=True))
        show.out(log["text"].rstrip("\n"))
    if not found["logs"]:
        is_run = reference.isdecimal()
        said = f"the steps of run {reference} printed nothing" if is_run else f"nothing of {reference} runs"
        show.say(f"{said}; branchline why {reference} tells of its steps")


@click.command()
@click.argument("code", required=False, default="", shell_complete=lambda context, code, begun: codes_from(begun))
@as_json
@pass_session
def explain(session: Session, code: str) -> None:
    """Explain an error by its code.

    BL412, say, or without a code all of them. Works anywhere, offline.
    """
    known = leaves()
    wanted = code.upper()
    if wanted in NOTICES:
        explain_notice(session, wanted)
        return
    if wanted and wanted not in known:
        kinds = {kind.__name__: each for each, kind in known.items()}
        near = "" if re.fullmatch(r"BL\d*", wanted) else show.nearest(code, kinds).strip()
        raise UnknownCode(near, name=code)
    chosen = {wanted: known[wanted]} if wanted else known
    explained = [explanation(each, kind) for each, kind in chosen.items()]
    if session.json:
        show.document({"schema": "branchline.errors/1", "errors": explained})
        return
    if not wanted:
        for line in show.table([(each["code"], each["message"]) for each in explained]):
            show.out(line)
        return
    only = explained[0]
    show.out(f"{only['code']}  {only['message']}")
    show.out(f"  part of  {only['family']}")
    show.out(f"  next     {only['hint']}")
    show.out(f"  exit     {only['exit']}" + ("; trying again may help" if only["transient"] else ""))


def explain_notice(session: Session, code: str) -> None:
    """Explain what is only said of a step's reuse, and is no error."""
    if session.json:
        show.document({"schema": "branchline.notices/1", "notices": [{"code": code, "message": NOTICES[code]}]})
        return
    show.out(f"{code}  {NOTICES[code]}")
    show.out("  part of  what is said of a build, and is no error")
    show.out("  next     branchline check, or: branchline why SERVICE STEP")


def codes_from(begun: str) -> list[str]:
    """The codes that begin so, for a shell."""
    return sorted(code for code in (*leaves(), *NOTICES) if code.startswith(begun.upper()))


def explanation(code: str, kind: type[BranchlineError]) -> dict[str, Any]:
    """One error as data."""
    family = next((each for each in BranchlineError.__subclasses__() if issubclass(kind, each)), kind)
    return {
        "code": code,
        "name": kind.__name__,
        "message": blank((kind.__doc__ or "").strip().splitlines()[0]),
        "family": f"{family.code[:3]}xx: {(family.__doc__ or '').strip().splitlines()[0]}",
        "hint": blank(kind.hint),
        "exit": exit_of(code),
        "status": status_of(code),
        "transient": kind.transient,
    }


def blank(text: str) -> str:
    """A sentence whose fields are not filled in, as a person reads it: `{service!r}` is SERVICE."""
    return re.sub(r"\{(\w+)(?:![rsa])?\}", lambda found: found[1].upper(), text)
