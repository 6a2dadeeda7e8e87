"""This file puts servers behind a real gateway that are too early, lie, or are all gone, and kills it under a daemon.

By fault: F63 the gateway dies, F64 somebody spoils its document, F65 and F68 a server is not what its health says,
F70 nobody is left.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.errors import NotWarm
from branchline.ports import Stamp
from tests.gateways import Gateway, gateway, living, nonsense
from tests.places import Place
from tests.upstreams import Upstream
from tests.waiting import wait_until

A, B = "a" * 40, "b" * 40
TWO, THREE = Stamp(2, 1), Stamp(3, 1)


@dataclass
class Early(Upstream):
    """Answers whatever it is asked before it is ready, and says so when it is asked for its health."""

    ready: bool = False

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.ready or not head.startswith("GET /health"):
            await super()._answer(head, reader, writer)
            return
        known = f"x-envoy-upstream-healthchecked-cluster: {self.nonce}"
        writer.write(f"HTTP/1.1 503 X\r\ncontent-length: 0\r\n{known}\r\n\r\n".encode())


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


def test_who_answers_before_it_is_ready_is_asked_by_nobody_F65(real: Gateway) -> None:
    """Bad input: a server that answers before it is ready. Killer: take a socket that is open for one that serves."""
    one = real.backyard.add(A, "1.0.0")
    early = real.backyard.add(B, "1.1.0", Early, pins=("1.1.0",))
    assert isinstance(early, Early)
    real.serve((one, 100))
    with pytest.raises(NotWarm):
        real.another(warm_seconds=1.0).offer("housing", [one.endpoint, early.endpoint], TWO)
    assert {answer.revision for answer in real.units(50).values()} == {A}
    assert (real.ask("/housing@1.1.0/").status, early.requests) == (404, 0)
    early.ready = True
    real.serve((one, 50), (early, 50), stamp=THREE)
    answers = real.units(50, start=50).values()
    assert ({answer.status for answer in answers}, {answer.revision for answer in answers}) == ({200}, {A, B})


def test_who_says_it_is_well_and_fails_is_seen_by_the_guardrail_F68(real: Gateway) -> None:
    """Bad input: a health check that lies. Killer: put it aside after failures, and its test never ends."""
    one, liar = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0", status=500)
    real.serve((one, 50), (liar, 50))
    statuses = {unit: answer.status for unit, answer in real.units(300).items()}
    failed = {unit for unit, status in statuses.items() if status == 500}
    assert 90 < len(failed) < 210
    log = real.logged(300)
    assert {served.unit for served in log if served.bad} == failed
    assert {served.assigned for served in log if served.bad} == {B}
    assert {served.answered for served in log if served.bad} == {B}


def test_when_nobody_is_left_it_is_said_at_once_and_nothing_is_rewritten_F70(real: Gateway) -> None:
    """503 with a code, soon; the documents stay as they are, and whoever comes back is asked again."""
    pair = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0")
    real.serve((pair[0], 50), (pair[1], 50))
    names = ("cds.json", "lds.json", "rds.pb", "table.json")

    def written() -> list[tuple[int, int]]:
        return [(found.st_ino, found.st_mtime_ns) for found in ((real.folder / name).stat() for name in names)]

    before = written()
    for upstream in pair:
        upstream.die()
    begun = time.monotonic()
    answers = list(real.units(60).values())
    took = (time.monotonic() - begun) / 60
    assert {(answer.status, answer.body["code"]) for answer in answers} == {(503, "BL507")}
    assert took < 1.0, "each waits for nobody"
    real.writer.ensure()
    assert written() == before
    for upstream in pair:
        upstream.live()
    assert wait_until(lambda: {answer.revision for answer in real.units(40).values()} == {A, B})
    assert written() == before


def test_a_gateway_that_is_killed_is_back_soon_with_the_same_people_F63(tmp_path: Path, runtime_dir: Path) -> None:
    """Who is there looks every 0.2 s, and Envoy starts from its files. Killer: look as seldom as at all else."""
    with living(Place(tmp_path).settings, runtime_dir) as (_, real):
        real.serve((real.backyard.add(A, "1.0.0"), 50), (real.backyard.add(B, "1.1.0"), 50))
        before = {unit: answer.revision for unit, answer in real.units(60).items()}
        gone, killed = real.writer.envoy.pid, time.monotonic()
        os.kill(gone, signal.SIGKILL)
        assert wait_until(lambda: serves(real), every=0.01)
        took = time.monotonic() - killed
        assert real.writer.envoy.pid not in (0, gone)
        real.settled()
        assert {unit: answer.revision for unit, answer in real.units(60).items()} == before
        assert took < 30, "1 s on a machine that has nothing else to do"


def test_a_document_that_somebody_spoils_is_noticed_and_mended_soon_F64(tmp_path: Path, runtime_dir: Path) -> None:
    """The last good one serves meanwhile. Killer: look at the files only where something is to be changed."""
    with living(Place(tmp_path).settings, runtime_dir) as (daemon, real):
        real.serve((real.backyard.add(A, "1.0.0"), 50), (real.backyard.add(B, "1.1.0"), 50))
        spoilt = real.folder / "rds.pb.spoilt"
        spoilt.write_bytes(nonsense())
        begun = time.monotonic()
        spoilt.replace(real.folder / "rds.pb")
        statuses = {answer.status for answer in real.units(60).values()}
        assert wait_until(lambda: b"nonsense" not in (real.folder / "rds.pb").read_bytes(), every=0.01)
        took = time.monotonic() - begun
        assert statuses | {answer.status for answer in real.units(60).values()} == {200}
        assert wait_until(lambda: not daemon.ports.router.survey().edited)
        assert took < 30, "2 s on a machine that has nothing else to do"


def serves(real: Gateway) -> bool:
    """Whether anybody is answered."""
    try:
        return real.ask().status == 200
    except OSError:
        return False
