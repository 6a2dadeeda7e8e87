"""This file tests that a revision is run again and held against what it is made of, and laid out again (3.30, 1.09).

Requirement: beyond 3 (checkout as deployed, and prove it).
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest

from branchline.core.revision import Revision, StepRun
from branchline.core.spec import Spec
from branchline.engine.laying import lay_out
from branchline.engine.preparing import spec_at
from branchline.engine.trying import Wanted
from branchline.engine.verifying import verified
from tests.world import ALEX, MODEL, World

TWO = MODEL.replace('{ train = "steps:train" }', '{ clean = "steps:clean", train = "steps:train" }')
CLOSE = MODEL.replace('{ train = "steps:train" }', '{ train = { call = "steps:train", tolerance = 0.1 } }')


def released(world: World, toml: str = "") -> Revision:
    return world.catalog.revision("housing", world.released(toml=toml))


def again(world: World, revision: Revision, step: str = "*") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What a second run says of each step, and the end."""
    notes = world.try_out("housing", revision.commit, Wanted(gates=False, verify=step, of=revision))
    told = [note for note in notes if note.name == "verified"]
    return (list(told[0].more["steps"]) if told else []), dict(notes[-1].more)


def leaves(world: World, value: Any) -> None:
    world.runner.calls["steps:train"] = lambda order: value


def test_a_revision_that_leaves_the_same_again_is_equal(world: World) -> None:
    revision = released(world)
    orders = len(world.workers.orders)
    steps, end = again(world, revision)
    assert len(world.workers.orders) == orders + 1
    artifact = dict(revision.artifacts)["train"]
    assert steps == [
        {"step": "train", "item": "", "verdict": "equal", "artifact": artifact, "left": artifact, "text": ""}
    ]
    assert end == {"failed": []}


def test_one_that_leaves_something_else_is_different_and_what_was_released_stays(world: World) -> None:
    revision = released(world)
    leaves(world, {"loss": -1})
    steps, end = again(world, revision)
    assert (steps[0]["verdict"], steps[0]["artifact"]) == ("different", dict(revision.artifacts)["train"])
    assert "another result than before" in steps[0]["text"]
    assert end == {"failed": ["train"]}
    assert world.catalog.revision("housing", revision.commit) == revision


def test_numbers_within_the_tolerance_are_close(world: World) -> None:
    leaves(world, {"loss": 100.0})
    revision = released(world, CLOSE)
    leaves(world, {"loss": 101.0})
    steps, end = again(world, revision)
    assert (steps[0]["verdict"], end) == ("close", {"failed": []})
    leaves(world, {"loss": 150.0})
    assert again(world, revision)[0][0]["verdict"] == "different"


def test_one_step_is_run_again_alone(world: World) -> None:
    world.runner.calls["steps:clean"] = lambda order: 1
    revision = released(world, TWO)
    orders = len(world.workers.orders)
    steps, _ = again(world, revision, "train")
    assert [each["step"] for each in steps] == ["train"]
    assert len(world.workers.orders) == orders + 1


def test_a_step_that_is_no_step_of_it_is_told(world: World) -> None:
    steps, end = again(world, released(world), "trian")
    assert (steps, end["problem"]["detail"]) == ([], "did you mean train?")


def test_what_cannot_be_reused_is_compared_afterwards(world: World) -> None:
    """Killer: a step whose result is never reused was run, and held against nothing."""
    toml = MODEL.replace('{ train = "steps:train" }', '{ train = { call = "steps:train", reuse = "never" } }')
    leaves(world, {"loss": 1.0})
    revision = released(world, toml)
    steps, _ = again(world, revision)
    assert steps[0]["verdict"] == "equal"
    leaves(world, {"loss": 2.0})
    steps, end = again(world, revision)
    assert (steps[0]["verdict"], steps[0]["text"]) == ("different", "numbers differ by 0.5")
    assert steps[0]["left"] not in ("", steps[0]["artifact"])
    assert end == {"failed": ["train"]}


