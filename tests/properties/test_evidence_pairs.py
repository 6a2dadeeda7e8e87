"""This file shows what holds of ratios, covariates, the exact form and `make` for any data."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from branchline.core.covariate import judge_adjusted
from branchline.core.evidence import Answer, Judgement, Plan, Stratum, Sums, judge, make
from branchline.core.exact import Exact
from branchline.core.ratios import Pairs, PairStratum, judge_ratio

# Small whole numbers: their sums are exact, so that an order cannot hide behind rounding.
UNITS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=3, max_size=20)
PLAN = Plan(mde=0.5, min_units=2, bounds=(0, 9))
BLOCKS = st.lists(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=2, max_size=8)
JUDGES = st.sampled_from([judge_ratio, judge_adjusted])


def mirrored(one: Judgement, other: Judgement) -> bool:
    """Whether all that speaks for a challenger in the one speaks against it in the other."""
    return (one.log_for, one.log_against) == pytest.approx((other.log_against, other.log_for), abs=1e-9)


@given(UNITS, UNITS, JUDGES)
def test_swapped_arms_and_directions_are_mirror_images(
    control: list[tuple[int, int]], challenger: list[tuple[int, int]], judged: type
) -> None:
    arms = Pairs.of(control), Pairs.of(challenger)
    seen = judged([PairStratum(*arms)], PLAN)
    swapped = judged([PairStratum(*arms[::-1])], PLAN)
    lower = judged([PairStratum(*arms)], replace(PLAN, direction="lower"))
    assert mirrored(seen, swapped)
    assert mirrored(seen, lower)
    assert judged([PairStratum(*arms[::-1])], replace(PLAN, direction="lower")).answer is seen.answer


@given(UNITS, UNITS, st.sampled_from([0.25, 2.0, 1024.0]))
def test_the_units_of_y_and_x_are_nothing(
    control: list[tuple[int, int]], challenger: list[tuple[int, int]], scale: float
) -> None:
    """A ratio follows y and 1/x; an adjusted mean follows y, and does not care how x is measured."""
    plain = PairStratum(Pairs.of(control), Pairs.of(challenger))
    x = PairStratum(*(Pairs.of((y, x * scale) for y, x in arm) for arm in (control, challenger)))
    y = PairStratum(*(Pairs.of((y * scale, x) for y, x in arm) for arm in (control, challenger)))
    scaled = replace(PLAN, mde=PLAN.mde * scale)
    for one, other in (
        (judge_ratio([plain], PLAN), judge_ratio([y], scaled)),
        (judge_ratio([plain], PLAN), judge_ratio([x], replace(PLAN, mde=PLAN.mde / scale))),
        (judge_adjusted([plain], PLAN), judge_adjusted([x], PLAN)),
    ):
        assert (one.log_for, one.log_against) == pytest.approx((other.log_for, other.log_against), rel=1e-9, abs=1e-9)


@given(UNITS, UNITS, st.randoms(use_true_random=False), JUDGES)
def test_the_order_inside_a_look_is_nothing(
    control: list[tuple[int, int]], challenger: list[tuple[int, int]], chance: object, judged: type
) -> None:
    before = judged([PairStratum(Pairs.of(control), Pairs.of(challenger))], PLAN)
    chance.shuffle(control)  # type: ignore[attr-defined]
    chance.shuffle(challenger)  # type: ignore[attr-defined]
    assert judged([PairStratum(Pairs.of(control), Pairs.of(challenger))], PLAN) == before


@given(UNITS, UNITS)
def test_what_is_made_again_from_the_outcomes_is_the_same(
    control: list[tuple[int, int]], challenger: list[tuple[int, int]]
) -> None:
    """Unit by unit, and all at once from the stored rows: one and the same judgement."""
    stratum, engine = PairStratum(), make("ratio", {"mde": 0.5, "min_units": 2})
    for arm, units in (("control", control), ("challenger", challenger)):
        for y, x in units:
            stratum = replace(stratum, **{arm: getattr(stratum, arm).add(y, x)})
    rebuilt = PairStratum(Pairs.of(control), Pairs.of(challenger))
    assert repr(stratum) == repr(rebuilt)
    names = ("n", "y", "x", "yy", "xy", "xx")
    told = engine.update(
        **{
            f"{name}{number}": getattr(arm, name)
            for number, arm in enumerate((rebuilt.control, rebuilt.challenger))
            for name in names
        }
    )
    assert str(told) == judge_ratio([stratum], Plan(mde=0.5, min_units=2)).answer.value


@given(st.integers(100, 3000), st.integers(100, 3000), st.integers(1, 200), st.data())
def test_more_conversions_never_turn_a_winner_into_harm(n0: int, n1: int, more: int, data: st.DataObject) -> None:
    """Whatever the split; the variance changes as well, so near a bar a verdict may still become none."""
    events, fewer = data.draw(st.integers(25, n0 - 25)), data.draw(st.integers(25, n1 - 25))
    assume(fewer + more <= n1 - 25)
    worse, better = (
        judge([Stratum(Sums(n0, events, events), Sums(n1, count, count))], Plan(mde=0.05))
        for count in (fewer, fewer + more)
    )
    assert {worse.answer, better.answer} != {Answer.PROMOTE, Answer.HARMFUL} or worse.answer is Answer.HARMFUL
    assert (better.estimate or 0) > (worse.estimate or 0)


@settings(max_examples=30)
@given(BLOCKS, BLOCKS, st.sampled_from(["higher", "lower"]))
def test_the_exact_form_is_a_mirror_too(
    control: list[tuple[int, int]], challenger: list[tuple[int, int]], direction: str
) -> None:
    one, other = Exact(Plan(direction, mde=0.2)), Exact(Plan(direction, mde=0.2))
    opposite = Exact(Plan("lower" if direction == "higher" else "higher", mde=0.2))
    for (n0, e0), (n1, e1) in zip(control, challenger, strict=False):
        one, other = one.update(n0, e0, n1, e1), other.update(n1, e1, n0, e0)
        opposite = opposite.update(n0, e0, n1, e1)
    assert (one.e_for, one.e_against) == pytest.approx((other.e_against, other.e_for), rel=1e-6)
    assert (one.e_for, one.e_against) == pytest.approx((opposite.e_against, opposite.e_for), rel=1e-6)


@settings(max_examples=30)
@given(BLOCKS, BLOCKS, st.integers(0, 8))
def test_a_better_block_is_more_exact_evidence(
    control: list[tuple[int, int]], challenger: list[tuple[int, int]], bad: int
) -> None:
    start = Exact(Plan(mde=0.2))
    for (n0, e0), (n1, e1) in zip(control, challenger, strict=False):
        start = start.update(n0, e0, n1, e1)
    worse, better = (start.update(9, 4, 9, events) for events in (bad, bad + 1))
    assert better.e_for >= worse.e_for
    assert better.e_against <= worse.e_against
    assert better.log_futile <= worse.log_futile
    assert all(map(math.isfinite, (*better.logs_for, *worse.logs_against)))
