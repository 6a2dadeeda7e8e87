"""This file plays canaries for `decisions.py`: our guardrail and what peers do, on the same requests.

`Buckets` are requests and bad requests of incumbent and canary, matrices of runs and buckets. A rule answers the number
of the bucket at which each run was rolled back, NEVER for none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np  # type: ignore[import-not-found]
from _decisions_rules import Array

from branchline.core.guardrail import FROM_THE_START, RATIOS
from branchline.core.ratio_check import CONCENTRATION

NEVER = 1 << 30
TICKS = 60


class Buckets(NamedTuple):
    """Requests and bad requests of the incumbent, then of the canary."""

    n_b: Array
    e_b: Array
    n_c: Array
    e_c: Array


Rule = Callable[[Buckets], Array]


def drawn(chance: Any, shape: tuple[int, int], sizes: tuple[Any, Any], rates: tuple[Any, Any]) -> Buckets:
    """Independent requests; sizes and rates may differ by bucket."""
    n_b, n_c = (np.broadcast_to(np.asarray(size), shape) for size in sizes)
    e_b, e_c = (
        chance.binomial(n, np.broadcast_to(np.asarray(rate), shape)) for n, rate in zip((n_b, n_c), rates, strict=True)
    )
    return Buckets(n_b, e_b, n_c, e_c)


def first(there: Array) -> Array:
    """The number of the first bucket of each run that is so."""
    return np.where(there.any(axis=1), there.argmax(axis=1), NEVER)


def thetas(buckets: Buckets, column: int, ratios: Array) -> Array:
    """The canary's part of the bad requests at each ratio of rates, runs by ratios; nan where a side is empty."""
    n_b, n_c = (np.asarray(n[:, column], dtype=float)[:, None] for n in (buckets.n_b, buckets.n_c))
    with np.errstate(invalid="ignore"):
        return np.where((n_b > 0) & (n_c > 0), n_c * ratios / (n_c * ratios + n_b), np.nan)


def ours(tick: int = 1, *, alpha: float = 0.01) -> Rule:
    """The shipped guardrail."""
    return lambda buckets: watched(buckets, tick, alpha)[0]


def watched(buckets: Buckets, tick: int, alpha: float = 0.01, beta: float = 0.05) -> tuple[Array, Array]:
    """The buckets of rollback and of pass."""
    runs, columns = buckets.e_c.shape
    weights = np.full((runs, len(RATIOS)), FROM_THE_START / len(RATIOS))
    good = np.zeros(runs)
    back, passed = np.full(runs, NEVER), np.full(runs, NEVER)
    for column in range(columns):
        null, bad = thetas(buckets, column, np.array([1.0])), thetas(buckets, column, np.array([2.0]))
        grid = thetas(buckets, column, np.array(RATIOS))
        e_c, e_b = buckets.e_c[:, [column]], buckets.e_b[:, [column]]
        restarts = min(column // tick, TICKS)
        if restarts and column % tick == 0 and column <= tick * TICKS:
            weights = weights + (1 - FROM_THE_START) / len(RATIOS) / TICKS
        step = e_c * np.log(grid / null) + e_b * np.log((1 - grid) / (1 - null))
        weights = np.minimum(weights * np.exp(np.nan_to_num(step)), 1e250)
        evidence = weights.sum(axis=1) + (1 - FROM_THE_START) * (1 - restarts / TICKS)
        good = good + np.nan_to_num(e_c * np.log(null / bad) + e_b * np.log((1 - null) / (1 - bad)))[:, 0]
        back = np.where((back == NEVER) & (evidence >= 1 / alpha), column, back)
        passed = np.where((passed == NEVER) & (good >= math.log(1 / beta)), column, passed)
    return back, passed


def both_known(buckets: Buckets, rates: tuple[float, float]) -> Array:
    """The log likelihood ratio of the canary's own requests, at known rates."""
    p0, p1 = rates
    bad = buckets.e_c * math.log(p1 / p0)
    return (bad + (buckets.n_c - buckets.e_c) * math.log((1 - p1) / (1 - p0))).cumsum(axis=1)


def cusum(buckets: Buckets, rates: tuple[float, float]) -> Array:
    """The same since its lowest point."""
    walk = both_known(buckets, rates)
    return walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0)


