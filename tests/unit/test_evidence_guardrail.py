"""This file tests the guardrail and the sample-ratio check: when they speak, and when they must be silent."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from branchline.core.guardrail import FROM_THE_START, RATIOS, Guard, GuardAnswer, Guardrail
from branchline.core.ratio_check import is_crossed, is_mismatch, log_mismatch, mismatch, mismatch_over

MINUTE = tuple[int, int, int, int]


def after(guard: Guard, *minutes: MINUTE) -> Guard:
    for minute in minutes:
        guard = guard.update(*minute)
    return guard


@pytest.mark.parametrize(("share", "needed"), [(0.1, 4), (0.5, 10)])
def test_a_challenger_that_always_fails_is_seen_at_once(share: float, needed: int) -> None:
    guard, errors = Guard(Guardrail(tick=1000)), 0
    while not guard.breached:
        guard, errors = guard.update(0, 0, 1, 1, share=share), errors + 1
    assert errors == needed


def test_the_evidence_is_the_formula() -> None:
    """0.8 from the start and 0.2 in restarts over the planned ticks, each multiplied by what the bucket says."""
    guard = after(Guard(Guardrail(ticks=10)), (900, 9, 100, 3), (450, 2, 50, 1))
    shares, seeds = [], []
    for control, control_bad, challenger, bad in ((900, 9, 100, 3), (450, 2, 50, 1)):
        theta = [challenger * ratio / (challenger * ratio + control) for ratio in (1.0, *RATIOS)]
        shares.append([(t / theta[0]) ** bad * ((1 - t) / (1 - theta[0])) ** control_bad for t in theta[1:]])
    seeds = [FROM_THE_START / 5 * first for first in shares[0]]
    seeds = [(seed + 0.2 / 5 / 10) * second for seed, second in zip(seeds, shares[1], strict=True)]
    assert guard.weights == pytest.approx(seeds)
    assert guard.evidence == pytest.approx(sum(seeds) + 0.2 * 9 / 10)
    assert (guard.requests, guard.bad, guard.buckets) == (150, 4, 2)


def test_nothing_seen_is_nothing_said() -> None:
    guard = Guard()
    assert (guard.evidence, guard.answer) == (1, GuardAnswer.CONTINUE)
    silent = after(guard, *[(0, 0, 50, 50), (50, 50, 0, 0), (0, 0, 0, 0)] * 100)
    assert silent.evidence == pytest.approx(1)
    assert silent.answer is GuardAnswer.CONTINUE


def test_restarts_end_with_the_planned_ticks() -> None:
    """The whole weight is spent once and never again: the evidence of silence stays 1."""
    guard = Guard(Guardrail(ticks=3, tick=2))
    for bucket in range(20):
        guard = guard.update(1, 0, 1, 0)
        spent = min(bucket // 2, 3) * 0.2 / 3
        assert sum(guard.weights) == pytest.approx(0.8 + spent)
        assert guard.evidence == pytest.approx(1)


def test_a_late_degradation_is_seen_by_a_restart() -> None:
    """Killer: without restarts the evidence that good minutes destroyed has to be won back first."""
    good, bad = [(900, 9, 100, 1)] * 50, [(900, 9, 100, 5)] * 4
    assert after(Guard(), *good, *bad).breached
    assert not after(Guard(Guardrail(tick=1000)), *good, *bad).breached


def test_what_was_breached_stays_breached() -> None:
    guard = after(Guard(), (900, 1, 100, 20))
    assert guard.answer is GuardAnswer.ROLLBACK
    recovered = after(guard, *[(900, 30, 100, 0)] * 20)
    assert recovered.evidence < 1
    assert recovered.answer is GuardAnswer.ROLLBACK


def test_a_good_canary_passes_and_may_still_be_rolled_back() -> None:
    guard = after(Guard(), *[(900, 9, 100, 1)] * 20)
    assert guard.answer is GuardAnswer.PASS
    assert after(guard, (900, 0, 100, 100)).answer is GuardAnswer.ROLLBACK


def test_what_has_passed_stays_passed() -> None:
    guard = after(Guard(), *[(900, 9, 100, 1)] * 12)
    assert guard.passed
    worse = after(guard, (900, 9, 100, 4))
    assert worse.evidence_good < 20
    assert worse.answer is GuardAnswer.PASS


def test_a_canary_twice_as_bad_does_not_pass() -> None:
    assert not after(Guard(), *[(900, 9, 100, 2)] * 60).passed


def test_a_tolerated_ratio_shifts_everything() -> None:
    minutes = [(900, 9, 100, 3)] * 20
    assert after(Guard(), *minutes).breached
    assert after(Guard(Guardrail(tolerated=3.0)), *minutes).answer is GuardAnswer.PASS


def test_a_surge_in_both_arms_is_nobodys() -> None:
    """A fixed limit would roll back here; the ratio does not."""
    minutes = [(900, 9, 100, 1)] * 5 + [(900, 90, 100, 10)] * 5
    assert not after(Guard(), *minutes).breached
    assert after(Guard(Guardrail(limit=0.02)), *minutes).breached


def test_an_absolute_limit_needs_no_incumbent() -> None:
    rule = Guardrail(limit=0.05)
    assert after(Guard(rule), (0, 0, 100, 30)).answer is GuardAnswer.ROLLBACK
    assert after(Guard(rule), *[(0, 0, 100, 4)] * 10).answer is GuardAnswer.PASS
    assert after(Guard(rule), (1000, 900, 0, 0)).evidence == 1
    assert after(Guard(Guardrail(limit=0.6)), (0, 0, 100, 100)).breached, "rates of the grid stay below 1"


def test_numbers_never_overflow() -> None:
    bad = after(Guard(), *[(10**6, 0, 10**6, 10**6)] * 5)
    good = after(Guard(), *[(10**6, 10**6, 10**6, 0)] * 5)
    assert math.isfinite(bad.evidence)
    assert math.isfinite(good.evidence_good)
    assert (bad.answer, good.answer) == (GuardAnswer.ROLLBACK, GuardAnswer.PASS)


@pytest.mark.parametrize("wrong", [(1, 2, 0, 0), (0, 0, 1, 2), (-1, -1, 0, 0), (0, 0, -1, -1), (1, -1, 0, 0)])
def test_a_bucket_that_cannot_be_is_refused(wrong: MINUTE) -> None:
    with pytest.raises(ValueError, match="bucket"):
        Guard().update(*wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tolerated": 0},
        {"bad_ratio": 1},
        {"limit": 0},
        {"limit": 1},
        {"ticks": 0},
        {"tick": 0},
        {"alpha": 0},
        {"beta": 1},
    ],
)
def test_a_guardrail_that_means_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|at least"):
        replace(Guardrail(), **wrong)  # type: ignore[arg-type]


def test_a_right_split_is_no_mismatch() -> None:
    assert mismatch([5000, 5000], [50, 50]) < 1
    assert mismatch([9000, 1000], [9000, 1000]) < 1
    assert mismatch([0, 0], [1, 1]) == pytest.approx(1)


def test_a_wrong_split_is_a_mismatch() -> None:
    evidence = mismatch([5200 * 2, 4800 * 2], [50, 50])
    assert is_mismatch(evidence)
    assert not is_mismatch(mismatch([520, 480], [50, 50]))
    assert not is_mismatch(evidence, alpha=1e-9)
    assert mismatch([10**6, 0], [50, 50]) < math.inf


def test_the_mismatch_is_the_product_of_what_was_predicted() -> None:
    """The closed form equals Dirichlet-multinomial prediction, one unit at a time, against the declared split."""
    weights, counts, log = (0.9, 0.1), [0, 0], 0.0
    for arm in (0, 0, 1, 0, 1, 1, 0):
        log += math.log((1000 * weights[arm] + counts[arm]) / (1000 + sum(counts)) / weights[arm])
        counts[arm] += 1
    assert log_mismatch(counts, weights) == pytest.approx(log)


def test_splits_are_counted_apart() -> None:
    """Killer: one count over a changed split calls a sound ramp a mismatch."""
    ramp = [([9000, 1000], [90, 10]), ([5000, 5000], [50, 50])]
    assert not is_mismatch(mismatch_over(ramp))
    assert is_mismatch(mismatch([14_000, 6000], [50, 50]))


@pytest.mark.parametrize(("counts", "weights"), [([1], [1, 1]), ([], []), ([1, 1], [1, 0]), ([1, -1], [1, 1])])
def test_arms_that_do_not_match_are_refused(counts: list[int], weights: list[float]) -> None:
    with pytest.raises(ValueError, match="arm"):
        mismatch(counts, weights)


def test_strays_above_one_percent_are_too_many() -> None:
    assert not is_crossed(10, 1000)
    assert is_crossed(11, 1000)
    assert not is_crossed(0, 0)
