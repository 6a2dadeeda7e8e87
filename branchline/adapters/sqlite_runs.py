"""This file keeps and finds recorded runs in the ledger's file, for the Catalog port.

Rules: a run is rows of `step_run`, never changed. What a step's key was made of, what it met and what it told of itself
is kept once, with the row that ran (`origin`), whoever reuses it. Every question is answered from an index.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import eq, ge, gt, itemgetter, le, lt, ne
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, RowMapping, Select, bindparam, exists, func, insert, select
from sqlalchemy.engine import Connection

from branchline.adapters.sqlite_tables import measure, step_run
from branchline.core.reuse import Fact, Line, Notice, Trace
from branchline.core.revision import Measure, StepRun
from branchline.core.tracking import WORST, Bound, Query, Run

Kind = TypeVar("Kind", Line, Fact, Notice)
RAN = "ran"
CALLED = (RAN, "same", "close", "differs")  # something of the service was run
TRACES = 16  # newest results that are kept in mind under one key
SIGNS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "=": eq, "!=": ne}
PLAIN = ("step", "state", "key", "artifact", "seconds", "summary", "why",
         "item", "at", "cpu", "peak", "exit", "log", "reusable")  # fmt: skip
BRIEF = [step_run.c[name] for name in ("number", "run", "service", "commit", "origin", *PLAIN)]

# Older ledgers counted the runs of each commit: the largest number of all is larger than each of those, too.
# Each is a question of its own, for only then SQLite looks at the end of an index instead of reading it.
NUMBERS = select(
    select(func.max(step_run.c.number)).scalar_subquery(), select(func.max(step_run.c.run)).scalar_subquery()
)
NEWEST = select(func.max(step_run.c.run)).where(
    step_run.c.service == bindparam("service"), step_run.c.commit == bindparam("commit")
)
OF_RUN = (
    step_run.c.run == bindparam("run"),
    step_run.c.service == bindparam("service"),
    step_run.c.commit == bindparam("commit"),
)
STEPS = select(step_run).where(*OF_RUN).order_by(step_run.c.number)
WORK = select(step_run.c.number, step_run.c.lines, step_run.c.facts).where(
    step_run.c.number.in_(select(step_run.c.origin).where(*OF_RUN))
)
OWNER = (
    select(step_run.c.service, step_run.c.commit)
    .where(step_run.c.run == bindparam("run"))
    .order_by(step_run.c.number.desc())
    .limit(1)
)
AMONG = step_run.c.run.in_(bindparam("runs", expanding=True))
FOUND = select(*BRIEF).where(AMONG).order_by(step_run.c.run.desc(), step_run.c.number)
MEASURES = select(measure.c.step_run, measure.c.name, measure.c.value, measure.c.position).order_by(measure.c.number)
TOLD = MEASURES.where(measure.c.step_run.in_(select(step_run.c.origin).where(*OF_RUN)))
TOLD_LAST = MEASURES.where(measure.c.step_run.in_(select(step_run.c.origin).where(AMONG)), measure.c.last)
# In the driver's own words: a curve may have many thousand points, and SQLAlchemy takes its time for each row's names.
TELL = "insert into measure (step_run, name, value, position, last) values (?, ?, ?, ?, ?)"
NTH = func.row_number().over(partition_by=step_run.c.key, order_by=step_run.c.number.desc()).label("nth")
LEFT = (
    select(step_run.c.key, step_run.c.artifact, step_run.c.facts, NTH)
    .where(step_run.c.key.in_(bindparam("keys", expanding=True)), step_run.c.state == RAN, step_run.c.artifact != "")
    .where(step_run.c.reusable)
    .subquery()
)
TRACED = select(LEFT.c.key, LEFT.c.artifact, LEFT.c.facts).where(LEFT.c.nth <= TRACES).order_by(LEFT.c.key, LEFT.c.nth)


def keep(connection: Connection, service: str, commit: str, steps: Sequence[StepRun], going_on: int = 0) -> int:
    """Keep a run, or more of one that goes on, and return its number; 0 for one without steps, which is none."""
    if not steps:
        return going_on
    number, largest = (found or 0 for found in connection.execute(NUMBERS).one())
    run = going_on or largest + 1
    origins = _origins(connection, [step for step in steps if step.state == "reused"])
    rows: list[dict[str, Any]] = []
    measures: list[tuple[Any, ...]] = []
    for at, step in enumerate(steps, number + 1):
        origin = origins.get((step.key, step.artifact), at)
        row = {name: getattr(step, name) for name in PLAIN}
        kept = {
            "lines": _packed(step.lines if step.state != "reused" else ()),
            "facts": _packed(step.facts if step.state in CALLED else ()),
            "notices": _packed(step.notices),
        }
        rows.append({"number": at, "service": service, "commit": commit, "run": run, "origin": origin} | row | kept)
        if origin == at:
            measures += list(_measured(at, step.metrics))
    connection.execute(insert(step_run), rows)
    if measures:
        connection.exec_driver_sql(TELL, measures)
    return run


def steps(connection: Connection, run: int, service: str, commit: str) -> tuple[StepRun, ...]:
    """The steps of a run with all that is known of them."""
    mine = {"run": run, "service": service, "commit": commit}
    work = {number: (lines, facts) for number, lines, facts in connection.execute(WORK, mine).all()}
    metrics = _metrics(connection, TOLD, mine)
    return tuple(
        _step(row, metrics, notices=_unpacked(Notice, row["notices"]), lines=_unpacked(Line, lines),
              facts=_unpacked(Fact, facts))
        for row in connection.execute(STEPS, mine).mappings().all()
        for lines, facts in [work.get(row["origin"], ("[]", "[]"))]
    )  # fmt: skip


def newest(connection: Connection, service: str, commit: str) -> int:
    """The number of a commit's newest run; 0 when there was none."""
    return connection.execute(NEWEST, {"service": service, "commit": commit}).scalar_one() or 0