@pytest.mark.parametrize(
    ("value", "tolerance", "gone", "verdict", "text"),
    [
        ({"loss": 1.01}, 0.1, False, "close", "numbers differ by 0.0099 at most"),
        ({"loss": 1.01}, 0.0, False, "different", "numbers differ by 0.0099"),
        ({"mape": 1.0}, 0.1, False, "different", "another result than before"),
        ({"loss": 1.01}, 0.1, True, "different", "another result than before, which is in the store no more"),
    ],
)
def test_the_verdict_on_what_was_left_without_a_comparison(
    world: World, value: Any, tolerance: float, gone: bool, verdict: str, text: str
) -> None:
    leaves(world, {"loss": 1.0})
    revision = released(world)
    leaves(world, value)
    commit = world.push("other", folder="housing", says={"train": value})
    (run,) = [run for run in told(world, commit) if run.step == "train"]
    if gone:
        del world.artifacts.kept[dict(revision.artifacts)["train"]]
    spec = spec_at(world.ports, "housing", revision.commit)
    steps = (replace(spec.steps[0], tolerance=tolerance),)
    (found,) = verified(world.ports, revision, replace(spec, steps=steps), [run])
    assert (found["verdict"], found["text"], found["left"]) == (verdict, text, run.artifact)


def told(world: World, commit: str) -> tuple[StepRun, ...]:
    world.try_out("housing", commit, Wanted(gates=False))
    return world.catalog.run("housing", commit)


def test_an_item_is_judged_by_itself(world: World) -> None:
    revision = released(world)
    spec: Spec = spec_at(world.ports, "housing", revision.commit)
    run = StepRun("train", "differs", "k", "a" * 64, item="north", summary="another result than before")
    (found,) = verified(world.ports, revision, spec, [run])
    assert (found["item"], found["verdict"], found["artifact"], found["left"]) == ("north", "different", "a" * 64, "")


def test_a_revision_whose_data_or_environment_is_gone_says_so_beyond_3(world: World) -> None:
    world.sources.here["data/*.csv"] = {"a.csv": b"x\n1\n"}
    version = world.sources.pin("sales", "data/*.csv")
    pinned = version.digest
    lock = world.ports.relock(None, "housing/data.lock", [version]).decode()
    commit = world.push(ALEX, MODEL + 'data = { sales = "data/*.csv" }\n', files={"data.lock": lock})
    world.settle()

    revision = world.catalog.revision("housing", commit)
    shutil.rmtree(world.ports.state / "data" / pinned)
    found = lay_out(world.ports, revision)
    assert found["data"]["sales"].endswith(pinned)
    assert lay_out(world.ports, revision) == found
    shutil.rmtree(world.ports.state / "data" / pinned)
    del world.sources.kept[pinned]
    found = lay_out(world.ports, revision)
    assert (found["data"], list(found["missing"])) == ({"sales": ""}, ["data sales"])
    assert found["missing"]["data sales"].startswith("BL322: ")
    assert again(world, revision)[1]["problem"]["code"] == "BL322"
    world.environments.broken["housing"] = "no such package"
    found = lay_out(world.ports, revision)
    assert (found["python"], found["missing"]["environment"][-15:]) == ("", "no such package")


def test_a_revision_is_laid_out_where_it_is_gone_beyond_3(world: World) -> None:
    revision = released(world)
    artifact = dict(revision.artifacts)["train"]
    shutil.rmtree(world.ports.state / "laid" / artifact)
    found = lay_out(world.ports, revision)
    assert found["missing"] == {}
    assert found["artifacts"] == {"train": str(world.ports.state / "laid" / artifact)}
    assert (world.ports.state / "laid" / artifact / "value.json").is_file()
    assert found["python"].endswith("bin/python")
    other = lay_out(world.ports, replace(revision, environment="0" * 64))
    assert "another one" in other["missing"]["environment"]
    assert other["python"] == found["python"]
