"""This file tests a build: steps in order, each once, reused for what is identical and kept although a later one fails.

Requirements: 1.17 (steps as a DAG), 3.03 (keys), 3.17; F15 (time), F20 (no output), F14 (killed), I14.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchline.core.revision import StepRun
from branchline.engine.building import build, modules, read_lines
from branchline.engine.preparing import prepare, spec_at
from branchline.errors import BadDag, StepFailed, StepTimedOut
from branchline.ports import Finished, Task
from tests.fakes.runner import printed
from tests.world import ALEX, MODEL, SAM, World

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


@pytest.fixture
def dag(world: World) -> World:
    """A world whose service has four steps: two functions, a command, a function that reads the command's output."""
    world.sources.here["data/*.csv"] = {"one.csv": b"a\n1\n"}
    for call in ("steps:clean", "steps:train", "steps:card"):
        world.runner.calls[call] = lambda order: {"from": sorted({**order["inputs"], **order["data"]})}
    world.runner.commands["render"] = rendered
    return world


def rendered(task: Task) -> Finished:
    (task.cwd / "report.html").write_text(task.env["BRANCHLINE_RATE"])
    return printed(task, "rendered")


def commit(world: World, branch: str = ALEX, steps: str = STEPS, **files: str) -> str:
    version = world.sources.pin("sales", "data/*.csv")
    lock = {"sales": {"digest": version.digest, "files": version.files, "rows": version.rows, "size": version.size}}
    return world.push(branch, TOML, files={"data.lock": json.dumps(lock), "steps.py": steps, **files})


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


def test_steps_run_in_order_and_are_given_what_they_name_1_17(dag: World) -> None:
    tip = commit(dag)
    runs = built(dag, tip)
    assert states(runs) == {"clean": "ran", "train": "ran", "report": "ran", "card": "ran"}
    orders = [json.loads(line) for task in dag.runner.tasks for line in task.stdin.splitlines()]
    assert [order["step"] for order in orders] == ["clean", "train", "card"]
    assert (orders[0]["data"].keys(), orders[0]["inputs"]) == ({"sales"}, {})
    assert (orders[1]["inputs"].keys(), orders[1]["parameters"]) == ({"clean"}, {"rate": "3"})
    assert orders[2]["inputs"].keys() == {"report"}
    command = next(task for task in dag.runner.tasks if task.argv == ("render",))
    assert {name for name in command.env if name.startswith("BRANCHLINE_")} == {
        "BRANCHLINE_TRAIN", "BRANCHLINE_RATE", "BRANCHLINE_SALES",
    }  # fmt: skip
    assert (command.env["BRANCHLINE_RATE"], command.seconds) == ("3", 9)
    assert not command.cwd.exists()  # its copy of the folder is gone
    artifacts = {run.step: run.artifact for run in runs}
    assert value(dag, artifacts["report"]) == b"3"
    assert notes(dag)[0] == ("ok", "env", notes(dag)[0][2])
    assert "1 package" in notes(dag)[0][2]


def test_what_is_unchanged_is_reused_and_marked_so_I14_3_03(dag: World) -> None:
    built(dag, commit(dag))
    other = dag.git.write(SAM, {"README.md": "only words\n"}, start=dag.git.tip(ALEX))
    tasks = len(dag.runner.tasks)
    runs = built(dag, other)
    assert set(states(runs).values()) == {"reused"}
    assert len(dag.runner.tasks) == tasks
    assert notes(dag)[-5:] == [
        ("=", "env", notes(dag)[0][2]), *[("=", step, "unchanged") for step in ("clean", "train", "report", "card")],
    ]  # fmt: skip


def test_a_lost_artifact_is_made_again(dag: World) -> None:
    tip = commit(dag)
    runs = built(dag, tip)
    del dag.artifacts.kept[runs[1].artifact]
    assert states(built(dag, tip)) == {"clean": "reused", "train": "ran", "report": "reused", "card": "reused"}


def test_a_changed_folder_runs_everything_again_I14(dag: World) -> None:
    built(dag, commit(dag))
    assert set(states(built(dag, commit(dag))).values()) == {"ran"}


