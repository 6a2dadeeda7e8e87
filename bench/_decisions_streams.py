"""This file draws the A/B tests of `decisions.py`: cumulative sums at every look, and what is estimated from them.

A stream is a function of a generator and a number of runs. It answers what the shipped engine would be told at each
look, `{"n0": ..., "s0": ..., ...}` in matrices of runs and looks, and what is judged of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np  # type: ignore[import-not-found]
from _decisions_rules import Array, Looks

from branchline.core.decision import EVEN_SPLIT
from branchline.core.evidence import MIN_EVENTS, MIN_UNITS_UNBOUNDED

Stream = Callable[[Any, int], tuple[dict[str, Array], Looks]]
LOOKS, A_LOOK = 1000, 100


def means(sums: dict[str, Array], *, floor: int = 100) -> Looks:
    """The difference of means: a proportion's variance where values are 0 and 1, one variance at uneven splits."""
    n0, s0, q0, n1, s1, q1 = (np.asarray(sums[name], dtype=float) for name in ("n0", "s0", "q0", "n1", "s1", "q1"))
    binary = bool((s0 == q0).all() and (s1 == q1).all())
    spare = 0 if binary else 1
    n0, n1 = np.maximum(n0, 2), np.maximum(n1, 2)
    spread0, spread1 = q0 - s0 * s0 / n0, q1 - s1 * s1 / n1
    even = (n1 / (n0 + n1) >= EVEN_SPLIT[0]) & (n1 / (n0 + n1) <= EVEN_SPLIT[1])
    own = spread0 / (n0 * (n0 - spare)) + spread1 / (n1 * (n1 - spare))
    pooled = (spread0 + spread1) / (n0 + n1 - 2 * spare) * (1 / n0 + 1 / n1)
    enough = np.minimum(n0, n1) >= floor
    if binary:
        enough = enough & (np.minimum.reduce([s0, s1, n0 - s0, n1 - s1]) >= MIN_EVENTS)
    return Looks(s1 / n1 - s0 / n0, np.where(even, own, pooled), n0 + n1, enough)


def of_binary(n0: Array, s0: Array, n1: Array, s1: Array) -> tuple[dict[str, Array], Looks]:
    """A stream's answer from the counts of ones at each look, not yet summed up."""
    shape = s0.shape
    n0, n1 = (np.broadcast_to(n, shape).cumsum(axis=1) for n in (n0, n1))
    s0, s1 = s0.cumsum(axis=1), s1.cumsum(axis=1)
    sums = {"n0": n0, "s0": s0, "q0": s0, "n1": n1, "s1": s1, "q1": s1}
    return sums, means(sums)


