"""This file says what the engine needs from the world: each Protocol is a port, its docstrings are the contract.

Every port has a fake in `tests/fakes.py` and one contract suite that the fake and every real adapter pass. Effects
carry a `Stamp`; whoever holds a resource is *told* the newest stamp as an event is recorded and refuses older ones
with `Fenced`. Unless a docstring says otherwise a call is idempotent, blocks for at most a few seconds, and raises
only `BranchlineError`s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from branchline.core.revision import GateResult, Revision, StepRun
from branchline.core.service import Service
from branchline.core.spec import Metric, Spec


class Stamp(NamedTuple):
    """What an effect was planned from; compared generation first, then epoch."""

    generation: int
    epoch: int


# ------------------------------------------------------------------------------------------------ the ledger


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the audit: who did what to which service, when (Unix seconds) and why."""

    number: int
    service: str
    generation: int
    event: str
    detail: Mapping[str, Any]
    actor: str
    because: str
    at: float
    chain: str


class Ledger(Protocol):
    """The recorded state of all services. Only the daemon opens it."""

    def take_over(self) -> int:
        """Begin a new epoch and return it; each call returns a larger one. Not idempotent."""

    def services(self) -> tuple[str, ...]:
        """The names of all known services, sorted."""

    def service(self, name: str) -> Service:
        """The recorded state; raises UnknownService."""

    def record(self, after: Service, event: Mapping[str, Any], *, actor: str, because: str, at: float) -> Entry:
        """Write event, new state and audit row in one transaction.

        `after.generation` must be the recorded one + 1 (an unknown service counts as 0), else Stale is raised and
        nothing is written. Not idempotent. `event` is the JSON of the event with its `type`.
        """

    def history(self, service: str = "", *, limit: int = 50, before: int = 0) -> tuple[Entry, ...]:
        """Entries, newest first; `before` is an entry number to page on."""

    def close(self) -> None:
        """Let go of the file."""


class Catalog(Protocol):
    """What was built and what gates found: immutable facts, keyed by service and commit."""

    def add(self, revision: Revision, bump: str, line: int) -> Revision:
        """Keep a built revision and allocate its pre-release version `X.Y.Z-HANDLE.N`; the same commit again is
        returned as it is.
        """

    def finish(self, service: str, commit: str) -> Revision:
        """Allocate the final version `X.Y.Z` (unique, never given again) and return the revision; again: as it is."""

    def revision(self, service: str, commit: str) -> Revision:
        """Raises UnknownReference."""

    def revisions(self, service: str) -> tuple[Revision, ...]:
        """All of them, newest first."""

    def keep_gates(self, service: str, commit: str, results: Sequence[GateResult]) -> None:
        """Keep one evaluation's results; replaces those of an earlier evaluation of the same commit in reading,
        never in history.
        """

    def gates(self, service: str, commit: str) -> tuple[GateResult, ...]:
        """The results of the newest evaluation, in order."""

    def keep_run(self, service: str, commit: str, runs: Sequence[StepRun]) -> None:
        """Keep what became of the steps, with the artifacts by their keys, in one transaction."""

    def run(self, service: str, commit: str) -> tuple[StepRun, ...]:
        """The steps of the newest run of that commit; () when there was none."""

    def artifact(self, key: str) -> str:
        """The artifact id that a finished step left under this key; '' when there is none."""


# ------------------------------------------------------------------------------------------------ observations


@dataclass(frozen=True, slots=True)
class Served:
    """One line of the gateway's log that matters: a request of a split route.

    `assigned` and `answered` are commits (assigned: the arm's, answered: the host's; they differ when the incumbent
    stepped in). `table` is the number of the bucket table, `experiment` the salt. `bad` says 5xx, time-out or
    stepped in for.
    """

    service: str
    unit: str
    request: str
    assigned: str
    answered: str
    experiment: str
    table: int
    status: int
    flags: str
    seconds: float
    at: float
    prediction: float | None = None

    @property
    def bad(self) -> bool:
        """Whether the arm failed this request: a client that left (`DC`) is no failure."""
        return "DC" not in self.flags and (self.status >= 500 or self.status == 0 or self.answered != self.assigned)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller reports: by unit or by request id; `value` is the metric's value or, for kind error, the truth."""

    service: str
    value: float
    unit: str = ""
    request: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One unit's first exposure in an experiment, with its matured value (None: no outcome in its window).

    `order` is the exposure's number: a cursor. `stratum` is (segment's table number): what statistics keeps apart.
    """

    order: int
    unit: str
    arm: str
    stratum: int
    value: float | None
    at: float


@dataclass(frozen=True, slots=True)
class Tally:
    """One request, as the guardrail counts it: units whose first bad request was counted have left (one row each)."""

    order: int
    arm: str
    table: int
    bad: bool
    at: float


class Observations(Protocol):
    """Exposures and outcomes. Times are Unix seconds of the gateway's log."""

    def position(self) -> str:
        """Where the reader of the gateway's log stands ('' at the very start)."""

    def take(self, served: Iterable[Served], position: str) -> int:
        """Keep requests and the reader's new position in one transaction (exactly once); return how many were kept."""

    def report(self, outcomes: Sequence[Outcome], metrics: Mapping[str, Metric], *, at: float) -> tuple[str, ...]:
        """Keep outcomes durably; one word each: kept, duplicate, conflict, late, unknown, refused.

        Idempotent by (service, id or unit/request); `metrics` has the metric of each service. Joined by request, or by
        unit with the last experiment it was exposed in: take what the gateway has logged first. A unit's value is the
        mean of what was reported of it within its window.
        """

    def matured(self, service: str, experiment: str, *, after: int, until: float, window: float) -> tuple[Seen, ...]:
        """Units whose window closed by `until`, in order of exposure, after the cursor; stops at the first unit not
        matured.
        """

    def requests(self, service: str, experiment: str, *, after: int) -> tuple[Tally, ...]:
        """Requests after the cursor for the guardrail: only a unit's first bad request counts, later ones of it are
        left out.
        """

    def counts(self, service: str, experiment: str) -> Mapping[str, Mapping[str, int]]:
        """Per arm: units, requests, bad, stepped_in, outcomes (units with one), late; see below for ''.

        Under '': `both` (units seen in more than one arm), `refused`, `conflict`, and `unknown` of the whole service.
        """


