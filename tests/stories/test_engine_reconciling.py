"""This file tests the two lanes: production and git do not wait for one another, and nothing unsafe is ever done.

Requirements: 1.38, 1.47 to 1.50; I5 (nothing cold is routed), I7 and I8 (nothing routed is stopped), I11 (an abort
needs neither git nor the challenger), I21 (late steps change nothing); F35, F65, F67, F69.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from branchline.adapters.envoy_table import shifted
from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.core.world import Delete, Route, Start, Stop, Write
from branchline.engine.reconciling import HEALED, Reconciler, in_short
from branchline.ports import Stamp
from tests.fakes.launcher import ENDS
from tests.fakes.router import FakeRouter
from tests.world import ALEX, KIM, MODEL, SAM, World

TWO_SLOTS = MODEL.replace("rollout = {", "rollout = { slots = 2, share = 30,")


# ── warm before route ──────────────────────────────────────────────────────────────────────────────────────────────


class Lax(FakeRouter):
    """A gateway that shifts to whatever it is told to, warm or not."""

    def shift(self, service: str, line: int, shares: Sequence[tuple[str, int]], stamp: Stamp) -> None:
        self._change(service, stamp, lambda now: shifted(now, service, line, shares, stamp.generation))


def cold_challenger(world: World) -> tuple[str, str]:
    """A challenger whose production group is ready for the launcher and answers nobody; returns both commits."""
    first = world.released()
    router = Lax()
    router.services, router.cold = world.router.services, {f"{n:016x}" for n in range(4, 99)}  # its production group
    world.ports = type(world.ports)(**{f: getattr(world.ports, f) for f in world.ports.__slots__} | {"router": router})
    world.router = router  # type: ignore[assignment]
    world.restart()
    return first, world.push(SAM)


def test_nothing_cold_is_ever_routed_I5_F65(world: World) -> None:
    first, second = cold_challenger(world)
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.TESTING, {first: 100})
    assert "BL503: housing@1.1.0~0000000000000004 was not healthy in time; no route was changed" in world.troubles()
    world.router.cold.clear()
    world.settle()
    assert world.shares() == {first: 50, second: 50}
    assert world.troubles() == []


def test_without_waiting_for_the_offer_the_cold_would_be_routed_I5(world: World) -> None:
    class Hasty(Reconciler):
        def _offered_revisions(self, name: str) -> set[str]:
            return {i.revision for i in self.ports.launcher.instances()}

    _, second = cold_challenger(world)
    old = world.controller.reconciler
    hasty = Hasty(old.ports, old.recorder, old.observer, old.progress, spawn=lambda act: act())
    world.controller.reconciler, world.controller.workshop.staged = hasty, hasty.staged
    world.settle()
    assert world.shares()[second] == 50


# ── two lanes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dead_remote_holds_up_no_abort_I11_F35(world: World) -> None:
    first = world.released()
    second = world.testing()
    world.git.reachable = False
    world.ask("abort", SAM)
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {first: 100})
    assert second not in {i.revision for i in world.launcher.running()}
    assert world.troubles() == ["BL202: The remote 'origin' cannot be reached"]
    assert not world.controller.observer.reachable


def test_a_dead_remote_holds_up_no_shift_and_is_caught_up_with_F35(world: World) -> None:
    world.released()
    second = world.testing()
    world.git.reachable = False
    world.record(law.Won(SAM))
    world.settle()
    assert (world.shares(), world.on(SAM).trouble) == ({second: 100}, "remote")
    assert world.merges() == ["Release housing@1.0.0"]
    world.git.reachable = True
    world.settle()
    assert (world.phase(SAM), world.merges()) == (Phase.LIVE, ["Release housing@1.1.0", "Release housing@1.0.0"])
    assert world.git.tip(SAM) == ""
    assert world.parity()
    assert world.troubles() == []


def test_what_follows_a_merge_is_written_by_the_next_daemon_too_F57(world: World) -> None:
    """Killer: a daemon died between the merge and its tag; with the remote away, too, the next one still waits."""
    world.released()
    second = world.testing()
    world.git.refusing = True
    world.record(law.Won(SAM))
    world.settle()
    world.git.refusing = False
    world.git.heads["main"] = second
    controller = world.restart()
    controller.observer.fetch()
    world.git.reachable = False
    controller.reconciler.git("housing")
    assert world.phase(SAM) is Phase.CONCLUDING
    world.git.reachable = True
    world.settle()
    assert (world.phase(SAM), world.git.kept()["refs/tags/housing@v1.1.0"]) == (Phase.LIVE, second)
    assert world.merges() == ["Release housing@1.0.0"]


def test_git_is_left_alone_until_it_was_seen(world: World) -> None:
    world.released()
    controller = world.restart()
    assert not controller.reconciler.git("housing")


@pytest.mark.parametrize("what", ["merge", "abort"])
def test_a_start_that_never_comes_up_holds_up_nobody_else(world: World, what: str) -> None:
    first = world.released(toml=TWO_SLOTS)
    hanging = world.push(SAM)
    world.launcher.behave[f"{hanging}/production"] = "hangs"
    world.settle()
    other = world.testing(KIM)
    assert world.shares() == {first: 70, other: 30}  # the share that waits for the start lies with the incumbent
    if what == "abort":
        world.ask("abort", KIM)
        world.settle()
        assert world.shares() == {first: 100}
    else:
        world.record(law.Won(KIM))
        world.settle()
        assert (world.phase(KIM), world.merges()[0]) == (Phase.LIVE, "Release housing@1.2.0")
        assert world.git.tip(KIM) == ""
    assert world.phase(SAM) is Phase.TESTING


def test_a_slow_goodbye_holds_up_no_pass_and_is_said_once(world: World) -> None:
    first = world.released()
    world.testing()
    goodbyes: list[Any] = []
    world.controller.reconciler.spawn = goodbyes.append
    world.ask("abort", SAM)
    world.settle()
    assert world.shares() == {first: 100}
    assert len(goodbyes) == 1
    goodbyes.pop()()
    world.settle()
    assert len(world.launcher.running()) == 1


# ── hard failures ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_staging_group_that_dies_fails_its_evaluation(world: World) -> None:
    tip = world.push()
    world.launcher.behave[f"{tip}/staging"] = "dies"
    world.settle()
    assert world.phase(ALEX) is Phase.FAILED
    reason = f"error[BL412]: housing@1.0.0-alex.1 did not become ready: {ENDS['dies']}; housing@1.0.0-alex.1 starts"
    assert str(world.last("GatesFailed").detail["reason"]).splitlines()[0] == reason
    assert not world.launcher.running()


def again(world: World, times: int) -> None:
    for _ in range(times):
        world.settle()
        world.clock.advance(31)
    world.settle()


def test_a_challenger_that_cannot_stay_up_is_rolled_back_after_three_F67(world: World) -> None:
    first = world.released()
    second = world.push(SAM)
    world.launcher.behave[f"{second}/production"] = "late"
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.TESTING, {first: 100})
    assert world.troubles() == [f"1.1.0 did not stay up in production: {ENDS['late']}; housing@1.1.0 starts"]
    again(world, 3)
    assert world.phase(SAM) is Phase.ROLLED_BACK
    assert world.last("Breached").detail["reason"].startswith("error[BL412]: housing@1.1.0 did not become ready")
    assert [g.perimeter for g in world.launcher.groups if g.revision == second] == ["staging"] + 3 * ["production"]
    assert world.troubles() == []


def test_a_challenger_that_comes_up_and_dies_again_and_again_is_rolled_back_too_F67(world: World) -> None:
    """Killer: being ready for a moment does not make three failures one."""
    first = world.released()
    second = world.testing()
    for _ in range(3):
        assert world.shares() == {first: 50, second: 50}
        nonce = next(i.nonce for i in world.launcher.running() if i.revision == second)
        world.launcher.end(nonce)
        again(world, 1)
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {first: 100})


def test_failures_are_forgotten_after_a_while(world: World) -> None:
    world.released()
    second = world.testing()
    for _ in range(5):
        nonce = next(i.nonce for i in world.launcher.running() if i.revision == second)
        world.launcher.end(nonce)
        again(world, 1)
        world.clock.advance(HEALED)
        world.settle()
    assert world.phase(SAM) is Phase.TESTING


def test_an_incumbent_is_tried_again_for_ever_F69(world: World) -> None:
    first = world.released()
    world.launcher.behave[first] = "dies"
    world.launcher.end(world.launcher.running()[0].nonce)
    again(world, 6)
    assert len(world.launcher.groups) >= 7
    assert world.service().line(1).incumbent == first
    assert world.troubles() == [f"1.0.0 did not stay up in production: {ENDS['dies']}; housing@1.0.0 starts"]
    del world.launcher.behave[first]
    again(world, 1)
    assert world.troubles() == []


def test_a_failure_without_a_word_says_so() -> None:
    assert [in_short(text) for text in ("why\none\n two \n\n", "why", " \n")] == ["why; two", "why", "no output"]


def test_two_services_of_one_commit_are_two_groups(world: World) -> None:
    """A repository of many services: the commit alone names nobody."""
    world.push(ALEX)
    both = world.push(ALEX, MODEL, folder="rating", files={n: t for n, t in FILES.items() if n != "branchline.toml"})
    world.git.reset("experiment--rating--alex", both)
    world.settle()
    groups = {(g.service, str(g.cwd.name)) for g in world.launcher.groups if g.perimeter == "production"}
    assert groups == {("housing", "housing"), ("rating", "rating")}


FILES = {
    "branchline.toml": MODEL,
    "says.json": '{"train": {}, "unit": true}',
    "EXPERIMENT.md": "# Hypothesis\nx\n# Metric\nx\n# Log\nx\n",
    "steps.py": "def train(): ...\n",
    "gates.py": "def unit(): ...\n",
    "requirements.lock": "uvicorn==1.0\n",
}


# ── late steps ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_late_step_of_a_controller_that_was_replaced_changes_nothing_I21_F52(world: World) -> None:
    first = world.released()
    world.testing()
    old = world.controller
    world.restart()
    world.ask("abort", SAM)
    old.reconciler.recorder._ledger = _Before(world)  # type: ignore[assignment]
    shares, effects = world.shares(), len(world.effects)
    assert old.reconciler.production("housing")  # refused, and looked at again
    assert (world.shares(), len(world.effects)) == (shares, effects)
    world.settle()
    assert world.shares() == {first: 100}


class _Before:
    """A ledger as the old controller read it: the challenger has won."""

    def __init__(self, world: World) -> None:
        self._state = world.service()
        self._state = law.replace(  # type: ignore[attr-defined]
            self._state, generation=self._state.generation - 1, candidates=self._state.candidates[:1]
        )

    def service(self, name: str) -> law.Service:
        return self._state


# ── addresses, order ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_branch_leads_to_its_staging_group_and_then_to_production(world: World) -> None:
    first = world.released()
    world.ask("freeze", "housing")
    tip = world.push(SAM)
    world.settle()
    words = ("1.1.0", SAM, "sam", tip[:7], tip)
    staged = {e.revision: (e.pins, e.split) for e in world.router.endpoints("housing")}
    assert staged[tip] == (("1.1.0-sam.1", *words), False)
    world.ask("thaw", "housing")
    world.settle()
    assert {e.revision: (e.pins, e.split) for e in world.router.endpoints("housing")}[tip] == (words, True)
    assert first in world.shares()


def test_a_gateway_that_was_started_anew_is_offered_everything_again(world: World) -> None:
    world.released()
    before = len(world.router.calls)
    world.settle()
    assert len(world.router.calls) == before
    world.controller.reconciler.forget()
    world.settle()
    assert len(world.router.calls) == before + 1


def test_who_waits_for_a_slot_is_shown_in_staging_and_seated_when_it_is_free_1_25(world: World) -> None:
    first = world.released()
    world.testing(SAM)
    waiting = world.push(KIM)
    world.settle()
    assert law.waits_for(world.service(), world.on(KIM)) == "slot"
    assert {i.perimeter for i in world.launcher.running() if i.revision == waiting} == {"staging"}
    world.record(law.Lost(SAM))
    world.settle()
    assert (world.phase(KIM), world.shares()) == (Phase.TESTING, {first: 50, waiting: 50})
    assert {i.perimeter for i in world.launcher.running() if i.revision == waiting} == {"production"}


def test_effects_come_in_a_safe_order_I5_I7_I8(world: World) -> None:
    """Started before routed, routed before recorded, unrouted before stopped, deleted last; at most one incumbent."""
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.clock.advance(61)
    world.settle()
    routed: dict[str, int] = {}
    running: set[str] = set()
    written: set[str] = set()
    for step in world.effects:
        match step:
            case Start(revision=revision, perimeter="production"):
                running.add(revision)
            case Route(shares=shares):
                routed = dict(shares)
                assert routed.keys() <= running
            case Stop(revision=revision, perimeter="production"):
                running.discard(revision)
                assert revision not in routed
                assert running
            case Write(revision=revision):
                assert routed == {revision: 100}
                written.add(revision)
            case Delete(tip=tip):
                assert tip in written
    assert len(running) == 1


def test_what_was_true_of_a_state_that_was_left_is_not_recorded(world: World) -> None:
    world.released()
    assert not world.controller.reconciler._record("housing", law.Recorded(ALEX))


def test_a_branch_at_a_commit_that_serves_is_judged_at_the_same_place(world: World) -> None:
    """Two branches, one commit: its words lead to the production group, never to two."""
    world.released()
    tip = world.testing(SAM)
    world.git.reset(KIM, tip)
    world.settle()
    endpoints = [each for each in world.router.endpoints("housing") if each.revision == tip]
    assert [(each.split, bool(each.pins)) for each in endpoints] == [(True, True), (False, False)]
