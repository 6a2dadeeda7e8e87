"""This file follows what the daemon does for somebody who waits: notes as they come, until there is an end or a rest.

Leaving never cancels anything. A rest is where a candidate stays until somebody, or traffic, moves it on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from branchline.cli import show
from branchline.errors import DaemonDown

if TYPE_CHECKING:
    from branchline.cli.transport import Client

Document = Mapping[str, Any]
Tell = Callable[[Document], None]

WORKING = {"building", "evaluating"}
SERVING = {"A/B test", "canary"}
SHIFTED_SECONDS = 1.0  # in which what was shifted is told, too: the gateway shows it a moment before
UNSEEN_SECONDS = 15.0  # after a look at git; more means that the daemon will not take the branch up
REFUSED = {"evaluation failed", "rolled back", "declined", "inconclusive", "superseded", "withdrawn"}
# What a candidate may wait for -> what to type. `slot` and the arms are waited for without doing anything.
NEXT = {
    "approval": "branchline approve {branch}",
    "frozen": "branchline thaw {service}",
    "behind": "branchline sync {branch}",
    "conflict": "branchline sync {branch}",
    "slot": "branchline status {service} --watch",
    "arm": "branchline status {service} --watch",
    "arm busy": "branchline status {service} --watch",
}


@dataclass(frozen=True, slots=True)
class Rest:
    """Where a candidate came to rest: exit status, the word for it, the rest of the line, what to type next."""

    code: int
    word: str
    text: str
    next: str = ""


def onward(waits: str, service: str, branch: str) -> str:
    """What to type where a branch waits for that."""
    return NEXT.get(waits, "branchline status {service}").format(branch=branch, service=service)


def rest(rows: Sequence[Document], service: str, branch: str, commit: str) -> Rest | None:
    """Where the candidate of a branch rests, of the rows of its service's status; None while it is on its way.

    A branch without a row has ended: it is the incumbent, or `ended` says what became of it.
    """
    row = next((row for row in rows if row["branch"] == branch and row["phase"] != "live"), None)
    if row is None:
        live = next((row for row in rows if row["phase"] == "live" and row["commit"] == commit), None)
        return Rest(0, "serves", f"{live['share']}% of {service}: {live['version']} is the incumbent") if live else None
    state, waits, detail = row["state"], row.get("waits_for", ""), row.get("detail", "")
    next_ = onward(waits, service, branch)
    if row["commit"] != commit:
        if row.get("tip") != commit or state in WORKING:
            return None
        return Rest(0, "waits", f"{commit[:7]} is judged after {row['commit'][:7]}, which is in: {state}", next_)
    if state in REFUSED:
        return Rest(1, "stays", f"{branch}: {state}" + (f": {detail}" if detail else ""), f"branchline why {branch}")
    if state == "measured":
        return Rest(0, "measured", f"{branch}: a benchmark is never promoted" + (f": {detail}" if detail else ""))
    if state in SERVING:
        return Rest(0, "serves", f"{row['share']}% of {service} in: {state}") if row["share"] else None
    if waits and waits != "remote":
        is_ = "stands by in production" if stands_by(row) else f"is {state}"
        return Rest(0, "waits", f"{branch} {is_} and waits for: {waits}", next_)
    return None


def stands_by(row: Document) -> bool:
    """Whether a row is of a second colour: it runs in production before it has any traffic."""
    return row["state"] == "queued" and row.get("perimeter") == "production"


class Waiting:
    """A line that shows, on a terminal, that something is still going on."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.shown = False
        self.live = sys.stderr.isatty() and show.colours(sys.stderr)

    def tick(self, what: str = "") -> None:
        """Show how long it has been."""
        if self.live:
            print(f"\r\x1b[K ..  {what:<18} {time.monotonic() - self.begun:.0f}s", end="", file=sys.stderr, flush=True)
            self.shown = True

    def clear(self) -> None:
        """Make room for a real line."""
        if self.shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self.shown = False


@contextmanager
def waiting() -> Iterator[Waiting]:
    """A waiting line that is gone afterwards."""
    line = Waiting()
    try:
        yield line
    finally:
        line.clear()


def to_the_end(client: Client, topic: str, tell: Tell) -> Document:
    """Tell every note of a topic and return the last one, which is named `end`; raises DaemonDown when it is lost."""
    since = 0
    with waiting() as line:
        while True:
            found = client.get("/v1/progress", since=since, topic=topic, wait=1.0)
            if found["newest"] < since:
                raise DaemonDown("it was started again meanwhile; what was finished is kept", hint="branchline run")
            line.clear()
            for note in found["notes"]:
                since = note["number"]
                if note["name"] == "end":
                    return dict(note)
                tell(note)
            line.tick()


