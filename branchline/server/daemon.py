"""This file is the daemon's process: the controller's threads, two Unix sockets, a port to be scraped at, and an end
in good order.

`python -m branchline.server.daemon TOP COMMON STATE PORT` is what `up` starts. SIGTERM ends it and leaves everything
serving; SIGUSR2 (sent by `down`) stops what serves first. It writes daemon.json when it can be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from branchline.app import Daemon
from branchline.core.codes import exit_of
from branchline.errors import BranchlineError
from branchline.server import metrics
from branchline.server.ingest import ingest
from branchline.server.wire import api
from branchline.settings import settings_of


def listening(path: Path) -> socket.socket:
    """A Unix socket of the owner's alone; a stale one is replaced, for the daemon's lock is held."""
    path.unlink(missing_ok=True)
    mask = os.umask(0o177)
    try:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.bind(str(path))
    finally:
        os.umask(mask)
    found.listen(128)
    return found


def scraping(daemon: Daemon) -> socket.socket | None:
    """Where a Prometheus may ask; where that cannot be, the daemon works without, and says so."""
    try:
        return metrics.listening(daemon.settings.state, daemon.metrics_port)
    except BranchlineError as error:
        daemon.controller.troubles["", "metrics"] = f"{error.code}: {error.message}; {error.cause}"
        return None


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process and sleeps while nobody asks; it ends with the event."""

    def __init__(self, config: uvicorn.Config, ended: asyncio.Event) -> None:
        super().__init__(config)
        self.ended = ended

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Take none."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own loop would wake ten times a second to write a date that nobody reads."""
        await self.on_tick(0)
        await self.ended.wait()


async def serve(daemon: Daemon) -> bool:
    """Answer until told to end; returns whether what serves is to be stopped too."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    stop_all = False

    def end(everything: bool) -> None:
        nonlocal stop_all
        stop_all = stop_all or everything
        ended.set()

    loop.add_signal_handler(signal.SIGTERM, end, False)
    loop.add_signal_handler(signal.SIGINT, end, False)
    loop.add_signal_handler(signal.SIGUSR2, end, True)
    config = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 2, "lifespan": "off",
              "date_header": False}  # fmt: skip
    told, words = scraping(daemon), daemon.controller.gathering.words
    address = metrics.address(daemon.settings.state) if told else ""
    apps = [
        (api(daemon.controller, address), listening(daemon.settings.socket)),
        (ingest(daemon.controller, words), listening(daemon.settings.ingest)),
        *([(metrics.scraped(daemon, words), told)] if told else []),
    ]
    servers = [(Server(uvicorn.Config(app, **config), ended), sock) for app, sock in apps]  # type: ignore[arg-type]
    running = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in servers]
    daemon.start()
    await asyncio.gather(*running)
    return stop_all


def main(arguments: list[str]) -> int:
    """Run the daemon until it is told to end."""
    top, common, state, port = arguments
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(threadName)s %(name)s %(message)s")
    try:
        daemon = Daemon(settings_of(Path(top), Path(common), state), int(port))
    except BranchlineError as error:
        log = "".join(f"\n  | {line}" for line in error.log.splitlines())
        told = f"error[{error.code}]: {error.message}\n  cause: {error.cause}{log}\n  hint: {error.next}"
        print(told, file=sys.stderr)  # noqa: T201
        return exit_of(error.code)
    daemon.stop(everything=asyncio.run(serve(daemon)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
