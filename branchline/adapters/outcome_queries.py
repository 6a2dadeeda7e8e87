"""This file reads outcomes from databases of other people's: SQLite, DuckDB, PostgreSQL.

Rules. Nothing can be written: SQLite and DuckDB files are opened for reading alone, PostgreSQL in a transaction that
only reads, and the query stands inside another one, so that it can be nothing but a query. DuckDB may reach no other
file and no network. A connection lives for one look; what is not answered within a minute is broken off. A password in
an address is told nowhere. A driver is imported when a query needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import ArgumentError

from branchline.core.outcome_query import DATABASES, Row, SqlQuery
from branchline.errors import DriverMissing, QueryFailed, QueryRefused

LONGEST = 60.0  # seconds that a query may take
AT_ONCE = 1000  # rows
READS_ONLY = "-c default_transaction_read_only=on"
CLOSED = {"enable_external_access": "false", "lock_configuration": "true"}


@dataclass(frozen=True, slots=True)
class Database:
    """How one kind of database is reached: its driver's module, how that writes a parameter, and how to connect."""

    driver: str
    style: Literal["named", "numeric_dollar", "pyformat"]
    connect: Callable[[Any, URL, Path], Any]
    cursor: Callable[[Any], Any] = lambda connection: connection.cursor()
    stop: str = "interrupt"  # the method that breaks a query off, from another thread


def sqlite(driver: Any, url: URL, top: Path) -> Any:
    """A file, or what SQLite makes of a name."""
    return driver.connect(f"file:{quote(str(file_of(url, top)))}?mode=ro", uri=True, check_same_thread=False)


def duckdb(driver: Any, url: URL, top: Path) -> Any:
    """A file that nobody writes at this moment."""
    return driver.connect(str(file_of(url, top)), read_only=True, config=CLOSED)


def postgresql(driver: Any, url: URL, top: Path) -> Any:
    """A server; what libpq understands may stand in the address."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return driver.connect(address, connect_timeout=10, tcp_user_timeout=int(1000 * LONGEST), options=READS_ONLY)


def by_and_by(connection: Any) -> Any:
    """A cursor with a name is kept by the server, so that rows come as they are read."""
    return connection.cursor(name="outcomes")


def file_of(url: URL, top: Path) -> Path:
    """Where a file lies: below the project's root, unless its path is absolute."""
    return top / (url.database or "")


KINDS = dict(
    zip(
        DATABASES,
        (
            Database("sqlite3", "named", sqlite),
            Database("duckdb", "numeric_dollar", duckdb, lambda connection: connection),
            Database("psycopg", "pyformat", postgresql, by_and_by, "cancel"),
        ),
        strict=True,
    )
)


class SqlQueries:
    """The Queries port; `top` is the project's root, `environment` holds addresses that are nobody else's to read."""

    def __init__(
        self, top: Path, environment: Mapping[str, str] = os.environ, kinds: Mapping[str, Database] = KINDS,
        longest: float = LONGEST,
    ) -> None:  # fmt: skip
        self._top, self._environment, self._kinds, self._longest = top, environment, kinds, longest

    def rows(self, query: SqlQuery, since: float) -> Iterator[Row]:
        """The rows of a query, as they come; `since` is its parameter."""
        url = self._address(query)
        name = url.get_backend_name()
        if name not in self._kinds or not url.database:
            raise QueryRefused(
                table="metric.sql", reason=f"its address names no database; known are {', '.join(self._kinds)}"
            )
        kind = self._kinds[name]
        if importlib.util.find_spec(kind.driver) is None:
            raise DriverMissing(database=name)
        driver = importlib.import_module(kind.driver)
        try:
            with closing(kind.connect(driver, url, self._top)) as connection:
                broken_off = threading.Timer(self._longest, getattr(connection, kind.stop))
                broken_off.daemon = True
                broken_off.start()
                try:
                    for row in read(query, connection, kind, since):
                        if not broken_off.is_alive():  # between two rows there was nothing to break off
                            raise QueryFailed(f"It took longer than {self._longest:g} s.", table="metric.sql")
                        yield row
                finally:
                    broken_off.cancel()
        except (driver.ProgrammingError, driver.NotSupportedError, driver.DataError) as error:
            raise QueryRefused(table="metric.sql", reason=told(error, url)) from error
        except driver.Error as error:
            raise QueryFailed(told(error, url), table="metric.sql") from error

    def _address(self, query: SqlQuery) -> URL:
        found = query.url or self._environment.get(query.variable, "")
        if not found:
            raise QueryRefused(table="metric.sql", reason=f"the daemon has no variable {query.variable}")
        try:
            return make_url(found)
        except ArgumentError:
            raise QueryRefused(
                table="metric.sql", reason=f"{query.variable or 'url'} holds no address of a database"
            ) from None


def read(query: SqlQuery, connection: Any, kind: Database, since: float) -> Iterator[Row]:
    """The rows that a connection gives; raises QueryRefused for what no outcome can be."""
    whole = text(f"select * from (\n{query.text.strip().rstrip(';')}\n) as outcomes")
    compiled = whole.compile(dialect=DefaultDialect(paramstyle=kind.style))
    given: Any = [since] * len(compiled.params) if kind.style == "numeric_dollar" else {"since": since}
    with closing(kind.cursor(connection)) as cursor:  # DuckDB's would be a connection that nobody could break off
        cursor.execute(str(compiled), given)
        columns = [each[0].lower() for each in cursor.description]
        if not {"time", "value"} <= {*columns} or not {"unit", "request"} & {*columns}:
            wanted = "unit (or request), time and value"
            raise QueryRefused(
                table="metric.sql", reason=f"its columns are {', '.join(columns)}; {wanted} have to be among them"
            )
        while some := cursor.fetchmany(AT_ONCE):
            for each in some:
                if (row := row_of(dict(zip(columns, each, strict=True)))) is not None:
                    yield row


def row_of(cells: Mapping[str, Any]) -> Row | None:
    """One row; None where its value is null, so nothing is known yet."""
    value = cells["value"]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise QueryRefused(table="metric.sql", reason=f"its value is {value!r}, which is no number")
    named = {name: "" if cells.get(name) is None else str(cells[name]) for name in ("unit", "request", "id")}
    if not named["unit"] and not named["request"]:
        raise QueryRefused(table="metric.sql", reason="a row names neither unit nor request")
    return Row(time=seconds(cells["time"]), value=float(value), **named)


def seconds(time: object) -> float:
    """A time as Unix seconds: a number is so many, what has no zone is in UTC; raises QueryRefused for what is none."""
    if isinstance(time, str):
        with suppress(ValueError):
            time = datetime.fromisoformat(time)
    if isinstance(time, datetime):
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    if isinstance(time, bool) or not isinstance(time, int | float | Decimal) or not math.isfinite(time):
        raise QueryRefused(table="metric.sql", reason=f"its time is {time!r}, which is no moment")
    return float(time)


def told(error: Exception, url: URL) -> str:
    """What a database says, in one line, without what the address keeps to itself."""
    said = " ".join(str(error).split())[:300] or type(error).__name__
    return said.replace(url.password, "***") if url.password else said
