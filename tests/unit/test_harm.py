"""This file tests the harm budget's rule: what a unit costs at worst, which share that allows, and where it ends."""

from __future__ import annotations

import math
import random

import pytest

from branchline.core.decision import Plan
from branchline.core.evidence import Stratum, Sums
from branchline.core.harm import (
    ERROR,
    ERROR_OF_BOUNDS,
    FEWEST,
    SPENT,
    STEPS,
    Advice,
    advised,
    by_bounds,
    least,
    loss,
    shares,
)

PLAN = Plan(mde=0.1, bounds=(0.0, 1.0))


def ones(n: int, total: int) -> Sums:
    return Sums(n, float(total), float(total))


def after(
    control: tuple[int, int], challenger: tuple[int, int], share: int = 2, budget: float = 50, units: int = 0,
    pace: float = 1.0, window: float = 100.0,
) -> Advice:  # fmt: skip
    now = Stratum(ones(*control), ones(*challenger))
    return advised(
        budget, 1, share, [now], now, PLAN, units=units or challenger[0], pace=pace, window=window
    )  # fmt: skip


def test_shares_grow_to_an_even_one_and_each_can_have_a_canary() -> None:
    assert shares(1) == STEPS == (2, 5, 10, 20, 50)
    assert (shares(2), shares(4), shares(20)) == ((2, 5, 10, 20, 33), (2, 5, 10, 20), (2, 4))


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("mean", [0.02, 0.3, 0.9])
def test_the_least_that_a_mean_can_be_is_wrong_in_as_many_looks_as_it_says_at_most(n: int, mean: float) -> None:
    """Exact, over all outcomes of so many units."""
    error = 0.05
    chances = [math.comb(n, k) * mean**k * (1 - mean) ** (n - k) for k in range(n + 1)]
    assert sum(chance for k, chance in enumerate(chances) if least(n, k, error) > mean) <= error


def test_it_holds_at_all_looks_together() -> None:
    """Killer: a bound for one look would be wrong at some look in half of the runs."""
    rng, wrong = random.Random(3), 0
    for _ in range(60):
        hits = 0
        for n in range(1, 151):
            hits += rng.random() < 0.3
            if least(n, hits, 0.05) > 0.3:
                wrong += 1
                break
    assert wrong <= 3


def test_the_least_grows_with_what_is_known_and_begins_at_nothing() -> None:
    assert least(0, 0, 0.01) == least(50, 0, 0.01) == 0
    assert 0 < least(10, 10, 0.01) < least(100, 100, 0.01) < 1
    assert least(100, 30, 0.01) < least(1000, 300, 0.01) < 0.3
    assert least(100, 30, 0.01) < least(100, 30, 0.1)


def test_before_anything_is_known_a_unit_can_cost_all_that_its_bounds_allow() -> None:
    assert by_bounds([], PLAN) == loss([], PLAN) == 1
    assert loss([Stratum()], Plan(mde=1, bounds=(1, 5))) == 4
    assert loss([Stratum(ones(2000, 200))], Plan(mde=0.1)) < 0.14, (
        "no more than the incumbent brings, without bounds too"
    )


def test_lower_is_better_is_the_same_in_a_mirror() -> None:
    up = [Stratum(ones(900, 300), ones(80, 20)), Stratum(ones(400, 100), ones(300, 70))]
    down = [Stratum(ones(900, 600), ones(80, 60)), Stratum(ones(400, 300), ones(300, 230))]
    lower = Plan("lower", mde=0.1, bounds=(0.0, 1.0))
    assert by_bounds(up, PLAN) == pytest.approx(by_bounds(down, lower))
    assert loss(up, PLAN) == pytest.approx(loss(down, lower))
    assert loss(up, PLAN) < by_bounds(up, PLAN)


def test_who_is_surely_better_costs_nothing() -> None:
    assert loss([Stratum(ones(1000, 300), ones(1000, 600))], PLAN) == 0
    assert after((1000, 300), (1000, 600), budget=0.001, window=1e9) == Advice(
        50, 0.0, "harm at worst 0 of 0.001 by 1,000 units, each worse by no more than 0"
    )


def test_nothing_known_ends_where_the_bounds_say_so() -> None:
    assert after((0, 0), (0, 0), budget=30, units=29).share == 2
    spent = after((0, 0), (0, 0), budget=30, units=30)
    assert (spent.share, spent.worst) == (0, 30)
    assert spent.reason.startswith(f"{SPENT}: harm at worst 30 of 30 by 30 units")


def test_all_who_met_it_count_and_not_only_those_who_have_told() -> None:
    """Killer: of a window of a day, most of those who have met the challenger have not told yet."""
    assert after((1000, 300), (100, 30), budget=50, units=100).share
    assert not after((1000, 300), (100, 30), budget=50, units=1000).share


def test_a_stratum_of_a_few_units_is_not_worth_one() -> None:
    assert after((5000, 1500), (FEWEST - 1, 30), budget=1e6).share == 2
    assert after((FEWEST - 1, 30), (5000, 1500), budget=1e6, share=20).share == 20
    assert after((5000, 1500), (FEWEST, 30), budget=1e6).share == 50


@pytest.mark.parametrize(("window", "share"), [(60, 50), (120, 20), (600, 5), (1200, 2), (9000, 2)])
def test_the_share_is_the_largest_that_can_be_waited_for(window: float, share: int) -> None:
    """By the time that its units have told, the worst case still has to be within the budget."""
    assert after((5000, 1500), (150, 45), budget=25, pace=4.0, window=window, share=2).share == share


def test_a_share_that_became_too_large_shrinks() -> None:
    assert after((5000, 1500), (400, 90), budget=60, pace=4.0, window=600, share=50).share < 50


def test_both_bounds_together_are_wrong_in_no_more_than_five_per_cent() -> None:
    assert pytest.approx(0.05) == ERROR + ERROR_OF_BOUNDS
