"""This file lets everything die but what serves: daemon, ledger and remote are gone, and nobody who asks notices.

SOAK_SECONDS says for how long. What was asked meanwhile is in the ledger when it is back, each request once.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.typed import Shell, app, request
from tests.waiting import wait_until

CLIENTS = 2
A_WHILE = 0.01  # seconds between two requests of a client
HOLDS = 100_000_000  # requests that no canary here ever gets


@dataclass
class Clients:
    """What clients met, by status or by what broke, and by who answered; they ask until it is over."""

    shell: Shell
    over: threading.Event = field(default_factory=threading.Event)
    met: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, client: int) -> None:
        """Ask again and again, as ever new people, on one connection."""
        number = 0
        with self.shell.connected() as connection:
            while not self.over.wait(A_WHILE):
                number += 1
                try:
                    asked = request(connection, "/death/", "GET", None, f"{client}-{number}", {})
                except (OSError, HTTPException) as error:
                    connection.close()
                    self.met[repr(error)] += 1
                    continue
                with self.lock:
                    self.met[str(asked.status)] += 1
                    self.answered[asked.revision] += 1


@contextmanager
def asking(shell: Shell) -> Iterator[Clients]:
    """Clients meanwhile."""
    clients = Clients(shell)
    threads = [threading.Thread(target=clients.ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        clients.over.set()
        for thread in threads:
            thread.join()


@contextmanager
def dead(shell: Shell) -> Iterator[None]:
    """No daemon, no ledger, no remote; all are put back."""
    shell.kill()
    away = shell.state / "away"
    away.mkdir()
    moved = [(path, away / path.name) for path in shell.state.glob("ledger.sqlite3*")]
    moved.append((shell.truth, shell.truth.with_name("gone")))
    for path, to in moved:
        path.rename(to)
    try:
        yield
    finally:
        for path, to in moved:
            to.rename(path)


def outlived(folder: Path, seconds: float) -> None:
    """Let everything be dead for so long, roll back in the end, and have everything back."""
    shell = Shell(folder, environ={"UV_OFFLINE": "1"})
    try:
        branch = under_test(shell)
        kept = serving(shell)
        with asking(shell) as clients:
            assert wait_until(lambda: len(clients.answered) == 2)
            with dead(shell):
                end = time.monotonic() + seconds
                assert wait_until(lambda: time.monotonic() > end, seconds + 60, every=0.1)
                before = sum(clients.met.values())
                shell.type("rollback", "death", "--yes", "--because", "nobody is there to ask")
                back = clients.answered["death@1.1.0"]
                assert wait_until(lambda: sum(clients.met.values()) > before + 50)
                assert clients.answered["death@1.1.0"] <= back + CLIENTS, "those that were on their way"
            assert serving(shell) == kept
            shell.type("up")
            shell.until_state(branch, "rolled back")
        asked = sum(clients.met.values())
        assert clients.met == {"200": asked}
        assert before > seconds * 10, "they were hardly asked"
        shell.until_rest()
        shell.until("all is read", lambda: kept_requests(shell)[0] >= before)
        count, distinct = kept_requests(shell)
        assert count == distinct <= asked
        assert shell.type("parity").code == 0
    finally:
        shell.end()


def under_test(shell: Shell) -> str:
    """Have a challenger with half of the traffic, for as long as the test lasts; its branch."""
    shell.type("up")
    shell.first("death", app("death"))
    branch = shell.push("alex", {**app("death", requests=HOLDS), "death/NOTE": "two\n"}, "death")
    shell.until_state(branch, "canary")
    return branch


def serving(shell: Shell) -> tuple[object, ...]:
    """The processes that serve: the gateway's, and those behind it."""
    gateway = json.loads((shell.state / "gateway" / "envoy.json").read_text())["pid"]
    return gateway, *(each for each in shell.running("death") if each[2] == "production")


def kept_requests(shell: Shell) -> tuple[int, int]:
    """How many requests of the test the ledger holds, and how many different ones."""
    ((count, distinct),) = shell.ledger("SELECT count(*), count(DISTINCT request) FROM request WHERE service = 'death'")
    return int(count), int(distinct)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nobody_notices_while_daemon_ledger_and_remote_are_dead(tmp_path: Path) -> None:
    """F63, 1.27, 1.38, 1.52, I8, I10: half a minute here, ten in `make soak`."""
    outlived(tmp_path, float(os.environ.get("SOAK_SECONDS", "30")))


@pytest.mark.slow
def test_a_daemon_that_was_stopped_keeps_what_was_done_meanwhile(own: Shell) -> None:
    """1.52, F63, I8: SIGSTOP, a rollback under load, SIGCONT. Killer: let it read the journal at its start alone."""
    branch = under_test(own)
    with asking(own) as clients:
        assert wait_until(lambda: len(clients.answered) == 2)
        daemon = own.pid
        while True:  # until it was not stopped just as it held the gateway's lock
            os.kill(daemon, signal.SIGSTOP)
            for command in ("status", "up", "down"):
                said = own.type(command, ok=(69,)).err
                assert f"its process {daemon} is stopped" in said
                assert f"hint:  kill -CONT {daemon}" in said
            told = own.type("abort", branch, "--yes", "--because", "it hangs", ok=(0, 69))
            os.kill(daemon, signal.SIGCONT)
            if told.code == 0:
                break
            assert f"process {daemon} holds" in told.err
        assert f"the daemon (process {daemon}) is stopped; working from the gateway's own files" in told.err
        back = clients.answered["death@1.1.0"]
        own.until_state(branch, "rolled back")
        asked = sum(clients.met.values())
        assert wait_until(lambda: sum(clients.met.values()) > asked + 50)
        assert clients.answered["death@1.1.0"] <= back + CLIENTS
    assert clients.met == {"200": sum(clients.met.values())}
    (entry,) = [each for each in own.history("death") if each["event"] == "Aborted"]
    assert entry["because"] == "it hangs"
    assert own.pid == daemon
    own.until_rest()


@pytest.mark.slow
def test_a_ledger_that_somebody_holds_is_not_waited_for(own: Shell) -> None:
    """1.52, F53, I8: a shell left open in SQLite. Killer: wait for it as every other write does."""
    branch = under_test(own)
    with asking(own) as clients:
        assert wait_until(lambda: len(clients.answered) == 2)
        with closing(sqlite3.connect(own.state / "ledger.sqlite3", isolation_level=None)) as other:
            other.execute("begin exclusive")
            told = own.type("rollback", "death", "--yes", "--because", "prices are wrong")
            back = clients.answered["death@1.1.0"]
            other.execute("rollback")
        assert "working from the gateway's own files" in told.err
        assert "drain and stop" not in told.err, "a plan of the daemon, which needs no write; then 5 s for that"
        own.until_state(branch, "rolled back")
        asked = sum(clients.met.values())
        assert wait_until(lambda: sum(clients.met.values()) > asked + 50)
        assert clients.answered["death@1.1.0"] <= back + CLIENTS
    assert clients.met == {"200": sum(clients.met.values())}
    own.until_rest()
