"""This file surveys what earlier tests saw of a metric: how many outcomes came, how far they spread, where to cut them.

Only experiments count whose revisions declare the same metric. Where values have neither bounds nor a declared cap, the
cap of a test is the 99.9th percentile of what the incumbent's were like before its first unit: what is recorded of then
never changes, so it is the same whenever it is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from branchline.core.evidence import Plan, Sums, history_cap
from branchline.core.planning import DAY
from branchline.core.ratios import Pairs
from branchline.core.spec import Metric
from branchline.core.watched import Watched
from branchline.errors import UnknownReference
from branchline.ports import Exposed, Ports, Seen

Pair = tuple[float, float]

MOST_UNITS = 20_000  # the newest, and what is left of the test they are in
FEW = 30  # outcomes, of which fewer tell neither how many come nor how far they spread
SHORTEST = 60.0  # seconds of traffic, below which nothing is said of a day


@dataclass(frozen=True, slots=True)
class History:
    """What earlier tests saw: outcomes, the seconds they took, how many were of how many units, and their values by
    arm in the order of exposure.
    """

    tests: int
    units: int
    seconds: float
    values: Mapping[str, tuple[float, ...]]

    @property
    def sums(self) -> Sums:
        """All values together."""
        return Sums.of(value for values in self.values.values() for value in values)

    @property
    def sigma(self) -> float:
        """The standard deviation inside an arm; 0 where nothing can be said."""
        arms = [Sums.of(values) for values in self.values.values() if len(values) > 1]
        spare = sum(arm.n - 1 for arm in arms)
        return math.sqrt(sum(arm.spread for arm in arms) / spare) if spare else 0.0

    def cut(self, cap: float | None) -> History:
        """The same with all values cut at a cap; itself without one."""
        if cap is None:
            return self
        return replace(self, values={arm: tuple(min(v, cap) for v in values) for arm, values in self.values.items()})

    @property
    def per_day(self) -> float:
        """Outcomes in a day; 0 where nothing can be said."""
        return self.sums.n / self.seconds * DAY if self.seconds >= SHORTEST and self.sums.n >= FEW else 0.0


def history_of(ports: Ports, service: str, metric: Metric, before: str = "") -> History:
    """What the newest tests of a service saw that were judged by this metric; with `before`, of those that were before
    that experiment, as far as it was known when that one's first unit came.
    """
    found: dict[str, list[Pair]] = {}
    rows = ports.observations.exposed(service)
    until = min((row.began for row in rows if row.experiment == before), default=ports.clock.now())
    chosen = list(
        newest(ports, service, metric, [row for row in rows if row.experiment != before and row.began < until])
    )
    units = 0
    for experiment, _ in reversed(chosen):
        for unit in ports.observations.matured(
            service, experiment, after=0, until=until, window=metric.window, pooled=metric.pooled
        ):
            units += 1
            if (read := read_of(metric, unit)) is not None:
                found.setdefault(unit.arm, []).append(read)
    seconds = sum(max(row.ended for row in rows) - min(row.began for row in rows) for _, rows in chosen)
    return History(len(chosen), units, seconds, {arm: alone(metric, pairs) for arm, pairs in found.items()})


def read_of(metric: Metric, unit: Seen) -> Pair | None:
    """What a matured unit brings to a metric: its value, and the second number where the form asks for one; None where
    it is left out.
    """
    value = metric.unreported if unit.value is None else unit.value
    if value is None:
        return None
    if unit.other is None:
        return value, metric.before or 0.0
    return value, unit.other


def alone(metric: Metric, pairs: Sequence[Pair]) -> tuple[float, ...]:
    """One number for each unit of an arm, whose mean is what is judged and which spread as that does: of a ratio R of
    sums R + (y - Rx)/mean(x), the delta method turned round; of an adjusted mean y less what x foretells of it.
    """
    sums, n = Pairs.of(pairs), len(pairs)
    if metric.form == "ratio" and sums.x:
        ratio, mean = sums.y / sums.x, sums.x / n
        return tuple(ratio + (y - ratio * x) / mean for y, x in pairs)
    spread = sums.xx - sums.x * sums.x / n
    if metric.form == "adjusted" and spread > 0:
        theta = (sums.xy - sums.x * sums.y / n) / spread
        return tuple(y - theta * (x - sums.x / n) for y, x in pairs)
    return tuple(y for y, _ in pairs)


def newest(ports: Ports, service: str, metric: Metric, every: Iterable[Exposed]) -> Iterator[tuple[str, list[Exposed]]]:
    """The newest of the experiments that were judged by a metric, and what each exposed, until there are enough
    units.
    """
    found: dict[str, list[Exposed]] = {}
    for row in every:
        found.setdefault(row.experiment, []).append(row)
    units = 0
    for experiment, rows in reversed(found.items()):
        if units < MOST_UNITS and all(judged_by(ports, service, row.arm, metric) for row in rows):
            units += sum(row.units for row in rows)
            yield experiment, rows


def judged_by(ports: Ports, service: str, commit: str, metric: Metric) -> bool:
    """Whether a revision declares a metric of this name and kind: another's values say nothing."""
    try:
        declared = json.loads(ports.catalog.revision(service, commit).spec).get("metric") or {}
    except (UnknownReference, ValueError):
        return False
    return (declared.get("name"), declared.get("kind")) == (metric.name, metric.kind)


def glance(
    ports: Ports, service: str, experiment: str, arms: tuple[str, str], metric: Metric | None,
    beside: dict[str, Watched], until: float,
) -> None:  # fmt: skip
    """Take in what has matured by then of the metrics that are watched beside a metric, of incumbent and challenger."""
    for each in metric.watched if metric else ():
        seen = beside.setdefault(each.name, Watched(each))
        for unit in ports.observations.matured(
            service, experiment, after=seen.seen, until=until, window=each.window, pooled=each.pooled, metric=each.name
        ):
            seen.seen = unit.order
            read = read_of(each, unit) if unit.arm in arms else None
            if read is not None:
                seen.take(unit.stratum, *read, mine=unit.arm == arms[1])


def capped(
    ports: Ports, service: str, experiment: str, control: str, metric: Metric | None, plan: Plan | None
) -> Plan | None:
    """The plan of a test, with the cap that what was known of its incumbent before its first unit gives.

    It stays as it is where values have bounds or a cap, or where too few were known.
    """
    if plan is None or metric is None or plan.cap is not None or not may_cap(metric):
        return plan
    plain = replace(metric, before=None)  # what is cut are values as they were
    return replace(plan, cap=history_cap(history_of(ports, service, plain, experiment).values.get(control, ())))


def may_cap(metric: Metric) -> bool:
    """Whether there is anything to cut: a mean whose values have no bounds."""
    return metric.bounds is None and metric.kind in ("value", "error")
