"""This file asks a real gateway who answers: splits, pins, addresses, answers of its own (1.24, 1.27, 1.33, I26)."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.core.traffic import assigned
from branchline.ports import Stamp
from tests.calls import asked_h2
from tests.gateways import Gateway, gateway
from tests.integration.test_gateway_protocols import port_of
from tests.upstreams import Upstream

A, B, C = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


@pytest.fixture
def pair(real: Gateway) -> tuple[Upstream, Upstream]:
    """An incumbent with 70 % and a challenger with 30 %."""
    one = real.backyard.add(A, "1.0.0", pins=("1.0.0",))
    other = real.backyard.add(B, "1.1.0-alex.1", pins=("alex", "experiment--housing--alex"))
    real.serve((one, 70), (other, 30))
    return one, other


def test_served_is_what_was_predicted(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """I26: 2,000 of 2,000 units, by xxh64 in Python and in Envoy."""
    shown = real.writer.shown("housing")[1]
    found = real.units(2000)
    predicted = {unit: assigned(shown.segments, unit, shown.experiment) for unit in found}
    assert {unit: answer.revision for unit, answer in found.items()} == predicted
    assert set(predicted.values()) == {A, B}


@pytest.mark.parametrize("unit", ["ümlaut@例.jp", "a b c", "x" * 200, "0", "semi;colon=1", 'quo"te\\'])
def test_an_odd_unit_is_predicted_too(real: Gateway, pair: tuple[Upstream, Upstream], unit: str) -> None:
    shown = real.writer.shown("housing")[1]
    answer = real.ask(x_branchline_unit=unit.encode().decode("latin-1"))
    assert answer.revision == assigned(shown.segments, unit, shown.experiment)
    assert real.logged(1)[0].unit == unit


def test_growing_a_share_moves_nobody_out(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    before = real.units(600)
    real.writer.shift("housing", 1, [(A, 50), (B, 50)], Stamp(2, 1))
    after = real.units(600)
    moved = {(before[u].revision, after[u].revision) for u in before if before[u].revision != after[u].revision}
    assert moved == {(A, B)}


def test_another_experiment_draws_other_people(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """1.32: without a salt the same people would be the challenger's every time."""
    before = {u for u, answer in real.units(600).items() if answer.revision == B}
    real.writer.shift("housing", 1, [(A, 100)], Stamp(2, 1))
    assert {answer.revision for answer in real.units(50).values()} == {A}
    third = real.backyard.add(C, "1.2.0")
    real.writer.offer("housing", [pair[0].endpoint, third.endpoint], Stamp(3, 1))
    real.writer.shift("housing", 1, [(A, 70), (C, 30)], Stamp(3, 1))
    after = {u for u, answer in real.units(600).items() if answer.revision == C}
    assert len(before & after) < 0.6 * len(before)


