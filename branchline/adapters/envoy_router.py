"""This file is the Router on Envoy: the only writer of routes, for the daemon and for a command that works without it.

Rules. Its memory is written first, for nothing else says who meets what. Then the documents are, and each is read back:
clusters, warm, routes, and only then are old clusters taken away; the memory's copy is written last. A refused document
leaves the last good one serving and the memory as it was. Nobody waits for a slow start while holding the lock. What a
command did without the daemon stands in the journal, and until the daemon has recorded it every change of that service
is fenced: its plan knew nothing of it.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from branchline.adapters.envoy import LEAVING_SECONDS, Envoy, is_free
from branchline.adapters.envoy_display import Display
from branchline.adapters.envoy_documents import Places, cluster_of
from branchline.adapters.envoy_files import Files
from branchline.adapters.envoy_table import (
    Gateway,
    Routes,
    announced,
    from_json,
    gaining,
    offered,
    shifted,
    to_json,
    told,
    unfenced,
    way_back,
    without_cold,
)
from branchline.errors import BranchlineError, Fenced, GatewayDown, NotWarm, PortTaken
from branchline.ports import Endpoint, Shown, Stamp, Survey

JOURNALS = "journal.jsonl", "journal.copy.jsonl"
ENTRY = {"id", "kind", "service", "line", "after", "actor"}
FIRST_CHECK_SECONDS = 1.0  # in which a gateway that has just started knows who is well
MEMORIES = MEMORY, COPY = "table.json", "table.copy.json"


class RouteWriter:
    """The routes of all services: `folder` is kept, `runtime` holds sockets, `ingest` is the daemon's."""

    def __init__(
        self,
        folder: Path,
        runtime: Path,
        *,
        ingest: Path,
        port: int = 0,
        host: str = "127.0.0.1",
        warm_seconds: float = 10.0,
        concurrency: int = 2,
        lock_seconds: float = float("inf"),
        leaving_seconds: int = LEAVING_SECONDS,
    ) -> None:
        self.envoy = Envoy(folder, runtime, concurrency=concurrency, leaving_seconds=leaving_seconds)
        self._files = Files(folder, lock_seconds)
        self._host = host
        self._display = Display(self.envoy, self._files, Places(folder, self.envoy.admin, ingest, host))
        self._port = port
        self._warm_seconds = warm_seconds
        self._read: set[str] = set()
        self._memory: tuple[object, Gateway] = ("unread", Gateway())
        self._is_spoilt = False

    # -------------------------------------------------------------------------------------------- the port

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything planned before the stamp; forget what `offline` has returned of the service.

        Nobody outlives a power cut who could plan from before it, so no disk is waited for.
        """
        with self._files.locked(lasting=False):
            gateway = self._load()
            before = gateway.of(service)
            if (after := told(before, stamp)) != before:
                self._save(Gateway(gateway.port, gateway.serial, {**gateway.services, service: after}))
            journal = self._journal()
            done = [e for e in journal if e["service"] == service and e["id"] in self._read]
            if done:
                self._keep_journal([e for e in journal if e not in done])
                self._read -= {str(e["id"]) for e in done}

    def offer(self, service: str, endpoints: Sequence[Endpoint], stamp: Stamp) -> None:
        """Make exactly these endpoints known and pinned; one whose revision has a share stays."""
        self._change(service, stamp, lambda routes: announced(routes, endpoints))
        try:
            self._wait_warm(tuple(cluster_of(service, e) for e in endpoints), self._cold(service, endpoints))
        except NotWarm:
            self._change(service, stamp, lambda routes: without_cold(routes, endpoints))
            raise
        self._change(service, stamp, lambda routes: offered(routes, endpoints))

    def shift(self, service: str, line: int, shares: Sequence[tuple[str, int]], stamp: Stamp) -> None:
        """Give a line these shares; whoever gets more has to be healthy, whoever loses need not even live."""
        with self._files.locked(lasting=False):
            routes = self._load().of(service)
            self._unfenced(service, routes, stamp)
            arms = gaining(routes.line(line), shares)
        for arm in arms:
            group = routes.group(arm)
            if not group:
                raise NotWarm(f"{service} has no endpoint of {arm}", cluster=f"{service}@{arm[:7]}")
            self._wait_any(tuple(cluster_of(service, e) for e in group))
        self._change(service, stamp, lambda now: shifted(now, service, line, shares, stamp.generation))

    def shown(self, service: str) -> Mapping[int, Shown]:
        """What the gateway has accepted; starts it, and shows it again what it should know, if need be."""
        with self._files.locked():
            gateway = self._load()
            self._display.show(gateway)
        return {number: line.shown for number, line in gateway.of(service).lines}

    def told(self) -> Mapping[str, Stamp]:
        """The newest stamp of each service that was ever told."""
        with self._files.locked():
            return {name: routes.told for name, routes in self._remembered().services.items()}

    def vacant(self) -> int:
        """The next port that nobody uses at this moment."""
        with self._files.locked():
            port = self._remembered().port
        return next((each for each in range(port + 1, 32000) if is_free(self._host, each)), 0) or _free_port(self._host)

    def survey(self) -> Survey:
        """Look at files and process as they are; starts nothing and puts nothing right."""
        with self._files.locked():
            gateway = self._remembered()
            running = bool(self.envoy.pid)
            taken = "" if running or not gateway.port or is_free(self._host, gateway.port) else gateway.port
            edited = self._display.strayed(gateway) if gateway.port else ()
        routes = {name: {n: line.shown for n, line in each.lines} for name, each in gateway.services.items()}
        known = {name: frozenset(k.endpoint.nonce for k in each.known) for name, each in gateway.services.items()}
        return Survey(running, f"{self._host}:{taken}" if taken else "", edited, routes, known)

    def offline(self) -> tuple[Mapping[str, Any], ...]:
        """What commands did to routes beside the daemon, of each service the oldest that is not forgotten."""
        with self._files.locked():
            entries = self._journal()
        oldest = {entry["service"]: entry for entry in reversed(entries)}
        self._read |= {str(entry["id"]) for entry in oldest.values()}
        return tuple(entry for entry in entries if oldest[entry["service"]] is entry)

    def address(self, service: str, pin: str = "") -> str:
        """The URL people use."""
        with self._files.locked():
            port = self._load().port
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._host, self._host)
        return f"http://{host}:{port}/{service}{'@' + pin if pin else ''}/"

    # -------------------------------------------------------------------------------------------- beside the port

    def ensure(self) -> bool:
        """Start the gateway if it does not run; say whether it had to be. A port that cannot be had is forgotten."""
        with self._files.locked():
            before, known = self.envoy.pid, [(name, self._files.read(name)) for name in (COPY, MEMORY)]
            try:
                self._display.show(self._load())
                self.envoy.renew()
            except BranchlineError:
                for name, text in known:
                    self._files.put(name, text)
                raise
            self._files.keep_reserve()
        return not before

    def stop(self) -> None:
        """Stop the gateway; its files stay, so `ensure` brings everything back."""
        with self._files.locked():
            self.envoy.stop()

    def metrics(self) -> str:
        """The gateway's statistics in the Prometheus text format."""
        return self.envoy.ask("/stats/prometheus?usedonly")

    def roll_back(
        self, service: str, line: int = 0, *, actor: str, because: str, at: float, abort: bool = False
    ) -> Mapping[str, Any]:
        """Without a daemon: end what is under test, or else (not to `abort`) go back to the previous holder; write the
        journal, and that first: what was done and stands nowhere, a returning daemon would undo.

        Returns the journal's line: kind `abort` or `rollback`, line, `before` and `after` shares, actor, because, at.
        Raises Unserved when there is nothing to go back to, IllegalMove when the journal holds that way back already,
        NotWarm when it does not run.
        """
        with self._files.locked():
            gateway = self._load()
            self._display.show(gateway)
            routes = gateway.of(service)
            number = line or max((n for n, _ in routes.lines), default=0)
            written = self._journal()
            done = any((e["service"], e["line"], e["kind"]) == (service, number, "rollback") for e in written)
            now, target = way_back(routes, service, number, abort=abort, done=done)
            if not self._are_well(tuple(cluster_of(service, e) for e in routes.group(target)), FIRST_CHECK_SECONDS):
                raise NotWarm(f"{target} does not run", cluster=f"{service}@{target[:7]}")
            after = shifted(routes, service, number, ((target, 100),), routes.told.generation)
            entry = {
                "id": f"{service}/{number}/{gateway.serial}",
                "kind": "abort" if len(now.shares) > 1 else "rollback",
                "service": service,
                "line": number,
                "before": [list(share) for share in now.shares],
                "after": [[target, 100]],
                "actor": actor,
                "because": because,
                "at": at,
            }
            self._keep_journal([*written, entry])
            try:
                self._apply(gateway, gateway.having(service, after))
            except BranchlineError:
                self._keep_journal(written)
                raise
        return entry

    # -------------------------------------------------------------------------------------------- memory

    def _change(self, service: str, stamp: Stamp, change: Callable[[Routes], Routes]) -> None:
        """Change one service and show it; what changes nothing is still shown, for it may never have been."""
        with self._files.locked():
            gateway = self._load()
            before = gateway.of(service)
            self._unfenced(service, before, stamp)
            after = told(change(before), stamp)
            self._apply(gateway, gateway if after == before else gateway.having(service, after))
            self._files.keep_reserve()

    def _unfenced(self, service: str, routes: Routes, stamp: Stamp) -> None:
        unfenced(routes, stamp)
        if any(entry["service"] == service for entry in self._journal()):
            raise Fenced(f"routes of {service} were changed without the daemon; record that first")

    def _journal(self) -> list[dict[str, Any]]:
        """What commands did, oldest first: what either copy still holds of it."""
        found = [each for name in JOURNALS for each in self._files.lines(name) if each.keys() >= ENTRY]
        return list({str(each["id"]): each for each in found}.values())

    def _keep_journal(self, entries: Sequence[Mapping[str, Any]]) -> None:
        for name in JOURNALS:
            self._files.put(name, "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries))

    def _apply(self, before: Gateway, after: Gateway) -> None:
        if after is not before:
            self._save(after, MEMORY)
        try:
            self._display.show(after)
            if after is not before:
                self._save(after, COPY)
        except BranchlineError:
            if after is not before:
                with contextlib.suppress(BranchlineError):  # the first error is the one to tell
                    self._save(before)
                    self._display.show(before)
            raise

    def _remembered(self) -> Gateway:
        """The memory as it lies there; read again only when a file is another one."""
        seen = [self._files.trace(name) for name in MEMORIES]
        if seen != self._memory[0]:
            found = parsed(self._files.read(MEMORY))
            self._is_spoilt = found is None or found != parsed(self._files.read(COPY))
            self._memory = seen, found or parsed(self._files.read(COPY)) or Gateway()
        return self._memory[1]

    def _load(self) -> Gateway:
        gateway = self._remembered()
        port = self._port or gateway.port or _free_port(self._host)
        if port != gateway.port:
            gateway = Gateway(port, gateway.serial + 1, gateway.services)
        if gateway != self._memory[1] or self._is_spoilt:
            self._save(gateway)
        return gateway

    def _save(self, gateway: Gateway, *names: str) -> None:
        text = to_json(gateway)
        for name in names or (COPY, MEMORY):
            self._files.put(name, text)
        self._memory, self._is_spoilt = ([self._files.trace(name) for name in MEMORIES], gateway), False

    # -------------------------------------------------------------------------------------------- warm

    def _cold(self, service: str, endpoints: Sequence[Endpoint]) -> frozenset[str]:
        """Clusters among these that were never healthy yet; an old one that is down now holds nobody up."""
        with self._files.locked():
            warm = {k.endpoint.nonce for k in self._load().of(service).known if k.warm}
        return frozenset(cluster_of(service, e) for e in endpoints if e.nonce not in warm)

    def _wait_warm(self, clusters: Sequence[str], cold: frozenset[str]) -> None:
        for cluster in clusters:
            if cluster in cold:
                self._wait_any((cluster,))

    def _wait_any(self, clusters: Sequence[str]) -> None:
        """Wait until one of these takes requests; raises NotWarm."""
        if not self._are_well(clusters, self._warm_seconds):
            raise NotWarm(cluster=clusters[0])

    def _are_well(self, clusters: Sequence[str], seconds: float) -> bool:
        """Whether one of these takes requests, or does within so many seconds."""

        def healthy() -> bool:
            try:
                found = self.envoy.healthy(clusters)
            except GatewayDown:  # it has just died; `wait` notices
                return False
            return any(found.get(cluster) for cluster in clusters)

        return self.envoy.wait(healthy, seconds)


def parsed(text: str) -> Gateway | None:
    """The memory that a text holds; None when it is none."""
    try:
        return from_json(json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _free_port(host: str) -> int:
    """A port nobody uses, below those the kernel gives to outgoing connections (one of them may take it otherwise)."""
    choice = random.SystemRandom()
    for _ in range(200):
        port = choice.randrange(20000, 32000)
        if is_free(host, port):
            return port
    raise PortTaken(address=f"{host}:20000-32000")
