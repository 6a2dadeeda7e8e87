"""This file says what every Observations does: the fake and SQLite (1.30-1.37, I16, I17, F75-F79)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from branchline.core.spec import Metric
from branchline.ports import Exposed, Observations, Outcome, Receipt, Request, Served

METRICS = {
    "housing": Metric("abs_pct_error", "error", "lower", 3, (0, 100), window=10),
    "shop": Metric("bought", "binary", window=10),
}


def line(unit: str = "u1", arm: str = "old", at: float = 100, **other: Any) -> Served:
    fields = {
        "service": "shop", "unit": unit, "request": f"r-{unit}-{at:g}", "assigned": arm, "answered": arm,
        "experiment": "e1", "table": 1, "status": 200, "flags": "", "seconds": 0.01, "at": at,
    }  # fmt: skip
    return Served(**{**fields, **other})


def said(unit: str = "", value: Any = 1, **other: Any) -> Outcome:
    return Outcome(**{"service": "shop", "value": value, "unit": unit, **other})


def report(observations: Observations, *outcomes: Outcome, at: float = 101) -> tuple[str, ...]:
    return tuple(each.word for each in observations.report(outcomes, METRICS, at=at))


def values(observations: Observations, service: str = "shop", until: float = 1000) -> dict[str, float | None]:
    seen = observations.matured(service, "e1", after=0, until=until, window=10)
    return {each.unit: each.value for each in seen}


def test_the_position_is_kept_with_the_requests(observations: Observations) -> None:
    assert observations.position() == ""
    assert observations.take([line(), line("u2")], "file:10") == 2
    assert observations.position() == "file:10"
    assert observations.take([], "file:20") == 0
    assert observations.position() == "file:20"


def test_the_first_request_fixes_arm_and_stratum_1_33(observations: Observations) -> None:
    observations.take([line(at=100, table=1), line(at=101, table=2), line("u2", "new", at=102, table=2)], "p")
    seen = observations.matured("shop", "e1", after=0, until=1000, window=10)
    found = [(each.unit, each.arm, each.stratum, each.at) for each in seen]
    assert found == [("u1", "old", 1, 100), ("u2", "new", 2, 102)]


def test_a_unit_enters_when_its_window_closed_not_before(observations: Observations) -> None:
    observations.take([line(at=100), line("u2", at=105)], "p")
    report(observations, said("u1"), said("u2"), at=106)
    assert values(observations, until=109.9) == {}
    assert values(observations, until=110) == {"u1": 1}
    assert values(observations, until=115) == {"u1": 1, "u2": 1}


def test_matured_goes_on_after_its_cursor_and_stops_at_the_first_open_window(observations: Observations) -> None:
    observations.take([line("u1", at=100), line("u2", at=200), line("u3", at=101)], "p")
    first = observations.matured("shop", "e1", after=0, until=150, window=10)
    assert [each.unit for each in first] == ["u1"]
    rest = observations.matured("shop", "e1", after=first[-1].order, until=300, window=10)
    assert [each.unit for each in rest] == ["u2", "u3"]
    assert [each.order for each in rest] == sorted(each.order for each in rest)
    assert observations.matured("shop", "e1", after=rest[-1].order, until=300, window=10) == ()


def test_no_outcome_is_none_and_no_zero(observations: Observations) -> None:
    observations.take([line()], "p")
    assert values(observations) == {"u1": None}


def test_a_unit_seen_in_both_arms_leaves_the_conclusion(observations: Observations) -> None:
    observations.take([line(at=100), line("u2", at=100)], "p")
    observations.take([line(arm="new", at=101), line(arm="new", at=102)], "q")
    assert values(observations) == {"u2": None}
    counts = observations.counts("shop", "e1")
    assert counts[""]["both"] == 1
    assert (counts["old"]["units"], counts["old"]["requests"], counts["new"]["requests"]) == (2, 2, 2)
    assert counts["new"]["units"] == 0


def test_what_was_counted_at_a_moment_is_counted_again(observations: Observations) -> None:
    """Killer: count what has come since."""
    observations.take([line(at=100), line("u2", at=100)], "p")
    then = observations.counts("shop", "e1")
    later = [line(arm="new", at=101), line("u3", arm="new", at=102), line("u2", at=103, status=503)]
    observations.take(later, "q")
    assert observations.counts("shop", "e1", until=100.5)["old"] == then["old"]
    assert observations.counts("shop", "e1", until=100.5)[""] == then[""]
    assert set(observations.counts("shop", "e1", until=100.5)["new"].values()) == {0}
    assert observations.counts("shop", "e1", until=103) == observations.counts("shop", "e1")
    assert observations.counts("shop", "e1")[""]["both"] == 1


def test_a_unit_that_changed_arms_after_its_window_stays_in_what_was_known(observations: Observations) -> None:
    """Killer: the judge keeps what it has counted, so who begins anew from the ledger must find it, too."""
    observations.take([line(at=100), line("u2", at=100)], "p")
    report(observations, said("u1"))
    live = values(observations, until=111)
    observations.take([line(arm="new", at=110.5), line("u2", arm="new", at=110)], "q")
    assert (live, values(observations)) == ({"u1": 1, "u2": None}, {"u1": 1, "u2": None})
    assert observations.counts("shop", "e1")[""]["both"] == 2


def test_who_changed_arms_before_its_window_closed_is_out_whenever_one_looks(observations: Observations) -> None:
    observations.take([line(at=100), line("u2", at=100), line("u3", at=100)], "p")
    observations.take([line(arm="new", at=110), line("u2", arm="new", at=110.5), line(at=120)], "q")
    assert values(observations, until=110) == values(observations) == {"u2": None, "u3": None}


def test_a_change_of_arms_that_is_read_too_late_changes_nothing_that_was_counted(observations: Observations) -> None:
    """Killer: a line of the log from before the window's end, read after the judge has looked."""
    observations.take([line(at=100), line("u2", at=105)], "p")
    assert values(observations, until=110) == {"u1": None}
    observations.take([line(arm="new", at=104), line("u2", arm="new", at=106)], "q")
    assert values(observations) == {"u1": None}


