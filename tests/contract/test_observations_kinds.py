"""This file says what every Observations does with outcomes of more than a value: ratios, times, what was before, what
is only watched (1.30-1.37, I16, F75, F76).
"""

from __future__ import annotations

from branchline.core.spec import Metric
from branchline.ports import Observations, Receipt
from tests.contract.test_observations import line, said

RATIO = {"shop": Metric("part", "ratio", window=10)}
TIME = {"shop": Metric("time", "time-to", "lower", bounds=(0, 10), window=10, missing="window")}
KNOWN = {"shop": Metric("stars", bounds=(0, 9), window=10, before=4)}


def test_of_a_ratio_both_numbers_are_summed(observations: Observations) -> None:
    observations.take([line(), line("u2")], "p")
    outcomes = [
        said("u1", 1, id="a", of=2),
        said("u1", 2, id="b", of=4),
        said("u1", 1, id="a", of=3),
        said("u2", 0, of=0),
    ]
    assert observations.report([*outcomes, said("u1", 1, id="a", of=2)], RATIO, at=101) == (
        Receipt("kept"), Receipt("kept"), Receipt("conflict", "1 and 2 was said before"), Receipt("kept"),
        Receipt("duplicate"),
    )  # fmt: skip
    seen = observations.matured("shop", "e1", after=0, until=999, window=10, pooled="sum")
    assert [(each.value, each.other) for each in seen] == [(3, 6), (0, 0)]


def test_of_a_time_the_first_report_counts(observations: Observations) -> None:
    observations.take([line(at=100), line("u2", at=100), line("u3", at=100)], "p")
    for at, outcome in ((103.5, said("u1", 1, id="a")), (102, said("u1", 1, id="b")), (120, said("u2", 1))):
        observations.report([outcome], TIME, at=at)
    seen = observations.matured("shop", "e1", after=0, until=999, window=10, pooled="first")
    assert [(each.value, each.other) for each in seen] == [(2, None), (None, None), (None, None)]
    assert observations.counts("shop", "e1")["old"]["late"] == 1


def test_what_was_before_is_kept_beside_and_may_be_missing(observations: Observations) -> None:
    observations.take([line(), line("u2"), line("u3")], "p")
    observations.report([said("u1", 5, before=3), said("u2", 6)], KNOWN, at=101)
    seen = observations.matured("shop", "e1", after=0, until=999, window=10)
    assert [(each.value, each.other) for each in seen] == [(5, 3), (6, None), (None, None)]


def test_a_request_tells_its_unit_and_how_long_it_took(observations: Observations) -> None:
    observations.take([line(seconds=0.25), line("", request="r9", seconds=2.0)], "p")
    tallies = observations.requests("shop", "e1", after=0)
    assert [(each.unit, each.seconds) for each in tallies] == [("u1", 0.25), ("r9", 2.0)]


def test_what_is_watched_is_kept_apart_and_is_no_outcome_of_its_unit(observations: Observations) -> None:
    """Killer: a click that is only watched would fill the place of a purchase, or its window."""
    declared = {"shop": Metric("bought", "binary", window=10, watched=(Metric("clicks", window=5),))}
    observations.take([line(at=100), line("u2", at=100)], "p")
    click = said("u1", 7, metric="clicks")
    outcomes = [click, click, said("u1", 6, metric="clicks"), said("u1")]
    assert [each.word for each in observations.report(outcomes, declared, at=101)] == [
        "kept", "duplicate", "conflict", "kept",
    ]  # fmt: skip
    late = observations.report([said("u2", 3, metric="clicks"), said("u2", 0)], declared, at=106)
    assert [each.word for each in late] == ["late", "kept"]
    counts = observations.counts("shop", "e1")["old"]
    assert (counts["outcomes"], counts["late"]) == (2, 0)
    seen = observations.matured("shop", "e1", after=0, until=999, window=5, metric="clicks")
    assert [each.value for each in seen] == [7, None]
    assert [each.value for each in observations.matured("shop", "e1", after=0, until=999, window=10)] == [1, 0]
