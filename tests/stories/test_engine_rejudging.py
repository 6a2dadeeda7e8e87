"""This file tests that a recorded A/B test is judged again: the same with its own settings, another with others.

Requirements: 1.37 to 1.39 (the determination is of what was seen, whoever looks again).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from branchline.core.service import Candidate, Phase
from branchline.core.spec import Metric
from branchline.engine.rejudging import again as judged_again
from branchline.engine.rejudging import recorded, rejudged
from branchline.engine.replaying import splits_of, states
from branchline.errors import NothingToDo, UnknownReference, UsageError
from branchline.ports import Exposed
from tests.world import ALEX, APP, KIM, MODEL, SAM, World

UNITS = 230
CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")


def around(mean: float) -> Callable[[int], float]:
    return lambda n: mean + n % 3 - 1


def concluded(world: World, mean: float, toml: str = CALM) -> tuple[str, str]:
    """A test that has come to its verdict."""
    old, new = world.released(toml=toml), world.testing()
    world.play(UNITS, {old: around(4), new: around(mean)})
    world.settle()
    return old, new


def again(world: World, reference: str, **settings: Any) -> Mapping[str, Any]:
    before = len(world.ledger.entries), world.shares(), list(world.effects)
    found = rejudged(world.ports, world.controller.desk, reference, settings)
    assert (len(world.ledger.entries), world.shares(), list(world.effects)) == before, "it changes nothing"
    return found


@pytest.mark.parametrize(("mean", "event"), [(6.0, "Won"), (2.5, "Lost"), (4.0, "Lost")])
def test_with_its_own_settings_the_recorded_verdict_is_found_again_1_37(world: World, mean: float, event: str) -> None:
    _, new = concluded(world, mean)
    found = again(world, new)
    assert (found["recorded"]["event"], found["same"], found["identical"]) == (event, True, True)
    assert found["verdict"]["text"] == world.last(event).detail["reason"] == found["recorded"]["text"]
    assert found["had"] == found["settings"] == {
        "direction": "higher", "mde": 1, "margin": 0.0, "alpha": 0.05, "beta": 0.1,
    }  # fmt: skip
    assert (found["schema"], found["branch"], found["against"]) == ("branchline.rejudge/1", SAM, "1.0.0")
    again(world, SAM)  # by its branch, which is gone


@pytest.mark.parametrize("mde", [5.0, 50.0])
def test_with_an_mde_above_all_that_was_found_better_is_said_with_what_is_ruled_out(world: World, mde: float) -> None:
    concluded(world, 6.0)
    found = again(world, SAM, mde=mde)
    said = f"challenger: the challenger is better, but an effect of {mde:g} is ruled out"
    assert (found["verdict"]["side"], found["verdict"]["text"].splitlines()[0]) == ("challenger", said)
    assert found["measurement"]["low"] > 0


@pytest.mark.parametrize("later", [0.0, 5.0])
def test_who_changed_arms_is_in_a_rebuilt_measurement_as_in_the_live_one(world: World, later: float) -> None:
    """Killer: a restart forgot the units that a ramp had moved after their outcome was known, and counted others."""
    old, new = world.released(toml=CALM.replace("rollout = {", "rollout = { share = 20,")), world.testing()
    arms = world.play(150, {old: around(4), new: around(4.4)})
    open_ = world.visit([f"v{n}" for n in range(60)])
    world.settle()
    world.ask("split", SAM, share=60)
    world.settle()
    world.clock.advance(later)
    again_ = world.visit([*arms, *open_])
    assert sum(again_[unit] != arm for unit, arm in {**arms, **open_}.items()) > 20
    world.report({unit: 4.0 + n % 3 for n, unit in enumerate(open_)})
    world.clock.advance(10)
    world.settle()
    live = world.controller.judge.measurements["housing", SAM][1]
    moved = sum(again_[unit] != arm for unit, arm in open_.items())
    assert sum(sum(each) for each in live.exposed.values()) == len(arms) + len(open_) - moved
    world.restart()
    world.settle()
    rebuilt = world.controller.judge.measurements["housing", SAM][1]
    assert rebuilt is not live
    names = ("strata", "exposed", "reported", "guards", "judgement", "verdict", "seen", "tables", "crossed", "units")
    for name in names:
        assert getattr(rebuilt, name) == getattr(live, name), name


def test_with_other_settings_it_may_be_another_and_says_that_it_proves_nothing(world: World) -> None:
    concluded(world, 4.4)
    assert again(world, SAM)["verdict"]["cause"] == "futile"
    small = again(world, SAM, mde=0.2)
    assert (small["verdict"]["side"], small["same"], small["settings"]["mde"]) == ("none yet", False, 0.2)
    no_worse = again(world, SAM, margin=2.0)
    assert no_worse["verdict"]["side"] == "challenger"
    assert (no_worse["settings"]["mde"], no_worse["settings"]["margin"]) == (0.0, 2.0)  # killer: a margin and an mde
    assert again(world, SAM, mde=0.4, direction="lower")["verdict"]["side"] == "incumbent"
    assert again(world, SAM, alpha=0.2, beta=None)["settings"]["alpha"] == 0.2
    assert "prove nothing" in small["note"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"alpha": 2.0}, "alpha 2.0"),
        ({"mde": 0.4, "margin": 1.0}, "mde asks for better, margin for no worse: give one of them"),
        ({"mde": 0.0}, "mde 0 is no effect"),
        ({"margin": -1.0}, "margin -1 is no effect"),
    ],
    ids=["alpha", "both", "no mde", "no margin"],
)
def test_settings_that_mean_nothing_are_refused(world: World, settings: dict[str, float], why: str) -> None:
    """Killer: what no service file may declare was judged, and said something."""
    concluded(world, 6)
    with pytest.raises(UsageError) as refused:
        again(world, SAM, **settings)
    assert why in refused.value.cause


def test_a_guardrail_breaches_again_at_the_same_request_I10(world: World) -> None:
    old, new = world.released(toml=MODEL), world.testing()
    world.visit([f"u{n}" for n in range(60)], fails=[new])
    world.settle()
    found = again(world, new)
    assert (found["recorded"]["event"], found["verdict"]["cause"]) == ("Breached", "rollback")
    assert found["same"], found
    assert world.shares() == {old: 100}


@pytest.mark.parametrize("how", ["ratio", "stray"])
def test_what_could_not_be_compared_can_not_be_now_F79(world: World, how: str) -> None:
    old, new = world.released(toml=CALM), world.testing()
    units = [f"u{n}" for n in range(300)]
    arms = {unit: world.router.arm("housing", 1, unit) for unit in units}
    if how == "ratio":
        lost = set([unit for unit in units if arms[unit] == new][20:])
        world.visit([unit for unit in units if unit not in lost])
    else:
        world.visit(units)
        world.visit(units[:6], moved={unit: new if arms[unit] == old else old for unit in units})
    world.clock.advance(10)
    world.settle()
    assert world.phase(SAM) is Phase.INCONCLUSIVE
    found = again(world, SAM)
    assert (found["verdict"]["side"], found["verdict"]["cause"], found["same"]) == ("inconclusive", "invalid", True)


def test_the_split_of_each_table_is_what_the_law_wanted_then(world: World) -> None:
    """Killer: with the last share for all of it, the first table's units would be a mismatch.

    The judge begins anew with a ramp, and so does who judges again: of both, every split of before is known.
    """
    old, new = world.released(toml=CALM.replace("rollout = {", "rollout = { share = 20,")), world.testing()
    world.play(300, {old: around(4), new: around(4.4)})
    world.settle()
    world.ask("split", SAM, share=60)
    world.settle()
    world.play(300, {old: around(4), new: around(4.9)}, seed="v")
    world.clock.advance(1)
    world.settle()
    test = recorded(world.ports, world.controller.desk, SAM)
    assert sorted(test.splits.values()) == [(40.0, 60.0), (80.0, 20.0)]
    found = again(world, SAM)
    assert (found["recorded"]["event"], found["identical"]) == ("Won", True)


def test_a_split_that_the_law_did_not_want_is_not_known(world: World) -> None:
    old = world.released()
    history, tried = states(world.ports, "housing"), Candidate(SAM, "new", "new")
    for began in (0.0, world.clock.now()):  # before all that is known, and while one of the two had no share
        assert splits_of(history, [Exposed("housing-1-1", 1, "new", 5, began, began + 9)], old, tried) == {}


def test_who_goes_on_against_a_new_incumbent_is_judged_against_that_one(world: World) -> None:
    """Killer: with what was seen against the old one, the test would be another."""
    old = world.released(toml=CALM.replace("rollout = {", "rollout = { slots = 2,"))
    first, second = world.testing(), world.testing(KIM)
    values = {old: around(4), first: around(7), second: around(5)}
    world.play(450, values)
    world.clock.advance(1)
    world.settle()
    assert world.service().line(1).incumbent == first
    assert again(world, SAM)["identical"]
    world.play(300, values, seed="v")
    world.clock.advance(1)
    world.settle()
    test = recorded(world.ports, world.controller.desk, KIM)
    assert (test.control, list(test.splits.values())[-1:]) == (first, [(67.0, 33.0)])
    found = again(world, KIM)
    assert (found["recorded"]["event"], found["identical"]) == ("Lost", True)


def test_a_test_that_goes_on_is_judged_as_far_as_it_is(world: World) -> None:
    old, new = world.released(toml=CALM), world.testing()
    world.play(60, {old: around(4), new: around(5)})
    world.settle()
    found = again(world, SAM)
    assert (found["recorded"]["event"], found["recorded"]["at"], found["verdict"]["side"]) == ("", "", "none yet")
    assert found["measurement"]["units"] == 60


def test_what_came_after_the_verdict_counts_for_nothing(world: World) -> None:
    old, new = concluded(world, 6, CALM.replace("rollout = {", 'rollout = { approval = "after",'))
    assert world.phase(SAM) is Phase.WON
    world.clock.advance(1)
    world.play(UNITS, {old: around(9), new: around(1)}, seed="v")
    world.settle()
    assert again(world, SAM)["identical"]
    assert again(world, SAM, mde=0.001)["measurement"]["units"] == UNITS


def test_the_newest_of_several_tests_is_meant(world: World) -> None:
    """A test that was ended undecided and extended goes on with its evidence, without an end."""
    toml = CALM.replace("rollout = {", 'rollout = { max_duration = "1h",')
    old, new = world.released(toml=toml), world.testing()
    world.play(20, {old: around(4), new: around(6)})
    world.clock.advance(3600)
    world.settle()
    assert again(world, SAM)["recorded"]["event"] == "Undecided"
    world.ask("extend", SAM)
    world.settle()
    world.play(UNITS, {old: around(4), new: around(6)}, seed="v")
    world.settle()
    found = again(world, new)
    assert (found["recorded"]["event"], found["same"]) == ("Won", True)


def test_what_was_in_no_test_is_said(world: World) -> None:
    world.released(toml=APP)
    world.testing(KIM)
    for reference in (ALEX, KIM):
        with pytest.raises(NothingToDo, match="was in no A/B test"):
            again(world, reference)
    with pytest.raises(UnknownReference):
        again(world, "housing@nobody")


def test_who_has_won_is_judged_by_its_own_test_and_not_by_the_next_one(world: World) -> None:
    """Killer: the newest experiment that it has an arm in is the one in which it is the incumbent."""
    concluded(world, 6)
    world.clock.advance(1)
    world.testing(KIM)
    world.visit(["solo"])
    world.settle()
    assert again(world, SAM)["identical"]


@pytest.mark.parametrize("metric", [None, Metric("rating")])
def test_without_an_mde_nothing_was_judged_by_outcomes(world: World, metric: Metric | None) -> None:
    concluded(world, 6)
    test = recorded(world.ports, world.controller.desk, SAM)
    with pytest.raises(NothingToDo, match="no metric with an mde or a margin"):
        judged_again(world.ports, replace(test, spec=replace(test.spec, metric=metric)), {})


def test_the_states_of_the_past_are_those_that_were_recorded(world: World) -> None:
    concluded(world, 6)
    assert states(world.ports, "housing")[-1][1] == world.service()
    world.ledger.restore("housing", "main", 900, actor="kim", because="a copy", at=world.clock.now())
    assert states(world.ports, "housing")[-1][1] == world.service()


def test_a_history_that_the_law_does_not_know_is_told(world: World) -> None:
    concluded(world, 6)
    world.ledger.entries.insert(2, world.ledger.entries[-1])
    with pytest.raises(NothingToDo, match="cannot be told any more"):
        states(world.ports, "housing")
