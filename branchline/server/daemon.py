"""This file is the daemon's process: the controller's threads, two Unix sockets, and an orderly end.

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


class Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        """Take none."""
        yield


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
    config = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 2, "lifespan": "off"}
    pairs = [
        (Server(uvicorn.Config(api(daemon.controller), **config)), listening(daemon.settings.socket)),  # type: ignore[arg-type]
        (Server(uvicorn.Config(ingest(daemon.controller), **config)), listening(daemon.settings.ingest)),  # type: ignore[arg-type]
    ]
    running = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in pairs]
    daemon.start()
    await ended.wait()
    for server, _ in pairs:
        server.should_exit = True
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