def test_experiments_and_services_are_kept_apart_I17(observations: Observations) -> None:
    observations.take([line(), line(experiment="e2", arm="new", at=101), line(service="housing", at=102)], "p")
    assert values(observations) == {"u1": None}
    assert observations.counts("shop", "e2")["new"]["units"] == 1
    assert "old" not in observations.counts("shop", "e2")


def test_what_every_experiment_exposed_is_told_by_table_and_arm(observations: Observations) -> None:
    assert observations.exposed("shop") == ()
    observations.take([line(), line("u2", "new", at=102), line("u3", at=104, table=2), line(service="housing")], "p")
    observations.take([line(at=105, table=2), line("u4", at=106, experiment="e2"), line("u5", at=103)], "q")
    assert observations.exposed("shop") == (
        Exposed("e1", 1, "old", 2, 100, 103), Exposed("e1", 1, "new", 1, 102, 102),
        Exposed("e1", 2, "old", 1, 104, 104), Exposed("e2", 1, "old", 1, 106, 106),
    )  # fmt: skip


def test_a_request_without_a_unit_is_a_unit_of_its_own(observations: Observations) -> None:
    observations.take([line("", at=100, request="r1"), line("", at=101, request="r2", arm="new")], "p")
    assert [observations.counts("shop", "e1")[arm]["units"] for arm in ("old", "new")] == [1, 1]
    assert values(observations, until=110) == {"r1": None}
    assert report(observations, said(request="r2")) == ("kept",)
    assert values(observations) == {"r1": None, "r2": 1}


def test_an_outcome_counts_once_F75_I16(observations: Observations) -> None:
    observations.take([line(), line("u2")], "p")
    assert report(observations, said("u1", 1), said("u1", 1), said("u1", 0)) == ("kept", "duplicate", "conflict")
    assert report(observations, said("u1", 1), said("u1", 0), said("u2", 0)) == ("duplicate", "conflict", "kept")
    assert values(observations) == {"u1": 1, "u2": 0}
    counts = observations.counts("shop", "e1")
    assert (counts["old"]["outcomes"], counts[""]["conflict"]) == (2, 2)


def test_an_id_tells_outcomes_of_one_unit_apart_and_their_mean_is_its_value(observations: Observations) -> None:
    observations.take([line()], "p")
    outcomes = [said("u1", value, id=id) for value, id in ((1, "a"), (0, "b"), (1, "a"), (0, "a"))]
    words = report(observations, *outcomes)
    assert words == ("kept", "kept", "duplicate", "conflict")
    assert values(observations) == {"u1": 0.5}
    assert observations.counts("shop", "e1")["old"]["outcomes"] == 1


