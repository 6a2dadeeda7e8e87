"""This file keeps exposures and outcomes: the Observations port on SQLite.

Rules: requests and the reader's position are one transaction, so each line of the gateway's log is kept exactly once. A
unit's first request in an experiment fixes its arm and stratum; seen in another arm before its window has closed, it
leaves the conclusion; later, what was known of it stays. A request without a unit is a unit of its own. An outcome
counts only for a recorded exposure of its service, while its experiment runs and within the metric's window (I17), once
(I16); a batch is one transaction. Counts are running ones.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Executable, Table, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Connection, Row

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_tables import exposure, outcome, reader, request, tally
from branchline.core import metrics
from branchline.core.outcome_query import CLOCKS
from branchline.core.spec import Metric
from branchline.errors import OutcomeRefused
from branchline.ports import Exposed, Outcome, Receipt, Request, Seen, Served, Tally

CHANGES = ("prediction", "struck", "both", "crossed")  # of an exposure, as further requests of its unit come
CHUNK = 1000  # of values in one statement
READER = "gateway"
STRANGER = Receipt("unknown", "no request of it was in the test")

Count = tuple[str, str, str, str]  # service, experiment, arm, what
Handed = dict[str, dict[str, tuple[float, int]]]  # by service and experiment: until when units were handed, the last

_SERVICE: BindParameter[str] = bindparam("of_service")
_EXPERIMENT: BindParameter[str] = bindparam("of_experiment")
_AFTER: BindParameter[int] = bindparam("after")
_SOME: BindParameter[Any] = bindparam("some", expanding=True)
POSITION = select(reader.c.position).where(reader.c.name == READER)
KEEP_POSITION = upsert(reader).values(name=READER)
KEEP_POSITION = KEEP_POSITION.on_conflict_do_update(
    index_elements=[reader.c.name], set_={"position": KEEP_POSITION.excluded.position}
)
COUNT = upsert(tally)
COUNT = COUNT.on_conflict_do_update(
    index_elements=[tally.c.service, tally.c.experiment, tally.c.arm, tally.c.what],
    set_={"n": tally.c.n + COUNT.excluded.n},
)
EXPOSURES = select(exposure).where(
    exposure.c.service == _SERVICE, exposure.c.experiment == _EXPERIMENT, exposure.c.unit.in_(_SOME)
)
CHANGE_EXPOSURE = (
    update(exposure)
    .where(exposure.c.number == bindparam("of_number"))
    .values(
        prediction=bindparam("prediction"),
        struck=bindparam("struck"),
        both=bindparam("both"),
        crossed=bindparam("crossed"),
    )
)
# What a report is joined with: the last experiment its unit was exposed in, or the request it names.
BY_UNIT = select(exposure).where(exposure.c.service == _SERVICE, exposure.c.unit.in_(_SOME)).order_by(exposure.c.number)
BY_REQUEST = (
    select(exposure, request.c.request, request.c.prediction.label("predicted"))
    .join(
        request,
        and_(
            request.c.service == exposure.c.service,
            request.c.experiment == exposure.c.experiment,
            request.c.unit == exposure.c.unit,
        ),
    )
    .where(request.c.service == _SERVICE, request.c.request.in_(_SOME))
    .order_by(request.c.number)
)
REPORTED = select(outcome.c.key, outcome.c.reported).where(outcome.c.service == _SERVICE, outcome.c.key.in_(_SOME))
WITH_OUTCOME = select(outcome.c.exposure).where(outcome.c.exposure.in_(_SOME), outcome.c.late.is_(False)).distinct()
_OPEN = select(func.min(exposure.c.number)).where(
    exposure.c.service == _SERVICE, exposure.c.experiment == _EXPERIMENT, exposure.c.number > _AFTER,
    exposure.c.at + bindparam("window") > bindparam("until"),
)  # fmt: skip
_VALUE = select(func.avg(outcome.c.value)).where(
    outcome.c.exposure == exposure.c.number, outcome.c.late.is_(False),
    outcome.c.at <= exposure.c.at + bindparam("window"),
)  # fmt: skip
MATURED = (
    select(exposure, _VALUE.scalar_subquery().label("value"))
    .where(exposure.c.service == _SERVICE, exposure.c.experiment == _EXPERIMENT, exposure.c.number > _AFTER)
    .where(or_(exposure.c.crossed.is_(None), exposure.c.crossed > exposure.c.at + bindparam("window")))
    .where(exposure.c.number < func.coalesce(_OPEN.scalar_subquery(), 2**62))
    .order_by(exposure.c.number)
)
REQUESTS = (
    select(request.c.number, request.c.arm, request.c.table, request.c.bad, request.c.at)
    .where(request.c.service == _SERVICE, request.c.experiment == _EXPERIMENT, request.c.number > _AFTER)
    .where(request.c.counted.is_(True))
    .order_by(request.c.number)
)
ONE = (
    select(request.c.unit, request.c.arm, request.c.bad, request.c.at)
    .where(request.c.service == _SERVICE, request.c.request == bindparam("id"))
    .order_by(request.c.number.desc())
    .limit(1)
)
EXPOSED = (
    select(
        exposure.c.experiment, exposure.c.table, exposure.c.arm, func.count(), func.min(exposure.c.at),
        func.max(exposure.c.at),
    )
    .where(exposure.c.service == _SERVICE)
    .group_by(exposure.c.experiment, exposure.c.table, exposure.c.arm)
    .order_by(func.min(exposure.c.number))
)  # fmt: skip
# Reports that could be joined with nothing belong to no experiment: they are counted under ''.
COUNTS = select(tally.c.arm, tally.c.what, tally.c.n).where(
    tally.c.service == _SERVICE, tally.c.experiment.in_([_EXPERIMENT, ""])
)

_ITS_EXPOSURES = and_(exposure.c.service == _SERVICE, exposure.c.experiment == _EXPERIMENT)
EXPOSED_UNTIL = (
    select(exposure.c.arm, func.count().label("n"))
    .where(_ITS_EXPOSURES, exposure.c.at <= bindparam("until"))
    .group_by(exposure.c.arm)
)
CROSSED_UNTIL = select(func.count()).where(
    _ITS_EXPOSURES, exposure.c.both.is_(True), func.coalesce(exposure.c.crossed, exposure.c.at) <= bindparam("until")
)
REQUESTS_UNTIL = (
    select(request.c.arm, func.count().label("n"), func.sum(request.c.bad).label("bad"))
    .where(request.c.service == _SERVICE, request.c.experiment == _EXPERIMENT, request.c.at <= bindparam("until"))
    .group_by(request.c.arm)
)


@dataclass(slots=True)
class _Unit:
    """An exposure as it changes while requests are taken; `number` 0: not kept yet."""

    row: dict[str, Any]
    number: int = 0
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Join:
    """What a report was joined with: an exposure, the prediction it is about, and the key it is known by."""

    row: Row[Any]
    prediction: float | None
    key: str


@dataclass(frozen=True, slots=True)
class _Test:
    """What outcomes are held against: the metric of a service, its experiments that run (None: any), and the time.

    `again`: who is unknown now may not be so at the next look. `handed`: by experiment, until when units were handed
    to the judge, and the last of them.
    """

    service: str
    metric: Metric
    running: Mapping[str, Metric] | None
    at: float
    again: bool
    handed: Mapping[str, tuple[float, int]]

    def metric_of(self, join: _Join) -> Metric:
        """The metric of the experiment that an outcome is about: two majors may have one each."""
        return (self.running or {}).get(join.row.experiment, self.metric)

    def judged(self, each: Outcome, join: _Join | None, known: Mapping[str, float]) -> Receipt:
        """What becomes of one outcome; `known` is what was reported before, by key."""
        if join is None:
            idle = self.running is not None and not self.running
            return Receipt("unmeasured", f"nothing of {self.service} is under test") if idle else STRANGER
        metric = self.metric_of(join)
        if each.happened is not None and each.happened < join.row.at - CLOCKS:
            return STRANGER
        if each.metric not in ("", metric.name):
            return Receipt("unmeasured", f"{metric.name} is measured, not {each.metric}")
        try:
            reported = metrics.number(each.value)
            if join.key in known:
                same = known[join.key] == reported
                return Receipt("duplicate") if same else Receipt("conflict", f"{known[join.key]:.12g} was said before")
            metrics.value(metric, join.prediction, reported)
        except OutcomeRefused as error:
            return Receipt("refused", str(error.fields["reason"]))
        if self.running is not None and join.row.experiment not in self.running:
            return Receipt("late", "its test has ended")
        until, last = self.handed.get(join.row.experiment, (0.0, 0))
        closed = join.row.at + metric.window
        if max(self.at, each.happened or 0.0) > closed or (closed <= until and join.row.number <= last):
            return Receipt("late", f"its window of {metric.window:g} s is over")
        return Receipt("kept")


class SqliteObservations:
    """The Observations port."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._matching = (
            threading.Lock()
        )  # no unit is handed to the judge between a line's, an outcome's time and commit
        self._handed: Handed = {}

    def position(self) -> str:
        """Where the reader of the gateway's log stands ('' at the very start)."""
        with self._file.reading() as connection:
            return connection.execute(POSITION).scalar_one_or_none() or ""

    def take(self, served: Iterable[Served], position: str) -> int:
        """Keep requests and the reader's new position in one transaction (exactly once); return how many were kept."""
        lines = list(served)
        with self._matching, self._file.writing("the requests") as connection:
            units, counts = _units(connection, lines), Counter[Count]()
            rows = [_taken(line, units[_of(line)], counts, self._handed) for line in lines]
            new = [unit.row for unit in units.values() if not unit.number]
            _add(connection, exposure, new)
            _add(connection, request, rows)
            changed = [unit for unit in units.values() if unit.number and unit.changed]
            _all(connection, CHANGE_EXPOSURE, [
                {"of_number": unit.number, **{name: unit.row[name] for name in CHANGES}}
                for unit in changed
            ])  # fmt: skip
            _count(connection, counts)
            connection.execute(KEEP_POSITION, {"position": position})
        return len(lines)

    def report(
        self, outcomes: Sequence[Outcome], metrics: Mapping[str, Metric], *, at: float,
        running: Mapping[str, Mapping[str, Metric]] | None = None, again: bool = False,
    ) -> tuple[Receipt, ...]:  # fmt: skip
        """Keep outcomes durably; a receipt for each.

        `metrics` has the metric of each service; an outcome of any other service is unknown. `running` has the
        experiments of a service that have not ended, with their metrics; without it any may run. Read the gateway's log
        first: a caller may report before the line of its request was read. With `again`, who is unknown is asked about
        once more soon, and not counted yet.
        """
        receipts: dict[int, Receipt] = {}
        with self._matching, self._file.writing("the outcomes") as connection:
            for service in {each.service for each in outcomes} & metrics.keys():
                mine = {place: each for place, each in enumerate(outcomes) if each.service == service}
                runs = None if running is None else running.get(service)
                test = _Test(service, metrics[service], runs, at, again, self._handed.get(service, {}))
                receipts |= _reported(connection, test, mine)
        return tuple(receipts.get(place, STRANGER) for place in range(len(outcomes)))

    def matured(self, service: str, experiment: str, *, after: int, until: float, window: float) -> tuple[Seen, ...]:
        """Units whose window closed by `until`, in order of exposure, after the cursor, up to the first not matured.

        A unit's value is the mean of what was reported of it within the window. What is reported of it later is late.
        """
        asked = {"of_service": service, "of_experiment": experiment, "after": after, "until": until, "window": window}
        with self._matching:
            with self._file.reading() as connection:
                rows = connection.execute(MATURED, asked).all()
            handed = self._handed.setdefault(service, {})
            before = handed.get(experiment, (0.0, 0))
            handed[experiment] = max(before[0], until), max(before[1], rows[-1].number if rows else 0)
        return tuple(Seen(row.number, row.unit, row.arm, row.table, row.value, row.at) for row in rows)

    def requests(self, service: str, experiment: str, *, after: int) -> tuple[Tally, ...]:
        """Requests after the cursor for the guardrail: after its first bad request a unit counts no more."""
        asked = {"of_service": service, "of_experiment": experiment, "after": after}
        with self._file.reading() as connection:
            return tuple(Tally(*row) for row in connection.execute(REQUESTS, asked))

    def request(self, service: str, request: str) -> Request | None:
        """The newest request with this id; None when no test of the service had one."""
        with self._file.reading() as connection:
            row = connection.execute(ONE, {"of_service": service, "id": request}).first()
        return Request(service, row.unit, request, row.arm, row.bad, row.at) if row else None

    def exposed(self, service: str) -> tuple[Exposed, ...]:
        """What every experiment of a service has exposed, the oldest first; it reads all exposures."""
        with self._file.reading() as connection:
            return tuple(Exposed(*row) for row in connection.execute(EXPOSED, {"of_service": service}))

    def counts(self, service: str, experiment: str, *, until: float = math.inf) -> Mapping[str, Mapping[str, int]]:
        """Per arm: units, requests, bad, stepped_in, outcomes (units with one), late; and see below for ''.

        Under '': `both` (units seen in more than one arm), `refused`, `conflict`, and `unknown` of the whole service.
        With `until`, units, requests, bad and both are those of that moment.
        """
        asked = {"of_service": service, "of_experiment": experiment, "until": until}
        found: dict[str, dict[str, int]] = {"": dict.fromkeys(("both", "refused", "conflict", "unknown"), 0)}
        with self._file.reading() as connection:
            for row in connection.execute(COUNTS, asked):
                kinds = ("units", "requests", "bad", "stepped_in", "outcomes", "late")
                arm = found.setdefault(row.arm, dict.fromkeys(kinds, 0))
                arm[row.what] = arm.get(row.what, 0) + row.n
            if until == math.inf:
                return found
            then = {name: dict.fromkeys(("units", "requests", "bad"), 0) for name in found if name}
            for row in connection.execute(EXPOSED_UNTIL, asked):
                then[row.arm]["units"] = row.n
            for row in connection.execute(REQUESTS_UNTIL, asked):
                then[row.arm] |= {"requests": row.n, "bad": row.bad}
            found[""]["both"] = connection.execute(CROSSED_UNTIL, asked).scalar_one()
        return {name: counted | then.get(name, {}) for name, counted in found.items()}