def ratio_known(buckets: Buckets, rates: tuple[float, float]) -> Array:
    """The log likelihood ratio of whose the bad requests are, at the known ratio of rates."""
    odds = buckets.n_c / buckets.n_b
    null, bad = odds / (1 + odds), odds * rates[1] / rates[0] / (1 + odds * rates[1] / rates[0])
    return (buckets.e_c * np.log(bad / null) + buckets.e_b * np.log((1 - bad) / (1 - null))).cumsum(axis=1)


def calibrated(walk: Callable[[Buckets, tuple[float, float]], Array], null: Buckets, rates: Any, false: float) -> Rule:
    """A rule with the height at which it rolls back that part of the good canaries."""
    highest = np.sort(walk(null, rates).max(axis=1))
    height = max(float(highest[min(int((1 - false) * len(highest)), len(highest) - 1)]), 1e-9)
    return lambda buckets: first(walk(buckets, rates) > height)


def z_of(buckets: Buckets) -> Array:
    """The z of two proportions on all totals so far."""
    n_b, e_b, n_c, e_c = (part.cumsum(axis=1).astype(float) for part in buckets)
    rate = (e_b + e_c) / (n_b + n_c)
    variance = rate * (1 - rate) * (1 / n_b + 1 / n_c)
    return np.where(variance > 0, (e_c / n_c - e_b / n_b) / np.sqrt(np.maximum(variance, 1e-300)), 0)


def peeked_z(height: float) -> Rule:
    """A z test on totals at every bucket."""
    return lambda buckets: first(z_of(buckets) >= height)


def flagger(least: float = 0.99, failures: int = 5, passes: int = 10) -> Rule:
    """A failed check where a minute's success rate is below; that many roll back, that many passes promote."""

    def rule(buckets: Buckets) -> Array:
        failed = buckets.e_c / buckets.n_c > 1 - least
        back, promoted = first(failed.cumsum(axis=1) >= failures), first((~failed).cumsum(axis=1) >= passes)
        return np.where(back < promoted, back, NEVER)

    return rule


def argo(least: float = 0.95, limit: int = 3) -> Rule:
    """A measurement fails below; more failures than the limit roll back."""
    return lambda buckets: first((buckets.e_c / buckets.n_c > 1 - least).cumsum(axis=1) > limit)


def kayenta(every: int) -> Rule:
    """Mann-Whitney on the minutes' error rates, canary and a control of its size, 98 % interval.

    It has to clear a quarter of the shift. It is of the ordered pairwise differences; ties are not corrected.
    """

    def rule(buckets: Buckets) -> Array:
        runs, minutes = buckets.e_c.shape
        chance = np.random.default_rng(99)
        share = buckets.n_c / buckets.n_b
        control = chance.binomial(buckets.e_b, np.broadcast_to(share, buckets.e_b.shape)) / buckets.n_c
        canary, back = buckets.e_c / buckets.n_c, np.full(runs, NEVER)
        for end in range(every, minutes + 1, every):
            differences = np.sort((canary[:, :end, None] - control[:, None, :end]).reshape(runs, -1), axis=1)
            place = end * end / 2 - 2.326 * math.sqrt(end * end * (2 * end + 1) / 12)
            low = differences[:, max(int(place), 0)]
            shift = np.median(differences, axis=1)
            back = np.where((back == NEVER) & (low > 0) & (low > 0.25 * np.abs(shift)), end - 1, back)
        return back

    return rule


def log_gamma(x: Array) -> Array:
    """Stirling's series, for x of 100 and more."""
    return (x - 0.5) * np.log(x) - x + 0.5 * math.log(2 * math.pi) + 1 / (12 * x) - 1 / (360 * x**3) + 1 / (1260 * x**5)


def log_mismatch(n0: Array, n1: Array) -> Array:
    """The shipped sample-ratio check, for halves."""
    half, n = CONCENTRATION / 2, n0 + n1
    start = math.lgamma(CONCENTRATION) - 2 * math.lgamma(half)
    return start - log_gamma(CONCENTRATION + n) + log_gamma(half + n0) + log_gamma(half + n1) + n * math.log(2)
