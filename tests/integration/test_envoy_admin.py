"""This file tests that a gateway which takes its time is told from one that is dead or hangs (F63, F64)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from branchline.adapters.envoy import Envoy
from branchline.adapters.envoy_process import runs
from branchline.errors import GatewayDown
from branchline.sdk import trees
from tests.family import has_ended
from tests.waiting import wait_until

BRIEF, PATIENCE = 0.005, 0.5  # the first is less than a clock tick, in which nobody is seen to have worked
ADMIN = """
import socket, sys, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
line, _ = listener.accept()
line.recv(65536)
until = time.thread_time() + 0.1
while sys.argv[2] == "works" and time.thread_time() < until:
    pass
if sys.argv[2] == "works":
    line.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nLIVE")
sys.stdin.read()
"""

# Its first thread ends, as it may before the others when a process is killed.
HEADLESS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@contextmanager
def admin(folder: Path, runtime: Path, how: str) -> Iterator[Envoy]:
    """An admin socket whose process works for far longer than the patience before it answers, or hangs."""
    envoy = Envoy(folder, runtime, patience=BRIEF if how == "works" else PATIENCE)
    argv = [sys.executable, "-c", ADMIN, str(envoy.admin), how]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            known = {"pid": process.pid, "ticks": trees.ticks(process.pid), "boot": "1"}
            (folder / "envoy.json").write_text(json.dumps(known))
            assert process.stdout
            assert process.stdout.readline() == b"\n"
            yield envoy
        finally:
            process.kill()


def test_one_that_works_is_waited_for(tmp_path: Path, runtime_dir: Path) -> None:
    """Also while it waits for a processor. Killers: give up after the patience whatever it does; count its ticks alone.

    A gateway with many services, or on a busy machine, would be started anew under load.
    """
    with admin(tmp_path, runtime_dir, "works") as envoy:
        assert envoy.ask("/ready") == "LIVE"


def test_one_that_hangs_is_given_up(tmp_path: Path, runtime_dir: Path) -> None:
    with admin(tmp_path, runtime_dir, "hangs") as envoy, pytest.raises(GatewayDown) as caught:
        envoy.ask("/ready")
    assert caught.value.cause.endswith("no answer, and nothing done, for 0.5 s")


def test_the_time_in_which_it_answers_is_not_held_against_it(tmp_path: Path, runtime_dir: Path) -> None:
    """Killer: count it, and what it has taken by the second look is never seen."""
    with admin(tmp_path, runtime_dir, "works") as envoy:
        looks: list[str] = []

        def done() -> bool:
            looks.append(envoy.ask("/ready") if not looks else "taken")
            return looks[-1] == "taken"

        assert envoy.wait(done, BRIEF)


def test_one_that_is_half_dead_still_has_its_port() -> None:
    """F63. Killer: take the end of its first thread for its own, and who starts the next finds the port taken."""
    with subprocess.Popen([sys.executable, "-c", HEADLESS], stdin=subprocess.PIPE) as process:
        known = {"pid": process.pid, "ticks": trees.ticks(process.pid)}
        assert wait_until(lambda: has_ended(process.pid))
        assert runs(known)
        process.communicate()
        assert not runs(known)
