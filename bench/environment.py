"""This file measures environments: built from a warm cache and reused, against a hard-link copy.

The limit is what the file system itself takes to make the same tree again: `cp -al` of the virtual environment.
Bytecode is compiled once per lock, before the first start, and stands in a line of its own. Ratios of one run; medians.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from branchline.adapters import uv

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
ROUNDS = 5


def seconds(act: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    act(*arguments, **options)
    return time.perf_counter() - begun


def row(name: str, taken: list[float], limit: float) -> None:
    """Print one line."""
    middle = statistics.median(taken)
    print(f"{name:42} {middle:8.3f} s   {middle / limit:6.2f} x the copy")


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="branchline-bench-") as name:
        home = Path(name)
        (home / "service").mkdir()
        shutil.copy(LOCK, home / "service" / "requirements.lock")
        environments = uv.UvEnvironments(home / "state")
        built = environments.ensure("bench", home / "service", "")  # warms uv's cache
        venv = built.python.parents[1]
        lock, interpreter = home / "service" / "requirements.lock", environments.interpreter("bench", "")[0]
        copies, installs, reuses = [], [], []
        for number in range(ROUNDS):
            copy, fresh = str(home / f"copy-{number}"), home / f"fresh-{number}" / "venv"
            copies.append(seconds(subprocess.run, ["cp", "-al", str(venv), copy], check=True))
            installs.append(seconds(environments.install, "bench", lock, interpreter, fresh))
            reuses.append(seconds(environments.ensure, "bench", lock.parent, ""))
        compiles = [seconds(uv.compiled, home / "fresh-0")]
        limit = statistics.median(copies)
        files = sum(1 for _ in venv.rglob("*"))
        print(f"{built.packages} packages, {files} files; median of {ROUNDS}")
        row("limit: hard-link copy", copies, limit)
        row("environment from its lock, cache warm", installs, limit)
        row("the same lock again: reused, files checked", reuses, limit)
        row("bytecode, once for a lock", compiles, limit)


if __name__ == "__main__":
    main()
