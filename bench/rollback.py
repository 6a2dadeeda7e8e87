"""This file prints how long `branchline rollback` takes under load without the daemon, and what failed meanwhile.

Rules. The clock starts as the command is typed, in a process of its own, and stops with the last request that the
gateway's log says the challenger answered. The daemon is dead, or a process on its socket that is stopped, or hangs.
Failed requests are those the load saw and those the log calls bad. Run: python bench/rollback.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import A, B, Bench, Load, bench, has_wrk, load, pinned

from branchline.adapters.envoy_meter import GatewayLog
from branchline.ports import Stamp
from branchline.settings import runtime_of

ROUNDS = 10
DAEMON = """
import socket, sys, time
line = socket.socket(socket.AF_UNIX)
line.bind(sys.argv[1])
line.listen()
print(flush=True)
time.sleep(3600)
"""
GOAL = 1.0  # seconds, the longest


@contextlib.contextmanager
def deaf(path: Path, number: signal.Signals) -> Iterator[None]:
    """A daemon that is stopped, or only hangs: the kernel takes calls for it, and nobody answers."""
    child = subprocess.Popen([sys.executable, "-c", DAEMON, str(path)], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    child.send_signal(number)
    try:
        yield
    finally:
        child.kill()
        child.communicate()
        path.unlink()


def once(up: Bench, tree: Path, number: int, position: str) -> tuple[float, int, int, str]:
    """One rollback: seconds to the challenger's last request, requests, bad ones, and where the log was read to."""
    stamp = Stamp(number + 2, 1)
    up.writer.offline()
    up.writer.tell("housing", stamp)
    up.writer.shift("housing", 1, ((A, 50), (B, 50)), stamp)
    time.sleep(0.3)
    state, begun = up.writer.envoy.folder.parent, time.time()
    words = ["-m", "branchline.cli.main", "-C", str(tree), "--state", str(state), "rollback", "housing", "--yes"]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    time.sleep(0.5)
    log, last, lines, bad = GatewayLog(up.writer.envoy), begun, 0, 0
    while True:
        served, position = log.read(position)
        if not served:
            return last - begun, lines, bad, position
        lines, bad = lines + len(served), bad + sum(each.bad for each in served)
        last = max(last, *(each.at + each.seconds for each in served if each.answered == B), last)


def main() -> None:
    """Print the distribution, for each way the daemon can be."""
    loads: list[Load] = []
    over = threading.Event()
    with bench() as up, tempfile.TemporaryDirectory() as tree:
        subprocess.run(["git", "init", "-q", tree], check=True)
        state = up.writer.envoy.folder.parent
        runtime = runtime_of(state, os.environ)
        runtime.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        runtime.symlink_to(state)

        def ask() -> None:
            while not over.is_set():
                loads.append(load(up.port, "/housing/predict", connections=16))

        background = threading.Thread(target=ask)
        background.start()
        position, number = "", 0
        try:
            print(f"{ROUNDS} rollbacks each, under load by {'wrk' if has_wrk() else 'Python'}")
            print(pinned())
            api = runtime / "api.sock"
            ways = {"stopped": deaf(api, signal.SIGSTOP), "hangs": deaf(api, signal.SIGCONT)}
            for what in ("dead", *ways):
                found: list[tuple[float, int, int]] = []
                with ways.get(what) or contextlib.nullcontext():
                    for _ in range(ROUNDS):
                        number += 1
                        took, lines, bad, position = once(up, Path(tree), number, position)
                        found.append((took, lines, bad))
                seconds = [each[0] for each in found]
                print(f"daemon {what:9}p50 {statistics.median(seconds):5.2f} s   max {max(seconds):5.2f} s   "
                      f"{sum(each[1] for each in found)} requests, {sum(each[2] for each in found)} bad")  # fmt: skip
        finally:
            over.set()
            background.join()
            runtime.unlink()
    print(f"failed: {sum(each.failed for each in loads)} seen by the load")
    print(f"goal: at most {GOAL:.0f} s, nothing failed")


if __name__ == "__main__":
    main()
