"""This file asks a real gateway for whom it takes a request: by header, cookie, path or claim (1.33, I26)."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from branchline.core.spec import Unit
from branchline.core.traffic import assigned
from tests.gateways import Answer, Gateway, gateway
from tests.upstreams import Upstream

A, B = "a" * 40, "b" * 40
HEADER, COOKIE, CLAIM = Unit("header", "x-customer"), Unit("cookie", "__Host-customer.id"), Unit("claim", "sub")
PATH = Unit("path", "/v1.0/users/{unit}/orders")


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


def declare(real: Gateway, unit: Unit) -> None:
    """A service that says where its units stand, with a test of two halves."""
    one, other = (real.backyard.add(c, v, unit=unit) for c, v in ((A, "1.0.0"), (B, "1.1.0")))
    real.serve((one, 50), (other, 50))


def token(claims: Mapping[str, Any] | str, **more: Any) -> str:
    """A JSON web token that nobody could verify."""
    text = claims if isinstance(claims, str) else json.dumps(claims, **more)
    head, body = (base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in ('{"alg":"HS256"}', text))
    return f"Bearer {head}.{body}.c2lnbmF0dXJl"


def seen(real: Gateway, answer: Answer) -> str:
    """For whom the service was told that the request is; it went where that unit is assigned."""
    shown = real.writer.shown("housing")[1]
    unit = str(answer.body["headers"]["x-branchline-unit"])
    assert answer.revision == assigned(shown.segments, unit, shown.experiment)
    return unit


def asked(real: Gateway, unit: Unit, name: str, **more: str) -> Answer:
    """A request for somebody, as the service declares it."""
    match unit.kind:
        case "header":
            return real.ask("/housing/", **{unit.name: name}, **more)
        case "cookie":
            return real.ask("/housing/", cookie=f"theme=dark; x{unit.name}=no; {unit.name}={name}; last=1", **more)
        case "path":
            return real.ask(f"/housing/v1.0/users/{name}/orders/7?users=/v1.0/users/no/orders", **more)
        case _:
            return real.ask("/housing/", authorization=token({"act": {"sub": "no"}, "sub": name}), **more)


@pytest.mark.parametrize("unit", [HEADER, COOKIE, PATH, CLAIM], ids=lambda unit: unit.kind)
def test_the_unit_is_where_the_service_says_it_is(real: Gateway, unit: Unit) -> None:
    """What is predicted of it is what is served, the log holds the same one, and nobody is chosen by another header."""
    declare(real, unit)
    names = [f"user-{number}" for number in range(40)]
    for name in names:
        answer = asked(real, unit, name, x_branchline_unit="somebody-else")
        assert seen(real, answer) == name
        assert "set-cookie" not in answer.headers
    logged = real.logged(40)
    assert [served.unit for served in logged] == names
    assert {served.assigned for served in logged} == {A, B}


@pytest.mark.parametrize("unit", [COOKIE, PATH, CLAIM], ids=lambda unit: unit.kind)
def test_who_brings_none_is_given_one_and_keeps_it(real: Gateway, unit: Unit) -> None:
    """Though another header stands there: it is not the declared place."""
    declare(real, unit)
    first = real.ask(x_branchline_unit="somebody-else")
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert seen(real, first) == cookie.removeprefix("branchline-unit=") != "somebody-else"
    again = real.ask(cookie=cookie)
    assert seen(real, again) == seen(real, first)
    assert "set-cookie" not in again.headers
    assert seen(real, asked(real, unit, "me")) == "me"


@pytest.mark.parametrize("unit", [HEADER, COOKIE, PATH, CLAIM], ids=lambda unit: unit.kind)
def test_no_service_hears_a_unit_from_a_client_who_may_not_say_it(real: Gateway, unit: Unit) -> None:
    """Without a test, and pinned. Killer: take `_unsaid` from either route."""
    one, other = (real.backyard.add(c, v, unit=unit) for c, v in ((A, "1.0.0"), (B, "1.1.0")))
    pinned: list[dict[str, str]] = [
        {"path": "/housing@1.0.0/"}, {"x_branchline_pin": "1.0.0"}, {"path": "/", "host": "1-0-0.housing.localhost"},
    ]  # fmt: skip
    lines: list[dict[str, str]] = [{}, {"path": "/housing@v1/"}, {"path": "/", "host": "housing.localhost"}]

    def told(**how: str) -> list[str | None]:
        found = (real.ask(**how, **said).body["headers"] for said in ({}, {"x_branchline_unit": "somebody-else"}))
        return [headers.get("x-branchline-unit") for headers in found]

    real.serve((one, 100), (other, 0))
    assert [told(**how) for how in (*pinned, *lines)] == [[None, None]] * 6
    real.serve((one, 50), (other, 50))
    assert [told(**how) for how in pinned] == [[None, None]] * 3


def test_a_unit_in_the_usual_header_is_passed_on(real: Gateway) -> None:
    one = real.backyard.add(A, "1.0.0")
    real.serve((one, 100))
    for path in ("/housing/", "/housing@1.0.0/"):
        assert real.ask(path, x_branchline_unit="me").body["headers"]["x-branchline-unit"] == "me"


def test_a_path_says_it_below_every_address_of_the_service(real: Gateway) -> None:
    """By path, host and line; and only a whole beginning counts."""
    declare(real, PATH)
    path = "/v1.0/users/Zo%C3%AB/orders"
    for answer in (
        real.ask(f"/housing{path}"),
        real.ask(f"/housing@v1{path}/7"),
        real.ask(f"/housing{path}", x_branchline_pin="v1"),
        real.ask(path, host="housing.localhost"),
    ):
        assert seen(real, answer) == "Zo%C3%AB"
        assert str(answer.body["path"]).startswith(path)
    for other in ("/v1x0/users/me/orders", "/v1.0/users/me/ordersx", "/x/v1.0/users/me/orders", "/v1.0/users//orders"):
        assert "set-cookie" in real.ask(f"/housing{other}").headers


READ: tuple[tuple[Mapping[str, Any] | str, str], ...] = (
    ('{ "sub" : "me" ,\n "aud": ["a", {"sub": "no"}] }', "me"),
    ({"aud": ['"sub":"no"', "}{"], "name": '\\"', "sub": 7}, "7"),
    ({"sub": "Zoë & Jürgen 東京"}, "Zoë & Jürgen 東京"),
    ('{"sub":"a\\/b \\"c\\" \\\\u0041"}', 'a/b "c" \\u0041'),
    ('{"sub":"first","sub":"last"}', "last"),
)
NONE = (
    token({"sub": "me\r\nx-admin: yes"}),
    token({"sub": "one, two"}),
    token({"sub": "x" * 201}),
    token({"sub": ""}),
    token({"sub": None, "act": {"sub": "no"}}),
    token({"sub": ["no"]}),
    token({"sub": "\N{GRINNING FACE}"}, ensure_ascii=True),
    token('["sub", "no"]'),
    token('{"sub": "no"'),
    token("\0\1\2"),
    "Bearer a.b",
    "Bearer ..",
    "Bearer opaque",
    "Basic bWU6c2VjcmV0",
    "",
)


def test_a_claim_is_read_as_json(real: Gateway) -> None:
    """Neither of an inner object nor of a text, with escapes and without."""
    declare(real, CLAIM)
    for claims, unit in READ:
        for ascii_only in (True, False):
            answer = real.ask(authorization=token(claims, ensure_ascii=ascii_only))
            assert seen(real, answer) == unit
            assert "set-cookie" not in answer.headers
    assert [served.unit for served in real.logged(2 * len(READ))][::2] == [unit for _, unit in READ]


def test_a_claim_that_is_no_unit_is_none(real: Gateway) -> None:
    """Above all none with a line break, which would begin a header of its own. Killer: let `usable` take all."""
    declare(real, CLAIM)
    for authorization in NONE:
        answer = real.ask(authorization=authorization)
        assert (answer.status, "x-admin" in answer.body["headers"]) == (200, False), authorization
        assert answer.headers["set-cookie"].startswith(f"branchline-unit={seen(real, answer)};"), authorization


class Terse(asyncio.Protocol):
    """A connection of a server that says as little as it can, and that fast."""

    def __init__(self, nonce: str) -> None:
        told = f"x-envoy-upstream-healthchecked-cluster: {nonce}\r\n"
        self.answer = f"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{told}\r\n".encode()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer * data.count(b"\r\n\r\n"))


@dataclass
class Fast(Upstream):
    """A server of such connections."""

    async def begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_unix_server(lambda: Terse(self.nonce), self.socket)


def served(real: Gateway, units: Sequence[str]) -> dict[str, str]:
    """Who answers each unit, asked one after another in batches, over several connections at once."""
    where = urlsplit(real.writer.address("housing"))

    def ask(some: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=60) as connection:
            for batch in (some[at : at + 500] for at in range(0, len(some), 500)):
                each = "GET /housing/ HTTP/1.1\r\nhost: x\r\nx-branchline-unit: {}\r\n\r\n"
                connection.sendall("".join(each.format(unit) for unit in batch).encode())
                told, missing = b"", len(batch)
                while missing:
                    more = connection.recv(1 << 16)
                    missing -= (told[-3:] + more).count(b"\r\n\r\n")
                    told += more
                arms = re.findall(rb"x-branchline-revision: housing@(\S+)", told)
                found |= {unit: arm.decode() for unit, arm in zip(batch, arms, strict=True)}
        return found

    with ThreadPoolExecutor(8) as several:
        return {unit: arm for found in several.map(ask, [units[n::8] for n in range(8)]) for unit, arm in found.items()}


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_all_are_served_as_predicted_and_a_ramp_moves_only_who_must(real: Gateway, count: int) -> None:
    """I26 with three challengers: nobody leaves who grows, or goes to who shrinks, and no more go than have to."""
    # In processes of their own: here all these clients would keep them from saying in time how they are.
    arms = [real.backyard.process(commit * 40, f"1.{n}.0", Fast).upstream for n, commit in enumerate("abcd")]
    versions = {arm.revision: arm.version for arm in arms}
    units = [f"customer-{number}" for number in range(count)]

    def predicted() -> dict[str, str]:
        shown = real.writer.shown("housing")[1]
        return {unit: versions[assigned(shown.segments, unit, shown.experiment)] for unit in units}

    real.serve(*zip(arms, (70, 10, 10, 10), strict=True))
    before = served(real, units)
    assert before == predicted()
    real.serve(*zip(arms, (40, 25, 5, 30), strict=True))
    units = units[::5]
    after = served(real, units)
    assert after == predicted()
    moves = Counter((before[unit], after[unit]) for unit in units if before[unit] != after[unit])
    assert {gained for _, gained in moves} == {"1.1.0", "1.3.0"}
    assert {left for left, _ in moves} == {"1.0.0", "1.2.0"}
    assert abs(moves.total() / len(units) - 0.35) < 0.03
