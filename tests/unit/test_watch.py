"""This file tests how rates are shown: what a person reads at a glance, and a dash for what nobody knows (3.20)."""

from __future__ import annotations

from typing import Any

import click
import pytest

from branchline.cli.see import fitting
from branchline.cli.watch import columns, live_lines, took

RATES = {
    "seconds": 10.0, "requests": 1000, "failed": 49, "per_second": 100.0, "failed_percent": 4.9,
    "p50_ms": 2.31, "p95_ms": 41.7, "p99_ms": 1290.0, "active": 3,
}  # fmt: skip
SILENT = {
    **RATES, "requests": 0, "per_second": 0.0, "failed": 0, "failed_percent": None, "p50_ms": None, "p95_ms": None,
    "p99_ms": None,
}  # fmt: skip
PROCESSES = {"threads": 12, "warnings": 3, "exceptions": 0}


def row(**more: Any) -> dict[str, Any]:
    known = {"version": "1.0.0", "commit": "a" * 40, "perimeter": "production", "share": 50}
    return {**known, "rates": None, "processes": None, **more}


def shown(*rows: dict[str, Any]) -> list[list[str]]:
    return [click.unstyle(line).split("  ") for line in live_lines({"rows": rows})[1:-1]]


def words(line: list[str]) -> list[str]:
    return [word.strip() for word in line if word.strip()]


def test_a_revision_is_one_line_of_numbers() -> None:
    head, line = (words(each) for each in shown(row(rates=RATES, processes=PROCESSES)))
    assert head == ["LAST 10 s", "SHARE", "REQ/S", "FAILED", "P50", "P95", "P99", "THREADS", "WARN", "EXCEPT"]
    assert line == ["1.0.0", "50%", "100", "4.9% ±1.5", "2.3 ms", "42 ms", "1.3 s", "12", "3", "0"]


def test_where_nothing_was_asked_stands_a_dash() -> None:
    line = words(shown(row(rates=SILENT, processes=PROCESSES, share=0))[1])
    assert line == ["1.0.0", *"------", "12", "3", "0"]


def test_what_is_not_known_is_a_dash() -> None:
    _, first, second = (words(each) for each in shown(row(processes=PROCESSES), row(rates=RATES, version="")))
    assert first == ["1.0.0", "50%", *"-----", "12", "3", "0"]
    assert second == ["aaaaaaa", "50%", "100", "4.9% ±1.5", "2.3 ms", "42 ms", "1.3 s", *"---"]
    assert words(shown(row(processes=PROCESSES))[0])[0] == "MEASURING"


def test_nothing_is_shown_before_anybody_looked() -> None:
    assert live_lines({"rows": [row(), row(perimeter="", rates=RATES)]}) == []


def test_it_fits_a_narrow_terminal() -> None:
    busy = {**RATES, "per_second": 12345.6, "failed_percent": 100.0, "p50_ms": 12345.0}
    lines = live_lines({"rows": [row(rates=busy, processes={"threads": 1234, "warnings": 123456, "exceptions": 9999})]})
    assert max(len(click.unstyle(line)) for line in lines) <= 80


def test_only_what_worries_is_coloured() -> None:
    calm = live_lines({"rows": [row(rates={**RATES, "failed_percent": 0.0}, processes={**PROCESSES, "warnings": 0})]})
    assert calm == [click.unstyle(line) for line in calm]
    assert click.style("4.9% ±1.5", fg="red") in live_lines({"rows": [row(rates=RATES)]})[2]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(None, "-"), (0.0, "<1 ms"), (1.0, "1.0 ms"), (9.94, "9.9 ms"), (12.3, "12 ms"), (999.0, "999 ms"),
     (1000.0, "1.0 s"), (59_999.0, "60 s")],
)  # fmt: skip
def test_a_time_has_three_digits_at_most(milliseconds: float | None, text: str) -> None:
    assert took(milliseconds) == text


def test_numbers_stand_to_the_right_whatever_their_colour() -> None:
    assert columns([("A", "B"), ("long", click.style("7", fg="red"))]) == [
        "A     B",
        f"long  {click.style('7', fg='red')}",
    ]


def test_what_does_not_fit_stands_below_its_row() -> None:
    """At 80 columns the table stays a table, and no word is lost."""
    rows = [
        ("S", "B", "R", "P", "T", "STATE", ""),
        ("s", "b", "1.0.0", "production", "-", "A/B test", ", " + "word " * 20),
    ]
    assert len(fitting(rows, 0)) == len(fitting(rows, 200)) == 2
    narrow = [click.unstyle(line) for line in fitting(rows, 60)]
    assert max(map(len, narrow)) <= 60
    assert narrow[1].endswith("A/B test")
    assert " ".join(narrow[2:]).split() == ["word"] * 20
