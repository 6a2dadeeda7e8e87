"""This file measures how soon a command answers: `--help` and `status`, against a bare interpreter and `dvc --help`.

The limit is `python -c "import argparse, json, sqlite3"`: what any command line of that kind pays before its first own
line. `status` asks a daemon that runs, in a scratch repository without a service. The commands take turns in one run,
in another order each round, and what counts is the median of each round's ratios. dvc is measured where there is one:
`python bench/startup.py --dvc PATH`, or on the PATH.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROUNDS = 21
BARE = (sys.executable, "-c", "import argparse, json, sqlite3")
BRANCHLINE = (sys.executable, "-m", "branchline.cli.main")
# Without bytecode every start compiles every module again: nobody's everyday.
SLOWING = {"PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_START"}
ENVIRON = {name: value for name, value in os.environ.items() if name not in SLOWING}


def seconds(command: Sequence[str], folder: Path) -> float:
    """How long a command takes from its start to its end."""
    begun = time.perf_counter()
    subprocess.run(command, cwd=folder, env=ENVIRON, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def repository(folder: Path) -> None:
    """A scratch repository with one commit."""
    person = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org")
    subprocess.run(("git", "init", "--quiet", "--initial-branch=main"), cwd=folder, check=True)
    subprocess.run(("git", *person, "commit", "--quiet", "--allow-empty", "-m", "Begin"), cwd=folder, check=True)


def measured(commands: dict[str, Sequence[str]], folder: Path) -> dict[str, list[float]]:
    """Seconds of each command by round, after one round that is not counted."""
    order = random.Random(7)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(ROUNDS + 1):
        for name in order.sample(sorted(commands), len(commands)):
            took = seconds(commands[name], folder)
            if turn:
                taken[name].append(took)
    return taken


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dvc", default=shutil.which("dvc"), help="the dvc to compare with")
    dvc = parser.parse_args().dvc
    commands: dict[str, Sequence[str]] = {
        "bare interpreter": BARE,
        "branchline --help": (*BRANCHLINE, "--help"),
        "branchline status": (*BRANCHLINE, "status"),
    }
    if dvc:
        commands["dvc --help"] = (dvc, "--help")
    with tempfile.TemporaryDirectory(prefix="branchline-bench-") as name:
        folder = Path(name)
        repository(folder)
        seconds((*BRANCHLINE, "up"), folder)
        try:
            taken = measured(commands, folder)
        finally:
            seconds((*BRANCHLINE, "down"), folder)
    print(f"{'':20} {'median':>8} {'x bare':>8}" + (f" {'x dvc':>8}" if dvc else ""))
    for command, times in taken.items():
        line = f"{command:20} {1000 * statistics.median(times):5.0f} ms {ratio(times, taken['bare interpreter']):8.2f}"
        print(line + (f" {ratio(times, taken['dvc --help']):8.2f}" if dvc else ""))
    if not dvc:
        print("dvc is not here; to compare: python bench/startup.py --dvc PATH")


if __name__ == "__main__":
    main()