def test_why_a_step_ran_is_what_changed_since_the_last_release(dag: World) -> None:
    """3.03: of the very same folder only what is not in it can have changed."""
    first = commit(dag)
    dag.settle()
    assert dag.catalog.finish("housing", first).version == "1.0.0"
    notes = dag.git.write(SAM, {"notes.md": "only words\n"}, start=first)
    dag.artifacts.kept.clear()
    assert [run.why for run in built(dag, notes)] == [
        "its result is in the store no more", "changed since 1.0.0: the result of clean",
        "changed since 1.0.0: the result of train", "changed since 1.0.0: the result of report",
    ]  # fmt: skip
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", notes), notes)
    newer = replace(
        prepared, sdk="new", data_digests={"sales": "new"}, environment=replace(prepared.environment, digest="new")
    )
    runs = build(dag.ports, newer, dag.controller.progress, "topic")
    assert runs[0].why == "changed since 1.0.0: its environment, Branchline's sdk, data sales"
    many = commit(dag, SAM, **{f"page{number}.md": "new" for number in range(4)})
    assert (
        built(dag, many)[0].why
        == "changed since 1.0.0: housing/page0.md, housing/page1.md, housing/page2.md, 2 more files"
    )


def test_what_was_finished_is_kept_although_a_later_step_failed(dag: World) -> None:
    def fails(order: dict[str, Any]) -> None:
        Path(order["log"]).write_text("line 1\nline 2\n")
        raise KeyError("price")

    fine, dag.runner.calls["steps:train"] = dag.runner.calls["steps:train"], fails
    tip = commit(dag)
    with pytest.raises(StepFailed) as caught:
        built(dag, tip)
    assert (caught.value.fields["step"], caught.value.cause) == ("train", "KeyError: 'price'")
    assert caught.value.log == "line 1\nline 2"
    assert states(dag.catalog.run("housing", tip)) == {"clean": "ran", "train": "failed"}
    dag.runner.calls["steps:train"] = fine
    assert states(built(dag, tip))["clean"] == "reused"


def test_a_step_that_takes_too_long_is_named_with_its_time_F15(dag: World) -> None:
    def hangs(order: dict[str, Any]) -> None:
        raise TimeoutError

    dag.runner.calls["steps:clean"] = hangs
    with pytest.raises(StepTimedOut) as caught:
        built(dag, commit(dag))
    assert caught.value.message == "Step clean of housing took longer than 3600.0 s and was stopped"


@pytest.mark.parametrize(
    ("finished", "error", "why"),
    [
        (Finished(0, 1.0), StepFailed, "it ended well but did not write report.html"),
        (Finished(2, 1.0), StepFailed, "exit 2"),
        (Finished(137, 1.0), StepFailed, "exit 137 (killed; out of memory?)"),
        (Finished(143, 9.0, timed_out=True), StepTimedOut, "stopped after 9 s"),
    ],
)
def test_a_command_that_did_not_do_its_work_F14_F15_F20(
    dag: World, finished: Finished, error: type[Exception], why: str
) -> None:
    dag.runner.commands["render"] = lambda task: finished
    tip = commit(dag)
    with pytest.raises(error) as caught:
        built(dag, tip)
    assert getattr(caught.value, "cause", "") == why
    assert dag.catalog.run("housing", tip)[-1].summary == why


def test_a_result_that_is_no_plain_file_fails_its_step_F21(dag: World) -> None:
    """Killer: let the store's refusal pass, and no step is said to have failed."""

    def linked(task: Task) -> Finished:
        (task.cwd / "report.html").symlink_to("/etc/passwd")
        return printed(task, "rendered")

    dag.runner.commands["render"] = linked
    tip = commit(dag)
    with pytest.raises(StepFailed) as caught:
        built(dag, tip)
    assert "report.html cannot be kept as an artifact: results are plain files and folders" in caught.value.cause
    assert (caught.value.code, caught.value.log) == ("BL403", "rendered")
    assert states(dag.catalog.run("housing", tip)) == {"clean": "ran", "train": "ran", "report": "failed"}


