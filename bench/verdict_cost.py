"""This file prints what a look costs: a judgement and a guardrail's bucket, beside a plain z test in the same run.

Rules. The engine looks on every outcome, so a look has to cost microseconds. All are timed in turn, in rounds: the
fastest round is the cost, the median of the rounds' ratios is the ratio. Run: python bench/verdict_cost.py
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from branchline.core.evidence import Plan, Stratum, Sums, judge
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.ratio_check import mismatch
from branchline.core.traffic import assigned

ROUNDS, LOOKS = 21, 2000
GOAL = 20.0  # microseconds a judgement


def plain_z(n0: int, e0: int, n1: int, e1: int) -> float:
    """The p value of the two-proportion z test, that must not be looked at twice."""
    rate = (e0 + e1) / (n0 + n1)
    z = (e1 / n1 - e0 / n0) / math.sqrt(rate * (1 - rate) * (1 / n0 + 1 / n1))
    return math.erfc(abs(z) / math.sqrt(2))


def timed(look: Callable[[], object]) -> float:
    """The microseconds that one look takes."""
    start = perf_counter()
    for _ in range(LOOKS):
        look()
    return (perf_counter() - start) / LOOKS * 1e6


def main() -> None:
    binary, plan = Stratum(Sums(5000, 500, 500), Sums(5000, 560, 560)), Plan(mde=0.02)
    numbers = Stratum(Sums(5000, 50_000, 520_000), Sums(5000, 50_100, 522_000))
    ramp = [binary] * 5
    guard = Guard(Guardrail(tick=100)).update(900, 9, 100, 1)
    seen = judge([binary], plan)
    table = (("alex", 1000), ("incumbent", 9000))
    looks: dict[str, Callable[[], object]] = {
        "plain z test": lambda: plain_z(5000, 500, 5000, 560),
        "add an outcome": lambda: binary.control.add(1.0),
        "judge, binary": lambda: judge([binary], plan),
        "judge, numbers": lambda: judge([numbers], plan),
        "judge, 5 strata": lambda: judge(ramp, plan),
        "guard, a request": lambda: guard.update(0, 0, 1, 0, share=0.1),
        "guard, a minute": lambda: guard.update(900, 9, 100, 1),
        "sample ratio": lambda: mismatch([5000, 5000], [50, 50]),
        "interval": lambda: seen.half_width,
        "assign a unit": lambda: assigned(table, "user-1234567890", "exp-7"),
    }
    rounds = [{name: timed(look) for name, look in looks.items()} for _ in range(ROUNDS)]
    print(f"{'':18}{'µs':>8}{'ratio':>8}")
    for name in looks:
        ratio = statistics.median(each[name] / each["plain z test"] for each in rounds)
        print(f"{name:18}{min(each[name] for each in rounds):8.2f}{ratio:8.1f}")
    worst = max(min(each[name] for each in rounds) for name in ("judge, binary", "judge, numbers"))
    print(f"\na judgement: {worst:.1f} µs, asked at most {GOAL:.0f}")


if __name__ == "__main__":
    main()
