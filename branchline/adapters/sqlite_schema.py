"""This file brings a ledger's file to the newest schema: Alembic operations, one function per revision.

Rules: a revision that was released is never changed, a new one is added at the end of `REVISIONS` and says its columns
itself (the tables of `sqlite_tables` move on, an old revision must not). All of it happens in one transaction with the
new number, after a copy of the file was made. A file with a number that is not known here is newer, and left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Column, Float, Integer, Text
from sqlalchemy.engine import Connection

from branchline.errors import LedgerNewer

if TYPE_CHECKING:  # a start that finds the newest schema does without: importing it is a sixth of all that it does
    from alembic.operations import Operations


def _cells(kind: Any, *names: str) -> list[Column[Any]]:
    return [Column(name, kind, nullable=False) for name in names]


def _table(op: Operations, name: str, *cells: sa.schema.SchemaItem, numbered: bool = True) -> None:
    number = [Column("number", Integer, primary_key=True)] if numbered else []
    op.create_table(name, *number, *cells, sqlite_autoincrement=numbered)


def _append_only(op: Operations, *tables: str) -> None:
    """Triggers, because a promise that only our own code keeps is none (I15)."""
    for table in tables:
        for verb in ("update", "delete"):
            op.execute(
                f"create trigger {table}_no_{verb} before {verb} on {table} "
                f"begin select raise(abort, '{table} is append-only'); end"
            )


def first(op: Operations) -> None:
    """The ledger, the catalog and the observations."""
    unique, key = sa.UniqueConstraint, sa.PrimaryKeyConstraint
    text, whole, real, yes = sa.Text, sa.Integer, sa.Float, sa.Boolean
    op.create_table("alembic_version", Column("version_num", Text, primary_key=True))
    op.create_table("service", Column("name", Text, primary_key=True), *_cells(whole, "generation"),
                    *_cells(text, "state"))  # fmt: skip
    _table(op, "event", *_cells(text, "service"), *_cells(whole, "generation"), *_cells(text, "type", "detail"),
           unique("service", "generation"))  # fmt: skip
    op.create_table("audit", Column("number", Integer, sa.ForeignKey("event.number"), primary_key=True),
                    *_cells(text, "actor", "because"), *_cells(real, "at"),
                    *_cells(text, "state", "chain"))  # fmt: skip
    _table(op, "epoch")
    _table(op, "revision", *_cells(text, "service", "commit", "branch", "bump"), *_cells(whole, "line"),
           *_cells(text, "after", "tree", "environment", "sdk", "spec", "artifacts", "data", "trained", "author"),
           *_cells(real, "built"), *_cells(text, "schema"), unique("service", "commit"))  # fmt: skip
    _table(op, "version", *_cells(text, "service", "version", "commit"), *_cells(yes, "final"),
           key("service", "version"), unique("service", "commit", "final"), numbered=False)  # fmt: skip
    _table(op, "gate_result", *_cells(text, "service", "commit"), *_cells(whole, "evaluation"),
           *_cells(text, "gate", "result", "summary", "numbers"), *_cells(real, "seconds"),
           *_cells(text, "log"))  # fmt: skip
    _table(op, "step_run", *_cells(text, "service", "commit"), *_cells(whole, "run"),
           *_cells(text, "step", "state", "key", "artifact"), *_cells(real, "seconds"),
           *_cells(text, "summary", "why"))  # fmt: skip
    op.create_table("reader", Column("name", Text, primary_key=True), *_cells(text, "position"))
    _table(op, "request", *_cells(text, "service", "experiment", "unit", "request", "arm"), *_cells(whole, "table"),
           *_cells(yes, "bad", "counted"), *_cells(real, "at"), Column("prediction", Float))  # fmt: skip
    _table(op, "exposure", *_cells(text, "service", "experiment", "unit", "arm"), *_cells(whole, "table"),
           *_cells(real, "at"), Column("prediction", Float), *_cells(yes, "struck", "both"),
           unique("service", "experiment", "unit"))  # fmt: skip
    _table(op, "outcome", *_cells(text, "service", "key"), *_cells(whole, "exposure"),
           *_cells(real, "reported", "value", "at"), *_cells(yes, "late"), unique("service", "key"))  # fmt: skip
    _table(op, "tally", *_cells(text, "service", "experiment", "arm", "what"), *_cells(whole, "n"),
           key("service", "experiment", "arm", "what"), numbered=False)  # fmt: skip
    for name, table, columns in (
        ("gate_result_commit", "gate_result", ["service", "commit", "evaluation"]),
        ("step_run_commit", "step_run", ["service", "commit", "run"]),
        ("step_run_key", "step_run", ["key"]),
        ("request_id", "request", ["service", "request"]),
        ("request_counted", "request", ["service", "experiment", "number"]),
        ("exposure_unit", "exposure", ["service", "unit", "number"]),
        ("exposure_order", "exposure", ["service", "experiment", "number"]),
        ("outcome_exposure", "outcome", ["exposure"]),
    ):
        op.create_index(name, table, columns)
    _append_only(op, "event", "audit", "revision", "version", "gate_result", "step_run")


def second(op: Operations) -> None:
    """What a step's key was made of and what it met, what it cost, and what it told of itself.

    What was built before has no facts that guard it, so it is not reusable.
    """
    given: tuple[tuple[str, Any, str], ...] = (
        ("item", sa.Text, "''"), ("at", sa.Float, "0"), ("cpu", sa.Float, "0"), ("peak", sa.Integer, "0"),
        ("exit", sa.Text, "''"), ("log", sa.Text, "''"), ("reusable", sa.Boolean, "0"), ("origin", sa.Integer, "0"),
        ("notices", sa.Text, "'[]'"), ("lines", sa.Text, "'[]'"), ("facts", sa.Text, "'[]'"),
    )  # fmt: skip
    for name, kind, value in given:
        op.add_column("step_run", Column(name, kind, nullable=False, server_default=sa.text(value)))
    of_run = Column("step_run", Integer, sa.ForeignKey("step_run.number"), nullable=False)
    _table(op, "measure", of_run, *_cells(sa.Text, "name"), *_cells(sa.Float, "value"), Column("position", Float),
           *_cells(sa.Boolean, "last"))  # fmt: skip
    for name, table, columns in (
        ("step_run_run", "step_run", ["run"]),
        ("step_run_service", "step_run", ["service", "run", "step", "state"]),
        ("step_run_origin", "step_run", ["origin", "run"]),
        ("measure_step_run", "measure", ["step_run"]),
    ):
        op.create_index(name, table, columns)
    found_by = ["name", "value", "step_run"]
    op.create_index("measure_value", "measure", found_by, sqlite_where=sa.text("last = 1"))
    _append_only(op, "measure")


def third(op: Operations) -> None:
    """Since when a unit was in both arms; of those before it is not known, and they stay out of the conclusion."""
    op.add_column("exposure", Column("crossed", Float))
    op.execute("update exposure set crossed = at where both")


def fourth(op: Operations) -> None:
    """The second number of an outcome, by which metric it was reported, and how long a request took."""
    op.add_column("outcome", Column("other", Float))
    op.add_column("outcome", Column("metric", Text, nullable=False, server_default=sa.text("''")))
    op.add_column("request", Column("seconds", Float))


def fifth(op: Operations) -> None:
    """What was read of others' counters."""
    _table(op, "look", *_cells(sa.Text, "service", "experiment", "incumbent", "challenger", "guardrail"),
           *_cells(sa.Float, "at", "incumbent_all", "incumbent_bad", "challenger_all", "challenger_bad"))  # fmt: skip
    op.create_index("look_order", "look", ["service", "experiment", "number"])
    _append_only(op, "look")


