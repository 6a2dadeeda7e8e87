"""This file says what the engine needs to serve: instance groups, routes, and the gateway's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from branchline.core.spec import UNIT, Limits, Requests, Unit
from branchline.ports.building import Bench
from branchline.ports.ledger import Stamp
from branchline.ports.observations import Served


@dataclass(frozen=True, slots=True)
class Group:
    """An instance group to run: one revision in one perimeter (`production` or `staging`). With a `bench` its processes
    may be forked from one that has imported what they begin with, instead of being started: that is all the difference.
    """

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
    requests: Requests = field(default_factory=Requests)
    limits: Limits = field(default_factory=Limits)
    bench: Bench | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One incarnation of a group: `state` is starting, ready, failed or stopped; its sockets carry the nonce in
    their names. One that is ready may have lost some of its processes, which ended or are silent: `lost` says how many,
    and `tail` why; when all are lost it has failed. One that loses any while it starts has failed. `level` says how its
    limits are kept: v2, v1 (of cgroups), limits (of each process), or '' when it has none. One that is stopped and has
    `pids` drains.
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
    requests: Requests = field(default_factory=Requests)
    lost: int = 0
    level: str = ""


@dataclass(frozen=True, slots=True)
class Stray:
    """A process that is where no process of ours should be: forgotten by us (`orphan`), or on a socket of ours but
    not ours (`stranger`); `what` names it.
    """

    kind: str
    pid: int
    service: str
    what: str


class Launcher(Protocol):
    """Runs instance groups as processes that outlive the daemon."""

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse everything about this service that was planned before the stamp."""

    def launch(self, group: Group, stamp: Stamp) -> Instance:
        """Start the group unless an incarnation of it is starting, or ready and whole; returns at once.

        Beside one that has lost processes, or has another number of them, a new one is begun: nobody is stopped here.
        The group's limits hold for all that it starts, before the first of its own instructions; its GPUs are nobody
        else's that runs. Raises Fenced, and StartFailed where limits cannot be set.
        """

    def instances(self, service: str = "") -> tuple[Instance, ...]:
        """Every incarnation (of a service), re-adopted after a restart of the daemon; asks each for readiness."""

    def stop(self, nonce: str, stamp: Stamp) -> None:
        """Drain and stop one incarnation, its whole process tree; blocks until it is gone; gone already is fine."""

    def log(self, nonce: str, lines: int = 20) -> str:
        """The last lines that it printed."""

    def told(self) -> Mapping[str, Stamp]:
        """The newest stamp of each service that was ever told, also before this start."""

    def strays(self) -> tuple[Stray, ...]:
        """Orphans and strangers, by service and pid; looks at every process of this machine and touches none."""

    def close(self) -> None:
        """End what it keeps to start others sooner; what serves is not touched."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an incarnation can be reached and what it is called outside: `pins` are the words a request may pin it
    by (version, branch, commit), `split` whether it may be part of a split (production), `unit` is where a
    request says for whom it is.
    """

    revision: str
    version: str
    nonce: str
    sockets: tuple[str, ...]
    pins: tuple[str, ...] = ()
    split: bool = True
    health: str = "/"
    nonce_aware: bool = True
    unit: Unit = UNIT
    requests: Requests = field(default_factory=Requests)


@dataclass(frozen=True, slots=True)
class Shown:
    """What the gateway has accepted for a line: shares by revision, the bucket table's number, segments and its
    salt.
    """

    shares: tuple[tuple[str, int], ...]
    table: int
    segments: tuple[tuple[str, int], ...]
    experiment: str


@dataclass(frozen=True, slots=True)
class Survey:
    """How the gateway was found: whether it runs, `taken` an address of its that somebody else has ('' none), which of
    its files are `edited` or not accepted, what it was to show by service and line, and the incarnations that it knows.
    """

    running: bool
    taken: str
    edited: tuple[str, ...]
    routes: Mapping[str, Mapping[int, Shown]]
    known: Mapping[str, frozenset[str]]


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

    def told(self) -> Mapping[str, Stamp]:
        """The newest stamp of each service that was ever told, also before this start."""

    def vacant(self) -> int:
        """A port that the gateway could have."""

    def survey(self) -> Survey:
        """Look at the gateway as it is: nothing is started and nothing put right."""

    def offline(self) -> tuple[Mapping[str, Any], ...]:
        """What was done to routes beside the daemon: of each service the oldest, forgotten once `tell` is called of
        it. Until then every change of that service is refused.
        """

    def address(self, service: str, pin: str = "") -> str:
        """The URL people use."""


@dataclass(frozen=True, slots=True)
class Behind:
    """How much of the gateway's log is not read yet: lines (of a lot, about so many), bytes, and for how long."""

    lines: int
    bytes: int
    seconds: float


class Meter(Protocol):
    """Reads the gateway's log."""

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests of split routes after a position, across rotation and restart, and the new position."""

    def find(self, request: str) -> Served | None:
        """The newest request with this id that the logs still hold, in a test or not; reads all of them."""

    def loss(self) -> int:
        """Requests the gateway counted that its log does not hold (after it was killed)."""

    def behind(self, position: str) -> Behind:
        """How far behind the gateway a reader at this position is."""

    def dropped(self) -> int:
        """Requests that the gateway could not log since it started; after its end they are part of the loss."""