def owner(connection: Connection, run: int) -> tuple[str, str]:
    """Service and commit of a run; ('', '') when there is none of that number."""
    row = connection.execute(OWNER, {"run": run}).first()
    return (row[0], row[1]) if row else ("", "")


def found(connection: Connection, query: Query) -> tuple[Run, ...]:
    """The runs that a query means, newest first: their steps in brief, with the last value of each metric."""
    meant = {"runs": connection.execute(_wanted(query)).scalars().all()}
    rows = connection.execute(FOUND, meant).mappings().all()
    metrics = _metrics(connection, TOLD_LAST, meant)
    told: dict[tuple[int, str, str], list[StepRun]] = {}
    for row in rows:
        told.setdefault((row["run"], row["service"], row["commit"]), []).append(_step(row, metrics))
    return tuple(Run(number, service, commit, tuple(steps)) for (number, service, commit), steps in told.items())


def traces(connection: Connection, keys: Collection[str]) -> dict[str, tuple[Trace, ...]]:
    """The results that may be reused under each key, newest first."""
    rows = connection.execute(TRACED, {"keys": list(keys)}).all()
    return {
        key: tuple(Trace(artifact, _unpacked(Fact, facts)) for _, artifact, facts in found)
        for key, found in groupby(rows, itemgetter(0))
    }


def _origins(connection: Connection, reused: Sequence[StepRun]) -> dict[tuple[str, str], int]:
    """Key and artifact -> the row of the newest run that left that artifact under that key."""
    wanted = {(step.key, step.artifact) for step in reused}
    if not wanted:
        return {}
    asked = (
        select(step_run.c.key, step_run.c.artifact, func.max(step_run.c.number))
        .where(step_run.c.key.in_({key for key, _ in wanted}), step_run.c.state == RAN)
        .group_by(step_run.c.key, step_run.c.artifact)
    )
    return {(key, artifact): number for key, artifact, number in connection.execute(asked)}


def _measured(number: int, metrics: Sequence[Measure]) -> Iterator[tuple[int, str, float, float | None, bool]]:
    newest = {each.name: at for at, each in enumerate(metrics)}
    for at, (name, value, position) in enumerate(metrics):
        yield number, name, value, position, newest[name] == at


def _metrics(connection: Connection, asked: Select[Any], meant: Mapping[str, Any]) -> dict[int, list[Measure]]:
    """What was told, by the row that did the work."""
    by_row: dict[int, list[Measure]] = {}
    for number, *told in connection.execute(asked, meant).all():
        by_row.setdefault(number, []).append(Measure(*told))
    return by_row


def _wanted(query: Query) -> Select[tuple[int]]:
    """The numbers of the runs that a query means."""
    of_step = [step_run.c.step == query.step] if query.step else []
    asked = select(step_run.c.run).distinct().where(*of_step)
    if query.service:
        asked = asked.where(step_run.c.service == query.service)
    if query.commit:
        asked = asked.where(step_run.c.commit == query.commit)
    if query.before:
        asked = asked.where(step_run.c.run < query.before)
    if query.state:
        asked = asked.where(step_run.c.state == query.state, *([] if query.step else _nothing_worse(query.state)))
    for each in query.bounds:
        asked = asked.where(step_run.c.run.in_(_within(each, of_step)))
    return asked.order_by(step_run.c.run.desc()).limit(query.limit)


def _within(bound: Bound, of_step: list[ColumnElement[bool]]) -> Select[tuple[int]]:
    """The runs with a metric that keeps its bound, reused ones included."""
    holds = SIGNS[bound.sign](measure.c.value, bound.value)
    rows = select(measure.c.step_run).where(measure.c.last, measure.c.name == bound.metric, holds)
    return select(step_run.c.run).where(step_run.c.origin.in_(rows), *of_step)


def _nothing_worse(state: str) -> list[ColumnElement[bool]]:
    """That a run as a whole has a state: no step of it has one that is worse."""
    order = (*WORST, "reused")
    worse, other = order[: order.index(state)], step_run.alias()
    return [~exists().where(other.c.run == step_run.c.run, other.c.state.in_(worse))] if worse else []


def _step(row: RowMapping, metrics: dict[int, list[Measure]], **more: Any) -> StepRun:
    return StepRun(**{name: row[name] for name in PLAIN}, metrics=tuple(metrics.get(row["origin"], ())), **more)


def _packed(records: Iterable[Line | Fact | Notice]) -> str:
    rows = [
        [getattr(each, name) for name in each.__slots__] for each in records
    ]  # astuple() copies deeply: 20 times as slow
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def _unpacked(kind: type[Kind], text: str) -> tuple[Kind, ...]:
    rows: list[list[Any]] = [[tuple(c) if isinstance(c, list) else c for c in row] for row in json.loads(text)]
    return tuple(kind(*row) for row in rows)
