"""This file tests what is written for a Prometheus, and that the reader of the tests is as strict as one (3.28)."""

from __future__ import annotations

import pytest

from branchline.core.rates import Total
from branchline.server.exposition import BOUNDS, exposition, histogram
from tests.exposition import parsed, value

HEAD = "# HELP a_total x\n# TYPE a_total counter\n"
HISTOGRAM = "# HELP h x\n# TYPE h histogram\n"


def test_labels_may_hold_anything() -> None:
    evil = 'a"b\\c\nd{}=,é'
    text = exposition([("branchline_troubles", "", {"service": evil}, 3)])
    assert value(parsed(text), "branchline_troubles", service=evil) == 3


def test_a_family_is_told_together_whatever_the_order() -> None:
    text = exposition([
        ("branchline_troubles", "", {"service": "a"}, 1),
        ("branchline_ledger_bytes", "", {}, 123456789012),
        ("branchline_troubles", "", {"service": "b"}, 2),
    ])  # fmt: skip
    found = parsed(text)
    assert value(found, "branchline_ledger_bytes") == 123456789012
    assert [value(found, "branchline_troubles", service=name) for name in "ab"] == [1, 2]


def test_times_become_a_histogram_in_seconds() -> None:
    total = Total({"2xx": 11}, {(0.0, 0.0): 4, (1.0, 0.1): 3, (240.0, 10.0): 2, (90_000.0, 1000.0): 2})
    found = parsed(exposition(histogram("branchline_request_seconds", {"service": "s", "revision": "1.0.0"}, total)))
    named = {"service": "s", "revision": "1.0.0"}

    def bucket(le: str) -> float:
        return value(found, "branchline_request_seconds", "_bucket", **named, le=le)

    assert [bucket(le) for le in ("0.001", "0.0025", "0.25", "30", "+Inf")] == [4, 7, 9, 9, 11]
    assert value(found, "branchline_request_seconds", "_count", **named) == 11
    assert value(found, "branchline_request_seconds", "_sum", **named) == pytest.approx(0.00315 + 0.49 + 181)
    assert sorted(BOUNDS) == list(BOUNDS)


@pytest.mark.parametrize(
    "wrong",
    [
        HEAD + "a_total 1",
        HEAD + "a_total -1\n",
        HEAD + "a_total 1\na_total 1\n",
        HEAD + "b_total 1\n",
        HEAD + 'a_total{x="1} 1\n',
        HEAD + 'a_total{x="a\\b"} 1\n',
        HEAD + "a_total one\n",
        "# HELP a x\n# TYPE a counter\na 1\n",
        "# TYPE a_total counter\n",
        HISTOGRAM + 'h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n',
        HISTOGRAM + 'h_bucket{le="1"} 1\nh_sum 1\nh_count 1\n',
    ],
)
def test_the_reader_is_strict(wrong: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        parsed(wrong)
