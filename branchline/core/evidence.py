"""This file judges an A/B test on means: from the sums of both arms to promote, harmful, futile or continue.

Rules. One look costs microseconds and needs only sums, so every new outcome may be looked at, and looking costs no
error. Only matured units enter, each once. What was measured under one bucket table against one incumbent is a
stratum; totals are never pooled across strata, for a ramp with a drifting base rate would promote anything.
`make` is the whole engine behind one function, for whoever wants to check it from outside: it calls what the judge
calls. Ratios, covariates and the exact form stand in files of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from branchline.core.boundary import fixed_information
from branchline.core.decision import EVEN_SPLIT, ROUNDING, Answer, Judgement, Plan, combined, decision, refusal
from branchline.core.exact import Exact
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.ratio_check import ALPHA, is_mismatch, mismatch
from branchline.core.ratios import MIN_UNITS, Pairs, PairStratum, judge_ratio

__all__ = (  # what makes a judgement is imported from here, too
    "Answer",
    "Judgement",
    "Plan",
    "Stratum",
    "Sums",
    "absolute_effect",
    "decision",
    "difference",
    "fitting_mde",
    "history_cap",
    "judge",
    "make",
    "planned_units",
    "refusal",
    "shortage",
)

MIN_EVENTS = 25
MIN_UNITS_UNBOUNDED = 500
MIN_UNITS_OF_A_STRATUM = 2
MIN_HISTORY = 1000
CAPPED_SHARE = 0.999


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


def judge(strata: Sequence[Stratum], plan: Plan, ended: str = "") -> Judgement:
    """Judge the difference of two means over all strata, binary or continuous.

    `ended` names what ended the measurement (its longest duration); without a verdict the answer is then inconclusive.
    """
    thick = [s for s in strata if min(s.control.n, s.challenger.n) >= MIN_UNITS_OF_A_STRATUM]
    units = sum(s.control.n for s in thick), sum(s.challenger.n for s in thick)
    binary = all(_is_binary(s.control) and _is_binary(s.challenger) for s in thick)
    estimate, variance = difference(thick, binary=binary) if thick else (math.nan, math.nan)
    if refused := shortage(thick, units, plan, binary=binary):
        return refusal(refused, plan, estimate, variance, units, ended)
    return decision(estimate, variance, plan, units, ended)


def difference(strata: Sequence[Stratum], *, binary: bool = False) -> tuple[float, float]:
    """The difference of means and its variance over strata of at least two units an arm.

    Outside a split of 30 to 70 % both arms share one variance: with separate ones a heavy tail that the small arm has
    not met yet looks like harm.
    """
    spare = 0 if binary else 1  # a proportion's variance is p(1 - p)
    parts = []
    for stratum in strata:
        n0, n1 = stratum.control.n, stratum.challenger.n
        spread0, spread1 = stratum.control.spread, stratum.challenger.spread
        if EVEN_SPLIT[0] <= n1 / (n0 + n1) <= EVEN_SPLIT[1]:
            own = spread0 / (n0 * (n0 - spare)) + spread1 / (n1 * (n1 - spare))
        else:
            own = (spread0 + spread1) / (n0 + n1 - 2 * spare) * (1 / n0 + 1 / n1)
        parts.append((n0, n1, stratum.challenger.total / n1 - stratum.control.total / n0, own))
    return combined(parts)


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


def history_cap(history: Sequence[float]) -> float | None:
    """The cap of a mean without bounds: the 99.9th percentile of the incumbent's values from before the start.

    None of fewer than 1,000 values, of which it would be about the largest.
    """
    if len(history) < MIN_HISTORY:
        return None
    return sorted(history)[math.ceil(CAPPED_SHARE * len(history)) - 1]


def shortage(strata: Sequence[Stratum], units: tuple[int, int], plan: Plan, *, binary: bool) -> str:
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


def _is_binary(sums: Sums) -> bool:
    return sums.squares == sums.total


class Told(str):
    """A verdict's word, with the reason for it."""

    __slots__ = ("reason",)
    reason: str

    def __new__(cls, word: str, reason: str) -> Told:
        told = super().__new__(cls, word)
        told.reason = reason
        return told


class Evidence:
    """The evidence of one metric, guardrail or split: `update` takes what is new and tells the verdict.

    `state` is all that is kept between updates, None before the first.
    """

    def __init__(self, look: Callable[[Any, dict[str, Any]], tuple[Any, str, str]]) -> None:
        self._look = look
        self.state: Any = None

    def update(self, **data: float) -> Told:
        """The verdict after this update; a judgement that is refused is `continue`, and its reason says why."""
        self.state, word, reason = self._look(self.state, data)
        return Told(word, reason)


