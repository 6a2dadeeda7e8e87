"""This file is the Router on Envoy: the only writer of routes, for the daemon and for a command that works without it.

Rules. Its memory is written first, then the documents, and each is read back: clusters, warm, routes, and only then
are old clusters taken away. A refused document leaves the last good one serving and the memory as it was. Nobody
waits for a slow start while holding the lock. What a command did without the daemon stands in the journal, and until
the daemon has read it every change of that service is fenced: its plan knew nothing of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from branchline.adapters import envoy_documents as documents
from branchline.adapters.envoy import DOCUMENTS, Envoy, is_free
from branchline.adapters.envoy_documents import Document, Places, cluster_of
from branchline.adapters.envoy_files import Files
from branchline.adapters.envoy_routes import routes as route_table
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
    without_cold,
)
from branchline.errors import BranchlineError, EnvoyRejected, Fenced, GatewayDown, NotWarm, PortTaken, Unserved
from branchline.ports import Endpoint, Shown, Stamp

READ_BACK_SECONDS = 5.0


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
    ) -> None:
        self.envoy = Envoy(folder, runtime, concurrency=concurrency)
        self._files = Files(folder)
        self._places = Places(folder, self.envoy.admin, ingest, host)
        self._port = port
        self._warm_seconds = warm_seconds
        self._settled: tuple[object, ...] = ()
        self._read: set[str] = set()

    # -------------------------------------------------------------------------------------------- the port

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything planned before the stamp; forget what `offline` has returned of the service."""
        with self._files.locked():
            gateway = self._load()
            before = gateway.of(service)
            if (after := told(before, stamp)) != before:
                self._save(Gateway(gateway.port, gateway.serial, {**gateway.services, service: after}))
            journal = self._files.lines("journal.jsonl")
            left = [e for e in journal if e["service"] != service or e["id"] not in self._read]
            if left != journal:
                self._files.put("journal.jsonl", "".join(json.dumps(e, sort_keys=True) + "\n" for e in left))

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
        with self._files.locked():
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
            self._settle(gateway)
        return {number: line.shown for number, line in gateway.of(service).lines}

    def offline(self) -> tuple[Mapping[str, Any], ...]:
        """What commands did to routes while no daemon lived, oldest first."""
        with self._files.locked():
            entries = self._files.lines("journal.jsonl")
        self._read |= {str(entry["id"]) for entry in entries}
        return tuple(entries)

    def address(self, service: str, pin: str = "") -> str:
        """The URL people use."""
        with self._files.locked():
            port = self._load().port
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self._places.host, self._places.host)
        return f"http://{host}:{port}/{service}{'@' + pin if pin else ''}/"

    # -------------------------------------------------------------------------------------------- beside the port

    def ensure(self) -> bool:
        """Start the gateway if it does not run; say whether it had to be."""
        with self._files.locked():
            before = self.envoy.pid
            self._settle(self._load())
            self._files.keep_reserve()
        return not before

    def stop(self) -> None:
        """Stop the gateway; its files stay, so `ensure` brings everything back."""
        with self._files.locked():
            self.envoy.stop()

    def metrics(self) -> str:
        """The gateway's statistics in the Prometheus text format."""
        return self.envoy.ask("/stats/prometheus?usedonly")

    def roll_back(self, service: str, line: int = 0, *, actor: str, because: str, at: float) -> Mapping[str, Any]:
        """Without a daemon: end what is under test, or else go back to the previous holder; write the journal.

        Returns the journal's line: kind `abort` or `rollback`, line, `before` and `after` shares, actor, because, at.
        Raises Unserved when there is nothing to go back to, NotWarm when that does not run.
        """
        with self._files.locked():
            gateway = self._load()
            self._settle(gateway)
            routes = gateway.of(service)
            number = line or max((n for n, _ in routes.lines), default=0)
            now = routes.line(number)
            target = now and (now.holder if len(now.shares) > 1 else now.previous)
            if not now or not target:
                raise Unserved(f"{service} has nothing to go back to", address=f"{service}@v{number}")
            healthy = self.envoy.healthy()
            if not any(healthy.get(cluster_of(service, e)) for e in routes.group(target)):
                raise NotWarm(f"{target} does not run", cluster=f"{service}@{target[:7]}")
            after = shifted(routes, service, number, ((target, 100),), routes.told.generation)
            self._apply(gateway, gateway.having(service, after))
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
            self._files.append("journal.jsonl", entry)
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
        journal = self._files.lines("journal.jsonl")
        if any(entry["service"] == service and entry["id"] not in self._read for entry in journal):
            raise Fenced(f"routes of {service} were changed without the daemon; read the journal first")

    def _apply(self, before: Gateway, after: Gateway) -> None:
        if after is not before:
            self._save(after)
        try:
            self._settle(after)
        except BranchlineError:
            if after is not before:
                self._settled = ()
                with contextlib.suppress(BranchlineError):  # the first error is the one to tell
                    self._save(before)
                    self._settle(before)
            raise

    def _load(self) -> Gateway:
        text = self._files.read("table.json")
        gateway = from_json(json.loads(text)) if text else Gateway()
        port = self._port or gateway.port or _free_port(self._places.host)
        if port != gateway.port:
            gateway = Gateway(port, gateway.serial + 1, gateway.services)
            self._save(gateway)
        return gateway

    def _save(self, gateway: Gateway) -> None:
        self._files.put("table.json", json.dumps(to_json(gateway), separators=(",", ":")))

    # -------------------------------------------------------------------------------------------- documents

    def _settle(self, gateway: Gateway) -> None:
        """Make Envoy show the memory: start it, or change what differs in the safe order. Does nothing when it does."""
        running = self.envoy.pid
        if running and self._settled == (gateway.serial, self.envoy.boot, *self._traces()):
            return
        self._files.put("bootstrap.json", _text(documents.bootstrap(self._places)))
        wanted: dict[str, list[Document]] = {
            "cds": documents.clusters(gateway, self._places),
            "rds": route_table(gateway),
            "lds": documents.listeners(self._places, gateway.port),
        }
        try:
            if not running:
                raise GatewayDown
            self._turn(gateway, wanted)
        except GatewayDown:  # dead, or deaf because its folder was taken from under it
            self.envoy.stop()
            self._begin(gateway, wanted)
        self._settled = (gateway.serial, self.envoy.boot, *self._traces())

    def _turn(self, gateway: Gateway, wanted: Mapping[str, list[Document]]) -> None:
        """Change the running gateway: new clusters beside the old ones, routes, then the old ones away."""
        names = {cluster["name"] for cluster in wanted["cds"]}
        old = [cluster for cluster in self._resources("cds") if cluster["name"] not in names]
        self._show(gateway, "cds", [*wanted["cds"], *old])
        for kind in ("rds", "cds", "lds"):
            self._show(gateway, kind, wanted[kind])

    def _begin(self, gateway: Gateway, wanted: Mapping[str, list[Document]]) -> None:
        """Start the gateway from its documents."""
        versions = {kind: self._write(gateway, kind, resources) for kind, resources in wanted.items()}
        self.envoy.start(self._places.host, gateway.port)
        for kind, version in versions.items():
            if self.envoy.accepted(kind)[0] != version:
                raise EnvoyRejected(f"{kind}: {self.envoy.reason()}", log=str(self.envoy.folder / "envoy.log"))

    def _traces(self) -> tuple[object, ...]:
        """What tells that nobody else has touched the documents."""
        found: list[object] = []
        for kind in DOCUMENTS:
            with contextlib.suppress(FileNotFoundError):
                stat = (self.envoy.folder / f"{kind}.json").stat()
                found.append((kind, stat.st_ino, stat.st_mtime_ns))
        return tuple(found)

    def _show(self, gateway: Gateway, kind: str, resources: list[Document]) -> None:
        """Write one document and wait until Envoy has accepted this very version of it."""
        refused = self.envoy.accepted(kind)[1]
        last = self._files.read(f"{kind}.json")
        version = self._write(gateway, kind, resources)
        found = (version, refused)

        def answered() -> bool:
            nonlocal found
            found = self.envoy.accepted(kind)
            return found[0] == version or found[1] > refused

        if not self.envoy.wait(answered, READ_BACK_SECONDS):
            raise GatewayDown(f"Envoy did not take {kind}.json", log=str(self.envoy.folder / "envoy.log"))
        if found[0] != version:
            self._files.put(f"{kind}.json", last)
            raise EnvoyRejected(f"{kind}: {self.envoy.reason()}", log=str(self.envoy.folder / "envoy.log"))

    def _write(self, gateway: Gateway, kind: str, resources: list[Document]) -> str:
        """Write a document unless it says the same already; returns its version, which no two contents share."""
        body = _text(resources)
        digest = hashlib.sha256(body.encode()).hexdigest()[:16]
        version = self._version(kind)
        if version.partition(".")[2] != digest:
            version = f"{gateway.serial}.{digest}"
            self._files.put(f"{kind}.json", f'{{"version_info":"{version}","resources":{body}}}')
        return version

    def _version(self, kind: str) -> str:
        """The version of a document as it lies there, which is the first thing in it."""
        return self._files.read(f"{kind}.json")[:80].partition('"version_info":"')[2].partition('"')[0]

    def _resources(self, kind: str) -> list[Document]:
        try:
            found = json.loads(self._files.read(f"{kind}.json") or "{}").get("resources", [])
        except ValueError:  # somebody else wrote there: it is written anew
            return []
        return list(found)

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

        def healthy() -> bool:
            try:
                found = self.envoy.healthy()
            except GatewayDown:  # it has just died; `wait` notices
                return False
            return any(found.get(cluster) for cluster in clusters)

        if not self.envoy.wait(healthy, self._warm_seconds):
            raise NotWarm(cluster=clusters[0])


def _free_port(host: str) -> int:
    """A port nobody uses, below those the kernel gives to outgoing connections (one of them may take it otherwise)."""
    choice = random.SystemRandom()
    for _ in range(200):
        port = choice.randrange(20000, 32000)
        if is_free(host, port):
            return port
    raise PortTaken(address=f"{host}:20000-32000")


def _text(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))
