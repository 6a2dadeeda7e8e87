"""This file judges a ratio of sums, such as clicks per view or failures per request: the delta method over units.

Rules. Units are counted, not requests: the requests of one unit are alike, and treated as independent they would make a
false claim in every sixth test. Each unit brings y and x once; an arm's ratio is R = Σy/Σx and its variance
(Σy² − 2RΣxy + R²Σx²)/(Σx)² (Deng, Knoblich, Lu 2018). The six sums of an arm serve a covariate as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from branchline.core.decision import ROUNDING, Judgement, Plan, combined, decision, refusal

MIN_UNITS = 50
MIN_UNITS_OF_A_STRATUM = 2


@dataclass(frozen=True, slots=True)
class Pairs:
    """What is kept of one arm whose units bring two numbers: how many, and the sums of y, x, y², xy and x²."""

    n: int = 0
    y: float = 0.0
    x: float = 0.0
    yy: float = 0.0
    xy: float = 0.0
    xx: float = 0.0

    def add(self, y: float, x: float) -> Pairs:
        """The sums with one more unit."""
        return Pairs(self.n + 1, self.y + y, self.x + x, self.yy + y * y, self.xy + x * y, self.xx + x * x)

    @classmethod
    def of(cls, values: Iterable[tuple[float, float]]) -> Pairs:
        """The sums of all the pairs (y, x)."""
        sums = cls()
        for y, x in values:
            sums = sums.add(y, x)
        return sums


@dataclass(frozen=True, slots=True)
class PairStratum:
    """Both arms under one bucket table against one incumbent."""

    control: Pairs = Pairs()
    challenger: Pairs = Pairs()


def judge_ratio(strata: Sequence[PairStratum], plan: Plan, ended: str = "") -> Judgement:
    """Judge the difference of two ratios over all strata; `plan.min_units` is usually 50 here."""
    thick = [s for s in strata if min(s.control.n, s.challenger.n) >= MIN_UNITS_OF_A_STRATUM]
    units = sum(s.control.n for s in thick), sum(s.challenger.n for s in thick)
    estimate, variance, refused = math.nan, math.nan, ""
    if min(units) < plan.min_units or not thick:
        refused = f"{min(units)} of {plan.min_units} units in an arm"
    elif not all(s.control.x > 0 and s.challenger.x > 0 for s in thick):
        refused = "the sum under the ratio is not above 0 in an arm"
    else:
        estimate, variance = ratio_difference(thick)
    if refused:
        return refusal(refused, plan, estimate, variance, units, ended)
    return decision(estimate, variance, plan, units, ended)


def ratio_difference(strata: Sequence[PairStratum]) -> tuple[float, float]:
    """The difference of ratios and its variance, over strata whose x sum to more than 0 in both arms."""
    parts = []
    for stratum in strata:
        (r0, v0), (r1, v1) = _ratio(stratum.control), _ratio(stratum.challenger)
        parts.append((stratum.control.n, stratum.challenger.n, r1 - r0, v0 + v1))
    return combined(parts)


def _ratio(arm: Pairs) -> tuple[float, float]:
    """An arm's ratio and its variance; 0 where rounding leaves no more."""
    ratio = arm.y / arm.x
    residue = arm.yy - ratio * (2 * arm.xy - ratio * arm.xx)
    return ratio, 0.0 if residue <= ROUNDING * arm.yy < math.inf else residue / (arm.x * arm.x)
