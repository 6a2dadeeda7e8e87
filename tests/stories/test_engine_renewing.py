"""This file tests a group that has lost some of its processes: it serves on, and is replaced (I8, F67)."""

from __future__ import annotations

from typing import Any

from branchline.core.service import Phase
from branchline.engine.reconciling import HEALED, Reconciler
from tests.world import MODEL, SAM, World

THREE = MODEL.replace('"serving:predict"', '"serving:predict", instances = 3')
WHY = "it ended by itself with exit 137 after 9.0 s"


def three(world: World) -> tuple[str, str]:
    """A released service of three processes; its commit and the nonce that serves."""
    first = world.released(toml=THREE)
    return first, nonce_of(world, first)


def nonce_of(world: World, revision: str) -> str:
    """The newest incarnation of a revision that is not over."""
    return [i.nonce for i in world.launcher.running() if i.revision == revision][-1]


def after_a_while(world: World, seconds: float = 31) -> None:
    world.clock.advance(seconds)
    world.settle()


def offers(world: World) -> list[tuple[str, ...]]:
    return [call[2] for call in world.router.calls if call[0] == "offer"]


def test_what_lost_a_process_is_stopped_when_its_successor_is_offered_and_not_before_I8(world: World) -> None:
    first, old = three(world)
    world.launcher.lose(old)
    world.settle()
    assert world.troubles() == [f"1.0.0 lost 1 of 3 processes in production: {WHY}; housing@1.0.0 starts"]
    assert len(world.launcher.running()) == 1  # it is not tried again at once
    since = len(offers(world))
    after_a_while(world)
    new = nonce_of(world, first)
    assert offers(world)[since:] == [(old, new), (new,)]  # the newest comes last, and is asked first
    assert (world.launcher.stopped[-1], len(world.launcher.running())) == (old, 1)
    assert (world.shares(), world.troubles()) == ({first: 100}, [])


def test_a_successor_that_hangs_or_dies_takes_nothing_from_what_serves_I8(world: World) -> None:
    first, old = three(world)
    world.launcher.behave[first] = "hangs"
    world.launcher.lose(old)
    world.settle()
    after_a_while(world)
    after_a_while(world)
    assert [i.state for i in world.launcher.running()] == ["ready", "starting"]  # one beside it, and no second
    world.launcher.behave[first] = "dies"
    world.launcher.end(nonce_of(world, first))
    world.settle()
    begun = len(world.launcher.groups)
    for _ in range(4):
        after_a_while(world)
    assert len(world.launcher.groups) == begun + 4  # as often as anything that fails
    assert old not in world.launcher.stopped
    assert (offers(world)[-1], world.shares()) == ((old,), {first: 100})
    del world.launcher.behave[first]
    after_a_while(world)
    assert (world.launcher.stopped[-1], world.troubles()) == (old, [])


def test_a_successor_that_is_cold_for_the_gateway_replaces_nobody_I5_I8(world: World) -> None:
    first, old = three(world)
    world.router.cold = {f"{len(world.launcher.groups) + 1:016x}"}
    world.launcher.lose(old)
    world.settle()
    after_a_while(world)
    assert len(world.launcher.running()) == 2
    assert old not in world.launcher.stopped
    assert "BL503" in world.troubles()[0]
    world.router.cold = set()
    world.settle()
    assert (offers(world)[-1], world.launcher.stopped[-1]) == ((nonce_of(world, first),), old)


def test_without_waiting_for_the_offer_the_last_that_answers_would_be_stopped_I8(world: World) -> None:
    class Hasty(Reconciler):
        def _take_over(self, service: Any, keep: Any, stamp: Any) -> bool:
            for each in keep[:-1]:
                self._stop(service.name, each, stamp)
            return self._publish(service, keep[-1:], stamp)

    _, old = three(world)
    it = world.controller.reconciler
    hasty = Hasty(it.ports, it.recorder, it.observer, it.progress, spawn=lambda act: act())
    world.controller.reconciler, world.controller.workshop.staged = hasty, hasty.staged
    world.router.cold = {f"{len(world.launcher.groups) + 1:016x}"}
    world.launcher.lose(old)
    world.settle()
    after_a_while(world)
    assert old in world.launcher.stopped


