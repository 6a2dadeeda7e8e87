"""This file says what one reported outcome is worth: from the metric's definition and a report to a number, or to no.

Rules: strict values only (F78): a bool, a string, NaN, an infinity is refused, and so is a report outside the metric's
declared bounds: they are what the statistics rest on. For kind error the report is the truth and the value is the error
of the logged prediction, cut at the upper bound: refusing it would let a challenger hide its worst predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from branchline.core.spec import Metric
from branchline.errors import OutcomeRefused


def _relative(prediction: float, truth: float) -> float:
    if truth == 0:
        raise OutcomeRefused(reason="the truth is 0, so the relative error has no meaning")
    return abs(prediction - truth) / abs(truth) * 100


# Names a metric of kind error may have: (prediction, truth) -> error, in per cent, in the unit, in the unit squared.
ERRORS: Mapping[str, Callable[[float, float], float]] = {
    "abs_pct_error": _relative,
    "abs_error": lambda prediction, truth: abs(prediction - truth),
    "squared_error": lambda prediction, truth: (prediction - truth) * (prediction - truth),
}


def number(value: object) -> float:
    """The value as a finite float; raises OutcomeRefused for anything that is not a number (-0.0 becomes 0.0)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OutcomeRefused(reason=f"{value!r} is not a number")
    try:
        read = float(value)
    except OverflowError:
        raise OutcomeRefused(reason="the number is too large") from None
    if not math.isfinite(read):
        raise OutcomeRefused(reason=f"{read} is not a finite number")
    return read + 0.0


def value(metric: Metric, prediction: float | None, reported: object, waited: float = 0.0) -> float:
    """The metric's value of a report; raises OutcomeRefused when it has none.

    `waited` are the seconds since the unit's first exposure, which are the value of kind time-to.
    """
    read = number(reported)
    if metric.kind == "error":
        if prediction is None:
            raise OutcomeRefused(reason="no prediction was logged for it")
        error = ERRORS[metric.name](number(prediction), read)
        read = min(error, metric.bounds[1]) if metric.bounds else number(error)
    if metric.kind == "binary" and read not in (0.0, 1.0):
        raise OutcomeRefused(reason=f"{read:g} is neither 0 nor 1")
    if metric.kind == "time-to":
        if read != 1.0:
            raise OutcomeRefused(reason=f"{read:g} is not 1: an outcome says that it has happened, when says the clock")
        read = min(max(waited, 0.0), metric.window)
    if metric.bounds and not metric.bounds[0] <= read <= metric.bounds[1]:
        low, high = metric.bounds
        raise OutcomeRefused(reason=f"{read:g} is outside the metric's bounds {low:g} to {high:g}")
    return read


def second(metric: Metric, of: object = None, before: object = None) -> float | None:
    """The second number of a report: what a ratio is of, or what the unit was like before; None where there is none.

    Raises OutcomeRefused for one that the metric does not have, and where a ratio has none.
    """
    if metric.kind == "ratio":
        if of is None:
            raise OutcomeRefused(reason="a ratio needs what it is of: a second number, `of`")
        if before is not None:
            raise OutcomeRefused(reason="a ratio takes no account of what was `before`")
        if (read := number(of)) < 0:
            raise OutcomeRefused(reason=f"of is {read:g}, which is below 0")
        return read
    if of is not None:
        raise OutcomeRefused(reason=f"`of` goes with a ratio, and the metric is of kind {metric.kind}")
    if before is None:
        return None
    if metric.before is None:
        raise OutcomeRefused(reason="the metric declares no `before`")
    return number(before)


def told(reported: float, other: float | None) -> str:
    """What was reported, in words."""
    return f"{reported:.12g}" + ("" if other is None else f" and {other:.12g}")