# ---- taking requests


def _of(line: Served) -> tuple[str, str, str]:
    return (line.service, line.experiment, line.unit or line.request)


def _units(connection: Connection, lines: Sequence[Served]) -> dict[tuple[str, str, str], _Unit]:
    """The exposures of these requests' units, in order: those that are kept, and new ones."""
    asked: dict[tuple[str, str], dict[str, None]] = {}
    for line in lines:
        service, experiment, unit = _of(line)
        asked.setdefault((service, experiment), {})[unit] = None
    units: dict[tuple[str, str, str], _Unit] = {}
    for (service, experiment), some in asked.items():
        of = {"of_service": service, "of_experiment": experiment}
        for row in _some(connection, EXPOSURES, some, of):
            units[service, experiment, row.unit] = _Unit(dict(row._mapping), row.number)
    for line in lines:
        if (key := _of(line)) not in units:
            units[key] = _Unit({
                "service": key[0], "experiment": key[1], "unit": key[2], "arm": line.assigned, "table": line.table,
                "at": line.at, "prediction": None, "struck": False, "both": False,
                "crossed": None,
            })  # fmt: skip
    return units


def _taken(line: Served, unit: _Unit, counts: Counter[Count], handed: Handed) -> dict[str, Any]:
    """The row of a request; marks its unit and counts it."""
    arm = (line.service, line.experiment, line.assigned)
    known = unit.row
    if not unit.number and not unit.changed:
        counts[*arm, "units"] += 1
    counts[*arm, "requests"] += 1
    counts[*arm, "bad"] += line.bad
    counts[*arm, "stepped_in"] += line.answered != line.assigned
    counted = not known["struck"]
    before = (known["struck"], known["both"], known["prediction"])
    known["struck"] = known["struck"] or line.bad
    if line.assigned != known["arm"] and not known["both"]:
        until, last = handed.get(line.service, {}).get(line.experiment, (0.0, 0))
        known["both"] = True  # read after the judge was handed the unit, it is known since then
        known["crossed"] = max(line.at, math.nextafter(until, math.inf)) if 0 < unit.number <= last else line.at
        counts[line.service, line.experiment, "", "both"] += 1
    if known["prediction"] is None and line.assigned == known["arm"]:
        known["prediction"] = line.prediction  # a first answer that failed has none: the first that there is
    unit.changed = unit.changed or not unit.number or before != (known["struck"], known["both"], known["prediction"])
    return {
        "service": line.service, "experiment": line.experiment, "unit": known["unit"], "request": line.request,
        "arm": line.assigned, "table": line.table, "bad": line.bad, "counted": counted, "at": line.at,
        "prediction": line.prediction,
    }  # fmt: skip


