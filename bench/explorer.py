"""This file prints how many states of the law there are, and how fast they are tried.

A state is a service and the world around it; each is checked with all invariants. The fence is the space of two
controllers. Run: python bench/explorer.py [WORD OF A SCENARIO'S NAME ...]; with --write the tests expect what it found.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.explorer import explore
from tests.fencing import Mode, fence
from tests.found import write
from tests.scenarios import SCENARIOS, SMALL


def main(words: list[str]) -> None:
    """Explore every scenario, or those that have a word in their name."""
    words, writing = [word for word in words if word != "--write"], "--write" in words
    all_found = {}
    states, seconds = 0, 0.0
    print(f"{'scenario':36}{'states':>12}{'services':>10}{'repair':>8}{'seconds':>9}{'states/s':>10}")
    for scenario in (*SMALL, *SCENARIOS):
        if words and not any(word in scenario.name for word in words):
            continue
        found = all_found[scenario.name] = explore(scenario)
        states, seconds = states + found.states, seconds + found.seconds
        pace = found.states / max(found.seconds, 1e-9)
        told = f"{scenario.name:36}{found.states:>12,}{found.services:>10,}{found.repair:>8}{found.seconds:>9.1f}"
        print(f"{told}{pace:>10,.0f}", flush=True)
    print(f"{'all':36}{states:>12,}{'':>18}{seconds:>9.1f}{states / max(seconds, 1e-9):>10,.0f}")
    if writing and not words:
        write(all_found)
    for mode in Mode if not words else ():
        size, harm = fence(mode)
        print(f"fence, {mode.value}: {size:,} states, {harm:,} harmful late steps")


if __name__ == "__main__":
    main(sys.argv[1:])
