"""This file prints how long a new Envoy takes to take over from an old one under load, and what failed meanwhile.

Rules. Half of the load keeps its connections, half opens one for each request: those are what is lost where sockets are
closed. The old process is given two seconds for what it has begun. Run: python bench/replacement.py
"""

from __future__ import annotations

import http.client
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import Load, bench, has_wrk, load, pinned

from branchline.adapters.envoy import binary
from branchline.adapters.envoy_router import RouteWriter

REPLACEMENTS = 10
STRANGERS = 8  # threads whose every request is a connection of its own
GRACE = 2


def strange(port: int, over: threading.Event, met: list[int]) -> None:
    """Ask on ever new connections; no answer is status 0."""
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/housing/predict")
            met.append(connection.getresponse().status)
        except (OSError, http.client.HTTPException):
            met.append(0)
        finally:
            connection.close()


def replaced(writer: RouteWriter, program: Path) -> float:
    """One replacement; seconds until the new process has the port."""
    program.write_text(f'#!/bin/sh\nexec {binary({})} "$@"\n')
    program.chmod(0o755)
    os.environ["BRANCHLINE_ENVOY"] = str(program)
    begun = time.perf_counter()
    writer.ensure()
    took = time.perf_counter() - begun
    while writer.envoy.leaving:
        time.sleep(0.01)
    return took


def main() -> None:
    """Print the distribution."""
    loads: list[Load] = []
    met: list[int] = []
    over = threading.Event()
    with bench() as up, tempfile.TemporaryDirectory() as folder:
        at = up.writer.envoy.folder
        writer = RouteWriter(at, at.parent, ingest=at.parent / "i.sock", concurrency=1, leaving_seconds=GRACE)

        def ask() -> None:
            while not over.is_set():
                loads.append(load(up.port, "/housing/predict", connections=16))

        threads = [threading.Thread(target=ask)]
        threads += [threading.Thread(target=strange, args=(up.port, over, met)) for _ in range(STRANGERS)]
        for thread in threads:
            thread.start()
        try:
            took = [replaced(writer, Path(folder) / f"envoy-{number}") for number in range(REPLACEMENTS)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
    print(f"{REPLACEMENTS} replacements under load by {'wrk' if has_wrk() else 'Python'} and {STRANGERS} strangers")
    print(pinned())
    print(f"until it has the port    p50 {statistics.median(took):5.2f} s   max {max(took):5.2f} s")
    print(
        f"kept connections: {sum(each.count for each in loads)} requests, {sum(each.failed for each in loads)} failed"
    )
    print(f"new connections:  {len(met)} requests, {sum(status != 200 for status in met)} failed")
    print("goal: nothing failed")


if __name__ == "__main__":
    main()
