"""This file tests what only real SQLite does with recorded runs and outcomes: older files, answers from indices."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from branchline.adapters import sqlite_runs, sqlite_schema
from branchline.adapters.sqlite import DRIVER, SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.core.revision import Measure, StepRun
from branchline.core.spec import Metric
from branchline.core.tracking import Query, bound
from branchline.ports import Outcome


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


def test_every_question_about_runs_is_answered_from_an_index(path: Path) -> None:
    """2.12: ten thousand runs are searched in milliseconds."""
    file = SqliteFile(path)
    SqliteCatalog(file).keep_run("shop", "a" * 40, [StepRun("s", "ran", "k", "x", metrics=(Measure("m", 1.0),))])
    asked = [
        Query("shop"), Query("shop", "s", "ran"), Query("shop", state="reused", before=9),
        Query("shop", commit="a" * 40), Query("shop", "s", bounds=(bound("m<2"), bound("m>0"))),
    ]  # fmt: skip
    statements: list[str] = []
    with file.reading() as connection:

        @event.listens_for(connection, "before_cursor_execute")
        def told(_c: object, _u: object, statement: str, parameters: Any, *_: object) -> None:
            if not statement.startswith("explain"):
                plans = connection.exec_driver_sql(f"explain query plan {statement}", parameters).all()
                statements.append(statement)
                scans = [row[3] for row in plans if row[3].startswith(("SCAN step_run", "SCAN measure"))]
                assert scans == [], statement

        for query in asked:
            assert len(sqlite_runs.found(connection, query)) == (query.state != "reused")
        sqlite_runs.steps(connection, sqlite_runs.newest(connection, "shop", "a" * 40), "shop", "a" * 40)
        sqlite_runs.owner(connection, 1)
        sqlite_runs.traces(connection, ["k", "l"])
        connection.execute(sqlite_runs.NUMBERS)
    assert len(statements) >= 20
    file.close()


def test_what_was_built_before_runs_were_recorded_is_still_read_and_reused_no_more_F59(path: Path) -> None:
    with closing(SqliteFile(path, revisions=sqlite_schema.REVISIONS[:1])):
        pass
    with closing(DRIVER.connect(str(path), isolation_level=None)) as connection:
        names = 'service, "commit", run, step, state, "key", artifact, seconds, summary, why'
        for step in ("clean", "train"):
            values = ("shop", "a" * 40, 1, step, "ran", "k", "art", 1.5, "ok", "first run")
            connection.execute(f"insert into step_run ({names}) values (?,?,?,?,?,?,?,?,?,?)", values)
    file = SqliteFile(path)
    catalog = SqliteCatalog(file)
    old = StepRun("train", "ran", "k", "art", 1.5, "ok", "first run", reusable=False)
    assert catalog.run("shop", "a" * 40) == (replace(old, step="clean"), old)
    assert catalog.traces(["k"]) == {}
    assert catalog.keep_run("shop", "b" * 40, [replace(old, state="reused"), replace(old, reusable=True)]) == 2
    assert [run.number for run in catalog.runs(Query("shop"))] == [2, 1]
    assert [trace.artifact for trace in catalog.traces(["k"])["k"]] == ["art"]
    file.close()


def test_ids_that_were_the_services_are_their_units_own(path: Path) -> None:
    """Killer: a ledger of an earlier version would count each outcome again that is sent again."""
    with closing(SqliteFile(path, revisions=sqlite_schema.REVISIONS[:5])):
        pass
    with closing(DRIVER.connect(str(path), isolation_level=None)) as connection:
        for unit in ("u1", "ünit:2"):
            connection.execute(
                'insert into exposure (service, experiment, unit, arm, "table", at, struck, both) '
                "values ('shop', 'e1', ?, 'old', 1, 100, 0, 0)",
                (unit,),
            )
        named = (("id:a", 1, ""), ("id:2:b", 2, ""), ("stars id:a", 2, "stars"))
        for key, of, metric in (*named, ("unit:1", 1, ""), ("stars unit:2", 2, "stars")):
            connection.execute(
                "insert into outcome (service, key, exposure, reported, value, at, late, metric) "
                "values ('shop', ?, ?, 1, 1, 101, 0, ?)",
                (key, of, metric),
            )
    file, declared = SqliteFile(path), Metric("bought", "binary", window=10, watched=(Metric("stars", window=10),))
    sent = [
        Outcome("shop", 1, unit="u1", id="a"),
        Outcome("shop", 1, unit="ünit:2", id="2:b"),
        Outcome("shop", 1, unit="ünit:2", id="a", metric="stars"),
        Outcome("shop", 1, unit="u1"),
        Outcome("shop", 1, unit="ünit:2", metric="stars"),
        Outcome("shop", 1, unit="ünit:2", id="a"),
    ]
    found = SqliteObservations(file).report(sent, {"shop": declared}, at=102)
    assert [each.word for each in found] == ["duplicate"] * 5 + ["kept"]
    file.close()
