"""This file prints how long a change of shares takes until a client sees it, under load, and what failed meanwhile.

Rules. The clock starts when the recorded event has been committed: the router is told, then shifted. It stops with
the first reply to a unit that the new table gives to the other arm. Who asks is a process of its own, as callers are:
a thread beside the router would hold up every one of its system calls. Failed requests are those the load saw and those
the gateway's log calls bad. Run: python bench/weight_change.py
"""

from __future__ import annotations

import http.client
import multiprocessing
import statistics
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import A, B, Bench, Load, bench, has_wrk, load, pinned

from branchline.adapters.envoy_meter import GatewayLog
from branchline.core.traffic import Table, assigned, reallocate
from branchline.ports import Stamp

CHANGES = 100
GOAL = 10.0  # ms, the 90th percentile


def moving(before: Table, after: Table, salt: str) -> str:
    """A unit that the change gives to the other arm."""
    return next(
        unit for unit in map(str, range(100_000)) if assigned(before, unit, salt) != assigned(after, unit, salt)
    )


def watch(port: int, told: Connection) -> None:
    """For each unit told: ask until another revision answers than at first, and tell when it did."""
    while unit := told.recv():
        connection = http.client.HTTPConnection("127.0.0.1", port)
        before = now = ""
        while now == before:
            connection.request("GET", "/housing/predict", headers={"x-branchline-unit": unit})
            answer = connection.getresponse()
            answer.read()
            now = answer.headers.get("x-branchline-revision", "")
            if not before:
                before = now
                told.send(0.0)
        told.send(time.perf_counter())
        connection.close()


def change(up: Bench, watcher: Connection, number: int) -> tuple[float, float]:
    """One change: until the reply, and until the writer had read it back; ms."""
    shares = ((A, 50), (B, 50)) if number % 2 == 0 else ((A, 90), (B, 10))
    shown = up.writer.shown("housing")[1]
    watcher.send(moving(shown.segments, reallocate(shown.segments, dict(shares)), shown.experiment))
    watcher.recv()
    start = time.perf_counter()
    up.writer.tell("housing", Stamp(number + 2, 1))
    up.writer.shift("housing", 1, shares, Stamp(number + 2, 1))
    returned = time.perf_counter()
    return (watcher.recv() - start) * 1000, (returned - start) * 1000


def main() -> None:
    """Print the distribution."""
    loads: list[Load] = []
    stop = threading.Event()
    with bench() as up:

        def ask() -> None:
            while not stop.is_set():
                loads.append(load(up.port, "/housing/predict", connections=16))

        watcher, theirs = multiprocessing.Pipe()
        background = threading.Thread(target=ask)
        watching = multiprocessing.get_context("spawn").Process(target=watch, args=(up.port, theirs), daemon=True)
        watching.start()
        background.start()
        try:
            times = [change(up, watcher, number) for number in range(CHANGES)]
        finally:
            stop.set()
            background.join()
            watcher.send("")
            watching.join()
        log, position, lines, bad = GatewayLog(up.writer.envoy), "", 0, 0
        while True:
            served, position = log.read(position)
            if not served:
                break
            lines, bad = lines + len(served), bad + sum(each.bad for each in served)
    print(f"{CHANGES} changes under load by {'wrk' if has_wrk() else 'Python'}, {lines} requests logged")
    print(pinned())
    for what, values in (("until the first reply", [t for t, _ in times]), ("until read back", [t for _, t in times])):
        cuts = statistics.quantiles(values, n=10)
        print(f"{what:24}p50 {statistics.median(values):6.1f} ms   p90 {cuts[8]:6.1f} ms   max {max(values):6.1f} ms")
    print(f"failed: {sum(each.failed for each in loads)} seen by the load, {bad} bad in the log")
    print(f"goal: p90 at most {GOAL:.0f} ms, nothing failed")


if __name__ == "__main__":
    main()
