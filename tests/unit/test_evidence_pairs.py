"""This file tests what a unit brings in two numbers: ratios of sums, and means adjusted by a covariate."""

from __future__ import annotations

import math
import random
from statistics import covariance, mean, variance

import pytest

from branchline.core import arms
from branchline.core.covariate import adjusted_difference, judge_adjusted
from branchline.core.evidence import Answer, Plan, Stratum, Sums, difference, judge
from branchline.core.ratios import MIN_UNITS, Pairs, PairStratum, judge_ratio, ratio_difference

CONTROL = [(1.0, 4.0), (0.0, 2.0), (3.0, 5.0), (2.0, 2.0), (1.0, 6.0)]
CHALLENGER = [(2.0, 4.0), (1.0, 1.0), (4.0, 6.0), (2.0, 3.0)]


def drawn(seed: int, n: int, gain: float = 0.0, noise: float = 1.0) -> Pairs:
    """Units whose y is their x from before the start, plus noise and a gain."""
    chance = random.Random(seed)
    pairs = []
    for _ in range(n):
        x = chance.gauss(10, 2)
        pairs.append((x + gain + chance.gauss(0, noise), x))
    return Pairs.of(pairs)


def clicks(n: int, rate: float, views: float = 5.0) -> Pairs:
    """Units of equally many views, who click at each of theirs or at none."""
    y = rate * n * views
    return Pairs(n, y, n * views, y * views, y * views, n * views * views)


def linearised(arm: list[tuple[float, float]]) -> tuple[float, float]:
    """The ratio, and its variance as that of the residuals y − Rx over the mean of x: the delta method in words."""
    ratio = sum(y for y, _ in arm) / sum(x for _, x in arm)
    residues = [(y - ratio * x) / mean(x for _, x in arm) for y, x in arm]
    return ratio, sum(value * value for value in residues) / len(arm) ** 2


def test_the_variance_of_a_ratio_is_that_of_its_residuals() -> None:
    (r0, v0), (r1, v1) = linearised(CONTROL), linearised(CHALLENGER)
    seen = ratio_difference([PairStratum(Pairs.of(CONTROL), Pairs.of(CHALLENGER))])
    assert seen == pytest.approx((r1 - r0, v0 + v1))


def test_ratio_and_covariate_meet_a_published_package() -> None:
    """tea-tasting 1.14.0, RatioOfMeans("y", "x") and Mean("y", "x"), the variance from its 95 % interval.

    Its delta method divides by n - 1; its θ is of the covariance about the means of both arms as of one.
    """
    units = [(k % 2, ((k * 104729 + k % 2 * 31) % 17) / 4, 1.0 + (k * 7919) % 13) for k in range(400)]
    arms = [Pairs.of((y + 0.3 * x + 0.2 * arm, x) for arm, y, x in units if arm == side) for side in (0, 1)]
    ratio, variance_of_ratio = ratio_difference([PairStratum(*arms)])
    assert ratio == pytest.approx(0.03719155312316125, rel=1e-12)
    assert variance_of_ratio * 200 / 199 == pytest.approx(0.0005645890073483225, rel=1e-9)
    adjusted, variance_of_adjusted = adjusted_difference([PairStratum(*arms)])
    assert adjusted == pytest.approx(0.2550331873944094, rel=1e-5)
    assert variance_of_adjusted == pytest.approx(0.014960009079335935, rel=1e-6)


def test_a_ratio_over_one_each_is_a_proportion() -> None:
    """Killer: with another formula than the mean's the two would differ."""
    y = Sums(5000, 500, 500), Sums(5000, 650, 650)
    pairs = [Pairs(arm.n, arm.total, arm.n, arm.squares, arm.total, arm.n) for arm in y]
    assert ratio_difference([PairStratum(*pairs)]) == pytest.approx(difference([Stratum(*y)], binary=True))
    assert judge_ratio([PairStratum(*pairs)], Plan(mde=0.02)).answer is Answer.PROMOTE


def test_requests_of_one_unit_are_not_independent() -> None:
    """Killer: with requests counted for units the same data would have claimed an effect."""
    control, challenger = clicks(1000, 0.100), clicks(1000, 0.125)
    assert judge_ratio([PairStratum(control, challenger)], Plan(mde=0.025)).answer is Answer.CONTINUE
    requests = [Sums(5000, arm.y, arm.y) for arm in (control, challenger)]
    assert judge([Stratum(*requests)], Plan(mde=0.025)).answer is Answer.PROMOTE


def test_strata_of_ratios_are_never_pooled() -> None:
    early = PairStratum(clicks(900, 0.10), clicks(100, 0.10))
    late = PairStratum(clicks(500, 0.30), clicks(500, 0.30))
    assert judge_ratio([early, late], Plan(mde=0.05)).estimate == pytest.approx(0)
    pooled = PairStratum(
        Pairs(1400, 1200, 7000, 6000, 6000, 35_000),
        Pairs(600, 800, 3000, 4000, 4000, 15_000),
    )
    assert judge_ratio([pooled], Plan(mde=0.05)).answer is Answer.PROMOTE


