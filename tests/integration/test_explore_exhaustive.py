"""This file exhausts every scenario of the law, and walks at random through what is larger (I1-I8, I11, I21, I23)."""

from __future__ import annotations

import pytest

from tests.explorer import explore
from tests.fencing import HARM, Mode, fence
from tests.found import is_as_known
from tests.happenings import Scenario
from tests.scenarios import SCENARIOS
from tests.walks import walks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_every_event_at_every_moment(scenario: Scenario) -> None:
    found = explore(scenario)
    assert found.whole
    assert is_as_known(scenario.name, found), "the law changed: python bench/explorer.py --write"


@pytest.mark.parametrize("seed", range(4))
def test_walks(seed: int) -> None:
    assert walks(count=50, length=120, seed=seed) < 20


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.name.lower())
def test_the_fence(mode: Mode) -> None:
    """Telling on record and at takeover is the one way in which no late step does harm."""
    assert fence(mode)[1] == HARM[mode]
