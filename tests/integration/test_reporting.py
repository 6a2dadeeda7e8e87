"""This file tests reporting: `sdk.report` as a caller uses it, against the real ingest on a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from branchline.core import lifecycle as law
from branchline.sdk import report
from branchline.server.ingest import Words, ingest
from tests.world import APP, KIM, MODEL, World


@dataclass
class Ingest:
    """The real ingest over a world of fakes; the first answers are `failures`, as a gateway gives them."""

    world: World
    address: str = ""
    failures: list[int] = field(default_factory=list)
    asked: int = 0
    words: Words = field(default_factory=Words)

    def __post_init__(self) -> None:
        self.app = ingest(self.world.controller, self.words)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.asked += 1
        if self.failures:
            await send({"type": "http.response.start", "status": self.failures.pop(0), "headers": []})
            await send({"type": "http.response.body", "body": b"upstream connect error"})
            return
        await self.app(scope, receive, send)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ingest]:
    """A service with a challenger under test, whose outcomes come in at a port of its own."""
    world = World(tmp_path)
    world.released()
    world.testing()
    found = Ingest(world)
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
    assert report.report("housing", 7, unit="b", of=2) == "refused"
    assert report.report("housing", 7, unit="b", before=2.0, metric="rating") == "refused"
    many = [report.outcome(5, unit="c"), report.outcome(5, unit="nobody"), report.outcome(9, unit="a")]
    assert report.report_many("housing", many) == ["kept", "unknown", "conflict"]


def test_a_word_for_each_outcome_even_where_none_was_kept(place: Ingest) -> None:
    many = [report.outcome(1, unit="nobody"), report.outcome(2, request_id="nothing")]
    assert report.report_many("housing", many, gateway=place.address) == ["unknown", "unknown"]


def answered(place: Ingest, outcomes: object, service: str = "housing") -> tuple[int, dict[str, Any]]:
    """What a caller without our sdk gets."""
    body = outcomes if isinstance(outcomes, bytes) else json.dumps(outcomes).encode()
    return report.post(place.address, f"/{service}/-/outcomes", body)


def test_whatever_becomes_of_outcomes_that_can_be_read_the_answer_is_200(place: Ingest) -> None:
    """F75, F77, F78: a client that looks at the status alone breaks at nothing that happens to a test."""
    place.world.visit(["a", "b"])
    assert answered(place, {"unit": "a", "value": 7}) == (
        200, {"schema": "branchline.outcomes/1", "outcomes": ["kept"], "reasons": [""]},
    )  # fmt: skip
    status, document = answered(
        place, [{"unit": "a", "value": 8}, {"unit": "b", "value": -1}, {"unit": "c", "value": 1}]
    )
    assert (status, document["outcomes"]) == (200, ["conflict", "refused", "unknown"])
    assert document["reasons"] == [
        "7 was said before",
        "-1 is outside the metric's bounds 0 to 10",
        "no request of it was in the test",
    ]
    assert answered(place, [])[1]["outcomes"] == []
    assert answered(place, [])[0] == 200


def test_outcomes_after_the_end_of_a_test_are_late_and_of_others_unmeasured(place: Ingest) -> None:
    """F76, newcomer: the test ends while callers go on; who was served without one is no stranger."""
    world = place.world
    world.visit(["a", "b"])
    assert answered(place, {"unit": "a", "value": 7})[1]["outcomes"] == ["kept"]
    (branch,) = [each.branch for each in world.service().candidates if each.phase is law.Phase.TESTING]
    world.controller.recorder.record("housing", law.Aborted(branch, reason="enough"))
    world.settle()
    world.visit(["c"])
    status, document = answered(place, [{"unit": unit, "value": 7} for unit in ("a", "b", "c")])
    assert (status, document["outcomes"]) == (200, ["duplicate", "late", "unmeasured"])
    assert document["reasons"][1:] == ["its test has ended", "nothing of housing is under test"]


def test_what_is_reported_while_an_arm_is_down_counts(place: Ingest) -> None:
    """Killer: an arm that comes back finds its experiment again, and the outcomes of the minute between are its own."""
    world = place.world
    world.visit(["a"])
    incumbent = world.router.shown("housing")[1].shares[0][0]
    world.router.shift("housing", 1, [(incumbent, 100)], world.router.told()["housing"])
    assert answered(place, {"unit": "a", "value": 7})[1]["outcomes"] == ["kept"]


def test_two_majors_under_test_are_each_read_by_their_own_metric(place: Ingest) -> None:
    """1.51: line 1 rates up to ten, line 2 up to a hundred."""
    world = place.world
    second = "major = 2\n" + MODEL.replace("bounds = [0, 10]", "bounds = [0, 100]")
    world.push(KIM, second)
    world.settle()
    world.testing("experiment--housing--max", second)
    world.visit(["a"])
    world.visit(["b"], line=2)
    status, document = answered(place, [{"unit": unit, "value": 50} for unit in ("a", "b")])
    assert (status, document["outcomes"]) == (200, ["refused", "kept"])


@pytest.mark.parametrize(
    ("body", "status", "code", "told"),
    [
        (b'{"unit": "a", "value"', 422, "BL611", "EOF"),
        (b'"a"', 422, "BL611", "the body"),
        (b'[{"unit": "a", "value": 7}, {"unit": "b", "value": true}]', 422, "BL611", "1.value"),
        (b'[{"unit": "a", "value": NaN}]', 422, "BL611", "0.value"),
        (b'[{"unit": "a", "value": 1e400}]', 422, "BL611", "0.value"),
        (b'[{"unit": "a", "value": 7, "weight": 2}]', 422, "BL611", "0.weight"),
        (b'[{"unit": "a", "value": 7}, {"value": 7}]', 422, "BL611", "neither unit nor request_id"),
        (b" " * (1 << 20) + b"[]", 413, "BL509", "1048576 bytes"),
        (b"[" + b",".join([b'{"unit": "a", "value": 7}'] * 10_001) + b"]", 413, "BL509", "10000 outcomes"),
    ],
    ids=["no JSON", "shape", "bool", "NaN", "infinity", "key", "nobody", "bytes", "many"],
)
def test_of_a_body_that_cannot_be_read_nothing_is_kept(
    place: Ingest, body: bytes, status: int, code: str, told: str
) -> None:
    """F74, F78: all or nothing, with the place of what is wrong."""
    place.world.visit(["a"])
    found, problem = answered(place, body)
    assert (found, problem["status"], problem["code"]) == (status, status, code)
    assert told in problem["detail"] + problem["title"]
    assert answered(place, {"unit": "a", "value": 7})[1]["outcomes"] == ["kept"]


def test_a_service_that_measures_nothing_says_so(place: Ingest) -> None:
    """Who reports for every service need not know which of them declare a metric."""
    kept = [line for line in APP.splitlines() if not line.startswith(("metric", "guardrails"))]
    place.world.released("experiment--listings--ada", "\n".join(kept))
    status, document = answered(place, {"unit": "a", "value": 7}, "listings")
    assert (status, document["outcomes"]) == (200, ["unmeasured"])
    assert document["reasons"] == ["listings declares no metric"]


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


def test_bodies_that_come_at_once_are_each_told_of_their_own(place: Ingest) -> None:
    """I16, F77: they share transactions; a stranger among them, and a service that there is not, hold up nobody."""
    units = [f"u{n}" for n in range(40)]
    place.world.visit(units)
    told: dict[str, object] = {}

    def say(unit: str) -> None:
        told[unit] = answered(place, [{"unit": unit, "value": 5}, {"unit": f"no {unit}", "value": 5}])[1]["outcomes"]

    def stray() -> None:
        told["stray"] = answered(place, {"unit": "u1", "value": 5}, "hosing")[0]

    threads = [threading.Thread(target=say, args=(unit,)) for unit in units] + [threading.Thread(target=stray)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == {"stray": 404, **{unit: ["kept", "unknown"] for unit in units}}
    (shown,) = place.world.router.shown("housing").values()
    counts = place.world.ports.observations.counts("housing", shown.experiment)
    assert sum(counts[arm]["outcomes"] for arm in counts if arm) == 40
    assert counts[""]["unknown"] == 40
    assert place.words == {("housing", "kept"): 40, ("housing", "unknown"): 40}


def test_a_ledger_that_cannot_write_is_told_to_everybody_and_no_longer_than_it_lasts(place: Ingest) -> None:
    """F55: who got no 200 sends it again."""
    place.world.visit(["a"])
    kept = place.world.observations
    kept.full = True
    status, problem = answered(place, {"unit": "a", "value": 7})
    assert (status, problem["code"]) == (507, "BL707")
    kept.full = False
    assert answered(place, {"unit": "a", "value": 7})[1]["outcomes"] == ["kept"]


def test_an_outcome_of_nobody_is_not_sent() -> None:
    with pytest.raises(ValueError, match="unit or the request"):
        report.report("housing", 1, gateway="http://127.0.0.1:1")
    with pytest.raises(ValueError, match="no gateway"):
        report.report("housing", 1, unit="a")
