"""This file decides: from an estimate, its variance and what was declared to promote, harmful, futile or continue.

Rules. It is the common form of every metric: a mean, a ratio, a difference adjusted by a covariate only have to bring
an estimate (challenger minus incumbent) and its variance. A judgement that cannot be trusted is refused: the answer is
`continue` and the reason says why. One experiment has one error rate: challengers beside one another share it, and who
is judged again unchanged gets half of what the time before had.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from branchline.core.boundary import critical_z, evidence_of, fixed_information, log_evidence, log_ratio

# Outside this part of the units both arms have to share one variance.
EVEN_SPLIT = (0.3, 0.7)
# Parts of a fixed test's information: what the rule needs on average at the declared effect, the plan, a usual cap.
MILESTONES = (0.65, 1.0, 3.0)
# What is below this part of the squares that it was left of is what rounding leaves of nothing.
ROUNDING = 1e-12
FORMS = ("mean", "ratio", "adjusted")


class Answer(StrEnum):
    """What a look at the primary metric says."""

    PROMOTE = "promote"
    HARMFUL = "harmful"
    FUTILE = "futile"
    INCONCLUSIVE = "inconclusive"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was declared before the test: the direction, the smallest effect worth having, and the errors allowed.

    `mde` and `margin` are absolute. A margin makes it a test of non-inferiority; with `mde` 0 the margin is the effect
    that is planned for. `cap` says that the caller cut the values at a limit fixed beforehand. `max_information` ends
    the test undecided, none by default. `form` is what is judged: a mean, a ratio of sums, or a mean that is adjusted
    by a covariate.

    Raises ValueError for numbers that mean nothing.
    """

    direction: str = "higher"
    mde: float = 0.0
    margin: float = 0.0
    alpha: float = 0.05
    beta: float = 0.10
    bounds: tuple[float, float] | None = None
    cap: float | None = None
    min_units: int = 100
    max_information: float | None = None
    form: str = "mean"

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise ValueError(f"direction is higher or lower, not {self.direction!r}")
        if self.form not in FORMS:
            raise ValueError(f"form is one of {', '.join(FORMS)}, not {self.form!r}")
        if not (0 <= self.mde < math.inf and 0 <= self.margin < math.inf):
            raise ValueError(f"mde {self.mde} and margin {self.margin} must be finite and not negative")
        if not (0 < self.alpha < 1 and 0 < self.beta < 1):
            raise ValueError(f"alpha {self.alpha} and beta {self.beta} must lie between 0 and 1")
        if self.bounds is not None and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds {self.bounds} are empty")

    @property
    def effect(self) -> float:
        """The effect Δ that the test is built for; 0 if none was declared."""
        return self.mde or self.margin

    @property
    def harmful(self) -> str:
        """What it means when the challenger is found to be worse."""
        return f"the challenger is worse by more than {self.margin:g}" if self.margin else "the challenger is worse"

    @property
    def promoted(self) -> str:
        """What it means when the challenger is promoted."""
        return f"the challenger is no worse by more than {self.margin:g}" if self.margin else "the challenger is better"

    @property
    def futile(self) -> str:
        """What it means when the effect is ruled out."""
        if self.margin and not self.mde:
            return "that the challenger is as good is ruled out"
        return f"an effect of {self.effect:g} is ruled out"

    @property
    def planned_information(self) -> float:
        """The information a test with one look at its end would need; infinite without a declared effect."""
        return fixed_information(self.effect, self.alpha, self.beta) if self.effect else math.inf


