"""This file plays the canaries, roll-outs and splits of `decisions.py`, ours beside what peers do: §5 of the design."""

from __future__ import annotations

from typing import Any

import numpy as np  # type: ignore[import-not-found]
from _decisions_check import Agreement
from _decisions_guards import (
    NEVER,
    Buckets,
    argo,
    both_known,
    calibrated,
    cusum,
    drawn,
    first,
    flagger,
    kayenta,
    log_mismatch,
    ours,
    peeked_z,
    ratio_known,
    watched,
)
from _decisions_rules import Array

BATCH = 1000
Rows = list[tuple[str, str, str, bool]]
# name: rates of incumbent and canary, requests of both in a bucket, of the canary in a tick and until the end
DETECTIONS: dict[str, tuple[tuple[float, float], tuple[int, int], int, int]] = {
    "0.1% → 1%, canary 10%": ((0.001, 0.01), (45, 5), 100, 8000),
    "1% → 5%, 10%": ((0.01, 0.05), (18, 2), 100, 3000),
    "0.1% → 0.3%, 10%": ((0.001, 0.003), (90, 10), 500, 40_000),
    "5% → 10%, 10%": ((0.05, 0.10), (18, 2), 100, 6000),
    "0.1% → 1%, canary 50%": ((0.001, 0.01), (5, 5), 100, 20_000),
    "1% → 5%, 50%": ((0.01, 0.05), (2, 2), 100, 6000),
}
TICKS = 60
WIDTHS = (8, 8, 10, 8, 8, 8, 12, 8)


def mean_requests(back: Array, size: int, end: int) -> float:
    """The canary's requests until rollback; without one, all that there were."""
    return float(np.minimum((back + 1) * size, end).mean())


def row(rows: Rows, goal: str, bound: float, found: float) -> None:
    """A row whose figure must not be above its bound."""
    rows.append((goal, f"≤ {bound:g}", f"{found:.4g}", found <= bound))


