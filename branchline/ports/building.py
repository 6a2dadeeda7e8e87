"""This file says what the engine needs to build: environments, artifacts, data, and commands run to their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Environment:
    """A locked environment: `digest` of lock + Python + platform, `python` its interpreter, `level` how it is
    protected.
    """

    digest: str
    python: Path
    packages: int
    level: str
    reused: bool
    names: tuple[str, ...] = ()


class Environments(Protocol):
    """Locked environments, shared by digest."""

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        """Build (or reuse) the environment of the lock file in that folder; may take minutes. Without a lock, where
        nothing asks for packages, it is Python alone.

        Raises LockMissing, EnvironmentFailed (with the last lines of the tool). Leaves no half environment.
        """

    def sdk(self) -> tuple[str, Path]:
        """The digest and the kept folder of this `core` + `sdk`, to be put on PYTHONPATH."""


class Artifacts(Protocol):
    """An immutable store by content. Ids are SHA-256 digests of canonical manifests."""

    def put(self, path: Path) -> str:
        """Keep a file or a folder and return its id; visible only when complete (I13)."""

    def get(self, artifact: str, path: Path) -> None:
        """Write the artifact to a path that does not exist yet; every byte checked; raises ArtifactBroken."""

    def has(self, artifact: str) -> bool:
        """Whether it is complete here."""

    def size(self, artifact: str) -> int:
        """Bytes of content."""


@dataclass(frozen=True, slots=True)
class DataVersion:
    """One pinned version of a source: digest of its manifest, files, rows (lines of text files less headers), bytes."""

    source: str
    digest: str
    files: int
    rows: int
    size: int


class Sources(Protocol):
    """Data that is not in git, pinned in `data.lock`."""

    def pin(self, source: str, where: str) -> DataVersion:
        """Read what is there now into the store; raises DataMissing, DataChanged."""

    def lay(self, source: str, digest: str, folder: Path) -> None:
        """Lay a pinned version out as a folder that does not exist yet; raises DataGone."""


@dataclass(frozen=True, slots=True)
class Task:
    """One command to run to its end: `argv`, working folder, the *whole* environment, a time limit, where its output
    goes, and the files and folders that nobody may change meanwhile.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    seconds: float = 3600.0
    stdin: str = ""
    inputs: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended: `exit` as the shell counts (137: killed), `timed_out`, `left` processes that had to be swept,
    seconds; `changed` is what was changed of the inputs, the first path of each.
    """

    exit: int
    seconds: float
    timed_out: bool = False
    left: int = 0
    tail: str = ""
    changed: tuple[Path, ...] = ()


class Runner(Protocol):
    """Runs commands to their end, and leaves none of their children behind."""

    def run(self, task: Task, stopped: Callable[[], bool] = lambda: False) -> Finished:
        """Run it; `stopped` is asked a few times a second and ends it early. Never raises for what the command does."""
