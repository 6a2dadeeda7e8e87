"""This file starts a real gateway for a test, with upstreams behind it and a client before it, and always stops it."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from branchline.adapters.envoy import binary
from branchline.adapters.envoy_meter import GatewayLog
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.envoy_wire import in_file, resource
from branchline.app import Daemon
from branchline.ports import Served, Stamp
from branchline.settings import Settings
from tests.upstreams import Backyard, Upstream, loop_in_thread
from tests.waiting import wait_until

ONE = Stamp(1, 1)


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def revision(self) -> str:
        """The commit of the upstream that answered."""
        return str(self.body.get("revision", ""))


class Gateway:
    """A gateway of one test."""

    def __init__(self, folder: Path, runtime: Path, backyard: Backyard) -> None:
        self.folder = folder
        self.runtime = runtime
        self.backyard = backyard
        self.writer = self.another()

    def another(self, kind: type[RouteWriter] = RouteWriter, **more: Any) -> RouteWriter:
        """A second writer of the same folder, as another process would be."""
        return kind(self.folder, self.runtime, **{"ingest": self.runtime / "ingest.sock", "warm_seconds": 60.0, **more})

    def serve(self, *shares: tuple[Upstream, int], service: str = "housing", stamp: Stamp = ONE) -> None:
        """Offer these upstreams and give line 1 these shares."""
        self.writer.offer(service, [upstream.endpoint for upstream, _ in shares], stamp)
        self.writer.shift(service, 1, [(upstream.revision, share) for upstream, share in shares if share], stamp)
        self.settled()

    def settled(self) -> None:
        """Wait until all who are offered are known to be well, through each cluster that leads to them.

        Who was well too late to be waited for, or is asked anew since a start, is stepped in for until then.
        """
        clusters = json.loads((self.folder / "cds.json").read_text())["resources"]
        wanted = [each["name"] for each in clusters if each.get("health_checks")]

        def well() -> bool:
            found = self.writer.envoy.healthy()
            return all(found.get(name) for name in wanted)

        assert wait_until(well)

    def ask(self, path: str = "/housing/", method: str = "GET", body: str = "", **headers: str) -> Answer:
        """One request; `x_branchline_unit` in the keywords is the header x-branchline-unit."""
        where = urlsplit(self.writer.address("housing"))
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body=body.encode() or None, headers=named)
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        try:
            found = json.loads(told)
        except ValueError:
            found = {"text": told.decode()}
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, found)

    def units(self, count: int, *, path: str = "/housing/", start: int = 0) -> dict[str, Answer]:
        """One request for each of so many units, over one connection."""
        where = urlsplit(self.writer.address("housing"))
        connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=60)
        found = {}
        with contextlib.closing(connection):
            for number in range(start, start + count):
                connection.request("GET", path, headers={"x-branchline-unit": f"user-{number}"})
                answer = connection.getresponse()
                body, headers = json.loads(answer.read()), dict(answer.getheaders())
                found[f"user-{number}"] = Answer(answer.status, headers, body)
        return found

    def logged(self, count: int, position: str = "") -> tuple[Served, ...]:
        """The requests of split routes in the log, once there are so many."""
        log, limit = GatewayLog(self.writer.envoy), max(5000, 2 * count)
        assert wait_until(lambda: len(log.read(position, limit)[0]) >= count)
        return log.read(position, limit)[0]


def nonsense(version: str = "x") -> bytes:
    """A route table that Envoy refuses."""
    return in_file(version, resource({"@type": "nonsense.Metadata"}))


def upgraded(program: Path, then: str = "") -> Path:
    """Envoy as another file, as after an upgrade; it does something before it starts."""
    program.write_text(f'#!/bin/sh\n{then}\nexec {binary({})} "$@"\n')
    program.chmod(0o755)
    return program


@contextlib.contextmanager
def gateway(folder: Path, runtime: Path) -> Iterator[Gateway]:
    """A gateway that is not started before something is offered."""
    with loop_in_thread() as loop:
        made = Gateway(folder / "gateway", runtime, Backyard(runtime, loop))
        try:
            yield made
        finally:
            made.writer.stop()
            made.backyard.close()


@contextlib.contextmanager
def living(settings: Settings, runtime: Path) -> Iterator[tuple[Daemon, Gateway]]:
    """A daemon in this process, and a client and upstreams for its gateway."""
    daemon = Daemon(settings)
    try:
        with loop_in_thread() as loop:
            made = Gateway(daemon.gateway.envoy.folder, runtime, Backyard(runtime, loop))
            made.writer = daemon.gateway
            daemon.start()
            try:
                yield daemon, made
            finally:
                made.backyard.close()
    finally:
        daemon.stop(everything=True)
