"""This file starts and replaces a gateway where something is in its way, and asks that this is said (F16, F63, F64)."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from branchline.adapters.envoy import Envoy
from branchline.adapters.envoy_meter import GatewayLog
from branchline.core.spec import Requests
from branchline.errors import EnvoyRejected, PortTaken
from branchline.ports import Stamp
from tests.gateways import Gateway, gateway, upgraded
from tests.upstreams import Upstream
from tests.waiting import wait_until

A = "a" * 40
LONG = 60.0  # seconds that a start may take which nothing is in the way of


class Late(Envoy):
    """An Envoy whose port somebody takes after it was found free."""

    thief: socket.socket

    def _alone(self, host: str, port: int) -> bool:
        free = super()._alone(host, port)
        self.thief.bind((host, port))
        self.thief.listen()
        return free


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        made.serve((made.backyard.add(A, "1.0.0", asked=Requests(timeout=0)), 100))
        yield made


def port_of(real: Gateway) -> int:
    return int(real.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])


def test_a_port_that_was_taken_between_stop_and_start_is_said_at_once(real: Gateway) -> None:
    """M17. Killer: wait for an Envoy that cannot bind."""
    real.writer.stop()
    late, port = Late(real.folder, real.runtime, start_seconds=LONG), port_of(real)
    with socket.socket() as late.thief:
        late.thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        begun = time.monotonic()
        with pytest.raises(PortTaken, match=str(port)):
            late.start("127.0.0.1", port)
        assert time.monotonic() - begun < LONG / 2
        assert not late.pid
    assert real.writer.ensure()
    real.settled()
    assert {answer.revision for answer in real.units(5).values()} == {A}


SPOILT = {
    "cds.json": (b'"resources":[{', b'"resources":[{"unheard_of":1,'),
    "lds.json": (b'"resources":[{', b'"resources":[{"unheard_of":1,'),
    "rds.pb": (b"housing@1.0.0~", b"unheard_of~na~"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_first_document_that_is_rejected_is_said_at_once(real: Gateway, name: str) -> None:
    """F64: with Envoy's own reason. Killer: wait for one that will never be ready."""
    real.writer.stop()
    path = real.folder / name
    path.write_bytes(path.read_bytes().replace(*SPOILT[name]))
    begun = time.monotonic()
    with pytest.raises(EnvoyRejected) as told:
        Envoy(real.folder, real.runtime, start_seconds=LONG).start("127.0.0.1", port_of(real))
    assert time.monotonic() - begun < LONG / 2
    assert "unheard_of" in str(told.value.cause)
    assert real.writer.ensure(), "our own documents are written anew"
    real.settled()
    assert {answer.revision for answer in real.units(5).values()} == {A}


def test_documents_that_keep_it_from_starting_are_not_tried_all_the_time(real: Gateway) -> None:
    """Killer: start Envoy with them at every look, five times a second."""
    real.writer.stop()
    for name in ("table.json", "table.copy.json"):
        table = (real.folder / name).read_text()
        (real.folder / name).write_text(table.replace(str(real.runtime), "/" + "x" * 200))
    again = real.another()
    with pytest.raises(EnvoyRejected) as first:
        again.ensure()
    boot = again.envoy.boot
    with pytest.raises(EnvoyRejected) as second:
        again.ensure()
    assert again.envoy.boot == boot, "it was not started"
    assert "x" * 200 in first.value.cause
    assert second.value.cause == first.value.cause


# ------------------------------------------------------------------------------------------------ one after another


REFUSES = 'case "$*" in *validate*) echo it is too old >&2; exit 1;; esac'
DIES = 'case "$*" in *validate*) ;; *) sleep 0.2; exit 1;; esac'


