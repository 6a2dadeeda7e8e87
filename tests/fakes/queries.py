"""This file fakes what others keep: databases that hold outcomes, a Prometheus, and what was read of it, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from branchline.core.counters import Look
from branchline.core.outcome_query import Row, SqlQuery
from branchline.errors import BranchlineError, QueryRefused


class FakeQueries:
    """The Queries port: rows by the address of the database. `error` is raised instead of an answer, `asked` has
    what was asked since when.
    """

    def __init__(self) -> None:
        self.tables: dict[str, list[Row]] = {}
        self.error: BranchlineError | None = None
        self.asked: list[tuple[SqlQuery, float]] = []

    def rows(self, query: SqlQuery, since: float) -> Iterator[Row]:
        """The rows that are there."""
        self.asked.append((query, since))
        if self.error is not None:
            raise self.error
        if query.url not in self.tables:
            raise QueryRefused(table="metric.sql", reason=f"there is no {query.url}")
        yield from (row for row in self.tables[query.url] if row.time >= since)


class FakeReadings:
    """The Readings port; `numbers` has what each query gives (None: no data), `error` is raised in the place of all."""

    def __init__(self) -> None:
        self.numbers: Callable[[str], float | None] = lambda query: None
        self.error: BranchlineError | None = None
        self.asked: list[tuple[str, float]] = []

    def read(self, url: str, query: str, at: float) -> float | None:
        """What a query gives."""
        self.asked.append((query, at))
        if self.error is not None:
            raise self.error
        return self.numbers(query)


class FakeLooks:
    """The Looks port."""

    def __init__(self) -> None:
        self.kept: list[tuple[tuple[str, str, tuple[str, str]], Look]] = []

    def keep(self, service: str, experiment: str, arms: tuple[str, str], look: Look) -> None:
        """Keep a look."""
        self.kept.append(((service, experiment, arms), replace(look, order=len(self.kept) + 1)))

    def since(self, service: str, experiment: str, arms: tuple[str, str], after: int) -> tuple[Look, ...]:
        """The looks after a cursor."""
        return tuple(look for of, look in self.kept if of == (service, experiment, arms) and look.order > after)
