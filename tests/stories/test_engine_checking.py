"""This file tests an evaluation: every gate runs and leaves a line, and one that ran nothing fails.

Requirements: 1.17 (holdout, acceptance, load), 1.52 (many forms of tests), 3.14, 3.15; 1.31 (evaluation fails).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from branchline.core.gates import NO_LOG
from branchline.core.revision import GateResult, Result, Revision
from branchline.core.service import Method
from branchline.engine.checking import counted, evaluate, number_at
from branchline.engine.preparing import prepare, spec_at
from branchline.ports import Finished, Task
from tests.fakes.runner import printed
from tests.world import ALEX, MODEL, World

STAGING = "http://127.0.0.1:20000/housing@1.0.0-alex.1/"


def with_gate(words: str) -> str:
    return MODEL.replace('gates = { unit = "gates:unit" }', f"gates = {{ {words} }}")


def evaluated(
    world: World,
    gate: str = "",
    *,
    method: Method = Method.CANARY,
    stopped: Callable[[], bool] = lambda: False,
    **push: Any,
) -> tuple[GateResult, ...]:
    """Build a commit whose file has these gates, and evaluate it."""
    tip = world.push(ALEX, with_gate(gate) if gate else MODEL, **push)
    world.controller.watch()
    world.controller.workshop.look("housing")
    revision = world.catalog.revision("housing", tip)
    prepared = prepare(world.ports, spec_at(world.ports, "housing", tip), tip)
    world.runner.tasks.clear()
    before, progress = incumbent(world), world.controller.progress
    return evaluate(world.ports, prepared, revision, before, method, STAGING, progress, "topic", stopped)


def incumbent(world: World) -> Revision | None:
    lines = world.service().lines
    return world.catalog.revision("housing", lines[0].incumbent or "") if lines else None


def one(results: tuple[GateResult, ...]) -> tuple[str, str]:
    (result,) = results
    return result.result.value, result.summary


def test_every_gate_runs_although_an_earlier_one_failed(world: World) -> None:
    world.runner.calls["gates:data"] = lambda order: {"ok": False, "rows": 3}
    results = evaluated(world, 'data = "gates:data", unit = "gates:unit"', method=Method.AB_TEST)
    assert [(r.gate, r.result.value) for r in results] == [
        ("test-plan", "pass"), ("log", "pass"), ("data", "fail"), ("unit", "pass"),
    ]  # fmt: skip
    marks = [(note.mark, note.name, note.text) for note in world.controller.progress.since(0, "topic")]
    assert marks[2] == ("no", "gate data", "rows 3")
    assert world.catalog.gates("housing", world.git.tip(ALEX)) == results


def test_no_gate_at_all_checked_nothing_and_fails(world: World) -> None:
    toml = "".join(line for line in MODEL.splitlines(True) if not line.startswith("gates"))
    world.push(toml=toml)
    world.settle()
    assert world.last("GatesFailed").detail["reason"] == "gates: no gate is declared: nothing was checked"


def test_an_experiment_without_its_log_fails_1_27(world: World) -> None:
    results = evaluated(world, method=Method.AB_TEST, files={"EXPERIMENT.md": None})
    assert one(results[1:2]) == ("fail", NO_LOG)


def test_what_is_stopped_runs_no_further_gate(world: World) -> None:
    assert evaluated(world, stopped=lambda: True) == ()


# ── functions ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("answer", "result", "summary"),
    [
        (True, "pass", "passed"),
        ({"ok": None, "summary": "too few rows"}, "inconclusive", "too few rows"),
        (None, "fail", "it returned None, which says neither yes nor no: it checked nothing"),
        ("raise no rows", "fail", "ValueError: no rows"),
        ("hang", "fail", "stopped after 600 s"),
    ],
)
def test_a_function_answers_raises_or_hangs(world: World, answer: object, result: str, summary: str) -> None:
    assert one(evaluated(world, says={"unit": answer})) == (result, summary)


def test_a_function_is_given_what_it_names_and_where_staging_is_3_15(world: World) -> None:
    world.released()
    code = "def unit(train, incumbent, staging, nothing): ...\n"
    evaluated(world, files={"gates.py": code})
    order = world.workers.orders[-1]
    assert (order["inputs"].keys(), order["staging"], order["gate"]) == ({"train"}, STAGING, True)
    assert order["incumbent"].keys() == {"train"}
    assert order["incumbent"]["train"] != order["inputs"]["train"]
    assert order["env"]["BRANCHLINE_STAGING"] == STAGING


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("x = 1\n", "there is no function gates:unit"),
        ("def unit(:\n", "gates is no Python: invalid syntax in line 1"),
        (None, "there is no function gates:unit"),
    ],
)
def test_a_function_that_is_not_there_fails(world: World, code: str | None, why: str) -> None:
    assert one(evaluated(world, files={"gates.py": code})) == ("fail", why)


def test_a_worker_that_died_fails_its_gate(world: World) -> None:
    tip = world.push()
    world.controller.watch()
    world.controller.workshop.look("housing")

    def dies(order: dict[str, Any]) -> None:
        raise ConnectionError

    world.runner.calls["gates:unit"] = dies
    prepared = prepare(world.ports, spec_at(world.ports, "housing", tip), tip)
    revision = world.catalog.revision("housing", tip)
    results = evaluate(world.ports, prepared, revision, None, Method.PATCH, "", world.controller.progress, "topic")
    assert one(results) == ("fail", "its worker ended: it was killed")


# ── tests, commands ────────────────────────────────────────────────────────────────────────────────────────────────


def junit(counts: str, exit: int = 0, root: str = "testsuites") -> Callable[[Task], Finished]:
    def run(task: Task) -> Finished:
        report = next(word.partition("=")[2] for word in task.argv if word.startswith("--junitxml="))
        suite = f"<testsuite {counts}/>"
        Path(report).write_text(f"<testsuites>{suite}</testsuites>" if root == "testsuites" else suite)
        assert (task.cwd / "serving.py").exists()
        return printed(task, "3 passed", exit)

    return run


@pytest.mark.parametrize(
    ("run", "result", "summary"),
    [
        (junit('tests="3" failures="0"'), "pass", "3 tests passed"),
        (junit('tests="4"', root="testsuite"), "pass", "4 tests passed"),
        (junit('tests="3" failures="1" errors="1"', 1), "fail", "2 of 3 tests failed"),
        (junit('tests="2" skipped="2"'), "fail", "it ran no test"),
        (lambda task: printed(task, "no module named pytest", 1), "fail",
         "pytest did not run (exit 1): no module named pytest"),
        (lambda task: Finished(4, 0.1), "fail", "pytest did not run (exit 4): no output"),
        (lambda task: Finished(143, 600.0, timed_out=True), "fail", "stopped after 600 s"),
    ],
)  # fmt: skip
def test_a_services_own_tests_count_1_52(
    world: World, run: Callable[[Task], Finished], result: str, summary: str
) -> None:
    world.runner.commands["pytest"] = run
    assert one(evaluated(world, 'unit = { pytest = "tests" }')) == (result, summary)
    assert not world.runner.tasks[-1].cwd.exists()


def test_a_half_written_report_is_none(tmp_path: Path) -> None:
    (tmp_path / "half.xml").write_text("<testsuites><testsu")
    assert counted(tmp_path / "half.xml") is None
    assert counted(tmp_path / "none.xml") is None


@pytest.mark.parametrize(
    ("finished", "result", "summary"),
    [
        (Finished(0, 0.1, tail="fine"), "pass", "exit 0"),
        (Finished(75, 0.1, tail="ask later\n"), "inconclusive", "ask later"),
        (Finished(1, 0.1, tail="x" * 300), "fail", "x" * 200),
        (Finished(143, 9.0, timed_out=True), "fail", "stopped after 9 s"),
    ],
)
def test_a_command_passes_by_its_exit(world: World, finished: Finished, result: str, summary: str) -> None:
    world.runner.commands["check"] = lambda task: finished
    assert one(evaluated(world, 'own = { command = ["check"], seconds = 9 }')) == (result, summary)


def test_what_a_gate_printed_is_kept(world: World) -> None:
    world.runner.commands["check"] = lambda task: printed(task, "looked at 4 rows")
    (result,) = evaluated(world, 'own = { command = ["check"] }')
    assert b"".join(world.artifacts.content(result.log)) == b"looked at 4 rows\n"
    world.runner.commands["check"] = lambda task: Finished(0, 0.1)
    (result,) = evaluated(world, 'own = { command = ["check"] }')
    assert result.log == ""


def test_a_gate_is_timed_by_the_clock_that_only_grows(world: World) -> None:
    def slow(task: Task) -> Finished:
        world.clock.advance(2.5)
        return Finished(0, 2.5)

    world.runner.commands["check"] = slow
    (result,) = evaluated(world, 'own = { command = ["check"] }')
    assert result.seconds == 2.5


# ── numbers, load ──────────────────────────────────────────────────────────────────────────────────────────────────

HOLDOUT = 'holdout = { value = "train.loss", max = 50, max_worse = 1 }'


@pytest.mark.parametrize(
    ("loss", "result", "summary"),
    [
        (9.0, "pass", "train.loss 9 (incumbent 9.5, limit +1)"),
        (11.0, "fail", "train.loss 11 (incumbent 9.5, limit +1) 1.5 worse than the incumbent"),
        ("much", "fail", "no finite number train.loss came out of the steps"),
        (True, "fail", "no finite number train.loss came out of the steps"),
    ],
)
def test_a_result_is_held_against_the_incumbents_3_14(world: World, loss: object, result: str, summary: str) -> None:
    world.push(toml=with_gate(HOLDOUT), says={"train": {"loss": 9.5}})
    world.settle()
    assert one(evaluated(world, HOLDOUT, says={"train": {"loss": loss}})) == (result, summary)


def test_a_number_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "value.json").write_text('{"mape": {"all": 3, "flag": true}, "list": [1]}')
    results = {"evaluate": str(tmp_path), "gone": str(tmp_path / "gone")}
    assert number_at(results, "evaluate.mape.all") == 3.0
    for path in ("evaluate.mape", "evaluate.mape.flag", "evaluate.list.0", "evaluate.none", "gone.x", "train.x"):
        assert number_at(results, path) is None
    (tmp_path / "value.json").write_text('{"mape":')
    assert number_at(results, "evaluate.mape.all") is None


LOAD = "load = { rps = 50, seconds = 2, p99_ms = 60 }"


def test_a_load_test_asks_the_staging_address_1_17(world: World) -> None:
    measured = {"sent": 100, "failed": 0, "p50_ms": 2.0, "p99_ms": 9.0, "rps": 50.0}
    world.runner.commands["branchline.sdk.load"] = lambda task: printed(task, json.dumps(measured))
    assert one(evaluated(world, LOAD)) == ("pass", "p99 9 ms at 50 rps, 0 of 100 failed")
    task = world.runner.tasks[-1]
    assert task.argv[task.argv.index("--url") + 1] == STAGING
    assert "--sample" not in task.argv
    assert task.seconds == 66


def test_a_load_test_sends_the_sample_and_fails_when_it_did_not_run(world: World) -> None:
    world.runner.commands["branchline.sdk.load"] = lambda task: Finished(1, 0.1, tail="Traceback\nno such host\n")
    toml = with_gate(LOAD).replace('predict = "serving:predict"', 'predict = "serving:predict", sample = "sample.json"')
    world.push(ALEX, toml, files={"sample.json": "{}"})
    world.settle()
    assert world.last("GatesFailed").detail["reason"] == "load: the load test did not run (exit 1): no such host"
    assert world.runner.tasks[-1].argv[-1].endswith("/housing/sample.json")


def test_a_load_test_that_printed_nothing_fails(world: World) -> None:
    world.runner.commands["branchline.sdk.load"] = lambda task: Finished(1, 0.1)
    assert one(evaluated(world, LOAD)) == ("fail", "the load test did not run (exit 1): no output")
    assert Result.FAIL.value == "fail"
