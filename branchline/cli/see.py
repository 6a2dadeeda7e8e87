"""This file is the commands that only look."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from branchline.cli import show
from branchline.cli.follow import REFUSED
from branchline.cli.parity import drift_lines
from branchline.cli.session import Session, as_json, naming, pass_session
from branchline.core.codes import exit_of, leaves, problem, status_of
from branchline.errors import BranchlineError, DaemonDown, NothingToDo, UnknownCode, UnknownService

if TYPE_CHECKING:
    from branchline.cli.transport import Client

Document = Mapping[str, Any]
CODE = re.compile(r"BL\d{3}: ")
EVERY = 1.0  # seconds between two looks of --watch
DECIDED = {"BuildFailed": "no", "GatesFailed": "no", "Won": "ok", "Lost": "no", "Undecided": "??", "Breached": "no",
           "Aborted": "no", "Withdrew": "no"}  # fmt: skip
MARKS = {"ran": "ok", "reused": "=", "failed": "no", "pass": "ok", "fail": "no", "inconclusive": "??"}
HEAD = ("SERVICE", "BRANCH", "REVISION", "PERIMETER", "TRAFFIC", "STATE")
FULL_SCREEN, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@click.command()
@naming("reference", required=False, default="")
@click.option("--watch", is_flag=True, help="Show it again whenever it changes; Ctrl-C detaches and cancels nothing.")
@as_json
@pass_session
def status(session: Session, reference: str, watch: bool) -> None:
    """Show which revision serves where, and how every branch stands."""
    client = session.client()
    if watch:
        watched(session, client, reference)
        return
    found = client.get("/v1/status", reference=reference)
    if session.json:
        show.document(found)
        return
    for line in status_lines(found):
        show.out(line)


def watched(session: Session, client: Client, reference: str) -> None:
    """Show the status again and again: on the whole terminal, or what is new as lines."""
    whole = sys.stdout.isatty() and not session.json
    last: object = None
    if whole:
        print(FULL_SCREEN, end="")
    try:
        while True:
            try:
                found = client.get("/v1/status", reference=reference)
                lines = status_lines(found)
            except DaemonDown as error:
                found, lines = {"schema": "branchline.status/1", "problem": problem(error)}, [error.message]
            now: object = found if session.json else lines
            if now != last:
                last = now
                if session.json:
                    show.document(found, line=True)
                elif whole:
                    print("\x1b[H\x1b[J", end="")
                    show.out("\n".join([*lines, "", click.style("Ctrl-C detaches", dim=True)]))
                else:
                    show.out("\n".join([time.strftime("%H:%M:%S"), *lines]))
                sys.stdout.flush()
            time.sleep(EVERY)
    finally:
        if whole:
            print(BACK, end="", flush=True)


def status_lines(found: Document) -> list[str]:
    """The status as a table, then parity, addresses and troubles."""
    rows: list[tuple[str, ...]] = [HEAD]
    for service in found["services"]:
        for number, row in enumerate(service["rows"]):
            rows.append(cells(service["name"] if not number else "", row))
        if not service["rows"]:
            rows.append((service["name"], "-", "-", "-", "-", "no revision yet"))
    lines = show.table(rows) if found["services"] else ["no service is known yet; next: branchline init SERVICE"]
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
    """One row of the table."""
    traffic = f"{row['share']:>3}% {show.bar(row['share'])}" if row["share"] else "-"
    state = str(row["state"])
    detail = str(row.get("detail") or "")
    if row["perimeter"] == "production" and not row["healthy"]:
        state = click.style(f"{state}, not healthy", fg="red")
    elif row["phase"] in ("evaluation failed", "rolled back"):
        state = click.style(state, fg="red")
    revision = row["version"] or str(row["commit"])[:7] or "-"
    words = f"{state}{':' if row['phase'] in REFUSED else ','} {detail}" if detail else state
    return (service, str(row["branch"]), revision, str(row["perimeter"]) or "-", traffic, words)


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
    if session.json:
        show.document(found)
        return
    now = time.time()
    rows = [history_cells(entry, now) for entry in found["entries"]]
    for line in show.table(rows):
        show.out(line)
    if not rows:
        show.say("nothing has happened yet")


def history_cells(entry: Document, now: float) -> tuple[str, ...]:
    """One line of the audit."""
    hidden = ("type", "branch", "share") if entry["event"] == "GatesPassed" else ("type", "branch")
    detail = {k: v for k, v in entry["detail"].items() if k not in hidden and v not in ("", None, 0, False)}
    left = "".join(f"  {branch} is now behind" for branch in detail.pop("left_behind", ()))
    reason = str(detail.pop("reason", "") or entry["because"]).splitlines() or [""]
    rest = " ".join(f"{k}={str(v)[:12]}" for k, v in detail.items())
    subject = str(entry["detail"].get("branch") or "")
    words = "  ".join(each for each in (subject, rest, reason[0][:200]) if each) + left
    return (f"{entry['number']}", show.when(entry["at"], now), entry["service"], entry["event"], words, entry["actor"])


@click.command()
@naming("reference")
@click.argument("step", required=False, default="")
@as_json
@pass_session
def why(session: Session, reference: str, step: str) -> None:
    """Say why each step ran or was reused, and what the gates found."""
    found = asked(session, "/v1/why", reference, step=step)
    if session.json:
        show.document(found)
        return
    show.say(f"{'@'.join(filter(None, (found['service'], found['version'])))}  {found['commit'][:7]}")
    for note in why_notes(found):
        show.out(show.note(note))
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


def why_notes(found: Document) -> Iterator[Document]:
    """A line for each step and gate, and for what was decided; below what failed the last lines of it."""
    for run in found["steps"]:
        text = "; ".join(each for each in (run["why"], run["summary"]) if each) or run["state"]
        text += f"  artifact {run['artifact'][:12]}" if run["artifact"] else ""
        mark = MARKS.get(run["state"], "..")
        yield {"mark": mark, "name": run["step"], "text": text, "seconds": run["seconds"] or None}
    for gate in found["gates"]:
        told = {"mark": MARKS[gate["result"]], "name": f"gate {gate['gate']}", "text": measured(gate)}
        yield {**told, "seconds": gate["seconds"] or None}
    for event in found["events"]:
        told_already = event["event"] == "GatesFailed" and any(gate["result"] != "pass" for gate in found["gates"])
        if event["event"] in DECIDED and not told_already:
            yield {"mark": DECIDED[event["event"]], "name": event["event"], "text": event["reason"]}


def measured(gate: Document) -> str:
    """What a gate found, and below it the numbers that it found it by."""
    numbers = ", ".join(f"{name} {value:g}" for name, value in gate["numbers"].items())
    said = [f"| {line}" for line in gate["said"].splitlines()]
    return "\n".join(filter(None, (gate["summary"], numbers, *said)))


@click.command()
@naming("reference", metavar="REFERENCE|gateway|daemon")
@click.option("--lines", "-n", type=click.IntRange(1, 2000), default=40, show_default=True, help="How many lines.")
@as_json
@pass_session
def logs(session: Session, reference: str, lines: int) -> None:
    """Show what a revision, the gateway or the daemon printed last."""
    state = session.settings.state
    files = {"daemon": state / "daemon.log", "gateway": state / "gateway" / "envoy.log"}
    if reference in files:
        path = files[reference]
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        last = "\n".join(text.splitlines()[-lines:])
        named: list[dict[str, str]] = [{"name": reference, "state": "", "text": last}]
        found: dict[str, Any] = {"schema": "branchline.logs/1", "service": "", "logs": named}
    else:
        found = asked(session, "/v1/logs", reference, lines=lines)
    if session.json:
        show.document(found)
        return
    for log in [log for log in found["logs"] if log["text"] or log["state"] != "stopped"]:
        show.say(click.style(f"-- {log['name']} {log['state']}".rstrip(), bold=True))
        show.out(log["text"].rstrip("\n"))
    if not found["logs"]:
        show.say(f"nothing of {reference} runs; branchline why {reference} tells of its steps")


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


def codes_from(begun: str) -> list[str]:
    """The codes that begin so, for a shell."""
    return [code for code in leaves() if code.startswith(begun.upper())]


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
