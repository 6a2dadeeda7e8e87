"""This file watches who produces the bad requests: the guardrail that rolls a challenger back, or lets a canary pass.

Rules. The challenger is compared with the incumbent of the same bucket, so a base rate that drifts costs nothing.
Given that a request was bad, whose it was depends only on the split and on the ratio of the two rates (Lindon & Malek
2022); the evidence is exact for independent requests, whatever the base rate (log(1+x) ≤ x). It is a grid of ratios
with weighted restarts (Shiryaev-Roberts; Shin, Ramdas, Rinaldo 2024), so a challenger that degrades later is seen too.
Evidence that has once crossed its bar stays crossed. Only a unit's first bad request may be counted, and afterwards
none of its requests: that is the caller's. No requests are no evidence: a guardrail without any never passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0)
FROM_THE_START = 0.8
_CEILING = 1e250  # evidence is cut here, long after every decision, so that no product overflows
_LARGEST_STEP = 500.0


class GuardAnswer(StrEnum):
    """What a guardrail says."""

    ROLLBACK = "rollback"
    PASS = "pass"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Guardrail:
    """What is tolerated: a ratio of the challenger's rate of bad requests to the incumbent's, or an absolute `limit`.

    `ticks` is the planned number of restarts, one every `tick` buckets. `bad_ratio` is how much worse than tolerated a
    pass must have ruled out, with error `beta`.

    Raises ValueError for numbers that mean nothing.
    """

    tolerated: float = 1.0
    limit: float | None = None
    ticks: int = 60
    tick: int = 1
    alpha: float = 0.01
    beta: float = 0.05
    bad_ratio: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.tolerated < math.inf or not 1 < self.bad_ratio < math.inf:
            raise ValueError(f"tolerated {self.tolerated} must be above 0 and bad_ratio {self.bad_ratio} above 1")
        if self.limit is not None and not 0 < self.limit < 1:
            raise ValueError(f"limit {self.limit} must lie between 0 and 1")
        if self.ticks < 1 or self.tick < 1:
            raise ValueError("ticks and tick are at least 1")
        if not (0 < self.alpha < 1 and 0 < self.beta < 1):
            raise ValueError(f"alpha {self.alpha} and beta {self.beta} must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class Guard:
    """A guardrail's evidence so far; a new one has seen nothing.

    `evidence` says that the challenger is worse than tolerated, `evidence_good` that it is not much worse; each is kept
    with the highest it ever was. `requests` and `bad` are the challenger's.
    """

    rule: Guardrail = Guardrail()
    weights: tuple[float, ...] = (FROM_THE_START / len(RATIOS),) * len(RATIOS)
    buckets: int = 0
    requests: int = 0
    bad: int = 0
    evidence: float = 1.0
    highest: float = 1.0
    evidence_good: float = 1.0
    highest_good: float = 1.0

    @property
    def breached(self) -> bool:
        """Whether the evidence has ever reached 1/α."""
        return self.highest >= 1 / self.rule.alpha

    @property
    def passed(self) -> bool:
        """Whether it was ever ruled out that the challenger is `bad_ratio` times worse than tolerated."""
        return self.highest_good >= 1 / self.rule.beta

    @property
    def answer(self) -> GuardAnswer:
        """Rollback before pass: what has passed may still degrade."""
        if self.breached:
            return GuardAnswer.ROLLBACK
        return GuardAnswer.PASS if self.passed else GuardAnswer.CONTINUE

    def update(
        self, control: int, control_bad: int, challenger: int, challenger_bad: int, *, share: float | None = None
    ) -> Guard:
        """The guard after one more bucket: requests and bad requests of both arms.

        A bucket may be a minute or a single request. `share` is the challenger's part of the traffic as it was known
        before the bucket; without it the bucket's own counts say the split, and a bucket with an empty side says
        nothing. Against an absolute limit only the challenger's counts matter.

        Raises ValueError for counts that cannot be.
        """
        if not (0 <= control_bad <= control and 0 <= challenger_bad <= challenger):
            raise ValueError("a bucket has at least as many requests as bad ones")
        if self.rule.limit is not None:
            factors, hits, others = _limit_factors(self.rule), challenger_bad, challenger - challenger_bad
        else:
            if share is None:
                share = challenger / max(control + challenger, 1)
            factors, hits, others = _ratio_factors(self.rule, share), challenger_bad, control_bad
        *steps, good = [math.exp(min(hits * up + others * down, _LARGEST_STEP)) for up, down in factors]
        restarts = min(self.buckets // self.rule.tick, self.rule.ticks)
        due = restarts > 0 and self.buckets % self.rule.tick == 0 and self.buckets <= self.rule.tick * self.rule.ticks
        fresh = (1 - FROM_THE_START) / len(RATIOS) / self.rule.ticks if due else 0.0
        weights = tuple(min((old + fresh) * step, _CEILING) for old, step in zip(self.weights, steps, strict=True))
        evidence = sum(weights) + (1 - FROM_THE_START) * (1 - restarts / self.rule.ticks)
        evidence_good = min(self.evidence_good * good, _CEILING)
        return Guard(
            self.rule,
            weights,
            self.buckets + 1,
            self.requests + challenger,
            self.bad + challenger_bad,
            evidence,
            max(self.highest, evidence),
            evidence_good,
            max(self.highest_good, evidence_good),
        )


Factors = tuple[tuple[float, float], ...]
_SILENT: Factors = ((0.0, 0.0),) * (len(RATIOS) + 1)


@lru_cache(maxsize=256)
def _ratio_factors(rule: Guardrail, share: float) -> Factors:
    """For each ratio, and last for a pass: what a bad request of the challenger, or the incumbent, adds to log E."""
    if not 0 < share < 1:
        return _SILENT

    def theta(ratio: float) -> float:
        return share * ratio / (share * ratio + 1 - share)

    null, bad = theta(rule.tolerated), theta(rule.tolerated * rule.bad_ratio)
    grid = [(theta(rule.tolerated * ratio), null) for ratio in RATIOS] + [(null, bad)]
    return tuple((math.log(top / under), math.log((1 - top) / (1 - under))) for top, under in grid)


@lru_cache(maxsize=64)
def _limit_factors(rule: Guardrail) -> Factors:
    """For each rate, and last for a pass: what a bad and what a good request of the challenger adds to log E."""
    limit = rule.limit or 0.0
    top = (1 + limit) / 2  # a rate stays below 1, whatever its ratio to the limit
    rates = [min(limit * ratio, top) for ratio in RATIOS]
    grid = [(rate, limit) for rate in rates] + [(limit, min(limit * rule.bad_ratio, top))]
    return tuple((math.log(p / q), math.log((1 - p) / (1 - q))) for p, q in grid)
