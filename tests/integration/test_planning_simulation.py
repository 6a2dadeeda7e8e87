"""This file plays tests with seeded chance and holds the engine to what is said of its duration beforehand (1.37)."""

from __future__ import annotations

import random

import pytest

from branchline.core.evidence import Answer, Plan, Stratum, Sums, judge
from branchline.core.planning import AT_EFFECT, WITHOUT_EFFECT, Outlook

RUNS = 300  # three standard errors of the mean of so many are 0.09 of a fixed test


@pytest.mark.parametrize(("effect", "part"), [(0.15, AT_EFFECT), (0.0, WITHOUT_EFFECT)])
def test_the_parts_of_a_fixed_test_are_those_that_the_engine_needs(effect: float, part: float) -> None:
    """Looked at after every 20 outcomes, and judged from the first: the fewest units would be a tenth of it all."""
    chance, plan = random.Random(5), Plan(mde=0.15, bounds=(-9, 9), min_units=10)
    fixed = Outlook(0.15, 1.0, 1.0).fixed
    needed = 0
    for _ in range(RUNS):
        arms, answer = (Sums(), Sums()), Answer.CONTINUE
        while answer is Answer.CONTINUE:
            for _ in range(10):
                arms = arms[0].add(chance.gauss(0, 1)), arms[1].add(chance.gauss(effect, 1))
            answer = judge([Stratum(*arms)], plan).answer
        needed += arms[0].n + arms[1].n
    assert needed / RUNS / fixed == pytest.approx(part, abs=0.09)
