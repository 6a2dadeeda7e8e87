"""This file sees when the arms do not have the units they should have: the sample-ratio check.

Rules. It may be asked after every unit (Lindon & Malek 2022, sequential multinomial with a Dirichlet prior centred on
the declared split); a chi-square looked at again and again would flag sound tests. The same test on units that
reported sees unequal reporting. Under changing splits each split is counted apart and the evidence is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

ALPHA = 0.001
CONCENTRATION = 1000.0
MOST_CROSSED = 0.01


def log_mismatch(counts: Sequence[int], weights: Sequence[float]) -> float:
    """The logarithm of the evidence that the counts of the arms do not follow the weights.

    `weights` need not sum to 1 (buckets or percents will do), but must all be above 0.

    Raises ValueError for arms that do not match or weights that are not above 0.
    """
    if len(counts) != len(weights) or not weights or min(weights) <= 0 or min(counts) < 0:
        raise ValueError("one count and one weight above 0 for every arm")
    whole, n = math.fsum(weights), sum(counts)
    log = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + n)
    for count, weight in zip(counts, weights, strict=True):
        part = weight / whole
        prior = CONCENTRATION * part
        log += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(part)
    return log


def mismatch(counts: Sequence[int], weights: Sequence[float]) -> float:
    """The evidence that the counts of the arms do not follow the weights; a mismatch at 1/alpha."""
    return mismatch_over([(counts, weights)])


def mismatch_over(splits: Iterable[tuple[Sequence[int], Sequence[float]]]) -> float:
    """The evidence over several splits, each with its own counts and weights."""
    return math.exp(min(math.fsum(log_mismatch(counts, weights) for counts, weights in splits), 700.0))


def is_mismatch(evidence: float, alpha: float = ALPHA) -> bool:
    """Whether the evidence is enough to call the test invalid."""
    return evidence >= 1 / alpha


def is_crossed(strays: int, units: int, most: float = MOST_CROSSED) -> bool:
    """Whether more than 1 % of the units were seen in both arms, or served by another arm than theirs."""
    return strays > most * units
