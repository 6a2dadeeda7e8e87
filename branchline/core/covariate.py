"""This file takes out of a metric what was known of a unit before the experiment: CUPED.

Rules. The covariate x of a unit is from before its first exposure, so no arm can have changed it; a unit of which
nothing was known brings the same number in both arms, best the incumbent's mean. θ = cov(x, y)/var(x), pooled over arms
and strata, is estimated from the data so far (Deng, Xu, Kohavi, Walker 2013). At a correlation ρ with the metric it
takes 1 − ρ² of the units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from branchline.core.decision import EVEN_SPLIT, ROUNDING, Judgement, Plan, combined, decision, refusal
from branchline.core.evidence import MIN_UNITS_OF_A_STRATUM, Stratum, Sums, shortage
from branchline.core.ratios import Pairs, PairStratum


def judge_adjusted(strata: Sequence[PairStratum], plan: Plan, ended: str = "") -> Judgement:
    """Judge the difference of two means of y, less what their x foretold; refused by the rules of a mean of y."""
    thick = [s for s in strata if min(s.control.n, s.challenger.n) >= MIN_UNITS_OF_A_STRATUM]
    units = sum(s.control.n for s in thick), sum(s.challenger.n for s in thick)
    means = [Stratum(_of_y(s.control), _of_y(s.challenger)) for s in thick]
    binary = all(arm.squares == arm.total for s in means for arm in (s.control, s.challenger))
    estimate, variance = adjusted_difference(thick) if thick else (math.nan, math.nan)
    if refused := shortage(means, units, plan, binary=binary):
        return refusal(refused, plan, estimate, variance, units, ended)
    return decision(estimate, variance, plan, units, ended)


def adjusted_difference(strata: Sequence[PairStratum]) -> tuple[float, float]:
    """The adjusted difference and its variance; a covariate that is the same for all adjusts nothing."""
    centred = [(s, _centred(s.control), _centred(s.challenger)) for s in strata]
    xx = sum(arm[2] for _, *arms in centred for arm in arms)
    theta = sum(arm[1] for _, *arms in centred for arm in arms) / xx if xx else 0.0
    parts = []
    for stratum, control, challenger in centred:
        n0, n1 = stratum.control.n, stratum.challenger.n
        spread0, spread1 = _residue(stratum.control, control, theta), _residue(stratum.challenger, challenger, theta)
        if EVEN_SPLIT[0] <= n1 / (n0 + n1) <= EVEN_SPLIT[1]:
            own = spread0 / (n0 * (n0 - 1)) + spread1 / (n1 * (n1 - 1))
        else:
            own = (spread0 + spread1) / (n0 + n1 - 2) * (1 / n0 + 1 / n1)
        gain = stratum.challenger.y / n1 - stratum.control.y / n0
        parts.append((n0, n1, gain - theta * (stratum.challenger.x / n1 - stratum.control.x / n0), own))
    return combined(parts)


def _of_y(arm: Pairs) -> Sums:
    return Sums(arm.n, arm.y, arm.yy)


def _centred(arm: Pairs) -> tuple[float, float, float]:
    """An arm's sums of y², xy and x² about its means; of x² 0 where rounding leaves no more."""
    xx = arm.xx - arm.x * arm.x / arm.n
    xy = arm.xy - arm.x * arm.y / arm.n
    return arm.yy - arm.y * arm.y / arm.n, xy, 0.0 if xx <= ROUNDING * arm.xx else xx


def _residue(arm: Pairs, centred: tuple[float, float, float], theta: float) -> float:
    """The sum of squares of y − θx about its mean; 0 where rounding leaves no more."""
    yy, xy, xx = centred
    residue = yy - theta * (2 * xy - theta * xx)
    return 0.0 if residue <= ROUNDING * arm.yy < math.inf else residue
