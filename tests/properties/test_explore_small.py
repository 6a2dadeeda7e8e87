"""This file explores the law in small: what the large scenarios do for minutes, in about a second (I1-I8, I11, I23)."""

from __future__ import annotations

import pytest

from branchline.core.lifecycle import Aborted, Won
from branchline.core.world import plan
from tests.explorer import Explorer, explored
from tests.fencing import Mode, fence
from tests.found import EDGES, FIGURES, is_as_known
from tests.happenings import Scenario
from tests.invariants import act, check_step
from tests.scenarios import SCENARIOS, SMALL
from tests.walks import walks


def named(scenario: Scenario) -> str:
    return scenario.name.replace(" ", "-")


@pytest.mark.parametrize("scenario", SMALL, ids=named)
def test_every_event_at_every_moment(scenario: Scenario) -> None:
    found = explored(scenario)
    assert found.whole
    assert is_as_known(scenario.name, found), "the law changed: python bench/explorer.py --write"


def test_a_plan_can_be_done_one_by_one() -> None:
    """What a dry run prints is safe in its order, and reaches what is wanted."""
    explorer = Explorer(next(each for each in SMALL if each.name == "a major"))
    explorer.explore()
    for wanted in explorer.wanted:
        for rest in wanted.near.next:
            world = explorer.rests.things[rest]
            for step in plan(world, wanted.near.world):
                check_step(world, step, wanted.near.world)
                world = act(world, step, wanted.near.judged)
            assert not plan(world, wanted.near.world)


def test_walks_find_nothing_and_the_projection_is_exact() -> None:
    assert walks(count=1, length=60, seed=1) > 0


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.name.lower())
def test_only_telling_twice_fences(mode: Mode) -> None:
    """I21, F52: a stale controller changes nothing when every writer is told on record and at takeover, no sooner."""
    _, harm = fence(mode, enough=1, events=(Won("a"), Aborted("a")))
    assert (harm == 0) == (mode is Mode.TOLD_TWICE)


def test_what_is_known_is_known_of_scenarios_with_names_of_their_own() -> None:
    """Killer: an edge that only a scenario has taken which is no more would stay on the page."""
    names = [each.name for each in (*SMALL, *SCENARIOS)]
    assert sorted(names) == sorted(FIGURES)
    assert set(EDGES.values()) <= set(names)