@dataclass(frozen=True, slots=True)
class Judgement:
    """One look at the primary metric, with the numbers it rests on.

    `estimate` is challenger minus incumbent, as measured whatever the direction, None while there is none. The
    evidence is 1 where the judgement was refused.
    """

    plan: Plan
    answer: Answer
    reason: str
    estimate: float | None = None
    information: float = 0.0
    log_for: float = 0.0
    log_against: float = 0.0
    log_ratio: float = 0.0
    units_control: int = 0
    units_challenger: int = 0

    @property
    def e_for(self) -> float:
        """The evidence for the challenger; promoted at 2/α."""
        return evidence_of(self.log_for)

    @property
    def e_against(self) -> float:
        """The evidence against the challenger; harmful at 2/α."""
        return evidence_of(self.log_against)

    @property
    def likelihood_ratio(self) -> float:
        """The likelihood of the declared effect against none; futile at β."""
        return evidence_of(self.log_ratio)

    @property
    def p(self) -> float:
        """The p value that stays valid at every look: 2 over the larger evidence, at most 1."""
        return min(1.0, 2 / max(self.e_for, self.e_against))

    @property
    def planned_information(self) -> float:
        """The information of a fixed test with the same errors."""
        return self.plan.planned_information

    @property
    def progress(self) -> float:
        """The information so far as a part of the planned one."""
        return self.information / self.plan.planned_information

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval that holds at every look; None while there is none."""
        if not self.information or not self.plan.effect:
            return None
        return critical_z(self.information, self.plan.effect, self.plan.alpha) / math.sqrt(self.information)

    @property
    def low(self) -> float | None:
        """The lower end of the interval: every effect that neither side's evidence has ruled out."""
        width = self.half_width
        return None if width is None or self.estimate is None else self.estimate - width

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        width = self.half_width
        return None if width is None or self.estimate is None else self.estimate + width

    @property
    def units(self) -> int:
        """The units of both arms that entered."""
        return self.units_control + self.units_challenger

    @property
    def expected_units_left(self) -> int | None:
        """About how many units of both arms are still needed at this split; None if nothing can be said."""
        if not self.information or not self.units or not self.plan.effect:
            return None
        for milestone in MILESTONES:
            left = milestone * self.plan.planned_information / self.information - 1
            if left > 0:
                return math.ceil(left * self.units)
        return None


def decision(
    estimate: float, variance: float, plan: Plan, units: tuple[int, int] = (0, 0), ended: str = ""
) -> Judgement:
    """Decide from an estimate (challenger minus incumbent) and its variance: the common form of every metric."""
    effect = plan.effect
    if not effect:
        return refusal("neither an mde nor a margin is declared", plan, estimate, variance, units, ended)
    if not 0 < variance < math.inf or not math.isfinite(estimate):
        return refusal(f"the variance is {variance:g}", plan, estimate, variance, units, ended)
    information = 1 / variance
    gain = (estimate if plan.direction == "higher" else -estimate) + plan.margin
    z = gain * math.sqrt(information)
    log_for, log_against = log_evidence(z, information, effect), log_evidence(-z, information, effect)
    ratio, bar = log_ratio(z, information, effect), math.log(2 / plan.alpha)
    if log_against >= bar:
        answer, reason = Answer.HARMFUL, plan.harmful
    elif log_for >= bar:
        small = "" if plan.margin or ratio > math.log(plan.beta) else f", but an effect of {effect:g} is ruled out"
        answer, reason = Answer.PROMOTE, f"{plan.promoted}{small}"
    elif ratio <= math.log(plan.beta):
        answer, reason = Answer.FUTILE, plan.futile
    elif ended or (plan.max_information is not None and information >= plan.max_information):
        answer, reason = Answer.INCONCLUSIVE, ended or "all the information that was planned for is used"
    else:
        answer, reason = Answer.CONTINUE, "undecided so far"
    return Judgement(plan, answer, reason, estimate, information, log_for, log_against, ratio, *units)


def refusal(
    reason: str, plan: Plan, estimate: float, variance: float, units: tuple[int, int], ended: str = ""
) -> Judgement:
    """The judgement that says nothing: it goes on, or is inconclusive if the measurement has ended."""
    answer = Answer.INCONCLUSIVE if ended else Answer.CONTINUE
    information = 1 / variance if 0 < variance < math.inf else 0.0
    known = estimate if math.isfinite(estimate) else None
    return Judgement(
        plan,
        answer,
        f"{ended}; {reason}" if ended else reason,
        known,
        information,
        units_control=units[0],
        units_challenger=units[1],
    )


def combined(parts: Iterable[tuple[int, int, float, float]]) -> tuple[float, float]:
    """The estimate and variance over strata: units of both arms, estimate and variance of each; at least one.

    Weighted by h = n₀n₁/(n₀+n₁), never pooled: under a base rate that drifts, totals across a change of split would
    promote anything.
    """
    weight = weighted = variance = 0.0
    for n0, n1, estimate, own in parts:
        h = n0 * n1 / (n0 + n1)
        weight += h
        weighted += h * estimate
        variance += h * h * own
    return weighted / weight, variance / (weight * weight)


def error_rate(alpha: float = 0.05, challengers: int = 1, repeats: int = 0) -> float:
    """One judgement's part of α: split over the challengers beside one another, halved at each repeat of a judgement of
    the same artifact. All repeats together spend less than twice, all challengers together no more than α.

    Raises ValueError without a challenger or for fewer than no repeats.
    """
    if challengers < 1 or repeats < 0:
        raise ValueError(f"there is a challenger, and repeats are counted from 0, not {challengers} and {repeats}")
    return alpha / challengers * 0.5**repeats
