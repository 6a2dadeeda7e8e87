"""This file is the commands that bring a revision to traffic and take it out again.

Each change is first asked as a dry run: the law's own plan of what git, traffic and processes will see. Then it is
recorded, and what follows is exactly that plan. What changes production asks a person first, unless told --yes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from branchline.cli import follow, show
from branchline.cli.session import Session, as_json, dry_run, naming, pass_session
from branchline.core import names
from branchline.core.lifecycle import SIDES
from branchline.core.spec import MOST_INSTANCES
from branchline.core.waiting import SMALLEST
from branchline.errors import NobodyToAsk, NothingToDo, UsageError

if TYPE_CHECKING:
    from branchline.cli.transport import Client

Document = dict[str, Any]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])
PATIENCE = 60.0  # seconds that a change of traffic is waited for; it goes on without us
ENDED = {"serves", "absorbed", "declined", "withdrawn"}  # the words for a branch without a row that git has deleted


def changing(command: Decorated) -> Decorated:
    """Give a command the options of everything that changes what is released."""
    options = (
        dry_run,
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option("--no-input", is_flag=True, help="Never ask; refuse where a question would have to be asked."),
        click.option("--because", default="", metavar="TEXT", help="Why; it is kept in the history."),
        as_json,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@naming("branch", required=False, default="")
@click.option("--wait", type=float, default=float("inf"), show_default=False, metavar="SECONDS",
              help="Stop following after so many seconds (exit 5); what was begun goes on.")  # fmt: skip
@dry_run
@as_json
@pass_session
def deploy(session: Session, branch: str, wait: float, dry_run: bool) -> None:
    """Push the branch and follow it until it rests.

    It rests when it has traffic or waits for a person (exit 0), or when a gate said no (exit 1). The one
    line on standard output is its address.
    """
    named = session.branch(branch)
    session.known(named.service)
    tree = session.tree
    commit = tree.commit(named.name)
    push = bool(tree.remote)
    commands = [f"git push -u {tree.remote} {named.name}"] if push else []
    if tree.branch == named.name and tree.is_dirty([session.services[named.service]]):
        show.say(f"note     changes in {session.services[named.service]} that are not committed are not deployed")
    if dry_run:
        steps = [("git", f"push {named.name} ({commit[:7]})")] if push else []
        steps += [("process", "build it, start it in staging, ask its gates")]
        steps += [("traffic", "none before its gates have passed")]
        finish_plan(session, {"schema": "branchline.plan/1", "service": named.service, "event": "push", "steps": steps})
        return
    client = session.client()
    since = follow.told_so_far(client, named.service, named.name, commit)
    if push:
        tree.push(named.name)
        for line in show.ran(commands):
            show.say(line)
    show.say(f"{named.service}  branch {named.name}  {commit[:7]}")
    client.post("/v1/look")

    def staged(row: Mapping[str, Any]) -> None:
        show.say(f" ..  {row['perimeter']:<18} {row['address']}")

    found = follow.to_the_rest(
        client, named.service, named.name, commit, since, lambda note: show.say(show.note(note)), wait, staged
    )
    finish_deploy(session, client, named, commit, found)


def finish_deploy(session: Session, client: Client, named: names.Branch, commit: str, found: follow.Rest) -> None:
    """Say where it rests; the address alone goes to standard output."""
    services = client.get("/v1/status")["services"]
    service: Document = next((each for each in services if each["name"] == named.service), {"address": "", "rows": []})
    row: Document = next((row for row in service["rows"] if row["branch"] == named.name), {})
    its_own = row.get("perimeter") == "staging" or row.get("state") in ("queued", "measured")  # or has none left
    address = row["address"] if its_own else address_of(service, row.get("line"), commit)
    show.say(f"{found.word:<8} {found.text}")
    if not row and found.word in ENDED:
        show.say(f"note     {named.name} has ended: it is archived, and deleted in git")
        show.say(f"next     {homeward(session)}")
    elif found.next:
        show.say(f"next     {found.next}")
    if session.json:
        told = {"branch": named.name, "commit": commit, "rest": found.word, "text": found.text, "address": address}
        show.document({"schema": "branchline.deploy/1", **told})
    elif not found.code and address:
        show.out(address)
    raise click.exceptions.Exit(found.code)


def homeward(session: Session) -> str:
    """What brings a person from a branch that was deleted to the trunk, as it is now."""
    trunk, remote = session.trunk(), session.tree.remote
    return f"git switch {trunk}" + (f" && git pull --ff-only {remote} {trunk}" if remote else "")


def address_of(service: Document, line: int | None, commit: str) -> str:
    """The address of the line that a commit is for; the service's own, when that serves nothing."""
    live = [row for row in service["rows"] if row["phase"] == "live"]
    mine = (row["address"] for row in live if row["commit"] == commit or row["line"] == line)
    return str(next(mine, service["address"]))


