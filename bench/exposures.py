"""This file prints how many requests a second the reader of the gateway's log keeps up with, and how many there can be.

Rules. The lines are the gateway's own, written under load, each from a unit as `wrk` names them; reading and keeping
them in the ledger is done as the daemon does it, in one thread. Run: python bench/exposures.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import bench, has_wrk, load, pinned

from branchline.adapters.envoy_meter import GatewayLog
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_observations import SqliteObservations

LOADS = 5


def main() -> None:
    """Print both rates, and how far behind the reader was when the load ended."""
    with bench() as up, tempfile.TemporaryDirectory() as folder:
        meter = GatewayLog(up.writer.envoy)
        kept = SqliteObservations(SqliteFile(Path(folder) / "ledger.sqlite3"))
        begun = time.perf_counter()
        rates = [load(up.port, "/housing/predict", connections=16).rate for _ in range(LOADS)]
        under = time.perf_counter() - begun
        time.sleep(0.1)
        behind = meter.behind(kept.position())
        lines, reading, keeping = 0, 0.0, 0.0
        while True:
            start = time.perf_counter()
            served, position = meter.read(kept.position())
            read = time.perf_counter()
            if not served:
                break
            kept.take([each for each in served if each.experiment], position)
            lines, reading, keeping = lines + len(served), reading + read - start, keeping + time.perf_counter() - read
    print(f"{lines} requests under load by {'wrk' if has_wrk() else 'Python'} in {under:.1f} s")
    print(pinned())
    print(f"served          {sum(rates) / len(rates):8.0f} a second, one worker thread")
    print(f"read            {lines / reading:8.0f} a second")
    print(f"read and kept   {lines / (reading + keeping):8.0f} a second")
    print(f"behind          {behind.lines} lines, {behind.bytes >> 20} MiB, {behind.seconds:.1f} s before it began")


if __name__ == "__main__":
    main()
