"""This file plays hundreds of experiments on a harm budget: what bad ones truly cost, and that good ones win."""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import Any

import pytest

from branchline.core import harm
from tests.costing import WORLDS, Run, bad, other

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize(("world", "window", "budget"), [("steady", 0, 20), ("drifting", 0, 60), ("weekdays", 60, 60)])
def test_bad_challengers_of_every_size_keep_to_their_budget(world: str, window: float, budget: float) -> None:
    """At most 5 % of them cost more than they may: of 300 no more than 15."""
    played = [bad(number, budget, world, window) for number in range(300)]
    assert sum(each.cost > budget for each in played) <= 15
    assert sum(each.ended == "promote" for each in played) <= 6


@pytest.mark.parametrize("harm_of_a_unit", [0.005, 0.01, 0.02, 0.05])
def test_no_size_of_harm_is_the_one_that_it_does_not_see(harm_of_a_unit: float) -> None:
    """The bound is wrong in 5 % at the one look that matters for a size, which is another look for each."""
    played = [
        Run(random.Random(f"{harm_of_a_unit} {number}"), WORLDS["steady"], -harm_of_a_unit, 0.0, 60).play()
        for number in range(200)
    ]
    assert sum(each.cost > 60 for each in played) <= 10 + 2 * math.sqrt(200 * 0.05 * 0.95)


def test_good_challengers_are_promoted_and_not_much_later() -> None:
    even, kept = ([other(number, 0.01, budget) for number in range(60)] for budget in (math.inf, 120))
    assert sum(each.ended == "promote" for each in kept) >= 50
    assert fmean(each.at for each in kept) <= 1.3 * fmean(each.at for each in even)


def test_only_who_has_told_is_not_all_who_have_met_it() -> None:
    """Killer: where outcomes come late, a rule that counts who has told lets the others cost what they will."""

    def blind(*args: Any, units: int, **given: Any) -> harm.Advice:
        return harm.advised(*args, units=sum(each.challenger.n for each in args[3]), **given)

    costs = {}
    for rule in (harm.advised, blind):
        runs = [
            Run(random.Random(f"late {number}"), WORLDS["steady"], -0.08, 120.0, 9, rule=rule) for number in range(40)
        ]
        costs[rule] = [run.play().cost for run in runs]
    assert sum(cost > 9 for cost in costs[harm.advised]) <= 2
    assert sum(cost > 9 for cost in costs[blind]) > 20
