"""This file asks a gateway in every way at once that clients have: short, slow, streamed, sent, talked, called.

Each way has a thread that asks, looks whether what came was whole, and asks again, as somebody else, until all is
over. Whoever changes something meanwhile learns at the end how many were whole, and what was not.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException

from tests.calls import asked_h2, called
from tests.integration.test_gateway_protocols import echoes, talk
from tests.upstreams import Upstream
from tests.waiting import wait_until

SLOW = 3.0
A_WHILE = 0.005  # seconds between two short requests: all of them share an interpreter with who answers
PIECES, PAUSE = 20, 0.1
NUMBERS = "".join(f"{number}\n" for number in range(PIECES))
CHUNKED = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def everything(head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer whatever a mixture asks: the last word of the path says how."""
    first, *rest = head.strip().lower().split("\r\n")
    how = first.split(" ")[1].rpartition("/")[2].partition("?")[0]
    if how == "talk":
        await echoes(head, reader, writer)
    if how == "stream":
        writer.write(CHUNKED)
        for number in range(PIECES):
            writer.write(f"{len(str(number)) + 1:x}\r\n{number}\n\r\n".encode())
            await writer.drain()
            await asyncio.sleep(PAUSE)
        writer.write(b"0\r\n\r\n")
        return
    size = next((int(line.partition(":")[2]) for line in rest if line.startswith("content-length:")), 0)
    body = await reader.readexactly(size)
    if how == "slow":
        await asyncio.sleep(SLOW)
    writer.write(f"HTTP/1.1 200 X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


def is_held(upstream: Upstream) -> bool:
    """Whether somebody is connected with it, if only to ask for its health."""
    return bool(upstream._writers)


class Ways:
    """Every way of asking, once: raises what went wrong, whatever that was."""

    def __init__(self, port: int, over: threading.Event) -> None:
        self._port, self._over = port, over
        self._kept = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self) -> None:
        """Let go of the connection that was kept."""
        self._kept.close()

    def short(self, unit: str) -> None:
        """A request on a connection that is kept for all of them."""
        assert self._asked(self._kept, "short", unit, "me") == "me"
        self._over.wait(A_WHILE)

    def slow(self, unit: str) -> None:
        """A request that takes three seconds."""
        assert self._once("slow", unit, "me") == "me"

    def stream(self, unit: str) -> None:
        """Server-sent events for two seconds."""
        assert self._once("stream", unit) == NUMBERS

    def sent(self, unit: str) -> None:
        """A body that takes two seconds to be sent."""
        with self._connection() as connection:
            connection.putrequest("POST", "/housing/sent")
            connection.putheader("x-branchline-unit", unit)
            connection.putheader("content-length", str(len(NUMBERS)))
            connection.endheaders()
            for piece in NUMBERS.splitlines(keepends=True):
                connection.send(piece.encode())
                self._over.wait(PAUSE)
            assert connection.getresponse().read().decode() == NUMBERS

    def talk(self, unit: str) -> None:
        """A WebSocket that is open for two seconds."""
        with talk(self._port, f"/housing/talk?{unit}") as spoken:
            for number in range(PIECES):
                assert spoken.echoed(str(number).encode()) == str(number).encode()
                self._over.wait(PAUSE)

    def http2(self, unit: str) -> None:
        """A stream in HTTP/2."""
        assert asked_h2(self._port, "/housing/stream", x_branchline_unit=unit).body.decode() == NUMBERS

    def call(self, unit: str) -> None:
        """A gRPC call of three answers."""
        reply = called(self._port, "/calls/shop.Housing/Watch", x_branchline_unit=unit)
        assert ([each["number"] for each in reply.messages], reply.headers["grpc-status"]) == ([0, 1, 2], "0"), reply

    @contextlib.contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            yield connection

    def _once(self, how: str, unit: str, body: str = "") -> str:
        with self._connection() as connection:
            return self._asked(connection, how, unit, body)

    @staticmethod
    def _asked(connection: http.client.HTTPConnection, how: str, unit: str, body: str) -> str:
        connection.request("POST", f"/housing/{how}", body=body, headers={"x-branchline-unit": unit})
        answer = connection.getresponse()
        assert answer.status == 200, answer.status
        return answer.read().decode()


WAYS = (Ways.short, Ways.slow, Ways.stream, Ways.sent, Ways.talk, Ways.http2, Ways.call)


@dataclass
class Mixture:
    """What became of everything that was asked: how many of each way were whole, and what was wrong with the rest."""

    port: int
    over: threading.Event = field(default_factory=threading.Event)
    whole: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, way: Callable[[Ways, str], None], thread: int) -> None:
        """Ask one way again and again, as ever new people."""
        ways, name = Ways(self.port, self.over), way.__name__
        for number in itertools.count():
            try:
                way(ways, f"{name}-{thread}-{number}")
            except (OSError, HTTPException, AssertionError, LookupError, ValueError) as error:
                self.wrong.append(f"{name}: {error!r}")
            with self.lock:
                self.whole[name] += 1
            if self.over.is_set():
                ways.close()
                return


@contextlib.contextmanager
def mixture(port: int, each: int = 2) -> Iterator[Mixture]:
    """Everything is asked meanwhile, each way by so many threads; what was begun is let come to its end."""
    made = Mixture(port)
    threads = [threading.Thread(target=made.ask, args=(way, number)) for way in WAYS for number in range(each)]
    for thread in threads:
        thread.start()
    try:
        assert wait_until(lambda: len(made.whole) == len(WAYS))
        yield made
    finally:
        made.over.set()
        for thread in threads:
            thread.join()
