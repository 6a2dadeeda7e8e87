"""This file says what every Queries does: the fake, and a real SQLite, DuckDB and PostgreSQL (issue 7: a SQL query)."""

from __future__ import annotations

import importlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.outcome_queries import KINDS, Database, SqlQueries
from branchline.core.outcome_query import Row, SqlQuery
from branchline.errors import DriverMissing, QueryFailed, QueryRefused
from branchline.ports import Queries
from tests.databases import postgresql
from tests.fakes.queries import FakeQueries

SINCE = {
    "fake": "",
    "sqlite": "sold >= datetime(:since, 'unixepoch')",
    "duckdb": "sold >= to_timestamp(:since)::timestamp",
    "postgresql": "sold >= to_timestamp(:since) at time zone 'UTC'",
}
NOON = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
AT = "2023-11-14 22:{}"
SLOW = {
    "sqlite": "select max(i) as unit, 1 as time, 1 as value from "
    "(with recursive n(i) as (select 1 union all select i + 1 from n) select i from n)",
    "duckdb": "select sum(hash(a.i + b.i)) as unit, 1 as time, 1 as value "
    "from range(10000000) a(i), range(10000000) b(i)",
    "postgresql": "select pg_sleep(60)::text as unit, 1 as time, 1 as value",
}  # fmt: skip


@dataclass
class Base:
    """A database with a table of sales: unit, sold (a timestamp without zone), price; and how to write into it."""

    kind: str
    url: str
    top: Path
    write: Callable[[str], None]
    queries: Queries

    @property
    def query(self) -> SqlQuery:
        """The sales as outcomes."""
        return SqlQuery(f"select customer as unit, sold as time, price as value from sales where {SINCE[self.kind]};",
                        url=self.url)  # fmt: skip

    def sell(self, customer: str, at: str, price: str) -> None:
        """Write a sale; `at` is minute and second after ten in the evening."""
        if isinstance(self.queries, FakeQueries):
            minute, second = map(int, at.split(":"))
            found = Row(customer, NOON + 60 * (minute - 13) + second - 20, float(price) if price != "null" else 0.0)
            self.queries.tables.setdefault(self.url, []).extend([found] if price != "null" else [])
        else:
            self.write(f"insert into sales values ('{customer}', '{AT.format(at)}', {price})")

    def asked(self, since: float = 0.0, **changed: Any) -> list[Row]:
        """The rows since then."""
        return sorted(self.queries.rows(replace(self.query, **changed), since), key=lambda row: (row.time, row.unit))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as address:
        yield address


@pytest.fixture(params=["fake", "sqlite", "duckdb", "postgresql"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    kind = request.param
    if kind == "fake":
        fake = FakeQueries()
        fake.tables["fake:///sales"] = []
        return Base(kind, "fake:///sales", tmp_path, lambda text: None, fake)
    url = request.getfixturevalue("server") if kind == "postgresql" else f"{kind}:///sales.db"
    driver = importlib.import_module(KINDS[kind].driver)
    where = url if kind == "postgresql" else str(tmp_path / "sales.db")

    def write(text: str) -> None:
        with closing(driver.connect(where)) as connection:
            connection.execute(text)
            connection.commit()

    if kind == "postgresql":
        write("drop table if exists sales")
    write("create table sales (customer varchar(20), sold timestamp, price decimal(9, 2))")
    return Base(kind, url, tmp_path, write, SqlQueries(tmp_path, {}))


@pytest.fixture
def real(base: Base) -> Base:
    """A real one; the fake stands for them elsewhere."""
    if base.kind == "fake":
        base.queries = SqlQueries(base.top, {})
        base.url = "sqlite:///none.db"
    return base


def test_rows_are_outcomes_of_units_with_times_in_utc(base: Base) -> None:
    base.sell("ann", "13:20", "1.50")
    base.sell("bob", "14:20", "2")
    assert base.asked() == [Row("ann", NOON, 1.5), Row("bob", NOON + 60, 2.0)]


def test_a_query_is_told_since_when(base: Base) -> None:
    """Killer: read whole at every look, a large table would be read again and again."""
    for number, at in enumerate(("13:20", "14:20", "15:20")):
        base.sell(f"u{number}", at, "1")
    assert [row.unit for row in base.asked(NOON + 30)] == ["u1", "u2"]
    assert base.asked(NOON + 3600) == []


def test_what_has_no_value_yet_says_nothing(base: Base) -> None:
    base.sell("ann", "13:20", "null")
    base.sell("bob", "13:20", "0")
    assert [row.unit for row in base.asked()] == ["bob"]


def test_a_database_that_is_not_there_is_told(base: Base) -> None:
    gone = {"fake": "fake:///gone", "postgresql": "postgresql://x@/x?host=/nowhere"}
    with pytest.raises((QueryFailed, QueryRefused)):
        base.asked(url=gone.get(base.kind, f"{base.kind}:///gone.db"))


# ── real databases ─────────────────────────────────────────────────────────────────────────────────────────────────


def reals(base: Base) -> bool:
    """Whether there is a table behind it."""
    return base.kind != "fake"


@pytest.mark.parametrize("text", ["delete from sales", "drop table sales", "insert into sales values ('x', null, 1)",
                                  "with gone as (delete from sales returning *) select * from gone"])  # fmt: skip
def test_nothing_can_be_written(base: Base, text: str) -> None:
    """Killer: opened for writing and put as it stands, a branch's query would empty the table."""
    base.sell("ann", "13:20", "1")
    if reals(base):
        with pytest.raises((QueryFailed, QueryRefused)):
            base.asked(text=text)
    assert [row.unit for row in base.asked()] == ["ann"]


def test_many_rows_come_as_they_are_read(base: Base) -> None:
    count = 2500
    if reals(base):
        base.sell("u", "13:20", "1")
        for _ in range(12):
            base.write("insert into sales select * from sales")
        count = 4096
    else:
        for _ in range(count):
            base.sell("u", "13:20", "1")
    assert len(base.asked()) == count


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("'a' as unit, 1 as time", "its columns are unit, time"),
        ("'a' as who, 1 as time, 1 as value", "unit (or request), time and value"),
        ("'a' as unit, 'soon' as time, 1 as value", "'soon', which is no moment"),
        ("'a' as unit, null as time, 1 as value", "None, which is no moment"),
        ("'a' as unit, 1 as time, 'dear' as value", "'dear', which is no number"),
        ("null as unit, 1 as time, 1 as value", "names neither unit nor request"),
    ],
)
def test_what_is_no_outcome_is_told_in_words(real: Base, columns: str, said: str) -> None:
    if real.kind == "fake":
        sqlite3.connect(real.top / "none.db").close()
    with pytest.raises(QueryRefused) as refused:
        real.asked(text=f"select {columns}", url=real.url)
    assert said in refused.value.message


