"""This file tests how rates are reckoned from counters that only grow (3.20)."""

from __future__ import annotations

import pytest

from branchline.core.rates import Total, below, is_less, joined, percentile, rate, spent

TENS = {(float(at), 1.0): 10 for at in range(10)}


def test_incarnations_of_one_revision_are_summed() -> None:
    one = Total({"2xx": 3, "5xx": 1}, {(1.0, 0.1): 4}, 2)
    other = Total({"2xx": 2, "4xx": 5}, {(1.0, 0.1): 1, (50.0, 1.0): 6}, 1)
    both = joined((one, other))
    assert both == Total({"2xx": 5, "5xx": 1, "4xx": 5}, {(1.0, 0.1): 5, (50.0, 1.0): 6}, 3)
    assert both.requests == 11


def test_a_rate_is_what_came_between_two_looks() -> None:
    before = Total({"2xx": 100}, {(1.0, 0.0): 100})
    now = Total({"2xx": 190, "4xx": 5, "5xx": 5}, {(1.0, 0.0): 190, (900.0, 10.0): 10}, 4)
    found = rate(now, before, 10.0)
    assert (found.seconds, found.requests, found.failed, found.active) == (10.0, 100, 5, 4)
    assert (found.p50, found.p95) == (1.0, 905.0)
    assert found.p99 == pytest.approx(909.0)


def test_without_requests_there_is_no_percentile() -> None:
    found = rate(Total(), Total(), 10.0)
    assert (found.requests, found.failed, found.p50, found.p99) == (0, 0, None, None)
    assert percentile({(1.0, 1.0): 0}, 0.5) is None


def test_a_rate_is_never_negative() -> None:
    found = rate(Total({"2xx": 5}, {(1.0, 0.0): 5}), Total({"2xx": 50, "5xx": 2}, {(1.0, 0.0): 50}), 1.0)
    assert (found.requests, found.failed, found.p50) == (0, 0, None)


@pytest.mark.parametrize(
    ("now", "less"),
    [
        (Total({"2xx": 2}, {(1.0, 0.0): 1}), False),
        (Total({"2xx": 1}, {(1.0, 0.0): 1}), True),
        (Total({"2xx": 2}), True),
        (Total({"2xx": 2, "5xx": 1}, {(1.0, 0.0): 1, (2.0, 0.0): 1}), False),
    ],
)
def test_counters_that_went_back_are_other_counters(now: Total, less: bool) -> None:
    assert is_less(now, Total({"2xx": 2}, {(1.0, 0.0): 1}, 7)) is less


def test_percentiles_lie_within_their_bin() -> None:
    assert percentile(TENS, 0.5) == pytest.approx(5.0)
    assert percentile(TENS, 0.95) == pytest.approx(9.5)
    assert percentile(TENS, 1.0) == pytest.approx(10.0)
    assert percentile({(7.0, 0.0): 3}, 0.99) == 7.0


def test_a_histogram_is_cumulative() -> None:
    assert [below(TENS, limit) for limit in (0.5, 1.0, 5.0, 100.0)] == [0, 10, 50, 100]
    assert spent(TENS) == pytest.approx(500.0)
