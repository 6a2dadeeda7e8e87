"""This file exhausts every scenario of the law, and walks at random through what is larger (I1-I8, I11, I21, I23)."""

from __future__ import annotations

import pytest

from tests.explorer import Found, explore
from tests.fencing import Mode, fence
from tests.happenings import Scenario
from tests.scenarios import SCENARIOS, SMALL
from tests.walks import walks

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_every_event_at_every_moment(scenario: Scenario, edges_of_the_page: set[tuple[str, str, str]]) -> None:
    found = explore(scenario)
    assert found.whole
    assert (found.states, found.repair) == (scenario.states, scenario.repair), "the law changed: say so in the scenario"
    assert found.edges <= edges_of_the_page


@pytest.fixture(scope="session")
def edges_of_the_page() -> set[tuple[str, str, str]]:
    found: list[Found] = [explore(each) for each in SMALL]
    return set().union(*(each.edges for each in found))


@pytest.mark.parametrize("seed", range(4))
def test_walks(seed: int) -> None:
    assert walks(count=50, length=120, seed=seed) < 20


def test_the_fence_holds_wherever_it_is_tried() -> None:
    assert fence(Mode.TOLD_TWICE)[1] == 0
