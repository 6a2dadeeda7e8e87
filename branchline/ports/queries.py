"""This file says what the engine needs of databases that hold outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from branchline.core.outcome_query import Row, SqlQuery


class Queries(Protocol):
    """Databases of other people's, which are read and never written."""

    def rows(self, query: SqlQuery, since: float) -> Iterator[Row]:
        """The rows of a query, as they come; `since` (Unix seconds) is its parameter.

        A row whose value is null says nothing yet, and is left out. It may block for a minute, and longer where the
        network hangs: whoever iterates has a thread to spare.

        Raises DriverMissing, QueryRefused for what has to be changed by a person, QueryFailed for what may pass.
        """