def test_who_answers_again_in_time_is_left_alone(world: World) -> None:
    _, old = three(world)
    world.launcher.lose(old)
    world.settle()
    world.launcher.recover(old)
    begun = len(world.launcher.groups)
    after_a_while(world)
    assert (len(world.launcher.groups), world.troubles()) == (begun, [])


def test_who_answers_again_too_late_is_replaced_all_the_same(world: World) -> None:
    first, old = three(world)
    world.launcher.lose(old)
    world.settle()
    world.launcher.behave[first] = "hangs"
    after_a_while(world)
    world.launcher.recover(old)
    del world.launcher.behave[first]
    world.settle()
    assert (world.launcher.stopped[-1], len(world.launcher.running())) == (old, 1)


def test_of_two_that_lost_processes_the_better_serves_until_the_third(world: World) -> None:
    first, old = three(world)
    world.launcher.lose(old, 2)
    world.settle()
    world.router.cold = {f"{len(world.launcher.groups) + 1:016x}"}  # it loses one before the gateway knows it
    after_a_while(world)
    better = nonce_of(world, first)
    world.launcher.lose(better)
    world.router.cold = set()
    world.settle()
    assert (world.launcher.stopped[-1], offers(world)[-1]) == (old, (better,))
    after_a_while(world)
    assert (world.launcher.stopped[-1], offers(world)[-1]) == (better, (nonce_of(world, first),))


def test_a_challenger_that_loses_processes_again_and_again_is_rolled_back_F67(world: World) -> None:
    """Killer: to serve with the rest is not to be well; but a staging group may lose one."""
    first = world.released()
    second = world.push(SAM, THREE)
    world.settle()
    for _ in range(3):
        assert world.shares() == {first: 50, second: 50}
        world.launcher.lose(nonce_of(world, second))
        world.settle()
        world.clock.advance(31)
        world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {first: 100})
    assert f"did not become ready: {WHY}" in world.last("Breached").detail["reason"]


def test_what_was_lost_is_forgotten_after_a_while_of_being_whole(world: World) -> None:
    world.released()
    second = world.push(SAM, THREE)
    world.settle()
    for _ in range(4):
        world.launcher.lose(nonce_of(world, second))
        world.settle()
        after_a_while(world)
        after_a_while(world, HEALED)
    assert world.phase(SAM) is Phase.TESTING


def test_a_daemon_that_is_new_replaces_what_it_finds_worn(world: World) -> None:
    first, old = three(world)
    world.launcher.lose(old)
    world.restart()
    world.settle()
    after_a_while(world)
    assert (world.launcher.stopped[-1], offers(world)[-1]) == (old, (nonce_of(world, first),))


def test_an_end_beside_a_replacement_offers_nothing_that_is_being_stopped(world: World) -> None:
    """A challenger is aborted while the incumbent's worn group still says goodbye: it is not made known again."""
    first, old = three(world)
    second = world.testing()
    goodbyes: list[Any] = []
    world.controller.reconciler.spawn = goodbyes.append
    world.launcher.lose(old)
    world.settle()
    after_a_while(world)
    assert len(goodbyes) == 1
    world.ask("abort", SAM)
    since = len(offers(world))
    world.settle()
    assert len(goodbyes) == 2
    assert all(old not in nonces for nonces in offers(world)[since:])
    for goodbye in goodbyes:
        goodbye()
    world.controller.reconciler.spawn = lambda act: (
        act()
    )  # who was planned before the abort is refused, and planned anew
    world.settle()
    assert [i.revision for i in world.launcher.running()] == [first]
    assert second not in world.shares()
