"""This file fakes databases that hold outcomes: rows in memory, by the address of the database."""

from __future__ import annotations

from collections.abc import Iterator

from branchline.core.outcome_query import Row, SqlQuery
from branchline.errors import BranchlineError, QueryRefused


class FakeQueries:
    """The Queries port; `error` is raised instead of an answer, `asked` has what was asked since when."""

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
            raise QueryRefused(reason=f"there is no {query.url}")
        yield from (row for row in self.tables[query.url] if row.time >= since)