def test_three_arms_and_a_neighbourless_table(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    third = real.backyard.add(C, "1.2.0")
    real.writer.offer("housing", [u.endpoint for u in (*pair, third)], Stamp(2, 1))
    real.writer.shift("housing", 1, [(A, 40), (B, 30), (C, 30)], Stamp(2, 1))
    real.writer.shift("housing", 1, [(A, 20), (B, 40), (C, 40)], Stamp(2, 1))
    shown = real.writer.shown("housing")[1]
    assert len(shown.segments) > 3
    for unit, answer in real.units(400).items():
        assert answer.revision == assigned(shown.segments, unit, shown.experiment)
    real.writer.shift("housing", 1, [(B, 60), (C, 40)], Stamp(3, 1))  # one of them wins: the other's people stay
    again = real.writer.shown("housing")[1]
    assert again.experiment != shown.experiment
    for unit, answer in real.units(400).items():
        assert answer.revision == assigned(again.segments, unit, again.experiment)
        assert C not in (was := {assigned(shown.segments, unit, shown.experiment)}) or answer.revision in was


@pytest.mark.parametrize("pin", ["1.1.0-alex.1", "alex", "experiment--housing--alex", B[:7], B])
def test_a_pin_reaches_its_revision(real: Gateway, pair: tuple[Upstream, Upstream], pin: str) -> None:
    """1.24: by path and by header, and the path arrives without the address in it; no pin is an exposure."""
    by_path = real.ask(f"/housing@{pin}/predict?x=1")
    by_header = real.ask("/housing/predict?x=1", x_branchline_pin=pin)
    by_host = real.ask("/predict?x=1", x_branchline_pin=pin, host="housing.localhost")
    for answer in (by_path, by_header, by_host):
        assert (answer.revision, answer.body["path"]) == (B, "/predict?x=1")
        assert answer.headers["x-branchline-revision"] == "housing@1.1.0-alex.1"
    real.units(1)
    assert [served.unit for served in real.logged(1)] == ["user-0"]


@pytest.mark.parametrize(
    ("path", "pin"),
    [("/housing@nobody/", ""), ("/housing/", "nobody"), ("/nobody/", ""), ("/housingx/", ""), ("/", "")],
)
def test_an_unknown_address_is_404_and_never_falls_into_the_split(
    real: Gateway, pair: tuple[Upstream, Upstream], path: str, pin: str
) -> None:
    answer = real.ask(path, **({"x_branchline_pin": pin} if pin else {}))
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert (answer.body["code"], answer.body["status"], answer.body["hint"]) == ("BL505", 404, "branchline status")
    assert path in answer.body["detail"]
    assert pair[0].requests == pair[1].requests == 0


def test_paths_and_hosts_lead_to_the_same_split(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    for number in range(40):
        unit = f"user-{number}"
        answers = [
            real.ask("/housing", x_branchline_unit=unit),
            real.ask("/housing/", x_branchline_unit=unit),
            real.ask("/housing@v1/", x_branchline_unit=unit),
            real.ask("/", x_branchline_unit=unit, host="housing.example.org:8080"),
        ]
        assert len({answer.revision for answer in answers}) == 1
        assert {answer.body["path"] for answer in answers} == {"/"}


def test_what_is_taken_off_a_path_is_told(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """And a caller who makes one up is not believed; a host takes nothing off."""

    def told(path: str, **headers: str) -> object:
        return real.ask(path, **headers).body["headers"].get("x-forwarded-prefix")

    assert {told(path, x_branchline_unit=unit) for path in ("/housing", "/housing/a") for unit in "abcdefg"} == {
        "/housing"
    }
    assert told("/housing/", x_forwarded_prefix="/elsewhere") == "/housing"
    assert told("/housing/", x_branchline_pin="alex") == told("/housing/", x_branchline_pin="v1") == "/housing"
    assert told("/housing@v1/a") == "/housing@v1"
    for word in ("alex", B, B[:7], "1.1.0-alex.1"):
        assert told(f"/housing@{word}/a") == "/housing@1.1.0-alex.1"
    assert told("/", host="housing.localhost") is told("/", host="housing.localhost", x_branchline_pin="alex") is None


def test_a_stranger_gets_a_unit_and_keeps_it(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """1.33: minted once; first answer and later ones come from the same arm, which is the predicted one."""
    shown = real.writer.shown("housing")[1]
    for _ in range(30):
        first = real.ask()
        named = re.match(r"branchline-unit=([^;]+);", first.headers["set-cookie"])
        assert named
        assert first.revision == assigned(shown.segments, named[1], shown.experiment)
        assert first.body["headers"]["x-branchline-unit"] == named[1]
        again = real.ask(cookie=f"theme=dark; branchline-unit={named[1]}")
        assert again.revision == first.revision
        assert "set-cookie" not in again.headers
    assert len({served.unit for served in real.logged(60)}) == 30


def test_who_brings_a_unit_gets_no_cookie(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    assert "set-cookie" not in real.ask(x_branchline_unit="me").headers
    assert "set-cookie" not in real.ask("/housing@alex/").headers


def test_two_units_are_refused(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """Two headers arrive as one with a comma; hashing both would draw an arm for nobody."""
    two = real.ask(x_branchline_unit="one, two")
    long = real.ask(x_branchline_unit="x" * 201)
    assert [(a.status, a.body["code"]) for a in (two, long)] == [(400, "BL510")] * 2
    assert real.ask(x_branchline_unit="x" * 200).status == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "housing.localhost"])
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["x-branchline-unit: one", "x-branchline-unit: two"], 400),
        (["x-branchline-unit:", "x-branchline-unit: two"], 400),
        (["x-branchline-unit: one", "x-branchline-pin: v1", "x-branchline-pin: nobody"], 404),
        (["x-branchline-unit: one"], 200),
    ],
)
def test_a_header_of_two_lines_is_no_unit_and_no_pin(
    real: Gateway, pair: tuple[Upstream, Upstream], host: str, lines: list[str], status: int
) -> None:
    """Killer: match each line for itself, as Envoy does by default: an arm for both, logged as the first one's."""
    path = "/" if host == "housing.localhost" else "/housing/"
    asked = "\r\n".join([f"GET {path} HTTP/1.1", f"host: {host}", "connection: close", *lines, "", ""])
    with socket.create_connection(("127.0.0.1", port_of(real)), timeout=60) as wire:
        wire.sendall(asked.encode())
        answer = b"".join(iter(lambda: wire.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    unit = [("x-branchline-unit", "one"), ("x-branchline-unit", "two")]
    assert asked_h2(port_of(real), "/housing/", odd=unit).headers[":status"] == "400"
    assert sum(each.requests for each in pair) == (status == 200)


@pytest.mark.parametrize(
    "address",
    [
        {"path": "/housing"},
        {"path": "/housing@v1/"},
        {"x_branchline_pin": "v1"},
        {"host": "housing.localhost"},
        {"host": "v1.housing.localhost"},
    ],
    ids=lambda address: "-".join(address.values()),
)
def test_every_address_of_a_split_refuses_two_units_and_gives_one_to_who_says_none(
    real: Gateway, pair: tuple[Upstream, Upstream], address: dict[str, str]
) -> None:
    """Killer: refuse at the plain address only; or take an empty header for a unit, which all would share."""
    assert real.ask(**address, x_branchline_unit="one, two").status == 400
    assert pair[0].requests == pair[1].requests == 0
    given = real.ask(**address, x_branchline_unit="")
    assert given.headers["set-cookie"].startswith(f"branchline-unit={given.body['headers']['x-branchline-unit']};")


def test_a_client_cannot_choose_its_request_id(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    ids = {real.ask(x_branchline_unit="me", x_request_id="mine").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert {served.request for served in real.logged(2)} == ids


def test_a_line_says_what_the_judge_needs(real: Gateway) -> None:
    """1.38: unit, arm, experiment, table, duration, prediction."""
    one = real.backyard.add(A, "1.0.0", prediction="12.5")
    other = real.backyard.add(B, "1.1.0", prediction="12.5")
    real.serve((one, 50), (other, 50))
    shown = real.writer.shown("housing")[1]
    begun = time.monotonic()
    answer = real.ask(x_branchline_unit="me")
    took = time.monotonic() - begun
    (served,) = real.logged(1)
    assert (served.experiment, served.table, served.unit) == (shown.experiment, shown.table, "me")
    assert (served.prediction, served.request) == (12.5, answer.headers["x-request-id"])
    assert served.assigned == served.answered == answer.revision
    assert 0 < served.seconds < took


def test_lines_have_routes_of_their_own(real: Gateway) -> None:
    """1.45: the plain address is the newest major's, the older one keeps its own."""
    one, two = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "2.0.0")
    real.writer.offer("housing", [one.endpoint, two.endpoint], Stamp(1, 1))
    real.writer.shift("housing", 1, [(A, 100)], Stamp(1, 1))
    real.writer.shift("housing", 2, [(B, 100)], Stamp(1, 1))
    found = [real.ask(path).revision for path in ("/housing/", "/housing@v1/", "/housing@v2/")]
    assert found == [B, A, B]
    assert real.ask(x_branchline_pin="v1").revision == A
    real.writer.shift("housing", 2, [], Stamp(1, 1))
    assert real.ask().revision == A


def test_services_whose_names_begin_alike(real: Gateway) -> None:
    names = ["housing", "housing-x", "h", "1"]
    for number, name in enumerate(names):
        upstream = real.backyard.add(f"{number}" * 40, "1.0.0")
        real.writer.offer(name, [upstream.endpoint], Stamp(1, 1))
        real.writer.shift(name, 1, [(upstream.revision, 100)], Stamp(1, 1))
    assert [real.ask(f"/{name}/x").revision[0] for name in names] == ["0", "1", "2", "3"]
    assert real.ask("/housing-y/").status == 404


def test_staging_can_be_pinned_but_never_split(real: Gateway) -> None:
    one = real.backyard.add(A, "1.0.0")
    real.serve((one, 100))
    staged = real.backyard.add(B, "1.1.0-alex.1", pins=("alex",), split=False)
    real.writer.offer("housing", [one.endpoint, staged.endpoint], Stamp(1, 1))
    assert real.ask("/housing@alex/").revision == B
    group = real.backyard.add(B, "1.1.0", pins=("alex",))
    real.writer.offer("housing", [one.endpoint, group.endpoint, staged.endpoint], Stamp(1, 1))
    real.ask("/housing@alex/")
    assert (group.requests, staged.requests) == (1, 1)


@pytest.mark.parametrize("label", ["1-1-0-alex-1", "alex", "experiment--housing--alex", B[:7], B, "ALEX"])
def test_a_host_reaches_its_revision(real: Gateway, pair: tuple[Upstream, Upstream], label: str) -> None:
    """1.24: in front of the service's, under any domain; nothing is taken off the path, and it is no exposure."""
    for domain in ("localhost", "example.org:8080"):
        answer = real.ask("/housing/predict?x=1", host=f"{label}.housing.{domain}", x_branchline_pin="1.0.0")
        assert (answer.revision, answer.body["path"]) == (B, "/housing/predict?x=1")
        assert "x-forwarded-prefix" not in answer.body["headers"]
    real.units(1)
    assert [served.unit for served in real.logged(1)] == ["user-0"]


def test_a_line_has_a_host_and_nobody_has_none(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """Split like the service, though a branch is called the same; and words that look alike in a host are no harm."""
    odd = [real.backyard.add(c * 40, f"1.2.{c}", pins=("v1", "a.b", "a-b", "x" * 64), split=False) for c in "cd"]
    real.writer.offer("housing", [each.endpoint for each in (*pair, *odd)], Stamp(1, 1))
    for number in range(20):
        answers = [
            real.ask(host=f"{host}.localhost", x_branchline_unit=f"u{number}") for host in ("v1.housing", "housing")
        ]
        assert len({answer.revision for answer in answers}) == 1
    assert len(real.logged(40)) == 40
    by_header = [real.ask("/housing/", x_branchline_pin="v1", x_branchline_unit=f"u{number}") for number in range(20)]
    assert {answer.revision for answer in by_header} == {A, B}
    assert real.ask(host="a-b.housing.localhost").revision in ("c" * 40, "d" * 40)
    assert real.ask("/", host="nobody.housing.localhost", x_branchline_unit="me").status == 404


def test_the_gateway_itself_says_who_serves(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """By path and host, with no daemon there: what it was last told; it is no exposure."""
    rows = [
        {"revision": f"housing@{v}", "version": v, "commit": c, "share": share, "line": 1}
        for v, c, share in (("1.0.0", A, 70), ("1.1.0-alex.1", B, 30))
    ]
    for answer in (real.ask("/housing/-/v"), real.ask("/-/v", host="housing.localhost")):
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.body == {"schema": "branchline.service/1", "service": "housing", "revisions": rows}
    real.writer.shift("housing", 1, [(A, 100)], Stamp(2, 1))
    assert real.ask("/housing/-/v").body["revisions"] == [{**rows[0], "share": 100}]
    assert pair[0].requests == pair[1].requests == 0


def test_who_serves_may_be_many(real: Gateway) -> None:
    """Envoy's own limit of an answer is 4 kB. Killer: leave it there, and the gateway refuses all its routes."""
    many = [real.backyard.add(f"{n:02x}" * 20, f"1.{n}.0-a-branch-with-a-long-name.{n}") for n in range(21)]
    real.serve(*zip(many, (20, *[4] * 20), strict=True))
    assert len(real.ask("/housing/-/v").body["revisions"]) == 21


def test_the_daemon_takes_outcomes_and_its_death_is_said(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """Without it: 503 with its name, and the service goes on."""
    answer = real.ask("/housing/-/outcomes", "POST")
    assert (answer.status, answer.body["code"]) == (503, "BL701")
    assert answer.headers["content-type"] == "application/problem+json"
    daemon = real.backyard.add("d" * 40, "0")
    daemon.socket.rename(real.runtime / "ingest.sock")
    asked = real.ask("/housing/-/outcomes", "POST", json.dumps({"value": 1}))
    assert (asked.body["path"], asked.body["body"], asked.revision) == ("/housing/-/outcomes", '{"value": 1}', "d" * 40)
    assert real.ask("/-/outcomes", "POST", host="housing.localhost").body["path"] == "/housing/-/outcomes"
    assert real.ask("/housing/-/outcomes", x_branchline_unit="me").revision in (A, B)


def test_a_body_that_is_too_large_is_refused_before_it_is_read(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F72."""
    answer = real.ask(method="POST", x_branchline_unit="me", content_length=str((64 << 20) + 1))
    assert (answer.status, answer.body["code"]) == (413, "BL509")


def test_a_revision_that_is_too_slow_or_dead_is_said(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F70: both dead is a fast 503 with a code."""
    for upstream in pair:
        upstream.die()
    answer = real.ask(x_branchline_unit="me")
    assert (answer.status, answer.body["code"]) == (503, "BL507")
    (served,) = real.logged(1)
    assert served.bad
    assert served.assigned in {A, B}


def test_the_port_is_loopbacks_alone(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    port = int(real.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", port)) != 0


def test_metrics_carry_service_and_revision(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    real.units(20)
    told = real.writer.metrics()
    assert re.search(r'branchline_service="housing",branchline_revision="1_0_0"', told)
    assert re.search(r'branchline_service="housing",branchline_revision="1_1_0-alex_1"', told)
