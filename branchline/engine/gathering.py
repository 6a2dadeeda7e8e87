"""This file gathers outcomes that nobody reports: it puts the query of each metric under test, and gives what is new to
the ledger as if it had been reported.

Rules. A query begins where an outcome could count at all, a window ago, so nothing has to be remembered over a restart;
then with the newest row, less what a row may be late. Rows are known by their keys, so reading one again changes
nothing: what was settled is kept in memory only to spare the ledger. Who is not known yet is asked about again as long
as the row is read. A row of this second waits for the next look: the gateway's log tells of requests a moment later.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from branchline.core.outcome_query import CLOCKS, Row, SqlQuery, key_of
from branchline.core.spec import Metric
from branchline.engine.fetching import Act, Fetching, Key
from branchline.engine.preparing import spec_at
from branchline.engine.recording import Recorder
from branchline.engine.under_test import MEASURED, running
from branchline.errors import BranchlineError, QueryFailed, QueryRefused
from branchline.ports import Outcome, Ports

TOGETHER = 1000  # rows in one transaction: others write meanwhile
AHEAD = 60.0  # seconds that a row may lie in the future before a person is told


@dataclass(slots=True)
class Read:
    """How far a query was read: the time of the newest row, and the rows that need not be looked at again."""

    newest: float = -math.inf
    settled: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Gathering:
    """Asks databases for outcomes; `words` counts what became of them, by service and word."""

    ports: Ports
    recorder: Recorder
    read_exposures: Callable[[], int]
    troubles: dict[tuple[str, str], str]
    fetching: Fetching = field(init=False)
    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    _read: dict[Key, Read] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fetching = Fetching(self.ports, self.recorder, self.troubles, "queries", self._wanted, late)

    def look(self) -> bool:
        """Put every query whose time has come; says whether there was any."""
        begun = self.fetching.look()
        for key in self._read.keys() - self.fetching.turns.keys():
            del self._read[key]
        return begun

    def _wanted(self, name: str) -> Iterator[tuple[Key, tuple[float, Act]]]:
        """The queries of who is under test."""
        for candidate in self.recorder.service(name).candidates:
            if candidate.phase in MEASURED:
                metric = spec_at(self.ports, name, candidate.revision).metric
                if metric is not None and metric.sql is not None:
                    key = name, f"query of {metric.name}: {metric.sql}"
                    read = self._read.setdefault(key, Read())
                    yield key, (metric.sql.every, partial(self._gather, name, metric, metric.sql, read))

    def _gather(self, service: str, metric: Metric, query: SqlQuery, asked: Read) -> None:
        """Read the rows, and keep what is new; raises QueryRefused where their times cannot be right."""
        now = self.ports.clock.now()
        since = max(asked.newest - query.overlap, now - metric.window - CLOCKS)
        asked.settled = {name: at for name, at in asked.settled.items() if at >= since}
        ahead, newest, rows = 0, asked.newest, self.ports.queries.rows(query, since)
        while some := list(islice(rows, TOGETHER)):
            ahead += sum(row.time > now + AHEAD for row in some)
            told = {key_of(metric.name, row): row for row in some if since <= row.time <= now - CLOCKS}
            fresh = {name: row for name, row in told.items() if name not in asked.settled}
            if fresh and not self._keep(service, metric, fresh, asked):
                return  # the gateway does not show the test yet: all of it is looked at again
            newest = max([newest, *(row.time for row in told.values())])
        asked.newest = newest
        if ahead:
            raise QueryRefused(table="metric.sql", reason=f"{ahead} rows lie in the future: is their time in UTC?")

    def _keep(self, service: str, metric: Metric, fresh: Mapping[str, Row], asked: Read) -> bool:
        """Give rows to the ledger, as reported outcomes are; says whether it could be."""
        ports, recorder = self.ports, self.recorder
        self.read_exposures()
        runs = running(ports, recorder, service, metric)
        if runs is None:
            return False
        outcomes = [
            Outcome(service, row.value, row.unit, row.request, name, metric.name, happened=row.time)
            for name, row in fresh.items()
        ]
        receipts = ports.observations.report(
            outcomes, {service: metric}, at=ports.clock.now(), running={service: runs}, again=True
        )
        for (name, row), receipt in zip(fresh.items(), receipts, strict=True):
            if receipt.word not in ("unknown", "unmeasured"):
                asked.settled[name] = row.time
                self.words[service, receipt.word] += 1
        return True


def late(seconds: float) -> BranchlineError:
    """What a person is told of a query that is not answered."""
    return QueryFailed(f"it was put {seconds:.0f} s ago; nothing else waits for it", table="metric.sql")
