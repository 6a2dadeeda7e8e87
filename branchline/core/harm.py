"""This file keeps what an experiment may cost: the challenger's share grows as its harm is known, and stops at a bound.

Rules. Harm is what a unit of the challenger loses on the primary metric against the incumbent, at worst: the bound that
is wrong in 4 % at a look, and before that says anything what the bounds of the metric leave open, wrong in 1 % at all
looks together. No bound for all looks is needed for the first: whatever the harm of a unit is, there is one look from
which on the budget would be exceeded, known by the units alone, and the test goes on past that one only where the bound
is wrong there. (A verdict is another matter: it may come at any look.) All units that ever met the challenger count,
judged or not. The largest share is wanted whose units, until they have told, keep the worst case within the budget;
where it is reached the test ends. Another share begins another stratum, so each has to be worth one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from branchline.core.boundary import upper_quantile
from branchline.core.decision import Plan
from branchline.core.evidence import Stratum, Sums, judge

ERROR, ERROR_OF_BOUNDS = 0.04, 0.01  # together: in so many tests at most it costs more than it may
STEPS = (2, 5, 10, 20, 50)  # per cent; the last is what an even split would be
FEWEST = 100  # matured units of an arm before another share
LOOK = 5.0  # seconds until a challenger that is stopped has left traffic
HALVINGS = 50
SPENT = "the harm budget is spent"


@dataclass(frozen=True, slots=True)
class Advice:
    """What becomes of a challenger on a budget: the share that it should have, 0 for none any more; what it has cost at
    worst, in units of the metric; and why, in a line.
    """

    share: int
    worst: float
    reason: str


def shares(slots: int) -> tuple[int, ...]:
    """The shares that a challenger on a budget is given one after the other, in per cent."""
    even = 100 // (slots + 1)
    return (*(step for step in STEPS if step < even), even)


def advised(
    budget: float, slots: int, share: int, strata: Sequence[Stratum], now: Stratum, plan: Plan, *, units: int,
    pace: float, window: float,
) -> Advice:  # fmt: skip
    """Say which share a challenger should have that has `share` now, and how much it has cost at worst.

    `strata` are what has matured, `now` the one of the split that is shown; `units` have met the challenger, and `pace`
    of both arms come in a second; it takes `window` seconds until one has told. The plan has bounds.
    """
    each = loss(strata, plan)
    worst = each * units
    told = f"harm at worst {worst:.4g} of {budget:g} by {units:,} units, each worse by no more than {each:.3g}"
    if each * (units + pace * share / 100 * LOOK) > budget:
        return Advice(0, worst, f"{SPENT}: {told}")
    if min(now.control.n, now.challenger.n) < FEWEST:
        return Advice(share, worst, told)
    steps = shares(slots)
    fits = [step for step in steps if each * (units + pace * step / 100 * (window + LOOK)) <= budget]
    return Advice(fits[-1] if fits else steps[0], worst, told)


def loss(strata: Sequence[Stratum], plan: Plan) -> float:
    """The most that a unit of the challenger loses on average, at least 0."""
    judged, most = judge(strata, plan), by_bounds(strata, plan)
    if judged.estimate is not None and (judged.log_for or judged.log_against):  # else refused: too few for a variance
        found = judged.estimate if plan.direction == "lower" else -judged.estimate
        most = min(most, found + upper_quantile(ERROR) / math.sqrt(judged.information))
    return max(0.0, most)


def by_bounds(strata: Sequence[Stratum], plan: Plan) -> float:
    """The same from the bounds of the metric alone, however few have told: what both means can be, by their totals."""
    low, high = plan.bounds or (0.0, 1.0)
    good = [total(strata, mine, low, high, plan.direction) for mine in (False, True)]
    best = 1 - least(good[0].n, good[0].n - good[0].total, ERROR_OF_BOUNDS / 2)
    return (high - low) * (best - least(good[1].n, good[1].total, ERROR_OF_BOUNDS / 2))


def total(strata: Sequence[Stratum], mine: bool, low: float, high: float, direction: str) -> Sums:
    """Units of one arm and the sum of their values, where 0 is the worst that a value can be and 1 the best."""
    arms = [each.challenger if mine else each.control for each in strata]
    n, value = sum(arm.n for arm in arms), sum(arm.total for arm in arms)
    part = (value - n * low if direction == "higher" else n * high - value) / (high - low)
    return Sums(n, min(max(part, 0.0), float(n)))


def least(n: int, value: float, error: float) -> float:
    """The least that the mean of values between 0 and 1 can be, given the sum of so many: at every look together it is
    more than that with an error of at most `error`.

    The beta mixture of likelihood ratios (Robbins 1970), exact for zeros and ones; a value in between is a lottery for
    them with a smaller spread, so for any other it holds as well.
    """
    if not n or not value:
        return 0.0
    bar = -math.log(error) - _log_beta(value + 0.5, n - value + 0.5) + _log_beta(0.5, 0.5)
    low, high = 0.0, value / n
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rest = (n - value) * math.log1p(-middle) if value < n else 0.0
        low, high = (middle, high) if -value * math.log(middle) - rest >= bar else (low, middle)
    return low


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
