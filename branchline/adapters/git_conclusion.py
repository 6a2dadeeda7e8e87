"""This file writes git: the port `Writer`. The trunk shows what serves, closed branches go, what was deployed is kept.

Rules: observe, then act by compare-and-swap, one ref a push; what a killed or unanswered call has done is recognised by
the trunk's tree and the trailer `Branchline-Event: SERVICE/GENERATION`, never by ancestry (after a rollback the judged
commit still is an ancestor). What is merged is the judged commit (I3). Identity and dates of a commit come from the
recorded event: every retry makes the same commit. What was planned before the newest told stamp is refused (I21).
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping, Sequence

from branchline.adapters.git import commit_id, ref_name, tree_path
from branchline.adapters.git_clone import Clone
from branchline.adapters.git_graft import Conflict, commit, drafted, grafted_merge, merge
from branchline.adapters.git_mirror import DOSSIERS, KEPT, SEEN_DOSSIERS, Mirror, Trailer
from branchline.core import names
from branchline.errors import BadName, Fenced, ForeignCommit, MergeConflict, PushRefused, RefMoved, RemoteUnreachable
from branchline.ports import Change, Stamp

ARCHIVE = "refs/branchline/archive"
_MAJOR = re.compile(r"major--(.+)--[1-9][0-9]*")
_log = logging.getLogger("branchline.git")


class Conclusion:
    """The port `Writer` on a mirror and the truth behind it."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._git = mirror.git
        self._clone = Clone(mirror.common)
        self._told: dict[str, Stamp] = {}
        self._telling = threading.Lock()

    def tell(self, service: str, stamp: Stamp) -> None:
        """Raise the mark of a service; does not wait for a push under way."""
        with self._telling:
            self._told[service] = max(stamp, self._told.get(service, stamp))

    def hold(self, service: str, revision: str, version: str) -> None:
        """Keep a deployed revision reachable, in the mirror at once; the truth gets it with the conclusion."""
        ref = _kept(service, version)
        self._mirror.borrow(revision)
        self._create(ref, revision)

    def conclude(self, change: Change) -> str:
        """Make the trunk show the revision inside the closure, then tag it; returns the commit that recorded it."""
        ref_name(change.ref)
        closure = tuple(sorted({tree_path(path) for path in change.closure}))
        with self._mirror.lock:
            self._check(change.service, change.stamp)
            self._mirror.fetch()
            self._mirror.borrow(change.revision)
            tip = self._mirror.tip(change.ref)
            made = self._recorded(change, tip, closure) or self._write(change, tip, closure)
            if not self._mirror.remote and self._mirror.tip(change.ref) == made:
                self._clone.follow(change.ref, f"{made}^", made)
            if change.version:
                self._name(change)
            return made

    def delete(self, service: str, branch: str, tip: str, stamp: Stamp) -> None:
        """Archive and delete an experiment or fix branch at its tip."""
        named = names.branch(branch)
        if named is None or named.service != service:
            raise BadName(what="branch", name=branch)
        self._remove(service, branch, commit_id(tip), stamp)

    def drop(self, service: str, ref: str, stamp: Stamp) -> None:
        """Archive and delete the trunk of an older major."""
        named = _MAJOR.fullmatch(ref)
        if named is None or named[1] != names.checked("service", service):
            raise BadName(what="branch", name=ref)
        with self._mirror.lock:
            self._check(service, stamp)
            self._mirror.fetch()
            tip = self._mirror.tip(ref)
            if tip:
                self._remove(service, ref, tip, stamp)

    def draft(self, base: str, files: Mapping[str, bytes], message: str, actor: str, at: float) -> str:
        """Make a commit on top of another, with these files in the place of its own; no ref shows it."""
        self._mirror.borrow(base)
        tree = drafted(self._git, base, {tree_path(path): content for path, content in files.items()})
        return commit(self._git, tree, [base], message, who=person_of(actor), at=at)

    def deposit(self, service: str, files: Mapping[str, bytes], message: str, at: float, stamp: Stamp) -> str:
        """Keep files on the service's ref of dossiers: here for certain, then in the truth."""
        ref, seen = (f"{top}/{names.checked('service', service)}" for top in (DOSSIERS, SEEN_DOSSIERS))
        with self._mirror.lock:
            self._check(service, stamp)
            unreached: RemoteUnreachable | None = None
            try:
                self._mirror.fetch()
            except RemoteUnreachable as error:
                unreached = error
            mine, there = self._mirror.at(ref), self._mirror.at(seen)
            base = mine if mine and (not there or self._contains(mine, there)) else there
            tree = drafted(self._git, base, {tree_path(path): content for path, content in files.items()})
            new = base
            if not base or tree != self._git.line("rev-parse", "--verify", f"{base}^{{tree}}"):
                new = commit(self._git, tree, [base] if base else [], message, who=person_of(""), at=at)
            self._mirror.set(ref, new)
            if unreached is not None:
                raise unreached
            if there != new:
                self._check(service, stamp)
                self._mirror.push(ref, new, there)
                self._mirror.set(seen, new)
            return new

    def begin(self, service: str, branch: str, commit: str, stamp: Stamp) -> bool:
        """Create an experiment branch, unless it is there or was."""
        named = names.branch(branch)
        if named is None or named.service != service:
            raise BadName(what="branch", name=branch)
        with self._mirror.lock:
            self._check(service, stamp)
            archived = self._git.line("for-each-ref", "--count=1", f"{ARCHIVE}/{branch}/")
            if archived or branch in self._mirror.fetch():
                return False
            try:
                self._push(service, stamp, branch, commit_id(commit), "")
            except RefMoved:  # somebody else was first
                return False
            return True

    def absorb(self, service: str, branch: str, tip: str, revision: str, stamp: Stamp) -> str:
        """Merge a fix into an experiment branch: forward where that is enough, else by a merge commit."""
        named = names.branch(branch)
        if named is None or named.service != service:
            raise BadName(what="branch", name=branch)
        with self._mirror.lock:
            self._check(service, stamp)
            now = self._mirror.fetch().get(branch, "")
            if now and self._contains(now, revision):
                return now
            if now != tip:
                raise RefMoved(ref=branch)
            new = revision if self._contains(revision, tip) else self._merged(branch, tip, revision)
            self._push(service, stamp, branch, new, tip)
            return new

    # ------------------------------------------------------------------------------------------------ a conclusion

    def _recorded(self, change: Change, tip: str, closure: Sequence[str]) -> str:
        """The commit that already made the trunk show the revision; '' when there is none.

        The tree must be there; then the newest trailer of the service decides. Without ours, the tree says enough where
        the trunk showed another one before: somebody brought this one, with a forge's merge button for example.
        """
        wanted = self._mirror.tree(change.revision, closure)
        if not tip or self._mirror.tree(tip, closure) != wanted:
            return ""
        newest = next(iter(self._mirror.trailers(tip, change.service)), Trailer("", "", ""))
        if (newest.generation, newest.revision) == (str(change.event), change.revision):
            return newest.commit
        before = change.seen or newest.revision
        if before == change.revision:
            return tip
        if not (before and self._mirror.has(before)):
            before = self._mirror.base(tip, change.revision)
            if before == change.revision:
                return tip
        return tip if not before or self._mirror.tree(before, closure) != wanted else ""

    def _write(self, change: Change, tip: str, closure: Sequence[str]) -> str:
        """Compute the trunk's next commit and push it by compare-and-swap."""
        if tip:
            base = self._mirror.base(tip, change.revision)
            self._check_known(change, tip, base, closure)
            try:
                tree = grafted_merge(self._git, tip, change.revision, base, closure)
            except Conflict as conflict:
                raise MergeConflict(branch=f"{change.service}@{change.version}", paths=str(conflict)) from conflict
            parents = [tip] if base == change.revision else [tip, change.revision]
        else:  # the first commit of this trunk
            tree, parents = f"{change.revision}^{{tree}}", [change.revision]
        new = commit(self._git, tree, parents, _text(change), who=person_of(change.actor), at=change.at)
        if not self._mirror.remote:
            added = self._git.line("diff-tree", "-r", "-z", "--name-only", "--diff-filter=A", tip, new) if tip else ""
            self._clone.check(change.ref, added.split("\0"))
        self._push(change.service, change.stamp, change.ref, new, tip)
        return new

    def _check_known(self, change: Change, tip: str, base: str, closure: Sequence[str]) -> None:
        """Raise ForeignCommit unless the trunk's closure is one that may be replaced."""
        now, then = self._mirror.parts(tip, closure), self._mirror.parts(base, closure) if base else {}
        gone = sorted(set(then) - set(now) - {""})
        if gone:
            cause = f"{', '.join(gone)} was renamed or dropped there"
            raise ForeignCommit(cause, ref=change.ref, service=change.service)
        known = [then, self._mirror.parts(change.revision, closure)]
        if change.seen and self._mirror.has(change.seen):
            known.append(self._mirror.parts(change.seen, closure))
        if now not in known and not change.keep:
            changed = sorted(path for path in {*now, *known[-1]} if now.get(path) != known[-1].get(path))
            cause = f"{', '.join(changed)} was changed there"
            raise ForeignCommit(cause, ref=change.ref, service=change.service)

    def _name(self, change: Change) -> None:
        """Show the conclusion's version in the truth: tag and keep-ref are projections, a refusal costs nothing."""
        tag = f"refs/tags/{change.service}@v{_version(change.version)}"
        kept = _kept(change.service, change.version)
        self._create(kept, change.revision)
        if self._mirror.at(tag):
            return
        self._check(change.service, change.stamp)
        for ref in (kept, tag):
            try:
                self._mirror.push(ref, change.revision, "")
            except (PushRefused, RefMoved) as refusal:
                _log.warning("%s was not written: %s", ref, refusal.cause)

    # ------------------------------------------------------------------------------------------------ any ref

    def _push(self, service: str, stamp: Stamp, branch: str, new: str, old: str) -> None:
        """Move a branch of the truth and everything that follows it."""
        self._check(service, stamp)
        self._mirror.push(f"refs/heads/{branch}", new, old)
        self._mirror.set(f"refs/heads/{branch}", new)
        remote = self._mirror.remote
        if remote:
            self._clone.track(remote, branch, self._mirror.path)

    def _remove(self, service: str, branch: str, tip: str, stamp: Stamp) -> None:
        with self._mirror.lock:
            self._check(service, stamp)
            now = self._mirror.fetch().get(branch, "")
            if now not in {"", tip}:
                raise RefMoved(ref=branch)
            if self._mirror.has(tip):
                self._archive(branch, tip, now)
            remote = self._mirror.remote
            if now:
                if not remote:
                    self._clone.let_go(branch, tip)
                self._check(service, stamp)
                self._mirror.push(f"refs/heads/{branch}", "", tip)
                self._mirror.set(f"refs/heads/{branch}", "")
            if remote:
                self._clone.forget(remote, branch, tip)

    def _archive(self, branch: str, tip: str, now: str) -> None:
        """Keep a closed branch: here for certain, and in the truth if it lets us."""
        ref = f"{ARCHIVE}/{branch}/{tip}"
        self._create(ref, tip)
        if now:
            try:
                self._mirror.push(ref, tip, None)
            except (PushRefused, RefMoved) as refusal:
                _log.warning("%s was not written: %s", ref, refusal.cause)

    def _create(self, ref: str, target: str) -> None:
        """Write a ref of our own once; it never moves (I25)."""
        now = self._mirror.at(ref)
        if not now:
            self._mirror.set(ref, commit_id(target), "")
        elif now != target:
            raise RefMoved(ref=ref)

    def _merged(self, branch: str, tip: str, revision: str) -> str:
        try:
            tree = merge(self._git, tip, revision)
        except Conflict as conflict:
            raise MergeConflict(branch=branch, paths=str(conflict)) from conflict
        at = max(int(row) for row in self._git.line("show", "-s", "--format=%ct", tip, revision).split())
        return commit(
            self._git, tree, [tip, revision], f"Absorb {revision[:12]} into {branch}", who=person_of(""), at=at
        )

    def _contains(self, tip: str, other: str) -> bool:
        return self._mirror.base(tip, other) == other

    def _check(self, service: str, stamp: Stamp) -> None:
        """Raise Fenced when a newer decision has been told."""
        if stamp < self._told.get(names.checked("service", service), stamp):
            raise Fenced(service=service)


def _kept(service: str, version: str) -> str:
    return f"{KEPT}/{names.checked('service', service)}/{_version(version)}"


def _version(text: str) -> str:
    """Return a version, or raise BadName: it becomes a part of a ref."""
    if names.version(text) is None or ".." in text or text.endswith((".", ".lock")):
        raise BadName(what="version", name=text)
    return text


def _text(change: Change) -> str:
    dossier = f"Branchline-Dossier: {change.dossier}\n" if change.dossier else ""
    return (
        f"{change.message.strip()}\n\nBranchline-Event: {change.service}/{change.event}\n"
        f"Branchline-Revision: {change.revision}\nBranchline-Version: {change.version}\n{dossier}"
    )


def person_of(actor: str) -> tuple[str, str]:
    """Name and address of `Name <mail>`; branchline's own for anything else."""
    found = re.fullmatch(r"\s*([^<>\x00-\x1f]*[^<>\s\x00-\x1f])\s*<([^<>\s\x00-\x1f]+)>\s*", actor)
    return (found[1], found[2]) if found else ("branchline", "branchline@localhost")
