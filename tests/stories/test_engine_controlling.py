"""This file tests one controller as a whole: killed at any boundary it ends where it would have, and then does nothing.

Requirements: 1.38, 1.44 (exactly one merge), 1.51 (parity); I1, I2, I8, I22, I23 (a restart reaches a fixpoint), I24,
F53 to F58.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from branchline.core import lifecycle as law
from branchline.core.events import Event
from branchline.core.service import Phase, Service
from branchline.engine.controlling import done_offline
from branchline.engine.recording import Recorder
from branchline.errors import DiskFull, Fenced, IllegalMove, LedgerBusy, Unserved
from branchline.ports import Served, Stamp
from tests.fakes.launcher import FakeLauncher
from tests.world import ALEX, KIM, MODEL, SAM, World

# ── killed at every boundary ───────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    """The daemon ended here."""


def story(world: World) -> None:
    """A first revision, a challenger that wins, and one that is rolled back."""
    world.push(ALEX)
    world.settle()
    world.push(SAM)
    world.settle()
    if world.phase(SAM) is Phase.TESTING:
        world.record(law.Won(SAM))
    world.settle()
    world.push(KIM)
    world.settle()
    if world.phase(KIM) is Phase.TESTING:
        world.ask("abort", KIM)
    world.settle()


def boundaries(world: World) -> list[object]:
    """Every effect and every record of the story, in order."""
    met: list[object] = []
    world.interrupt = met.append
    story(world)
    return met


def survive(state: Path, number: int) -> World:
    """Play the story, die right after the numbered boundary, and let the next daemon finish it."""
    world = World(state)
    left = [number]

    def interrupt(what: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    world.interrupt = interrupt
    with pytest.raises(Killed):
        story(world)
    world.interrupt = lambda what: None
    world.restart()
    world.settle()
    done = {c.branch for c in world.service().candidates if c.phase in law.ENDED | law.RESTING}
    for branch, event in ((SAM, law.Won(SAM)), (KIM, law.Aborted(KIM))):
        if branch not in done and not world.git.tip(branch):
            world.push(branch)
            world.settle()
        if branch not in done and world.phase(branch) is Phase.TESTING:
            world.record(event)
            world.settle()
    return world


@pytest.mark.parametrize("every", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_a_death_after_any_effect_or_record_changes_no_ending_I1_I2_I23_F57(tmp_path: Path, every: int) -> None:
    whole = World(tmp_path / "whole")
    met = boundaries(whole)
    assert len(met) > 25
    for number in range(1, len(met) + 1, every):
        world = survive(tmp_path / str(number), number)
        where = f"after boundary {number}: {met[number - 1]}"
        assert world.merges() == ["Release housing@1.1.0", "Release housing@1.0.0"], where
        phases = {c.branch: c.phase for c in world.service().candidates}
        assert phases == {ALEX: Phase.RETIRED, SAM: Phase.LIVE, KIM: Phase.ROLLED_BACK}, where
        assert sorted(world.git.heads) == [KIM, "main"], where
        assert world.parity(), where
        assert world.troubles() == [], where
        effects, entries = len(world.effects), len(world.ledger.entries)
        world.restart()
        world.settle()
        assert (len(world.effects), len(world.ledger.entries)) == (effects, entries), where


def test_a_settled_controller_does_nothing_I23(world: World) -> None:
    story(world)
    assert not world.round()
    world.restart()
    effects = list(world.effects)
    world.round()  # offers again what is offered already
    assert not world.round()
    assert world.effects == effects


def test_a_late_step_is_refused_by_who_was_told_and_done_by_who_was_not_I21(world: World) -> None:
    """Killer: a resource that is left out still does what was planned before the abort."""
    world.released()
    world.testing()
    planned = world.controller.recorder.stamp(world.service())
    nonce = world.launcher.running()[-1].nonce
    deaf = FakeLauncher()
    deaf.known, deaf.marks = dict(world.launcher.known), dict(world.launcher.marks)
    world.ask("abort", SAM)
    with pytest.raises(Fenced):
        world.launcher.stop(nonce, planned)
    deaf.stop(nonce, planned)
    assert deaf.stopped == [nonce]


# ── without the daemon ─────────────────────────────────────────────────────────────────────────────────────────────


def offline(world: World) -> None:
    world.router.roll_back("housing", 1, actor="kim", because="it burns", at=world.clock.now())


def test_an_abort_without_the_daemon_is_recorded_before_anything_is_planned(world: World) -> None:
    first = world.released()
    world.testing()
    offline(world)
    world.restart()
    entry = world.last("Aborted")
    assert (entry.actor, entry.because, entry.detail["reason"]) == ("kim", "it burns", "it burns")
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {first: 100})
    assert world.troubles() == []


def test_without_adopting_the_journal_the_plan_would_undo_the_person(world: World) -> None:
    first = world.released()
    second = world.testing()
    offline(world)
    world.router.journal.clear()
    world.restart()
    world.settle()
    assert world.shares() == {first: 50, second: 50}


def the_second_of_three(world: World) -> str:
    """Release three versions, each by a win over the one before, and return the second one's commit."""
    world.released()
    second = world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.testing(KIM)
    world.record(law.Won(KIM))
    world.settle()
    return second


