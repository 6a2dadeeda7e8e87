"""This file keeps what was counted of both arms in the form that a metric wants, and judges it.

A mean is kept as sums of values, a ratio and a mean with a covariate as sums of pairs. The form is part of the plan, so
whoever has plan and sums (the judge, who judges again, who checks a dossier) judges by the one function in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from branchline.core.covariate import judge_adjusted
from branchline.core.decision import Judgement, Plan
from branchline.core.evidence import Stratum, Sums, judge
from branchline.core.ratios import Pairs, PairStratum, judge_ratio

Arm = Sums | Pairs
Arms = Stratum | PairStratum  # both arms under one bucket table against one incumbent


def added(arms: Arms | None, plan: Plan | None, mine: bool, value: float, other: float) -> Arms:
    """What is counted with one more unit, of the challenger (`mine`) or the incumbent; None: of nothing yet.

    `value` is cut at the plan's cap. `other` is the second number of a pair, and asked for by no mean.
    """
    if plan is not None and plan.cap is not None:
        value = min(value, plan.cap)
    name = "challenger" if mine else "control"
    if plan is None or plan.form == "mean":
        means = cast(Stratum, arms or Stratum())
        return replace(means, **{name: getattr(means, name).add(value)})
    pairs = cast(PairStratum, arms or PairStratum())
    return replace(pairs, **{name: getattr(pairs, name).add(value, other)})


def judged(strata: Sequence[Arms], plan: Plan, ended: str = "") -> Judgement:
    """Judge by the form of the plan."""
    if plan.form == "ratio":
        return judge_ratio(cast(Sequence[PairStratum], strata), plan, ended)
    if plan.form == "adjusted":
        return judge_adjusted(cast(Sequence[PairStratum], strata), plan, ended)
    return judge(cast(Sequence[Stratum], strata), plan, ended)


def means(arms: Arms) -> Stratum:
    """What is counted as a mean: of pairs, the first numbers alone."""
    if isinstance(arms, Stratum):
        return arms
    return Stratum(*(Sums(arm.n, arm.y, arm.yy) for arm in (arms.control, arms.challenger)))


def row(arms: Arms) -> list[float]:
    """The numbers of both arms, the incumbent's first: of each three for a mean, six for pairs, units first."""
    if isinstance(arms, Stratum):
        return [each for arm in (arms.control, arms.challenger) for each in (arm.n, arm.total, arm.squares)]
    both = (arms.control, arms.challenger)
    return [each for arm in both for each in (arm.n, arm.y, arm.x, arm.yy, arm.xy, arm.xx)]


def read(numbers: Sequence[Any]) -> Arms:
    """What is counted, of its numbers."""
    half = len(numbers) // 2
    if half == 3:
        return Stratum(Sums(*numbers[:half]), Sums(*numbers[half:]))
    return PairStratum(Pairs(*numbers[:half]), Pairs(*numbers[half:]))


def total(arms: Sequence[Arm], form: str) -> tuple[int, float, float]:
    """Of one arm in all strata: its units, the sum of their values, and what that is divided by: the units, or for a
    ratio the sum of what the values are of.
    """
    units = sum(arm.n for arm in arms)
    values = sum(arm.total if isinstance(arm, Sums) else arm.y for arm in arms)
    return units, values, sum(arm.x for arm in arms if isinstance(arm, Pairs)) if form == "ratio" else units