def test_a_late_outcome_is_kept_flagged_and_never_counted_F76(observations: Observations) -> None:
    observations.take([line(at=100), line("u2", at=100)], "p")
    assert report(observations, said("u1"), at=110.5) == ("late",)
    assert report(observations, said("u1"), at=111) == ("duplicate",)
    assert report(observations, said("u2"), at=110) == ("kept",)
    assert values(observations) == {"u1": None, "u2": 1}
    counts = observations.counts("shop", "e1")["old"]
    assert (counts["outcomes"], counts["late"]) == (1, 1)


@pytest.mark.parametrize(
    "outcome",
    [
        said("stranger"),
        said(request="r-none"),
        said(),
        said("u1", service="housing"),
        said("u1", service="nobody"),
        said("u2", request="r-u1-100"),
        said(id="x"),
    ],
    ids=["unit", "request", "nothing", "other service", "unknown service", "request of another unit", "id alone"],
)
def test_a_forged_outcome_is_unknown_and_changes_nothing_F77(observations: Observations, outcome: Outcome) -> None:
    observations.take([line(), line("u2")], "p")
    assert report(observations, outcome) == ("unknown",)
    assert values(observations) == {"u1": None, "u2": None}
    assert observations.counts("shop", "e1")["old"]["outcomes"] == 0


def test_what_comes_after_the_judge_has_looked_is_late_F76(observations: Observations) -> None:
    """Killer: an outcome that came in time, and was written as the judge had just looked, would count after a restart
    and not before.
    """
    observations.take([line(), line("u2", at=105)], "p")
    assert values(observations, until=110) == {"u1": None}
    assert observations.report([said("u1"), said("u2")], METRICS, at=109.99) == (
        Receipt("late", "its window of 10 s is over"), Receipt("kept"),
    )  # fmt: skip
    assert values(observations) == {"u1": None, "u2": 1}


def test_who_looks_with_a_shorter_window_takes_no_outcome_from_the_judge(observations: Observations) -> None:
    observations.take([line()], "p")
    assert len(observations.matured("shop", "e1", after=0, until=105, window=5)) == 1
    assert report(observations, said("u1"), at=106) == ("kept",)


def test_an_outcome_of_a_test_that_has_ended_is_late_F76(observations: Observations) -> None:
    """Killer: within its window it would be kept, although nobody will ever look at it."""
    observations.take([line(), line("u2"), line("u3", experiment="e2")], "p")
    said_of = [said("u1"), said("u3"), said("u1")]
    found = observations.report(said_of, METRICS, at=101, running={"shop": {"e2": METRICS["shop"]}})
    assert found == (Receipt("late", "its test has ended"), Receipt("kept"), Receipt("duplicate"))
    found = observations.report([said("u2")], METRICS, at=101, running={"housing": {}})
    assert found == (Receipt("kept"),)  # of a service that is left out, any may run
    assert values(observations) == {"u1": None, "u2": 1}
    assert observations.counts("shop", "e1")["old"]["late"] == 1


def test_while_nothing_is_under_test_nobody_is_a_stranger(observations: Observations) -> None:
    """Who is served by the incumbent alone is in no test: that is no forgery, and is not counted as one."""
    observations.take([line()], "p")
    found = observations.report([said("served"), said("u1")], METRICS, at=101, running={"shop": {}})
    assert found == (Receipt("unmeasured", "nothing of shop is under test"), Receipt("late", "its test has ended"))
    assert observations.counts("shop", "e1")[""]["unknown"] == 0


def test_an_outcome_is_read_by_the_metric_of_its_own_experiment(observations: Observations) -> None:
    """1.51: two majors under test at once may be judged by a metric each."""
    observations.take([line(), line("u2", experiment="e2")], "p")
    running = {"shop": {"e1": METRICS["shop"], "e2": Metric("stars", bounds=(0, 5), window=1)}}
    found = observations.report(
        [said("u1", 4), said("u2", 4), said("u2", 3, id="b")], METRICS, at=100.5, running=running
    )
    assert [each.word for each in found] == ["refused", "kept", "kept"]
    late = observations.report([said("u1", 1), said("u2", 5, id="c")], METRICS, at=105, running=running)
    assert [each.word for each in late] == ["kept", "late"]
    assert [each.value for each in observations.matured("shop", "e2", after=0, until=999, window=1)] == [3.5]


