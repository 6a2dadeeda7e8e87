"""This file builds services of a world of fakes, for stories about builds: a DAG of four steps, and what came of it."""

from __future__ import annotations

import json
from typing import Any

from branchline.core.revision import StepRun
from branchline.engine.building import build
from branchline.engine.preparing import prepare, spec_at
from branchline.ports import Finished, Task
from tests.fakes.runner import printed
from tests.world import ALEX, MODEL, World

DAG = """\
clean = "steps:clean"
train = "steps:train"
report = { command = ["render"], inputs = ["train", "rate", "sales"], output = "report.html", seconds = 9 }
card = "steps:card"
"""
TOML = (
    MODEL.replace('steps = { train = "steps:train" }\n', 'data = { sales = "data/*.csv" }\nparameters = { rate = 3 }\n')
    + f"\n[steps]\n{DAG}"
)
STEPS = "def clean(sales): ...\ndef train(clean, rate): ...\ndef card(report): ...\n"


def with_dag(world: World) -> World:
    """A world whose service has four steps: two functions, a command, a function that reads the command's output."""
    world.sources.here["data/*.csv"] = {"one.csv": b"a\n1\n"}
    for call in ("steps:clean", "steps:train", "steps:card"):
        world.runner.calls[call] = lambda order: {"from": sorted({**order["inputs"], **order["data"]})}
    world.runner.commands["render"] = rendered
    return world


def rendered(task: Task) -> Finished:
    (task.cwd / "report.html").write_text(task.env["BRANCHLINE_RATE"])
    return printed(task, "rendered")


def commit(world: World, branch: str = ALEX, steps: str = STEPS, toml: str = TOML, **files: str) -> str:
    version = world.sources.pin("sales", "data/*.csv")
    lock = {"sales": {"digest": version.digest, "files": version.files, "rows": version.rows, "size": version.size}}
    return world.push(branch, toml, files={"data.lock": json.dumps(lock), "steps.py": steps, **files})


def built(world: World, tip: str) -> tuple[StepRun, ...]:
    prepared = prepare(world.ports, spec_at(world.ports, "housing", tip), tip)
    return build(world.ports, prepared, world.controller.progress, "topic")


def states(runs: tuple[StepRun, ...]) -> dict[str, str]:
    return {run.step: run.state for run in runs}


def notes(world: World) -> list[tuple[str, str, str]]:
    return [(note.mark, note.name, note.text) for note in world.controller.progress.since(0, "topic")]


def value(world: World, artifact: str) -> Any:
    (content,) = world.artifacts.content(artifact)
    return content


def rendered_as(task: Task, name: str) -> Finished:
    (task.cwd / name).write_text("made")
    return Finished(0, 0.01)
