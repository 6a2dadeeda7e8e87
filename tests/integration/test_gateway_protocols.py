"""This file speaks through a real gateway what is no short HTTP/1 request: streams, WebSockets, HTTP/2, gRPC (1.24)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from branchline.adapters.envoy_meter import fields
from branchline.core.spec import Requests
from branchline.ports import Stamp
from tests.calls import Called, asked_h2, called
from tests.gateways import Gateway, gateway
from tests.upstreams import Upstream
from tests.waiting import wait_until

A, B = "a" * 40, "b" * 40
STREAMED = Requests(timeout=0)
SHORT = Requests(timeout=0.5)
LONGER = Requests(timeout=2.0)


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


def port_of(real: Gateway) -> int:
    return int(real.writer.address("housing").split(":")[2].partition("/")[0])


# ------------------------------------------------------------------------------------------------ time


@pytest.mark.parametrize("pin", ["", "1.1.0"])
def test_a_request_may_take_what_its_revision_says(real: Gateway, pin: str) -> None:
    """The line's time is its holder's, a pin's that of the pinned. Killers: 15 s for all; the holder's for all."""
    one = real.backyard.add(A, "1.0.0", asked=STREAMED if pin else SHORT, delay=1.5)
    other = real.backyard.add(B, "1.1.0", asked=SHORT if pin else STREAMED, delay=1.5)
    real.serve((one, 100), (other, 0))
    cut = real.ask(f"/housing@{pin}/" if pin else "/housing/")
    assert (cut.status, cut.body["code"]) == (504, "BL508")
    assert real.ask("/housing/" if pin else "/housing@1.1.0/").status == 200


async def tells(head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Server-sent events, with so many seconds between two as the last word of the path says."""
    pause = float(head.split(" ")[1].rpartition("/")[2])
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    for number in range(5):
        event = f"data: {number}\n\n".encode()
        writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("asked", "pause", "whole"), [(STREAMED, 0.3, True), (LONGER, 1.0, False)], ids=["no-limit", "two-seconds"]
)
def test_events_come_as_long_as_there_is_time(real: Gateway, asked: Requests, pause: float, whole: bool) -> None:
    real.serve((real.backyard.add(A, "1.0.0", asked=asked, speaks=tells), 100))
    connection = http.client.HTTPConnection("127.0.0.1", port_of(real), timeout=60)
    connection.request("GET", f"/housing/events/{pause}")
    answer = connection.getresponse()
    try:
        told = answer.read().decode()
    except http.client.IncompleteRead as cut:
        told = cut.partial.decode()
    finally:
        connection.close()
    assert told.startswith("data: 0\n\n"), "each as it comes, not when all are there"
    assert ("data: 4" in told) == whole


# ------------------------------------------------------------------------------------------------ WebSockets


