"""This file holds tiny servers on Unix sockets, to stand behind a gateway: they can fail, hang and die."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from branchline.core.spec import Requests, Unit
from branchline.ports import Endpoint
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]


Speech = Callable[[str, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """One revision's server: answers every request with its name, the path and the headers it saw."""

    revision: str
    version: str
    nonce: str
    socket: Path
    pins: tuple[str, ...] = ()
    split: bool = True
    unit: Unit = field(default_factory=Unit)
    status: int = 200
    delay: float = 0.0
    until: threading.Event | None = None  # whoever asks by now is answered only then
    slow_health: float = 0.0
    prediction: str = ""
    asked: Requests = field(default_factory=Requests)
    speaks: Speech | None = None  # what it does with a connection that did not ask for its health
    says: str = ""  # another nonce: a stranger on our socket
    requests: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def endpoint(self) -> Endpoint:
        """What is offered to the router."""
        return Endpoint(
            self.revision,
            self.version,
            self.nonce,
            (str(self.socket),),
            pins=self.pins,
            split=self.split,
            health="/health",
            unit=self.unit,
            requests=self.asked,
        )

    async def begin(self) -> None:
        """Listen."""
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_unix_server(self._connected, self.socket)

    def die(self) -> None:
        """Be gone at once, open connections too."""
        assert self._loop
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result()

    def live(self) -> None:
        """Listen again."""
        assert self._loop
        self.socket.unlink(missing_ok=True)
        asyncio.run_coroutine_threadsafe(self.begin(), self._loop).result()

    async def _die(self) -> None:
        assert self._server
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.decode("utf-8", "surrogateescape"), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        method, path, _ = first.split(" ")
        body = b"" if self.speaks else await reader.readexactly(int(headers.get("content-length", 0)))
        status, told = 200, f"x-envoy-upstream-healthchecked-cluster: {self.says or self.nonce}\r\n"
        if path == "/health":
            await asyncio.sleep(self.slow_health)
        elif self.speaks:
            self.requests += 1
            await self.speaks(head, reader, writer)
            return
        else:
            until = self.until
            self.requests += 1
            await asyncio.sleep(self.delay)
            while until and not until.is_set():
                await asyncio.sleep(0.02)
            status = self.status
            told = f"x-branchline-prediction: {self.prediction}\r\n" if self.prediction else ""
        answer = json.dumps(
            {"revision": self.revision, "method": method, "path": path, "headers": headers, "body": body.decode()}
        ).encode("utf-8", "surrogateescape")
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(answer)}\r\n{told}\r\n".encode() + answer)
        await writer.drain()


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop of its own thread; at the end everything in it is cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel() -> None:
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@dataclass
class Process:
    """An upstream in a process of its own, which can be stopped and killed as a server is."""

    upstream: Upstream
    child: subprocess.Popen[bytes]

    @property
    def revision(self) -> str:
        """Its commit."""
        return self.upstream.revision

    @property
    def endpoint(self) -> Endpoint:
        """What is offered to the router."""
        return self.upstream.endpoint

    def hang(self) -> None:
        """Accept what comes, as the kernel does, and never answer."""
        os.kill(self.child.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        os.kill(self.child.pid, signal.SIGCONT)

    def die(self) -> None:
        """Be gone at once."""
        self.child.kill()
        self.child.wait()


def listens(path: Path) -> bool:
    """Whether somebody does more than have a socket's name."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


class Backyard:
    """A folder of upstreams."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.folder = folder
        self._loop = loop
        self._all: list[Upstream | Process] = []

    def close(self) -> None:
        """Leave no server behind."""
        for upstream in self._all:
            upstream.die()

    def add(self, revision: str, version: str, kind: type[Upstream] = Upstream, **more: Any) -> Upstream:
        """Start a new incarnation of a revision."""
        nonce = f"n{len(self._all) + 1:03d}"
        upstream = kind(revision, version, nonce, self.folder / f"{nonce}.sock", **more)
        asyncio.run_coroutine_threadsafe(upstream.begin(), self._loop).result()
        self._all.append(upstream)
        return upstream

    def named(self, revision: str) -> Upstream | Process:
        """The newest incarnation of a revision."""
        return next(each for each in reversed(self._all) if each.revision == revision)

    def process(self, revision: str, version: str, kind: type[Upstream] = Upstream, **more: Any) -> Process:
        """The same in a process of its own."""
        nonce = f"n{len(self._all) + 1:03d}"
        upstream = kind(revision, version, nonce, self.folder / f"{nonce}.sock", **more)
        program = "import sys; from tests.upstreams import alone; alone(*sys.argv[1:])"
        order = [kind.__module__, kind.__name__, revision, version, nonce, str(upstream.socket), str(upstream.delay)]
        child = subprocess.Popen([sys.executable, "-c", program, *order], cwd=ROOT)
        made = Process(upstream, child)
        self._all.append(made)
        assert wait_until(lambda: listens(upstream.socket))
        return made


def alone(module: str, kind: str, revision: str, version: str, nonce: str, path: str, delay: str) -> None:
    """Be an upstream until killed."""

    async def live() -> None:
        upstream = getattr(importlib.import_module(module), kind)(revision, version, nonce, Path(path))
        upstream.delay = float(delay)
        await upstream.begin()
        await asyncio.Event().wait()

    asyncio.run(live())
