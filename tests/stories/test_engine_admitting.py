"""This file tests that no group is started that does not fit beside what runs, and that what serves is never refused
(1.21).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchline.core.service import Phase
from branchline.core.spec import Limits
from branchline.engine.admitting import Tenant, excess, limits_of
from branchline.engine.budgeting import Budget
from branchline.ports import Group
from tests.world import ALEX, KIM, MODEL, SAM, World

GB = 10**9


def asking(**limits: Any) -> str:
    """A service file whose group asks for this much."""
    words = ", ".join(f"{name} = {value!r}".replace("'", '"') for name, value in limits.items())
    return MODEL.replace('"serving:predict"', f'"serving:predict", limits = {{ {words} }}')


def having(world: World, cores: float = 4, memory: int = 8 * GB, gpus: int = 2) -> None:
    world.controller.reconciler.there = Budget(cores, memory, tuple(range(gpus)))


@pytest.fixture(autouse=True)
def large(world: World) -> None:
    """Where a test does not say how large the machine is, everything fits."""
    having(world, 64, 64 * GB, 8)


def started(world: World, revision: str) -> list[str]:
    """The perimeters that a revision was started in, in order."""
    return [group.perimeter for group in world.launcher.groups if group.revision == revision]


def test_a_challenger_that_does_not_fit_is_refused_before_anything_of_it_starts_1_21(world: World) -> None:
    first = world.released(toml=asking(cores=3))
    having(world)
    second = world.push(SAM, asking(cores=2))
    world.settle()
    assert (world.phase(SAM), started(world, second)) == (Phase.FAILED, [])
    why = "it asks for 2 cores; with housing@1.0.0 3 that is 5, and there are 4 here"
    told = str(world.last("GatesFailed").detail["reason"])
    assert told.splitlines()[0] == f"error[BL412]: housing@1.1.0-sam.1 did not become ready: {why}"
    assert world.shares() == {first: 100}


def test_status_says_how_the_limits_of_a_revision_are_kept_1_21(world: World) -> None:
    world.released(toml=asking(files=64))
    (row,) = world.controller.reader.status()["services"][0]["rows"]
    assert row["instances"] == {"ready": 1, "wanted": 1, "level": "limits"}


def test_one_that_fits_in_staging_and_no_more_in_production_is_rolled_back_after_three_1_21(world: World) -> None:
    """Killer: it is not tried for ever, and not at once again."""
    first = world.released(toml=asking(cores=2))
    world.ask("freeze", "housing")
    second = world.push(SAM, asking(cores=2))
    world.settle()
    assert started(world, second) == ["staging"]
    having(world, cores=3)
    world.ask("thaw", "housing")
    world.settle()
    why = "it asks for 2 cores; with housing@1.0.0 2 that is 4, and there are 3 here"
    assert world.troubles() == [f"1.1.0 is not started in production: {why}"]
    for _ in range(2):
        assert (world.phase(SAM), started(world, second)) == (Phase.TESTING, ["staging"])
        world.settle()
        world.clock.advance(1)
        world.settle()
    assert (world.phase(SAM), started(world, second), world.shares()) == (Phase.ROLLED_BACK, ["staging"], {first: 100})
    assert why in world.last("Breached").detail["reason"]
    assert world.troubles() == []


@pytest.mark.parametrize("how", ["not stopped yet", "drains"])
def test_what_is_about_to_end_is_waited_for_and_refuses_nobody_1_21(world: World, how: str) -> None:
    """A group in production fits only when its own staging group is gone."""
    world.released(toml=asking(cores=2))
    having(world, cores=5)
    goodbyes: list[Any] = []
    world.launcher.lingers = how == "drains"
    if not world.launcher.lingers:
        world.controller.reconciler.spawn = goodbyes.append
    second = world.push(SAM, asking(cores=2))
    for _ in range(9):  # far more often than a failure would be forgiven
        world.clock.advance(31)
        world.settle()
    assert (world.phase(SAM), started(world, second)) == (Phase.TESTING, ["staging"])
    assert "with housing@1.0.0 2, housing@1.1.0-sam.1 2 that is 6, and there are 5 here" in world.troubles()[0]
    for goodbye in goodbyes:
        goodbye()
    for nonce, each in world.launcher.known.items():
        world.launcher.known[nonce] = replace(each, pids=() if each.state == "stopped" else each.pids)
    world.clock.advance(0.5)  # having waited is no failure: it is tried again soon
    world.settle()
    assert (started(world, second), world.troubles()) == (["staging", "production"], [])


@pytest.fixture
def both(world: World) -> tuple[str, str]:
    """An incumbent and its challenger, of two processes each, which together need four cores."""
    two = asking(cores=2).replace('predict",', 'predict", instances = 2,')
    return world.released(toml=two), world.testing(toml=two)


@pytest.mark.parametrize("restarts", [True, False])
def test_who_served_and_died_is_started_again_wherever_there_is_no_more_room_1_21_F69(
    world: World, both: tuple[str, str], restarts: bool
) -> None:
    """Killer: the machine became smaller."""
    for revision in both:
        if restarts:
            world.restart()
        having(world, cores=0.5)
        world.launcher.end(next(i.nonce for i in world.launcher.running() if i.revision == revision))
        world.settle()
        world.clock.advance(31)
        world.settle()
    assert world.shares() == dict.fromkeys(both, 50)
    assert {i.revision for i in world.launcher.running()} == {*both}


def test_after_a_reset_of_the_machine_all_that_served_is_started_again_1_21(
    world: World, both: tuple[str, str]
) -> None:
    world.launcher.known.clear()
    world.restart()
    having(world, cores=0.5)
    world.settle()
    assert {i.revision for i in world.launcher.running()} == {*both}


def test_an_incumbent_that_even_the_gateway_has_forgotten_is_started_again_1_21(
    world: World, both: tuple[str, str]
) -> None:
    world.launcher.known.clear()
    world.router.services.clear()
    world.restart()
    having(world, cores=0.5)
    world.settle()
    assert {i.revision for i in world.launcher.running()} == {both[0]}


def test_a_worn_arm_is_replaced_without_asking_for_room_I8_1_21(world: World, both: tuple[str, str]) -> None:
    """Its successor stands beside it for a moment: that counts for nobody."""
    world.restart()
    having(world, cores=0.5)
    worn = next(i.nonce for i in world.launcher.running() if i.revision == both[1])
    world.launcher.lose(worn)
    world.settle()
    world.clock.advance(31)
    world.settle()
    assert worn in world.launcher.stopped
    assert world.shares() == dict.fromkeys(both, 50)


def test_who_was_given_up_is_asked_again_1_21(world: World) -> None:
    """Killer: room that somebody had once is not theirs for ever."""
    world.released()
    tip = world.push(SAM, asking(cores=1))
    world.launcher.behave[f"{tip}/staging"] = "dies"
    world.settle()
    assert (world.phase(SAM), started(world, tip)) == (Phase.FAILED, ["staging"])
    having(world, cores=0.5)
    world.git.reset(KIM, tip)
    world.settle()
    world.clock.advance(31)
    world.settle()
    assert (world.phase(KIM), started(world, tip)) == (Phase.FAILED, ["staging"])
    assert "it asks for 1 cores, and there are 0.5 here" in world.last("GatesFailed").detail["reason"]


def test_a_staging_group_that_is_ready_is_replaced_without_asking_again(world: World) -> None:
    world.released()
    world.ask("freeze", "housing")
    tip = world.push(SAM, asking(cores=1).replace('predict",', 'predict", instances = 2,'))
    world.settle()
    having(world, cores=0.5)
    world.restart()
    having(world, cores=0.5)
    worn = next(i.nonce for i in world.launcher.running() if i.revision == tip)
    world.launcher.lose(worn)
    world.settle()
    world.clock.advance(31)
    world.settle()
    assert (worn in world.launcher.stopped, started(world, tip)) == (True, ["staging", "staging"])


def test_a_group_whose_file_cannot_be_read_any_more_counts_nothing(world: World) -> None:
    world.released(toml=asking(cores=3))
    (known,) = world.launcher.running()
    assert limits_of(world.ports, known) == Limits(cores=3)
    assert limits_of(world.ports, replace(known, service="nobody")) == Limits()


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(), ""),
        (Limits(processes=9, files=99), ""),
        (Limits(cores=1, memory=GB, gpus=1), ""),
        (Limits(cores=5), "it asks for 5 cores; with a@1 2.5 that is 7.5, and there are 4 here"),
        (Limits(memory=2 * GB), "it asks for 2000 MB of memory; with b@2 1000 that is 3000, and there are 2000 here"),
        (Limits(gpus=2), "it asks for 2 GPUs; with a@1 1 that is 3, and there are 2 here"),
    ],
)
def test_the_first_sum_that_is_too_much_is_told_1_21(limits: Limits, why: str) -> None:
    """What asks for nothing of a kind is not refused for that kind, however much others ask for."""
    group = Group("housing", "c", "1.0.0", "production", (), Path(), {}, "/", limits=limits)
    others = [Tenant("a@1", Limits(cores=2.5, gpus=1)), Tenant("b@2", Limits(memory=GB))]
    assert excess(group, others, Budget(4, 2 * GB, (0, 1))) == why


def test_a_first_revision_that_does_not_fit_says_so_1_21(world: World) -> None:
    having(world)
    world.push(ALEX, asking(gpus=3))
    world.settle()
    assert world.phase(ALEX) is Phase.FAILED
    assert "it asks for 3 GPUs, and there are 2 here" in world.last("GatesFailed").detail["reason"]
    assert world.launcher.groups == []
