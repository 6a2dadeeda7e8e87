"""This file tests what one outcome is worth, and what is none (F78)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from branchline.core import metrics
from branchline.core.spec import Metric
from branchline.errors import OutcomeRefused

ERROR = Metric("abs_pct_error", "error", "lower", bounds=(0, 100))


NONE = [math.nan, math.inf, -math.inf, True, False, "1", b"1", None, [1], 10**400, 1j]


@pytest.mark.parametrize("value", NONE, ids=[f"{type(value).__name__}-{repr(value)[:5]}" for value in NONE])
def test_only_finite_numbers_are_numbers_F78(value: Any) -> None:
    with pytest.raises(OutcomeRefused):
        metrics.number(value)


def test_minus_zero_is_zero_F78() -> None:
    assert math.copysign(1, metrics.number(-0.0)) == 1


@pytest.mark.parametrize(
    ("name", "prediction", "truth", "error"),
    [
        ("abs_pct_error", 90, 100, 10), ("abs_pct_error", 110, -100, 210), ("abs_error", 3, 5, 2),
        ("squared_error", 3, 5, 4), ("squared_error", 5, 5, 0),
    ],
)  # fmt: skip
def test_errors(name: str, prediction: float, truth: float, error: float) -> None:
    assert metrics.value(Metric(name, "error", "lower"), prediction, truth) == pytest.approx(error)


def test_a_huge_error_is_cut_at_its_bound_and_not_hidden() -> None:
    assert metrics.value(ERROR, 1e9, 1) == 100
    assert metrics.value(ERROR, 1e308, 1e-308) == 100
    assert metrics.value(Metric("squared_error", "error", "lower", bounds=(0, 5)), 1e300, 0) == 5


def test_an_error_without_prediction_bound_or_meaning_is_refused() -> None:
    with pytest.raises(OutcomeRefused):
        metrics.value(ERROR, None, 1)
    with pytest.raises(OutcomeRefused):
        metrics.value(ERROR, 1, 0)
    with pytest.raises(OutcomeRefused):
        metrics.value(ERROR, math.nan, 1)
    with pytest.raises(OutcomeRefused):
        metrics.value(Metric("squared_error", "error", "lower"), 1e300, 0)


@pytest.mark.parametrize("value", [-1, 2, 0.5])
def test_a_binary_value_is_0_or_1(value: float) -> None:
    metric = Metric("bought", "binary")
    assert (metrics.value(metric, None, 0), metrics.value(metric, None, 1)) == (0, 1)
    with pytest.raises(OutcomeRefused):
        metrics.value(metric, None, value)


def test_a_report_outside_the_bounds_is_refused_and_never_clamped() -> None:
    metric = Metric("stars", bounds=(1, 5))
    assert metrics.value(metric, None, 5) == 5
    for value in (0.99, 5.01):
        with pytest.raises(OutcomeRefused, match="outside"):
            metrics.value(metric, None, value)
