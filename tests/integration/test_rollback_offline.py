"""This file rolls back under load without the daemon's help: it is dead, hangs, is stopped in the lock, cannot write.

Requirements: 1.52, I8, F6, F63; nobody's request fails, and a daemon that goes on keeps what the person did.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from branchline.adapters.envoy import Envoy
from branchline.cli.offline import AT_WORK, Unable, prompt
from branchline.cli.session import Session
from branchline.core.service import Phase
from branchline.errors import Fenced
from branchline.ports import Stamp
from tests.gateways import Gateway, gateway
from tests.places import Place
from tests.waiting import wait_until
from tests.world import SAM

A, B = "a" * 40, "b" * 40
ROOT = Path(__file__).resolve().parents[2]
DAEMON = r"""
import socket, sys, time
line, kept = socket.socket(socket.AF_UNIX), []
line.bind(sys.argv[1])
line.listen()
print(flush=True)
while sys.argv[2] == "planning":
    kept.append(line.accept()[0])
    if kept[-1].recv(65536).startswith(b"GET /healthz"):
        kept[-1].sendall(b'HTTP/1.0 200 OK\r\ncontent-length: 12\r\n\r\n{"ok": true}')
        kept.pop().close()
time.sleep(600)
"""
LOCKED = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(600)
"""
# Ends itself before the numbered write of a file, or rename of one, in the folder.
KILLED = """
import os, sys
from pathlib import Path
from branchline.adapters.envoy_router import RouteWriter

folder, runtime, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

def heard(event, args):
    global left
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
    if (writes or event == "os.rename") and str(args[0]).startswith(str(folder)) and not str(args[0]).endswith("lock"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)

sys.addaudithook(heard)
writer = RouteWriter(folder, runtime, ingest=runtime / "ingest.sock")
writer.roll_back("housing", actor="alex", because="prices are wrong", at=5.0)
"""


@dataclass
class Clients:
    """What clients met: when they began to ask, the status, and who answered."""

    met: list[tuple[float, int, str]] = field(default_factory=list)

    @property
    def statuses(self) -> set[int]:
        """Every status that was met."""
        return {status for _, status, _ in self.met}

    def since(self, moment: float) -> set[str]:
        """Who has answered what was begun since."""
        return {revision for at, _, revision in self.met if at > moment}


