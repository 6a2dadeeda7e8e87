"""This file judges an A/B test: from the sums of both arms to promote, harmful, futile, inconclusive or continue.

Rules. One look costs microseconds and needs only sums, so every new outcome may be looked at, and looking costs no
error. Only matured units enter, each once. What was measured under one bucket table against one incumbent is a
stratum; totals are never pooled across strata, for a ramp with a drifting base rate would promote anything. A
judgement that cannot be trusted is refused: the answer is `continue` and the reason says why. Everything that has an
estimate and a variance goes through `decision`; a ratio, a covariate or another metric only has to bring those two
numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from branchline.core.boundary import critical_z, evidence_of, fixed_information, log_evidence, log_ratio

MIN_EVENTS = 25
MIN_UNITS_UNBOUNDED = 500
EVEN_SPLIT = (0.3, 0.7)
MIN_UNITS_OF_A_STRATUM = 2
# Parts of a fixed test's information: what the rule needs on average at the declared effect, the plan, a usual cap.
MILESTONES = (0.65, 1.0, 3.0)
# A variance below this part of the squared mean is what rounding leaves of none.
ROUNDING = 1e-12


class Answer(StrEnum):
    """What a look at the primary metric says."""

    PROMOTE = "promote"
    HARMFUL = "harmful"
    FUTILE = "futile"
    INCONCLUSIVE = "inconclusive"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Sums:
    """What is kept of one arm: its units, the sum of their values and the sum of the squared values."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> Sums:
        """The sums with one more unit."""
        return Sums(self.n + 1, self.total + value, self.squares + value * value)

    @classmethod
    def of(cls, values: Iterable[float]) -> Sums:
        """The sums of all the values."""
        sums = cls()
        for value in values:
            sums = sums.add(value)
        return sums

    @property
    def mean(self) -> float:
        """The mean, of at least one unit."""
        return self.total / self.n

    @property
    def spread(self) -> float:
        """The sum of squared distances from the mean, of at least one unit; 0 where rounding leaves no more."""
        spread = self.squares - self.total * self.total / self.n
        return 0.0 if spread <= ROUNDING * self.squares < math.inf else spread


@dataclass(frozen=True, slots=True)
class Stratum:
    """Both arms under one bucket table against one incumbent."""

    control: Sums = Sums()
    challenger: Sums = Sums()


@dataclass(frozen=True, slots=True)
class Plan:
    """What was declared before the test: the direction, the smallest effect worth having, and the errors allowed.

    `mde` and `margin` are absolute. A margin makes it a test of non-inferiority; with `mde` 0 the margin is the effect
    that is planned for. `cap` says that the caller cut the values at a limit fixed beforehand. `max_information` ends
    the test undecided, none by default.

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

    def __post_init__(self) -> None:
        if self.direction not in ("higher", "lower"):
            raise ValueError(f"direction is higher or lower, not {self.direction!r}")
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


def judge(strata: Sequence[Stratum], plan: Plan, ended: str = "") -> Judgement:
    """Judge the difference of two means over all strata, binary or continuous.

    `ended` names what ended the measurement (its longest duration); without a verdict the answer is then inconclusive.
    """
    thick = [s for s in strata if min(s.control.n, s.challenger.n) >= MIN_UNITS_OF_A_STRATUM]
    units = sum(s.control.n for s in thick), sum(s.challenger.n for s in thick)
    binary = all(_is_binary(s.control) and _is_binary(s.challenger) for s in thick)
    estimate, variance = difference(thick, binary=binary) if thick else (math.nan, math.nan)
    if refused := _too_little(thick, units, plan, binary=binary):
        return refusal(refused, plan, estimate, variance, units, ended)
    return decision(estimate, variance, plan, units, ended)


def difference(strata: Sequence[Stratum], *, binary: bool = False) -> tuple[float, float]:
    """The difference of means and its variance, each stratum weighted by h = n₀n₁/(n₀+n₁).

    Every stratum needs two units an arm. Outside a split of 30 to 70 % both arms share one variance: with separate
    ones a heavy tail that the small arm has not met yet looks like harm.
    """
    weight = weighted = variance = 0.0
    for stratum in strata:
        n0, n1 = stratum.control.n, stratum.challenger.n
        h = n0 * n1 / (n0 + n1)
        spare = 0 if binary else 1  # a proportion's variance is p(1 - p)
        spread0, spread1 = stratum.control.spread, stratum.challenger.spread
        if EVEN_SPLIT[0] <= n1 / (n0 + n1) <= EVEN_SPLIT[1]:
            own = spread0 / (n0 * (n0 - spare)) + spread1 / (n1 * (n1 - spare))
        else:
            own = (spread0 + spread1) / (n0 + n1 - 2 * spare) / h
        weight += h
        weighted += h * (stratum.challenger.total / n1 - stratum.control.total / n0)
        variance += h * h * own
    return weighted / weight, variance / (weight * weight)


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
        answer, reason = Answer.HARMFUL, "the challenger is worse"
    elif log_for >= bar:
        answer, reason = Answer.PROMOTE, "the challenger is no worse" if plan.margin else "the challenger is better"
    elif ratio <= math.log(plan.beta):
        answer, reason = Answer.FUTILE, f"an effect of {effect:g} is ruled out"
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


def planned_units(sigma: float, plan: Plan, share: float = 0.5) -> int:
    """The units of both arms that a test with one look at its end would need, at the challenger's `share` of units.

    `sigma` is the standard deviation of a unit's value, known from before the start; 0 < share < 1. The rule itself
    needs 0.65 of it on average at the declared effect and 0.43 without an effect.
    """
    return math.ceil(sigma * sigma * plan.planned_information / (share * (1 - share)))


def fitting_mde(sigma: float, units: int, plan: Plan, share: float = 0.5) -> float:
    """The smallest declared effect whose planned units are no more than `units`."""
    return sigma * math.sqrt(fixed_information(1.0, plan.alpha, plan.beta) / (share * (1 - share) * units))


def absolute_effect(relative: float, incumbent_mean: float) -> float:
    """A relative effect in the metric's own unit, frozen by the incumbent's mean from before the start.

    Raises ValueError for a mean that is zero or not finite: nothing is a part of it.
    """
    if not math.isfinite(incumbent_mean) or incumbent_mean == 0:
        raise ValueError(f"a relative effect needs a mean that is not {incumbent_mean}")
    return abs(relative * incumbent_mean)


def _is_binary(sums: Sums) -> bool:
    return sums.squares == sums.total


def _too_little(strata: Sequence[Stratum], units: tuple[int, int], plan: Plan, *, binary: bool) -> str:
    """Why these sums must not be judged; empty if they may."""
    if min(units) < plan.min_units:
        return f"{min(units)} of {plan.min_units} units in an arm"
    if binary:
        events = sum(s.control.total for s in strata), sum(s.challenger.total for s in strata)
        fewest = {"ones": min(events), "zeros": min(units[0] - events[0], units[1] - events[1])}
        what = min(fewest, key=fewest.__getitem__)
        if fewest[what] < MIN_EVENTS:
            return f"{fewest[what]:g} of {MIN_EVENTS} {what} in an arm"
        return ""
    if plan.bounds is not None or plan.cap is not None:
        return ""
    if min(units) < MIN_UNITS_UNBOUNDED:
        return f"{min(units)} of {MIN_UNITS_UNBOUNDED} units in an arm, for a mean without bounds or cap"
    if not EVEN_SPLIT[0] <= units[1] / sum(units) <= EVEN_SPLIT[1]:
        return "a mean without bounds or cap needs a split between 30 and 70 %"
    return ""
