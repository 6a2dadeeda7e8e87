"""This file measures what the engine itself takes to find that nothing of 100 steps and a join has to run again.

Everything is real but the daemon around it: ledger, store and environment of a repository in which the steps were run
once. Measured is the build alone, between the order and the last step's word, in this process; beside it, in the same
rounds, the least that any tool must do: one `os.stat` of each input, and SHA-256 of what git says of the tree.
Run small: python bench/noop.py --steps 20 --rounds 3
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from build import Ours

from branchline.adapters.envoy_meter import GatewayLog
from branchline.adapters.envoy_router import RouteWriter
from branchline.app import ports_of
from branchline.engine.building import build
from branchline.engine.preparing import prepare, spec_at
from branchline.engine.progress import Progress
from branchline.settings import settings_of

TARGET = 15.0  # ms


def least(folder: Path) -> None:
    """Look at each input, and hash what git says of the tree."""
    for each in (folder / "fan" / "in").iterdir():
        os.stat(each)
    listed = subprocess.run(["git", "-C", str(folder), "ls-tree", "-r", "HEAD"], capture_output=True, check=True).stdout
    hashlib.sha256(listed).hexdigest()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=30)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch:
        folder = Path(scratch) / "ours"
        folder.mkdir()
        ours = Ours(folder, chosen.steps)
        try:
            ours.run()
        finally:
            ours.end()
        settings = settings_of(folder, folder / ".git")
        writer = RouteWriter(settings.state / "gateway", settings.runtime, ingest=settings.ingest)
        ports = ports_of(settings, writer, GatewayLog(writer.envoy))
        commit = ports.repository.fetch()["main"]
        prepared = prepare(ports, spec_at(ports, "fan", commit), commit)
        took: list[tuple[float, float]] = []
        for _ in range(chosen.rounds):
            begun = time.perf_counter()
            runs = build(ports, prepared, Progress(), "bench")
            between = time.perf_counter()
            assert {run.state for run in runs} == {"reused"}, "something had to run"
            least(folder)
            took.append((between - begun, time.perf_counter() - between))
    mine, limit = (statistics.median(column) * 1e3 for column in zip(*took, strict=True))
    ratio = statistics.median(a / b for a, b in took)
    print(f"nothing to do, {chosen.steps} steps and a join, median of {chosen.rounds} rounds")
    print(f"the engine alone     {mine:6.1f} ms   asked at most {TARGET:.0f} ms")
    print(f"stat and one digest  {limit:6.1f} ms   the engine takes {ratio:.1f} times that")


if __name__ == "__main__":
    main()
