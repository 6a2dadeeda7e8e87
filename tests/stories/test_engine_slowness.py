"""This file tests the guardrail on slow requests: against the incumbent's frozen quantile, or against a limit.

Requirements: 1.36 (guardrails), I10 (a breach rolls back), I15 (a restart changes no verdict).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.core import dossier, dossier_page
from branchline.core.service import Phase
from branchline.core.slowness import Slowness
from branchline.engine.documenting import Dossiers
from branchline.engine.rejudging import rejudged
from tests.world import APP, MODEL, SAM, World

RAILS = "guardrails = { bad_outcome = { below = 1 } }\n"
QUANTILE = MODEL.replace(RAILS, "guardrails = { failed_requests = false, slow_requests = 0.9 }\n")
LIMIT = MODEL.replace(RAILS, "guardrails = { failed_requests = false, slow_requests = { above_ms = 500 } }\n")
Times = Callable[[int], float]


def slow(part: int) -> Times:
    """A time between 10 and 100 ms; of one in so many half a second more."""
    return lambda n: 0.01 * (1 + n % 10) + (0.6 if n % part == 0 else 0.0)


def visited(world: World, seed: str, units: int, times: dict[str, Times]) -> None:
    """Units that each ask once, and wait as long as their arm takes."""
    before = len(world.meter.lines)
    world.visit([f"{seed}{n}" for n in range(units)])
    for place in range(before, len(world.meter.lines)):
        line = world.meter.lines[place]
        world.meter.lines[place] = replace(line, seconds=times[line.assigned](place))
    world.clock.advance(1)


def test_who_is_slower_than_the_incumbent_s_quantile_is_rolled_back_I10(world: World) -> None:
    old, new = world.released(toml=QUANTILE), world.testing()
    for seed in "abcd":
        visited(world, seed, 300, {old: slow(40), new: slow(4)})
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {old: 100})
    assert world.last("Breached").because.startswith("incumbent: guardrail breached: slow requests; ")
    made = Dossiers(world.ports, world.controller.desk).dossier(new)
    page = dossier_page.page(made)
    assert dossier.differences(dossier.read(page)) == []
    assert 0.09 <= made["measurement"]["slow_above"] <= 0.2
    assert "Slow is what took longer than " in page
    assert "requests slower than 90 % of the incumbent" in page
    assert rejudged(world.ports, world.controller.desk, new, {})["identical"]


def breached(state: Path, *, restart: bool) -> str:
    """What is recorded of a challenger that is slower."""
    world = World(state)
    old, new = world.released(toml=QUANTILE), world.testing()
    for seed in "abcdefgh":
        visited(world, seed, 130, {old: slow(40), new: slow(5)})
        if restart:
            world.restart()
        world.settle()
    return str(world.last("Breached").detail["reason"])


def test_a_restart_finds_the_same_limit_and_the_same_verdict(tmp_path: Path) -> None:
    """Killer: take the incumbent's quantile from its newest requests."""
    assert breached(tmp_path / "one", restart=True) == breached(tmp_path / "two", restart=False)


def test_who_is_as_slow_as_the_incumbent_stays_however_slow_the_hour(world: World) -> None:
    """Killer: hold the challenger against the quantile alone, and a slow hour rolls it back."""
    old, new = world.released(toml=QUANTILE), world.testing()
    for seed in "abc":
        visited(world, seed, 200, {old: slow(40), new: slow(40)})
    visited(world, "d", 400, {old: slow(2), new: slow(2)})
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    document = world.controller.reader.measured("housing", SAM) or {}
    assert document["slow_above"] is not None
    assert document["guardrails"]["slow requests"]["bad"] > 50


@pytest.mark.parametrize(("part", "phase"), [(3, Phase.ROLLED_BACK), (1000, Phase.CANARY)])
def test_a_limit_counts_from_the_first_request(world: World, part: int, phase: Phase) -> None:
    old = world.released(toml=APP.replace(RAILS, LIMIT.splitlines(keepends=True)[4]))
    new = world.testing()
    visited(world, "a", 900, {old: slow(1000), new: slow(part)})
    world.settle()
    assert world.phase(SAM) is phase
    assert "requests slower than 500 ms" in dossier_page.page(Dossiers(world.ports, world.controller.desk).dossier(new))


def test_only_the_first_slow_request_of_a_unit_counts() -> None:
    seen = Slowness(limit=0.5)
    assert [seen.take("u", s, mine=True) for s in (0.5, 0.6, 0.7, 0.1)] == [False, True, None, None]
    assert seen.take("v", 0.1, mine=False) is False


def test_the_incumbent_s_first_requests_fix_the_limit_and_do_not_count() -> None:
    seen = Slowness(0.95)
    assert seen.needed == 500
    assert seen.take("c", 9.0, mine=True) is None
    for n in range(500):
        assert seen.limit is None
        assert seen.take(f"u{n}", n / 1000, mine=False) is None
    assert seen.limit == 0.474
    assert (seen.take("u1", 0.475, mine=False), seen.take("c", 0.474, mine=True)) == (True, False)
