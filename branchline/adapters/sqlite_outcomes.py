"""This file joins reported outcomes with what was exposed, and says what becomes of each.

Rules: an outcome counts only for a recorded exposure of its service, while its experiment runs and within the metric's
window (I17), once (I16). What is late is kept and never counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import BindParameter, and_, bindparam, select
from sqlalchemy.engine import Connection, Row

from branchline.adapters.sqlite_many import Count, add, count, some
from branchline.adapters.sqlite_tables import exposure, outcome, request
from branchline.core import metrics
from branchline.core.outcome_query import CLOCKS
from branchline.core.spec import Metric
from branchline.errors import OutcomeRefused
from branchline.ports import Outcome, Receipt

KEPT = Receipt("kept")
STRANGER = Receipt("unknown", "no request of it was in the test")

Numbers = tuple[float, float | None]  # what was said of one outcome

_SERVICE: BindParameter[str] = bindparam("of_service")
_SOME: BindParameter[Any] = bindparam("some", expanding=True)
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
REPORTED = select(outcome.c.key, outcome.c.reported, outcome.c.other).where(
    outcome.c.service == _SERVICE, outcome.c.key.in_(_SOME)
)
WITH_OUTCOME = (
    select(outcome.c.exposure)
    .where(outcome.c.exposure.in_(_SOME), outcome.c.late.is_(False), outcome.c.metric == "")
    .distinct()
)


@dataclass(frozen=True, slots=True)
class _Join:
    """What a report was joined with: an exposure, the prediction it is about, and the key it is known by."""

    row: Row[Any]
    prediction: float | None
    key: str


@dataclass(frozen=True, slots=True)
class Test:
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

    def watched(self, each: Outcome, join: _Join) -> str:
        """The name of the metric that an outcome is of, where that is only watched; '' of any other."""
        primary = self.metric_of(join)
        found = primary.called(each.metric)
        return "" if found is None or found is primary else found.name

    def waited(self, each: Outcome, join: _Join) -> float:
        """The seconds from its unit's first exposure until an outcome came to be, or was reported."""
        return (self.at if each.happened is None else each.happened) - float(join.row.at)

    def judged(self, each: Outcome, join: _Join | None, known: Mapping[str, Numbers]) -> Receipt:
        """What becomes of one outcome; `known` is what was reported before, by key."""
        if join is None:
            idle = self.running is not None and not self.running
            return Receipt("unmeasured", f"nothing of {self.service} is under test") if idle else STRANGER
        if each.happened is not None and each.happened < join.row.at - CLOCKS:
            return STRANGER
        metric = self.metric_of(join).called(each.metric)
        if metric is None:
            return Receipt("unmeasured", f"{self.metric_of(join).name} is measured, not {each.metric}")
        try:
            said = metrics.number(each.value), metrics.second(metric, each.of, each.before)
            if join.key in known:
                same, before = known[join.key] == said, metrics.told(*known[join.key])
                return Receipt("duplicate") if same else Receipt("conflict", f"{before} was said before")
            metrics.value(metric, join.prediction, said[0], self.waited(each, join))
        except OutcomeRefused as error:
            return Receipt("refused", str(error.fields["reason"]))
        if self.running is not None and join.row.experiment not in self.running:
            return Receipt("late", "its test has ended")
        until, last = self.handed.get(join.row.experiment, (0.0, 0))
        closed = join.row.at + metric.window
        if max(self.at, each.happened or 0.0) > closed or (closed <= until and join.row.number <= last):
            return Receipt("late", f"its window of {metric.window:g} s is over")
        return KEPT


def reported(connection: Connection, test: Test, mine: Mapping[int, Outcome]) -> dict[int, Receipt]:
    """The receipt for each of one service's outcomes; keeps those that are kept or late."""
    service, joins = test.service, _joins(connection, test.service, mine)
    watched = {place: test.watched(mine[place], join) for place, join in joins.items()}
    joins = {
        place: replace(join, key=f"{watched[place]} {join.key}") if watched[place] else join
        for place, join in joins.items()
    }
    of = {"of_service": service}
    known = {
        row.key: (row.reported, row.other)
        for row in some(connection, REPORTED, {join.key for join in joins.values()}, of)
    }
    answered = set(some(connection, WITH_OUTCOME, {join.row.number for join in joins.values()}, {}, scalars=True))
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
        metric = test.metric_of(join).called(watched[place]) or test.metric
        known[join.key] = said = metrics.number(each.value), metrics.second(metric, each.of, each.before)
        value = metrics.value(metric, join.prediction, said[0], test.waited(each, join))
        rows.append({
            "service": service, "key": join.key, "exposure": join.row.number, "reported": said[0], "value": value,
            "at": test.at, "late": word == "late", "other": said[1], "metric": watched[place],
        })  # fmt: skip
        if watched[place]:
            continue  # what is watched is no unit's outcome
        if word == "late" or join.row.number not in answered:
            counts[service, join.row.experiment, join.row.arm, "late" if word == "late" else "outcomes"] += 1
        if word == "kept":
            answered.add(join.row.number)
    add(connection, outcome, rows)
    count(connection, counts)
    return receipts


def _joins(connection: Connection, service: str, mine: Mapping[int, Outcome]) -> dict[int, _Join]:
    """What each outcome is about, by its place; those about nothing known are missing."""
    of = {"of_service": service}
    asked = {each.request for each in mine.values() if each.request}
    requests = {row.request: row for row in some(connection, BY_REQUEST, asked, of)}
    asked = {each.unit for each in mine.values() if each.unit and not each.request}
    units = {row.unit: row for row in some(connection, BY_UNIT, asked, of)}
    joins = {}
    for place, each in mine.items():
        row = requests.get(each.request) if each.request else units.get(each.unit)
        # Who names both must name them rightly (F77): a request of another unit is a forgery or a mistake.
        if row is None or (each.request and each.unit and row.unit != each.unit):
            continue
        prediction = row.predicted if each.request else row.prediction
        about = f"request:{each.request}" if each.request else f"unit:{row.number}"
        joins[place] = _Join(row, prediction, _named(row.unit, each.id) if each.id else about)
    return joins


def _named(unit: str, name: str) -> str:
    """The key of an outcome with an id, which is its unit's own: the unit's length says where the id begins."""
    return f"of:{len(unit)}:{unit}:{name}"
