"""This file tests that candidates are built and evaluated for the very try they are, and that stopping says nothing.

Requirements: 1.31 (evaluation fails, the branch stays), 1.09 (what artifacts were trained at); I24 (one bad object
stops nobody), F14 to F20 as far as the engine tells them, F24 (the daemon goes in the middle of a build).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase, Service
from branchline.engine.trying import Wanted
from branchline.engine.working import same_try
from branchline.errors import DiskFull, EnvironmentBusy, IllegalMove
from tests.world import ALEX, MODEL, SAM, World

STEP = "Step train of housing failed"


class Later(Executor):
    """Keeps what is to be done until it is asked to do it."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting.append(lambda: fn(*args, **kwargs))
        return Future()

    def do(self) -> None:
        self.waiting.pop(0)()


@pytest.fixture
def later(world: World) -> Later:
    world.controller.workshop.pool = later = Later()
    return later


def begin(world: World, later: Later) -> None:
    world.settle()
    later.do()


def test_a_build_that_ends_after_its_branch_moved_on_records_nothing(world: World, later: Later) -> None:
    first = world.push()
    world.settle()
    second = world.push()
    world.controller.watch()
    later.do()
    assert (world.on(ALEX).phase, world.on(ALEX).revision) == (Phase.BUILDING, second)
    assert "Built" not in world.events()
    assert first != second
    assert world.controller.workshop.look("housing")  # the newest tip is begun
    later.do()
    assert world.phase(ALEX) is Phase.EVALUATING


def test_a_build_of_a_moved_branch_would_be_recorded_if_nobody_asked_for_which_try(world: World, later: Later) -> None:
    world.push()
    world.settle()
    careless = _Careless(world.controller.recorder.record, world.service("housing"))
    world.push()
    world.controller.watch()
    world.controller.workshop.recorder = careless  # type: ignore[assignment]
    later.do()
    assert world.phase(ALEX) is Phase.EVALUATING  # the tip that nobody built


class _Careless:
    """A recorder that knows a state of before, and asks nothing of the one it meets."""

    def __init__(self, record: Callable[..., Any], before: Service) -> None:
        self._record, self._before = record, before

    def service(self, _name: str) -> Service:
        return self._before

    def record(self, name: str, event: law.Event, only_if: object = None) -> None:
        self._record(name, event)


def test_gates_that_end_after_an_abort_record_nothing(world: World, later: Later) -> None:
    world.push()
    begin(world, later)
    world.settle()
    world.ask("abort", ALEX)
    later.do()
    assert world.phase(ALEX) is Phase.FAILED
    assert "GatesPassed" not in world.events()


def test_a_result_for_a_state_that_was_left_meanwhile_is_refused(world: World, later: Later) -> None:
    """The abort comes between the last look of the gates and their recording."""
    world.push()
    begin(world, later)
    world.settle()
    hold = world.git.hold
    world.git.hold = lambda *args: (hold(*args), world.ask("abort", ALEX))  # type: ignore[method-assign,assignment]
    later.do()
    assert world.phase(ALEX) is Phase.FAILED
    assert world.events()[-1] == "Aborted"


def test_nothing_is_begun_twice(world: World, later: Later) -> None:
    world.push()
    world.settle()
    assert not world.controller.workshop.look("housing")
    assert len(later.waiting) == 1


def test_a_failed_gate_leaves_the_branch_1_31(world: World) -> None:
    world.push(says={"unit": False})
    world.settle()
    assert (world.phase(ALEX), world.last("GatesFailed").detail["reason"]) == (Phase.FAILED, "unit: it said no")
    assert world.git.tip(ALEX)
    assert not world.launcher.running()
    assert world.shares() == {}


def test_a_failed_step_is_told_with_its_last_lines(world: World) -> None:
    world.push(says={"train": "raise no rows"})
    world.settle()
    assert world.phase(ALEX) is Phase.FAILED
    assert world.last("BuildFailed").detail["reason"] == f"error[BL403]: {STEP}: ValueError: no rows"
    note = world.controller.progress.since(0, ALEX)[-1]
    assert (note.mark, note.name) == ("no", "building")
    assert "next: branchline logs housing" in note.text


