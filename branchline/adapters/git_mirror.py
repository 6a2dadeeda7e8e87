"""This file reads git through a bare mirror of our own: the port `Repository`.

Rules: the truth is the remote `origin` (else the only remote) of the user's repository, or without one that repository
itself. The mirror's branches and tags are those of the truth, nothing else moves them; `refs/branchline/` is ours. The
mirror takes from the user's configuration what is needed to reach the truth and nothing besides (F13). What a commit
holds never changes, so answers about commits are remembered.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from branchline.adapters.git import (
    ANY_COMMIT,
    LOCAL,
    NETWORK,
    Answer,
    Git,
    commit_id,
    failure,
    hidden,
    push_failure,
    ref_name,
    tree_path,
    words,
)
from branchline.adapters.git_export import differing, export, files, put_back
from branchline.adapters.git_graft import Conflict, merge
from branchline.adapters.git_locks import clear_drafts, clear_locks
from branchline.adapters.git_objects import Batch, Entry, Objects, remember
from branchline.adapters.git_truth import Truth, settings_of, taken, truth_of
from branchline.adapters.git_worktree import NOTE
from branchline.core.names import checked
from branchline.errors import GitError, NotARepository, RemoteUnreachable, UnknownReference
from branchline.ports import Checkout, Marks

# A push into the user's own repository runs nothing of it, and may write what is checked out (see `git_clone.py`).
_RECEIVE = (
    "git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c receive.autogc=false -c receive.updateServerInfo=false"
    " -c receive.denyCurrentBranch=ignore -c receive.denyDeleteCurrent=ignore -c receive.denyDeletes=false receive-pack"
)
# Slips of old tools that harm nobody; everything else that `fsck` minds is refused on receipt.
_TOLERATED = ("badTimezone", "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "missingNameBeforeEmail",
              "badEmail", "badName", "missingEmail", "zeroPaddedFilemode", "zeroPaddedDate", "badDateOverflow",
              "missingTaggerEntry", "gitattributesSymlink", "gitignoreSymlink", "mailmapSymlink")  # fmt: skip
_OPTIONS = (
    "fetch.fsckObjects=true",
    *(f"fetch.fsck.{slip}=ignore" for slip in _TOLERATED),
    "core.attributesFile=/dev/null",
    "core.fsync=objects,reference",  # keep-refs have to outlive a power cut
    "core.logAllRefUpdates=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "merge.directoryRenames=false",
    "push.gpgSign=false",
    "push.recurseSubmodules=no",
    "submodule.recurse=false",
)
# What we keep, and what of it the truth has.
KEPT, SEEN = "refs/branchline/revisions", "refs/truth/revisions"
DOSSIERS, SEEN_DOSSIERS = "refs/branchline/dossiers", "refs/truth/dossiers"
_TRAILER = "Branchline-Event"


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a commit of ours says about itself: it made the trunk show `revision`, asked for by event `generation`."""

    commit: str
    generation: str
    revision: str


