"""This file is a person's place: a work tree, and behind its socket the daemon's real API over a world of fakes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from click.testing import CliRunner, Result

from branchline.cli.main import main
from branchline.cli.transport import Client
from branchline.server.daemon import listening
from branchline.server.wire import api
from branchline.settings import Settings, made, settings_of
from tests.repositories import RealGit
from tests.world import World


class Place:
    """A person's work tree, and a daemon's API over fakes behind its socket."""

    def __init__(self, folder: Path) -> None:
        self.git = RealGit(folder / "repo")
        self.world = World(folder / "state")
        self.settings: Settings = made(settings_of(self.git.work, self.git.work / ".git"))

    def type(self, *words: str) -> Result:
        """Type a command in the work tree."""
        return CliRunner().invoke(main, ["-C", str(self.git.work), *words], prog_name="branchline")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Type a command in a process of its own: what it starts is not a child of the tests."""
        command = [sys.executable, "-m", "branchline.cli.main", *words]
        return subprocess.run(command, cwd=self.git.work, capture_output=True, text=True)

    def read(self, *words: str) -> dict[str, Any]:
        """What a reading command answers as JSON."""
        told = self.type(*words, "--json")
        assert told.exit_code == 0, told.stderr
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    @property
    def client(self) -> Client:
        """The API itself."""
        return Client(self.settings.socket)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Answer on the socket meanwhile."""
        config = uvicorn.Config(api(self.world.controller), log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        socket = listening(self.settings.socket)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[socket])))
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()
            socket.close()
            self.settings.socket.unlink(missing_ok=True)

    @contextmanager
    def living(self) -> Iterator[None]:
        """Let the controller's passes run meanwhile, as the daemon's threads do."""
        over = threading.Event()

        def live() -> None:
            while not over.wait(0.005):
                self.world.round()

        thread = threading.Thread(target=live)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