# ------------------------------------------------------------------------------------------------ what is asked of it


@click.command()
@naming("reference")
@changing
@pass_session
def approve(session: Session, reference: str, **options: Any) -> None:
    """Let a candidate go on that waits for a person."""
    change(session, "approve", reference, {}, **options)


@click.command()
@naming("reference")
@click.option("--share", type=click.IntRange(SMALLEST, 100 - SMALLEST), required=True, help="Per cent of the traffic.")
@changing
@pass_session
def split(session: Session, reference: str, share: int, **options: Any) -> None:
    """Change a challenger's share of the traffic.

    Nobody moves who need not.
    """
    change(session, "split", reference, {"share": share}, **options)


@click.command()
@naming("reference", metavar="SERVICE[@REVISION]")
@click.argument("instances", type=click.IntRange(1, MOST_INSTANCES))
@changing
@pass_session
def scale(session: Session, reference: str, instances: int, **options: Any) -> None:
    """Change how many processes a revision has in production, now.

    A bare service means what serves. The next revision has again as many as its service file says.
    """
    named = names.reference(reference)
    reference = f"{reference}@incumbent" if named.kind == "service" else reference
    found = session.client().get("/v1/revision", reference=reference)
    change(session, "scale", found["service"], {"revision": found["commit"], "instances": instances}, **options)


@click.command()
@naming("reference")
@changing
@pass_session
def extend(session: Session, reference: str, **options: Any) -> None:
    """Give a test without a verdict more time."""
    change(session, "extend", reference, {}, asking=False, **options)


@click.command()
@naming("reference")
@changing
@pass_session
def close(session: Session, reference: str, **options: Any) -> None:
    """Give a branch up: it is archived and deleted.

    It leaves traffic and is never merged.
    """
    change(session, "close", reference, {}, **options)


@click.command()
@naming("reference")
@changing
@pass_session
def abort(session: Session, reference: str, **options: Any) -> None:
    """Take a candidate out of traffic or evaluation, now.

    Its branch stays. Works without the daemon, or while that hangs, without the remote and the builder.
    """
    urgent(session, "abort", reference, None, **options)


@click.command()
@naming("service")
@click.option("--line", type=click.IntRange(1), default=None, metavar="MAJOR", help="Of this major; else the newest.")
@changing
@pass_session
def rollback(session: Session, service: str, line: int | None, **options: Any) -> None:
    """Give all traffic back to what served before.

    Git follows. Works without the daemon, or while that hangs. Data and outcomes are not undone.
    """
    urgent(session, "rollback", service, line, **options)


@click.command()
@naming("service")
@click.argument("major", type=click.IntRange(1))
@changing
@pass_session
def retire(session: Session, service: str, major: int, **options: Any) -> None:
    """End a major version of a service, while another one serves.

    Its route and its instances end, its trunk is archived. After the newest, the older one has the service's address
    and the default branch again.
    """
    change(session, "retire", service, {"line": major}, **options)


@click.command()
@naming("service")
@changing
@pass_session
def freeze(session: Session, service: str, **options: Any) -> None:
    """Let nothing of a service be promoted for now.

    Rollback and abort work all the same.
    """
    change(session, "freeze", service, {}, asking=False, **options)


@click.command()
@naming("service")
@changing
@pass_session
def thaw(session: Session, service: str, **options: Any) -> None:
    """Let a frozen service go on."""
    change(session, "thaw", service, {}, asking=False, **options)


@click.command()
@naming("reference")
@click.option("--override", default="", metavar="REASON",
              help="End the test yourself, before its verdict or against it; this is told for ever.")  # fmt: skip