def test_an_environment_that_is_busy_is_tried_again(world: World) -> None:
    ensure = world.environments.ensure
    busy = [EnvironmentBusy(digest="ab12")]

    def once(*args: Any) -> Any:
        if busy:
            raise busy.pop()
        return ensure(*args)

    world.environments.ensure = once  # type: ignore[method-assign,assignment]
    world.push()
    world.controller.watch()
    world.controller.workshop.look("housing")
    assert world.troubles() == ["BL414: The environment ab12 is being built by another process"]
    world.clock.advance(1)
    world.settle()
    assert world.service().line(1).incumbent
    assert world.troubles() == []


def test_a_surprise_fails_its_candidate_and_no_other_I24(world: World) -> None:
    world.workers.met = _broken
    world.push()
    world.push(branch=SAM.replace("housing", "rating"))
    world.settle()
    assert "RuntimeError: out of file descriptors" in world.last("BuildFailed").detail["reason"]
    assert world.events().count("BuildFailed") == 2


def _broken(order: object) -> list[list[str]]:
    raise RuntimeError("out of file descriptors")


def test_a_full_ledger_is_told_and_loses_no_work_F55(world: World) -> None:
    world.push(says={"train": "raise no rows"})
    world.controller.watch()
    world.ledger.full = True
    world.controller.workshop.look("housing")
    assert world.troubles() == ["BL707: The disk is full; the event was not written"]
    world.ledger.full = False
    world.clock.advance(1)
    world.settle()
    assert world.phase(ALEX) is Phase.FAILED


def test_what_the_ledger_cannot_keep_is_no_fault_of_who_passed_F55(world: World) -> None:
    """Killer: there was room again just when the failure would have been recorded, and a good candidate had failed."""
    record = world.ledger.record
    full = [DiskFull(what="the event")]

    def once(after: law.Service, event: Any, **told: Any) -> Any:
        if event["type"] == "GatesPassed" and full:
            raise full.pop()
        return record(after, event, **told)

    world.ledger.record = once  # type: ignore[method-assign]
    world.push()
    world.settle()
    assert (world.phase(ALEX), full) == (Phase.EVALUATING, [])
    world.clock.advance(1)
    world.settle()
    assert world.phase(ALEX) is Phase.LIVE
    assert "GatesFailed" not in world.events()


def test_work_that_cannot_be_recorded_is_not_begun_at_every_look_F55(world: World) -> None:
    """Found: while the disk was full the gates ran again and again without a pause, and nobody was told why."""
    gates = [0]
    said = world.runner.calls["gates:unit"]

    def counted(order: dict[str, Any]) -> Any:
        gates[0] += 1
        return said(order)

    def full(after: law.Service, event: Any, **told: Any) -> Any:
        raise DiskFull(what="the event")

    world.push()
    world.controller.watch()
    world.controller.workshop.look("housing")
    record, world.runner.calls["gates:unit"] = world.ledger.record, counted
    world.ledger.record = full  # type: ignore[method-assign]
    pauses = []
    for times in range(1, 10):
        world.settle()
        assert gates == [times]
        assert world.troubles() == ["BL707: The disk is full; the event was not written"]
        begun = world.clock.monotonic()
        while not world.controller.workshop.look("housing"):
            world.clock.advance(0.25)
        pauses.append(world.clock.monotonic() - begun)
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    world.ledger.record = record  # type: ignore[method-assign]
    world.clock.advance(30)
    world.settle()
    assert (world.phase(ALEX), world.troubles()) == (Phase.LIVE, [])


def test_a_trouble_of_work_that_is_wanted_no_more_is_told_no_more(world: World) -> None:
    world.environments.ensure = _busy  # type: ignore[method-assign,assignment]
    other = ALEX.replace("housing", "rating")
    world.push()
    world.push(other)
    world.settle()
    assert len(world.troubles()) == 2
    world.ask("abort", ALEX)
    world.settle()
    assert len(world.troubles()) == 1


def _busy(*args: Any) -> Any:
    raise EnvironmentBusy(digest="ab12")


def test_a_failure_of_a_state_that_was_left_meanwhile_is_not_recorded(world: World) -> None:
    """The abort comes while the failure is being told."""
    failed = world.controller.progress.failed

    def aborted(*args: Any) -> str:
        world.ask("abort", ALEX)
        return failed(*args)

    world.controller.progress.failed = aborted  # type: ignore[method-assign,assignment]
    world.push(says={"train": "raise no rows"})
    world.controller.watch()
    world.controller.workshop.look("housing")
    assert (world.phase(ALEX), world.events()[-1]) == (Phase.FAILED, "Aborted")


