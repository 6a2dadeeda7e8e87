"""This file tests reporting: `sdk.report` as a caller uses it, against the real ingest on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from branchline.sdk import report
from branchline.server.ingest import ingest
from tests.world import World


@dataclass
class Ingest:
    """The real ingest over a world of fakes; the first answers are `failures`, as a gateway gives them."""

    world: World
    address: str = ""
    failures: list[int] = field(default_factory=list)
    asked: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.asked += 1
        if self.failures:
            await send({"type": "http.response.start", "status": self.failures.pop(0), "headers": []})
            await send({"type": "http.response.body", "body": b"upstream connect error"})
            return
        await ingest(self.world.controller)(scope, receive, send)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ingest]:
    """A service with a challenger under test, whose outcomes come in at a port of its own."""
    found = Ingest(World(tmp_path))
    found.world.released()
    found.world.testing()
    listening = socket.create_server(("127.0.0.1", 0))
    found.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(found, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
    thread.start()
    yield found
    server.should_exit = True
    thread.join()
    listening.close()


def test_what_is_reported_is_kept_once(place: Ingest, monkeypatch: pytest.MonkeyPatch) -> None:
    """1.30, F74: by unit or by request, one or many; a second report of the same outcome does no harm."""
    place.world.visit(["a", "b", "c"])
    monkeypatch.setenv(report.GATEWAY, place.address)
    assert report.report("housing", 7, unit="a") == "kept"
    assert report.report("housing", 7, unit="a") == "duplicate"
    assert report.report("housing", 6, request_id="r1", id="o1") == "kept"
    many = [report.outcome(5, unit="c"), report.outcome(5, unit="nobody"), report.outcome(9, unit="a")]
    assert report.report_many("housing", many) == ["kept", "unknown", "conflict"]


def test_a_word_for_each_outcome_even_where_none_was_kept(place: Ingest) -> None:
    many = [report.outcome(1, unit="nobody"), report.outcome(2, request_id="nothing")]
    assert report.report_many("housing", many, gateway=place.address) == ["unknown", "unknown"]


def test_an_outcome_is_reported_again_until_it_is_answered(place: Ingest) -> None:
    """1.30: reporting is idempotent, so a report without an answer is sent again."""
    place.world.visit(["a"])
    place.failures.append(503)
    assert report.report("housing", 7, unit="a", gateway=place.address) == "kept"
    assert place.asked == 2


def test_what_is_refused_is_told_and_not_repeated(place: Ingest) -> None:
    """F78: values are strict."""
    with pytest.raises(report.Refused, match="value: Input should be a valid number") as told:
        report.report_many("housing", [{"value": "7", "unit": "a"}], gateway=place.address)
    assert told.value.problem["code"] == "BL611"
    with pytest.raises(report.Refused, match="404"):
        report.report("hosing", 7, unit="a", gateway=place.address)
    assert place.asked == 2


def test_an_outcome_of_nobody_is_not_sent() -> None:
    with pytest.raises(ValueError, match="unit or the request"):
        report.report("housing", 1, gateway="http://127.0.0.1:1")
    with pytest.raises(ValueError, match="no gateway"):
        report.report("housing", 1, unit="a")