@click.option("--for", "side", type=click.Choice([*SIDES]), default=None,
              help="For whom you end it; for nobody: as inconclusive, the branch stays.")  # fmt: skip
@changing
@pass_session
def conclude(session: Session, reference: str, override: str, side: str | None, **options: Any) -> None:
    """Show the verdict and what follows; agree to it or overrule it.

    Exit 5 while there is no verdict. What needs nobody's approval concludes by itself. An override still waits for
    whatever a verdict waits for, and promotes nothing that a guardrail has stopped.
    """
    client = session.client()
    if override and options["because"]:
        hint = f'branchline conclude {reference} --override "why" --for {side or "challenger"}'
        raise UsageError("the reason of an override is its --override, so --because would be lost", hint=hint)
    if override.strip() and side:
        options["because"] = override
        named = names.reference(reference)
        branch = reference if named.kind == "branch" else meant(client, reference)["branch"]
        change(session, "conclude", branch, {"override": override, "side": side}, **options)
        return
    if override or side:
        hint = f'branchline conclude {reference} --override "why" --for challenger'
        raise UsageError("an override needs both: a reason, and for whom", hint=hint)
    row = meant(client, reference)
    verdict = (row.get("measurement") or {}).get("verdict") or {}
    text = str(verdict.get("reason") or row.get("detail") or "")
    show.say(f"verdict  {row['version'] or row['branch']}: {row['state']}" + (f": {text}" if text else ""))
    measured = str((row.get("measurement") or {}).get("text") or "")
    if measured and measured != text:
        show.say(f"evidence {measured}")
    mine = row["state"] in ("won", "concluding") and row.get("waits_for") == "approval"
    if session.json and not mine:
        told = {key: row.get(key) for key in ("branch", "version", "state", "waits_for", "measurement")}
        show.document({"schema": "branchline.verdict/1", **told})
    if row["state"] in ("won", "concluding"):
        if mine:
            change(session, "conclude", row["branch"], {}, **options)
            return
        waits = f"it waits for: {row['waits_for']}" if row.get("waits_for") else "it concludes by itself"
        show.say(f"plan     {waits}")
        return
    if row["state"] in follow.REFUSED:
        raise click.exceptions.Exit(1)
    show.say("undecided yet: branchline status --watch")
    raise click.exceptions.Exit(5)


def meant(client: Client, reference: str) -> Document:
    """The status row of the candidate that a reference means; raises NothingToDo when it is no open one."""
    named = names.reference(reference)
    services = client.get("/v1/status", reference=reference)["services"]
    rows = [row for each in services for row in each["rows"] if row["phase"] != "live"]
    serving = [row for row in rows if row["share"] or row["state"] in ("won", "concluding")]
    match named.kind:
        case "branch":
            rows = [row for row in rows if row["branch"] == named.text]
        case "version":
            rows = [row for row in rows if row["version"] == named.text]
        case "commit":
            rows = [row for row in rows if row["commit"].startswith(named.text)]
        case _:
            rows = serving or rows
    if len(rows) != 1:
        which = "name one of: " + ", ".join(row["branch"] for row in rows) if rows else "nothing of it is under test"
        raise NothingToDo(which, what=f"{reference} means {names.counted(len(rows), 'open branch', 'es')}")
    return dict(rows[0])


# ------------------------------------------------------------------------------------------------ how it is asked


def urgent(session: Session, command: str, reference: str, line: int | None, **options: Any) -> None:
    """Have the daemon take something out of traffic; from the gateway's own files where it can not, or not at once."""
    from branchline.cli import offline

    try:
        client = offline.prompt(session)
        change(session, command, reference, {"line": line} if line else {}, client=client, **options)
    except offline.Unable as error:
        show.say(f"{error}; working from the gateway's own files")
        options["yes"] = options["yes"] or error.agreed
        service = names.reference(reference).service
        entry = offline.change(session, command, service, line or 0, agree=agreed, **options)
        if options["dry_run"]:
            finish_plan(session, entry)


