"""This file says what the engine needs to build: environments, artifacts, data, and commands run to their end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from branchline.core.profile import Columns, Profile


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
        nothing asks for packages, it is Python alone. What is reused is compared with what was built (F28).

        Raises LockMissing, EnvironmentFailed (a line, with the package named). Leaves no half environment.
        """

    def known(self, service: str, folder: Path, python: str) -> Environment | None:
        """The environment that `ensure` would reuse, None when it has to be built. Nothing is built and no file is
        compared: it says what a key is made of. Whoever runs something in it asks `ensure`.
        """

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Mapping[str, int]:
        """Remove the environments whose digest is not in `keep` and that `ensure` gave last more than `older_than`
        seconds ago; digest -> bytes of the disk that this frees. `dry_run` only says what would go.

        One that is being built is let be. Processes that still run in one have to be spoken for by `keep`.
        """

    def sdk(self) -> tuple[str, Path]:
        """The digest and the kept folder of this `core` + `sdk`, to be put on PYTHONPATH."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep removed, or would remove: artifacts, and bytes of the disk."""

    artifacts: int
    bytes: int


class Artifacts(Protocol):
    """An immutable store by content. Ids are SHA-256 digests of canonical manifests. What `get` finds damaged, `has`
    denies from then on, and putting the same again mends it (F40).
    """

    def put(self, path: Path) -> str:
        """Keep a file or a folder and return its id; visible only when complete (I13), and young from now on (F49)."""

    def get(self, artifact: str, path: Path) -> None:
        """Write the artifact to a path that does not exist yet; every byte checked; raises ArtifactBroken."""

    def has(self, artifact: str) -> bool:
        """Whether it is complete here."""

    def size(self, artifact: str) -> int:
        """Bytes of content."""

    def artifacts(self) -> Iterator[str]:
        """The ids of what is kept, in no order."""

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Swept:
        """Remove the artifacts that are not in `keep` and were last put longer than `older_than` seconds ago (F49).

        A put of another process that runs meanwhile loses nothing. `dry_run` only says what would go.
        """


@dataclass(frozen=True, slots=True)
class DataVersion:
    """One pinned version of a source: digest of its manifest, files, rows (where the format does not tell: lines of
    text), bytes, and its columns with their kinds, sorted; () where they are not known.
    """

    source: str
    digest: str
    files: int
    rows: int
    size: int
    columns: Columns = ()


class Sources(Protocol):
    """Data that is not in git, pinned in `data.lock`."""

    def pin(self, source: str, where: str, store: bool = True) -> DataVersion:
        """Read what is there now into the store, or without `store` only its digests; cheap while nothing changed.

        `where` is a glob below the project's root or an HTTP(S) address. Raises DataMissing, DataChanged (while it was
        read), DataRefused, DataUnreachable.
        """

    def profile(self, source: str, digest: str, key: Sequence[str] = ()) -> Profile:
        """What a pinned version holds, and how many rows repeat the key; read once. Raises DataGone."""

    def lay(self, source: str, digest: str, folder: Path) -> None:
        """Lay a pinned version out as a folder that does not exist yet; raises DataGone."""

    def versions(self) -> Mapping[str, tuple[str, ...]]:
        """Every version that was pinned and not swept: its digest, and the artifacts that its bytes lie in (F49)."""

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Mapping[str, int]:
        """Forget the versions that are not in `keep` and were last pinned longer than `older_than` seconds ago; digest
        -> bytes of the disk. Their artifacts are for whoever sweeps those. `dry_run` only says what would go.
        """


class Lookout(Protocol):
    """Hears that something was written where data lies. It may hear too much, and says nothing of what is there."""

    def watch(self, places: Collection[str]) -> None:
        """Hear of these places (globs below the project's root) and of no others; each is named once when it has begun
        to be watched, for what was written before. Asking for the same again changes nothing.
        """

    def heard(self) -> Collection[str]:
        """The places where something was written since this was last asked."""

    def close(self) -> None:
        """Watch nothing any more."""


@dataclass(frozen=True, slots=True)
class Task:
    """One command to run to its end: `argv`, working folder, the *whole* environment, a time limit, where its output
    goes, the files and folders that nobody may change meanwhile, and how many bytes its tree may hold (0: any).
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    seconds: float = 3600.0
    stdin: str = ""
    inputs: tuple[Path, ...] = ()
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended: `exit` as the shell counts (137: killed), `timed_out`, `starved` of memory, `left` processes that
    had to be swept, seconds by the clock and of processors, `peak` bytes; `changed` is what was changed of the inputs,
    the first path of each.
    """

    exit: int
    seconds: float
    timed_out: bool = False
    left: int = 0
    tail: str = ""
    changed: tuple[Path, ...] = ()
    cpu: float = 0.0
    peak: int = 0
    starved: bool = False


class Runner(Protocol):
    """Runs commands to their end, and leaves none of their children behind."""

    def run(self, task: Task, stopped: Callable[[], bool] = lambda: False) -> Finished:
        """Run it; `stopped` is asked a few times a second and ends it early. Never raises for what the command does."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Which warm process: an environment's interpreter, the folder of our sdk, and the variables that are the same for
    all steps (PATH, LANG, TZ, PYTHONHASHSEED, and what a library reads as it is imported).
    """

    python: Path
    sdk: Path
    env: Mapping[str, str]


class Workers(Protocol):
    """Python functions of a service, called in its own environment, without starting an interpreter for each."""

    def do(
        self, bench: Bench, order: Mapping[str, Any], stopped: Callable[[], bool] = lambda: False
    ) -> Mapping[str, Any]:
        """Do what an order of `sdk.run` says, and return its answer; several threads may call at once.

        Nothing of one order is left for the next, and none of its processes when this returns. `stopped` is asked a few
        times a second and ends it early; what it raises is passed on after that. Never raises for what the function
        does: the answer's `reason` says how it ended, "lost" when whatever ran it was killed.
        """

    def close(self) -> None:
        """End every process; what is under way is lost. Orders that come later are, too."""