class Mirror:
    """The port `Repository` on a bare repository of our own at `path`; `source` is a folder of the user's repository.

    To be opened under the daemon's lock: it clears what killed commands left locked (F36).
    """

    def __init__(self, path: Path, source: Path) -> None:
        self.path = path
        self.source = source
        self.lock = threading.RLock()  # one fetch or push at a time
        asking = Git(source)
        found = asking.answer("rev-parse", "--path-format=absolute", "--git-common-dir")
        if found.code:
            raise NotARepository(words(found.err), path=str(source))
        self.common = Path(found.text)
        top = asking.answer("rev-parse", "--show-toplevel")
        self._top = Path(top.text) if not top.code else self.common
        self._taken = path / "user.config"
        self.git = Git(
            path,
            options=_OPTIONS,
            env={
                "GIT_DIR": str(path),
                "GIT_CONFIG_GLOBAL": str(self._taken),
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_ATTR_NOSYSTEM": "1",
            },
        )
        self._truth: Truth | None = None
        self._known: dict[object, str] = {}
        self._objects = Objects(Batch(self.git))
        self._parts: dict[tuple[str, ...], tuple[Entry, ...]] = {}
        self._heads: dict[str, str] | None = None  # None: to be asked
        self._recorded: tuple[str, Mapping[str, int]] = ("", {})
        self._trailers: dict[tuple[str, str], tuple[Trailer, ...]] = {}
        self._open()

    # ------------------------------------------------------------------------------------------------ the port

    def fetch(self) -> Mapping[str, str]:
        """Bring branches and tags up to date; returns every branch with its tip."""
        with self.lock:
            ours = (f"+{KEPT}/*:{SEEN}/*", f"+{DOSSIERS}/*:{SEEN_DOSSIERS}/*")
            every = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", *ours)
            self._heads = None  # while it is under way nobody knows
            self._fetch("--prune", "--end-of-options", self.truth().fetch, *every)
            self._heads = self.heads()
            return dict(self._heads)

    def tree(self, commit: str, closure: Sequence[str]) -> str:
        """A digest of modes, contents and names below the closure's paths."""
        paths = tuple(sorted({tree_path(path) for path in closure}))
        known = self._known.get((commit, paths))
        return remember(self._known, (commit, paths), digest(self.parts(commit, paths))) if known is None else known

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit."""
        self.borrow(commit)
        return self._objects.read(commit, tree_path(path))

    def files(self, commit: str, closure: Sequence[str]) -> Mapping[str, tuple[str, int]]:
        """Every file of the closure in the commit, by path: the id of its content, and its bytes."""
        self.borrow(commit)
        return files(self.git, commit, [tree_path(path) for path in closure])

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders that directly hold a file of that name; '' is the root."""
        self.borrow(commit)
        return self._objects.folders(commit, name)

    def base(self, one: str, other: str) -> str:
        """The best common ancestor."""
        known = self._known.get(("base", one, other))
        if known is None:
            answer = self.git.answer("merge-base", "--end-of-options", commit_id(one), commit_id(other))
            if answer.code > 1:
                raise UnknownReference(words(answer.err), reference=f"{one[:12]} or {other[:12]}")
            known = remember(self._known, ("base", one, other), answer.text)
        return known

    def clashes(self, ours: str, theirs: str) -> tuple[str, ...]:
        """The paths for which a merge of the two needs a person, sorted; () when it needs none."""
        known = self._known.get(("clashes", ours, theirs))
        if known is None:
            try:
                merge(self.git, commit_id(ours), commit_id(theirs))
                paths: tuple[str, ...] = ()
            except Conflict as conflict:
                paths = conflict.paths
            known = remember(self._known, ("clashes", ours, theirs), "\0".join(paths))
        return tuple(known.split("\0")) if known else ()

    def export(self, commit: str, folder: Path, closure: Sequence[str] = ()) -> None:
        """Write the commit's tree into a folder; see `git_export.py`."""
        self.borrow(commit)
        export(self.git, commit, folder, closure)

    def changed(self, one: str, other: str, closure: Sequence[str]) -> tuple[str, ...]:
        """The paths of the closure that differ between two commits, sorted."""
        paths = [tree_path(path) or "." for path in closure]
        told = self.git.line(
            "--literal-pathspecs", "diff-tree", "-r", "-z", "--name-only", "--no-renames", "--end-of-options",
            commit_id(one), commit_id(other), "--", *paths,
        )  # fmt: skip
        return tuple(sorted(path for path in told.split("\0") if path))

    def log(self, since: str, until: str, closure: Sequence[str] = (), limit: int = 0) -> tuple[Mapping[str, str], ...]:
        """Commits in `since..until` that touch the closure; with `since` '' all of them."""
        span = [f"^{commit_id(since)}"] if since else []
        most = [f"--max-count={limit}"] if limit else []
        paths = ["--", *(tree_path(path) or "." for path in closure)] if closure else ["--"]
        told = self.git.line(
            "--literal-pathspecs", "log", "-z", "--format=tformat:%H%x00%an%x00%ae%x00%at%x00%s", *most,
            "--end-of-options", commit_id(until), *span, *paths,
        )  # fmt: skip
        cells = told.split("\0")[:-1]
        names = ("commit", "author", "email", "at", "subject")
        return tuple(dict(zip(names, cells[n : n + 5], strict=True)) for n in range(0, len(cells), 5))

    def shows(self, ref: str, service: str, closure: Sequence[str], revisions: Sequence[str]) -> str | None:
        """Which revision's closure the branch holds, as of the last fetch; of equal ones the newest trailer's."""
        tip = self.tip(ref)
        shown = self.tree(tip, closure) if tip else ""
        if not shown:
            return None
        same = [revision for revision in revisions if self.has(revision) and self.tree(revision, closure) == shown]
        if len(same) > 1:
            said = (trailer.revision for trailer in self.trailers(tip, service))
            return next((revision for revision in said if revision in same), same[0])
        return same[0] if same else "?" + shown

    def marks(self) -> Marks:
        """Tags as they were fetched; keep-refs and dossiers as the truth has them, and as we hold them."""
        form = "--format=%(refname) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
        told = self.git.line("for-each-ref", form, "refs/tags/", KEPT, SEEN, DOSSIERS, SEEN_DOSSIERS)
        rows = [row.split(" ") for row in told.splitlines()]
        mirror = {name: at for name, at in rows if name.startswith("refs/branchline/")}
        truth = {name.replace("refs/truth/", "refs/branchline/"): at for name, at in rows if name not in mirror}
        return Marks(self.remote, str(self.path), truth, mirror)

    def recorded(self, ref: str) -> Mapping[str, int]:
        """The newest trailer of each service on the first-parent line of a branch."""
        tip = self.tip(ref)
        if tip and self._recorded[0] != tip:
            form = f"--format=tformat:%(trailers:key={_TRAILER},valueonly,separator=%x2C)"
            told = self.git.line("log", "--first-parent", f"--grep=^{_TRAILER}: ", form, "--end-of-options", tip, "--")
            rows = [row.partition("/") for row in reversed(told.splitlines())]  # of several the newest stays
            self._recorded = tip, {service: int(at) for service, _, at in rows if at.isdigit()}
        return self._recorded[1] if tip else {}

    def altered(self, commit: str, folder: Path, closure: Sequence[str]) -> tuple[str, ...]:
        """The files of the closure that lie otherwise in an exported folder; see `git_export.py`."""
        return tuple(entry.path for entry in differing(self._inside(commit, closure), folder))

    def mend(self, commit: str, folder: Path, closure: Sequence[str]) -> tuple[str, ...]:
        """Write those again; see `git_export.py`."""
        wanted = differing(self._inside(commit, closure), folder)
        put_back(self.git, commit, wanted, folder)
        return tuple(entry.path for entry in wanted)

    def checkouts(self) -> tuple[Checkout, ...]:
        """Work trees with our note in their git folder; the user's own git says what differs there."""
        found = []
        for note in sorted(self.common.glob(f"worktrees/*/{NOTE}")):
            reference, _, commit = note.read_text(encoding="utf-8").strip().partition(" ")
            folder = Path((note.parent / "gitdir").read_text(encoding="utf-8").strip()).parent
            if folder.is_dir():
                told = Git(folder).answer("diff", "--name-only", "-z", "--no-ext-diff", commit_id(commit), "--")
                altered = tuple(path for path in told.text.split("\0") if path) if not told.code else (".git",)
                found.append(Checkout(folder, reference, commit, altered))
        return tuple(found)

    # ------------------------------------------------------------------------------------------------ for the writer

    def truth(self) -> Truth:
        """Where the truth is now; what the user has configured to reach it is taken over on the way."""
        pairs = settings_of(Git(self.source))
        text = taken(pairs)
        if not self._taken.is_file() or self._taken.read_text() != text:
            draft = self._taken.with_suffix(".new")
            draft.touch(0o600)
            draft.write_text(text)
            draft.replace(self._taken)
        self._truth = truth_of(pairs, self.common, self._top)
        return self._truth

    @property
    def remote(self) -> str:
        """The remote that is the truth, as of the last look; '' when the user's repository is the truth."""
        return (self._truth or self.truth()).remote

    def push(self, ref: str, new: str, old: str | None) -> None:
        """Move one full ref of the truth from `old` ('' is absent, None: whatever git allows) to `new` ('' deletes it).

        Raises RefMoved, PushRefused or RemoteUnreachable; after the last one it may have happened all the same.
        """
        truth = self.truth()
        lease = [f"--force-with-lease={ref}:{old}"] if old is not None else []
        inside = [] if truth.remote else [f"--receive-pack={_RECEIVE}"]
        try:
            answer = self.git.answer(
                "push", "--porcelain", "--no-verify", *lease, *inside, "--end-of-options", truth.push, f"{new}:{ref}",
                seconds=NETWORK,
            )  # fmt: skip
        except GitError as late:
            raise RemoteUnreachable(late.cause, remote=hidden(truth.push)) from late
        if answer.code:
            raise push_failure(answer, ref.removeprefix("refs/heads/"), truth.push)

    def heads(self) -> dict[str, str]:
        """Every branch with its tip, as of the last fetch."""
        told = self.git.line("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads/")
        return {name: oid for name, _, oid in (row.rpartition(" ") for row in told.splitlines())}

    def tip(self, ref: str) -> str:
        """The tip of a branch as of the last fetch; '' when there is none."""
        full, heads = f"refs/heads/{ref_name(ref)}", self._heads
        return self.at(full) if heads is None else heads.get(ref, "")

    def at(self, full: str) -> str:
        """What a full ref of the mirror points to; '' when it is not there."""
        return self.git.answer("rev-parse", "--verify", "--quiet", "--end-of-options", full).text

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        return bool(self._objects.root(commit))

    def set(self, full: str, new: str, old: str | None = None) -> None:
        """Point a full ref of the mirror to `new` ('' deletes it), from `old` when that is given ('' is absent)."""
        self._heads = None
        expected = [] if old is None else [old]
        answer = self._unlocked("update-ref", *(["-d", full] if not new else [full, new]), *expected)
        if answer.code:
            raise GitError(f"git update-ref {full}: {words(answer.err)}")

    def parts(self, commit: str, paths: Sequence[str]) -> dict[str, str]:
        """Mode, type and object id of each path that the commit has; '' is its root."""
        self.borrow(commit)
        return self._objects.parts(commit, [tree_path(path) for path in paths])

    def trailers(self, tip: str, service: str) -> tuple[Trailer, ...]:
        """What was recorded for the service on the first-parent line of a branch, newest first."""
        if (tip, service) in self._trailers:
            return self._trailers[tip, service]
        told = self.git.line(
            "log", "-z", "--first-parent", f"--grep=^{_TRAILER}: {checked('service', service)}/",
            f"--format=tformat:%H%x00%(trailers:key={_TRAILER},valueonly,separator=%x2C)"
            "%x00%(trailers:key=Branchline-Revision,valueonly,separator=%x2C)",
            "--end-of-options", commit_id(tip), "--",
        )  # fmt: skip
        cells = told.split("\0")[:-1]
        rows = [cells[n : n + 3] for n in range(0, len(cells), 3)]
        mine = f"{service}/"
        found = tuple(Trailer(commit, at.removeprefix(mine), of) for commit, at, of in rows if at.startswith(mine))
        if len(self._trailers) >= 500:
            self._trailers.clear()
        self._trailers[tip, service] = found
        return found

    def borrow(self, commit: str) -> None:
        """Bring a commit that only the user's own repository has, such as a snapshot of the work tree.

        Raises UnknownReference when it is there neither.
        """
        if not self.has(commit):
            with self.lock:
                try:
                    self._fetch(ANY_COMMIT, "--end-of-options", str(self.common), commit)
                except RemoteUnreachable as missing:
                    raise UnknownReference(missing.cause, reference=commit[:12]) from missing

    # ------------------------------------------------------------------------------------------------ inside

    def _open(self) -> None:
        """Make the mirror fit for use: clear what killed commands left, begin anew when it is broken (F36, F38)."""
        fresh = not (self.path / "HEAD").is_file()
        if not fresh:
            clear_locks(self.path)
            clear_drafts(self.path)
            told = self.git.answer("for-each-ref", "--format=%(objecttype)")
            if told.code or told.err:
                aside = (self.path.with_suffix(f".broken-{n}") for n in range(1, 999))
                self.path.rename(next(path for path in aside if not path.exists()))
                fresh = True
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.git.out("init", "--quiet", "--bare", "--template=")
        if fresh:
            self._recall()

    def _unlocked(self, *arguments: str, seconds: float = LOCAL) -> Answer:
        """Run a command that writes the mirror; once more without the locks that a killed one has left."""
        answer = self.git.answer(*arguments, seconds=seconds)
        if answer.code and ".lock': File exists" in answer.err:
            with self.lock:
                clear_locks(self.path)
                answer = self.git.answer(*arguments, seconds=seconds)
        return answer

    def _fetch(self, *arguments: str) -> None:
        try:
            answer = self._unlocked(
                "fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                "--no-recurse-submodules", *arguments, seconds=NETWORK,
            )  # fmt: skip
        except GitError as late:
            raise RemoteUnreachable(late.cause, remote=hidden(self.truth().fetch)) from late
        if answer.code:
            raise failure(answer, RemoteUnreachable(words(answer.err), remote=hidden(self.truth().fetch)))

    def _recall(self) -> None:
        """Get back what an earlier mirror has kept in the truth, so that losing the state folder loses no code."""
        try:
            self._fetch("--end-of-options", self.truth().fetch, "+refs/branchline/*:refs/branchline/*")
        except RemoteUnreachable:
            return  # the next fetch will say so

    def _inside(self, commit: str, closure: Sequence[str]) -> tuple[Entry, ...]:
        key = (commit, *(tree_path(path) for path in closure))
        if key not in self._parts:
            self.borrow(commit)
            if len(self._parts) >= 1000:
                self._parts.clear()
            self._parts[key] = self._objects.files(commit, key[1:])
        return self._parts[key]


def digest(parts: Mapping[str, str]) -> str:
    """A digest of modes, contents and names; '' when there is nothing."""
    return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest() if parts else ""
