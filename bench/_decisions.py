"""This file is `decisions.py` once there is NumPy: it plays every part and prints what was found beside its bound."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _decisions_canaries as canaries
import numpy as np  # type: ignore[import-not-found]
from _decisions_check import Agreement, costs
from _decisions_rules import (
    HARMFUL,
    PROMOTE,
    Rule,
    Told,
    asymptotic_sequence,
    bonferroni,
    fixed_horizon,
    known_effect,
    msprt,
    naive,
    obrien_fleming,
    ours,
    pampallona_tsiatis,
    told,
)
from _decisions_streams import LOOKS, Stream, adjusted, binary, delayed, heavy, ramp, ratio, varying

from branchline.core.decision import Plan
from branchline.core.exact import Exact

RUNS, BATCH, SAMPLE = 16_000, 250, 25
MDE = 0.01
CAP = 106.0  # the 99.9th percentile of the heavy values
Rows = list[tuple[str, str, str, bool]]


def play(stream: Stream, rules: Mapping[str, Rule], runs: int, seed: int) -> tuple[dict[str, Told], Any]:
    """What each rule says of the same runs, in batches; and the sums of the first batch."""
    said: dict[str, list[Told]] = {name: [] for name in rules}
    kept = None
    for batch in range(-(-runs // BATCH)):
        sums, looks = stream(np.random.default_rng((seed, batch)), min(BATCH, runs - batch * BATCH))
        kept = kept if batch else sums
        for name, rule in rules.items():
            said[name].append(told(looks, rule(looks)))
    joined = {name: Told(*(np.concatenate(part) for part in zip(*each, strict=True))) for name, each in said.items()}
    return joined, kept


def at_most(rows: Rows, goal: str, bound: float, found: float, shown: str = "") -> None:
    """A row whose figure must not be above its bound."""
    rows.append((goal, f"≤ {bound:g}", shown or f"{found:.4g}", found <= bound))


def at_least(rows: Rows, goal: str, bound: float, found: float) -> None:
    """A row whose figure must not be below its bound."""
    rows.append((goal, f"≥ {bound:g}", f"{found:.4g}", found >= bound))


def upper(share: float, runs: int) -> float:
    """The upper 95 % limit of a share that was found in so many runs."""
    return share + 1.96 * math.sqrt(share * (1 - share) / runs)


def conclusions(rows: Rows, runs: int, agreement: Agreement) -> None:
    """Binary tests, ours beside every peer: §4 of the design."""
    print("\nA/B, incumbent 0.10, MDE 0.01, a look every 100 units to 100,000: promoted / any claim, mean units")
    found: dict[float, dict[str, Told]] = {}
    for rate in (0.100, 0.105, 0.110, 0.120):
        rules = {
            "naive z, peeked": naive(),
            "Bonferroni": bonferroni(LOOKS),
            "fixed horizon": fixed_horizon(MDE),
            "O'Brien-Fleming, 5 looks": obrien_fleming(MDE),
            "Pampallona-Tsiatis, 5 looks": pampallona_tsiatis(MDE, 0.025, 0.10),
            "mSPRT, tau = MDE": msprt(MDE),
            "mSPRT, tau = 5 MDE": msprt(5 * MDE),
            "asymptotic CS, N* = 5000": asymptotic_sequence(),
            "ours": ours(MDE),
            "ours, no futility": ours(MDE, futility=False),
            "Wald SPRT, effect known": known_effect(rate - 0.1 if rate > 0.1 else MDE),
        }
        found[rate], sums = play(binary(0.10, rate), rules, runs, 1)
        agreement.judged("mean", {"mde": MDE}, sums, found[rate]["ours"])
    table(found)
    null, at, twice = found[0.100], found[0.110], found[0.120]
    error, power = null["ours"].share(PROMOTE), at["ours"].share(PROMOTE)
    few_looks = best_peer(at["ours"], max(error, 0.001), max(1 - power, 0.01), runs)
    at_most(rows, "false promotion, binary", 0.025, error)
    at_most(rows, "  its upper 95 % limit", 0.03, upper(error, runs))
    at_most(rows, "any false claim, futility off, binary", 0.05, null["ours, no futility"].share(PROMOTE, HARMFUL))
    at_least(rows, "power at the MDE, binary", 0.90, power)
    wald, fleming = "Wald SPRT, effect known", "O'Brien-Fleming, 5 looks"

    def part(each: dict[str, Told], of: str) -> float:
        return each["ours"].mean_units / each[of].mean_units

    at_most(rows, "units at the MDE / known-effect SPRT", 1.10, part(at, wald))
    at_most(rows, "units at the MDE / best Pampallona-Tsiatis of 5 looks, same errors", 0.92, few_looks)
    at_most(rows, "units at the MDE / O'Brien-Fleming", 0.88, part(at, fleming))
    at_most(rows, "units at twice the MDE / O'Brien-Fleming", 0.55, part(twice, fleming))
    at_most(rows, "units without effect / O'Brien-Fleming", 0.45, part(null, fleming))
    at_most(rows, "units without effect / known-effect SPRT", 1.05, part(null, wald))


def best_peer(mine: Told, alpha: float, beta: float, runs: int) -> float:
    """Our units at the MDE as a part of the best five-look design's with the errors that ours was found to have.

    More planned looks and flatter bars are printed, too: they come near, for whoever plans that many looks and an end.
    """
    looks_and_shapes = [(parts, shape) for parts in (5, 25, 50) for shape in (0.0, 0.25, 0.4)]
    rules = {
        f"{parts}, {shape}": pampallona_tsiatis(MDE, alpha, beta, parts, shape) for parts, shape in looks_and_shapes
    }
    few = max(runs // 4, 1)
    peers, _ = play(binary(0.10, 0.10 + MDE), rules, few, 1)  # the first of the same runs
    parts = {name: float(mine.units[:few].mean()) / peer.mean_units for name, peer in peers.items()}
    print("our units at the MDE / Pampallona-Tsiatis of so many looks and shape, at our errors: "
          + "; ".join(f"{name}: {part:.2f}" for name, part in parts.items()))  # fmt: skip
    return max(part for name, part in parts.items() if name.startswith("5,"))


def table(found: Mapping[float, Mapping[str, Told]]) -> None:
    """Rules down, rates across."""
    print(f"{'':30}" + "".join(f"{rate:>26}" for rate in found))
    for name in next(iter(found.values())):
        told_by = [each[name] for each in found.values()]
        cells = [f"{t.share(PROMOTE):.3f} / {t.share(PROMOTE, HARMFUL):.3f} {t.mean_units:>10,.0f}" for t in told_by]
        print(f"{name:30}" + "".join(f"{cell:>26}" for cell in cells))


def metrics(rows: Rows, runs: int, agreement: Agreement) -> None:
    """Heavy tails, ratios, non-inferiority, CUPED, strata, windows."""
    some = max(runs // 2, 1)
    fleming = {"ours": ours(0.25), "claims": ours(0.25, futility=False)}
    tail, sums = play(heavy(), fleming, some, 2)
    agreement.judged("mean", {"mde": 0.25}, sums, tail["ours"])
    at_most(rows, "false promotion, heavy tail, halves", 0.025, tail["ours"].share(PROMOTE))
    at_most(rows, "any false claim, futility off, heavy tail", 0.05, tail["claims"].share(PROMOTE, HARMFUL))
    both = {"ours": ours(MDE), "claims": ours(MDE, futility=False), "peer": obrien_fleming(MDE)}
    null, sums = play(ratio(0.10, 0.10), both, runs, 3)
    agreement.judged("ratio", {"mde": MDE}, sums, null["ours"])
    at_most(rows, "false promotion, ratio", 0.025, null["ours"].share(PROMOTE))
    at_most(rows, "any false claim, futility off, ratio", 0.05, null["claims"].share(PROMOTE, HARMFUL))
    effect, sums = play(ratio(0.10, 0.11), both, runs, 4)
    agreement.judged("ratio", {"mde": MDE}, sums, effect["ours"])
    say("ratio 0.10 v 0.11", effect["ours"], f"O'Brien-Fleming {effect['peer'].mean_units:,.0f} units")
    margin = {"ours": ours(0.0, margin=MDE)}
    worse, sums = play(binary(0.11, 0.10), margin, runs, 5)
    agreement.judged("mean", {"margin": MDE}, sums, worse["ours"])
    equal, sums = play(binary(0.10, 0.10), margin, runs, 6)
    agreement.judged("mean", {"margin": MDE}, sums, equal["ours"])
    at_most(rows, "passed though worse by the margin", 0.025, worse["ours"].share(PROMOTE))
    at_least(rows, "power of non-inferiority, equal arms", 0.90, equal["ours"].share(PROMOTE))
    for correlation, theory in ((0.5, 0.75), (0.7, 0.51)):
        with_it, without = adjusted(correlation)
        few = max(runs // 32, 1)
        used = play(with_it, {"ours": ours(0.05)}, few, 7)[0]["ours"].mean_units
        plain = play(without, {"ours": ours(0.05)}, few, 7)[0]["ours"].mean_units
        print(f"CUPED at correlation {correlation}: {used / plain:.2f} of the units (theory {theory})")
    claims = {"ours": ours(MDE, futility=False)}
    kept = play(ramp(stratified=True), claims, some, 8)[0]["ours"].share(PROMOTE, HARMFUL)
    pooled = play(ramp(stratified=False), claims, max(runs // 8, 1), 8)[0]["ours"].share(PROMOTE, HARMFUL)
    at_most(rows, "stratified ramp, any false claim", 0.05, kept, f"{kept:.4g} (pooled {pooled:.2f})")
    late = play(delayed(matured=True), claims, some, 9)[0]["ours"].share(HARMFUL)
    early = play(delayed(matured=False), claims, max(runs // 8, 1), 9)[0]["ours"].share(HARMFUL)
    at_most(rows, "unequal delays, matured only, false harmful", 0.025, late, f"{late:.4g} (at once {early:.2f})")


def say(name: str, each: Told, more: str = "") -> None:
    """What ours said of a stream, in a line."""
    words = f"promoted {each.share(PROMOTE):.3f}, harmful {each.share(HARMFUL):.3f}, {each.mean_units:,.0f} units"
    print(f"{name}: {words}" + (f"; {more}" if more else ""))


def scenarios(rows: Rows, runs: int, agreement: Agreement) -> None:
    """What the design did not name: the null challenger, futility off, and ours with an effect where there is one."""
    streams: dict[str, tuple[Stream, Stream | None, float, float]] = {
        "base rate drifts 0.05 → 0.20": (varying(), varying(MDE), MDE, 0.05),
        "weekdays in rate and traffic": (varying(kind="weekdays"), varying(MDE, kind="weekdays"), MDE, 0.05),
        "bursts that hit both arms": (varying(kind="bursts"), varying(MDE, kind="bursts"), MDE, 0.05),
        "split 1:9": (binary(0.10, 0.10, share=0.1), binary(0.10, 0.11, share=0.1), MDE, 0.05),
        "heavy tail, capped": (heavy(cap=CAP), heavy(0.25, cap=CAP), 0.25, 0.05),
        "heavy tail, capped, split 1:9 (known: over nominal)": (heavy(cap=CAP, share=0.1), None, 0.25, 0.08),
        "one unit of 10,000 means": (heavy(huge=1e4), heavy(0.25, huge=1e4), 0.25, 0.05),
        "one unit of 10,000 means, capped": (heavy(huge=1e4, cap=CAP), heavy(0.25, huge=1e4, cap=CAP), 0.25, 0.05),
        "bots ask 100 times, ratio": (ratio(0.10, 0.10, bots=True), ratio(0.10, 0.11, bots=True), MDE, 0.05),
    }
    print("\nscenarios: without effect, any claim with futility off / promoted as shipped; at the MDE promoted, units")
    few = max(runs // 4, 1)
    for number, (name, (null, effect, mde, bound)) in enumerate(streams.items()):
        rules = {"ours": ours(mde), "claims": ours(mde, futility=False)}
        seen, sums = play(null, rules, few, 20 + number)
        spec = {"mde": mde} | ({"cap": CAP} if "capped" in name else {})
        agreement.judged("ratio" if "y0" in sums else "mean", spec, sums, seen["ours"])
        claims, promoted = seen["claims"].share(PROMOTE, HARMFUL), seen["ours"].share(PROMOTE)
        line = f"{name:54}{claims:.3f} / {promoted:.3f}"
        if effect is not None:
            with_effect = play(effect, rules, few, 40 + number)[0]["ours"]
            line += f"   {with_effect.share(PROMOTE):.3f} {with_effect.mean_units:>9,.0f}"
        print(line)
        # Three standard errors above its bound is chance; more is the rule.
        at_most(rows, f"{name}, any claim", round(bound + 3 * math.sqrt(bound * (1 - bound) / few), 3), claims)


def oracle(rows: Rows, runs: int) -> None:
    """The exact form, beside ours on the same outcomes."""
    few = max(min(runs // 40, 100), 1)
    alike, units = 0, [0.0, 0.0]
    for rate in (0.10, 0.13):
        seen, sums = play(binary(0.10, rate, looks=400), {"ours": ours(0.03)}, few, 60)
        for run in range(few):
            exact, before = Exact(Plan(mde=0.03)), (0, 0)
            for look in range(400):
                now = int(sums["s0"][run, look]), int(sums["s1"][run, look])
                exact = exact.update(50, now[0] - before[0], 50, now[1] - before[1])
                before = now
                if exact.answer.value != "continue":
                    break
            word = ("continue", "promote", "harmful", "futile")[int(seen["ours"].code[run])]
            alike += exact.answer.value == word
            units = [units[0] + exact.counts[0] * 2, units[1] + float(seen["ours"].units[run])]
    print(
        f"\nexact form beside ours, {2 * few} tests: {alike / 2 / few:.1%} end alike, {units[0] / units[1]:.3f} units"
    )
    at_least(rows, "the exact form ends alike", 0.93, alike / 2 / few)


def main() -> None:
    """Play all parts, or one, and print the goals."""
    parts: dict[str, Callable[[Rows, int, Agreement], None]] = {
        "conclusions": conclusions,
        "metrics": metrics,
        "scenarios": scenarios,
        "oracle": lambda rows, runs, _: oracle(rows, runs),
        "canaries": canaries.detections,
        "rollouts": canaries.rollouts,
        "splits": canaries.splits,
    }
    parser = argparse.ArgumentParser(prog="decisions.py", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--only", choices=parts)
    asked = parser.parse_args()
    rows: Rows = []
    agreement, begun = Agreement(SAMPLE), time.process_time()
    print(f"{asked.runs} runs, seeded; Monte-Carlo error about {1 / math.sqrt(asked.runs) / 4:.3f} at 0.05")
    for name, part in parts.items():
        if asked.only in (None, name):
            at = time.process_time()
            part(rows, asked.runs, agreement)
            print(f"({name}: {time.process_time() - at:.0f} s of processor)")
    found = costs()
    print("\none update of the shipped engine, µs: " + ", ".join(f"{kind} {cost:.1f}" for kind, cost in found.items()))
    at_most(rows, "judgement cost of a metric, µs", 20, max(found[kind] for kind in ("mean", "ratio", "guardrail")))
    if agreement.runs:
        at_least(rows, f"engine = formulas, same verdict and look ({agreement.runs} runs)", 1.0, agreement.share)
    print(f"\n{'goal':66}{'bound':>10}{'found':>24}")
    for goal, bound, figure, met in rows:
        print(f"{goal:66}{bound:>10}{figure:>24}{'' if met else '  missed'}")
    missed = sum(not met for *_, met in rows)
    print(f"\n{len(rows) - missed} of {len(rows)} met; {time.process_time() - begun:.0f} s of processor")


if __name__ == "__main__":
    main()
