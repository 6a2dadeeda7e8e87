"""This file shows that whatever is reported is worth something within its bounds, or is refused (F78)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from branchline.core import metrics
from branchline.core.spec import Metric
from branchline.errors import OutcomeRefused

ERROR = Metric("abs_pct_error", "error", "lower", bounds=(0, 100))


@given(st.floats(), st.floats())
def test_whatever_is_reported_the_value_lies_in_its_bounds_or_is_refused(prediction: float, truth: float) -> None:
    try:
        value = metrics.value(ERROR, prediction, truth)
    except OutcomeRefused:
        return
    assert 0 <= value <= 100