def test_what_a_key_left_first_is_what_is_used_F22(dag: World) -> None:
    """A step that answers otherwise each time has been asked once for what is the same."""
    dag.runner.calls["steps:clean"] = lambda order: {"random": len(dag.runner.tasks)}
    first = {run.step: run.artifact for run in built(dag, commit(dag))}
    dag.runner.calls["steps:clean"] = lambda order: {"random": -1}
    again = dag.git.write(SAM, {"README.md": "only words\n"}, start=dag.git.tip(ALEX))
    assert {run.step: run.artifact for run in built(dag, again)} == first


def test_a_worker_that_died_names_the_step_it_was_at(dag: World) -> None:
    work = dag.runner.commands["branchline.sdk.run"]

    def dies(task: Task) -> Finished:
        work(Task(task.argv, task.cwd, task.env, task.log, stdin=task.stdin.splitlines()[0] + "\n"))
        return Finished(139, 0.1, tail="segmentation fault")

    dag.runner.commands["branchline.sdk.run"] = dies
    with pytest.raises(StepFailed) as caught:
        built(dag, commit(dag))
    assert (caught.value.fields["step"], caught.value.cause) == ("train", "the worker ended with exit 139")
    assert caught.value.log == "segmentation fault"


def test_results_come_in_while_the_worker_works(dag: World) -> None:
    """A watcher sees each step as it ends, and the half line of the next is left alone."""
    work = dag.runner.commands["branchline.sdk.run"]
    seen: list[list[str]] = []

    def slowly(task: Task) -> Finished:
        answers = Path(task.argv[-1])
        finished = work(task)
        whole = answers.read_text()
        for end in (len(whole) // 3, len(whole)):
            answers.write_text(whole[:end])
            look[0]()
            seen.append([name for _, name, _ in notes(dag)])
        return finished

    look: list[Any] = []
    run = dag.runner.run

    def watched(task: Task, stopped: Any = lambda: False) -> Finished:
        look[:] = [stopped]
        return run(task, stopped)

    dag.runner.run = watched  # type: ignore[method-assign]
    dag.runner.commands["branchline.sdk.run"] = slowly
    built(dag, commit(dag))
    assert seen[:2] == [["env"], ["env", "clean", "train"]]


def test_a_build_that_is_stopped_ends_at_once(dag: World) -> None:
    dag.runner.commands["branchline.sdk.run"] = lambda task: Finished(143, 0.1)
    tip = commit(dag)
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", tip), tip)
    asked: list[bool] = []

    def stopped() -> bool:
        asked.append(True)
        return True

    with pytest.raises(StepFailed):
        build(dag.ports, prepared, dag.controller.progress, "topic", stopped)
    assert asked


def test_broken_code_is_told_and_never_imported_F5(dag: World) -> None:
    tip = commit(dag, steps="def clean(sales):\n    return (\n")
    with pytest.raises(BadDag) as caught:
        built(dag, tip)
    assert "step clean: steps is no Python: '(' was never closed in line 2" in caught.value.cause
    assert dag.runner.tasks == []


def test_only_functions_or_only_commands_are_steps_too(dag: World) -> None:
    dag.runner.commands["make"] = lambda task: rendered_as(task, "out")
    plain = MODEL.replace(
        'steps = { train = "steps:train" }', 'steps = { make = { command = ["make"], output = "out" } }'
    )
    tip = dag.push(SAM, plain)
    assert states(built(dag, tip)) == {"make": "ran"}


def rendered_as(task: Task, name: str) -> Finished:
    (task.cwd / name).write_text("made")
    return Finished(0, 0.01)


def test_modules_are_named_as_python_names_them(tmp_path: Path) -> None:
    for name in ("steps.py", "lib/__init__.py", "lib/clean.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert modules(tmp_path) == {"steps": "x = 1\n", "lib": "x = 1\n", "lib.clean": "x = 1\n"}


def test_lines_are_read_when_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    assert read_lines(path) == []
    path.write_text('{"a": 1}\n\n{"b"')
    assert read_lines(path) == [{"a": 1}]
