"""This file tests what a load test computes of its latencies."""

from __future__ import annotations

import pytest

from branchline.sdk.load import quantile


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_quantile_is_a_time_that_was_measured(share: float, wanted: float) -> None:
    """Nearest rank: never better than what somebody waited."""
    assert quantile([float(n) for n in range(1, 101)], share) == wanted


def test_the_quantile_of_one_is_that_one() -> None:
    assert quantile([0.5], 0.99) == 0.5
