"""This file tests the judgement of an A/B test: golden values, every refusal, and what must hold for any data.

Requirements: 1.37 (which revision to retain), 1.38, 1.39. Simulations stand in
tests/integration/test_evidence_simulation.py.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from branchline.core.boundary import (
    critical_z,
    evidence_of,
    fixed_information,
    log_evidence,
    log_mixture,
    log_ratio,
    upper_quantile,
)
from branchline.core.evidence import (
    Answer,
    Judgement,
    Plan,
    Stratum,
    Sums,
    absolute_effect,
    decision,
    difference,
    fitting_mde,
    judge,
    planned_units,
)


def binary(n: int, events: int) -> Sums:
    return Sums(n, events, events)


def numbers(n: int, mean: float, deviation: float) -> Sums:
    return Sums(n, n * mean, n * mean * mean + (n - 1) * deviation * deviation)


def test_the_normal_mixture_meets_the_published_boundary() -> None:
    """confseq 0.0.11, two-sided, v = v_opt = 100: the mean of both one-sided mixtures is the two-sided one."""
    alpha, v, s = 0.05, 100.0, 30.35209
    rho = v / (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha)))
    z, r = s / math.sqrt(v), v / rho
    both = (evidence_of(log_mixture(z, r)) + evidence_of(log_mixture(-z, r))) / 2
    assert both == pytest.approx(1 / alpha, rel=1e-6)


def test_the_variance_of_two_proportions_meets_the_published_half_width() -> None:
    """gbstats 0.8.0: 500 of 5000 against 560 of 5000, N* = 5000, asymptotic confidence sequence."""
    _, variance = difference([Stratum(binary(5000, 500), binary(5000, 560))], binary=True)
    alpha, n = 0.05, 10_000
    rho2 = (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))) / 5000
    width = math.sqrt(variance * n * 2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    assert width == pytest.approx(0.01884517661, rel=1e-9)


def test_the_interval_is_as_wide_as_designed() -> None:
    """Its z at the information of a fixed test, at half of it and at four times: 2.84, 2.86, 3.69."""
    fixed = fixed_information(1.0)
    assert [round(critical_z(part * fixed, 1.0, 0.05), 2) for part in (1, 0.5, 4)] == [2.84, 2.86, 3.69]


def test_quantiles_and_the_plan_of_a_fixed_test() -> None:
    assert upper_quantile(0.025) == pytest.approx(1.959963984540054)
    assert math.sqrt(fixed_information(1.0)) == pytest.approx(3.24, abs=0.002)
    plan = Plan(mde=0.01)
    sigma = math.sqrt((0.1 * 0.9 + 0.11 * 0.89) / 2)
    assert planned_units(sigma, plan) == pytest.approx(39_500, rel=0.01)
    assert planned_units(sigma, plan, share=0.1) == pytest.approx(39_500 * 0.25 / 0.09, rel=0.01)
    assert fitting_mde(sigma, planned_units(sigma, plan), plan) == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("z", [-40.0, -37.01, -36.99, -5.0, 0.0, 5.0, 60.0])
def test_evidence_is_finite_and_grows_where_floats_end(z: float) -> None:
    here, above = log_evidence(z, 4e5, 0.5), log_evidence(z + 0.01, 4e5, 0.5)
    assert math.isfinite(here)
    assert here < above
    assert evidence_of(1e6) < math.inf


def test_a_clear_winner_is_promoted_1_38() -> None:
    seen = judge([Stratum(binary(5000, 500), binary(5000, 650))], Plan(mde=0.02))
    assert (seen.answer, seen.units_control, seen.units_challenger) == (Answer.PROMOTE, 5000, 5000)
    assert seen.estimate == pytest.approx(0.03)
    assert seen.low is not None
    assert seen.high is not None
    assert 0 < seen.low < 0.03 < seen.high
    assert seen.e_for > 40 > 1 > seen.e_against
    assert seen.p < 0.05
    assert seen.likelihood_ratio > 1
    assert seen.progress == pytest.approx(seen.information / seen.planned_information)


def test_a_clear_loser_is_harmful_1_39() -> None:
    seen = judge([Stratum(binary(5000, 650), binary(5000, 500))], Plan(mde=0.02))
    assert (seen.answer, seen.reason) == (Answer.HARMFUL, "the challenger is worse")
    assert seen.e_against > 40


def test_lower_may_be_the_better_direction() -> None:
    data = [Stratum(binary(5000, 650), binary(5000, 500))]
    seen = judge(data, Plan("lower", mde=0.02))
    assert seen.answer is Answer.PROMOTE
    assert seen.estimate == pytest.approx(-0.03)
    assert seen.high is not None
    assert seen.high < 0


def test_no_effect_is_futile_1_39() -> None:
    seen = judge([Stratum(binary(9000, 900), binary(9000, 900))], Plan(mde=0.02))
    assert seen.answer is Answer.FUTILE
    assert seen.likelihood_ratio <= 0.10


def test_a_draw_goes_on_and_says_how_long() -> None:
    seen = judge([Stratum(binary(1000, 100), binary(1000, 112))], Plan(mde=0.02))
    assert (seen.answer, seen.reason) == (Answer.CONTINUE, "undecided so far")
    assert seen.expected_units_left == math.ceil(2000 * (0.65 / seen.progress - 1))


def test_units_left_follow_the_milestones() -> None:
    plan = Plan(mde=1.0)
    fixed = plan.planned_information
    left = [decision(0.5, 1 / (part * fixed), plan, (500, 500)).expected_units_left for part in (0.5, 0.8, 2.0, 3.5)]
    assert left[-1] is None
    assert [units or 0 for units in left[:-1]] == pytest.approx([300, 250, 500], abs=1)
    assert decision(0.5, 1.0, plan).expected_units_left is None
    assert judge([], plan).expected_units_left is None


def test_no_worse_by_a_margin_is_promoted() -> None:
    data = [Stratum(binary(20_000, 2000), binary(20_000, 2000))]
    seen = judge(data, Plan(margin=0.02))
    assert (seen.answer, seen.reason) == (Answer.PROMOTE, "the challenger is no worse by more than 0.02")
    assert seen.low is not None
    assert -0.02 < seen.low < 0
    assert judge(data, Plan(mde=0.02)).answer is Answer.FUTILE


def test_a_mean_of_numbers_is_judged_with_the_variance_of_a_sample() -> None:
    values = [1.0, 2.0, 4.0, 7.5], [2.5, 3.0, 6.0]
    estimate, variance = difference([Stratum(Sums.of(values[0]), Sums.of(values[1]))])
    assert estimate == pytest.approx(11.5 / 3 - 14.5 / 4)
    assert variance == pytest.approx(8.2291666 / 4 + 3.5833333 / 3)
    seen = judge([Stratum(numbers(600, 10.0, 2.0), numbers(600, 11.0, 2.0))], Plan(mde=0.8))
    assert seen.answer is Answer.PROMOTE


def test_strata_are_weighted_by_their_harmonic_sizes() -> None:
    one = Stratum(numbers(60, 1.0, 1.0), numbers(40, 2.0, 1.0))
    two = Stratum(numbers(30, 5.0, 2.0), numbers(30, 8.0, 2.0))
    (d1, v1), (d2, v2) = difference([one]), difference([two])
    h1, h2 = 24.0, 15.0
    d, v = difference([one, two])
    assert d == pytest.approx((h1 * d1 + h2 * d2) / (h1 + h2))
    assert v == pytest.approx((h1**2 * v1 + h2**2 * v2) / (h1 + h2) ** 2)


def test_a_ramp_with_a_drifting_base_rate_is_no_effect() -> None:
    """Killer: the same data in one stratum, as totals pooled across the change of split, promotes a null challenger."""
    early = Stratum(binary(9000, 900), binary(1000, 100))
    late = Stratum(binary(5000, 1000), binary(5000, 1000))
    assert judge([early, late], Plan(mde=0.02)).estimate == pytest.approx(0)
    pooled = Stratum(binary(14_000, 1900), binary(6000, 1100))
    assert judge([pooled], Plan(mde=0.02)).answer is Answer.PROMOTE


def test_a_thin_arm_borrows_the_variance_of_both() -> None:
    """Killer: with separate variances the small arm, that has not met the tail yet, is called harmful."""
    heavy, thin = numbers(9000, 10.0, 60.0), numbers(1000, 5.0, 3.0)
    plan = Plan(mde=2.5, bounds=(0, 10_000))
    _, pooled = difference([Stratum(heavy, thin)])
    separate = 60.0**2 / 9000 + 3.0**2 / 1000
    assert pooled == pytest.approx((8999 * 3600 + 999 * 9) / 9998 * (1 / 9000 + 1 / 1000))
    assert judge([Stratum(heavy, thin)], plan).answer is not Answer.HARMFUL
    assert decision(-5.0, separate, plan).answer is Answer.HARMFUL


def test_a_stratum_without_two_units_an_arm_says_nothing() -> None:
    good = Stratum(binary(1000, 100), binary(1000, 120))
    thin = Stratum(binary(500, 50), binary(1, 1))
    assert judge([good, thin, Stratum()], Plan(mde=0.02)) == judge([good], Plan(mde=0.02))


# Each refusal: data that would be judged (promoted), but for the one thing that makes it untrustworthy.
BOUNDED = Plan(mde=1.0, bounds=(0, 100))
REFUSALS = [
    ("declared", [Stratum(binary(5000, 500), binary(5000, 650))], Plan()),
    ("99 of 100 units", [Stratum(numbers(99, 10, 1), numbers(500, 15, 1))], BOUNDED),
    ("99 of 100 units", [Stratum(numbers(500, 10, 1), numbers(99, 15, 1))], BOUNDED),
    ("24 of 25 ones", [Stratum(binary(1000, 24), binary(1000, 120))], Plan(mde=0.02)),
    ("24 of 25 zeros", [Stratum(binary(1000, 976), binary(1000, 900))], Plan("lower", mde=0.02)),
    ("24 of 25 ones", [Stratum(binary(1000, 120), binary(1000, 24))], Plan("lower", mde=0.02)),
    ("499 of 500 units", [Stratum(numbers(499, 10, 1), numbers(600, 15, 1))], Plan(mde=1.0)),
    ("30 and 70", [Stratum(numbers(5000, 10, 1), numbers(600, 15, 1))], Plan(mde=1.0)),
    ("30 and 70", [Stratum(numbers(600, 10, 1), numbers(5000, 15, 1))], Plan(mde=1.0)),
    ("variance is 0", [Stratum(numbers(600, 10, 0), numbers(600, 15, 0))], BOUNDED),
    ("variance is nan", [Stratum(Sums(600, 10, math.nan), numbers(600, 15, 1))], BOUNDED),
    ("variance is inf", [Stratum(Sums(600, 10, math.inf), numbers(600, 15, 1))], BOUNDED),
]


@pytest.mark.parametrize(("why", "data", "plan"), REFUSALS, ids=range(len(REFUSALS)))
def test_what_cannot_be_trusted_is_refused(why: str, data: list[Stratum], plan: Plan) -> None:
    seen = judge(data, plan)
    assert seen.answer is Answer.CONTINUE
    assert why in seen.reason
    assert (seen.e_for, seen.e_against, seen.likelihood_ratio, seen.p) == (1, 1, 1, 1)
    ended = judge(data, plan, ended="14 days are over")
    assert ended.answer is Answer.INCONCLUSIVE
    assert ended.reason.startswith("14 days are over; ")


@pytest.mark.parametrize(
    ("data", "plan"),
    [
        ([Stratum(numbers(100, 10, 1), numbers(100, 15, 1))], BOUNDED),
        ([Stratum(numbers(100, 10, 1), numbers(100, 15, 1))], Plan(mde=1.0, cap=40.0)),
        ([Stratum(binary(100, 25), binary(100, 75))], Plan(mde=0.1)),
        ([Stratum(numbers(500, 10, 1), numbers(500, 15, 1))], Plan(mde=1.0)),
        ([Stratum(numbers(7000, 10, 1), numbers(3000, 15, 1))], Plan(mde=1.0)),
    ],
)
def test_what_is_just_enough_is_judged(data: list[Stratum], plan: Plan) -> None:
    assert judge(data, plan).answer is Answer.PROMOTE


def test_a_test_that_has_ended_is_inconclusive() -> None:
    data = [Stratum(binary(1000, 100), binary(1000, 112))]
    seen = judge(data, Plan(mde=0.02), ended="14 days are over")
    assert (seen.answer, seen.reason) == (Answer.INCONCLUSIVE, "14 days are over")
    used = judge(data, Plan(mde=0.02, max_information=1.0))
    assert (used.answer, used.reason) == (Answer.INCONCLUSIVE, "all the information that was planned for is used")
    more = Plan(mde=0.02, max_information=1e9)
    assert judge(data, more).answer is Answer.CONTINUE
    assert judge([Stratum(binary(5000, 500), binary(5000, 650))], Plan(mde=0.02), "over").answer is Answer.PROMOTE


def test_without_an_effect_there_is_neither_plan_nor_interval() -> None:
    seen = judge([Stratum(binary(500, 100), binary(500, 100))], Plan())
    assert (seen.low, seen.high, seen.half_width, seen.expected_units_left) == (None, None, None, None)
    assert (seen.planned_information, seen.progress) == (math.inf, 0)
    nothing = judge([], Plan(mde=0.1, min_units=0))
    assert nothing.answer is Answer.CONTINUE
    assert (nothing.estimate, nothing.low, nothing.high, nothing.units) == (None, None, None, 0)
    assert decision(math.nan, 1.0, Plan(mde=1.0)).estimate is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"direction": "up"},
        {"mde": -1},
        {"mde": math.nan},
        {"margin": math.inf},
        {"alpha": 0},
        {"beta": 1},
        {"bounds": (1, 1)},
    ],
)
def test_a_plan_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"direction|must|empty"):
        replace(Plan(), **wrong)  # type: ignore[arg-type]


def test_a_relative_effect_is_frozen_by_the_incumbents_mean() -> None:
    assert absolute_effect(0.05, 200.0) == absolute_effect(-0.05, -200.0) == 10
    for mean in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="relative"):
            absolute_effect(0.05, mean)


def test_rounding_is_no_variance() -> None:
    """A constant value that floats cannot hold leaves a spread that is none."""
    assert Sums.of([0.1] * 1000).spread == 0


def test_the_evidence_mixes_the_ratio_and_the_mixture() -> None:
    z, information, effect = 1.3, 4.0, 0.7
    parts = 0.7 * evidence_of(log_ratio(z, information, effect)) + 0.3 * evidence_of(log_mixture(z, 4.0 * 2.1**2))
    assert evidence_of(log_evidence(z, information, effect)) == pytest.approx(parts)


def test_a_judgement_of_nothing_reads_as_nothing() -> None:
    empty = Judgement(Plan(mde=1.0), Answer.CONTINUE, "no data")
    assert (empty.units, empty.progress, empty.half_width) == (0, 0, None)