async def echoes(head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A WebSocket that says each frame of its client again, unmasked."""
    key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
    accepted = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n")
    writer.write(b"sec-websocket-accept: " + accepted + b"\r\n\r\n")
    while True:
        _, size = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        words = await reader.readexactly(size & 127)
        writer.write(bytes([0x81, len(words)]) + bytes(b ^ mask[n % 4] for n, b in enumerate(words)))


class Talk:
    """A WebSocket's client: frames of less than 126 bytes, masked, as a client's are."""

    def __init__(self, wire: socket.socket, path: str, host: str) -> None:
        self.wire, self.file = wire, wire.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        wire.sendall(
            f"GET {path} HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
        )
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def echoed(self, words: bytes) -> bytes:
        """What is said again."""
        mask = os.urandom(4)
        masked = bytes(b ^ mask[n % 4] for n, b in enumerate(words))
        self.wire.sendall(bytes([0x81, 0x80 | len(words)]) + mask + masked)
        return self.file.read(2 + len(words))[2:]


@contextmanager
def talk(port: int, path: str, host: str = "127.0.0.1") -> Iterator[Talk]:
    """A WebSocket that is open."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        made = Talk(wire, path, host)
        with made.file:
            yield made


@pytest.mark.parametrize(
    ("path", "host"), [("/housing/talk", "127.0.0.1"), ("/housing@1.0.0/talk", "127.0.0.1"), ("/talk", "housing.x")]
)
def test_a_websocket_talks_through_every_address(real: Gateway, path: str, host: str) -> None:
    """Killer: no upgrade_configs (403)."""
    upstream = real.backyard.add(A, "1.0.0", asked=STREAMED, speaks=echoes)
    real.serve((upstream, 100))
    with talk(port_of(real), path, host) as open_:
        assert open_.status == 101
        for words in (b"one", b"two", b"x" * 100):
            assert open_.echoed(words) == words
    assert upstream.requests == 1


def test_a_websocket_outlives_its_routes_and_its_cluster(real: Gateway) -> None:
    """1.27: what changes is who is asked next; who is talking goes on, until what serves it is stopped."""
    one = real.backyard.add(A, "1.0.0", asked=STREAMED, speaks=echoes)
    other = real.backyard.add(B, "1.1.0", asked=STREAMED, speaks=echoes)
    real.serve((one, 50), (other, 50))
    with talk(port_of(real), "/housing@1.1.0/talk") as pinned, talk(port_of(real), "/housing/talk") as split:
        assert (pinned.echoed(b"one"), split.echoed(b"one")) == (b"one", b"one")
        real.writer.shift("housing", 1, [(A, 100)], Stamp(2, 1))
        real.writer.offer("housing", [one.endpoint], Stamp(2, 1))
        assert {name for name in real.writer.envoy.healthy() if "@" in name} == {"housing@1.0.0~n001"}
        assert (pinned.echoed(b"two"), split.echoed(b"two")) == (b"two", b"two")


# ------------------------------------------------------------------------------------------------ HTTP/2 and gRPC


def test_http2_that_a_client_knows_of_is_spoken(real: Gateway) -> None:
    """h2c by prior knowledge, before servers of HTTP/1; the split and the pins are the same."""
    one, other = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0")
    real.serve((one, 50), (other, 50))
    port = port_of(real)
    found = {unit: json.loads(asked_h2(port, "/housing/", x_branchline_unit=unit).body) for unit in map(str, range(40))}
    assert {unit: told["revision"] for unit, told in found.items()} == {
        unit: real.ask(x_branchline_unit=unit).revision for unit in found
    }
    assert json.loads(asked_h2(port, "/housing/", x_branchline_pin="1.1.0").body)["revision"] == B
    assert asked_h2(port, "/housing@nobody/").headers[":status"] == "404"


@pytest.fixture
def calls(real: Gateway) -> int:
    """The port before an incumbent and a challenger that speak gRPC, in halves."""
    asked = Requests(protocol="http2", timeout=0)
    both: list[Upstream] = [
        real.backyard.add(revision, version, Called, asked=asked) for revision, version in ((A, "1.0.0"), (B, "1.1.0"))
    ]
    real.serve(*((each, 50) for each in both))
    return port_of(real)


@pytest.mark.parametrize("method", ["Price", "Watch"])
def test_grpc_passes_by_host_by_path_and_by_pin(calls: int, method: str) -> None:
    """Unary and server streaming. gRPC knows no word of a service before its own: that is what the host is for."""
    ways = [
        called(calls, f"/shop.Housing/{method}", host="housing.localhost", x_branchline_pin="1.1.0"),
        called(calls, f"/housing/shop.Housing/{method}", x_branchline_pin="1.1.0"),
        called(calls, f"/housing@1.1.0/shop.Housing/{method}"),
    ]
    for reply in ways:
        assert reply.headers["grpc-status"] == "0"
        assert [message["number"] for message in reply.messages] == list(range(3 if method == "Watch" else 1))
        assert {(m["revision"], m["path"]) for m in reply.messages} == {(B, f"/shop.Housing/{method}")}


def test_a_grpc_call_is_split_and_its_status_is_in_the_log(real: Gateway, calls: int) -> None:
    """A failed call is HTTP 200: without its own status in the log nobody sees it. Killer: no `grpc` in the line."""
    names = [f"user-{number}" for number in range(40)]
    once = {name: called(calls, "/housing/shop.Housing/Price", x_branchline_unit=name) for name in names}
    assert {reply.messages[0]["revision"] for reply in once.values()} == {A, B}
    assert called(calls, "/housing/shop.Housing/Fail", x_branchline_unit="alex").headers["grpc-status"] == "13"
    real.ask("/housing/-/nothing")

    def lines() -> list[dict[str, object]]:
        return [fields(line) for line in (real.folder / "access.log").read_bytes().splitlines()]

    assert wait_until(lambda: len(lines()) == 42)
    assert [line.get("grpc") for line in lines()] == ["0"] * 40 + ["13", None]
    assert [served.bad for served in real.logged(41)[:41]] == [False] * 40 + [True]


def test_a_grpc_server_that_is_gone_is_stepped_in_for(real: Gateway, calls: int) -> None:
    real.backyard.named(B).die()
    replies = [called(calls, "/housing/shop.Housing/Price", x_branchline_unit=f"u{number}") for number in range(40)]
    assert {reply.messages[0]["revision"] for reply in replies} == {A}
    gone = called(calls, "/housing@1.1.0/shop.Housing/Price")
    assert (gone.headers[":status"], gone.headers["grpc-status"]) == ("200", "14")
