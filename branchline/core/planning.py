"""This file says how long an A/B test will take, from what outcomes were like before it, and what would fit.

Rules. One look at a fixed end would need (z of α/2 + z of β)² / Δ² of information; the sequential rule needs 0.65 of
that on average where the effect is as large as declared, 0.43 where there is none, and is ended undecided at three
times as much (found by simulation). No verdict comes before the fewest units that are
ever judged, nor before the first window has closed. Where nothing was recorded, the widest spread that the bounds
allow is taken: the truth takes less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from branchline.core.boundary import fixed_information, upper_quantile

AT_EFFECT, WITHOUT_EFFECT, AT_MOST = 0.65, 0.43, 3.0
FEWEST_EVENTS = 25  # of the rarer kind, in an arm, before zeros and ones are judged
FEWEST_UNBOUNDED = 500  # units in an arm, before a mean without bounds is judged
DAY = 86_400.0
ROUND_TO = 2  # digits of an effect that is proposed


@dataclass(frozen=True, slots=True)
class Outlook:
    """A test that is planned: its smallest worthwhile effect, its errors, and what its outcomes will be like.

    `sigma` is the standard deviation of a unit's value, `per_day` how many outcomes both arms get together, `share` the
    challenger's part of them, `window` the seconds until a unit enters, `fewest` how many units an arm needs at least;
    `asks` is what the effect is called.
    All but `window` are above 0, share below 1.
    """

    effect: float
    sigma: float
    per_day: float
    alpha: float = 0.05
    beta: float = 0.10
    share: float = 0.5
    window: float = 0.0
    fewest: int = 100
    asks: str = "an MDE"

    @property
    def fixed(self) -> int:
        """The outcomes that a test with one look at its end would need."""
        information = fixed_information(self.effect, self.alpha, self.beta)
        return math.ceil(self.sigma * self.sigma * information / (self.share * (1 - self.share)))

    @property
    def least(self) -> int:
        """The outcomes before which nothing is judged."""
        return math.ceil(self.fewest / min(self.share, 1 - self.share))

    @property
    def expected(self) -> int:
        """The outcomes until the verdict, on average, when the challenger is as much better as declared."""
        return max(math.ceil(AT_EFFECT * self.fixed), self.least)

    @property
    def without_effect(self) -> int:
        """The outcomes until the verdict, on average, when the challenger is no better."""
        return max(math.ceil(WITHOUT_EFFECT * self.fixed), self.least)

    @property
    def at_most(self) -> int:
        """The outcomes at which the test is ended without a verdict."""
        return max(math.ceil(AT_MOST * self.fixed), self.least)

    def days(self, outcomes: int) -> float:
        """The days until so many outcomes have entered."""
        return outcomes / self.per_day + self.window / DAY

    def fitting(self, days: float) -> float | None:
        """The smallest effect whose verdict is expected within so many days, rounded up; None where none is: the least
        that is ever judged takes longer already.
        """
        outcomes = (days - self.window / DAY) * self.per_day
        if outcomes < self.least:
            return None
        needed = AT_EFFECT * fixed_information(1.0, self.alpha, self.beta) / (self.share * (1 - self.share))
        return rounded_up(self.sigma * math.sqrt(needed / outcomes))


def rounded_up(number: float) -> float:
    """A number above 0 with two digits, never less than it is."""
    size = math.floor(math.log10(number)) - ROUND_TO + 1
    return float(f"{math.ceil(number / 10.0**size - 1e-9)}e{size}")


def widest(bounds: tuple[float, float] | None, kind: str) -> float | None:
    """The largest standard deviation that values can have: half of what lies between their bounds; None without any."""
    if kind == "binary":
        return 0.5
    return (bounds[1] - bounds[0]) / 2 if bounds else None


def fewest_units(least: int, *, binary: bool, bounded: bool, mean: float | None) -> int:
    """The units that an arm needs before it is judged: `least`, or more where zeros or ones are rare, or where a heavy
    tail may not have been met yet.
    """
    if binary:
        rarer = min(mean, 1 - mean) if mean is not None else 0.5
        return max(least, math.ceil(FEWEST_EVENTS / rarer)) if rarer > 0 else least
    return least if bounded else max(least, FEWEST_UNBOUNDED)


def proportion(hits: int, of: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a proportion after `of` tries (Wilson 1927); all there is after none."""
    if not of:
        return 0.0, 1.0
    z = upper_quantile((1 - confidence) / 2)
    centre = (hits + z * z / 2) / (of + z * z)
    width = z / (of + z * z) * math.sqrt(hits * (of - hits) / of + z * z / 4)
    return (centre - width if hits else 0.0), (centre + width if hits < of else 1.0)


def number(value: float) -> str:
    """A number above 0 as people say it: three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def lasting(days: float) -> str:
    """A duration as people say it."""
    for size, word in ((1.0, "day"), (1 / 24, "hour"), (1 / 1440, "minute")):
        if days >= 0.95 * size:
            count = math.ceil(days / size - 0.05)
            return f"{count:,} {word}{'' if count == 1 else 's'}"
    return "less than a minute"


def told(outlook: Outlook, days: float) -> str:
    """How long it takes in one sentence, and with which effect it would take another time: one that fits into so many
    days where this one does not, else one twice as large.
    """
    takes = outlook.days(outlook.expected)
    text = f"at {number(outlook.per_day)} outcomes a day this takes {lasting(takes)}"
    other = 2 * outlook.effect if takes <= days else outlook.fitting(days)
    if other is None:
        none = f"no {outlook.asks.split()[1]} fits into {lasting(days)}"
        return f"{text}; {none}, for fewer than {outlook.least:,} outcomes are never judged"
    less = replace(outlook, effect=other)
    return f"{text}; with {outlook.asks} of {other:.4g} it takes {lasting(less.days(less.expected))}"