@pytest.mark.parametrize(("how", "why"), [(REFUSES, "it is too old"), (DIES, "did not take over")])
def test_one_that_cannot_take_over_leaves_the_one_before(
    real: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, why: str
) -> None:
    """3.15: and it is said at every look, but tried once. Killer: forget what was refused."""
    pid, boot = real.writer.envoy.pid, real.writer.envoy.boot
    tried = tmp_path / "tried"
    monkeypatch.setenv("BRANCHLINE_ENVOY", str(upgraded(tmp_path / "envoy", f"echo once >> {tried}\n{how}")))
    told: list[str] = []
    for _ in range(2):
        with pytest.raises(EnvoyRejected) as caught:
            real.writer.ensure()
        told.append(caught.value.cause)
        assert (real.writer.envoy.pid, real.writer.envoy.boot) == (pid, boot)
        assert {answer.status for answer in real.units(5).values()} == {200}
    assert why in told[0]
    assert told[0] == told[1]
    assert tried.read_text().count("once") == (1 if how == REFUSES else 2)
    real.writer.shift("housing", 1, [(A, 100)], Stamp(2, 1))


class Killed(Envoy):
    """One who replaces a gateway and is killed while the new process starts."""

    def _ready(self) -> bool:
        raise SystemExit


def test_a_replacement_whose_daemon_is_killed_is_whole(
    real: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F16: the new process takes over all the same, and the next daemon finds it. Killer: write it down at the end."""
    old = real.writer.envoy.pid
    monkeypatch.setenv("BRANCHLINE_ENVOY", str(upgraded(tmp_path / "envoy")))
    with pytest.raises(SystemExit):
        Killed(real.folder, real.runtime).renew()
    daemon = real.another()
    assert wait_until(lambda: daemon.envoy.pid not in (0, old) and not daemon.ensure())
    assert {answer.status for answer in real.units(5).values()} == {200}
    assert list(daemon.envoy.leaving.values()) == [old]
    boot = daemon.envoy.boot
    assert not daemon.ensure()
    assert daemon.envoy.boot == boot


def tell_counted(folder: Path, boot: str, count: int) -> None:
    """Let a start of Envoy have counted so many requests."""
    path = folder / "counted.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), boot: count}))


def test_the_log_of_one_that_is_leaving_is_read_to_its_end(
    real: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.33, F63: through a rotation and a kill of the new one. Killers: one start of Envoy at a time; no SIGUSR1."""
    server = real.backyard.named(A)
    assert isinstance(server, Upstream)
    log, envoy = GatewayLog(real.writer.envoy, rotate_bytes=1), real.writer.envoy
    real.units(2)
    assert wait_until(lambda: log.sample() == 2)
    with ThreadPoolExecutor(1) as pool:
        server.until = over = threading.Event()
        slow = pool.submit(real.units, 1, start=5)
        assert wait_until(lambda: server.requests == 3)
        server.until = None
        monkeypatch.setenv("BRANCHLINE_ENVOY", str(upgraded(tmp_path / "envoy")))
        assert not real.writer.ensure()
        (old,) = envoy.leaving
        tell_counted(real.folder, old, 3)  # as if its last line had not been written yet
        real.units(2, start=10)
        assert wait_until(lambda: len(log.read("")[0]) == 4 and log.sample() == 2)
        _, position = log.read("")
        assert log.rotate(position)
        real.units(1, start=20)
        assert wait_until(lambda: len(log.read(position)[0]) == 1)
        _, position = log.read(position)
        over.set()
        assert {answer.status for answer in slow.result().values()} == {200}
    assert wait_until(lambda: [each.unit for each in log.read(position)[0]] == ["user-5"])
    tell_counted(real.folder, envoy.boot, 3 + 7)
    os.kill(envoy.pid, signal.SIGKILL)
    assert wait_until(lambda: not envoy.pid)
    assert real.writer.ensure()
    real.units(1, start=30)
    assert wait_until(lambda: len(log.read(position)[0]) == 2)
    assert log.loss() == 7, "the new had counted ten, three stand in the log; of the old all three do"
