"""This file fakes the Router port: the gateway's memory without a gateway; it can be told to refuse."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from branchline.adapters.envoy_table import (
    Routes,
    announced,
    gaining,
    offered,
    shifted,
    told,
    unfenced,
    way_back,
)
from branchline.core.traffic import assigned
from branchline.errors import EnvoyRejected, Fenced, GatewayDown, NotWarm
from branchline.ports import Endpoint, Shown, Stamp, Survey


class FakeRouter:
    """The Router port."""

    def __init__(self) -> None:
        self.services: dict[str, Routes] = {}
        self.cold: set[str] = set()  # nonces of endpoints that do not answer
        self.port = 20000
        self.rejects = False  # every document from now on
        self.down = False
        self.taken = ""  # an address that somebody else has
        self.edited: list[str] = []  # files that somebody else wrote
        self.journal: list[dict[str, Any]] = []
        self.calls: list[tuple[Any, ...]] = []
        self._numbers = itertools.count()
        self._read: set[str] = set()

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything planned before the stamp."""
        self.services[service] = told(self._of(service), stamp)
        done = [entry for entry in self.journal if entry["service"] == service and entry["id"] in self._read]
        self.journal[:] = [entry for entry in self.journal if entry not in done]
        self._read -= {entry["id"] for entry in done}

    def offer(self, service: str, endpoints: Sequence[Endpoint], stamp: Stamp) -> None:
        """Know exactly these endpoints."""
        known = self._unfenced(service, stamp)
        warm = {k.endpoint.nonce for k in known.known if k.warm}
        for endpoint in endpoints:
            if endpoint.nonce in self.cold - warm:
                raise NotWarm(cluster=f"{service}@{endpoint.version}~{endpoint.nonce}")
        self._change(service, stamp, lambda routes: offered(announced(routes, endpoints), endpoints))
        self.calls.append(("offer", service, tuple(e.nonce for e in endpoints)))

    def shift(self, service: str, line: int, shares: Sequence[tuple[str, int]], stamp: Stamp) -> None:
        """Give a line these shares."""
        routes = self._unfenced(service, stamp)
        for arm in gaining(routes.line(line), shares):
            if not any(e.nonce not in self.cold for e in routes.group(arm)):
                raise NotWarm(cluster=f"{service}@{arm[:7]}")
        self._change(service, stamp, lambda now: shifted(now, service, line, shares, stamp.generation))
        self.calls.append(("shift", service, line, tuple(shares)))

    def shown(self, service: str) -> Mapping[int, Shown]:
        """What is accepted."""
        if self.down:
            raise GatewayDown()
        return {number: line.shown for number, line in self._of(service).lines}

    def told(self) -> Mapping[str, Stamp]:
        """The marks."""
        return {name: routes.told for name, routes in self.services.items()}

    def vacant(self) -> int:
        """Always the same."""
        return 20001

    def survey(self) -> Survey:
        """What is remembered, and what a test says of the rest."""
        routes = {name: {n: line.shown for n, line in each.lines} for name, each in self.services.items()}
        known = {name: frozenset(k.endpoint.nonce for k in each.known) for name, each in self.services.items()}
        return Survey(not self.down, self.taken, tuple(self.edited), routes, known)

    def offline(self) -> tuple[Mapping[str, Any], ...]:
        """What `roll_back` did, of each service the oldest."""
        oldest = {entry["service"]: entry for entry in reversed(self.journal)}
        self._read |= {entry["id"] for entry in oldest.values()}
        return tuple(oldest.values())

    def address(self, service: str, pin: str = "") -> str:
        """An address that nobody answers, unless a test gives it another port."""
        return f"http://127.0.0.1:{self.port}/{service}{'@' + pin if pin else ''}/"

    # What only a test asks

    def endpoints(self, service: str) -> tuple[Endpoint, ...]:
        """What is known and warm."""
        return tuple(k.endpoint for k in self._of(service).known if k.warm)

    def arm(self, service: str, line: int, unit: str) -> str:
        """Which revision a unit is assigned to."""
        shown = self.shown(service)[line]
        return assigned(shown.segments, unit, shown.experiment)

    def roll_back(self, service: str, line: int, *, actor: str, because: str, at: float) -> Mapping[str, Any]:
        """What a command does without a daemon."""
        routes = self._of(service)
        done = any((e["service"], e["line"], e["kind"]) == (service, line, "rollback") for e in self.journal)
        now, target = way_back(routes, service, line, abort=False, done=done)
        after = ((target, 100),)
        self.services[service] = shifted(routes, service, line, after, routes.told.generation)
        kind = "abort" if len(now.shares) > 1 else "rollback"
        self.journal.append(
            {
                "id": f"{service}/{line}/{next(self._numbers)}",
                "kind": kind,
                "service": service,
                "line": line,
                "before": [list(share) for share in now.shares],
                "after": [list(share) for share in after],
                "actor": actor,
                "because": because,
                "at": at,
            }
        )
        return self.journal[-1]

    def _of(self, service: str) -> Routes:
        return self.services.get(service, Routes())

    def _unfenced(self, service: str, stamp: Stamp) -> Routes:
        routes = self._of(service)
        unfenced(routes, stamp)
        if any(entry["service"] == service for entry in self.journal):
            raise Fenced()
        return routes

    def _change(self, service: str, stamp: Stamp, change: Callable[[Routes], Routes]) -> None:
        if self.down:
            raise GatewayDown()
        after = told(change(self._of(service)), stamp)
        if self.rejects:
            raise EnvoyRejected()
        self.services[service] = after
