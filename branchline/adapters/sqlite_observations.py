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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Connection

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_many import Count, add, count, run, some
from branchline.adapters.sqlite_outcomes import STRANGER, Test, reported
from branchline.adapters.sqlite_tables import exposure, outcome, reader, request, tally
from branchline.core.spec import Metric
from branchline.ports import Exposed, Outcome, Receipt, Request, Seen, Served, Tally

CHANGES = ("prediction", "struck", "both", "crossed")  # of an exposure, as further requests of its unit come
READER = "gateway"

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
_OPEN = select(func.min(exposure.c.number)).where(
    exposure.c.service == _SERVICE, exposure.c.experiment == _EXPERIMENT, exposure.c.number > _AFTER,
    exposure.c.at + bindparam("window") > bindparam("until"),
)  # fmt: skip
POOLED: Mapping[str, Any] = {"mean": func.avg, "sum": func.sum, "first": func.min}


def _pooled(column: Any, pooled: str) -> Any:
    """What was reported of a unit within its window, together."""
    together = select(POOLED[pooled](column)).where(
        outcome.c.exposure == exposure.c.number, outcome.c.late.is_(False),
        outcome.c.at <= exposure.c.at + bindparam("window"), outcome.c.metric == bindparam("of_metric"),
    )  # fmt: skip
    return together.scalar_subquery()


MATURED = {
    pooled: select(
        exposure, _pooled(outcome.c.value, pooled).label("value"), _pooled(outcome.c.other, pooled).label("other")
    )
    .where(exposure.c.service == _SERVICE, exposure.c.experiment == _EXPERIMENT, exposure.c.number > _AFTER)
    .where(or_(exposure.c.crossed.is_(None), exposure.c.crossed > exposure.c.at + bindparam("window")))
    .where(exposure.c.number < func.coalesce(_OPEN.scalar_subquery(), 2**62))
    .order_by(exposure.c.number)
    for pooled in POOLED
}
REQUESTS = (
    select(
        request.c.number, request.c.arm, request.c.table, request.c.bad, request.c.at, request.c.unit, request.c.seconds
    )
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
            add(connection, exposure, new)
            add(connection, request, rows)
            changed = [unit for unit in units.values() if unit.number and unit.changed]
            run(connection, CHANGE_EXPOSURE, [
                {"of_number": unit.number, **{name: unit.row[name] for name in CHANGES}}
                for unit in changed
            ])  # fmt: skip
            count(connection, counts)
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
                test = Test(service, metrics[service], runs, at, again, self._handed.get(service, {}))
                receipts |= reported(connection, test, mine)
        return tuple(receipts.get(place, STRANGER) for place in range(len(outcomes)))

    def matured(
        self, service: str, experiment: str, *, after: int, until: float, window: float, pooled: str = "mean",
        metric: str = "",
    ) -> tuple[Seen, ...]:  # fmt: skip
        """Units whose window closed by `until`, in order of exposure, after the cursor, up to the first not matured.

        A unit's value is what was reported of it within the window, together: the mean, the sum or the first. What is
        reported of it later is late.
        """
        asked = {"of_service": service, "of_experiment": experiment, "after": after, "until": until, "window": window,
                 "of_metric": metric}  # fmt: skip
        with self._matching:
            with self._file.reading() as connection:
                rows = connection.execute(MATURED[pooled], asked).all()
            handed = self._handed.setdefault(service, {})
            before = handed.get(experiment, (0.0, 0))
            handed[experiment] = max(before[0], until), max(before[1], rows[-1].number if rows else 0)
        return tuple(Seen(row.number, row.unit, row.arm, row.table, row.value, row.at, row.other) for row in rows)

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
    for (service, experiment), mine in asked.items():
        of = {"of_service": service, "of_experiment": experiment}
        for row in some(connection, EXPOSURES, mine, of):
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
        "prediction": line.prediction, "seconds": line.seconds,
    }  # fmt: skip
