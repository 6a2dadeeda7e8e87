"""This file prints what experiments on a harm budget cost, and how much longer a good one takes for it.

Challengers that do harm, of every size from hardly any to all, are put to the shipped rule (`core/harm.py`) beside the
shipped judge, as `tests/costing.py` plays them. The harm that counts is the true one. Good challengers get their
verdict on the same terms, beside an even split from the start. Seeded.
Run: python bench/harm.py [BAD CHALLENGERS GOOD ONES]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean, quantiles

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from branchline.core.planning import proportion
from tests.costing import EVERY, RATE, bad, other

ENDED = ("promote", "futile", "harmful")


def harmful(runs: int, world: str, window: float, budget: float) -> None:
    """Challengers that do harm, of every size: how many cost more than they may."""
    played = [bad(number, budget, world, window) for number in range(runs)]
    costs = sorted(each.cost for each in played)
    over = sum(cost > budget for cost in costs)
    low, high = proportion(over, runs)
    mean, top = fmean(costs) / budget, quantiles(costs, n=20)[-1] / budget
    ends = ", ".join(f"{n / runs:.0%} {end}" for end, n in Counter(each.ended for each in played).most_common())
    told = f"{over / runs:9.1%} [{low:.1%}, {high:.1%}]{mean:9.0%}{top:7.0%}"
    print(f"{world:10}{window:9,.0f}{budget:8g}{told}   {ends}", flush=True)


def harmless(runs: int, effect: float, window: float, budget: float) -> None:
    """Challengers that do none: how much longer the verdict takes than with an even split from the start."""
    even = [other(number, effect, window=window) for number in range(runs)]
    kept = [other(number, effect, budget, window) for number in range(runs)]
    fixed = fmean(each.at for each in even)
    took = fmean([each.at for each in kept if each.ended in ENDED] or [0.0])
    ends = ", ".join(f"{n / runs:.0%} {end}" for end, n in Counter(each.ended for each in kept).most_common())
    promoted = sum(each.ended == "promote" for each in even) / runs
    print(f"{effect:+10g}{window:9,.0f}{budget:8g}{fixed:10,.0f}{took:9,.0f}{took / fixed:8.2f}   {ends}; even: "
          f"{promoted:.0%} promote", flush=True)  # fmt: skip


def main(words: list[str]) -> None:
    """Bad challengers, then others."""
    many, few = (int(word) for word in words) if words else (1000, 200)
    began = time.perf_counter()
    print(f"{many:,} bad challengers each: base rate {RATE:g}, harm of 0.002 to 0.1 a unit, a look every {EVERY} units")
    print(f"{'base rate':10}{'window s':>9}{'budget':>8}{'over it':>9}{'':15}{'mean':>8}{'95 %':>7}   ended")
    for world, window, budget in (
        ("steady", 0, 20), ("steady", 0, 60), ("steady", 60, 60), ("drifting", 0, 60), ("weekdays", 60, 60),
    ):  # fmt: skip
        harmful(many, world, window, budget)
    print(
        f"\n{few:,} others each, and the outcomes of both arms until the verdict: even split, on a budget, their ratio"
    )
    print(f"{'effect':>10}{'window s':>9}{'budget':>8}{'even':>10}{'budget':>9}{'ratio':>8}   ended")
    for effect, window, budget in (
        (0.01, 0, 30), (0.01, 0, 60), (0.01, 0, 120), (0.01, 60, 60), (0.02, 0, 30), (0.0, 0, 60), (0.0, 0, 120),
    ):  # fmt: skip
        harmless(few, effect, window, budget)
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
