"""This file is one controller: it puts the engine's parts together and says what is to be looked at, and how often.

Each pass returns whether it did anything, stops at nothing that one service does (I24), and may be run at any
moment: the threads that call the passes are the app's. The offline journal is turned into events before anything is
planned.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from branchline.core import lifecycle as law
from branchline.core.codes import understood
from branchline.core.world import desired
from branchline.engine.arriving import Arrivals
from branchline.engine.asking import Desk
from branchline.engine.counting import Counting
from branchline.engine.documenting import Dossiers
from branchline.engine.gathering import Gathering
from branchline.engine.judging import Judge
from branchline.engine.keeping import Keeping
from branchline.engine.observing import Observer
from branchline.engine.parity import Parity, later
from branchline.engine.preparing import spec_at
from branchline.engine.progress import Progress
from branchline.engine.reading import Reader
from branchline.engine.recalling import Memory
from branchline.engine.reconciling import Reconciler
from branchline.engine.recording import Recorder
from branchline.engine.sweeping import Sweeper
from branchline.engine.tracing import Tracing
from branchline.engine.trying import Trials
from branchline.engine.watching import Watcher
from branchline.engine.working import Workshop
from branchline.errors import BranchlineError, IllegalMove
from branchline.ports import Ports

LOG = logging.getLogger("branchline")
BEHIND = 10.0  # seconds that the reading of the log may be late before a person is told


@dataclass(frozen=True, slots=True)
class Pass:
    """One thing a controller does again and again: at most every `least` seconds, at least every `most` when idle."""

    name: str
    act: Callable[[], bool]
    least: float
    most: float


class Bell:
    """Wakes every pass when something was recorded, so that idle ones may sleep long."""

    def __init__(self) -> None:
        self._rung = threading.Condition()
        self._times = 0

    @property
    def times(self) -> int:
        """How often it was rung."""
        with self._rung:
            return self._times

    def ring(self) -> None:
        """Wake whoever waits."""
        with self._rung:
            self._times += 1
            self._rung.notify_all()

    def wait(self, heard: int, seconds: float) -> int:
        """Wait that long, or until it was rung more often than `heard`; returns how often it was."""
        with self._rung:
            self._rung.wait_for(lambda: self._times > heard, seconds)
            return self._times


class Controller:
    """The engine over one set of ports, for one epoch."""

    def __init__(self, ports: Ports, default: str) -> None:
        self.ports = ports
        self.troubles: dict[tuple[str, str], str] = {}
        self.changed = Bell()
        self._reading = threading.Lock()
        self._judging = threading.Lock()
        self.progress = Progress()
        self.observer = Observer(ports)
        resources = (ports.router, ports.launcher, ports.writer)
        self.recorder = Recorder(ports.ledger, resources, ports.clock, default, lambda name: self.changed.ring())
        self.recorder.notice(later(ports, self.recorder))
        self._adopt_offline()
        parts = (ports, self.recorder, self.observer)
        self.reconciler = Reconciler(*parts, self.progress, self.troubles)
        self.watcher = Watcher(*parts, self.troubles)
        self.workshop = Workshop(*parts, self.progress, self.troubles, self.reconciler.staged)
        self.arrivals = Arrivals(*parts, self.progress, self.troubles, self.workshop, self.changed.ring)
        self.judge = Judge(*parts, self.progress)
        self.counting = Counting(*parts, self.troubles)
        self.gathering = Gathering(ports, self.recorder, self.read_exposures, self.troubles)
        self.trials = Trials(*parts, self.reconciler, self.progress)
        self.trials.sweep()
        self.desk = Desk(*parts, self.weigh)
        self.parity = Parity(*parts, self.troubles)
        self.reader = Reader(*parts, self.judge, self.desk, self.troubles, self.parity)
        self.memory = Memory(ports, self.desk, self.observer)
        self.dossiers = Dossiers(ports, self.desk)
        self.keeping = Keeping(ports, self.recorder, self.dossiers, self.troubles)
        self.tracing = Tracing(ports, self.desk)
        self.sweeper = Sweeper(ports, self.observer, self.busy)

    def busy(self) -> bool:
        """Whether anything is being built."""
        return self.workshop.busy() or self.trials.busy() or self.arrivals.busy()

    def passes(self) -> tuple[Pass, ...]:
        """Everything to be done again and again, each in a thread of its own."""
        return (
            Pass("watch", self.watch, 0.2, 5.0),
            Pass("produce", self.produce, 0.05, 0.5),
            Pass("git", lambda: self._each("git", self.reconciler.git), 0.05, 1.0),
            Pass("work", lambda: self._each("work", self.workshop.look), 0.05, 0.5),
            Pass("data", self.arrivals.look, 0.2, 2.0),
            Pass("gather", self.gathering.look, 0.2, 1.0),
            Pass("count", self.counting.look, 0.2, 1.0),
            Pass("judge", self.judge_all, 0.05, 0.2),
            Pass("cool", lambda: self._each("cool", self.cool), 0.5, 1.0),
            Pass("dossier", lambda: self._each("dossier", self.keeping.look), 0.2, 2.0),
        )

    def services(self) -> tuple[str, ...]:
        """The services that are recorded."""
        return self.ports.ledger.services()

    def watch(self) -> bool:
        """Fetch and record what people did in git."""
        try:
            done = self.watcher.look()
            self.recorder.notice(later(self.ports, self.recorder))
        except BranchlineError as error:
            self.troubles["", "remote"] = f"{error.code}: {error.message}"
            return False
        self.troubles.pop(("", "remote"), None)
        return done

    def produce(self) -> bool:
        """Take over what people did to routes beside us, then bring processes and routes to what is recorded."""
        adopted = self._adopt_offline()
        return self._each("production", self.reconciler.production) or adopted

    def judge_all(self) -> bool:
        """Read what the gateway has logged, then look at everybody who is under test."""
        read = self.read_exposures()
        with self._judging:
            return self._each("judging", self.judge.look) or read > 0

    def weigh(self, name: str, branch: str) -> str:
        """Look at what is known of a service by now, for a person who decides in the judge's place; in a line what the
        evidence on a branch is.
        """
        self.read_exposures()
        with self._judging:
            self.judge.look(name)
        measured = self.reader.measured(name, branch)
        return str(measured["text"]) if measured else ""

    def read_exposures(self) -> int:
        """Take what the gateway has logged into the ledger, exactly once; says how many requests that were."""
        read = 0
        with self._reading:
            while True:
                before = self.ports.observations.position()
                served, position = self.ports.meter.read(before)
                if position == before:
                    return read
                exposures = [line for line in served if line.experiment]  # a line with one arm exposes nobody to a test
                read += self.ports.observations.take(exposures, position)

    def unlogged(self) -> list[str]:
        """What the gateway has served and the ledger does not know, lost or not read yet, in words."""
        meter = self.ports.meter
        lost, dropped, behind = meter.loss(), meter.dropped(), meter.behind(self.ports.observations.position())
        late = f"the gateway's log is read {behind.seconds:.0f} s late"
        told = (
            (lost, f"{lost} requests were served and not logged: the gateway was killed"),
            (
                dropped,
                f"{dropped} requests were served and could not be logged: the disk is full, or nobody reads",
            ),
            (behind.seconds > BEHIND, f"{late}: {behind.lines:,} lines wait"),
        )
        return [text for is_so, text in told if is_so]

    def cool(self, name: str) -> bool:
        """Let the incumbent before go when its time to be kept warm is over."""
        service = self.recorder.service(name)
        for line in service.lines:
            if line.warm and self.ports.clock.now() - self._crowned(name) >= self._warm_seconds(name, line):
                self.recorder.record(name, law.Cooled(line=line.major), actor="clock")
                return True
        return False

    def _crowned(self, name: str) -> float:
        """When the newest incumbent was recorded; 0 when that is longer ago than anybody reads."""
        entries = self.ports.ledger.history(name, limit=200)
        return next((entry.at for entry in entries if entry.event == "Recorded"), 0.0)

    def _warm_seconds(self, name: str, line: law.Line) -> float:
        return spec_at(self.ports, name, line.incumbent or "").rollout.warm_seconds

    def restore(self, actor: str, because: str) -> tuple[str, ...]:
        """Let an older ledger count: a person says that what was recorded after it is lost; returns the services.

        Versions that git has seen meanwhile are never given again.
        """
        restored = tuple(sorted(self.recorder.older))
        names = self.ports.repository.marks().truth
        for name in restored:
            tag = f"refs/tags/{name}@v"
            seen = {ref.removeprefix(tag): commit for ref, commit in names.items() if ref.startswith(tag)}
            self.ports.catalog.reserve(name, seen)
            self.recorder.restore(name, actor=actor, because=because)
        self.reconciler.forget()
        return restored

    def _each(self, what: str, act: Callable[[str], bool]) -> bool:
        done = False
        for name in self.services():
            if name in self.recorder.older:
                continue  # what it would act on has been left long ago: parity says so, and a person decides
            try:
                done |= act(name)
                self.troubles.pop((name, what), None)
            except IllegalMove:
                done = True  # the state moved on under us: look again
            except Exception as error:  # noqa: BLE001 - one service stops no other (I24), and it is told
                self.troubles[name, what] = surprise(error, what)
        return done

    def _adopt_offline(self) -> bool:
        """What people did to routes while no daemon lived, or this one hung, is recorded before anything is planned.

        What is already recorded so was adopted before, by a daemon that died before it could forget. What can not be
        recorded now is told; the service's routes stay as the person left them.
        """
        done = False
        while [told for told in self.ports.router.offline() if self._adopt(told)]:
            done = True
        return done

    def _adopt(self, told: Mapping[str, Any]) -> bool:
        """Record one entry of the journal; says whether it is now."""
        name, line = str(told["service"]), int(told["line"])
        after = tuple((str(revision), int(share)) for revision, share in told["after"])
        because = str(told.get("because") or "done offline")
        if name in self.recorder.older:
            return False

        missing = partial(done_offline, line=line, after=after, because=because)

        def same(event: law.BranchEvent | law.LineEvent, service: law.Service) -> bool:
            return missing(service) == event

        try:
            while event := missing(self.recorder.service(name)):
                try:
                    only_if = partial(same, event)  # somebody may record it meanwhile: twice is one version too far
                    self.recorder.record(name, event, actor=str(told["actor"]), because=because, only_if=only_if)
                except IllegalMove:
                    if same(event, self.recorder.service(name)):
                        break  # the law does not take it: told below
        except BranchlineError as error:
            self.troubles[name, "offline"] = surprise(error, "offline")
            return False
        self.troubles.pop((name, "offline"), None)
        if dict(desired(self.recorder.service(name)).routes).get(line) != after:
            self.troubles[name, "offline"] = f"BL105: the {told['kind']} of {line}.x without the daemon is undone"
        self.recorder.tell(name)
        return True


def surprise(error: Exception, what: str) -> str:
    """What is kept for people of an error that a pass met; our own bugs go to the log as well."""
    found = understood(error)
    if found.code != BranchlineError.code:
        return f"{found.code}: {found.message}"
    LOG.error("%s failed", what, exc_info=error)
    return f"{found.code}: something failed inside ({what}); see daemon.log"


def done_offline(
    service: law.Service, line: int, after: tuple[tuple[str, int], ...], because: str
) -> law.BranchEvent | law.LineEvent | None:
    """The next event that explains what a line was given; None when there is none, or none is needed."""
    if dict(desired(service).routes).get(line) == after:
        return None
    for each in service.candidates:
        if each.phase in law.SERVING and each.line == line and each.revision not in dict(after):
            return law.Aborted(each.branch, reason=because)
    went_back = [(revision, 100) for revision in service.line(line).history[-2:-1]] == list(after)
    return law.RolledBack(line=line, reason=because) if went_back else None
