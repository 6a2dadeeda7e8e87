"""This file tests a run of a work tree: it is told to its end, deploys nothing and leaves nothing running.

Requirements: 1.30 (only branches deploy), 1.52; I22 (no orphan).
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.engine.reconciling import TRIAL
from branchline.engine.trying import needs_staging
from branchline.errors import Fenced
from branchline.ports import Finished, Instance, Stamp, Task
from tests.fakes.runner import printed
from tests.world import ALEX, APP, MODEL, World

ONLY_NUMBERS = MODEL.replace('{ unit = "gates:unit" }', '{ holdout = { value = "train.loss", max = 99 } }')


def tree(world: World, toml: str = "", **says: Any) -> str:
    return world.push("work-in-progress", toml, folder="housing", says=says)


def ended(world: World, commit: str, gates: bool = True) -> tuple[str, str, dict[str, Any]]:
    end = world.try_out("housing", commit, gates)[-1]
    return end.mark, end.text, dict(end.more)


def test_a_run_tries_steps_and_gates_and_leaves_nothing_I22(world: World) -> None:
    commit = tree(world)
    notes = world.try_out("housing", commit)
    assert {note.mark for note in notes} == {"ok"}
    assert [note.name for note in notes] == ["env", "train", "gate test-plan", "gate log", "gate unit", "end"]
    assert [group.perimeter for group in world.launcher.groups] == [TRIAL]
    assert world.launcher.running() == ()
    assert (world.events(), world.router.endpoints("housing")) == ([], ())


def test_a_run_is_reached_by_its_own_address(world: World) -> None:
    commit = tree(world)
    pins: list[str] = []
    said = world.runner.calls["gates:unit"]

    def look(order: dict[str, Any]) -> Any:
        pins.extend(pin for each in world.router.endpoints("housing") for pin in each.pins)
        assert order["staging"] == f"http://127.0.0.1:20000/housing@0.0.0-run.{commit[:7]}/"
        return said(order)

    world.runner.calls["gates:unit"] = look
    assert ended(world, commit)[0] == "ok"
    assert f"0.0.0-run.{commit[:7]}" in pins


def test_a_run_of_what_serves_is_reached_by_its_own_name_and_takes_nobody_elses(world: World) -> None:
    """Killer: the trial group of a commit that is in production would have no address, or production's."""
    first = world.released()
    pins: dict[str, tuple[str, ...]] = {}
    said = world.runner.calls["gates:unit"]

    def look(order: dict[str, Any]) -> Any:
        pins.update({each.version: each.pins for each in world.router.endpoints("housing")})
        return said(order)

    world.runner.calls["gates:unit"] = look
    assert ended(world, first)[0] == "ok"
    assert pins[f"0.0.0-run.{first[:7]}"] == (f"0.0.0-run.{first[:7]}",)
    assert first in pins["1.0.0"]


def test_what_came_out_is_reused_by_the_build(world: World) -> None:
    commit = tree(world)
    world.try_out("housing", commit, gates=False)
    assert world.launcher.groups == []
    world.git.reset(ALEX, commit)
    world.settle()
    assert world.catalog.run("housing", commit)[0].state == "reused"


def test_a_gate_that_fails_is_the_end_and_no_error(world: World) -> None:
    mark, text, more = ended(world, tree(world, unit=False))
    assert (mark, text, more) == ("no", "unit", {"failed": ["unit"]})


def test_a_step_that_fails_is_an_error_with_its_hint(world: World) -> None:
    mark, text, more = ended(world, tree(world, train="raise no rows"))
    assert (mark, text, more["problem"]["code"]) == ("no", "Step train of housing failed", "BL403")
    assert more["problem"]["hint"] == "mend it, then: branchline run housing"  # nothing is kept


def test_an_environment_that_cannot_be_built_keeps_its_own_hint(world: World) -> None:
    world.environments.broken["housing"] = "no such package"
    _, _, more = ended(world, tree(world))
    assert (more["problem"]["code"], more["problem"]["hint"][:14]) == ("BL401", "uv pip compile")


