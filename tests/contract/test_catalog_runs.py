"""This file says how every Catalog keeps and finds runs: the fake and SQLite (2.11 to 2.14)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.core.reuse import Fact, Line, Notice, Trace
from branchline.core.revision import Measure, StepRun
from branchline.core.tracking import Query, bound
from branchline.errors import UnknownReference
from branchline.ports import Catalog
from tests.fakes.catalog import FakeCatalog

LINES = (Line("code train:fit", "ab", "train.py:3", ("train:main", "train:fit")), Line("data sales", "cd"))
FACTS = (Fact("file", "sql/q.sql", "ef"), Fact("ran", "train:plug", ""))
WHOLE = StepRun(
    "train", "ran", "k", "art", 2.5, "ok", "first run", item="2026-01", at=100.0, cpu=3.5, peak=1 << 33, exit="ended",
    log="log", lines=LINES, facts=FACTS, notices=(Notice("BL303", "reads the clock", "train.py:9", True),),
    metrics=(Measure("loss", 0.5, 1), Measure("loss", 0.25, 2), Measure("mape", 9.5)),
)  # fmt: skip


@pytest.fixture(params=["fake", "sqlite"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    if request.param == "fake":
        yield FakeCatalog()
        return
    file = SqliteFile(tmp_path / "ledger.sqlite3")
    yield SqliteCatalog(file)
    file.close()


def numbers(catalog: Catalog, *bounds: str, **asked: str | int) -> list[int]:
    query = replace(Query(bounds=tuple(map(bound, bounds))), **asked)  # type: ignore[arg-type]
    return [run.number for run in catalog.runs(query)]


def scored(step: str, state: str = "ran", **metrics: float) -> StepRun:
    told = tuple(Measure(name, value) for name, value in metrics.items())
    return StepRun(step, state, f"{step} {metrics}", "art", metrics=told)


def test_all_that_is_known_of_a_step_is_read_again(catalog: Catalog) -> None:
    number = catalog.keep_run("housing", "a" * 40, [WHOLE])
    assert catalog.run("housing", "a" * 40) == (WHOLE,)
    found = catalog.numbered(number)
    assert (found.number, found.service, found.commit, found.steps) == (number, "housing", "a" * 40, (WHOLE,))
    assert (found.state, found.at) == ("ran", 100.0)


def test_every_run_has_a_number_of_its_own(catalog: Catalog) -> None:
    assert [catalog.keep_run(name, "a" * 40, [WHOLE, WHOLE]) for name in ("housing", "housing", "listings")] == [
        1,
        2,
        3,
    ]
    assert catalog.keep_run("housing", "b" * 40, []) == 0
    for number in (0, 4):
        with pytest.raises(UnknownReference) as told:
            catalog.numbered(number)
        assert (told.value.cause, told.value.next) == ("no run has this number", "branchline runs")


def test_what_was_reused_is_read_with_what_the_run_that_did_the_work_told(catalog: Catalog) -> None:
    catalog.keep_run("housing", "a" * 40, [WHOLE])
    catalog.keep_run("housing", "a" * 40, [replace(WHOLE, artifact="other", metrics=())])
    reused = catalog.keep_run(
        "housing", "b" * 40, [StepRun("train", "reused", "k", "art"), StepRun("x", "reused", "y")]
    )
    one, other = catalog.numbered(reused).steps
    assert (one.lines, one.facts, one.metrics) == (LINES, FACTS, WHOLE.metrics)
    assert (one.seconds, one.notices, other.metrics) == (0.0, (), ())
    assert numbers(catalog, "mape<10") == [3, 1]


def test_what_failed_guards_nothing_but_what_it_told_is_kept(catalog: Catalog) -> None:
    number = catalog.keep_run("housing", "a" * 40, [replace(WHOLE, state="failed", artifact="")])
    [step] = catalog.numbered(number).steps
    assert (step.lines, step.facts, step.metrics) == (LINES, (), WHOLE.metrics)


def test_traces_are_of_what_ran_and_may_be_reused_newest_first(catalog: Catalog) -> None:
    assert catalog.traces(["k"]) == {}
    catalog.keep_run("housing", "a" * 40, [WHOLE])
    for other in ({"state": "failed"}, {"state": "reused"}, {"reusable": False}, {"artifact": ""}, {"key": "k2"}):
        catalog.keep_run("housing", "a" * 40, [replace(WHOLE, **other)])
    whole = (Trace("art", FACTS),)
    assert catalog.traces(["k", "k2", "k3"]) == {"k": whole, "k2": whole}
    for n in range(20):
        catalog.keep_run("housing", "a" * 40, [replace(WHOLE, artifact=f"art{n}", facts=())])
    found = catalog.traces(["k", "k2"])["k"]
    assert (len(found), found[0].artifact, found[0].facts) == (16, "art19", ())


def test_runs_are_found_newest_first_and_in_brief(catalog: Catalog) -> None:
    for commit in "abc":
        catalog.keep_run("housing", commit * 40, [replace(WHOLE, key=commit), scored("score")])
    catalog.keep_run("listings", "d" * 40, [WHOLE])
    assert numbers(catalog) == [4, 3, 2, 1]
    assert numbers(catalog, service="housing", limit=2) == [3, 2]
    assert numbers(catalog, service="housing", before=3) == [2, 1]
    assert numbers(catalog, service="nobody") == []
    assert numbers(catalog, service="housing", commit="b" * 40) == [2]
    [found] = catalog.runs(Query("housing", limit=1))
    newest = (Measure("loss", 0.25, 2), Measure("mape", 9.5))
    assert [step.step for step in found.steps] == ["train", "score"]
    assert found.steps[0] == replace(WHOLE, key="c", lines=(), facts=(), notices=(), metrics=newest)


def test_runs_are_found_by_step_and_state(catalog: Catalog) -> None:
    catalog.keep_run("housing", "a" * 40, [scored("clean"), scored("train", "failed")])
    catalog.keep_run("housing", "a" * 40, [scored("clean", "reused"), scored("train")])
    catalog.keep_run("housing", "a" * 40, [scored("clean", "reused"), scored("train", "reused")])
    catalog.keep_run("housing", "a" * 40, [scored("other")])
    catalog.keep_run("housing", "a" * 40, [scored("other"), scored("else", "stopped")])
    assert [run.state for run in catalog.runs(Query())] == ["stopped", "ran", "reused", "ran", "failed"]
    states = ("failed", "stopped", "ran", "reused")
    assert [numbers(catalog, state=state) for state in states] == [[1], [5], [4, 2], [3]]
    assert numbers(catalog, step="train") == [3, 2, 1]
    assert numbers(catalog, step="clean", state="reused") == [3, 2]
    assert numbers(catalog, step="clean", state="failed") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mape<9", [1]),
        ("mape<=9", [2, 1]),
        ("mape > 9", [3]),
        ("mape>=9", [3, 2]),
        ("mape=9", [2]),
        ("mape!=9", [3, 1]),
    ],
)
def test_runs_are_found_by_the_bounds_of_a_metric(catalog: Catalog, text: str, expected: list[int]) -> None:
    for value in (8.0, 9.0, 10.0):
        catalog.keep_run("housing", "a" * 40, [scored("train", mape=value)])
    catalog.keep_run("housing", "a" * 40, [scored("train", other=9.0)])
    assert numbers(catalog, text) == expected


def test_every_bound_has_to_hold_and_of_a_curve_its_last_value_counts(catalog: Catalog) -> None:
    curve = replace(
        WHOLE, key="c", metrics=tuple(Measure("loss", value, at) for at, value in enumerate((9.0, 5.0, 1.0)))
    )
    catalog.keep_run("housing", "a" * 40, [curve, scored("score", mape=8.0)])
    catalog.keep_run("housing", "a" * 40, [scored("train", loss=1.0), scored("score", mape=12.0)])
    assert numbers(catalog, "loss<2") == [2, 1]
    assert numbers(catalog, "loss>2") == []
    assert numbers(catalog, "loss<2", "mape<10") == [1]
    assert numbers(catalog, "mape<10", step="train") == []
    assert numbers(catalog, "mape<10", step="score") == [1]


def test_a_run_goes_on(catalog: Catalog) -> None:
    """What a build has left is kept while it runs, so that a killed one goes on from there."""
    first = catalog.keep_run("housing", "a" * 40, [WHOLE])
    other = catalog.keep_run("housing", "b" * 40, [WHOLE])
    assert catalog.keep_run("housing", "a" * 40, [replace(WHOLE, step="score")], first) == first
    assert catalog.keep_run("housing", "a" * 40, [], first) == first
    assert [step.step for step in catalog.run("housing", "a" * 40)] == [WHOLE.step, "score"]
    assert catalog.keep_run("housing", "c" * 40, [WHOLE]) == other + 1
