"""This file tests how runs are asked for, and how what a step told of itself is read (2.11, 2.12)."""

from __future__ import annotations

import pytest

from branchline.core.revision import Measure, StepRun
from branchline.core.tracking import Bound, Run, bound, last, told
from branchline.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mape<10", Bound("mape", "<", 10.0)),
        (" val/loss >= 1e-3 ", Bound("val/loss", ">=", 0.001)),
        ("a==1", Bound("a", "=", 1.0)),
        ("a!=-inf", Bound("a", "!=", float("-inf"))),
    ],
)
def test_a_bound_is_read(text: str, expected: Bound) -> None:
    assert bound(text) == expected


@pytest.mark.parametrize("text", ["", "mape", "mape<", "<10", "mape<ten", "mape<nan", "mape < 10 and a > 1"])
def test_what_is_no_bound_is_told_with_one_that_is(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        bound(text)
    assert "mape<10" in refused.value.cause


def test_what_a_step_told_is_read_and_half_a_line_is_left_out() -> None:
    lines = (
        b'["loss", 0.5, 1]\n["loss", 0.25, 2]\n["mape", 9, null]\nnoise\n["a", "x", 1]\n[1]\n["n", NaN, 1]\n["cut", 1'
    )
    assert told(lines) == (Measure("loss", 0.5, 1.0), Measure("loss", 0.25, 2.0), Measure("mape", 9.0))
    assert last(told(lines)) == {"loss": 0.25, "mape": 9.0}


def test_a_run_is_as_its_worst_step_and_began_with_its_first() -> None:
    steps = {state: StepRun(state, state, "k", at=at) for state, at in (("reused", 0.0), ("ran", 7.0), ("failed", 5.0))}
    assert Run(1, "s", "c", tuple(steps.values())).state == "failed"
    assert Run(1, "s", "c", tuple(steps.values())).at == 5.0
    assert Run(1, "s", "c", (steps["reused"], steps["ran"])).state == "ran"
    assert (Run(1, "s", "c", (steps["reused"],)).state, Run(1, "s", "c", ()).at) == ("reused", 0.0)
