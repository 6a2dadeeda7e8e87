"""This file says what the engine needs of the ledger: the recorded state, the audit, and what was built and found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from branchline.core.reuse import Trace
from branchline.core.revision import GateResult, Revision, StepRun
from branchline.core.service import Service
from branchline.core.tracking import Query, Run


class Stamp(NamedTuple):
    """What an effect was planned from; compared generation first, then epoch."""

    generation: int
    epoch: int


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

    def epoch(self) -> int:
        """The newest epoch; 0 before the first."""

    def ready(self, seconds: float) -> None:
        """Return once something could be recorded; raises LedgerBusy when that takes longer than so many seconds."""

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

    def restore(self, name: str, default: str, generation: int, *, actor: str, because: str, at: float) -> Entry:
        """Let a service's generation jump, its state stay, and write that to the audit as `Restored`.

        For a ledger that is an older copy: what was recorded after it is given up. An unknown service begins empty.
        Raises Stale unless the generation is larger than the recorded one. Not idempotent.
        """

    def close(self) -> None:
        """Let go of the file."""


class Catalog(Protocol):
    """What was built and what gates found: immutable facts, keyed by service and commit."""

    def add(self, revision: Revision, bump: str, line: int, after: str = "") -> Revision:
        """Keep a built revision and allocate its pre-release version `X.Y.Z-HANDLE.N`; the same commit again is
        returned as it is.
        """

    def finish(self, service: str, commit: str) -> Revision:
        """Allocate the final version `X.Y.Z` (unique, never given again) and return the revision; again: as it is."""

    def reserve(self, service: str, versions: Mapping[str, str]) -> None:
        """Never give these versions (version -> commit) to another commit: git knows them, this ledger does not."""

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

    def keep_run(self, service: str, commit: str, runs: Sequence[StepRun], run: int = 0) -> int:
        """Keep what became of the steps, with what they told of themselves, in one transaction; return the run's
        number, which no other run has. With `run`, one of that commit goes on.

        Lines and facts are kept of what ran. A step that was reused is read with the lines, facts and metrics of the
        newest run that left its artifact under its key.
        """

    def run(self, service: str, commit: str) -> tuple[StepRun, ...]:
        """The steps of the newest run of that commit; () when there was none."""

    def numbered(self, run: int) -> Run:
        """One run with all that is known of it; raises UnknownReference."""

    def runs(self, query: Query) -> tuple[Run, ...]:
        """The runs that a query means, newest first: their steps in brief, with the last value of each metric."""

    def traces(self, keys: Collection[str]) -> Mapping[str, tuple[Trace, ...]]:
        """What may be reused, by key: of the steps that ran, are reusable and left an artifact, newest first, at most
        16 of a key; keys without any are left out.
        """
