"""This file tests the exact judgement of two proportions, and holds the form on z to it."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from branchline.core.evidence import Answer, Plan, Stratum, Sums, judge
from branchline.core.exact import MULTIPLES, Block, Exact

BLOCKS: list[Block] = [(20, 3, 15, 4), (7, 1, 9, 2)]


def after(exact: Exact, *blocks: Block) -> Exact:
    for block in blocks:
        exact = exact.update(*block)
    return exact


def chance_of(block: Block, rate0: float, rate1: float) -> float:
    n0, e0, n1, e1 = block
    ways = math.comb(n0, e0) * math.comb(n1, e1)
    return ways * float(rate0**e0 * (1 - rate0) ** (n0 - e0) * rate1**e1 * (1 - rate1) ** (n1 - e1))


@pytest.mark.parametrize("plan", [Plan(mde=0.1), Plan("lower", mde=0.1), Plan(margin=0.1), Plan(mde=0.05, margin=0.2)])
@pytest.mark.parametrize("rate", [0.02, 0.3, 0.5, 0.9])
def test_the_evidence_expects_nothing_under_its_null(plan: Plan, rate: float) -> None:
    """Exact: over all outcomes of one more block the evidence expects no more than it was."""
    start = after(Exact(plan), *BLOCKS)
    sign = 1 if plan.direction == "higher" else -1
    for gap, side in ((-plan.margin, "e_for"), (-plan.margin, "e_against"), (plan.effect - plan.margin, "futile")):
        other = rate + sign * gap
        if not 0 <= other <= 1:
            continue
        expected = 0.0
        for e0, e1 in product(range(6), range(4)):
            now = start.update(5, e0, 3, e1)
            gain = {"futile": math.exp(now.log_futile - start.log_futile)}.get(side) or (
                getattr(now, side) / getattr(start, side)
            )
            expected += chance_of((5, e0, 3, e1), rate, other) * gain
        assert expected <= 1 + 1e-9, (side, rate, other)


def test_each_alternative_is_the_formula() -> None:
    """Two proportions in blocks: rates c ± Δ/2 with c from the earlier block, against their weighted mean."""
    exact = after(Exact(Plan(mde=0.1)), *BLOCKS)
    centre, (n0, e0, n1, e1) = (3 + 4 + 0.5) / 36, BLOCKS[1]
    low, high = centre - 0.05, centre + 0.05
    null = (n0 * low + n1 * high) / (n0 + n1)
    step = chance_of((n0, e0, n1, e1), low, high) / chance_of((n0, e0, n1, e1), null, null)
    first = after(Exact(Plan(mde=0.1)), BLOCKS[0])
    assert exact.logs_for[0] - first.logs_for[0] == pytest.approx(math.log(step))
    assert exact.counts == (27, 4, 24, 6)
    assert list(MULTIPLES) == pytest.approx([1.0, 0.377, 1.156, 2.023, 3.109, 4.935], abs=1e-3)


def test_tiny_data_is_judged_where_the_other_form_refuses() -> None:
    plan = Plan(mde=0.3)
    exact = after(Exact(plan), *[(5, 0, 5, 4)] * 5)
    assert exact.answer is Answer.PROMOTE
    assert judge([Stratum(Sums(25, 0, 0), Sums(25, 20, 20))], plan).answer is Answer.CONTINUE
    assert after(Exact(plan), *[(5, 4, 5, 0)] * 5).answer is Answer.HARMFUL
    assert after(Exact(plan), *[(5, 2, 5, 2)] * 30).answer is Answer.FUTILE
    assert (after(Exact(plan), (5, 2, 5, 2)).answer, Exact(plan).reason) == (Answer.CONTINUE, "undecided so far")


def test_lower_may_be_the_better_direction() -> None:
    exact = after(Exact(Plan("lower", mde=0.3)), *[(5, 4, 5, 0)] * 5)
    assert (exact.answer, exact.reason) == (Answer.PROMOTE, "the challenger is better")


def test_no_worse_by_a_margin_is_promoted() -> None:
    exact = after(Exact(Plan(margin=0.2)), *[(20, 10, 20, 10)] * 20)
    assert (exact.answer, exact.reason) == (Answer.PROMOTE, "the challenger is no worse by more than 0.2")


def test_rates_at_the_end_of_the_scale_are_bet_on_within_it() -> None:
    exact = after(Exact(Plan(mde=0.2)), *[(50, 0, 50, 0)] * 20)
    assert exact.answer is Answer.FUTILE
    assert after(Exact(Plan(margin=0.9)), *[(50, 0, 50, 0)] * 5).e_against <= 1


def test_a_block_with_an_empty_side_says_nothing_but_is_counted() -> None:
    start = after(Exact(Plan(mde=0.1)), *BLOCKS)
    for block in ((10, 1, 0, 0), (0, 0, 10, 9)):
        now = start.update(*block)
        assert (now.logs_for, now.logs_against, now.log_futile) == (
            start.logs_for,
            start.logs_against,
            start.log_futile,
        )
        assert sum(now.counts) == sum(start.counts) + sum(block)


def test_it_ends_where_it_was_planned_to() -> None:
    exact = after(Exact(Plan(mde=0.1, max_information=50.0)), (100, 20, 100, 22))
    assert exact.information == pytest.approx(50 / (0.21 * 0.79))
    assert (exact.answer, exact.reason) == (
        Answer.INCONCLUSIVE,
        "all the information that was planned for is used",
    )
    assert after(Exact(Plan(mde=0.1, max_information=1e9)), (100, 20, 100, 22)).answer is Answer.CONTINUE
    assert [after(Exact(Plan(mde=0.1)), block).information for block in ((5, 0, 5, 0), (0, 0, 5, 1))] == [0, 0]


@pytest.mark.parametrize("plan", [Plan(), Plan(mde=1.0), Plan(mde=0.1, margin=1.0)])
def test_a_plan_for_something_else_is_refused(plan: Plan) -> None:
    with pytest.raises(ValueError, match="exact"):
        Exact(plan)


@pytest.mark.parametrize("block", [(1, 2, 1, 0), (1, 0, 1, 2), (-1, -1, 1, 1), (1, 0, 1, -1)])
def test_a_block_that_cannot_be_is_refused(block: Block) -> None:
    with pytest.raises(ValueError, match="block"):
        Exact(Plan(mde=0.1)).update(*block)


@pytest.mark.parametrize(("rate", "least"), [(0.10, 38), (0.16, 38)])
def test_the_form_on_z_says_what_the_exact_one_says(rate: float, least: int) -> None:
    """The oracle: of 40 tests looked at every 100 units nearly all end alike, at about the same time."""
    chance, plan, alike, units = random.Random(7), Plan(mde=0.05), 0, [0, 0]
    for _ in range(40):
        exact, sums, told = Exact(plan), [0, 0, 0], ["", ""]
        while not all(told):
            e0, e1 = (sum(chance.random() < each for _ in range(50)) for each in (0.10, rate))
            exact = exact.update(50, e0, 50, e1)
            sums = [sums[0] + 50, sums[1] + e0, sums[2] + e1]
            arms = [Sums(sums[0], events, events) for events in sums[1:]]
            for form, answer in enumerate((exact.answer, judge([Stratum(*arms)], plan).answer)):
                if answer is not Answer.CONTINUE and not told[form]:
                    told[form], units[form] = answer, units[form] + sums[0]
        alike += told[0] == told[1]
    assert alike >= least
    assert units[0] == pytest.approx(units[1], rel=0.1)
