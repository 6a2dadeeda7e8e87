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


PART, TIME = Metric("part", "ratio"), Metric("time", "time-to", "lower", bounds=(0, 10), window=10, missing="window")


@pytest.mark.parametrize(("waited", "seconds"), [(3.5, 3.5), (0.0, 0.0), (-0.1, 0.0), (99.0, 10.0)])
def test_a_time_is_that_of_the_report_cut_at_the_window(waited: float, seconds: float) -> None:
    assert metrics.value(TIME, None, 1, waited) == seconds


@pytest.mark.parametrize(
    ("metric", "of", "before", "reason"),
    [
        (PART, None, None, "a ratio needs what it is of: a second number, `of`"),
        (PART, -1, None, "of is -1, which is below 0"),
        (PART, True, None, "True is not a number"),
        (PART, 1, 2, "a ratio takes no account of what was `before`"),
        (Metric("stars"), 1, None, "`of` goes with a ratio, and the metric is of kind value"),
        (Metric("stars"), None, 1, "the metric declares no `before`"),
        (Metric("stars", before=4), None, math.nan, "nan is not a finite number"),
    ],
)
def test_a_second_number_that_means_nothing_is_refused(metric: Metric, of: Any, before: Any, reason: str) -> None:
    with pytest.raises(OutcomeRefused) as refused:
        metrics.second(metric, of, before)
    assert refused.value.fields["reason"] == reason


def test_the_second_number_is_what_the_metric_asks_for() -> None:
    assert metrics.second(PART, 3) == 3
    assert metrics.second(Metric("stars", before=4.0), None, 5) == 5
    assert metrics.second(Metric("stars", before=4.0)) is None
    assert metrics.second(Metric("stars")) is None


def test_an_event_is_reported_as_one() -> None:
    with pytest.raises(OutcomeRefused) as refused:
        metrics.value(TIME, None, 2, 1.0)
    assert refused.value.fields["reason"] == "2 is not 1: an outcome says that it has happened, when says the clock"


def test_what_a_unit_without_a_report_is_worth() -> None:
    assert (TIME.unreported, Metric("x").unreported, Metric("x", missing="zero").unreported) == (10, None, 0.0)
