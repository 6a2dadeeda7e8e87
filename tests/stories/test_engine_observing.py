"""This file tests what is seen: processes, routes and trunks in the law's words, and the last known when git is dead.

Requirements: 1.40 (the trunk has exactly the code of production), 1.51; F33, F35.
"""

from __future__ import annotations

import pytest

from branchline.core import lifecycle as law
from branchline.core.world import FOREIGN, Running
from branchline.engine.observing import REMEMBERED, candidates_first, line_of, remember
from branchline.errors import RemoteUnreachable
from tests.world import MODEL, SAM, World


def test_what_runs_and_what_is_routed_is_read_from_the_things_themselves(world: World) -> None:
    first = world.released()
    second = world.testing()
    sight = world.controller.observer.production(world.service())
    assert sight.world.running == {Running(first, "production", 1), Running(second, "production", 1)}
    assert sight.world.routes == ((1, ((first, 50), (second, 50))),)
    assert len(sight.instances) == len(world.launcher.known)


def test_a_dead_remote_leaves_what_was_known_F35(world: World) -> None:
    first = world.released()
    observer = world.controller.observer
    before = observer.refs
    world.git.reachable = False
    with pytest.raises(RemoteUnreachable):
        observer.fetch()
    assert (observer.refs, observer.reachable) == (before, False)
    assert observer.trunk(world.service(), "main") == first
    world.git.reachable = True
    observer.fetch()
    assert observer.reachable


def test_a_trunk_shows_a_revision_nothing_or_something_foreign_F33_1_40(world: World) -> None:
    observer = world.controller.observer
    observer.fetch()
    assert observer.trunk(world.service(), "nowhere") is None
    assert observer.trunk(world.service(), "main") is None
    world.git.write("main", {"housing/README.md": "where it was begun\n"})
    observer.fetch()
    assert observer.trunk(world.service(), "main") is None  # nothing serves yet: it is only where one begins
    first = world.released()
    assert observer.trunk(world.service(), "main") == first
    world.git.write("main", {"housing/README.md": "by hand\n"})
    observer.fetch()
    assert observer.trunk(world.service(), "main") == FOREIGN


def test_a_service_is_its_folder_and_what_the_revision_shares(world: World) -> None:
    toml = MODEL.replace("steps = {", 'shared = ["lib"]\nsteps = {')
    first = world.released(toml=toml)
    closure = world.controller.observer.closure
    assert closure("housing", (world.git.parents(first)[0], first)) == ("housing", "lib")
    assert closure("cars", (first,)) == ("cars",)


def test_who_concludes_is_looked_for_first(world: World) -> None:
    first = world.released()
    second = world.testing()
    world.git.refusing = True
    world.record(law.Won(SAM))
    assert next(iter(candidates_first(world.service()))) == second
    assert line_of(world.service()) == {first: 1, second: 1}


def test_a_fix_is_absorbed_when_its_challengers_branch_has_it(world: World) -> None:
    world.released()
    world.testing()
    fix = world.push("fix--housing--typo--sam", start=SAM)
    world.settle()
    world.git.refusing = True
    world.record(law.Won("fix--housing--typo--sam"))
    world.settle()
    observer = world.controller.observer
    assert observer.whole(world.service()).world.absorbed == frozenset()
    world.git.reset(SAM, fix)
    observer.fetch()
    assert observer.whole(world.service()).world.absorbed == {(SAM, fix)}
    world.git.remove(SAM)
    observer.fetch()
    assert observer.whole(world.service()).world.absorbed == frozenset()


def test_what_is_said_while_git_moves_on_is_not_remembered(world: World) -> None:
    """What follows from a commit is remembered; but a tip that changed meanwhile may not be the one that was meant."""
    first, observer = world.released(), world.controller.observer

    class Moving(type(world.git)):  # type: ignore[misc]
        def shows(self, *asked: object) -> object:
            answer = super().shows(*asked)
            observer.fetch()
            return answer

    observer._shows.clear()
    plain, world.git.__class__ = type(world.git), Moving
    assert (observer.trunk(world.service(), "main"), observer._shows) == (first, {})
    world.git.__class__ = plain
    assert (observer.trunk(world.service(), "main"), len(observer._shows)) == (first, 1)


def test_a_memory_that_has_become_too_much_is_forgotten() -> None:
    memory = {number: number for number in range(REMEMBERED)}
    remember(memory, -1, 5)
    assert memory == {-1: 5}
