"""This file tests a build: steps in order, each once, reused for what is identical and kept although a later one fails.

Requirements: 1.17 (steps as a DAG), 3.03 (keys), 3.17; F15 (time), F20 (no output), F14 (killed), I14.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchline.core.reuse import key
from branchline.core.spec import Spec, Step
from branchline.core.tracking import Query
from branchline.engine.building import build, modules
from branchline.engine.fingerprinting import code_lines, given_lines, project_of, summarised
from branchline.engine.preparing import Prepared, prepare, spec_at
from branchline.errors import BadDag, DoesNotFit, StepFailed, StepTimedOut
from branchline.ports import Environment, Finished, Task
from tests.builds import STEPS, TOML, built, commit, notes, rendered, rendered_as, states, value, with_dag
from tests.fakes.runner import printed
from tests.world import ALEX, MODEL, SAM, World


@pytest.fixture
def dag(world: World) -> World:
    """A world whose service has four steps."""
    return with_dag(world)


def test_steps_run_in_order_and_are_given_what_they_name_1_17(dag: World) -> None:
    tip = commit(dag)
    runs = built(dag, tip)
    assert states(runs) == {"clean": "ran", "train": "ran", "report": "ran", "card": "ran"}
    orders = dag.workers.orders
    assert [order["step"] for order in orders] == ["clean", "train", "card"]
    assert (orders[0]["data"].keys(), orders[0]["inputs"]) == ({"sales"}, {})
    assert (orders[1]["inputs"].keys(), orders[1]["parameters"]) == ({"clean"}, {"rate": "3"})
    assert orders[2]["inputs"].keys() == {"report"}
    command = next(task for task in dag.runner.tasks if task.argv == ("render",))
    assert {name for name in command.env if name.startswith("BRANCHLINE_")} == {
        "BRANCHLINE_TRAIN", "BRANCHLINE_RATE", "BRANCHLINE_SALES", "BRANCHLINE_METRICS",
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
    done = len(dag.runner.tasks), len(dag.workers.orders)
    runs = built(dag, other)
    assert set(states(runs).values()) == {"reused"}
    assert all(run.at for run in runs)  # so that its run has a time
    assert (len(dag.runner.tasks), len(dag.workers.orders)) == done
    assert notes(dag)[-5:] == [
        ("=", "env", notes(dag)[0][2]), *[("=", step, "unchanged") for step in ("clean", "train", "report", "card")],
    ]  # fmt: skip


def test_a_lost_artifact_is_made_again(dag: World) -> None:
    tip = commit(dag)
    runs = built(dag, tip)
    del dag.artifacts.kept[runs[1].artifact]
    assert states(built(dag, tip)) == {"clean": "reused", "train": "ran", "report": "reused", "card": "reused"}


def test_only_what_a_change_reaches_runs_again_I14_3_03(dag: World) -> None:
    """A comment rebuilds nothing, a function its step, a command all of its folder; the same result rebuilds nobody."""
    first = STEPS.replace("def train(clean, rate): ...", "def train(clean, rate): return helped()\ndef helped(): ...\n")
    built(dag, commit(dag, steps=first))
    one, others = "ran", {"clean": "reused", "card": "reused"}
    assert states(built(dag, commit(dag, steps=first + "# said\n"))) == others | {"train": "reused", "report": one}
    changed = first.replace("def helped(): ...", "def helped(): return 2")
    assert states(built(dag, commit(dag, steps=changed))) == others | {"train": one, "report": one}


PARTS: dict[str, Callable[[Prepared, Step], tuple[Prepared, Step, dict[str, str]]]] = {
    "an input": lambda ready, step: (ready, step, {"clean": "other"}),
    "data": lambda ready, step: (replace(ready, data_digests={"sales": "other"}), step, {}),
    "a parameter": lambda ready, step: (
        replace(ready, spec=replace(ready.spec, parameters=(("rate", "4"),))),
        step,
        {},
    ),
    "a variable": lambda ready, step: (ready, replace(step, env=(("BATCH", "9"),)), {}),
    "the environment": lambda ready, step: (replace(ready, environments={"": other_environment(ready)}), step, {}),
    "its own text": lambda ready, step: (ready, replace(step, save="json"), {}),
    "the sdk": lambda ready, step: (replace(ready, sdk="other"), step, {}),
}


def with_rate(ready: Prepared, rate: str) -> Spec:
    return replace(ready.spec, parameters=(("rate", rate),))


def other_environment(ready: Prepared) -> Environment:
    return replace(ready.environment, digest="other")


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_key_counts_I14(dag: World, part: str) -> None:
    """Killer: leave out any line."""
    tip = commit(dag)
    ready = prepare(dag.ports, spec_at(dag.ports, "housing", tip), tip)
    step = replace(ready.spec.steps[0], env=(("BATCH", "8"),))
    project, needs = project_of(dag.ports, ready), ("clean", "sales", "rate")

    def named(ready: Prepared, step: Step, results: Mapping[str, str]) -> str:
        return key(
            (*code_lines(project, ready, step)[0], *given_lines(ready, step, needs, {"clean": "art", **results}))
        )

    assert named(ready, step, {}) == named(ready, step, {})
    assert named(*PARTS[part](ready, step)) != named(ready, step, {})


def test_a_fact_that_changed_means_that_it_runs_P11(dag: World) -> None:
    """Killer: reuse what has the same key without looking at its facts, and the query of before is answered."""
    dag.workers.facts["steps:clean"] = [
        ["file", "housing/q.sql"],
        ["stat", "housing/none"],
        ["variable", "BATCH", "s.py:1"],
    ]
    built(dag, commit(dag, **{"q.sql": "select 1"}))
    assert states(built(dag, commit(dag, **{"q.sql": "select 1", "other.sql": "x"})))["clean"] == "reused"
    runs = built(dag, commit(dag, **{"q.sql": "select 2"}))
    assert states(runs)["clean"] == "ran"
    (kept,) = (run for run in dag.catalog.run("housing", dag.git.tip(ALEX)) if run.step == "clean")
    assert [(fact.kind, fact.name) for fact in kept.facts] == [("file", "housing/q.sql"), ("stat", "housing/none")]
    assert [notice.code for notice in kept.notices] == ["BL306"]
    told = "BL306: clean reads the variable BATCH (s.py:1), which is not declared: it never has a value"
    assert ("..", "clean", told) in notes(dag)


@pytest.mark.parametrize(
    "met", [["network", "db:5432"], ["child", "cat"], ["outside", "/data/x"], ["blind", "recorder"]]
)
def test_what_cannot_be_looked_at_again_runs_every_time_BL301_BL302_BL307(dag: World, met: list[str]) -> None:
    dag.workers.facts["steps:clean"] = [met]
    tip = commit(dag)
    built(dag, tip)
    assert states(built(dag, tip)) == {"clean": "ran", "train": "reused", "report": "reused", "card": "reused"}


def test_files_that_a_step_says_it_reads_are_in_its_key_and_no_others_of_a_command(dag: World) -> None:
    """Killers: leave them out of a function's key; put all files into a command's although it says which."""
    toml = TOML.replace('clean = "steps:clean"', 'clean = { call = "steps:clean", reads = ["sql/*.sql"] }')
    toml = toml.replace('output = "report.html"', 'output = "report.html", reads = ["words.txt"]')
    dag.workers.facts["steps:clean"] = [["child", "psql"]]  # what it starts is answered for by what it says

    def ran(**files: str) -> set[str]:
        states_of = states(built(dag, commit(dag, toml=toml, **{"sql/q.sql": "1", "words.txt": "a", **files})))
        return {step for step, state in states_of.items() if state == "ran"}

    assert ran() == {"clean", "train", "report", "card"}
    assert ran(**{"other.sql": "x", "notes.md": "y"}) == set()
    assert ran(**{"sql/q.sql": "2"}) == {"clean"}
    assert ran(**{"words.txt": "b"}) == {"report"}  # what the first file left is there still


def test_a_reason_makes_it_reusable_and_never_is_never(dag: World) -> None:
    dag.workers.facts["steps:clean"] = [["network", "db:5432"]]
    always = TOML.replace(
        'clean = "steps:clean"', 'clean = { call = "steps:clean", reuse = "always", because = "pure" }'
    )
    tip = commit(dag, toml=always)
    built(dag, tip)
    assert states(built(dag, tip))["clean"] == "reused"
    tip = commit(dag, toml=TOML.replace('clean = "steps:clean"', 'clean = { call = "steps:clean", reuse = "never" }'))
    built(dag, tip)
    assert states(built(dag, tip))["clean"] == "ran"
    assert dag.catalog.run("housing", tip)[0].why == 'its service file says: reuse = "never"'


def test_why_a_step_runs_that_failed_before_is_that_it_failed(dag: World) -> None:
    """Killer: say that its result is in the store no more: there never was one."""

    def fails(_: object) -> object:
        raise ValueError("no rows")

    dag.runner.calls["steps:clean"] = fails
    tip = commit(dag)
    for _ in range(2):
        with pytest.raises(StepFailed):
            built(dag, tip)
    assert dag.catalog.run("housing", tip)[0].why == "it failed the last time"


def test_why_a_later_step_ran_is_told_against_the_run_before_this_one(dag: World) -> None:
    """Killer: ask which run is the newest when a later step begins, and it is this one."""
    built(dag, commit(dag))
    dag.runner.calls["steps:clean"] = lambda _: "other"
    clean, train, *_ = built(
        dag, commit(dag, steps=STEPS.replace("def clean(sales): ...", "def clean(sales): return 2"))
    )
    assert clean.why.startswith("changed: steps:clean")
    assert train.why == "changed: input clean"


def test_why_a_step_ran_is_what_changed_since_the_last_release(dag: World) -> None:
    """3.03: of the very same folder only what is not in it can have changed."""
    first = commit(dag)
    dag.settle()
    assert dag.catalog.finish("housing", first).version == "1.0.0"
    notes = dag.git.write(SAM, {"notes.md": "only words\n"}, start=first)
    dag.artifacts.kept.clear()
    assert {run.why for run in built(dag, notes)} == {"its result is in the store no more"}
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", notes), notes)
    newer = replace(
        prepared,
        data_digests={"sales": "new"},
        environments={"": replace(prepared.environment, digest="new")},
    )
    assert build(dag.ports, newer, dag.controller.progress, "topic")[0].why == "changed: data sales and 1 more"


def test_why_a_step_runs_every_time_is_what_cannot_be_looked_at(dag: World) -> None:
    dag.workers.facts["steps:clean"] = [["network", "db:5432"]]
    first = commit(dag)
    dag.settle()
    dag.catalog.finish("housing", first)
    again = dag.git.write(SAM, {"notes.md": "only words\n"}, start=first)
    assert built(dag, again)[0].why.startswith("BL302: clean connects to db:5432")


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
        (Finished(137, 1.0, starved=True), StepFailed, "out of memory: more than 0 MB"),
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
    def dies(order: dict[str, Any]) -> None:
        raise ConnectionError

    dag.runner.calls["steps:train"] = dies
    with pytest.raises(StepFailed) as caught:
        built(dag, commit(dag))
    assert (caught.value.fields["step"], caught.value.cause) == ("train", "its worker ended: it was killed")


def test_a_build_that_is_stopped_ends_at_once_and_blames_nobody(dag: World) -> None:
    dag.runner.endless.add("steps:train")
    tip = commit(dag)
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", tip), tip)
    with pytest.raises(StepFailed):
        build(dag.ports, prepared, dag.controller.progress, "topic", lambda: dag.runner.ended != [] or began(dag))
    assert states(dag.catalog.run("housing", tip)) == {"clean": "ran", "train": "stopped"}
    (stopped,) = dag.catalog.runs(Query("housing", limit=1))
    assert stopped.state == "stopped"
    (train,) = [run for run in dag.catalog.numbered(stopped.number).steps if run.step == "train"]
    assert (train.summary, bool(train.lines)) == ("stopped", True)  # killer: given nothing, to `compare`
    dag.runner.endless.clear()
    assert [(run.step, run.state, run.why) for run in built(dag, tip) if run.step == "train"] == [
        ("train", "ran", "it was stopped the last time"),
    ]


def began(world: World) -> bool:
    return any(order["call"] == "steps:train" for order in world.workers.orders)


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


def test_modules_are_named_as_python_names_them(tmp_path: Path) -> None:
    for name in ("steps.py", "lib/__init__.py", "lib/clean.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert modules(tmp_path) == {"steps": "x = 1\n", "lib": "x = 1\n", "lib.clean": "x = 1\n"}


def test_what_fails_for_a_moment_is_tried_again_and_what_fails_for_good_is_not(dag: World) -> None:
    """`retries` are for failures that may pass (75 of sysexits.h)."""
    tries: list[int] = []

    def flaky(task: Task) -> Finished:
        tries.append(1)
        return Finished(75, 0.1) if len(tries) < 3 else rendered(task)

    dag.runner.commands["render"] = flaky
    toml = TOML.replace('"report.html", seconds = 9', '"report.html", seconds = 9, retries = 2')
    assert states(built(dag, commit(dag, toml=toml)))["report"] == "ran"
    assert len(tries) == 3
    dag.runner.commands["render"] = lambda task: Finished(1, float(not tries.append(1)))  # type: ignore[func-returns-value]
    with pytest.raises(StepFailed):
        built(dag, commit(dag, toml=toml, **{"new.txt": "x"}))
    assert len(tries) == 4


@pytest.mark.parametrize(
    ("fresh", "tolerance", "state", "told"),
    [
        ({"loss": 1.0, "n": [1, 2]}, 0, "same", "the same again"),
        ({"loss": 1.0005, "n": [1, 2]}, 0.001, "close", "numbers differ by 0.0005 at most"),
        ({"loss": 1.5, "n": [1, 2]}, 0.001, "differs", "another result than before: numbers differ by 0.33"),
        ({"loss": 1.0, "n": [1, 2, 3]}, 0.001, "differs", "another result than before"),
        ({"loss": True, "n": [1, 2]}, 0.001, "differs", "another result than before"),
    ],
)
def test_a_reused_step_is_run_again_and_compared_and_the_first_stays_F22(
    dag: World, fresh: Any, tolerance: float, state: str, told: str
) -> None:
    toml = TOML.replace('clean = "steps:clean"', f'clean = {{ call = "steps:clean", tolerance = {tolerance} }}')
    dag.runner.calls["steps:clean"] = lambda order: {"loss": 1.0, "n": [1, 2]}
    tip = commit(dag, toml=toml)
    first = built(dag, tip)[0]
    dag.runner.calls["steps:clean"] = lambda order: fresh
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", tip), tip)
    runs = build(dag.ports, prepared, dag.controller.progress, "topic", again={"clean"})
    assert states(runs) == {"clean": state, "train": "reused", "report": "reused", "card": "reused"}
    assert (runs[0].artifact, runs[0].summary) == (first.artifact, told)
    assert states(built(dag, tip))["clean"] == "reused"


def test_what_is_no_json_is_compared_by_its_content(dag: World) -> None:
    tip = commit(dag)
    built(dag, tip)
    dag.runner.commands["render"] = lambda task: rendered_as(task, "report.html")
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", tip), tip)
    assert states(build(dag.ports, prepared, dag.controller.progress, "topic", again={"report"}))["report"] == "differs"


def test_what_the_machine_cannot_give_is_refused_before_anything_runs(dag: World) -> None:
    toml = TOML.replace('card = "steps:card"', 'card = { call = "steps:card", cores = 1000 }')
    with pytest.raises(DoesNotFit):
        built(dag, commit(dag, toml=toml))
    assert dag.workers.orders == []


def test_what_a_step_told_of_itself_is_kept_2_11(dag: World) -> None:
    def told(order: dict[str, Any]) -> int:
        Path(order["metrics"]).write_text('["loss", 0.5, null]\n')
        Path(order["log"]).write_text("epoch 1\n")
        return 1

    dag.runner.calls["steps:clean"] = told
    tip = commit(dag)
    built(dag, tip)
    (run,) = (each for each in dag.catalog.run("housing", tip) if each.step == "clean")
    assert (run.metrics[0].name, run.metrics[0].value, value(dag, run.log)) == ("loss", 0.5, b"epoch 1\n")
    assert (run.exit, run.cpu, run.peak) == ("ended", 0.01, 1 << 20)
    assert {line.name for line in run.lines} >= {"data sales", "environment", "sdk", "step", "code steps:clean"}


def test_what_is_remembered_of_files_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "steps.py"
    path.write_text("a = 1\n")
    one = summarised("one", path)
    assert summarised("one", tmp_path / "gone") is one
    summarised("other", path, most=1)
    path.write_text("b = 1\n")
    assert summarised("one", path) != one
