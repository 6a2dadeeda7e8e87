"""This file plays whole tests and roll-outs with seeded chance: errors, power, and what goes wrong without a rule.

Requirements: 1.37 to 1.39. Each bound allows for the number of runs (three standard errors), so it is about the rule
and not about the seed. Small on purpose: the large bench stands elsewhere.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from branchline.core.evidence import Answer, Plan, Stratum, Sums, judge
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.ratio_check import is_mismatch, mismatch

# A deviation that 300 runs at a nominal 0.025, 0.05 or 0.10 exceed once in a thousand times.
RUNS = 300
ERROR_025, ERROR_05, ERROR_10 = 0.052, 0.088, 0.155


def events(chance: random.Random, n: int, rate: float) -> int:
    return sum(chance.random() < rate for _ in range(n))


def outcome(chance: random.Random, base: float, other: float, plan: Plan, looks: int = 240) -> Answer:
    """One A/B test, looked at after every 100 units until it says something."""
    control, challenger = Sums(), Sums()
    for _ in range(looks):
        control = more(control, 50, events(chance, 50, base))
        challenger = more(challenger, 50, events(chance, 50, other))
        answer = judge([Stratum(control, challenger)], plan).answer
        if answer is not Answer.CONTINUE:
            return answer
    return Answer.CONTINUE


def more(sums: Sums, n: int, hits: int) -> Sums:
    return Sums(sums.n + n, sums.total + hits, sums.squares + hits)


def shares(runs: int, play: Callable[[random.Random], Answer], seed: int) -> Counter[Answer]:
    chance = random.Random(seed)
    return Counter(play(chance) for _ in range(runs))


def test_a_challenger_without_effect_is_seldom_promoted_however_often_one_looks_1_39() -> None:
    plan = Plan(mde=0.03)
    seen = shares(RUNS, lambda chance: outcome(chance, 0.10, 0.10, plan), 1)
    assert seen[Answer.PROMOTE] / RUNS <= ERROR_025
    assert (seen[Answer.PROMOTE] + seen[Answer.HARMFUL]) / RUNS <= ERROR_05
    assert seen[Answer.FUTILE] / RUNS >= 0.9, "futility is what ends most experiments"


def test_a_challenger_as_good_as_declared_is_promoted_1_38() -> None:
    plan = Plan(mde=0.03)
    seen = shares(RUNS, lambda chance: outcome(chance, 0.10, 0.13, plan), 2)
    assert 1 - seen[Answer.PROMOTE] / RUNS <= ERROR_10


def test_a_peeked_z_test_would_promote_nothing_into_a_winner() -> None:
    """Killer: the same looks with a bar of p < 0.05 claim an effect in a third of the runs and more."""

    def naive(chance: random.Random) -> Answer:
        control, challenger = Sums(), Sums()
        for _ in range(120):
            control = more(control, 50, events(chance, 50, 0.10))
            challenger = more(challenger, 50, events(chance, 50, 0.10))
            seen = judge([Stratum(control, challenger)], Plan(mde=0.03))
            if seen.estimate and abs(seen.estimate) * seen.information**0.5 > 1.96:
                return Answer.PROMOTE
        return Answer.CONTINUE

    assert shares(60, naive, 3)[Answer.PROMOTE] / 60 > 0.3


def test_a_challenger_at_the_margin_is_seldom_passed() -> None:
    plan = Plan(margin=0.03)
    seen = shares(RUNS, lambda chance: outcome(chance, 0.13, 0.10, plan), 4)
    assert seen[Answer.PROMOTE] / RUNS <= ERROR_025


def test_a_mean_of_skewed_numbers_keeps_its_errors() -> None:
    """Exponential values, cut at a limit that was fixed beforehand."""
    plan = Plan(mde=0.25, cap=8.0)

    def play(chance: random.Random) -> Answer:
        control, challenger = Sums(), Sums()
        for _ in range(60):
            for _ in range(25):
                control = control.add(min(chance.expovariate(1.0), 8.0))
                challenger = challenger.add(min(chance.expovariate(1.0), 8.0))
            answer = judge([Stratum(control, challenger)], plan).answer
            if answer is not Answer.CONTINUE:
                return answer
        return Answer.CONTINUE

    seen = shares(RUNS, play, 5)
    assert seen[Answer.PROMOTE] / RUNS <= ERROR_025
    assert seen[Answer.FUTILE] / RUNS >= 0.9


def ramp(chance: random.Random, plan: Plan, *, stratified: bool) -> Answer:
    """A null challenger at 10 % and then at 50 %, while the base rate climbs from 10 to 20 %."""
    strata: list[Stratum] = []
    for share, base in ((0.1, 0.10), (0.5, 0.20)):
        control, challenger = Sums(), Sums()
        for _ in range(12):
            small = round(500 * share)
            control = more(control, 500 - small, events(chance, 500 - small, base))
            challenger = more(challenger, small, events(chance, small, base))
            now = [*strata, Stratum(control, challenger)]
            if not stratified:
                now = [pooled(now)]
            answer = judge(now, plan).answer
            if answer in (Answer.PROMOTE, Answer.HARMFUL):
                return answer
        strata.append(Stratum(control, challenger))
    return Answer.CONTINUE


def pooled(strata: list[Stratum]) -> Stratum:
    arms = [[s.control for s in strata], [s.challenger for s in strata]]
    control, challenger = (Sums(sum(s.n for s in arm), *[sum(s.total for s in arm)] * 2) for arm in arms)
    return Stratum(control, challenger)


def test_a_ramp_under_a_drifting_base_rate_promotes_nothing_by_itself() -> None:
    """Killer: totals pooled across the change of split promote the null challenger nearly always."""
    plan = Plan(mde=0.03)
    sound = shares(150, lambda chance: ramp(chance, plan, stratified=True), 6)
    assert (sound[Answer.PROMOTE] + sound[Answer.HARMFUL]) / 150 <= 0.11
    wrong = shares(40, lambda chance: ramp(chance, plan, stratified=False), 7)
    assert wrong[Answer.PROMOTE] / 40 > 0.9


def rollout(chance: random.Random, rates: tuple[float, float], minutes: int = 60, rule: Guardrail | None = None) -> int:
    """The canary requests until rollback, 0 if it never came: 60 a minute for the canary of a tenth."""
    guard = Guard(rule or Guardrail())
    for minute in range(minutes):
        surge = 5.0 if 20 <= minute < 25 else 1.0
        counts = [events(chance, n, min(rate * surge, 1)) for n, rate in zip((540, 60), rates, strict=True)]
        guard = guard.update(540, counts[0], 60, counts[1])
        if guard.breached:
            return guard.requests
    return 0


def test_a_good_release_is_not_rolled_back_even_in_a_surge() -> None:
    chance = random.Random(8)
    assert sum(rollout(chance, (0.02, 0.02)) > 0 for _ in range(60)) <= 3


def test_a_bad_release_is_rolled_back_soon() -> None:
    chance = random.Random(9)
    seen = [rollout(chance, (0.01, 0.05)) for _ in range(60)]
    assert min(seen) > 0
    assert sum(seen) / len(seen) <= 300


def test_one_request_at_a_time_sees_what_minutes_see() -> None:
    """With the split known, every single request is a bucket; nothing waits for a minute to end."""
    chance = random.Random(10)
    rule = Guardrail(tick=600)
    for rate, expected in ((0.02, 0), (0.10, 10)):
        breached = 0
        for _ in range(10):
            guard = Guard(rule)
            for _ in range(6000):
                mine = chance.random() < 0.1
                bad = int(chance.random() < (rate if mine else 0.02))
                guard = guard.update(0, 0, 1, bad, share=0.1) if mine else guard.update(1, bad, 0, 0, share=0.1)
                if guard.breached:
                    breached += 1
                    break
        assert abs(breached - expected) <= 1


def test_the_sample_ratio_check_may_be_asked_always() -> None:
    """It flags no sound split in 100 tests of 20,000 units, and sees 55:45 within 10,000."""
    chance = random.Random(11)
    for share, flagged in ((0.5, 0), (0.55, 100)):
        seen = 0
        for _ in range(100):
            counts = [0, 0]
            for _ in range(100):
                hits = events(chance, 100, share)
                counts = [counts[0] + hits, counts[1] + 100 - hits]
                if is_mismatch(mismatch(counts, [50, 50])):
                    seen += 1
                    break
        assert seen == flagged
