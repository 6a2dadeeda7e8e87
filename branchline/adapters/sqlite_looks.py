"""This file keeps what was read of others' counters: the Looks port on SQLite."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, select

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_tables import look as table
from branchline.core.counters import Look

KEEP = insert(table)
SINCE = (
    select(table)
    .where(
        table.c.service == bindparam("of_service"), table.c.experiment == bindparam("of_experiment"),
        table.c.incumbent == bindparam("of_incumbent"), table.c.challenger == bindparam("of_challenger"),
        table.c.number > bindparam("after"),
    )
    .order_by(table.c.number)
)  # fmt: skip


class SqliteLooks:
    """The Looks port."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def keep(self, service: str, experiment: str, arms: tuple[str, str], look: Look) -> None:
        """Keep a look at the counters of two arms."""
        row = {
            "service": service, "experiment": experiment, "incumbent": arms[0], "challenger": arms[1],
            "guardrail": look.guardrail, "at": look.at, "incumbent_all": look.control[0],
            "incumbent_bad": look.control[1], "challenger_all": look.challenger[0],
            "challenger_bad": look.challenger[1],
        }  # fmt: skip
        with self._file.writing("a look at counters") as connection:
            connection.execute(KEEP, row)

    def since(self, service: str, experiment: str, arms: tuple[str, str], after: int) -> tuple[Look, ...]:
        """The looks at two arms after a cursor."""
        asked = {"of_service": service, "of_experiment": experiment, "of_incumbent": arms[0],
                 "of_challenger": arms[1], "after": after}  # fmt: skip
        with self._file.reading() as connection:
            return tuple(
                Look(
                    row.number, row.guardrail, row.at, (row.incumbent_all, row.incumbent_bad),
                    (row.challenger_all, row.challenger_bad),
                )
                for row in connection.execute(SINCE, asked)
            )  # fmt: skip