@pytest.mark.parametrize("died", [False, True])
def test_a_rollback_without_the_daemon_goes_back_one_version_and_no_further(world: World, died: bool) -> None:
    """Killer: the daemon that adopted it died before the journal was forgotten."""
    second = the_second_of_three(world)
    offline(world)
    journal = list(world.router.journal)
    world.restart()
    if died:
        world.router.journal[:] = journal
        world.restart()
    world.settle()
    assert world.events().count("RolledBack") == 1
    assert (world.service().line(1).incumbent, world.shares()) == (second, {second: 100})
    assert world.merges()[0] == "Roll housing back to 1.1.0"
    assert world.router.journal == []


def test_a_rollback_while_a_winner_concludes_is_its_abort(world: World) -> None:
    first = world.released()
    world.testing()
    world.git.refusing = True
    world.record(law.Won(SAM))
    world.settle()
    offline(world)
    world.git.refusing = False
    world.restart()
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {first: 100})
    assert world.merges() == ["Release housing@1.0.0"]


def test_an_abort_on_a_line_leaves_those_who_kept_their_share(world: World) -> None:
    """The winner that takes the trunk's arm stays, who was under test beside it goes."""
    world.released(toml=MODEL.replace("rollout = {", "rollout = { slots = 2, share = 30,"))
    world.testing(KIM)
    second = world.testing(SAM)
    world.git.refusing = True
    world.record(law.Won(SAM))
    world.settle()
    offline(world)
    world.git.refusing = False
    world.restart()
    world.settle()
    assert (world.phase(KIM), world.phase(SAM)) == (Phase.ROLLED_BACK, Phase.LIVE)
    assert world.shares() == {second: 100}


def test_what_the_record_cannot_explain_is_told_and_undone(world: World) -> None:
    first = world.released()
    second = world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.ask("rollback", "housing")
    world.settle()
    with pytest.raises(Unserved):
        offline(world)  # back to what was rolled back
    routes = world.router.services["housing"]
    older = replace(routes.lines[0][1], previous=second)  # an older one has written that
    world.router.services["housing"] = replace(routes, lines=((1, older),))
    offline(world)
    world.restart()
    assert world.troubles() == ["BL105: the rollback of 1.x without the daemon is undone"]
    world.settle()
    assert world.shares() == {first: 100}


def test_what_was_done_while_the_daemon_hung_is_recorded_as_it_goes_on_I8(world: World) -> None:
    """Killer: read the journal at the start alone."""
    first = world.released()
    world.testing()
    offline(world)
    world.settle()
    assert (world.last("Aborted").actor, world.shares()) == ("kim", {first: 100})
    assert (world.router.journal, world.troubles()) == ([], [])


def test_two_steps_back_beside_the_daemon_are_recorded_one_after_the_other(world: World) -> None:
    """Killer: forget both as the first is told."""
    first = world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.testing(KIM)
    offline(world)
    offline(world)
    world.settle()
    assert [name for name in world.events() if name in ("Aborted", "RolledBack")] == ["Aborted", "RolledBack"]
    assert (world.shares(), world.router.journal) == ({first: 100}, [])


class Beaten(Recorder):
    """Somebody else records the very same first."""

    def record(self, name: str, event: Event, **more: Any) -> Service:
        """Record it twice."""
        super().record(name, event, actor="somebody else")
        return super().record(name, event, **more)


class Full(Recorder):
    """There is no room to record anything, for now."""

    room = False

    def record(self, name: str, event: Event, **more: Any) -> Service:
        """Refuse."""
        if not self.room:
            raise DiskFull(what="the event")
        return super().record(name, event, **more)


class Lawless(Recorder):
    """The law takes nothing."""

    def record(self, name: str, event: Event, **more: Any) -> Service:
        """Refuse."""
        raise IllegalMove(event="it", subject=name)


R = TypeVar("R", bound=Recorder)


def recording(world: World, kind: type[R]) -> R:
    """Let the controller record by another recorder."""
    resources = (world.router, world.launcher, world.git)
    found = kind(world.ledger, resources, world.clock, "main", lambda name: None)
    world.controller.recorder = found
    return found


def test_a_rollback_that_was_asked_for_both_ways_goes_back_once(world: World) -> None:
    """The daemon hung while it was asked, and then both were done. Killer: record it whatever is recorded."""
    second = the_second_of_three(world)
    offline(world)
    recording(world, Beaten)
    world.controller.produce()
    assert (world.events().count("RolledBack"), world.shares()) == (1, {second: 100})


