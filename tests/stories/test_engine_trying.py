"""This file tests a run of a work tree: it is told to its end, deploys nothing and leaves nothing running.

Requirements: 1.30 (only branches deploy), 1.52; I22 (no orphan).
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.engine.addressing import TRIAL
from branchline.engine.trying import ALL, Wanted, needs_staging
from branchline.errors import Fenced
from branchline.ports import Instance, Stamp
from tests.fakes.runner import printed
from tests.waiting import wait_until
from tests.world import ALEX, APP, MODEL, World

ONLY_NUMBERS = MODEL.replace('{ unit = "gates:unit" }', '{ holdout = { value = "train.loss", max = 99 } }')


def tree(world: World, toml: str = "", **says: Any) -> str:
    return world.push("work-in-progress", toml, folder="housing", says=says)


def ended(world: World, commit: str, wanted: Wanted = ALL) -> tuple[str, str, dict[str, Any]]:
    end = world.try_out("housing", commit, wanted)[-1]
    return end.mark, end.text, dict(end.more)


def test_a_run_tries_steps_and_gates_and_leaves_nothing_I22(world: World) -> None:
    commit = tree(world)
    notes = world.try_out("housing", commit)
    met = "BL308: `train` also reads `housing/says.json`: a change of that will run it again"
    assert [note.text for note in notes if note.mark != "ok"] == [met]
    names = [note.name for note in notes if note.mark == "ok"]
    assert names == ["env", "train", "gate test-plan", "gate log", "gate unit", "end"]
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
    world.try_out("housing", commit, Wanted(gates=False))
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
    def broken(order: object) -> list[list[str]]:
        raise RuntimeError("out of file descriptors")

    world.workers.met = broken
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


def lines(world: World, commit: str, wanted: Wanted) -> list[tuple[str, str, str]]:
    return [(note.mark, note.name, note.text) for note in world.try_out("housing", commit, wanted)]


FAN = """\
kind = "app"
serve = { command = ["x"] }
gates = { unit = "gates:unit" }
parameters = { regions = ["north", "south"], deep = false }
[steps]
train = { call = "steps:train", for_each = { region = "regions" } }
clean = "steps:clean"
deep_one = { call = "steps:extra", when = "deep" }
wrong = { call = "steps:train", for_each = { region = "deep" } }
"""


def test_a_dry_run_says_what_would_run_and_why_and_runs_nothing(world: World) -> None:
    toml = FAN.replace('wrong = { call = "steps:train", for_each = { region = "deep" } }\n', "")
    steps = "def train(region): ...\ndef clean(train): ...\ndef extra(): ...\n"
    commit = world.push("work-in-progress", toml, folder="housing", files={"steps.py": steps})
    dry = Wanted(dry_run=True)
    world.runner.calls["steps:train"] = lambda order: order["parameters"]["region"]
    never = "would run: nothing of it was built before"
    assert in_order(lines(world, commit, dry)) == [
        ("..", "train[north]", never),
        ("..", "train[south]", never),
        ("..", "clean", "depends on what train will leave"),
        ("=", "deep_one", "skipped: deep is not true"),
        ("ok", "end", ""),
    ]
    assert world.workers.orders == []
    world.runner.calls["steps:clean"] = lambda order: 1
    world.try_out("housing", commit)
    assert in_order(lines(world, commit, dry)) == [
        ("=", "train", "unchanged"),
        ("=", "clean", "unchanged"),
        ("=", "deep_one", "skipped: deep is not true"),
        ("ok", "end", ""),
    ]
    fewer = world.push("work-in-progress", toml.replace(', "south"', ""), folder="housing", files={"steps.py": steps})
    told = ("..", "train", "would join other results than before; none of them would run")
    assert in_order(lines(world, fewer, dry))[:2] == [told, ("..", "clean", "depends on what train will leave")]
    wrong = world.push("work-in-progress", FAN, folder="housing", files={"steps.py": steps})
    assert ("no", "wrong", "deep: it is no list but false") in lines(world, wrong, dry)


def in_order(told: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The lines in one order: what does not wait for another is told in any."""
    order = ("train[north]", "train[south]", "train", "clean", "deep_one", "end")
    return sorted(told, key=lambda line: order.index(line[1]))


def test_a_dry_run_tells_each_change_and_how_it_is_reached(world: World) -> None:
    steps = "def train():\n    return helped()\n\n\ndef helped():\n    return 1\n"
    world.push(ALEX, files={"steps.py": steps})
    world.settle()
    commit = tree_of(world, steps.replace("return 1", "return 2"))
    (mark, name, text), _ = lines(world, commit, Wanted(dry_run=True))
    assert (mark, name, text.splitlines()[0]) == (
        "..", "train", "would run: changed: steps:helped (housing/steps.py:5), via train > helped",
    )  # fmt: skip
    assert "steps.py:5" in text.splitlines()[1]


def tree_of(world: World, steps: str) -> str:
    return world.git.write("work-in-progress", {"housing/steps.py": steps}, start=world.git.tip("main"))


def test_a_run_that_verifies_says_which_step_left_something_else(world: World) -> None:
    commit = tree(world)
    assert ended(world, commit)[0] == "ok"
    assert ended(world, commit, Wanted(verify="*"))[0] == "ok"
    world.runner.calls["steps:train"] = lambda order: {"loss": -1}
    mark, text, more = ended(world, commit, Wanted(verify="train"))
    assert (mark, text, more) == ("no", "train", {"failed": ["train"]})
    mark, text, more = ended(world, commit, Wanted(verify="trian"))
    assert (mark, text, more["problem"]["detail"]) == ("no", "housing has no step 'trian'", "did you mean train?")


def test_a_run_that_is_stopped_ends_and_blames_nobody(world: World) -> None:
    """1.17: what was finished is reused by the next run."""
    trials, progress = world.controller.trials, world.controller.progress
    world.runner.endless.add("steps:train")
    topic = trials.begin("housing", tree(world))
    assert wait_until(lambda: bool(world.workers.orders))
    assert trials.stop(topic)
    assert wait_until(lambda: any(note.name == "end" for note in progress.since(0, topic)))
    end = progress.since(0, topic)[-1]
    assert (end.mark, end.text, dict(end.more)) == ("..", "stopped", {"stopped": True})
    assert wait_until(lambda: not trials.stop(topic))
