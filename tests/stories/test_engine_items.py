"""This file tests steps that run for each item of a list or only if something is true, and builds that go on (3.23)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from branchline.core.revision import StepRun
from branchline.engine.building import build
from branchline.engine.preparing import prepare, spec_at
from branchline.errors import StepFailed
from branchline.sdk import values
from tests.builds import built, notes, rendered_as, states
from tests.world import ALEX, World

FAN = """\
kind = "app"
serve = { command = ["x"] }
gates = { a = "gates:unit" }
parameters = { regions = ["north", "south/east"], deep = DEEP }
[steps]
fit = { call = "steps:fit", for_each = { region = "regions" } }
all = "steps:all"
extra = { call = "steps:extra", when = "deep" }
last = "steps:last"
"""
FANNED = "def fit(region): ...\ndef all(fit): ...\ndef extra(): ...\ndef last(extra): ...\n"


def fanned(world: World, toml: str = FAN, **files: str) -> tuple[StepRun, ...]:
    toml = toml.replace("DEEP", "true")
    return built(world, world.push(ALEX, toml, files={"steps.py": FANNED, **files}))


def test_a_step_runs_for_each_item_and_who_needs_it_gets_the_list_3_23(world: World) -> None:
    world.runner.calls["steps:fit"] = lambda order: order["parameters"]["region"]
    runs = fanned(world)
    assert states(runs) == {"fit": "ran", "all": "ran", "extra": "ran", "last": "ran"}
    assert {note[1] for note in notes(world)} >= {"fit[north]", "fit[#1]", "fit", "all"}
    (order,) = (each for each in world.workers.orders if each["step"] == "all")
    assert values.load(Path(order["inputs"]["fit"])) == ['"north"', '"south/east"']
    kept = {(run.step, run.item): run.state for run in world.catalog.run("housing", world.git.tip(ALEX))}
    assert kept[("fit", "north")] == kept[("fit", "#1")] == "ran"


def test_one_new_item_is_one_run_and_the_same_items_are_not_joined_again(world: World) -> None:
    world.runner.calls["steps:fit"] = lambda order: order["parameters"]["region"]
    fanned(world)
    done = len(world.workers.orders)
    assert set(states(fanned(world)).values()) == {"reused"}
    assert len(world.workers.orders) == done
    assert states(fanned(world, FAN.replace('"north"', '"west"')))["fit"] == "ran"
    assert [order["step"] for order in world.workers.orders[done:]] == ["fit[west]", "all"]


def test_a_list_without_items_is_an_empty_result(world: World) -> None:
    runs = fanned(world, FAN.replace('["north", "south/east"]', "[]"))
    assert states(runs)["fit"] == "ran"
    (order,) = (each for each in world.workers.orders if each["step"] == "all")
    assert values.load(Path(order["inputs"]["fit"])) == []


def test_a_step_whose_condition_is_not_true_is_skipped_and_its_result_is_nothing(world: World) -> None:
    runs = built(world, world.push(ALEX, FAN.replace("DEEP", "false"), files={"steps.py": FANNED}))
    assert states(runs)["extra"] == "skipped"
    (order,) = (each for each in world.workers.orders if each["step"] == "last")
    assert values.load(Path(order["inputs"]["extra"])) is None


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ({"a": 1}, 'regions: it is no list but {"a": 1}'),
        (None, "regions: it left no JSON"),
    ],
)
def test_items_that_are_no_list_are_told(world: World, left: Any, told: str) -> None:
    toml = FAN.replace('regions = ["north", "south/east"], ', "") + 'regions = "steps:regions"\n'

    def regions(order: dict[str, Any]) -> Any:
        return left

    world.runner.calls["steps:regions"] = regions
    if left is None:
        toml = toml.replace('"steps:regions"', '{ command = ["make"], output = "out" }')
        world.runner.commands["make"] = lambda task: rendered_as(task, "out")
    with pytest.raises(StepFailed) as caught:
        fanned(world, toml, **{"steps.py": FANNED + "def regions(): ...\n"})
    assert (caught.value.fields["step"], caught.value.cause) == ("fit", told)


def test_keep_going_runs_all_that_does_not_need_what_failed(world: World) -> None:
    def fails(order: dict[str, Any]) -> None:
        raise KeyError("north")

    world.runner.calls["steps:fit"] = fails
    toml = FAN.replace("DEEP", "true")
    tip = world.push(ALEX, toml, files={"steps.py": FANNED})
    prepared = prepare(world.ports, spec_at(world.ports, "housing", tip), tip)
    with pytest.raises(StepFailed):
        build(world.ports, prepared, world.controller.progress, "topic", keep_going=True)
    kept = {(run.step, run.item): run.state for run in world.catalog.run("housing", tip)}
    assert kept == {("fit", "north"): "failed", ("fit", "#1"): "failed", ("extra", ""): "ran", ("last", ""): "ran"}
    notes = world.controller.progress.since(0, "topic")
    assert {note.name for note in notes if note.text == "not run: it needs what failed"} == {"all"}