def to_the_rest(
    client: Client, service: str, branch: str, commit: str, since: int, tell: Tell, seconds: float, staged: Tell
) -> Rest:
    """Tell every note of a branch until its candidate rests; `staged` is told its row wherever it runs before traffic.

    A rest with exit status 5 when `seconds` are over first.
    """
    begun = time.monotonic()
    deadline, place, seen, names = begun + seconds, ("", ""), False, set[str]()
    with waiting() as line:
        while True:
            rows, state = rows_of(client, service), ""
            found = rest(rows, service, branch, commit) or ended(client, rows, service, branch, commit)
            rests = SHIFTED_SECONDS if found and found.word == "serves" and "traffic" not in names else 0.0
            told = client.get("/v1/progress", since=since, topic=branch, wait=rests if found else 0.3)
            since = told["newest"]
            line.clear()
            for note in told["notes"]:
                names.add(note["name"])
                tell(note)
            for row in rows:
                if row["branch"] == branch:
                    state, seen = row["state"], True
                    runs = row["healthy"] and (row["perimeter"] == "staging" or stands_by(row))
                    if runs and (row["perimeter"], row["address"]) != place:
                        place = row["perimeter"], row["address"]
                        staged(row)
            if found:
                return found
            if not seen and (why := untaken(client, service, branch, time.monotonic() > begun + UNSEEN_SECONDS)):
                return why
            if time.monotonic() > deadline:
                return Rest(5, "undecided", f"{branch} is {state or 'not seen yet'}", f"branchline status {service}")
            line.tick(state)


def told_so_far(client: Client, service: str, branch: str, commit: str) -> int:
    """The number of the last note that is not about this try of a branch: its own notes are told from the first."""
    known = any(row.get("tip") == commit for row in rows_of(client, service) if row["branch"] == branch)
    notes = client.get("/v1/progress", topic=branch) if known else client.get("/v1/progress", since=1 << 53)
    begun = [note["number"] for note in notes["notes"] if note["name"] == "env"]
    return int(begun[-1]) - 1 if begun else 0 if known else int(notes["newest"])


def untaken(client: Client, service: str, branch: str, is_late: bool) -> Rest | None:
    """What keeps the daemon, which has looked at git, from taking a branch up; None while it still may."""
    found = client.get("/v1/status")
    troubles = [*found.get("troubles", ())]
    troubles += [text for each in found["services"] if each["name"] == service for text in each["troubles"]]
    named = [text for text in troubles if branch in text]
    if not named and not is_late:
        return None
    text = "; ".join(named or troubles) or f"{branch} was not taken up"
    next_ = f"change something in {service}, commit, then: branchline deploy" if named else "branchline status"
    return Rest(1, "unseen", text, next_)


def rows_of(client: Client, service: str) -> list[Document]:
    """The rows of one service's status; none before the daemon knows it."""
    services = client.get("/v1/status")["services"]
    return [row for each in services if each["name"] == service for row in each["rows"]]


ENDS = {"Lost": "declined", "Withdrew": "withdrawn", "Superseded": "superseded", "Aborted": "aborted",
        "Overrode": "declined"}  # fmt: skip


def row_of(client: Client, service: str, branch: str) -> Document | None:
    """The row of an open branch; None when there is none."""
    rows = rows_of(client, service)
    return next((row for row in rows if row["branch"] == branch and row["phase"] != "live"), None)


def ended(client: Client, rows: Sequence[Document], service: str, branch: str, commit: str) -> Rest | None:
    """What became of a branch that has no row any more; None when nothing ended it (yet), or only one of its name."""
    if any(row["branch"] == branch for row in rows):
        return None
    entries = client.get("/v1/history", service=service, limit=200)["entries"]
    mine = [entry for entry in entries if entry["detail"].get("branch") == branch]
    newest = next(iter(mine), None)
    tips = [entry["detail"]["tip"] for entry in mine if entry["event"] in ("Opened", "Pushed")]
    if tips and tips[0] != commit:  # the name was used before
        return None
    if newest is not None and newest["event"] == "Recorded":
        return Rest(0, "absorbed", f"{branch} is part of what it fixed")
    if newest is None or newest["event"] not in ENDS:
        return None
    return Rest(1, ENDS[newest["event"]], f"{branch}: {newest['because'] or newest['event']}", "branchline history")
