"""This package says what the engine needs from the world: each Protocol is a port, its docstrings are the contract.

Every port has a fake in `tests/fakes.py` and one contract suite that the fake and every real adapter pass. Effects
carry a `Stamp`; whoever holds a resource is *told* the newest stamp as an event is recorded and refuses older ones
with `Fenced`. Unless a docstring says otherwise a call is idempotent, blocks for at most a few seconds, and raises
only `BranchlineError`s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from branchline.core.parity import Marks
from branchline.core.spec import Spec
from branchline.ports.building import (
    Artifacts,
    Bench,
    DataVersion,
    Environment,
    Environments,
    Finished,
    Lookout,
    Runner,
    Sources,
    Swept,
    Task,
    Workers,
)
from branchline.ports.gauges import Gauges, Key, Vital, Vitals
from branchline.ports.git import Change, Checkout, Repository, Writer
from branchline.ports.ledger import Catalog, Entry, Ledger, Stamp
from branchline.ports.looks import Looks, Readings
from branchline.ports.observations import Exposed, Observations, Outcome, Receipt, Request, Seen, Served, Tally
from branchline.ports.queries import Queries
from branchline.ports.serving import Behind, Endpoint, Group, Instance, Launcher, Meter, Router, Shown, Stray, Survey

__all__ = [
    "Artifacts", "Behind", "Bench", "Catalog", "Change", "Checkout", "Clock", "DataVersion", "Endpoint", "Entry",
    "Environment", "Environments", "Exposed", "Finished", "Gauges", "Group", "Instance", "Key", "Launcher", "Ledger",
    "Lookout", "Looks", "Marks", "Meter", "Observations", "Outcome", "Ports", "Queries", "Readings", "Receipt",
    "Repository", "Request", "Router", "Runner", "Seen", "Served", "Shown", "Sources", "Stamp", "Stray", "Survey",
    "Swept", "Tally", "Task", "Vital", "Vitals", "Workers", "Writer",
]  # fmt: skip


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
    (source -> digest of its manifest); both raise BadServiceFile. `relock(text, path, versions)` is the lock that pins
    these besides, `due(schedule, after)` when a cron schedule comes next (Unix seconds, UTC; raises BadSchedule).
    `state` is the state folder.
    """

    ledger: Ledger
    catalog: Catalog
    observations: Observations
    queries: Queries
    readings: Readings
    looks: Looks
    repository: Repository
    writer: Writer
    environments: Environments
    artifacts: Artifacts
    sources: Sources
    lookout: Lookout
    runner: Runner
    workers: Workers
    launcher: Launcher
    router: Router
    meter: Meter
    gauges: Gauges
    vitals: Vitals
    clock: Clock
    read_spec: Callable[[bytes, str], Spec]
    read_lock: Callable[[bytes, str], Mapping[str, str]]
    relock: Callable[[bytes | None, str, Sequence[DataVersion]], bytes]
    due: Callable[[str, float], float]
    state: Path