def change(
    session: Session, command: str, reference: str, args: Mapping[str, int | str], *, because: str, dry_run: bool,
    yes: bool, no_input: bool, asking: bool = True, client: Client | None = None,
) -> None:  # fmt: skip
    """Show the plan, ask, have it recorded, and wait until traffic is as it was planned.

    A client that is given raises for itself where it can not do it.
    """
    client = client or session.client()
    body = {"command": command, "reference": reference, "args": dict(args), "actor": session.actor, "because": because}
    planned = client.post("/v1/ask", {**body, "dry_run": True})
    if dry_run:
        finish_plan(session, planned)
        return
    for line in show.plan(planned["steps"]) + show.losses(planned["loses"]):
        show.say(line)
    if asking:
        agreed(planned["service"], command, yes=yes, no_input=no_input)
    begun = time.monotonic()
    done = client.post("/v1/ask", body)
    if session.json:
        show.document(done)
    settled = shifted(client, done["service"])
    took = time.monotonic() - begun
    word = "done" if settled else "begun"
    back = undo(command, done["service"], reference, str(args.get("side", "")), done["steps"])
    show.say(f"{word:<8} {done['service']}: {done['event']}  {took:.1f}s{back}")
    if args.get("side") == "challenger" and (waits := awaited(client, done["service"], reference)):
        show.say(f"waits    for: {waits}")
        show.say(f"next     {follow.onward(waits, done['service'], reference)}")
        return
    follows = followed(session, [text for _, text in done["steps"]])
    if not settled or (follows and not shifted(client, done["service"], "git")):
        show.say(f"next     branchline status {done['service']}")
    elif follows:
        show.say(f"next     {follows}")


def followed(session: Session, steps: Sequence[str]) -> str:
    """What brings a person's clone after these steps of a plan; '' where it needs nothing."""
    tree = session.tree
    if any(text.startswith(f"archive and delete {tree.branch} ") for text in steps):
        return homeward(session)
    written = [text.split()[1] for text in steps if text.startswith("make ")]
    if not tree.remote or not written or (trunk := session.trunk()) not in written:
        return ""
    return (
        f"git pull --ff-only {tree.remote} {trunk}"
        if tree.branch == trunk
        else f"git fetch {tree.remote} {trunk}:{trunk}"
    )


def undo(command: str, service: str, reference: str, side: str, steps: Sequence[Sequence[str]]) -> str:
    """How to take a change back, where that is one command.

    Rolling back undoes only what replaces an incumbent: of anything else it would take back what serves. A test that a
    person ended for nobody goes on when it is extended.
    """
    back = {"freeze": f"thaw {service}", "thaw": f"freeze {service}"}.get(command, "")
    if command in ("approve", "conclude") and any(text.startswith("make ") for _, text in steps):
        back = f"rollback {service}"
    if side:
        back = {"challenger": back, "nobody": f"extend {reference}"}.get(side, "")
    return f"   undo: branchline {back}" if back else ""


def awaited(client: Client, service: str, branch: str) -> str:
    """What a branch that has won waits for before it is promoted; '' where it waits for nothing."""
    row = follow.row_of(client, service, branch)
    return str(row["waits_for"]) if row and row["state"] == "won" else ""


def finish_plan(session: Session, planned: Mapping[str, Any]) -> None:
    """Print a plan that is not to be carried out."""
    if session.json:
        show.document(planned)
        return
    for line in show.plan(planned["steps"]) + show.losses(planned.get("loses", ())):
        show.out(line)


def agreed(service: str, command: str, *, yes: bool, no_input: bool) -> None:
    """Return when the change is wanted; ends with exit 1 when not; raises NobodyToAsk."""
    if yes:
        return
    if no_input or not show.person():
        raise NobodyToAsk(command=command)
    typed = click.prompt(f"type the service's name to {command}", err=True, default="", show_default=False)
    if typed.strip() != service:
        show.say("nothing was changed")
        raise click.exceptions.Exit(1)


def shifted(client: Client, service: str, where: str = "traffic") -> bool:
    """Wait until no step is left to do for a service there, in traffic or git; False when that takes too long."""
    deadline = time.monotonic() + PATIENCE
    with follow.waiting() as line:
        while True:
            drifts = client.get("/v1/status", reference=service)["parity"]["drifts"]
            if not any(drift["kind"] == where for drift in drifts):
                return True
            if time.monotonic() > deadline:
                return False
            line.tick(where)
            time.sleep(0.05)
