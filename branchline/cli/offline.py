"""This file takes something out of traffic without the daemon: when it is dead, when it hangs, when it cannot write.

Rules. Who answers neither at once nor works on it hangs, and is waited for no longer: a rollback has a second. What
was asked of the daemon as a plan is harmless if it is answered late; what was asked in earnest is waited for, for it
may still be done, and twice is once too often. What is done here stands in the journal, and the daemon takes it over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from branchline.cli import show
from branchline.cli.transport import Answered, Client, states
from branchline.errors import DaemonDown

if TYPE_CHECKING:
    from branchline.cli.session import Session

Document = dict[str, Any]
AT_ONCE = 0.2  # seconds
AT_WORK = 1.5  # for a daemon that is seen working all the while
RECORDED = 0.1  # for whoever holds the ledger
LOCKED = 0.3  # for whoever holds the gateway's files
UNABLE = {"BL704", "BL707", "BL708", "BL710"}  # it answers, and can record nothing


class Unable(Exception):
    """The daemon cannot do it; `agreed` is whether the person was asked already."""

    def __init__(self, why: str, *, agreed: bool = False) -> None:
        super().__init__(why)
        self.agreed = agreed


class Prompt(Client):
    """The daemon, which plans at once or not at all."""

    def post(self, path: str, body: Document | None = None, seconds: float = 330.0) -> Document:
        """Have something planned or done; raises Unable, and else what `Client.post` does."""
        plans, path = bool(body and body.get("dry_run")), f"{path}?within={RECORDED}"  # older ones do not read that
        try:
            if plans:
                return at_once(self, lambda: super(Prompt, self).post(path, body, AT_WORK))
            return super().post(path, body, seconds)
        except Answered as error:
            if error.problem.get("code") not in UNABLE:
                raise
            raise Unable(f"the daemon can record nothing ({error.problem['title']})", agreed=not plans) from None


def prompt(session: Session) -> Client:
    """The daemon if it answers at once; raises Unable."""
    client = Prompt(session.settings.socket)
    if not client.listens():
        raise Unable("the daemon does not answer")
    if pid := client.stopped():
        raise Unable(f"the daemon (process {pid}) is stopped")
    at_once(client, lambda: client.get("/healthz", seconds=AT_WORK))
    return client


def at_once(client: Client, ask: Callable[[], Document]) -> Document:
    """What is answered at once, or by a daemon that works all the while; raises Unable."""
    told: list[Document | BaseException] = []

    def act() -> None:
        try:
            told.append(ask())
        except (DaemonDown, Answered) as error:
            told.append(error)

    asking = threading.Thread(target=act, daemon=True)  # it may hang for as long as the daemon does
    deadline, pid = time.monotonic() + AT_WORK, 0
    asking.start()
    asking.join(AT_ONCE)
    while asking.is_alive() and time.monotonic() < deadline:
        pid = pid or client.pid()
        if not works(pid):
            break
        asking.join(0.05)
    found = told[0] if told else DaemonDown()
    if isinstance(found, DaemonDown):
        holder = pid or client.pid()
        raise Unable(f"the daemon (process {holder}) hangs" if holder else "the daemon does not answer")
    if isinstance(found, BaseException):
        raise found
    return found


def works(pid: int) -> bool:
    """Whether any thread of a process computes at this moment, or waits for a processor."""
    return any("R" in states(path) for path in Path(f"/proc/{pid}/task").glob("[0-9]*"))


def change(
    session: Session, command: str, service: str, line: int, *, because: str, dry_run: bool, yes: bool, no_input: bool,
    agree: Callable[..., None],
) -> Document:  # fmt: skip
    """Change the routes from the files alone: end what is under test, or go back to what served before.

    The files know revisions and shares, but no branches: an abort ends the whole test of the line. Returns the plan
    of a dry run, else the journal's entry.
    """
    from branchline.adapters.envoy_router import MEMORIES, RouteWriter

    folder = session.settings.state / "gateway"
    if not service or not any((folder / name).is_file() for name in MEMORIES):
        raise DaemonDown("without it only a service that has a route can be rolled back, by its name")
    ends = f"every challenger of {'its line' if line else 'its newest line'} leaves traffic, whoever was named"
    if command == "abort":
        show.say(f"note     {ends}")
    if dry_run:
        back = "" if command == "abort" else "; when none is under test, go back to what served before"
        steps = [("traffic", f"end the test of {service}: {ends}{back}"), ("traffic", "write it to the journal")]
        return {"schema": "branchline.plan/1", "service": service, "event": "offline", "steps": steps}
    agree(service, command, yes=yes, no_input=no_input)
    writer = RouteWriter(folder, session.settings.runtime, ingest=session.settings.ingest, lock_seconds=LOCKED)
    entry = writer.roll_back(
        service, line, abort=command == "abort", actor=session.actor, because=because or "done offline", at=time.time()
    )
    if session.json:
        show.document({"schema": "branchline.offline/1", **entry})
    after = dict(entry["after"])
    left = ", ".join(revision[:7] for revision, _ in entry["before"] if revision not in after)
    shares = ", ".join(f"{revision[:7]} {share}%" for revision, share in after.items())
    show.say(f"done     {entry['kind']} of {service}: {shares}; out of traffic: {left}")
    if entry["kind"] != command:
        show.say(f"note     the test was ended; what served before: branchline rollback {service}, once more")
    show.say("next     branchline up; git follows when the daemon is back")
    return dict(entry)
