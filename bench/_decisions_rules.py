"""This file holds the rules that `decisions.py` compares on A/B tests, each over a matrix of runs and looks.

Ours is the shipped formula written again for matrices. A rule takes `Looks` and answers a code for every look (nothing,
promote, harmful, futile); what counts is the first that is not nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np  # type: ignore[import-not-found]

from branchline.core.boundary import MIXTURE_PART, MIXTURE_WIDTH, RATIO_PART, fixed_information, upper_quantile

Array = Any
NOTHING, PROMOTE, HARMFUL, FUTILE = range(4)
WORDS = ("continue", "promote", "harmful", "futile")
STEP = 1e-4
DEEPEST = -37.0


class Looks(NamedTuple):
    """What is known at each look of each run: estimate, variance, units so far, and whether it may be judged."""

    estimate: Array
    variance: Array
    units: Array
    enough: Array


class Told(NamedTuple):
    """What a rule said of each run: the code, the units until then, and the number of the look."""

    code: Array
    units: Array
    look: Array

    def share(self, *codes: int) -> float:
        """The part of the runs that ended so."""
        return float(np.isin(self.code, codes).mean())

    @property
    def mean_units(self) -> float:
        """The units until the end on average; without one, all that there were."""
        return float(self.units.mean())


Rule = Callable[[Looks], Array]


def told(looks: Looks, codes: Array) -> Told:
    """The first code of each run that is not nothing."""
    ended = codes != NOTHING
    look = np.where(ended.any(axis=1), ended.argmax(axis=1), codes.shape[1] - 1)
    runs = np.arange(len(codes))
    return Told(codes[runs, look], np.broadcast_to(looks.units, codes.shape)[runs, look], look)


@lru_cache(maxsize=1)
def _log_normal_table() -> tuple[Array, Array]:
    places = np.arange(DEEPEST - 3, 9, STEP)
    body = [
        math.log(math.erfc(-x / math.sqrt(2)) / 2)
        if x > DEEPEST
        else -x * x / 2 + math.log1p(-1 / (x * x)) - math.log(-x * math.sqrt(2 * math.pi))
        for x in places.tolist()
    ]
    return places, np.array(body)


def log_normal(x: Array) -> Array:
    """The logarithm of the standard normal distribution function, from a table of steps of 1e-4."""
    places, body = _log_normal_table()
    return np.interp(x, places, body)


def log_evidence(z: Array, information: Array, effect: float) -> Array:
    """0.7 of the likelihood ratio and 0.3 of the half-normal mixture."""
    ratio = math.log(RATIO_PART) + effect * (z * np.sqrt(information) - effect * information / 2)
    r = information * (MIXTURE_WIDTH * effect) ** 2
    shrink = r / (1 + r)
    mixture = math.log(2 * MIXTURE_PART) - np.log1p(r) / 2 + z * z * shrink / 2 + log_normal(z * np.sqrt(shrink))
    return np.logaddexp(ratio, mixture)


def standardised(looks: Looks, margin: float = 0.0) -> tuple[Array, Array]:
    """z and information; both 0 where there is no judgement."""
    sound = looks.enough & (looks.variance > 0)
    information = np.where(sound, 1 / np.where(sound, looks.variance, 1.0), 0.0)
    return np.where(sound, (looks.estimate + margin) * np.sqrt(information), 0.0), information


def ours(mde: float, *, margin: float = 0.0, futility: bool = True, alpha: float = 0.05, beta: float = 0.10) -> Rule:
    """The shipped rule."""
    effect, bar = mde or margin, math.log(2 / alpha)

    def rule(looks: Looks) -> Array:
        z, information = standardised(looks, margin)
        ratio = effect * (z * np.sqrt(information) - effect * information / 2)
        codes = np.where((ratio <= math.log(beta)) & futility, FUTILE, NOTHING)
        codes[log_evidence(z, information, effect) >= bar] = PROMOTE
        codes[log_evidence(-z, information, effect) >= bar] = HARMFUL
        return codes

    return rule


def two_sided(bar: Callable[[Array, Array], Array]) -> Rule:
    """A claim where |z| reaches a bar of the information and the units."""

    def rule(looks: Looks) -> Array:
        z, information = standardised(looks)
        height = bar(information, looks.units)
        return np.where(information > 0, np.where(z >= height, PROMOTE, np.where(-z >= height, HARMFUL, 0)), 0)

    return rule


def naive(alpha: float = 0.05) -> Rule:
    """A z test at every look."""
    return two_sided(lambda information, units: upper_quantile(alpha / 2) + 0 * information)


def bonferroni(looks: int, alpha: float = 0.05) -> Rule:
    """A z test at every look, with the error split over the looks."""
    return naive(alpha / looks)


def at_parts(plan: float, parts: int, upper: Callable[[int], float], lower: Callable[[int], float] | None) -> Rule:
    """A group sequential rule: `parts` looks, when so much of `plan` information is there; z against its bars.

    Without a lower bar it is two-sided; with one, below it is futile. The last look ends the test.
    """

    def rule(looks: Looks) -> Array:
        z, information = standardised(looks)
        codes = np.zeros(z.shape, dtype=int)
        runs = np.arange(len(z))
        for k in range(1, parts + 1):
            due = information >= plan * k / parts
            place = due.argmax(axis=1)
            there = runs[due.any(axis=1)]
            seen = z[there, place[there]]
            low = upper(k) if k == parts else -math.inf
            code = np.where(seen >= upper(k), PROMOTE, np.where(seen < low, FUTILE, NOTHING))
            if lower is None:
                code = np.where(-seen >= upper(k), HARMFUL, code)
            else:
                code = np.where(seen < lower(k), FUTILE, code)
            kept = codes[there, place[there]]
            codes[there, place[there]] = np.where(kept == NOTHING, code, kept)
        return codes

    return rule


def fixed_horizon(effect: float) -> Rule:
    """One look at the planned information."""
    return at_parts(fixed_information(effect), 1, lambda k: upper_quantile(0.025), None)


def obrien_fleming(effect: float) -> Rule:
    """Five looks; constants of Jennison & Turnbull 2000 for α = 0.05, power 0.9."""
    return at_parts(1.026 * fixed_information(effect), 5, lambda k: 2.040 * math.sqrt(5 / k), None)


def pampallona_tsiatis(effect: float, alpha: float, beta: float, parts: int = 5, shape: float = 0.0) -> Rule:
    """One-sided with futility, solved for these errors; shape 0 is of the O'Brien-Fleming kind, 0.5 of Pocock's."""
    c1, c2 = pampallona_constants(alpha, beta, parts, shape)
    drift = c1 + c2

    def upper(k: int) -> float:
        return float(c1 * (k / parts) ** (shape - 0.5) - 1e-12)

    def lower(k: int) -> float:
        return float(drift * math.sqrt(k / parts) - c2 * (k / parts) ** (shape - 0.5))

    return at_parts((drift / effect) ** 2, parts, upper, lower)


@lru_cache(maxsize=32)
def pampallona_constants(alpha: float, beta: float, parts: int, shape: float) -> tuple[float, float]:
    """C₁ and C₂ at which both errors are as asked, by turns, each by bisection."""
    c1, c2 = upper_quantile(alpha), upper_quantile(beta)
    for _ in range(12):
        c1 = _bisected(partial(_false_claims, c2=c2, parts=parts, shape=shape), alpha)
        c2 = _bisected(partial(_misses, c1=c1, parts=parts, shape=shape), beta)
    return c1, c2


def _false_claims(c1: float, c2: float, parts: int, shape: float) -> float:
    return _crossings(c1, c2, parts, shape, 0.0)[0]


def _misses(c2: float, c1: float, parts: int, shape: float) -> float:
    return _crossings(c1, c2, parts, shape, c1 + c2)[1]


def _bisected(error: Callable[[float], float], most: float) -> float:
    low, high = 0.2, 6.0
    for _ in range(22):
        middle = (low + high) / 2
        low, high = (middle, high) if error(middle) > most else (low, middle)
    return (low + high) / 2


def _crossings(c1: float, c2: float, parts: int, shape: float, drift: float) -> tuple[float, float]:
    """The chances to leave above and below, on the scale of a Brownian motion that ends at time 1."""
    above = below = 0.0
    spots, mass = np.zeros(1), np.ones(1)
    deviation = math.sqrt(1 / parts)
    for k in range(1, parts + 1):
        time = k / parts
        high, low = c1 * time**shape, (c1 + c2) * time - c2 * time**shape
        if k == parts:
            low = high
        mean = spots + drift / parts
        above += float(mass @ np.exp(log_normal((mean - high) / deviation)))
        below += float(mass @ np.exp(log_normal((low - mean) / deviation)))
        grid = np.linspace(low, high, 151)
        weight = np.full(151, grid[1] - grid[0])
        weight[[0, -1]] /= 2
        steps = np.exp(-(((grid[:, None] - mean) / deviation) ** 2) / 2) / (deviation * math.sqrt(2 * math.pi))
        spots, mass = grid, weight * (steps @ mass)
    return above, below


def msprt(width: float, alpha: float = 0.05) -> Rule:
    """The mixture sequential probability ratio test with a normal mixture of standard deviation `width`."""

    def bar(information: Array, units: Array) -> Array:
        r = np.maximum(information, 1e-300) * width * width
        return np.sqrt(2 * (1 + r) / r * (math.log(1 / alpha) + np.log1p(r) / 2))

    return two_sided(bar)


def asymptotic_sequence(tuned: float = 5000, alpha: float = 0.05) -> Rule:
    """The asymptotic confidence sequence as GrowthBook has it, tuned to so many units."""
    rho2 = (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))) / tuned

    def bar(information: Array, units: Array) -> Array:
        n = units * rho2
        return np.sqrt(2 * (n + 1) / n * (np.log(n + 1) / 2 + math.log(1 / alpha))) + 0 * information

    return two_sided(bar)


def known_effect(effect: float, alpha: float = 0.05, beta: float = 0.10) -> Rule:
    """Wald's test for an effect that is known: the bound for all others."""

    def rule(looks: Looks) -> Array:
        z, information = standardised(looks)
        ratio = effect * (z * np.sqrt(information) - effect * information / 2)
        return np.where(ratio >= math.log(2 / alpha), PROMOTE, np.where(ratio <= math.log(beta), FUTILE, NOTHING))

    return rule
