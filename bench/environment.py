"""This file measures environments, phase by phase: built from a warm cache, reused, known, against a hard-link copy.

The limit is what the file system itself takes to make the same tree again: `cp -al` of the virtual environment. The
lock is that of the example (NumPy, pandas, scikit-learn), or one that is named. Bytecode is compiled once per lock,
before the first start, and stands in lines of its own. Each round does every phase once, so all of them meet the same
machine; medians, and ratios of medians. Target: linking at most 0.25 s and 2.5 copies; an unchanged lock installs
nothing.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from branchline.adapters import uv
from branchline.adapters.uv_bytecode import compiled

LOCK = Path(__file__).resolve().parents[1] / "examples" / "housing" / "housing" / "requirements.lock"
ROUNDS = 7


def seconds(act: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    act(*arguments, **options)
    return time.perf_counter() - begun


def linked(venv: Path) -> float:
    """The share of an environment's files that are links to uv's cache: 0 where it is on another file system."""
    files = [path.lstat().st_nlink for path in venv.rglob("*.py")]
    return sum(count > 1 for count in files) / max(1, len(files))


def measured(environments: uv.UvEnvironments, lock: Path, home: Path, venv: Path) -> dict[str, float]:
    """One round: every phase once, in seconds."""
    interpreter = environments.interpreter("bench", "")[0]
    fresh = home / "venv"
    home.mkdir()
    copy = seconds(subprocess.run, ["cp", "-al", str(venv), str(home / "copy")], check=True)
    bare = seconds(environments.bare, "bench", interpreter, fresh)
    link = seconds(environments.link, "bench", lock, fresh)
    return {
        "limit: hard-link copy": copy,
        "an empty venv": bare,
        "linking what is locked": link,
        "environment from its lock, the two": bare + link,
        "writing down what was built": seconds(uv.recorded, home, lock.name),
        "looking at every file again": seconds(uv.manifest, venv),
        "the same lock again: reused, files looked at": seconds(environments.ensure, "bench", lock.parent, ""),
        "the same lock again: only its digest": seconds(environments.known, "bench", lock.parent, ""),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--lock", type=Path, default=LOCK)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="branchline-bench-") as name:
        home = Path(name)
        lock = home / "service" / given.lock.name
        lock.parent.mkdir()
        shutil.copy(given.lock, lock)
        environments = uv.UvEnvironments(home / "state")
        built = environments.ensure("bench", lock.parent, "")  # warms uv's cache
        venv = built.python.parents[1]
        rounds = [measured(environments, lock, home / f"round-{number}", venv) for number in range(given.rounds)]
        compiling = {
            "bytecode, once for a lock": seconds(compiled, home / "round-0"),
            "bytecode, where another lock had the same": seconds(compiled, home / "round-1", [home / "round-0"]),
        }
        middle = {phase: statistics.median(each[phase] for each in rounds) for phase in rounds[0]}
        limit = middle["limit: hard-link copy"]
        print(f"{built.packages} packages, {len(uv.manifest(venv))} files, {linked(venv):.0%} linked to uv's cache")
        print(f"median of {given.rounds} rounds")
        for phase, taken in {**middle, **compiling}.items():
            print(f"{phase:46} {taken * 1000:8.1f} ms   {taken / limit:6.2f} x the copy")


if __name__ == "__main__":
    main()