def test_what_there_is_no_room_to_record_stays_as_the_person_left_it(world: World) -> None:
    """F6. Killer: let go of a journal that was read."""
    first = world.released()
    second = world.testing()
    offline(world)
    there, full = world.router.journal[0], recording(world, Full)
    for _ in range(3):
        world.controller.produce()
    assert (world.shares(), world.router.journal) == ({first: 100}, [there])
    assert world.controller.troubles["housing", "offline"].startswith("BL707")
    with pytest.raises(Fenced):
        world.router.shift("housing", 1, [(first, 50), (second, 50)], Stamp(99, 99))
    full.room = True
    world.controller.produce()
    assert ("housing", "offline") not in world.controller.troubles
    assert (world.phase(SAM), world.shares(), world.router.journal) == (Phase.ROLLED_BACK, {first: 100}, [])


def test_what_the_law_does_not_take_is_told(world: World) -> None:
    world.released()
    world.testing()
    offline(world)
    recording(world, Lawless)
    world.controller.produce()
    assert world.troubles() == ["BL105: the abort of 1.x without the daemon is undone"]


def test_nothing_is_needed_where_the_record_says_the_same() -> None:
    service = law.Service("x", lines=(law.Line(1, ("a", "b")),))
    assert done_offline(service, 1, (("b", 100),), "why") is None
    assert done_offline(service, 1, (("a", 100),), "why") == law.RolledBack(line=1, reason="why")
    assert done_offline(service, 1, (("c", 100),), "why") is None


# ── passes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_one_before_is_kept_warm_for_its_time(world: World) -> None:
    first = world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    assert world.service().line(1).warm
    assert first in {i.revision for i in world.launcher.running()}
    world.clock.advance(61)
    world.settle()
    assert world.last("Cooled").actor == "clock"
    assert len(world.launcher.running()) == 1


def test_what_was_crowned_longer_ago_than_anybody_reads_is_cold(world: World) -> None:
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.ledger.entries = [e for e in world.ledger.entries if e.event != "Recorded"]
    assert world.controller.cool("housing")


def test_what_only_one_service_cannot_stops_no_other_I24_F60(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.push(ALEX.replace("housing", "cars"))
    world.push(ALEX)
    world.controller.watch()
    service = world.ledger.service
    failures: dict[str, Callable[[], BaseException]] = {
        "moved": lambda: law.IllegalMove(event="Built", subject="cars"),
        "busy": LedgerBusy,
        "unreadable": lambda: ValueError("no such phase"),
    }
    for what, failure in failures.items():

        def read(name: str, failure: Callable[[], BaseException] = failure) -> law.Service:
            if name == "cars":
                raise failure()
            return service(name)

        world.ledger.service = read  # type: ignore[method-assign]
        done = world.controller._each(what, lambda name: world.controller.recorder.service(name) is None)
        assert done == (what == "moved")
    world.ledger.service = service  # type: ignore[method-assign]
    assert world.troubles() == [
        "BL708: Another process holds the ledger",
        "BL000: something failed inside (unreadable); see daemon.log",
    ]
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    world.settle()
    assert world.phase(ALEX) is Phase.LIVE


def test_requests_of_a_line_with_one_arm_expose_nobody(world: World) -> None:
    first = world.released()
    world.meter.lines.append(Served("housing", "u", "r", first, first, "", 1, 200, "", 0.01, 0.0))
    assert world.controller.judge_all() is False
    assert (world.observations.lines, world.observations.position()) == ([], "1")


def test_the_log_is_read_to_its_end_however_long_it_is(world: World) -> None:
    world.released()
    world.testing()
    world.visit([f"u{n}" for n in range(40)])
    read = world.meter.read
    world.meter.read = lambda position, limit=5000: read(position, 7)  # type: ignore[method-assign]
    assert world.controller.read_exposures() == 40
    assert world.controller.read_exposures() == 0


def test_what_the_ledger_does_not_know_of_the_gateway_is_told(world: World) -> None:
    """F56: a person learns of it without looking for it."""
    assert world.controller.unlogged() == []
    world.meter.lost, world.meter.failed, world.meter.waits = 3, 2, 12.0
    world.meter.lines.append(Served("housing", "u", "r", "a", "a", "", 1, 200, "", 0.01, 0.0))
    assert world.controller.unlogged() == [
        "3 requests were served and not logged: the gateway was killed",
        "2 requests were served and could not be logged: the disk is full, or nobody reads",
        "the gateway's log is read 12 s late: 1 lines wait",
    ]


def test_a_log_that_exposes_nobody_is_read_once(world: World) -> None:
    """Killer: keep the place only with what was taken, and pinned requests are read again at every look."""
    place = iter(["pinned", "pinned"])
    world.meter.read = lambda position, limit=5000: ((), next(place))  # type: ignore[method-assign]
    assert world.controller.read_exposures() == 0
    assert world.observations.position() == "pinned"


def test_the_passes_are_what_a_daemon_repeats(world: World) -> None:
    passes = world.controller.passes()
    named = ["watch", "produce", "git", "work", "data", "gather", "count", "judge", "cool", "dossier"]
    assert [each.name for each in passes] == named
    assert all(0 < each.least < each.most for each in passes)


def test_whoever_waits_for_a_change_is_woken(world: World) -> None:
    heard = world.controller.changed.times
    world.push()
    world.controller.watch()
    assert world.controller.changed.wait(heard, 0) > heard
