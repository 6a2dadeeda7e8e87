"""This file runs one statement of SQLite for many values or rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Executable, Table
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Connection

from branchline.adapters.sqlite_tables import tally

CHUNK = 1000  # of values in one statement

Count = tuple[str, str, str, str]  # service, experiment, arm, what

COUNT = upsert(tally)
COUNT = COUNT.on_conflict_do_update(
    index_elements=[tally.c.service, tally.c.experiment, tally.c.arm, tally.c.what],
    set_={"n": tally.c.n + COUNT.excluded.n},
)


def some(
    connection: Connection, statement: Executable, values: Iterable[Any], of: Mapping[str, str], scalars: bool = False
) -> Iterator[Any]:
    """The rows of a statement for any number of values."""
    waiting = list(values)
    for start in range(0, len(waiting), CHUNK):
        found = connection.execute(statement, {**of, "some": waiting[start : start + CHUNK]})
        yield from found.scalars() if scalars else found


def run(connection: Connection, statement: Executable, rows: list[dict[str, Any]]) -> None:
    """A statement for every row, if there is any."""
    if rows:
        connection.execute(statement, rows)


def add(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert many rows that all have the same columns, as the driver takes them: SQLAlchemy takes as long as SQLite."""
    if rows:
        names = list(rows[0])
        columns, values = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
        connection.exec_driver_sql(f"insert into {table.name} ({columns}) values ({values})", rows)


def count(connection: Connection, counts: Counter[Count]) -> None:
    """Add to the running counts."""
    names = ("service", "experiment", "arm", "what")
    run(connection, COUNT, [{**dict(zip(names, key, strict=True)), "n": n} for key, n in counts.items() if n])
