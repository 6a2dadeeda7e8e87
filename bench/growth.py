"""This file draws how the time of a build grows with its steps, and that of the store with the size of an artifact.

Builds are whole processes of `branchline run` with the daemon up, beside `dvc repro` on as many stages; artifacts are
put, put again with 1 % inserted, and laid out, each by a process of its own, with the peak of its memory. Medians; what
is measured beside DVC takes turns. Matplotlib, in an environment of its own, draws `docs/growth.svg`.
Run small: python bench/growth.py --steps 10 30 --sizes 10 32 --rounds 1
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import build
import store
from _peers import ROOT
from _plot import Curves, draw

PLOT = ROOT / "docs" / "growth.svg"


def builds(folder: Path, steps: Sequence[int], rounds: int, peer: int) -> Curves:
    """Seconds of builds by their number of steps; DVC's up to `peer` steps, for its first run takes minutes."""
    curves: Curves = {}
    for number in steps:
        (folder / f"{number}").mkdir()
        names = ("ours", "dvc") if number <= peer else ("ours",)
        tools = {name: build.TOOLS[name](folder / f"{number}" / name, number) for name in names}
        try:
            found = build.measured(tools, rounds)
        finally:
            for tool in tools.values():
                tool.end()
        for what, by_tool in found.items():
            for name, seconds in by_tool.items():
                label = {"ours": "", "dvc": "DVC: "}[name] + what
                curves.setdefault(label, []).append((number, statistics.median(seconds)))
        print(number, "steps:", {label: round(points[-1][1], 3) for label, points in curves.items()
                                 if points[-1][0] == number})  # fmt: skip
    return curves


def artifacts(folder: Path, sizes: Sequence[int], rounds: int) -> tuple[Curves, Curves]:
    """Seconds and the peak of memory (MiB) of the store's deeds by the size of one file, in MiB."""
    seconds: Curves = {}
    memory: Curves = {}
    for size in sizes:
        taken: dict[str, list[store.Step]] = {}
        for _ in range(rounds):
            work = Path(tempfile.mkdtemp(dir=folder))
            ours = store.Ours(work / "ours")
            for name, before, act in store.steps(work, size, 0):
                if name in ("put", "1 % inserted", "get"):
                    before()
                    taken.setdefault(name, []).append(act(ours))
            shutil.rmtree(work)
        for name, found in taken.items():
            seconds.setdefault(name, []).append((size, statistics.median(each[0] for each in found)))
            memory.setdefault(name, []).append((size, statistics.median(each[1] for each in found) / 1024))
        print(size, "MiB:", {name: f"{seconds[name][-1][1]:.2f} s, {memory[name][-1][1]:.0f} MiB" for name in taken})
    return seconds, memory


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, nargs="*", default=[10, 30, 100, 300, 999], help="and one that joins")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 64, 256, 1024, 4096], help="in MiB")
    parser.add_argument("--peer", type=int, default=100, help="the most steps that DVC runs, too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=PLOT)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="growth-", dir=ROOT / ".cache"))
    try:
        by_steps = builds(folder, chosen.steps, chosen.rounds, chosen.peer)
        seconds, memory = artifacts(folder, chosen.sizes, chosen.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = [
        ("A build", "steps", "seconds", by_steps),
        ("The artifact store", "MiB in one file", "seconds", seconds),
        ("Its memory", "MiB in one file", "MiB at most", memory),
    ]
    draw(told, chosen.plot)


if __name__ == "__main__":
    main()