# ------------------------------------------------------------------------------------------------ git


@dataclass(frozen=True, slots=True)
class Change:
    """One write to a trunk: make its closure show `revision`.

    `seen` is the revision the trunk showed when it was planned (None: nothing Branchline knows). `keep` allows the
    judged tree to replace what changed inside the closure meanwhile. `message` is the whole commit text without
    trailers; `at` and `actor` come from the recorded event, so that every retry makes the same commit id.
    """

    service: str
    closure: tuple[str, ...]
    ref: str
    revision: str
    seen: str | None
    version: str
    message: str
    actor: str
    at: float
    stamp: Stamp
    event: int = 0
    keep: bool = False


class Repository(Protocol):
    """Reading git: our own bare mirror of the truth (the remote, or without one the user's repository)."""

    def fetch(self) -> Mapping[str, str]:
        """Bring the mirror up to date and return every branch with its tip; raises RemoteUnreachable."""

    def tree(self, commit: str, closure: Sequence[str]) -> str:
        """A digest of the closure's content in the commit; '' when none of its paths exists there."""

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit; None when it is not there."""

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders of a commit that directly hold a file of that name."""

    def borrow(self, commit: str) -> None:
        """Bring a commit that only the user's own repository has; raises UnknownReference."""

    def base(self, one: str, other: str) -> str:
        """Their merge base; '' when they share no history."""

    def export(self, commit: str, folder: Path, closure: Sequence[str] = ()) -> None:
        """Write the whole tree of a commit, read-only in spirit, into a folder that does not exist yet; atomic by
        rename. Raises UnsafeTree for what cannot be delivered inside the closure (none given: anywhere).
        """

    def log(self, since: str, until: str, closure: Sequence[str] = ()) -> tuple[Mapping[str, str], ...]:
        """Commits in `since..until`, newest first: commit, author, email, at, subject."""

    def shows(self, ref: str, service: str, closure: Sequence[str], revisions: Sequence[str]) -> str | None:
        """Which of the revisions the trunk shows: tree of the closure, then the newest trailer; '?' + tree when it
        is none of them, None when there is neither folder nor ref.
        """


class Writer(Protocol):
    """Writing git. Each call observes first, acts by compare-and-swap, and is told a stamp; older ones raise Fenced."""

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything about this service that was planned before the stamp."""

    def hold(self, service: str, revision: str, version: str) -> None:
        """Keep a deployed revision's commit reachable for ever: refs/branchline/revisions/SERVICE/VERSION."""

    def conclude(self, change: Change) -> str:
        """Make the trunk show the revision; returns the trunk's new tip, the same at each retry.

        Raises RemoteUnreachable, PushRefused, RefMoved (observe and plan again), MergeConflict, ForeignCommit,
        TrunkCheckedOut.
        """

    def delete(self, service: str, branch: str, tip: str, stamp: Stamp) -> None:
        """Archive the branch under refs/branchline/archive/ and delete it at that very tip; gone already is fine;
        RefMoved else.
        """

    def absorb(self, service: str, branch: str, tip: str, revision: str, stamp: Stamp) -> str:
        """Merge a fix into an experiment branch; returns the new tip."""

    def drop(self, service: str, ref: str, stamp: Stamp) -> None:
        """Archive and delete an older major's trunk."""


# ------------------------------------------------------------------------------------------------ building


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
        """Build (or reuse) the environment of the lock file in that folder; may take minutes.

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
    goes.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    log: Path
    seconds: float = 3600.0
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended: `exit` as the shell counts (137: killed), `timed_out`, `left` processes that had to be swept,
    seconds.
    """

    exit: int
    seconds: float
    timed_out: bool = False
    left: int = 0
    tail: str = ""


