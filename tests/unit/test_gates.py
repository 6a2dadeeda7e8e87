"""This file tests what a gate's numbers mean: pass, fail or inconclusive, with the numbers in one line.

Requirements: 1.14 and 1.27 (the log), 1.17 (holdout, load), 1.52 (many forms of tests), 3.14 (better than before).
"""

from __future__ import annotations

import math

import pytest

from branchline.core import gates
from branchline.core.revision import GateResult, Result
from branchline.core.spec import Gate, Metric

HOLDOUT = Gate("holdout", "compare", value="evaluate.mape", max=25, min=1, max_worse=1.0)
LOAD = Gate("load", "load", rps=50, p99_ms=60, max_failed=1)
UNIT = Gate("unit", "pytest")


def said(result: GateResult) -> tuple[str, str]:
    return result.result.value, result.summary


@pytest.mark.parametrize(
    ("own", "incumbent", "result", "summary"),
    [
        (9.4, None, "pass", "evaluate.mape 9.4"),
        (9.4, 9.0, "pass", "evaluate.mape 9.4 (incumbent 9, limit +1)"),
        (10.4, 9.0, "fail", "evaluate.mape 10.4 (incumbent 9, limit +1) 1.4 worse than the incumbent"),
        (26.0, None, "fail", "evaluate.mape 26 > max 25"),
        (0.5, None, "fail", "evaluate.mape 0.5 < min 1"),
        (None, 9.0, "fail", "no finite number evaluate.mape came out of the steps"),
        (math.nan, 9.0, "fail", "no finite number evaluate.mape came out of the steps"),
    ],
)
def test_a_number_is_held_against_its_limits_and_the_incumbent_3_14(
    own: float | None, incumbent: float | None, result: str, summary: str
) -> None:
    assert said(gates.compared(HOLDOUT, own, incumbent)) == (result, summary)


def test_where_higher_is_better_lower_is_worse() -> None:
    accuracy = Gate("holdout", "compare", value="evaluate.accuracy", max_worse=0.01, direction="higher")
    assert gates.compared(accuracy, 0.95, 0.9).result is Result.PASS
    worse = gates.compared(accuracy, 0.85, 0.9)
    assert worse.result is Result.FAIL
    assert worse.summary == "evaluate.accuracy 0.85 (incumbent 0.9, limit -0.01) 0.05 worse than the incumbent"
    first = gates.compared(accuracy, 0.85, None)
    assert said(first) == ("pass", "evaluate.accuracy 0.85 (nothing to compare with: the first revision)")
    shown = gates.compared(Gate("holdout", "compare", value="x.y", max=1), 0.5, 0.4)
    assert shown.summary == "x.y 0.5 (incumbent 0.4)"
    assert shown.numbers == (("value", 0.5), ("incumbent", 0.4))


@pytest.mark.parametrize(
    ("measured", "result", "summary"),
    [
        ({"sent": 100, "failed": 1, "p99_ms": 41.0}, "pass", "p99 41 ms at 50 rps, 1 of 100 failed"),
        ({"sent": 100, "failed": 2, "p99_ms": 41.0}, "fail", "p99 41 ms at 50 rps, 2 of 100 failed"),
        ({"sent": 100, "failed": 0, "p99_ms": 61.0}, "fail", "p99 61 ms at 50 rps, 0 of 100 failed > 60 ms"),
        ({"sent": 100}, "fail", "p99 inf ms at 50 rps, 0 of 100 failed > 60 ms"),
        ({}, "fail", "it sent nothing"),
    ],
)
def test_a_load_test_fails_by_failures_or_by_time(measured: dict[str, float], result: str, summary: str) -> None:
    assert said(gates.loaded(LOAD, measured)) == (result, summary)


@pytest.mark.parametrize(
    ("answer", "result", "summary"),
    [
        (True, "pass", "passed"),
        (False, "fail", "it said no"),
        ({"ok": True, "rows": 40, "name": "x", "nan": math.nan}, "pass", "rows 40"),
        ({"ok": False, "summary": "no rows"}, "fail", "no rows"),
        ({"ok": None}, "inconclusive", "inconclusive"),
        (None, "fail", "it returned None, which says neither yes nor no: it checked nothing"),
        ({"rows": 3}, "fail", "it returned {'rows': 3}, which says neither yes nor no: it checked nothing"),
    ],
)
def test_a_function_says_yes_no_or_not_yet(answer: object, result: str, summary: str) -> None:
    assert said(gates.answered(Gate("data", "call"), answer)) == (result, summary)


@pytest.mark.parametrize(
    ("counts", "exit_code", "result", "summary"),
    [
        ({"tests": 4, "skipped": 1}, 0, "pass", "3 tests passed"),
        ({"tests": 4, "failures": 1, "errors": 1}, 1, "fail", "2 of 4 tests failed"),
        ({"tests": 4}, 3, "fail", "pytest exit 3"),
        ({"tests": 1, "skipped": 1}, 0, "fail", "it ran no test"),
        ({}, 5, "fail", "it ran no test"),
    ],
)
def test_tests_that_ran_nothing_fail_1_52(counts: dict[str, int], exit_code: int, result: str, summary: str) -> None:
    assert said(gates.tested(UNIT, counts, exit_code)) == (result, summary)


@pytest.mark.parametrize(
    ("metric", "sigma", "result", "summary"),
    [
        (None, None, "fail", "no metric is declared: there is nothing to judge by"),
        (
            Metric("stars"),
            None,
            "fail",
            "metric stars has no mde: say which effect is worth a change, or by margin how much worse may be",
        ),
        (Metric("stars", margin=0.5, window=60), None, "pass", "stars, margin 0.5, window 60 s"),
        (Metric("stars", margin=1.0, window=60), 2.0, "pass", "about 168 units for a margin of 1"),
        (Metric("stars", mde=1.0, window=0), None, "fail", "metric stars has no window in which an outcome counts"),
        (Metric("stars", mde=1.0, window=60), None, "pass", "stars, effect 1, window 60 s"),
        (Metric("stars", mde=1.0, window=60), 2.0, "pass", "about 168 units for an effect of 1"),
    ],
)
def test_a_test_needs_a_plan(metric: Metric | None, sigma: float | None, result: str, summary: str) -> None:
    assert said(gates.planned(metric, sigma)) == (result, summary)


WRITTEN = "# Hypothesis\nIt is better.\n\n## Metric\nstars\n\n# Log\nTried.\n"


@pytest.mark.parametrize(
    ("text", "result", "summary"),
    [
        (WRITTEN, "pass", "hypothesis, metric and log are written"),
        (None, "fail", gates.NO_LOG),
        ("", "fail", "EXPERIMENT.md says nothing under: hypothesis, metric, log"),
        (WRITTEN.replace("Tried.", "<!-- say what happened -->"), "fail", "EXPERIMENT.md says nothing under: log"),
        (WRITTEN.replace("It is better.", ""), "fail", "EXPERIMENT.md says nothing under: hypothesis"),
    ],
)
def test_an_experiment_is_written_down_1_14_1_27(text: str | None, result: str, summary: str) -> None:
    assert said(gates.logged(text)) == (result, summary)