@contextmanager
def load(real: Gateway) -> Iterator[Clients]:
    """Let clients ask all the while."""
    clients, over = Clients(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            begun = time.monotonic()
            clients.met.extend((begun, answer.status, answer.revision) for answer in real.units(10).values())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert wait_until(lambda: {A, B} <= clients.since(0.0))
        yield clients
    finally:
        over.set()
        thread.join()


@contextmanager
def process(program: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun to do what it is for, and that is ended."""
    command = [sys.executable, "-c", program, *map(str, words)]
    begun = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert begun.stdout is not None
        assert begun.stdout.readline()
        yield begun
    finally:
        begun.kill()
        begun.communicate()


@pytest.fixture
def place(tmp_path: Path, runtime_dir: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def real(place: Place) -> Iterator[Gateway]:
    """The place's gateway, with an incumbent and a challenger of half of the traffic each."""
    with gateway(place.settings.state, place.settings.runtime) as made:
        made.serve((made.backyard.add(A, "1.0.0"), 50), (made.backyard.add(B, "1.1.0"), 50))
        yield made


@pytest.mark.parametrize("daemon", ["dead", "stopped", "hanging", "planning"])
def test_a_rollback_under_load_fails_nobody_whatever_the_daemon_does(place: Place, real: Gateway, daemon: str) -> None:
    """1.52: no daemon; one that is stopped; one whose ledger hangs. Killer: wait for it."""
    with load(real) as clients, process(DAEMON, place.settings.socket, daemon) as hung:
        if daemon == "dead":
            hung.kill()
            hung.wait()
        if daemon == "stopped":
            hung.send_signal(signal.SIGSTOP)
        told = place.run("rollback", "housing", "--yes", "--because", "it hurts")
        done = time.monotonic()
        assert told.returncode == 0, told.stderr
        said = f"the daemon (process {hung.pid}) {'is stopped' if daemon == 'stopped' else 'hangs'}"
        said = "the daemon does not answer" if daemon == "dead" else said
        assert f"{said}; working from the gateway's own files" in told.stderr
        assert wait_until(lambda: bool(clients.since(done)))
    assert clients.statuses == {200}
    # What was on its way as the command ended is answered by whom it was for.
    assert clients.since(done) == {A}


@pytest.mark.parametrize("daemon", ["stopped", "hanging", "planning"])
def test_who_neither_answers_nor_works_is_not_waited_for(place: Place, daemon: str) -> None:
    """1.52. Killer: ask it as any other command does, which waits for seconds."""
    session = Session(place.git.work)
    with process(DAEMON, place.settings.socket, daemon) as hung:
        if daemon == "stopped":
            hung.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        with pytest.raises(Unable, match=str(hung.pid)):
            prompt(session).post("/v1/ask", {"dry_run": True})
        assert time.monotonic() - begun < 10 * AT_WORK, "any other waits for a minute, and more"


def test_a_daemon_that_cannot_record_has_it_done_from_the_files(place: Place, real: Gateway) -> None:
    """F6, 1.52: BL707 is its answer. Killer: pass that on to the person."""
    place.world.released()
    place.world.testing()
    place.world.ledger.full = True
    with place.answering():
        told = place.type("abort", SAM, "--yes")
    assert told.exit_code == 0, told.stderr
    assert "the daemon can record nothing (The disk is full; the event was not written); working from" in told.stderr
    assert {answer.revision for answer in real.units(20).values()} == {A}


def test_a_daemon_whose_ledger_somebody_holds_has_it_done_from_the_files(place: Place, real: Gateway) -> None:
    """1.52: BL708 is its answer, already to the plan. Killer: ask for a plan, which needs no write."""
    place.world.released()
    place.world.testing()
    place.world.ledger.busy = "database is locked"
    with place.answering():
        told = place.type("rollback", "housing", "--yes")
    assert told.exit_code == 0, told.stderr
    assert "the daemon can record nothing (Another process holds the ledger); working from" in told.stderr
    assert "drain and stop" not in told.stderr, "no plan of what the daemon would do"
    assert {answer.revision for answer in real.units(20).values()} == {A}


def test_a_daemon_that_answers_is_asked_as_ever(place: Place, real: Gateway) -> None:
    place.world.released()
    place.world.testing()
    with place.answering(), place.living():
        told = place.type("abort", SAM, "--yes")
    assert told.exit_code == 0, told.stderr
    assert "gateway's own files" not in told.stderr
    assert place.world.phase(SAM) is Phase.ROLLED_BACK
    assert {answer.revision for answer in real.units(20).values()} == {A, B}, "this gateway is not its own"


def test_who_is_stopped_with_the_lock_is_not_waited_for(place: Place, real: Gateway) -> None:
    """Killer: wait for the lock. Whoever holds it is named, and what to do; then the same command works."""
    with process(LOCKED, real.folder / "lock") as holder:
        holder.send_signal(signal.SIGSTOP)
        told = place.run("rollback", "housing", "--yes")
        assert told.returncode == 69, told.stderr
        assert f"process {holder.pid} holds" in told.stderr
        assert f"kill -9 {holder.pid}" in told.stderr
    assert place.run("rollback", "housing", "--yes").returncode == 0
    assert {answer.revision for answer in real.units(20).values()} == {A}


class Early(Envoy):
    """A gateway that is looked at before its first checks were answered: nobody is known to be well."""

    looks = 0

    def healthy(self, clusters: Collection[str] = ()) -> Mapping[str, int]:
        """Nobody at the first look."""
        self.looks += 1
        return super().healthy(clusters) if self.looks > 1 else {}


def test_the_way_back_is_there_as_soon_as_the_gateway_is(real: Gateway) -> None:
    """1.52: a command may be what starts it. Killer: ask once who is well."""
    writer = real.another()
    writer.envoy = Early(real.folder, real.runtime)
    writer.roll_back("housing", actor="alex", because="prices are wrong", at=5.0)
    assert {answer.revision for answer in real.units(20).values()} == {A}


def test_a_command_that_is_killed_at_any_write_has_happened_or_not(real: Gateway) -> None:
    """1.52: never half; and the daemon that comes back keeps it. Killer: write the journal after the routes."""
    plan, kept = [(A, 50), (B, 50)], list[bool]()
    for number in range(1, 100):
        daemon = real.another()
        words = [sys.executable, "-c", KILLED, real.folder, real.runtime, str(number)]
        code = subprocess.run(list(map(str, words)), cwd=ROOT).returncode
        stamp = Stamp(number, 1)
        kept.append(bool(daemon.offline()))
        if kept[-1]:
            with pytest.raises(Fenced):
                daemon.shift("housing", 1, plan, stamp)
            daemon.tell("housing", stamp)
            daemon.shift("housing", 1, [(A, 100)], stamp)  # what the engine plans once it has recorded the journal
            assert {answer.revision for answer in real.units(20).values()} == {A}
        else:
            assert dict(daemon.shown("housing")[1].shares) == dict(plan)
            assert {answer.revision for answer in real.units(20).values()} == {A, B}
        daemon.shift("housing", 1, plan, stamp)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert kept == sorted(kept), "from one write on it has happened"
    assert (kept[0], kept[-1], len(kept) > 6) == (False, True, True)
