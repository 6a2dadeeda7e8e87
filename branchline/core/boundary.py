"""This file is the mathematics under every A/B conclusion: two e-processes, their boundary and the plan they imply.

Rules. Everything is a function of the information I = 1/variance and of z = estimate·√I, so any metric that has an
estimate and a variance can be judged. Evidence is kept as a logarithm: nothing here overflows. The evidence that the
true effect is above zero is a convex mixture of two e-processes, so Ville's inequality holds for it however often one
looks: 0.7 of Wald's likelihood ratio at the declared effect (Wald 1945) and 0.3 of a half-normal mixture three effects
wide (Robbins 1970; Howard, Ramdas, McAuliffe, Sekhon 2021, one-sided). The variance is plugged in (Waudby-Smith,
Arbour, Sinha, Kennedy, Ramdas 2024).
"""

from __future__ import annotations

import math
from functools import lru_cache

RATIO_PART = 0.7
MIXTURE_PART = 0.3
MIXTURE_WIDTH = 3.0

_LOG_RATIO_PART = math.log(RATIO_PART)
_LOG_MIXTURE_PART = math.log(MIXTURE_PART)
_ROOT_HALF = math.sqrt(0.5)
_LARGEST_LOG = 700.0


def log_ratio(z: float, information: float, effect: float) -> float:
    """The logarithm of the likelihood ratio of `effect` to no effect."""
    return effect * (z * math.sqrt(information) - effect * information / 2)


def log_mixture(z: float, r: float) -> float:
    """The logarithm of the half-normal mixture; `r` is the information in units of the mixture's own precision."""
    shrink = r / (1 + r)
    tail = z * math.sqrt(shrink)
    if tail > -37.0:  # below that the tail's probability is no longer a float, but it cancels against the exponent
        body = z * z * shrink / 2 + math.log(math.erfc(-tail * _ROOT_HALF) / 2)
    else:
        body = math.log1p(-1 / (tail * tail)) - math.log(-tail * math.sqrt(2 * math.pi))
    return math.log(2) - math.log1p(r) / 2 + body


def log_evidence(z: float, information: float, effect: float) -> float:
    """The logarithm of the evidence that the true effect is above zero; it grows with `z`."""
    ratio = _LOG_RATIO_PART + log_ratio(z, information, effect)
    mixture = _LOG_MIXTURE_PART + log_mixture(z, information * (MIXTURE_WIDTH * effect) ** 2)
    high, low = (ratio, mixture) if ratio > mixture else (mixture, ratio)
    return high + math.log1p(math.exp(low - high))


def evidence_of(log: float) -> float:
    """The evidence itself, cut where a float would end."""
    return math.exp(min(log, _LARGEST_LOG))


@lru_cache(maxsize=64)
def critical_z(information: float, effect: float, alpha: float) -> float:
    """The largest z at which neither side is decided, found by bisection down to neighbouring floats."""
    bar = math.log(2 / alpha)
    low, high = 0.0, 1.0
    while log_evidence(high, information, effect) < bar:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return low
        if log_evidence(middle, information, effect) < bar:
            low = middle
        else:
            high = middle


@lru_cache(maxsize=64)
def upper_quantile(tail: float) -> float:
    """The z that a standard normal exceeds with probability `tail`, 0 < tail < 1."""
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle * _ROOT_HALF) / 2 > tail else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=256)
def fixed_information(effect: float, alpha: float = 0.05, beta: float = 0.10) -> float:
    """The information that one look at a fixed end would need: ((z of α/2 + z of β) / effect)²."""
    return ((upper_quantile(alpha / 2) + upper_quantile(beta)) / effect) ** 2
