"""This file shows that each protection of the law is needed: without it, exploring finds what breaks."""

from __future__ import annotations

import pytest

from tests.explorer import explore
from tests.invariants import Broken
from tests.killers import KILLERS, Killer
from tests.scenarios import SCENARIOS, SMALL


@pytest.mark.parametrize("killer", KILLERS, ids=lambda killer: killer.protection.replace(" ", "-"))
def test_without_it_something_breaks(killer: Killer) -> None:
    with pytest.raises(Broken, match=killer.broken):
        explore(killer.among((*SMALL, *SCENARIOS)), killer.law, limit=30_000)