def detections(rows: Rows, runs: int, agreement: Agreement) -> None:
    """A canary that is bad from its first request; the peers' heights give them the false rollbacks of ours."""
    print("\ncanary requests until rollback; false rollbacks; ours / each peer at the same false rollbacks")
    titles = zip(("ours", "false", "pass bad", "SPRT", "2-arm", "CUSUM", "z, peeked", "false"), WIDTHS, strict=True)
    print(f"{'':24}" + "".join(f"{title:>{width}}" for title, width in titles))
    worst: dict[str, float] = {"false": 0.0, "SPRT": 0.0, "2-arm": 0.0, "CUSUM": 0.0}
    some = max(min(runs, 3000), 1)
    for number, (name, (rates, (n_b, n_c), per, end)) in enumerate(DETECTIONS.items()):
        chance, tick = np.random.default_rng((100, number)), per // n_c
        null = drawn(chance, (some, TICKS * tick), (n_b, n_c), (rates[0], rates[0]))
        bad = drawn(chance, (some, end // n_c), (n_b, n_c), rates)
        fine, (back, passed) = watched(null, tick), watched(bad, tick)
        agreement.guarded(null, tick, *fine)
        agreement.guarded(bad, tick, back, passed)
        false, mine = float((fine[0] < NEVER).mean()), mean_requests(back, n_c, end)
        peers = {"SPRT": both_known, "2-arm": ratio_known, "CUSUM": cusum}
        parts = {
            peer: mine / mean_requests(calibrated(walk, null, rates, false)(bad), n_c, end)
            for peer, walk in peers.items()
        }
        z, wrong = peeked_z(2.326)(bad), float((peeked_z(2.326)(null) < NEVER).mean())
        slipped = float((passed < back).mean())
        print(f"{name:24}{mine:8.0f}{false:8.4f}{slipped:10.3f}" + "".join(f"{each:8.2f}" for each in parts.values())
              + f"{mean_requests(z, n_c, end):12.0f}{wrong:8.2f}")  # fmt: skip
        worst["false"] = max(worst["false"], false)
        if "50%" not in name:
            worst |= {peer: max(worst[peer], part) for peer, part in parts.items()}
        if number < 2:
            row(rows, f"requests to rollback, {name}", (650, 200)[number], mine)
    row(rows, "false rollback of a guardrail and roll-out, worst", 0.01, worst["false"])
    row(rows, "requests / SPRT that knows both rates, canary 10 %, worst", 1.75, worst["SPRT"])
    row(rows, "requests / two-arm SPRT that knows the ratio, worst", 1.25, worst["2-arm"])
    row(rows, "requests / CUSUM that knows both rates, worst", 1.15, worst["CUSUM"])
    row(rows, "requests, 1 % → 5 % after 5,000 good ones", 350, late(some))


def late(runs: int) -> float:
    """The canary's requests from its degradation to its rollback, of those that were there until then."""
    size, good, all_of_them = 2, 2500, 5000
    rate = np.where(np.arange(all_of_them) < good, 0.01, 0.05)
    buckets = drawn(np.random.default_rng(101), (runs, all_of_them), (9 * size, size), (0.01, rate))
    back = ours(100 // size)(buckets)
    return mean_requests(back[back >= good] - good, size, size * (all_of_them - good))


def minutes(chance: Any, runs: int, volume: int, rates: tuple[float, float], surge: bool) -> Buckets:
    """Sixty minutes with so many canary requests each, and nine times as many of the incumbent."""
    there = np.isin(np.arange(TICKS), range(20, 25)) & surge
    shown = tuple(np.where(there, 0.10, rate) for rate in rates)
    return drawn(chance, (runs, TICKS), (9 * volume, volume), (shown[0], shown[1]))


def rollouts(rows: Rows, runs: int, agreement: Agreement) -> None:
    """Whole roll-outs, minute by minute, and what the peers would have done."""
    cases = {
        "good, 0.1%": (0.001, 0.001, False),
        "good, 1%": (0.01, 0.01, False),
        "good, 2%": (0.02, 0.02, False),
        "good, surge": (0.001, 0.001, True),
        "0.1→0.5%": (0.001, 0.005, False),
        "0.1→1%": (0.001, 0.01, False),
        "1→5%": (0.01, 0.05, False),
    }
    rules = {
        "Flagger-like 99%, 5/10": flagger(),
        "Argo-like 95%, limit 3": argo(),
        "Kayenta-like, 10 min": kayenta(10),
        "Kayenta-like, once": kayenta(TICKS),
        "ours": ours(),
    }
    some, worst = max(min(runs, BATCH), 1), 0.0
    for volume in (100, 1000):
        print(f"\nroll-outs of an hour, {volume} canary requests a minute: rolled back (canary requests until then)")
        print(f"{'':24}" + "".join(f"{case:>15}" for case in cases))
        for name, rule in rules.items():
            cells = []
            for number, (case, (rate0, rate1, surge)) in enumerate(cases.items()):
                chance = np.random.default_rng((200, volume, number))
                buckets = minutes(chance, some, volume, (rate0, rate1), surge)
                back = rule(buckets)
                there = back[back < NEVER]
                share = len(there) / some
                cells.append(f"{share:.3f}" + (f" ({mean_requests(there, volume, NEVER):,.0f})" if share > 0.5 else ""))
                if name == "ours" and case.startswith("good"):
                    worst = max(worst, share)
                    agreement.guarded(buckets, 1, *watched(buckets, 1))
            print(f"{name:24}" + "".join(f"{cell:>15}" for cell in cells))
    row(rows, "good releases rolled back, 0.1-2 % and surge, worst", 0.01, worst)
    per = np.repeat([10, 50, 250, 500], 15)
    rate = np.linspace(0.005, 0.02, TICKS)
    buckets = drawn(np.random.default_rng(201), (max(runs, 1), TICKS), (1000 - per, per), (rate, rate))
    naive = float((peeked_z(3.5)(buckets) < NEVER).mean())
    back, passed = watched(buckets, 1)
    agreement.guarded(buckets, 1, back, passed)
    print(f"ramp 1-5-25-50 % while errors climb 0.5 → 2 %: z on totals rolls back {naive:.2f} of good canaries")
    row(rows, "good releases rolled back, ramp with drift", 0.01, float((back < NEVER).mean()))


def splits(rows: Rows, runs: int, agreement: Agreement) -> None:
    """The sample-ratio check, a look every 100 units."""
    print("\nsample ratio, a look every 100 units to 100,000")
    some = max(min(runs, BATCH), 1)
    for share in (0.50, 0.51, 0.52, 0.55):
        counts = np.random.default_rng((300, round(100 * share))).binomial(100, share, (some, 1000))
        n0, n1 = counts.cumsum(axis=1), (100 - counts).cumsum(axis=1)
        flagged = first(log_mismatch(n0.astype(float), n1.astype(float)) >= np.log(1000))
        agreement.split(counts, 100 - counts, flagged)
        # 10.83 and 6.63: chi-square at one degree of freedom, p = 0.001 and 0.01
        chi = (n0 - n1) ** 2 / (n0 + n1)
        peeked = [float((first(chi >= bar) < NEVER).mean()) for bar in (6.635, 10.828)]
        seen, units = float((flagged < NEVER).mean()), mean_requests(flagged, 100, 100_000)
        other = f"chi-square 0.01 {peeked[0]:.2f}, 0.001 {peeked[1]:.3f}"
        print(f"split {share:.2f}: flagged {seen:.3f} after {units:,.0f} units; {other}")
        if share == 0.50:
            row(rows, "false sample-ratio mismatch", 0.001, seen)
        if share == 0.52:
            row(rows, "units to see 52:48", 12_000, units)
