"""This file says what the engine needs of git: reading the truth, and the few writes that conclusions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from branchline.core.parity import Marks
from branchline.ports.ledger import Stamp


@dataclass(frozen=True, slots=True)
class Change:
    """One write to a trunk: make its closure show `revision`.

    `seen` is the revision the trunk showed when it was planned (None: nothing Branchline knows). `keep` allows the
    judged tree to replace what changed inside the closure meanwhile. `message` is the whole commit text without
    trailers; `at` and `actor` come from the recorded event, so that every retry makes the same commit id. `dossier` is
    where the evidence of its verdict is kept, '' where there was none.
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
    dossier: str = ""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A work tree that `checkout` laid out: where, of which revision and commit, and its files that differ now."""

    folder: Path
    reference: str
    commit: str
    altered: tuple[str, ...]


class Repository(Protocol):
    """Reading git: our own bare mirror of the truth (the remote, or without one the user's repository)."""

    def fetch(self) -> Mapping[str, str]:
        """Bring the mirror up to date and return every branch with its tip; raises RemoteUnreachable."""

    def tree(self, commit: str, closure: Sequence[str]) -> str:
        """A digest of the closure's content in the commit; '' when none of its paths exists there."""

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit; None when it is not there."""

    def files(self, commit: str, closure: Sequence[str]) -> Mapping[str, tuple[str, int]]:
        """Every file of the closure in the commit, by path: the id of its content, and its bytes. Links are files."""

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders of a commit that directly hold a file of that name."""

    def borrow(self, commit: str) -> None:
        """Bring a commit that only the user's own repository has; raises UnknownReference."""

    def base(self, one: str, other: str) -> str:
        """Their merge base; '' when they share no history."""

    def clashes(self, ours: str, theirs: str) -> tuple[str, ...]:
        """The paths for which a merge of the two needs a person, sorted; () when it needs none."""

    def export(self, commit: str, folder: Path, closure: Sequence[str] = ()) -> None:
        """Write the whole tree of a commit, read-only in spirit, into a folder that does not exist yet; atomic by
        rename. Raises UnsafeTree for what cannot be delivered inside the closure (none given: anywhere).
        """

    def changed(self, one: str, other: str, closure: Sequence[str]) -> tuple[str, ...]:
        """The paths of the closure that differ between two commits, sorted."""

    def log(self, since: str, until: str, closure: Sequence[str] = (), limit: int = 0) -> tuple[Mapping[str, str], ...]:
        """Commits in `since..until`, newest first, at most `limit` (0: all): commit, author, email, at, subject."""

    def shows(self, ref: str, service: str, closure: Sequence[str], revisions: Sequence[str]) -> str | None:
        """Which of the revisions the trunk shows: tree of the closure, then the newest trailer; '?' + tree when it
        is none of them, None when there is neither folder nor ref.
        """

    def marks(self) -> Marks:
        """Every tag, keep-ref and ref of dossiers; asks nothing of the network."""

    def recorded(self, ref: str) -> Mapping[str, int]:
        """Service -> the generation of its newest conclusion on a branch, as of the last fetch."""

    def altered(self, commit: str, folder: Path, closure: Sequence[str]) -> tuple[str, ...]:
        """The paths of the closure that an exported folder does not hold as the commit does; files besides are not
        looked at.
        """

    def mend(self, commit: str, folder: Path, closure: Sequence[str]) -> tuple[str, ...]:
        """Put back what `altered` names, each file whole or not at all, and return it; nothing else is touched."""

    def checkouts(self) -> tuple[Checkout, ...]:
        """Every work tree of the user's repository that `checkout` laid out and that is still there."""


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

    def draft(self, base: str, files: Mapping[str, bytes], message: str, actor: str, at: float) -> str:
        """Make a commit on top of another, with these files in the place of its own, that no branch shows; returns it.

        The same input makes the same commit.
        """

    def begin(self, service: str, branch: str, commit: str, stamp: Stamp) -> bool:
        """Create an experiment branch; false, and nothing is changed, where it is already, or was and is archived.

        Raises RemoteUnreachable, PushRefused, Fenced.
        """

    def absorb(self, service: str, branch: str, tip: str, revision: str, stamp: Stamp) -> str:
        """Merge a fix into an experiment branch; returns the new tip."""

    def deposit(self, service: str, files: Mapping[str, bytes], message: str, at: float, stamp: Stamp) -> str:
        """Keep these files on the service's ref of dossiers, beside the others there: in our mirror for certain, then
        in the truth. Returns the commit; files that are there already, or none, make no new one.

        Raises RemoteUnreachable or PushRefused when only the mirror has it, RefMoved, Fenced; again is fine.
        """

    def drop(self, service: str, ref: str, stamp: Stamp) -> None:
        """Archive and delete an older major's trunk."""