class Runner(Protocol):
    """Runs commands to their end, and leaves none of their children behind."""

    def run(self, task: Task, stopped: Callable[[], bool] = lambda: False) -> Finished:
        """Run it; `stopped` is asked a few times a second and ends it early. Never raises for what the command does."""


# ------------------------------------------------------------------------------------------------ serving


@dataclass(frozen=True, slots=True)
class Group:
    """An instance group to run: one revision in one perimeter (`production` or `staging`)."""

    service: str
    revision: str
    version: str
    perimeter: str
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    health: str
    start_seconds: float = 60.0
    drain_seconds: float = 5.0
    instances: int = 1
    nonce_aware: bool = True


@dataclass(frozen=True, slots=True)
class Instance:
    """One incarnation of a group: `state` is starting, ready, failed or stopped; its sockets carry the nonce in
    their names.
    """

    service: str
    revision: str
    version: str
    perimeter: str
    nonce: str
    sockets: tuple[str, ...]
    state: str
    pids: tuple[int, ...] = ()
    since: float = 0.0
    tail: str = ""
    health: str = "/"
    nonce_aware: bool = True


class Launcher(Protocol):
    """Runs instance groups as processes that outlive the daemon."""

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything about this service that was planned before the stamp."""

    def launch(self, group: Group, stamp: Stamp) -> Instance:
        """Start the group unless an incarnation of it is starting or ready; returns at once. Raises Fenced."""

    def instances(self) -> tuple[Instance, ...]:
        """Every incarnation, re-adopted after a restart of the daemon; asks each for readiness."""

    def stop(self, nonce: str, stamp: Stamp) -> None:
        """Drain and stop one incarnation, its whole process tree; blocks until it is gone; gone already is fine."""

    def log(self, nonce: str, lines: int = 20) -> str:
        """The last lines that it printed."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an incarnation can be reached and what it is called outside: `pins` are the words a request may pin it
    by (version, branch, commit), `split` whether it may be part of a split (production), `unit_header` carries the
    unit.
    """

    revision: str
    version: str
    nonce: str
    sockets: tuple[str, ...]
    pins: tuple[str, ...] = ()
    split: bool = True
    health: str = "/"
    nonce_aware: bool = True
    unit_header: str = "x-branchline-unit"


@dataclass(frozen=True, slots=True)
class Shown:
    """What the gateway has accepted for a line: shares by revision, the bucket table's number, segments and its
    salt.
    """

    shares: tuple[tuple[str, int], ...]
    table: int
    segments: tuple[tuple[str, int], ...]
    experiment: str


class Router(Protocol):
    """The only writer of routes. Every change is read back before a call returns."""

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything about this service that was planned before the stamp; durable, for offline writers too."""

    def offer(self, service: str, endpoints: Sequence[Endpoint], stamp: Stamp) -> None:
        """Make exactly these endpoints known and pinned (clusters first, warm, then routes; removals in reverse).

        An endpoint that is still part of a split stays. Raises NotWarm, EnvoyRejected, Fenced.
        """

    def shift(self, service: str, line: int, shares: Sequence[tuple[str, int]], stamp: Stamp) -> None:
        """Give a line these shares (revision, per cent; the first is the trunk's holder; () ends the line). Moves
        nobody who need not.
        """

    def shown(self, service: str) -> Mapping[int, Shown]:
        """What the gateway has accepted, per line."""

    def offline(self) -> tuple[Mapping[str, Any], ...]:
        """What was done to routes while no daemon lived, oldest first; forgotten once returned and `tell` was
        called.
        """

    def address(self, service: str, pin: str = "") -> str:
        """The URL people use."""


class Meter(Protocol):
    """Reads the gateway's log."""

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests of split routes after a position, across rotation and restart, and the new position."""

    def loss(self) -> int:
        """Requests the gateway counted that its log does not hold (after it was killed)."""


class Clock(Protocol):
    """Time, injected."""

    def now(self) -> float:
        """Unix seconds, for records."""

    def monotonic(self) -> float:
        """Seconds that only grow, for durations."""

    def wait(self, seconds: float) -> None:
        """Let that much time pass."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that one controller drives, put together by `app`.

    `read_spec(text, path)` reads a service file (its folder names the service), `read_lock(text, path)` a `data.lock`
    (source -> digest of its manifest); both raise BadServiceFile. `state` is the state folder.
    """

    ledger: Ledger
    catalog: Catalog
    observations: Observations
    repository: Repository
    writer: Writer
    environments: Environments
    artifacts: Artifacts
    sources: Sources
    runner: Runner
    launcher: Launcher
    router: Router
    meter: Meter
    clock: Clock
    read_spec: Callable[[bytes, str], Spec]
    read_lock: Callable[[bytes, str], Mapping[str, str]]
    state: Path
