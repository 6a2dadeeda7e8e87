"""This file tests an experiment on a harm budget at work: it begins small, grows as it is known, stops at the bound.

What ends there has no verdict, so its branch stays; a restart in the middle changes nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.core import dossier
from branchline.core.service import Phase
from branchline.engine.documenting import Dossiers
from branchline.engine.rejudging import rejudged
from tests.world import MODEL, SAM, World

TOML = (
    MODEL.replace('name = "rating", bounds = [0, 10], mde = 1', 'name = "sold", kind = "binary", mde = 0.1')
    .replace("guardrails = { bad_outcome = { below = 1 } }", "guardrails = { failed_requests = false }")
    .replace("rollout = {", "rollout = { harm_budget = 60,")
)  # fmt: skip
ENOUGH = 6000  # units: a hundred of them meet two per cent


def under_test(world: World, toml: str = TOML) -> tuple[str, str]:
    old, new = world.released(toml=toml), world.testing()
    assert world.shares() == {old: 98, new: 2}
    return old, new


def play(world: World, old: str, new: str, units: int, seed: str, rate: float) -> None:
    """In an hour; a third of the incumbent's units buys, and that part of the challenger's."""
    world.play(units, {old: lambda n: bought(n, 1 / 3), new: lambda n: bought(n, rate)}, seed=seed)
    world.clock.advance(3600)
    world.settle()


def bought(n: int, rate: float) -> float:
    """1 for that part of all numbers, evenly among them."""
    return float(n * 0.6180339887 % 1 < rate)


def row(world: World) -> dict[str, Any]:
    rows = world.controller.reader.status("housing")["services"][0]["rows"]
    return next(each for each in rows if each["branch"] == SAM)


def test_who_does_no_harm_is_given_more_and_has_its_verdict(world: World) -> None:
    old, new = under_test(world)
    play(world, old, new, 300, "few", 0.38)
    assert world.shares() == {old: 98, new: 2}, "a stratum of a few units is not worth one"
    assert "harm at worst " in row(world)["detail"]
    play(world, old, new, ENOUGH, "more", 0.38)
    ramped = world.last("Ramped")
    assert (ramped.actor, ramped.detail["share"]) == ("branchline", 50)
    assert " of 60 by " in ramped.detail["reason"]
    assert world.shares() == {old: 50, new: 50}
    world.restart()
    world.settle()
    assert world.shares() == {old: 50, new: 50}
    play(world, old, new, 400, "last", 0.8)
    assert (world.phase(SAM), world.last("Won").actor) == (Phase.LIVE, "branchline")
    told = Dossiers(world.ports, world.controller.desk).dossier("housing@1.1.0")
    assert [each["kind"] for each in told["timeline"] if each["event"] == "Ramped"] == [""]
    assert told["declaration"]["rollout"]["harm_budget"] == 60


def test_who_does_harm_is_stopped_before_it_has_cost_too_much(world: World) -> None:
    toml = TOML.replace("harm_budget = 60", "harm_budget = 8")
    old, new = under_test(world, toml)
    for number in range(20):
        play(world, old, new, 200, f"{number}-", 0)
        if world.phase(SAM) is not Phase.TESTING:
            break
    assert (world.phase(SAM), world.shares()) == (Phase.INCONCLUSIVE, {old: 100})
    said = world.last("Undecided").detail["reason"]
    assert said.startswith("inconclusive: the harm budget is spent: harm at worst ")
    assert row(world)["detail"].startswith("the harm budget is spent"), "beside its state, which is inconclusive"
    met = world.controller.ports.observations.counts("housing", world.meter.lines[-1].experiment)[new]["units"]
    assert met / 3 <= 8, "what they have lost on average"
    assert world.git.tip(SAM)
    found = rejudged(world.ports, world.controller.desk, SAM, {})
    assert found["same"], (found["recorded"]["text"], found["verdict"]["text"])
    told = Dossiers(world.ports, world.controller.desk).dossier(SAM)
    assert not list(dossier.differences(told))
    assert told["sentence"].startswith("Nobody won, so housing 1.0.0 stays: the harm budget is spent")


def test_a_restart_in_the_middle_of_it_stops_nobody(world: World) -> None:
    """Killer: a replay that holds all units against the first outcomes would find the budget spent."""
    old, new = under_test(world)
    play(world, old, new, ENOUGH, "more", 0.38)
    assert world.shares() == {old: 50, new: 50}
    world.visit([f"late{n}" for n in range(200)])
    world.settle()
    world.restart()
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


def test_a_freeze_holds_its_share(world: World) -> None:
    old, new = under_test(world)
    world.ask("freeze", "housing")
    play(world, old, new, ENOUGH, "more", 0.38)
    assert world.shares() == {old: 98, new: 2}
    world.ask("thaw", "housing")
    world.settle()
    assert world.shares() == {old: 50, new: 50}


@pytest.mark.parametrize("slots", [1, 3])
def test_a_share_is_never_more_than_an_even_one(world: World, slots: int) -> None:
    old, new = under_test(world, TOML.replace("rollout = {", f"rollout = {{ slots = {slots},"))
    play(world, old, new, ENOUGH, "more", 0.38)
    assert world.shares()[new] == 100 // (slots + 1)