def binary(rate0: float, rate1: float, *, looks: int = LOOKS, share: float = 0.5) -> Stream:
    """Conversions, 100 units a look."""

    def stream(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        n1 = round(A_LOOK * share)
        s0 = chance.binomial(A_LOOK - n1, rate0, (runs, looks))
        s1 = chance.binomial(n1, rate1, (runs, looks))
        return of_binary(A_LOOK - n1, s0, n1, s1)

    return stream


def varying(gain: float = 0.0, *, kind: str = "drift", looks: int = LOOKS) -> Stream:
    """Conversions whose base rate drifts, follows weekdays (and so does traffic), or breaks down in bursts for both."""

    def stream(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        time = np.arange(looks) / looks
        rate, each = 0.05 + 0.15 * time, np.full(looks, A_LOOK // 2)
        if kind == "weekdays":
            rate = 0.10 * (1 + 0.5 * np.sin(2 * np.pi * 14 * time))
            each = np.where(np.arange(looks) * 14 * 7 // looks % 7 < 5, 58, 30)
        rates = np.broadcast_to(rate, (runs, looks))
        if kind == "bursts":
            rates = np.where(chance.random((runs, looks)) < 0.05, 0.5, 0.10)
        s0 = chance.binomial(each, rates)
        return of_binary(each, s0, each, chance.binomial(each, rates + gain))

    return stream


def delayed(*, matured: bool, looks: int = LOOKS, base: float = 0.10) -> Stream:
    """A conversion is reported after 20 looks on average, the challenger's after 40.

    Either a unit enters when its window of 300 looks closes, or it is counted at once, as no until it has reported.
    """
    window = 300

    def stream(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        counted = []
        for delay in (20, 40):
            born = chance.binomial(A_LOOK // 2, base, (runs, looks))
            row, look = np.divmod(np.repeat(np.arange(born.size), born.ravel()), looks)
            waited = chance.exponential(delay, len(row))
            at = look if matured else np.floor(look + waited).astype(int)
            kept = (waited <= window) & (at < looks)
            counted.append(np.bincount(row[kept] * looks + at[kept], minlength=runs * looks).reshape(runs, looks))
        return of_binary(A_LOOK // 2, counted[0], A_LOOK // 2, counted[1])

    return stream


def heavy(
    gain: float = 0.0, *, looks: int = LOOKS, share: float = 0.5, cap: float | None = None, huge: float = 0.0
) -> Stream:
    """Revenue: one of ten pays, lognormal with sigma 1.5, in units of the mean; `huge` is a single unit's value."""

    def stream(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        sums: dict[str, Array] = {}
        struck = chance.integers(0, 2, runs), chance.integers(0, looks, runs)
        for arm, (n, scale) in enumerate(((A_LOOK * (1 - share), 1.0), (A_LOOK * share, 1 + gain))):
            payers = chance.binomial(round(n), 0.1, (runs, looks))
            place = np.repeat(np.arange(payers.size), payers.ravel())
            values = scale * chance.lognormal(-1.125, 1.5, len(place)) / 0.1
            values = values if cap is None else np.minimum(values, cap)
            total, squares = (
                np.bincount(place, weights, payers.size).reshape(runs, looks) for weights in (values, values * values)
            )
            if huge:
                mine = np.flatnonzero(struck[0] == arm)
                value = huge if cap is None else min(huge, cap)
                total[mine, struck[1][mine]] += value
                squares[mine, struck[1][mine]] += value * value
            sums |= {f"n{arm}": np.broadcast_to(round(n), payers.shape).cumsum(axis=1)}
            sums |= {f"s{arm}": total.cumsum(axis=1), f"q{arm}": squares.cumsum(axis=1)}
        return sums, means(sums, floor=MIN_UNITS_UNBOUNDED if cap is None else 100)

    return stream


def ratio(rate0: float, rate1: float, *, looks: int = LOOKS, bots: bool = False) -> Stream:
    """Failures per request: 5 requests a unit, alike within a unit (icc 0.1), 100 requests a look.

    With `bots` every fiftieth unit asks 100 times, and at 0.5 whatever the arm.
    """

    def stream(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        units = A_LOOK // 5 // 2
        sums: dict[str, Array] = {}
        for arm, rate in enumerate((rate0, rate1)):
            y = np.arange(6)
            counts = chance.multinomial(units, beta_binomial(5, rate, 0.1), (runs, looks))
            added = [counts @ y, np.full((runs, looks), 5 * units), counts @ (y * y), counts @ (5 * y)]
            added.append(np.full((runs, looks), 25 * units))
            if bots:
                there = chance.binomial(1, units / 50, (runs, looks))
                hits = chance.binomial(100 * there, chance.beta(2, 2, (runs, looks)))
                asked = 100 * there
                for place, more in enumerate((hits, asked, hits * hits, hits * asked, asked * asked)):
                    added[place] = added[place] + more
            names = ("y", "x", "yy", "xy", "xx")
            sums |= {f"{name}{arm}": each.cumsum(axis=1) for name, each in zip(names, added, strict=True)}
            extra = there if bots else 0
            sums[f"n{arm}"] = (np.full((runs, looks), units) + extra).cumsum(axis=1)
        return sums, of_ratios(sums)

    return stream


def beta_binomial(n: int, rate: float, icc: float) -> Array:
    """The chances of 0 to n events in a unit whose own rate is drawn from a beta distribution."""
    from math import comb, exp, lgamma

    a, b = rate * (1 / icc - 1), (1 - rate) * (1 / icc - 1)

    def log_beta(x: float, y: float) -> float:
        return lgamma(x) + lgamma(y) - lgamma(x + y)

    chances = np.array([comb(n, k) * exp(log_beta(k + a, n - k + b) - log_beta(a, b)) for k in range(n + 1)])
    return chances / chances.sum()


def of_ratios(sums: dict[str, Array]) -> Looks:
    """The difference of ratios by the delta method; units are told as requests, as the design counts them."""
    estimate, variance = 0.0, 0.0
    for arm, sign in (("0", -1), ("1", 1)):
        y, x, yy, xy, xx = (np.asarray(sums[name + arm], dtype=float) for name in ("y", "x", "yy", "xy", "xx"))
        own = y / x
        estimate, variance = estimate + sign * own, variance + (yy - 2 * own * xy + own * own * xx) / (x * x)
    enough = np.minimum(sums["n0"], sums["n1"]) >= 50
    return Looks(estimate, variance, sums["x0"] + sums["x1"], enough)


def ramp(*, stratified: bool, looks: int = 600) -> Stream:
    """10 % and then 50 % for a challenger without effect, while the base rate climbs from 0.10 to 0.20."""

    def stream(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        rate = np.broadcast_to(0.10 + 0.10 * np.arange(looks) / looks, (runs, looks))
        n1 = np.where(np.arange(looks) < looks // 2, A_LOOK // 10, A_LOOK // 2)
        s0, s1 = chance.binomial(A_LOOK - n1, rate), chance.binomial(n1, rate)
        if not stratified:
            return of_binary(A_LOOK - n1, s0, n1, s1)
        half = looks // 2
        sums, early = of_binary(A_LOOK - n1[:half], s0[:, :half], n1[:half], s1[:, :half])
        later, late = of_binary(A_LOOK - n1[half:], s0[:, half:], n1[half:], s1[:, half:])
        h = [each["n0"] * each["n1"] / (each["n0"] + each["n1"]) for each in (sums, later)]
        weight, first = h[0][:, -1:] + h[1], h[0][:, -1:]
        estimate = (first * early.estimate[:, -1:] + h[1] * late.estimate) / weight
        variance = (first**2 * early.variance[:, -1:] + h[1] ** 2 * late.variance) / weight**2
        enough = np.broadcast_to(early.enough[:, -1:], late.enough.shape)
        second = (estimate, variance, early.units[:, -1:] + late.units, enough)
        return {}, Looks(*(np.concatenate(pair, axis=1) for pair in zip(early, second, strict=True)))

    return stream


def adjusted(correlation: float, *, looks: int = 400, gain: float = 0.05) -> tuple[Stream, Stream]:
    """Normal values with a covariate of this correlation: judged with it, and without; the same data in both."""

    def drawn(chance: Any, runs: int) -> tuple[Array, ...]:
        arms = []
        for effect in (0.0, gain):
            x, noise = (chance.standard_normal((runs, looks, A_LOOK // 2)) for _ in range(2))
            y = effect + correlation * x + np.sqrt(1 - correlation**2) * noise
            arms.append([each.sum(axis=2).cumsum(axis=1) for each in (y, x, y * y, x * y, x * x)])
        return tuple(np.array(arm) for arm in arms)

    def of(arms: tuple[Array, ...], *, use: bool) -> tuple[dict[str, Array], Looks]:
        n = np.arange(1, looks + 1) * (A_LOOK // 2)
        (yy0, xy0, xx0), (yy1, xy1, xx1) = (
            (arm[2] - arm[0] ** 2 / n, arm[3] - arm[0] * arm[1] / n, arm[4] - arm[1] ** 2 / n) for arm in arms
        )
        theta = (xy0 + xy1) / (xx0 + xx1) if use else 0.0
        spread = yy0 + yy1 - theta * (2 * (xy0 + xy1) - theta * (xx0 + xx1))
        estimate = (arms[1][0] - arms[0][0] - theta * (arms[1][1] - arms[0][1])) / n
        enough = np.broadcast_to(n >= MIN_UNITS_UNBOUNDED, spread.shape)
        names = ("y", "x", "yy", "xy", "xx")
        raw = {f"{name}{a}": arm[place] for a, arm in enumerate(arms) for place, name in enumerate(names)}
        raw |= {f"n{a}": np.broadcast_to(n, spread.shape) for a in (0, 1)}
        return raw, Looks(estimate, spread / (n * (n - 1)), np.broadcast_to(2 * n, spread.shape), enough)

    def with_it(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        return of(drawn(chance, runs), use=True)

    def without(chance: Any, runs: int) -> tuple[dict[str, Array], Looks]:
        return of(drawn(chance, runs), use=False)

    return with_it, without
