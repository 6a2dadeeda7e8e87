"""This file tests how many processes a revision has, changed while it serves (1.20): a new set beside, first.

What is asked holds for that revision in production, through restarts of the daemon, until it has left; the next one has
as many as its file says.
"""

from __future__ import annotations

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Service
from branchline.errors import IllegalMove, UsageError
from tests.world import MODEL, SAM, World

TWO = MODEL.replace('"serving:predict"', '"serving:predict", instances = 2')


def scale(world: World, revision: str, instances: int) -> list[str]:
    """Ask for that many; what was said of it beforehand."""
    steps = world.ask("scale", "housing", revision=revision, instances=instances)
    world.settle()
    return [text for _, text in steps]


def sets(world: World, revision: str) -> list[int]:
    """How many processes each incarnation of a revision has that is not over, the oldest first."""
    return [len(i.sockets) for i in world.launcher.running() if i.revision == revision and i.perimeter == "production"]


def test_a_new_set_takes_over_and_only_then_the_old_one_ends_I8(world: World) -> None:
    first = world.released(toml=TWO)
    old = world.launcher.running()[-1].nonce
    begun = len(world.router.calls)
    assert scale(world, first, 4) == ["run 1.0.0 in 4 processes: a new set beside, which takes over when it is ready"]
    new = world.launcher.running()[-1].nonce
    offers = [call[2] for call in world.router.calls[begun:] if call[0] == "offer"]
    assert offers == [(old, new), (new,)]
    assert (sets(world, first), world.launcher.stopped[-1], world.shares()) == ([4], old, {first: 100})
    assert scale(world, first, 1) == ["run 1.0.0 in 1 process: a new set beside, which takes over when it is ready"]
    assert sets(world, first) == [1]


def test_a_new_set_that_does_not_come_up_takes_nothing_from_the_old_one(world: World) -> None:
    first = world.released(toml=TWO)
    world.launcher.behave[first] = "dies"
    scale(world, first, 4)
    assert (sets(world, first), world.shares()) == ([2], {first: 100})
    assert "1.0.0 did not stay up in production" in world.troubles()[0]


def counted(world: World) -> dict[str, object]:
    rows = world.controller.reader.status()["services"][0]["rows"]
    counts = {row["branch"]: dict(row["instances"] or {}) for row in rows}
    assert {each.pop("level", "") for each in counts.values()} == {""}, "no limits were declared"
    return {branch: each or None for branch, each in counts.items()}


def test_status_says_how_many_of_the_wanted_are_ready(world: World) -> None:
    """1.20, 3.25: those of who serves, of as many as a person wants; also while a new set comes, or does not."""
    first = world.released(toml=TWO)
    assert counted(world) == {"main": {"ready": 2, "wanted": 2}}
    (serving,) = [i.nonce for i in world.launcher.running() if i.perimeter == "production"]
    world.launcher.lose(serving)
    assert counted(world) == {"main": {"ready": 1, "wanted": 2}}
    world.launcher.recover(serving)
    world.launcher.behave[first] = "dies"
    scale(world, first, 4)
    assert counted(world) == {"main": {"ready": 2, "wanted": 4}}
    world.push(SAM)
    world.controller.watch()
    assert counted(world)[SAM] is None
    world.launcher.end(serving)
    assert counted(world)["main"] == {"ready": 0, "wanted": 4}


def test_what_is_said_beforehand_is_what_is_done(world: World) -> None:
    """A new set where the number that runs is another one, whatever was asked for before. Killer: compare the words."""
    first = world.released(toml=TWO)

    def told(instances: int) -> list[str]:
        return [text for _, text in world.plan("scale", "housing", revision=first, instances=instances)]

    assert told(2) == []
    world.launcher.behave[first] = "dies"
    scale(world, first, 4)
    assert told(4) == ["run 1.0.0 in 4 processes: a new set beside, which takes over when it is ready"]
    assert told(2) == []
    begun = world.launcher.running()
    scale(world, first, 2)
    assert world.launcher.running() == begun


def test_it_outlives_the_daemon_and_is_of_one_revision_in_production(world: World) -> None:
    first = world.released(toml=TWO)
    scale(world, first, 3)
    second = world.testing()
    world.restart()
    world.settle()
    assert (sets(world, first), sets(world, second)) == ([3], [2])
    world.launcher.end(world.launcher.running()[0].nonce)
    world.settle()
    world.clock.advance(31)
    world.settle()
    assert sets(world, first) == [3]


def test_what_has_left_is_forgotten_with_the_next_change(world: World) -> None:
    first = world.released(toml=TWO)
    second = world.testing()
    scale(world, second, 3)
    world.ask("abort", SAM)
    world.settle()
    with pytest.raises(IllegalMove, match="cannot happen"):
        world.ask("scale", "housing", revision=second, instances=2)
    scale(world, first, 1)
    assert world.service().scales == ((first, 1),)


@pytest.mark.parametrize("args", [{}, {"revision": "4f1c2ab"}, {"revision": "4f1c2ab", "instances": "many"}])
def test_who_does_not_say_how_many_is_asked_back(world: World, args: dict[str, str]) -> None:
    world.released()
    with pytest.raises(UsageError, match="cannot be understood"):
        world.ask("scale", "housing", **args)


def test_only_what_was_said_counts() -> None:
    service = law.move(Service("s", lines=(law.Line(1, ("q0", "r0"), warm=True),)), law.Scaled("q0", 3))
    assert (service.instances_of("q0", 2), service.instances_of("r0", 2)) == (3, 2)