# ---- joining outcomes


def _reported(connection: Connection, test: _Test, mine: Mapping[int, Outcome]) -> dict[int, Receipt]:
    """The receipt for each of one service's outcomes; keeps those that are kept or late."""
    service, joins = test.service, _joins(connection, test.service, mine)
    of = {"of_service": service}
    known = {row.key: row.reported for row in _some(connection, REPORTED, {join.key for join in joins.values()}, of)}
    answered = set(_some(connection, WITH_OUTCOME, {join.row.number for join in joins.values()}, {}, scalars=True))
    rows, counts, receipts = [], Counter[Count](), dict[int, Receipt]()
    for place, each in mine.items():
        join = joins.get(place)
        receipts[place] = test.judged(each, join, known)
        word = receipts[place].word
        if join is None:
            counts[service, "", "", "unknown"] += word == "unknown" and not test.again
            continue
        if word in ("refused", "conflict"):
            counts[service, join.row.experiment, "", word] += 1
        if word not in ("kept", "late"):
            continue
        known[join.key] = reported = metrics.number(each.value)
        value = metrics.value(test.metric_of(join), join.prediction, reported)
        rows.append({
            "service": service, "key": join.key, "exposure": join.row.number, "reported": reported, "value": value,
            "at": test.at, "late": word == "late",
        })  # fmt: skip
        if word == "late" or join.row.number not in answered:
            counts[service, join.row.experiment, join.row.arm, "late" if word == "late" else "outcomes"] += 1
        if word == "kept":
            answered.add(join.row.number)
    _add(connection, outcome, rows)
    _count(connection, counts)
    return receipts


