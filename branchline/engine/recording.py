"""This file records events: the law's answer, the state and the audit row in one transaction, and then the telling.

Act only on what is recorded. Whoever holds a resource is told the new stamp before anything is planned, and refuses
what was planned before (I21); so no step can act on a state that has been left. A ledger that knows less of a service
than others do is an older copy: until a person says that it counts, nothing is recorded there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from branchline.core.events import Event
from branchline.core.lifecycle import OPEN, move
from branchline.core.records import event_to_json
from branchline.core.service import Service
from branchline.core.waiting import behind
from branchline.errors import IllegalMove, LedgerOlder, UnknownService
from branchline.ports import Clock, Ledger, Stamp


class Resource(Protocol):
    """Whoever can refuse what was planned before a stamp."""

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything about this service that was planned before the stamp."""


class Recorder:
    """Records events for one epoch."""

    def __init__(
        self, ledger: Ledger, resources: Sequence[Resource], clock: Clock, default: str, changed: Callable[[str], None]
    ) -> None:
        self.epoch = ledger.take_over()
        self.older: dict[str, Stamp] = {}  # by service, what others know of it that this ledger does not
        self.default = default
        self._ledger = ledger
        self._resources = resources
        self._clock = clock
        self._changed = changed
        self._lock = threading.RLock()
        for name in ledger.services():
            self.tell(name)

    def stamp(self, service: Service) -> Stamp:
        """The stamp of what is planned from this state."""
        return Stamp(service.generation, self.epoch)

    def service(self, name: str) -> Service:
        """The recorded state, or that of a service nobody has heard of yet."""
        try:
            return self._ledger.service(name)
        except UnknownService:
            return Service(name, default=self.default)

    def record(
        self,
        name: str,
        event: Event,
        *,
        actor: str = "branchline",
        because: str = "",
        only_if: Callable[[Service], bool] = lambda service: True,
    ) -> Service:
        """Let the law say what becomes of the service, and keep it; raises IllegalMove and then keeps nothing.

        `only_if` is asked of the state the event would meet: what took long may be about a state that has been left.
        """
        with self._lock:
            if name in self.older:
                raise LedgerOlder(service=name)
            before = self.service(name)
            if not only_if(before):
                raise IllegalMove("it was about a state that has been left", event=type(event).__name__, subject=name)
            after = move(before, event)
            told = event_to_json(event) | ({"left_behind": left} if (left := left_behind(before, after)) else {})
            self._ledger.record(after, told, actor=actor, because=because, at=self._clock.now())
            self._tell(after)
        self._changed(name)
        return after

    def notice(self, told: Mapping[str, Stamp]) -> None:
        """Take notice of stamps that others know; newer ones than the ledger can have given make it an older copy."""
        with self._lock:
            for name, stamp in told.items():
                if stamp > self.stamp(self.service(name)):
                    self.older[name] = max(stamp, self.older.get(name, stamp))

    def restore(self, name: str, *, actor: str, because: str) -> None:
        """Let the ledger count as it is, from a generation on that nobody has heard of; raises Stale."""
        with self._lock:
            beyond = self.older[name].generation + 1
            self._ledger.restore(name, self.default, beyond, actor=actor, because=because, at=self._clock.now())
            del self.older[name]
            self.tell(name)
        self._changed(name)

    def preview(self, name: str, event: Event) -> tuple[Service, Service]:
        """The state as it is and as the event would leave it; records nothing."""
        before = self.service(name)
        return before, move(before, event)

    def tell(self, name: str) -> None:
        """Tell every resource the newest stamp of a service."""
        self._tell(self.service(name))

    def _tell(self, service: Service) -> None:
        for resource in self._resources:
            resource.tell(service.name, self.stamp(service))


class Onlooker(Recorder):
    """Reads the recorded state for whoever only looks: takes nothing over, tells nobody, records nothing."""

    def __init__(self, ledger: Ledger, default: str) -> None:
        self.epoch = ledger.epoch() + 1  # what a takeover would get
        self.older = {}
        self.default = default
        self._ledger = ledger
        self._lock = threading.RLock()


def left_behind(before: Service, after: Service) -> list[str]:
    """The branches that an event left behind, for the history: so it says which change moved their base (1.57)."""
    level = {each.branch for each in before.candidates if each.phase in OPEN and not behind(before, each)}
    lost = [each for each in after.candidates if each.phase in OPEN and behind(after, each)]
    return [each.branch for each in lost if each.branch in level]