def sixth(op: Operations) -> None:
    """An outcome's id is one of its unit: until now it was taken for one of the whole service."""
    begins = "case metric when '' then 1 else length(metric) + 2 end"
    unit = "(select length(unit) || ':' || unit from exposure where exposure.number = outcome.exposure)"
    op.execute(
        f"update outcome set key = substr(key, 1, {begins} - 1) || 'of:' || {unit} || substr(key, {begins} + 2) "
        f"where substr(key, {begins}, 3) = 'id:'"
    )


Revision = tuple[str, Callable[["Operations"], None]]
REVISIONS: tuple[Revision, ...] = (
    ("0001", first), ("0002", second), ("0003", third), ("0004", fourth), ("0005", fifth),
    ("0006", sixth),
)  # fmt: skip


def found(connection: Connection) -> str:
    """The number of the schema that a file has; '' for an empty one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(sa.text("select version_num from alembic_version")).scalar() or ""


def missing(number: str, revisions: tuple[Revision, ...] = REVISIONS) -> tuple[Revision, ...]:
    """The revisions that a file with this number lacks; raises LedgerNewer when the number is not known here."""
    numbers = ["", *(name for name, _ in revisions)]
    if number not in numbers:
        raise LedgerNewer(found=number)
    return revisions[numbers.index(number) :]


def bring(connection: Connection, revisions: tuple[Revision, ...]) -> None:
    """Apply the revisions in the open transaction, and write down the last one's number."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    operations = Operations(MigrationContext.configure(connection))
    for _, apply in revisions:
        apply(operations)
    for number, _ in revisions[-1:]:
        connection.execute(sa.text("delete from alembic_version"))
        connection.execute(sa.text("insert into alembic_version values (:number)"), {"number": number})