def make(kind: str, spec: Mapping[str, Any]) -> Evidence:
    """The engine for one kind of question.

    mean       update(n0, s0, q0, n1, s1, q1)      cumulative: units, their sum, the sum of their squares; 0 = incumbent
    ratio      update(n0, y0, x0, yy0, xy0, xx0, n1, y1, x1, yy1, xy1, xx1)      cumulative over units, of Σy/Σx
    exact      update(n0, e0, n1, e1)              a bucket's units and those of value 1, for tiny data
    guardrail  update(n_b, e_b, n_c, e_c)          a bucket's requests and bad ones, of incumbent and challenger
    srm        update(n0, n1)                      a bucket's newly assigned units

    `spec` of the first three: alpha, beta, mde and margin (absolute), direction, max_information, min_units; of a mean
    bounds and cap, too. Of a guardrail: alpha, beta, ratio, limit, bad_ratio, ticks, tick. Of srm: alpha, weights. None
    is what a setting is that is not given.

    Raises ValueError for a kind that there is not, a setting that it does not have, and numbers that mean nothing.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind is one of {', '.join(_KINDS)}, not {kind!r}")
    return Evidence(_KINDS[kind]({name: value for name, value in spec.items() if value is not None}))


Look = Callable[[Any, dict[str, Any]], tuple[Any, str, str]]


def _mean(spec: dict[str, Any]) -> Look:
    plan = _plan(spec)

    def look(_: object, data: dict[str, Any]) -> tuple[Judgement, str, str]:
        sums = [Sums(*(data.pop(f"{name}{arm}") for name in ("n", "s", "q"))) for arm in "01"]
        _nothing_left(data)
        seen = judge([Stratum(*sums)], plan)
        return seen, seen.answer, seen.reason

    return look


def _ratio(spec: dict[str, Any]) -> Look:
    plan = _plan({"min_units": MIN_UNITS} | spec)

    def look(_: object, data: dict[str, Any]) -> tuple[Judgement, str, str]:
        sums = [Pairs(*(data.pop(f"{name}{arm}") for name in ("n", "y", "x", "yy", "xy", "xx"))) for arm in "01"]
        _nothing_left(data)
        seen = judge_ratio([PairStratum(*sums)], plan)
        return seen, seen.answer, seen.reason

    return look


def _exact(spec: dict[str, Any]) -> Look:
    start = Exact(_plan(spec))

    def look(state: Exact | None, data: dict[str, Any]) -> tuple[Exact, str, str]:
        now = (state or start).update(**data)
        return now, now.answer, now.reason

    return look


def _guardrail(spec: dict[str, Any]) -> Look:
    start = Guard(Guardrail(**_known(Guardrail, {"tolerated" if k == "ratio" else k: v for k, v in spec.items()})))

    def look(state: Guard | None, data: dict[str, Any]) -> tuple[Guard, str, str]:
        counts = [data.pop(name) for name in ("n_b", "e_b", "n_c", "e_c")]
        _nothing_left(data)
        now = (state or start).update(*counts)
        return now, now.answer, f"evidence {now.highest:.3g} of {1 / now.rule.alpha:.3g}"

    return look


def _srm(spec: dict[str, Any]) -> Look:
    alpha, weights = spec.pop("alpha", ALPHA), spec.pop("weights", (1, 1))
    _nothing_left(spec)

    def look(state: tuple[int, int, float] | None, data: dict[str, Any]) -> tuple[Any, str, str]:
        n0, n1, highest = state or (0, 0, 1.0)
        n0, n1 = n0 + data.pop("n0"), n1 + data.pop("n1")
        _nothing_left(data)
        highest = max(highest, mismatch((n0, n1), weights))
        word = "mismatch" if is_mismatch(highest, alpha) else "continue"
        return (n0, n1, highest), word, f"evidence {highest:.3g} of {1 / alpha:.3g}"

    return look


def _plan(spec: dict[str, Any]) -> Plan:
    return replace(Plan(), **_known(Plan, spec))


def _known(of: type[Plan] | type[Guardrail], spec: dict[str, Any]) -> dict[str, Any]:
    _nothing_left({name: value for name, value in spec.items() if name not in {field.name for field in fields(of)}})
    return spec


def _nothing_left(given: dict[str, Any]) -> None:
    if given:
        raise ValueError(f"there is no {', '.join(given)}")


_KINDS: Mapping[str, Callable[[dict[str, Any]], Look]] = {
    "mean": _mean,
    "ratio": _ratio,
    "exact": _exact,
    "guardrail": _guardrail,
    "srm": _srm,
}
