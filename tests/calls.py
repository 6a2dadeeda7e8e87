"""This file speaks gRPC with a gateway, from both ends, by hand: HTTP/2, and five bytes before each message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from tests.upstreams import Upstream

Headers = list[tuple[str, str]]
HEAD, GOAWAY = 9, 7  # bytes before a frame's own, the fourth of which is its type


class Called(Upstream):
    """A gRPC server: `Watch` answers three times, `Fail` with status 13, whatever else once."""

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        asked: dict[int, dict[str, str]] = {}
        calls: set[asyncio.Task[None]] = set()
        try:
            while True:
                writer.write(connection.data_to_send())
                if not (told := await reader.read(1 << 16)):
                    break
                for event in connection.receive_data(told):
                    if isinstance(event, h2.events.RequestReceived):
                        asked[event.stream_id] = {str(name): str(value) for name, value in event.headers}
                    elif isinstance(event, h2.events.StreamEnded):
                        call = self._answered(connection, writer, event.stream_id, asked.pop(event.stream_id))
                        calls.add(asyncio.create_task(call))  # meanwhile the next are read, and pings answered
        except (ConnectionError, asyncio.CancelledError, h2.exceptions.ProtocolError):
            pass  # the last: a client that goes away may still ask what it had begun to ask
        finally:
            for each in calls:
                each.cancel()
            self._writers.discard(writer)
            writer.close()

    async def _answered(
        self, connection: h2.connection.H2Connection, writer: asyncio.StreamWriter, stream: int, asked: dict[str, str]
    ) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):  # who has asked is gone
            await self._call(connection, writer, stream, asked)

    async def _call(
        self, connection: h2.connection.H2Connection, writer: asyncio.StreamWriter, stream: int, asked: dict[str, str]
    ) -> None:
        path = asked[":path"]
        if path == "/health":
            if (asked[":method"], asked.get("content-type")) != ("POST", "application/grpc"):
                connection.reset_stream(stream)  # as a gRPC server does with what is no call
                writer.write(connection.data_to_send())
                return
            known = ("x-envoy-upstream-healthchecked-cluster", self.nonce)
            connection.send_headers(stream, [(":status", "200"), known], end_stream=True)
            writer.write(connection.data_to_send())
            return
        self.requests += 1
        status = {"Fail": "13"}.get(path.rpartition("/")[2], "0")
        await asyncio.sleep(self.delay)
        connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        for number in range({"Watch": 3, "Fail": 0}.get(path.rpartition("/")[2], 1)):
            if number:
                writer.write(connection.data_to_send())
                await asyncio.sleep(self.delay)
            message = json.dumps({"revision": self.revision, "path": path, "number": number}).encode()
            connection.send_data(stream, struct.pack(">BI", 0, len(message)) + message)
        connection.send_headers(stream, [("grpc-status", status)], end_stream=True)
        writer.write(connection.data_to_send())


@dataclass
class Reply:
    """What came back: the headers, trailers among them, and the bytes."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_reset: bool = False

    @property
    def messages(self) -> list[dict[str, object]]:
        """The gRPC messages in it."""
        found, rest = [], self.body
        while rest:
            _, size = struct.unpack(">BI", rest[:5])
            found.append(json.loads(rest[5 : 5 + size]))
            rest = rest[5 + size :]
        return found


def asked_h2(
    port: int, path: str, *, method: str = "GET", body: bytes = b"", odd: Sequence[tuple[str, str]] = (), **more: str
) -> Reply:
    """One request in HTTP/2 that the client knows to be spoken; `x_branchline_pin` is the header x-branchline-pin.

    What is `odd` goes out as it is, whether HTTP/2 allows for it or not.
    """
    named = [(name.replace("_", "-"), value) for name, value in more.items()]
    return _exchanged(port, [*_first(path, "127.0.0.1", method), *named, *odd], body)


def called(port: int, path: str, *, host: str = "127.0.0.1", **more: str) -> Reply:
    """One gRPC call."""
    named = [(name.replace("_", "-"), value) for name, value in more.items()]
    first = [*_first(path, host, "POST"), ("content-type", "application/grpc"), ("te", "trailers"), *named]
    return _exchanged(port, first, struct.pack(">BI", 0, 2) + b"{}")


def _first(path: str, host: str, method: str) -> Headers:
    return [(":method", method), (":scheme", "http"), (":authority", host), (":path", path)]


def _exchanged(port: int, first: Headers, body: bytes) -> Reply:
    config = h2.config.H2Configuration(
        header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
    )
    connection = h2.connection.H2Connection(config)
    connection.initiate_connection()
    stream, reply = connection.get_next_available_stream_id(), Reply()
    connection.send_headers(stream, first, end_stream=not body)
    if body:
        connection.send_data(stream, body, end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(connection.data_to_send())
        for frame in _frames(wire):
            if frame[3] == GOAWAY and int.from_bytes(frame[9:13], "big") >= stream:
                continue  # what was begun goes on (RFC 9113, 6.8); to h2 it would be the end of all
            for event in connection.receive_data(frame):
                if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                    reply.headers |= {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.events.DataReceived):
                    reply.body += event.data
                    connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                    reply.is_reset = True
                    return reply
                elif isinstance(event, h2.events.StreamEnded):
                    return reply
            wire.sendall(connection.data_to_send())
    return reply


def _frames(wire: socket.socket) -> Iterator[bytes]:
    """What comes, frame by frame (RFC 9113, 4.1), until nothing more does."""
    held = b""
    while told := wire.recv(1 << 16):
        held += told
        while len(held) >= HEAD and len(held) >= (size := HEAD + int.from_bytes(held[:3], "big")):
            yield held[:size]
            held = held[size:]
