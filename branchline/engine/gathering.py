"""This file gathers outcomes that nobody reports: it puts the query of each metric under test, and gives what is new to
the ledger as if it had been reported.

Rules. Every query is put in a thread of its own, for a database may hang: nothing else waits for it, and a person is
told. It begins where an outcome could count at all, a window ago, so nothing has to be remembered over a restart; then
with the newest row, less what a row may be late. Rows are known by their keys, so reading one again changes nothing:
what was settled is kept in memory only to spare the ledger. Who is not known yet is asked about again as long as the
row is read. A row of this second waits for the next look: the gateway's log tells of requests a moment later.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from branchline.core.codes import understood
from branchline.core.outcome_query import CLOCKS, Row, SqlQuery, key_of
from branchline.core.spec import Metric
from branchline.engine.measuring import MEASURED, running
from branchline.engine.preparing import spec_at
from branchline.engine.recording import Recorder
from branchline.errors import BranchlineError, QueryFailed, QueryRefused
from branchline.ports import Outcome, Ports

TOGETHER = 1000  # rows in one transaction: others write meanwhile
SLOW = 30.0  # seconds after which a person is told that a query is not answered
AHEAD = 60.0  # seconds that a row may lie in the future before a person is told
Key = tuple[str, str, SqlQuery]  # service, metric, its query


def in_thread(act: Callable[[], None]) -> None:
    """Do something in a thread that the daemon does not wait for at its end."""
    threading.Thread(target=act, name="query", daemon=True).start()


@dataclass(slots=True)
class Asked:
    """What is known of one query: when it is put next and was put last (monotonic seconds), the time of the newest row,
    and the rows that need not be looked at again.
    """

    again: float = -math.inf
    begun: float = 0.0
    busy: bool = False
    newest: float = -math.inf
    settled: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Gathering:
    """Asks databases for outcomes; `words` counts what became of them, by service and word."""

    ports: Ports
    recorder: Recorder
    read_exposures: Callable[[], int]
    troubles: dict[tuple[str, str], str]
    spawn: Callable[[Callable[[], None]], None] = in_thread
    words: Counter[tuple[str, str]] = field(default_factory=Counter)
    _asked: dict[Key, Asked] = field(default_factory=dict)

    def look(self) -> bool:
        """Put every query whose time has come; says whether there was any."""
        wanted, begun = {key: metric for name in self.ports.ledger.services() for key, metric in self._wanted(name)}, 0
        for key in self._asked.keys() - wanted.keys():
            if not self._asked[key].busy:
                del self._asked[key]
                self.troubles.pop(place(key), None)
        now = self.ports.clock.monotonic()
        for key, metric in wanted.items():
            asked = self._asked.setdefault(key, Asked())
            if asked.busy and now - asked.begun >= SLOW:
                late = QueryFailed(f"it was put {now - asked.begun:.0f} s ago; nothing else waits for it")
                self.troubles[place(key)] = sentence(late)
            elif not asked.busy and now >= asked.again:
                asked.busy, asked.begun, begun = True, now, begun + 1
                self.spawn(partial(self._ask, key, metric, asked))
        return begun > 0

    def _wanted(self, name: str) -> Iterator[tuple[Key, Metric]]:
        """The queries of who is under test."""
        if name in self.recorder.older:
            return
        for candidate in self.recorder.service(name).candidates:
            if candidate.phase in MEASURED:
                metric = spec_at(self.ports, name, candidate.revision).metric
                if metric is not None and metric.sql is not None:
                    yield (name, metric.name, metric.sql), metric

    def _ask(self, key: Key, metric: Metric, asked: Asked) -> None:
        """Put one query, and keep what is new of its rows."""
        try:
            told = self._gather(key, metric, asked)
        except Exception as error:  # noqa: BLE001 - one database's surprise stops nothing else, and is told (I24)
            told = sentence(understood(error))
        if told:
            self.troubles[place(key)] = told
        else:
            self.troubles.pop(place(key), None)
        asked.again = self.ports.clock.monotonic() + key[2].every
        asked.busy = False

    def _gather(self, key: Key, metric: Metric, asked: Asked) -> str:
        """Read the rows, and keep what is new; says what is wrong with them, if anything is."""
        query, now = key[2], self.ports.clock.now()
        since = max(asked.newest - query.overlap, now - metric.window - CLOCKS)
        asked.settled = {name: at for name, at in asked.settled.items() if at >= since}
        ahead, newest, rows = 0, asked.newest, self.ports.queries.rows(query, since)
        while some := list(islice(rows, TOGETHER)):
            ahead += sum(row.time > now + AHEAD for row in some)
            told = {key_of(metric.name, row): row for row in some if since <= row.time <= now - CLOCKS}
            fresh = {name: row for name, row in told.items() if name not in asked.settled}
            if fresh and not self._keep(key[0], metric, fresh, asked):
                return ""  # the gateway does not show the test yet: all of it is looked at again
            newest = max([newest, *(row.time for row in told.values())])
        asked.newest = newest
        if not ahead:
            return ""
        return sentence(QueryRefused(reason=f"{ahead} rows lie in the future: is their time in UTC?"))

    def _keep(self, service: str, metric: Metric, fresh: Mapping[str, Row], asked: Asked) -> bool:
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


def sentence(error: BranchlineError) -> str:
    """An error as `status` tells it."""
    return f"{error.code}: {error.message}" + (f": {error.cause}" if error.cause else "")


def place(key: Key) -> tuple[str, str]:
    """Where the trouble with a query is told."""
    return key[0], f"query of {key[1]}"
