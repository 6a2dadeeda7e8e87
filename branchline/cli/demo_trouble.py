"""This file plays what goes wrong while people ask: a challenger's servers are killed, and so is the daemon before a
rollback. What became of the requests is said by who sent them.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from branchline.cli.stage import Stage, say, told, until

VISITORS = 12  # at once: those whom a server was about to answer when it was killed are evidence by themselves
A_WHILE = 0.01  # seconds between two requests of a visitor
ENOUGH = 50  # answers, before something is killed and after it was
KILLS = 2  # of a challenger's servers: one that ends a third time is given up as what does not stay up
CUT = 1  # the status of an answer that had begun, and did not end
SOME = 10  # answers of a server, before it is killed: who has no traffic yet fails nobody


@dataclass(slots=True)
class Crowd:
    """Visitors who ask all the while, and what each was answered: when, with which status, by whom."""

    address: str
    answers: list[tuple[float, int, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def visit(self, visitor: int) -> None:
        """Ask again and again, as ever new people; no answer is status 0."""
        where = urlsplit(self.address)
        connection = HTTPConnection(where.netloc, timeout=30)
        for number in itertools.count():
            status, by = 0, ""
            try:
                headers = {"x-branchline-unit": f"{visitor}-{number}"}
                connection.request("GET", f"{where.path}{number % 4 + 1}", headers=headers)
                answer = connection.getresponse()
                status, by = CUT, answer.headers.get("x-branchline-revision", "")
                answer.read()
                status = answer.status
            except (OSError, HTTPException):
                connection.close()
            self.answers.append((time.monotonic(), status, by))
            if self.over.wait(A_WHILE):
                break
        connection.close()

    def by(self, revision: str, begin: int) -> int:
        """How many a revision has answered of those from a number on."""
        return sum(by == revision for _, _, by in self.answers[begin:])

    def more(self) -> None:
        """Wait until so many more were answered."""
        some = len(self.answers) + ENOUGH
        until("visitors are answered", lambda: len(self.answers) >= some)

    def ending(self) -> str:
        """How many asked, and how many of them were not answered as they should be."""
        met = Counter(status for _, status, _ in self.answers)
        cut = f", {met[CUT]} cut in the middle of an answer, which nobody can begin again" if met[CUT] else ""
        return f"{met.total()} requests, {met.total() - met[200] - met[CUT]} failed{cut}"


@contextlib.contextmanager
def crowd(stage: Stage, service: str) -> Iterator[Crowd]:
    """Visitors of a service, until the end of the block."""
    made = Crowd(stage.address(service))
    threads = [threading.Thread(target=made.visit, args=(number,), daemon=True) for number in range(VISITORS)]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        made.over.set()
        for thread in threads:
            thread.join(timeout=30)


def killed(stage: Stage, service: str, branch: str) -> None:
    """Kill a challenger's server, and the one that is started in its place, as they answer; its guardrail ends it."""
    version = str(stage.row(branch)["version"])
    gone, since = set[int](), 0

    with crowd(stage, service) as seen:

        def answers() -> bool:
            return seen.by(f"{service}@{version}", since) >= SOME

        def ended() -> bool:
            nonlocal since
            if len(gone) < KILLS and answers():
                since = len(seen.answers)
                for pid in stage.servers(service, version) - gone:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        say(f"   kill -9 {pid}, a server of {service}@{version}")
                    gone.add(pid)
            return stage.row(branch).get("state") == "rolled back"

        until(f"{service}@{version} answers", answers)  # and before its canary has passed, however busy the daemon is
        until("the guardrail has ended it", ended)
        seen.more()
    say(f"   {seen.ending()}: who was sent to the dead was answered by the incumbent")


def rolled_back(stage: Stage, service: str, because: str) -> None:
    """Kill the daemon, roll back without it, and let the next one find out."""
    trunk = told(["git", "ls-remote", "origin", "main"], stage.clone)
    with crowd(stage, service) as seen:
        seen.more()
        left = seen.answers[-1][2]
        pid = stage.daemon()
        os.kill(pid, signal.SIGKILL)
        say(f"   kill -9 {pid}: there is no daemon any more")
        begun = time.monotonic()
        stage.type("rollback", service, "--because", because, "--yes")
        seen.more()
        last = max(at for at, _, by in seen.answers if by == left) - begun
        say(f"   the last request on {left} was answered {max(last, 0.0):.2f} s after that was typed")
        stage.type("up")
        until("git has been told", lambda: told(["git", "ls-remote", "origin", "main"], stage.clone) != trunk)
    say(f"   {seen.ending()}")