def test_ids_requests_percents_and_moments_of_all_kinds(real: Base) -> None:
    if real.kind == "fake":
        sqlite3.connect(real.top / "none.db").close()
    text = "select 7 as id, 'r1' as request, 12.5 as time, 10 % 4 as value, '%(since)s' as unit -- the end"
    assert real.asked(text=text, url=real.url) == [Row("%(since)s", 12.5, 2.0, "7", "r1")]
    text = "select 'a' as UNIT, '2023-11-14T22:13:20Z' as time, 1 as value"
    assert real.asked(text=text, url=real.url) == [Row("a", NOON, 1.0)]


def test_what_takes_too_long_is_broken_off(base: Base) -> None:
    """Killer: without the timer a query would hold its thread, and its lock, for ever."""
    if not reals(base):
        return
    begun = time.monotonic()
    with pytest.raises(QueryFailed):
        list(SqlQueries(base.top, {}, longest=0.3).rows(SqlQuery(SLOW[base.kind], base.url), 0.0))
    assert time.monotonic() - begun < 50


def test_rows_without_end_are_broken_off(tmp_path: Path) -> None:
    """Killer: between two rows there is no statement that could be broken off."""
    sqlite3.connect(tmp_path / "x.db").close()
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i as unit, 1 as time, 1 as value"
    with pytest.raises(QueryFailed):
        for _ in SqlQueries(tmp_path, {}, longest=0.3).rows(SqlQuery(f"{endless} from n", "sqlite:///x.db"), 0.0):
            pass


# ── addresses and drivers ──────────────────────────────────────────────────────────────────────────────────────────


def test_an_address_may_be_the_daemons_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "sales.db")) as file:
        file.execute("create table t (x)")
    query = SqlQuery("select 'a' as unit, 1 as time, 2 as value", variable="BRANCHLINE_SQL_SALES")
    known = {"BRANCHLINE_SQL_SALES": f"sqlite:///{tmp_path}/sales.db"}
    assert list(SqlQueries(Path("/nowhere"), known).rows(query, 0.0)) == [Row("a", 1.0, 2.0)]
    with pytest.raises(QueryRefused, match="no variable BRANCHLINE_SQL_SALES"):
        list(SqlQueries(tmp_path, {}).rows(query, 0.0))


@pytest.mark.parametrize("address", ["sales.db", "mysql://me@there/sales", "sqlite://", "://"])
def test_an_address_of_nothing_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(QueryRefused):
        list(SqlQueries(tmp_path, {"X": address}).rows(SqlQuery("select 1", variable="X"), 0.0))


def test_a_missing_driver_names_the_line_to_type(tmp_path: Path) -> None:
    kinds = {"duckdb": replace(KINDS["duckdb"], driver="no_such_driver")}
    with pytest.raises(DriverMissing) as missing:
        list(SqlQueries(tmp_path, {}, kinds).rows(SqlQuery("select 1", "duckdb:///x.db"), 0.0))
    assert "pip install 'branchline[duckdb]'" in missing.value.next


def test_no_driver_is_imported_before_it_is_needed() -> None:
    """Killer: imported with the adapter, each start of a daemon would take as long as DuckDB does."""
    text = "import sys; import branchline.app; print([each for each in ('duckdb', 'psycopg') if each in sys.modules])"
    told = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_password_is_told_nowhere(tmp_path: Path) -> None:
    """Killer: `postgresql` says the whole address where it cannot read it."""

    def connect(driver: Any, url: Any, top: Path) -> Any:
        raise driver.OperationalError(f"no {url.render_as_string(hide_password=False)}")

    kinds = {"postgresql": Database("psycopg", "pyformat", connect)}
    query = SqlQuery("select 1", variable="X")
    with pytest.raises(QueryFailed) as failed:
        list(SqlQueries(tmp_path, {"X": "postgresql://me:hunter2@there/x"}, kinds).rows(query, 0.0))
    assert "***" in failed.value.cause
    assert "hunter2" not in failed.value.cause
