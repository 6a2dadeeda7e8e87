"""This file judges two proportions exactly, for tiny data: no normal approximation and no minimum counts.

Rules. The evidence is bet block by block (a block is what is new since the last look), with alternatives centred on the
rate of all *earlier* blocks; against each stands the null that is nearest to it by Kullback-Leibler divergence, which
makes every product an e-process for all rates within the null (Turner, Ly, Grünwald 2024). The alternatives are the
declared effect at weight 0.7, and at 0.3 a half-normal three effects wide, cut into five. Futility bets on no effect
against the declared one. It needs about 2 % more outcomes than the form on z, and is the oracle of its tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from branchline.core.boundary import MIXTURE_PART, MIXTURE_WIDTH, RATIO_PART, evidence_of, upper_quantile
from branchline.core.decision import Answer, Plan

PARTS = 5
# How many effects wide each alternative is, and its weight: the declared one, then the half-normal's.
MULTIPLES = (1.0, *(MIXTURE_WIDTH * upper_quantile((1 - (part + 0.5) / PARTS) / 2) for part in range(PARTS)))
_LOG_WEIGHTS = (math.log(RATIO_PART), *(math.log(MIXTURE_PART / PARTS),) * PARTS)
_NEARLY_NEVER = 1e-9

Block = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Exact:
    """The evidence so far about two proportions; a new one has seen nothing.

    `logs_for` and `logs_against` are of each alternative, `log_futile` is of no effect against the declared one. The
    plan's effect is declared and below 1; its minimum of units is not asked for.

    Raises ValueError for a plan without such an effect.
    """

    plan: Plan
    logs_for: tuple[float, ...] = _LOG_WEIGHTS
    logs_against: tuple[float, ...] = _LOG_WEIGHTS
    log_futile: float = 0.0
    counts: Block = (0, 0, 0, 0)

    def __post_init__(self) -> None:
        if not 0 < self.plan.effect < 1 or self.plan.margin >= 1:
            raise ValueError("an exact test needs an mde or a margin between 0 and 1")

    def update(self, n0: int, e0: int, n1: int, e1: int) -> Exact:
        """The evidence after one more block: units, and those whose value is 1, of incumbent and challenger.

        Raises ValueError for counts that cannot be.
        """
        if not (0 <= e0 <= n0 and 0 <= e1 <= n1):
            raise ValueError("a block has at least as many units as ones")
        counts = self.counts[0] + n0, self.counts[1] + e0, self.counts[2] + n1, self.counts[3] + e1
        if not n0 or not n1:
            return Exact(self.plan, self.logs_for, self.logs_against, self.log_futile, counts)
        plan = self.plan
        centre = (self.counts[1] + self.counts[3] + 0.5) / (self.counts[0] + self.counts[2] + 1)
        # Where lower is better, no event is the better one: the same test on what did not happen.
        if plan.direction == "lower":
            centre, e0, e1 = 1 - centre, n0 - e0, n1 - e1
        block, effect, null = (n0, e0, n1, e1), plan.effect, -plan.margin
        return Exact(
            plan,
            tuple(
                log + _bet(block, centre, null + times * effect, null)
                for log, times in zip(self.logs_for, MULTIPLES, strict=True)
            ),
            tuple(
                log + _bet(block, centre, null - times * effect, null)
                for log, times in zip(self.logs_against, MULTIPLES, strict=True)
            ),
            self.log_futile + _bet(block, centre, null, null + effect),
            counts,
        )

    @property
    def e_for(self) -> float:
        """The evidence for the challenger; promoted at 2/α."""
        return math.fsum(map(evidence_of, self.logs_for))

    @property
    def e_against(self) -> float:
        """The evidence against the challenger; harmful at 2/α."""
        return math.fsum(map(evidence_of, self.logs_against))

    @property
    def information(self) -> float:
        """About the information so far, by which a plan may end the test; 0 while there is none."""
        n0, e0, n1, e1 = self.counts
        rate = (e0 + e1) / max(n0 + n1, 1)
        return n0 * n1 / (n0 + n1) / (rate * (1 - rate)) if n0 and n1 and 0 < rate < 1 else 0.0

    @property
    def answer(self) -> Answer:
        """What the evidence says now."""
        return self._told[0]

    @property
    def reason(self) -> str:
        """Why, in a line."""
        return self._told[1]

    @property
    def _told(self) -> tuple[Answer, str]:
        bar, most = 2 / self.plan.alpha, self.plan.max_information
        if self.e_against >= bar:
            return Answer.HARMFUL, self.plan.harmful
        if self.e_for >= bar:
            return Answer.PROMOTE, self.plan.promoted
        if self.log_futile >= -math.log(self.plan.beta):
            return Answer.FUTILE, self.plan.futile
        if most is not None and self.information >= most:
            return Answer.INCONCLUSIVE, "all the information that was planned for is used"
        return Answer.CONTINUE, "undecided so far"


def _bet(block: Block, centre: float, effect: float, null: float) -> float:
    """The log likelihood ratio of rates `effect` apart about `centre` to the nearest ones that are `null` apart.

    It is 0 where the rates, kept between 0 and 1, are not on the alternative's side of the null.
    """
    n0, e0, n1, e1 = block
    rate0 = min(max(centre - effect / 2, _NEARLY_NEVER), 1 - _NEARLY_NEVER)
    rate1 = min(max(centre + effect / 2, _NEARLY_NEVER), 1 - _NEARLY_NEVER)
    if (rate1 - rate0 - null) * (effect - null) <= 0:
        return 0.0
    q0 = _nearest(n0, rate0, n1, rate1, null)
    q1 = q0 + null
    return (
        e0 * math.log(rate0 / q0)
        + (n0 - e0) * math.log((1 - rate0) / (1 - q0))
        + e1 * math.log(rate1 / q1)
        + (n1 - e1) * math.log((1 - rate1) / (1 - q1))
    )


def _nearest(n0: int, rate0: float, n1: int, rate1: float, gap: float) -> float:
    """The incumbent's rate q that is, with q + gap for the challenger, nearest to the two rates; by bisection."""
    if not gap:
        return (n0 * rate0 + n1 * rate1) / (n0 + n1)
    low, high = max(0.0, -gap), min(1.0, 1 - gap)
    for _ in range(60):
        q = (low + high) / 2
        p = q + gap
        slope = n0 * (q - rate0) / (q * (1 - q)) + n1 * (p - rate1) / (p * (1 - p))
        low, high = (low, q) if slope > 0 else (q, high)
    return (low + high) / 2