def _joins(connection: Connection, service: str, mine: Mapping[int, Outcome]) -> dict[int, _Join]:
    """What each outcome is about, by its place; those about nothing known are missing."""
    of = {"of_service": service}
    asked = {each.request for each in mine.values() if each.request}
    requests = {row.request: row for row in _some(connection, BY_REQUEST, asked, of)}
    asked = {each.unit for each in mine.values() if each.unit and not each.request}
    units = {row.unit: row for row in _some(connection, BY_UNIT, asked, of)}
    joins = {}
    for place, each in mine.items():
        row = requests.get(each.request) if each.request else units.get(each.unit)
        # Who names both must name them rightly (F77): a request of another unit is a forgery or a mistake.
        if row is None or (each.request and each.unit and row.unit != each.unit):
            continue
        prediction = row.predicted if each.request else row.prediction
        about = f"request:{each.request}" if each.request else f"unit:{row.number}"
        joins[place] = _Join(row, prediction, f"id:{each.id}" if each.id else about)
    return joins


# ---- statements with many values


def _some(
    connection: Connection, statement: Executable, values: Iterable[Any], of: Mapping[str, str], scalars: bool = False
) -> Iterator[Any]:
    """The rows of a statement for any number of values."""
    waiting = list(values)
    for start in range(0, len(waiting), CHUNK):
        found = connection.execute(statement, {**of, "some": waiting[start : start + CHUNK]})
        yield from found.scalars() if scalars else found


def _all(connection: Connection, statement: Executable, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _add(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert many rows that all have the same columns, as the driver takes them: SQLAlchemy takes as long as SQLite."""
    if rows:
        names = list(rows[0])
        columns, values = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
        connection.exec_driver_sql(f"insert into {table.name} ({columns}) values ({values})", rows)


def _count(connection: Connection, counts: Counter[Count]) -> None:
    names = ("service", "experiment", "arm", "what")
    _all(connection, COUNT, [{**dict(zip(names, key, strict=True)), "n": n} for key, n in counts.items() if n])