@pytest.mark.parametrize(
    ("outcome", "receipt"),
    [
        (said("u1", 0), Receipt("conflict", "1 was said before")),
        (said("u2", 2), Receipt("refused", "2 is neither 0 nor 1")),
        (said("u3"), Receipt("late", "its window of 10 s is over")),
        (said("u4"), Receipt("unknown", "no request of it was in the test")),
        (said("h1", 100, service="housing"), Receipt("refused", "no prediction was logged for it")),
        (said("h2", 0, service="housing"), Receipt("refused", "the truth is 0, so the relative error has no meaning")),
    ],
    ids=["conflict", "binary", "window", "stranger", "no prediction", "truth of 0"],
)
def test_what_does_not_count_is_told_why(observations: Observations, outcome: Outcome, receipt: Receipt) -> None:
    lines = [line(), line("u2"), line("u3", at=80), line("h1", service="housing")]
    observations.take([*lines, line("h2", service="housing", prediction=1.0)], "p")
    assert report(observations, said("u1", 1)) == ("kept",)
    assert observations.report([outcome], METRICS, at=101) == (receipt,)


def test_unknown_outcomes_are_counted_for_their_service_F77(observations: Observations) -> None:
    report(observations, said("x"), said("y"), said("z", service="housing"))
    assert observations.counts("shop", "e1")[""]["unknown"] == 2
    assert observations.counts("housing", "any")[""]["unknown"] == 1


def test_who_is_asked_about_again_is_counted_when_it_is_given_up_F77(observations: Observations) -> None:
    """Killer: count at every look, and one stranger is ten."""
    observations.take([line()], "p")
    for again in (True, True, False):
        found = observations.report([said("x"), said("u1")], METRICS, at=101, again=again)
        assert found[0] == Receipt("unknown", "no request of it was in the test")
    assert observations.counts("shop", "e1")[""]["unknown"] == 1
    assert observations.counts("shop", "e1")["old"]["outcomes"] == 1


def test_an_outcome_of_another_metric_is_not_counted(observations: Observations) -> None:
    """Who reports several things of a request names each: what nobody declared takes no place of what somebody did."""
    observations.take([line()], "p")
    outcomes = [said("u1", 7, metric="stars"), said("u1", 1, metric="bought"), said("u1", 1)]
    assert observations.report(outcomes, METRICS, at=101) == (
        Receipt("unmeasured", "bought is measured, not stars"), Receipt("kept"), Receipt("duplicate"),
    )  # fmt: skip
    running = {"shop": {"e1": Metric("stars", bounds=(0, 9), window=10)}}
    (found,) = observations.report([said("u1", 7, id="s", metric="stars")], METRICS, at=101, running=running)
    assert found == Receipt("kept")  # the metric of its own experiment


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, False, "1", None, 2, 0.5, 10**400, [1]])
def test_a_value_that_is_none_is_refused_F78(observations: Observations, value: Any) -> None:
    observations.take([line()], "p")
    assert report(observations, said("u1", value)) == ("refused",)
    assert observations.counts("shop", "e1")[""]["refused"] == 1
    assert report(observations, said("u1", 1)) == ("kept",)
    assert values(observations) == {"u1": 1}


def test_the_error_is_that_of_the_logged_prediction(observations: Observations) -> None:
    lines = [
        line(service="housing", prediction=90.0, request="r1"),
        line(service="housing", prediction=70.0, at=101, request="r2"),
        line("u2", service="housing", prediction=None, status=503, at=102),
        line("u2", service="housing", prediction=400.0, at=103),
        line("u3", service="housing", at=104),
    ]
    observations.take(lines, "p")
    words = report(
        observations,
        said("u1", 100, service="housing"),
        said("u2", 100, service="housing"),
        said("u3", 100, service="housing"),
        said("", 100, request="r2", service="housing"),
        at=105,
    )
    assert words == ("kept", "kept", "refused", "kept")
    found = values(observations, "housing")
    assert found == pytest.approx({"u1": 20.0, "u2": 100.0, "u3": None})  # u1: mean of 10 and 30; u2: cut at its bound


def test_an_id_is_one_of_its_unit(observations: Observations) -> None:
    """Killer: as one of the service's, the fourth visit of a second unit is a conflict or a duplicate, and lost."""
    observations.take([line(), line("u2"), line("u2:v", at=100), line("u1", experiment="e2", at=103)], "p")
    first = [said("u2", 1, id="v:4"), said("u2:v", 0, id="4"), said("u2", 0, id="v:5")]
    assert report(observations, *first) == ("kept", "kept", "kept")
    by_request = said(request="r-u2-100", id="v:4")  # joined to its unit, it is the same
    assert report(observations, first[0], by_request, said("u2", 0, id="v:4")) == (
        "duplicate", "duplicate", "conflict",
    )  # fmt: skip
    earlier, later = said(request="r-u1-100", id="v:4"), said("u1", id="v:4")
    assert report(observations, earlier, later, at=104) == ("kept", "duplicate")  # its unit's, in whichever test
    assert values(observations) == {"u1": 1, "u2": 0.5, "u2:v": 0}


