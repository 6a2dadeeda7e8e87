"""This file measures what it costs to execute a step that does nothing: in a warm worker and in a fresh process.

Both go the whole way: the order, a supervisor, folder and variables set, the service's module imported, the result
written, the tree swept, the answer; the fresh one starts the supervisor of a worker and the worker besides, two
interpreters. The limits are of the same run: a fork that ends at once, of a process that is as large, and `python -S -c
pass`. What is compared takes turns, in another order each round; medians, and of the ratios the median of each round's.
`--import NAME ...` gives the worker packages to hold, as a service's would.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import branchline
from branchline.adapters.workers import WarmWorkers
from branchline.ports import Bench

ROUNDS = 200
FRESH = 20  # of them, for what takes long
SDK = Path(branchline.__file__).parents[1]
SLOWING = {"PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_START"}
ENVIRON = {name: value for name, value in os.environ.items() if name not in SLOWING}
BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "0"}


def service(home: Path, names: Sequence[str]) -> dict[str, Any]:
    """Write a service of one step, and say its order."""
    (home / "service").mkdir()
    imports = "".join(f"import {name}\n" for name in names)
    (home / "service" / "steps.py").write_text(f"{imports}def nothing():\n    return None\n")
    return {
        "step": "nothing",
        "call": "steps:nothing",
        "output": str(home / "out"),
        "log": str(home / "logs" / "nothing"),
        "cwd": str(home / "service"),
        "env": {**BASE, "PYTHONPATH": f"{SDK}:{home / 'service'}"},
    }


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def forked() -> None:
    """A process that ends at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def bare() -> None:
    """An interpreter that does nothing."""
    subprocess.run((sys.executable, "-S", "-c", "pass"), env=ENVIRON, check=True)


def measured(acts: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each by round, after one round that is not counted."""
    order = random.Random(7)
    taken: dict[str, list[float]] = {name: [] for name in acts}
    for turn in range(rounds + 1):
        for name in order.sample(sorted(acts), len(acts)):
            took = seconds(acts[name])
            if turn:
                taken[name].append(took)
    return taken


def table(taken: dict[str, list[float]], limit: str) -> None:
    """Print medians, tenths, and ratios to the limit."""
    for name, these in taken.items():
        ratio = statistics.median(this / that for this, that in zip(these, taken[limit], strict=True))
        tenths = statistics.quantiles(these, n=10)
        print(f"{name:<34} {statistics.median(these) * 1e3:7.2f} ms   "
              f"p10 {tenths[0] * 1e3:7.2f}   p90 {tenths[-1] * 1e3:7.2f}   x {ratio:.2f}")  # fmt: skip


def main() -> None:
    """Measure."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--import", dest="names", nargs="*", default=[], metavar="NAME")
    names = words.parse_args().names
    for name in names:
        importlib.import_module(name)  # so that our own forks are as large as the worker's
    with tempfile.TemporaryDirectory() as folder:
        order = service(Path(folder), names)
        bench = Bench(Path(sys.executable), SDK, BASE)
        warm = WarmWorkers(Path(folder) / "workers")
        started = [warm]

        def step() -> None:
            answer = warm.do(bench, order)
            assert answer["ok"], answer

        def fresh() -> None:
            started.append(WarmWorkers(Path(folder) / "fresh"))
            answer = started[-1].do(bench, order)
            assert answer["ok"], answer

        table(measured({"a fork": forked, "a step, warm": step}, ROUNDS), "a fork")
        table(measured({"python -S -c pass": bare, "a step, in a fresh worker": fresh}, FRESH), "python -S -c pass")
        for workers in started:
            workers.close()


if __name__ == "__main__":
    main()