def test_a_gate_that_fails_is_told_with_its_last_lines(world: World) -> None:
    world.runner.commands["check"] = lambda task: printed(task, "one\nE  assert 1 == 2", exit=1)
    toml = MODEL.replace('gates = { unit = "gates:unit" }', 'gates = { own = { command = ["check"] } }')
    notes = world.try_out("housing", world.push(toml=toml))
    (told,) = [note.text for note in notes if note.name == "gate own"]
    assert told.splitlines() == ["E  assert 1 == 2", "| one", "| E  assert 1 == 2"]


def test_a_surprise_ends_the_run_as_well(world: World) -> None:
    def broken(task: Task) -> Finished:
        raise RuntimeError("out of file descriptors")

    world.runner.commands["branchline.sdk.run"] = broken
    mark, text, more = ended(world, tree(world))
    assert (mark, text, more["problem"]["code"]) == ("no", "RuntimeError: out of file descriptors", "BL000")


@pytest.mark.parametrize("what", ["dies", "hangs"])
def test_a_server_that_never_gets_ready_is_told_with_its_log_and_cleared_away(world: World, what: str) -> None:
    commit = tree(world)
    world.launcher.behave[commit] = what
    _, text, more = ended(world, commit)
    assert text == f"housing@{commit[:7]} did not become ready"
    assert more["problem"]["log"] == f"housing@0.0.0-run.{commit[:7]} starts"
    assert world.launcher.running() == ()


def test_a_group_that_vanishes_is_no_server_either(world: World) -> None:
    commit = tree(world)
    launch = world.launcher.launch

    def lost(*args: Any) -> Instance:
        instance = launch(*args)
        del world.launcher.known[instance.nonce]
        return instance

    world.launcher.launch = lost  # type: ignore[method-assign,assignment]
    assert ended(world, commit)[1] == f"housing@{commit[:7]} did not become ready"


def test_comparisons_alone_need_no_server(world: World) -> None:
    commit = tree(world, ONLY_NUMBERS)
    assert ended(world, commit)[0] == "ok"
    assert world.launcher.groups == []
    spec = world.ports.read_spec(world.git.read(commit, "housing/branchline.toml") or b"", "housing/branchline.toml")
    assert not needs_staging(spec)


def test_a_run_is_compared_with_the_incumbent(world: World) -> None:
    first = world.released(toml=ONLY_NUMBERS)
    notes = world.try_out("housing", tree(world))
    assert "(incumbent " in next(note.text for note in notes if note.name == "gate holdout")
    world.catalog._revisions.pop(("housing", first))
    notes = world.try_out("housing", tree(world))
    assert "(incumbent " not in next(note.text for note in notes if note.name == "gate holdout")


def test_an_app_needs_no_experiment_log(world: World) -> None:
    notes = world.try_out("housing", tree(world, APP))
    assert [note.name for note in notes if note.name.startswith("gate")] == ["gate unit"]


def test_a_run_whose_daemon_went_is_ended_by_the_next_I22(world: World) -> None:
    """Killer: nobody else stops a group that nothing recorded wants."""
    world.released()
    group = world.launcher.groups[-1]
    trial = type(group)(**{name: getattr(group, name) for name in group.__slots__} | {"perimeter": TRIAL})
    world.launcher.launch(trial, Stamp(99, 99))
    assert len(world.launcher.running()) == 2
    world.restart()
    world.settle()
    assert [i.perimeter for i in world.launcher.running()] == ["production"]


def test_a_record_meanwhile_keeps_no_run_alive(world: World) -> None:
    commit = tree(world)
    stop, fenced = world.launcher.stop, [Fenced()]

    def late(nonce: str, stamp: Stamp) -> None:
        if fenced:
            raise fenced.pop()
        stop(nonce, stamp)

    world.launcher.stop = late  # type: ignore[method-assign]
    assert ended(world, commit)[0] == "ok"
    assert world.launcher.running() == ()