def test_a_daemon_that_stops_fails_nobody_F24(world: World) -> None:
    """Killer: the worker was ended, not the step's fault; the next daemon begins it again."""
    train = world.runner.calls["steps:train"]

    def stopped(order: dict[str, Any]) -> None:
        world.controller.workshop.close()
        raise ConnectionError

    world.runner.calls["steps:train"] = stopped
    world.push()
    world.controller.watch()
    world.controller.workshop.look("housing")
    assert world.phase(ALEX) is Phase.BUILDING
    assert "BuildFailed" not in world.events()
    assert not world.controller.workshop.look("housing")
    world.runner.calls["steps:train"] = train
    world.restart()
    world.settle()
    assert world.phase(ALEX) is Phase.LIVE
    assert world.parity()


def test_a_daemon_that_stops_in_an_evaluation_fails_nobody(world: World) -> None:
    """A gate that was ended with the daemon says nothing, though its result reads like a failure."""

    def closing(order: dict[str, Any]) -> bool:
        world.controller.workshop.close()
        return False

    said = world.runner.calls["gates:unit"]
    world.runner.calls["gates:unit"] = closing
    world.push()
    world.settle()
    assert world.phase(ALEX) is Phase.EVALUATING
    world.runner.calls["gates:unit"] = said
    world.restart()
    world.settle()
    assert world.service().line(1).incumbent


def test_gates_wait_until_staging_can_be_reached(world: World) -> None:
    """A ready process that no route leads to would answer every gate with 404."""
    world.push()
    world.router.down = True
    world.settle()
    assert world.phase(ALEX) is Phase.EVALUATING
    world.router.down = False
    world.settle()
    assert world.phase(ALEX) is Phase.LIVE


def test_the_artifacts_of_a_reused_build_keep_the_commit_they_were_trained_at_1_09(world: World) -> None:
    first = world.push(says={"unit": False})
    world.settle()
    second = world.git.write(ALEX, {"notes.md": "only words\n"})
    world.settle()
    revisions = {r.commit: r for r in world.catalog.revisions("housing")}
    assert (revisions[first].trained, revisions[second].trained) == (first, first)
    third = world.push(ALEX.replace("alex", "kim"))
    world.settle()
    assert {r.commit: r for r in world.catalog.revisions("housing")}[third].trained == third


def test_a_service_without_steps_was_trained_at_its_own_commit(world: World) -> None:
    tip = world.push(toml=MODEL.replace('steps = { train = "steps:train" }\n', ""))
    world.settle()
    assert world.catalog.revision("housing", tip).trained == tip


def test_artifacts_that_nobody_built_a_revision_of_are_its_own(world: World) -> None:
    """A run left the results, no revision was kept: then there is no older commit to name."""
    tip = world.push()
    world.controller.watch()
    world.try_out("housing", tip, Wanted(gates=False))
    world.settle()
    assert world.catalog.run("housing", tip)[0].state == "reused"
    assert world.catalog.revision("housing", tip).trained == tip


def test_the_author_of_an_unknown_commit_is_nobody(world: World) -> None:
    world.git.log = lambda *args, **limit: ()  # type: ignore[method-assign]
    tip = world.push()
    world.settle()
    assert world.catalog.revision("housing", tip).author == ""


def test_an_incumbent_that_the_catalog_lost_is_compared_with_nobody(world: World) -> None:
    first = world.released()
    world.catalog._revisions.pop(("housing", first))
    service = world.service()
    world.push(SAM)
    world.controller.watch()
    assert world.controller.workshop._incumbent(service, world.on(SAM)) is None


def test_same_try_is_branch_commit_and_phase(world: World) -> None:
    world.released()
    before = world.on(ALEX)
    assert same_try(world.service(), before)
    world.push(ALEX)
    world.controller.watch()
    assert not same_try(world.service(), before)
    with pytest.raises(IllegalMove, match="Built cannot happen"):
        world.controller.recorder.record("housing", law.Built(ALEX), only_if=lambda now: same_try(now, before))
