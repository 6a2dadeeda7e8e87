"""This file is where the demo plays: a scratch repository with a bare remote, and what its people type there.

They type the released commands, one after the other. Nothing here reaches into the daemon: what is shown is what the
commands answer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from branchline.cli.transport import Answered, Client
from branchline.errors import DaemonDown
from branchline.settings import settings_of

PATIENCE = 300.0


@dataclass(slots=True)
class Stage:
    """Where the stories play: a scratch folder with a bare remote and a clone, and how long each part took."""

    home: Path
    examples: Path
    times: list[tuple[str, float]] = field(default_factory=list)

    @property
    def clone(self) -> Path:
        """The work tree that everybody shares."""
        return self.home / "realty"

    def git(self, *words: str) -> str:
        """Type a git command, shown."""
        say(f"$ git {' '.join(map(quoted, words))}", dim=True)
        return told(["git", *words], self.clone)

    def show(self, *words: str) -> None:
        """Type a git command for what it prints."""
        say(f"$ git {' '.join(map(quoted, words))}", dim=True)
        click.echo(told(["git", "--no-pager", *words], self.clone))

    def type(self, *words: str, ok: tuple[int, ...] = (0,)) -> int:
        """Type a branchline command, its output passing through."""
        say(f"$ branchline {' '.join(quoted(word) for word in words)}", dim=True)
        ended = subprocess.run([sys.executable, "-m", "branchline.cli.main", *words], cwd=self.clone, check=False)
        if ended.returncode not in ok:
            why = "why stands above; a load gate asks for a machine that is not busy: then try again"
            raise click.ClickException(
                f"branchline {words[0]} ended with {ended.returncode}\n{why}\nit played in {self.home}"
            )
        return ended.returncode

    def ask(self, *words: str) -> Any:
        """What a reading command answers as JSON."""
        return json.loads(told([sys.executable, "-m", "branchline.cli.main", *words, "--json"], self.clone))

    def row(self, branch: str) -> dict[str, Any]:
        """The status row of a branch; {} when it has none any more, or when no daemon answers."""
        return next((row for row in self.rows(branch.split("--")[1]) if row["branch"] == branch), {})

    def rows(self, service: str) -> list[dict[str, Any]]:
        """The status rows of a service; none when no daemon answers."""
        client = Client(settings_of(self.clone, self.clone / ".git").socket)
        try:
            services = client.get("/v1/status", reference=service)["services"]
        except (DaemonDown, Answered):
            return []
        return [dict(row) for each in services for row in each["rows"]]

    def address(self, service: str) -> str:
        """Where a service is called."""
        return str(self.ask("status", service)["services"][0]["address"])

    def daemon(self) -> int:
        """The daemon's process id."""
        return int(json.loads((self.clone / ".git" / "branchline" / "daemon.json").read_text())["pid"])

    def servers(self, service: str, version: str) -> set[int]:
        """The process ids of what serves a version in production."""
        found = set()
        for group in (self.clone / ".git" / "branchline" / "instances").glob("*/group.json"):
            with contextlib.suppress(FileNotFoundError):  # what ended long ago is cleared away at any moment
                what = json.loads(group.read_text())
                if (what["service"], what["version"], what["perimeter"]) == (service, version, "production"):
                    found |= {int(json.loads(each.read_text())["child"]) for each in group.parent.glob("*/state.json")}
        return found

    @contextmanager
    def part(self, title: str) -> Iterator[None]:
        """One part of the story, numbered and timed."""
        say("")
        say(f"── {len(self.times) + 1}. {title}", bold=True)
        begun = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - begun))

    def lay(self, source: str, service: str) -> None:
        """Copy a folder of the examples over the service's."""
        ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
        shutil.copytree(self.examples / source, self.clone / service, dirs_exist_ok=True, ignore=ignored)

    def on_main(self) -> None:
        """Check out the trunk as it is by now."""
        self.git("switch", "--quiet", "main")
        self.git("pull", "--quiet", "--ff-only")

    def commit(self, service: str, message: str) -> None:
        """Commit the work in a service's folder."""
        self.git("add", service)
        self.git("commit", "--quiet", "-m", message)

    def begin(self, service: str, handle: str, source: str, message: str) -> str:
        """A new service: a branch, its files, a commit; returns the branch, not deployed yet."""
        branch = f"experiment--{service}--{handle}"
        self.git("switch", "--quiet", "-c", branch)
        self.lay(source, service)
        self.commit(service, message)
        return branch

    def propose(self, service: str, handle: str, source: str, because: str, message: str) -> str:
        """A person's work: a branch, some files, a commit; returns the branch, not deployed yet."""
        self.on_main()
        self.type("start", service, "--handle", handle, "--because", because)
        self.lay(source, service)
        self.commit(service, message)
        return f"experiment--{service}--{handle}"

    def until_gone(self, branch: str) -> None:
        """Wait until the remote has no such branch any more."""
        until(f"{branch} is gone", lambda: not told(["git", "ls-remote", "--heads", "origin", branch], self.clone))

    def send(
        self, branch: str, state: str, some: Callable[[str, Callable[[], bool]], int], pause: float, what: str
    ) -> None:
        """Send requests until the branch leaves its state: `some` sends some to a gateway while it is told to."""
        gateway = self.address(branch.split("--")[1]).rsplit("/", 2)[0]
        over = threading.Event()

        def watch() -> None:
            while not over.is_set() and self.row(branch).get("state") == state:
                over.wait(0.2)
            over.set()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        begun, asked = time.monotonic(), 0
        while not over.is_set() and time.monotonic() - begun < PATIENCE:
            asked += some(gateway, lambda: not over.is_set())
            over.wait(pause)
        over.set()
        watcher.join(timeout=30)
        say(f"   {asked} {what} in {time.monotonic() - begun:.1f} s")


def say(text: str, *, bold: bool = False, dim: bool = False) -> None:
    """One line of the story."""
    click.echo(click.style(text, bold=bold, dim=dim))


def quoted(word: str) -> str:
    """A word as a person would type it."""
    return json.dumps(word) if " " in word else word


def told(command: list[str], cwd: Path) -> str:
    """What a command prints; the whole of its complaint when it fails."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise click.ClickException(
            f"{' '.join(command[:3])} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        )
    return ended.stdout.strip()


def until(what: str, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something holds; says what did not."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise click.ClickException(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.1)
