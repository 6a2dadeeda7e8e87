"""This file measures what an edit of one module costs a build of 200, up to the keys of its steps, inside the engine.

Each of 100 steps reaches 15 modules of 15 functions. Measured is what is done in the daemon when one function has
changed: its module parsed anew, the graph linked, the key of every step, and the closure of those that it reaches;
git's list of the files is given, and all other modules are remembered by their content. Beside it, in the same run:
the same keys with nothing remembered, and SHA-256 over all the files, the least of a tool that remembers nothing. Only
the standard library and `branchline.core` are needed, so any Python 3.11+ runs it:
PYTHONPATH=. python3.13 bench/edit.py
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import TypeVar

from branchline.core import source
from branchline.core.closure import File, Project, closure_of
from branchline.core.reuse import key

FUNCTIONS, GROUP = 15, 31
Answer = TypeVar("Answer")
TARGET = 0.060  # seconds, on 3.12 and newer


def module(number: int, salt: int) -> bytes:
    """The text of a module: a tree of functions, whose last one calls the two modules that are below in its group."""
    group, place = divmod(number, GROUP)
    below = [group * GROUP + each for each in (2 * place + 1, 2 * place + 2) if each < GROUP]
    lines = ["import math", *(f"from m{each:03} import f0 as m{each}" for each in below), f"RATE = {number}"]
    for n in range(FUNCTIONS):
        calls = [f"f{each}(x)" for each in (2 * n + 1, 2 * n + 2) if each < FUNCTIONS]
        calls += [f"m{each}(x)" for each in below] if n == FUNCTIONS - 1 else []
        lines += [
            f"def f{n}(x):",
            f'    """Compute part {n}."""',
            "    total = 0.0",
            "    for each in range(3):",
            f"        total += math.sqrt(abs(x) + each) * RATE + {salt if n == 3 else n}",
            f"    return total + {' + '.join(calls) or 0}",
        ]
    return "\n".join(lines).encode()


class Engine:
    """What the daemon remembers between builds: modules by the digest of their content, and the newest project."""

    def __init__(self) -> None:
        self.known: dict[str, source.Module] = {}
        self.newest: Project | None = None

    def keys(self, files: dict[str, bytes], digests: dict[str, str], calls: list[str]) -> list[str]:
        """The key of each step."""

        def summary(path: str) -> source.Module:
            if digests[path] not in self.known:
                self.known[digests[path]] = source.summary(files[path])
            return self.known[digests[path]]

        held = {path: File(digests[path], len(text)) for path, text in files.items()}
        self.newest = project = Project(held, ("",), summary, self.newest)
        return [key(closure_of(project, call).lines) for call in calls]


def timed(act: Callable[[], Answer]) -> tuple[float, Answer]:
    """How long a call takes, in seconds, and what it returns."""
    begun = time.perf_counter()
    found = act()
    return time.perf_counter() - begun, found


def hashed(files: dict[str, bytes]) -> dict[str, str]:
    """The digest of every file."""
    return {path: sha256(text).hexdigest() for path, text in files.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--modules", type=int, default=200)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    chosen = parser.parse_args()
    files = {f"m{n:03}.py": module(n, 3) for n in range(chosen.modules)}
    calls = [f"steps:step{n}" for n in range(chosen.steps)]
    begins = [n % (chosen.modules // GROUP) * GROUP + 1 + n % 2 for n in range(chosen.steps)]
    step = "from m{:03} import f0 as begin{n}\ndef step{n}():\n    return begin{n}({n})\n"
    files["steps.py"] = "".join(step.format(at, n=n) for n, at in enumerate(begins)).encode()
    engine, before = Engine(), list[str]()
    rounds: list[tuple[float, float, float]] = []
    for number in range(-1, chosen.rounds):
        changed = random.choice(begins)
        files[f"m{changed:03}.py"] = module(changed, 1000 + number)
        limit, digests = timed(partial(hashed, files))
        edited, now = timed(partial(engine.keys, files, digests, calls))
        assert now != before, "an edit has to change a key"
        before = now
        if number >= 0:  # the first time nothing was remembered
            rounds.append((edited, timed(partial(Engine().keys, files, digests, calls))[0], limit))
    middle = statistics.median
    edited, cold, limit = (middle(column) * 1e3 for column in zip(*rounds, strict=True))
    saved, times = middle(b / a for a, b, _ in rounds), middle(a / c for a, _, c in rounds)
    size, python = sum(map(len, files.values())) >> 10, ".".join(map(str, sys.version_info[:3]))
    print(f"{chosen.modules} modules, {size} KiB, {chosen.steps} steps, Python {python}")
    print(f"one function edited   {edited:7.1f} ms   asked at most {TARGET * 1e3:.0f} ms on 3.12 and newer")
    print(f"nothing remembered    {cold:7.1f} ms   edited is 1/{saved:.1f} of it")
    print(f"SHA-256 of all files  {limit:7.1f} ms   edited is {times:.0f} times that")


if __name__ == "__main__":
    main()
