"""This file says what the ledger's tables are: the newest schema, as SQLAlchemy Core reads and writes it.

`sqlite_schema` brings a file to this form, and a test compares the two. Times are Unix seconds. What is in
`APPEND_ONLY` is so by triggers, which refuse to change or delete its rows.
"""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, MetaData, Table, Text, UniqueConstraint, text

metadata = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _whole(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False)


def _real(name: str) -> Column[float]:
    return Column(name, Float, nullable=False)


def _number() -> Column[int]:
    """A row's number, never given again: it is used as a cursor."""
    return Column("number", Integer, primary_key=True)


# Alembic's own table: the revision of the schema that this file has.
alembic_version = Table("alembic_version", metadata, Column("version_num", Text, primary_key=True))

# ---- the ledger: what happened (event), who did it (audit), what became of it (service), who controls (epoch)
service = Table(
    "service", metadata, Column("name", Text, primary_key=True), _whole("generation"), _text("state"),
)  # fmt: skip
event = Table(
    "event", metadata, _number(), _text("service"), _whole("generation"), _text("type"), _text("detail"),
    UniqueConstraint("service", "generation"), sqlite_autoincrement=True,
)  # fmt: skip
audit = Table(
    "audit", metadata, Column("number", Integer, ForeignKey("event.number"), primary_key=True),
    _text("actor"), _text("because"), _real("at"), _text("state"), _text("chain"),
)  # fmt: skip
epoch = Table("epoch", metadata, _number(), sqlite_autoincrement=True)

# ---- the catalog: what was built, under which version, what the gates found, what the steps left
# A step's `run` counts all runs; `origin` is the row of the run that did the work, which for a reused step is an older
# one: lines, facts and measures are kept there, once.
revision = Table(
    "revision", metadata, _number(), _text("service"), _text("commit"), _text("branch"), _text("bump"), _whole("line"),
    _text("after"), _text("tree"), _text("environment"), _text("sdk"), _text("spec"), _text("artifacts"), _text("data"),
    _text("trained"), _text("author"), _real("built"), _text("schema"), UniqueConstraint("service", "commit"),
    sqlite_autoincrement=True,
)  # fmt: skip
version = Table(
    "version", metadata, Column("service", Text, primary_key=True), Column("version", Text, primary_key=True),
    _text("commit"), Column("final", Boolean, nullable=False), UniqueConstraint("service", "commit", "final"),
)  # fmt: skip
gate_result = Table(
    "gate_result", metadata, _number(), _text("service"), _text("commit"), _whole("evaluation"), _text("gate"),
    _text("result"), _text("summary"), _text("numbers"), _real("seconds"), _text("log"),
    Index("gate_result_commit", "service", "commit", "evaluation"), sqlite_autoincrement=True,
)  # fmt: skip
step_run = Table(
    "step_run", metadata, _number(), _text("service"), _text("commit"), _whole("run"), _text("step"), _text("state"),
    _text("key"), _text("artifact"), _real("seconds"), _text("summary"), _text("why"),
    _text("item"), _real("at"), _real("cpu"), _whole("peak"), _text("exit"), _text("log"),
    Column("reusable", Boolean, nullable=False), _whole("origin"), _text("notices"), _text("lines"), _text("facts"),
    Index("step_run_commit", "service", "commit", "run"), Index("step_run_key", "key"),
    Index("step_run_run", "run"), Index("step_run_service", "service", "run", "step", "state"),
    Index("step_run_origin", "origin", "run"), sqlite_autoincrement=True,
)  # fmt: skip
# What steps told of themselves; `last` is the newest of a name, by which a run is found, the others draw its curve.
measure = Table(
    "measure", metadata, _number(), Column("step_run", Integer, ForeignKey("step_run.number"), nullable=False),
    _text("name"), _real("value"), Column("position", Float), Column("last", Boolean, nullable=False),
    Index("measure_step_run", "step_run"),
    Index("measure_value", "name", "value", "step_run", sqlite_where=text("last = 1")),
    sqlite_autoincrement=True,
)  # fmt: skip

# ---- what was read of others' counters, for the guardrails on them; an append-only record, by trigger
look = Table(
    "look", metadata, _number(), _text("service"), _text("experiment"), _text("incumbent"), _text("challenger"),
    _text("guardrail"), _real("at"), _real("incumbent_all"), _real("incumbent_bad"), _real("challenger_all"),
    _real("challenger_bad"), Index("look_order", "service", "experiment", "number"), sqlite_autoincrement=True,
)  # fmt: skip

# ---- observations: requests of split routes, a unit's exposure, what was reported, and their running counts
reader = Table("reader", metadata, Column("name", Text, primary_key=True), _text("position"))
request = Table(
    "request", metadata, _number(), _text("service"), _text("experiment"), _text("unit"), _text("request"),
    _text("arm"), _whole("table"), Column("bad", Boolean, nullable=False), Column("counted", Boolean, nullable=False),
    _real("at"), Column("prediction", Float), Column("seconds", Float),
    Index("request_id", "service", "request"), Index("request_counted", "service", "experiment", "number"),
    sqlite_autoincrement=True,
)  # fmt: skip
# `struck`: its first bad request was counted; `both`: it was seen in more than one arm, and `crossed` since when, or
# since when that could be known.
exposure = Table(
    "exposure", metadata, _number(), _text("service"), _text("experiment"), _text("unit"), _text("arm"),
    _whole("table"), _real("at"), Column("prediction", Float), Column("struck", Boolean, nullable=False),
    Column("both", Boolean, nullable=False), Column("crossed", Float),
    UniqueConstraint("service", "experiment", "unit"),
    Index("exposure_unit", "service", "unit", "number"), Index("exposure_order", "service", "experiment", "number"),
    sqlite_autoincrement=True,
)  # fmt: skip
# `reported` is what the caller said, `value` the metric's value of it, `other` the second number of a pair, `metric` is
# the name of a metric that is only watched. Late ones are kept and never counted.
outcome = Table(
    "outcome", metadata, _number(), _text("service"), _text("key"), _whole("exposure"), _real("reported"),
    _real("value"), _real("at"), Column("late", Boolean, nullable=False), Column("other", Float), _text("metric"),
    UniqueConstraint("service", "key"),
    Index("outcome_exposure", "exposure"), sqlite_autoincrement=True,
)  # fmt: skip
# Running counts, so that a look at an experiment does not read its rows; arm '' counts for the experiment as a whole.
tally = Table(
    "tally", metadata, Column("service", Text, primary_key=True), Column("experiment", Text, primary_key=True),
    Column("arm", Text, primary_key=True), Column("what", Text, primary_key=True), _whole("n"),
)  # fmt: skip

APPEND_ONLY = (event, audit, revision, version, gate_result, step_run, measure, look)