def test_a_unit_is_joined_with_the_last_experiment_it_was_exposed_in(observations: Observations) -> None:
    observations.take([line(at=100), line(experiment="e2", at=105)], "p")
    assert report(observations, said("u1", 1), at=106) == ("kept",)
    assert values(observations) == {"u1": None}
    assert [each.value for each in observations.matured("shop", "e2", after=0, until=999, window=10)] == [1]


def test_only_a_first_bad_request_counts_and_its_unit_leaves(observations: Observations) -> None:
    bad: Mapping[str, Any] = {"status": 503}
    observations.take([line(at=1), line(at=2, **bad), line(at=3), line("u2", "new", at=4)], "p")
    observations.take([line(at=5, **bad), line("u2", "new", at=6, answered="old"), line("u2", "new", at=7)], "q")
    counted = observations.requests("shop", "e1", after=0)
    assert [(each.at, each.arm, each.bad) for each in counted] == [
        (1, "old", False), (2, "old", True), (4, "new", False), (6, "new", True),
    ]  # fmt: skip
    rest = observations.requests("shop", "e1", after=counted[2].order)
    assert rest == counted[3:]
    counts = observations.counts("shop", "e1")
    assert (counts["old"]["bad"], counts["new"]["bad"], counts["new"]["stepped_in"]) == (2, 1, 1)


def test_a_client_that_left_is_no_failure(observations: Observations) -> None:
    observations.take([line(status=0, flags="DC")], "p")
    assert observations.counts("shop", "e1")["old"] == {
        "units": 1, "requests": 1, "bad": 0, "stepped_in": 0, "outcomes": 0, "late": 0,
    }  # fmt: skip


def test_nothing_is_known_of_an_experiment_nobody_saw(observations: Observations) -> None:
    assert observations.matured("shop", "none", after=0, until=9e9, window=1) == ()
    assert observations.requests("shop", "none", after=0) == ()
    assert observations.counts("shop", "none") == {"": {"both": 0, "refused": 0, "conflict": 0, "unknown": 0}}


def test_a_batch_of_thousands_is_joined_whole_I16(observations: Observations) -> None:
    observations.take([line(f"u{n}", "new" if n % 2 else "old") for n in range(3000)], "p")
    words = report(observations, *(said(f"u{n}", bool(n % 3) if n % 2 else n % 3 % 2) for n in range(3000)))
    assert words.count("refused") == 1500  # bools
    assert words.count("kept") == 1500
    assert len(values(observations)) == 3000
    assert observations.counts("shop", "e1")["old"]["outcomes"] == 1500


def test_a_request_is_found_by_its_id(observations: Observations) -> None:
    """3.30: a walk to where an answer came from begins here."""
    again = line("u1", "new", at=200, request="r-u2-100", status=503)
    observations.take([line("u1"), line("u2"), again, line("", request="alone")], "p")
    assert observations.request("shop", "r-u1-100") == Request("shop", "u1", "r-u1-100", "old", False, 100)
    assert observations.request("shop", "r-u2-100") == Request("shop", "u1", "r-u2-100", "new", True, 200)
    assert (alone := observations.request("shop", "alone")) is not None
    assert alone.unit == "alone"
    assert observations.request("shop", "nothing") is None
    assert observations.request("housing", "r-u1-100") is None


def test_nothing_counts_from_before_a_unit_was_in_the_test_or_after_its_window(observations: Observations) -> None:
    """Where it is known when it came to be; times in whole seconds, and clocks that differ by one, count."""
    observations.take([line(at=100), line("u2", at=100), line("u3", at=100)], "p")
    before, second, after = said("u1", happened=98.9), said("u2", 0, happened=99.0), said("u3", happened=110.5)
    assert report(observations, before, second, after, at=105) == ("unknown", "kept", "late")
    assert report(observations, said("u1", happened=101), at=106) == ("kept",)
    assert values(observations) == {"u1": 1, "u2": 0, "u3": None}