@pytest.mark.parametrize(
    ("why", "control", "challenger"),
    [
        ("49 of 50 units", clicks(49, 0.1), clicks(900, 0.2)),
        ("49 of 50 units", clicks(900, 0.1), clicks(49, 0.2)),
        ("0 of 50 units", Pairs(), Pairs()),
        ("not above 0", clicks(900, 0.1), Pairs(900, 90, 0, 90, 0, 0)),
        ("not above 0", Pairs(900, 90, -900, 90, 0, 900), clicks(900, 0.1)),
        ("variance is 0", Pairs(900, 90, 900, 9, 90, 900), Pairs(900, 180, 900, 36, 180, 900)),
        ("variance is nan", Pairs(900, 90, 900, math.nan, 90, 900), clicks(900, 0.1)),
        ("variance is inf", Pairs(900, 90, 900, math.inf, 90, 900), clicks(900, 0.1)),
    ],
)
def test_a_ratio_that_cannot_be_trusted_is_refused(why: str, control: Pairs, challenger: Pairs) -> None:
    plan = Plan(mde=0.02, min_units=MIN_UNITS)
    seen = judge_ratio([PairStratum(control, challenger)], plan)
    assert seen.answer is Answer.CONTINUE
    assert why in seen.reason
    assert judge_ratio([PairStratum(control, challenger)], plan, "over").answer is Answer.INCONCLUSIVE


def test_a_ratio_of_nothing_is_refused_even_without_a_minimum() -> None:
    assert judge_ratio([], Plan(mde=0.02, min_units=0)).answer is Answer.CONTINUE


def test_the_covariate_takes_out_what_it_foretold() -> None:
    """θ and the variance of y − θx, by the textbook, over both arms."""
    arms = CONTROL, CHALLENGER
    within = [covariance([y for y, _ in arm], [x for _, x in arm]) * (len(arm) - 1) for arm in arms]
    theta = sum(within) / sum(variance([x for _, x in arm]) * (len(arm) - 1) for arm in arms)
    (m0, v0), (m1, v1) = [
        (mean(y - theta * x for y, x in arm), variance([y - theta * x for y, x in arm]) / len(arm)) for arm in arms
    ]
    seen = adjusted_difference([PairStratum(Pairs.of(CONTROL), Pairs.of(CHALLENGER))])
    assert seen == pytest.approx((m1 - m0, v0 + v1))


def test_a_good_covariate_decides_with_a_part_of_the_units() -> None:
    """At a correlation of 0.89 four fifths of the variance were known beforehand."""
    data = [PairStratum(drawn(1, 1000), drawn(2, 1000, gain=0.25))]
    plain = [Stratum(*(Sums(arm.n, arm.y, arm.yy) for arm in (s.control, s.challenger))) for s in data]
    plan = Plan(mde=0.25)
    adjusted, unadjusted = judge_adjusted(data, plan), judge(plain, plan)
    assert adjusted.answer is Answer.PROMOTE
    assert unadjusted.answer is Answer.CONTINUE
    assert unadjusted.information / adjusted.information == pytest.approx(0.2, rel=0.15)


def test_a_covariate_that_says_nothing_changes_nothing() -> None:
    values = [1.0, 2.0, 4.0, 7.5], [2.5, 3.0, 6.0]
    pairs = [Pairs.of((value, 0.1) for value in arm) for arm in values]
    seen = adjusted_difference([PairStratum(*pairs)])
    assert seen == pytest.approx(difference([Stratum(*map(Sums.of, values))]))


def test_a_thin_arm_borrows_the_variance_of_both_after_adjustment() -> None:
    heavy, thin = drawn(3, 9000), drawn(4, 1000, noise=0.01)
    _, pooled = adjusted_difference([PairStratum(heavy, thin)])
    assert pooled == pytest.approx(0.9 * (1 / 9000 + 1 / 1000), rel=0.05)


def test_the_adjusted_mean_is_refused_as_a_mean_is() -> None:
    few = [PairStratum(drawn(5, 499), drawn(6, 600))]
    assert "499 of 500" in judge_adjusted(few, Plan(mde=1.0)).reason
    assert judge_adjusted(few, Plan(mde=0.5, cap=40.0)).answer is Answer.FUTILE
    same = [PairStratum(Pairs.of([(0.1, 0.1)] * 600), Pairs.of([(0.1, 0.1)] * 600))]
    assert "variance is 0" in judge_adjusted(same, Plan(mde=1.0)).reason
    assert judge_adjusted([], Plan(mde=1.0, min_units=0)).answer is Answer.CONTINUE
    rare = [PairStratum(Pairs(1000, 24, 500, 24, 12, 500), Pairs(1000, 120, 500, 120, 60, 500))]
    assert "24 of 25 ones" in judge_adjusted(rare, Plan(mde=0.02)).reason


@pytest.mark.parametrize("form", ["mean", "ratio", "adjusted"])
def test_both_arms_are_kept_and_read_again_in_every_form(form: str) -> None:
    plan, kept = Plan(mde=0.5, form=form, cap=8.0), None
    for n in range(600):
        kept = arms.added(kept, plan, n % 2 == 1, float(n % 7 + 3 * (n % 2)), 1.0 + n % 5)
    assert kept is not None
    assert arms.read(arms.row(kept)) == kept
    direct = {"mean": judge, "ratio": judge_ratio, "adjusted": judge_adjusted}[form]
    assert arms.judged([kept], plan) == direct([kept], plan)  # type: ignore[operator]
    assert arms.means(kept) == arms.means(arms.means(kept))
    assert [arms.means(kept).control.n, arms.means(kept).control.total] == list(arms.total([kept.control], "mean"))[:2]
    assert arms.total([kept.control], form)[0] == 300
    assert arms.total([kept.challenger], form)[2] == (900.0 if form == "ratio" else 300)


def test_a_form_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="form is one of mean, ratio, adjusted, not 'median'"):
        Plan(form="median")
