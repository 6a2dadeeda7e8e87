"""This file reads git through a bare mirror of our own: the port `Repository`.

Rules: the truth is the remote `origin` (else the only remote) of the user's repository, or without one that repository
itself. The mirror's branches and tags are those of the truth, nothing else moves them; `refs/branchline/` is ours. The
mirror takes from the user's configuration what is needed to reach the truth and nothing besides (F13). What a commit
holds never changes, so answers about commits are remembered.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from branchline.adapters.git import (
    ANY_COMMIT,
    NETWORK,
    Git,
    commit_id,
    hidden,
    push_failure,
    ref_name,
    tree_path,
    words,
)
from branchline.adapters.git_export import Entry, entries, export
from branchline.core.names import checked
from branchline.errors import GitError, NotARepository, RemoteUnreachable, UnknownReference

# What the mirror takes over of the user's configuration: how to reach the truth, and whose repositories are trusted.
_TAKEN = re.compile(
    r"(credential|http|https|url|ssh)\..+|core\.(sshcommand|askpass|gitproxy)|safe\.directory|remote\.[^\n]+\.proxy"
)
# A push into the user's own repository runs nothing of it, and may write what is checked out (see `git_clone.py`).
_RECEIVE = (
    "git -c core.hooksPath=/dev/null -c core.fsmonitor=false -c receive.autogc=false -c receive.updateServerInfo=false"
    " -c receive.denyCurrentBranch=ignore -c receive.denyDeleteCurrent=ignore -c receive.denyDeletes=false receive-pack"
)
# Slips of old tools that harm nobody; everything else that `fsck` minds is refused on receipt.
_TOLERATED = ("badTimezone", "missingSpaceBeforeDate", "missingSpaceBeforeEmail", "missingNameBeforeEmail",
              "badEmail", "badName", "missingEmail", "zeroPaddedFilemode", "zeroPaddedDate", "badDateOverflow",
              "missingTaggerEntry", "gitattributesSymlink", "gitignoreSymlink", "mailmapSymlink")  # fmt: skip
_OPTIONS = ("fetch.fsckObjects=true", *(f"fetch.fsck.{slip}=ignore" for slip in _TOLERATED),
            "core.attributesFile=/dev/null", "core.logAllRefUpdates=false", "merge.directoryRenames=false",
            "push.gpgSign=false", "push.recurseSubmodules=no", "submodule.recurse=false")  # fmt: skip
_REMEMBERED = 20_000
_TRAILER = "Branchline-Event"


@dataclass(frozen=True, slots=True)
class Truth:
    """Where git's truth is: `remote` is its name in the user's repository, '' when it is that repository itself."""

    remote: str
    fetch: str
    push: str


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a commit of ours says about itself: it made the trunk show `revision`, asked for by event `generation`."""

    commit: str
    generation: str
    revision: str


def truth_of(settings: Sequence[tuple[str, str]], common: Path, top: Path) -> Truth:
    """Find the truth in the user's settings: `origin`, else the only remote, else the repository itself."""
    urls = [(key[7:-4], value) for key, value in settings if re.fullmatch(r"remote\.[^\n]+\.url", key) and value]
    remotes = dict(reversed(urls))  # the first address of each
    name = "origin" if "origin" in remotes else next(iter(remotes)) if len(remotes) == 1 else ""
    if not name:
        return Truth("", str(common), str(common))
    pushed = [value for key, value in settings if key == f"remote.{name}.pushurl"]
    return Truth(name, _address(remotes[name], top), _address(pushed[0] if pushed else remotes[name], top))


def _address(url: str, top: Path) -> str:
    """An address as it is understood from anywhere: a relative path belongs to the user's work tree."""
    if "://" in url or re.match(r"[^/]+:", url) or url.startswith("/"):
        return url
    return str(top / url)


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
            env={"GIT_DIR": str(path), "GIT_CONFIG_GLOBAL": str(self._taken), "GIT_CONFIG_NOSYSTEM": "1"},
        )
        self._digests: dict[object, str] = {}
        self._trees: dict[object, tuple[Entry, ...]] = {}
        fresh = not (path / "HEAD").is_file()
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not fresh:
            clear_locks(path)
        self.git.out("init", "--quiet", "--bare", "--template=")
        if fresh:
            self._recall()

    # ------------------------------------------------------------------------------------------------ the port

    def fetch(self) -> Mapping[str, str]:
        """Bring branches and tags up to date; returns every branch with its tip."""
        with self.lock:
            every = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            self._fetch("--prune", "--end-of-options", self.truth().fetch, *every)
            return self.heads()

    def tree(self, commit: str, closure: Sequence[str]) -> str:
        """A digest of modes, contents and names below the closure's paths."""
        paths = tuple(sorted({tree_path(path) for path in closure}))
        known = self._digests.get((commit, paths))
        if known is None:
            rows = sorted(self.parts(commit, paths).items())
            known = hashlib.sha256(repr(rows).encode()).hexdigest() if rows else ""
            _remember(self._digests, (commit, paths), known)
        return known

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit."""
        self.borrow(commit)
        answer = self.git.answer("cat-file", "blob", f"{commit}:{tree_path(path)}")
        return None if answer.code else answer.out

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders that directly hold a file of that name; '' is the root."""
        found = self._entries(commit)
        return tuple(sorted(e.path.rpartition("/")[0] for e in found if e.path.rpartition("/")[2] == name))

    def base(self, one: str, other: str) -> str:
        """The best common ancestor."""
        answer = self.git.answer("merge-base", "--end-of-options", commit_id(one), commit_id(other))
        if answer.code > 1:
            raise UnknownReference(words(answer.err), reference=f"{one[:12]} or {other[:12]}")
        return answer.text

    def export(self, commit: str, folder: Path, closure: Sequence[str] = ()) -> None:
        """Write the commit's tree into a folder; see `git_export.py`."""
        self.borrow(commit)
        export(self.git, commit, folder, closure)

    def log(self, since: str, until: str, closure: Sequence[str] = ()) -> tuple[Mapping[str, str], ...]:
        """Commits in `since..until` that touch the closure; with `since` '' all of them."""
        span = [f"^{commit_id(since)}"] if since else []
        paths = ["--", *(tree_path(path) or "." for path in closure)] if closure else ["--"]
        told = self.git.line(
            "--literal-pathspecs", "log", "-z", "--format=tformat:%H%x00%an%x00%ae%x00%at%x00%s", "--end-of-options",
            commit_id(until), *span, *paths,
        )  # fmt: skip
        cells = told.split("\0")[:-1]
        names = ("commit", "author", "email", "at", "subject")
        return tuple(dict(zip(names, cells[n : n + 5], strict=True)) for n in range(0, len(cells), 5))

    def shows(self, ref: str, service: str, closure: Sequence[str], revisions: Sequence[str]) -> str | None:
        """Which revision's closure the branch holds, as of the last fetch; of equal ones the newest trailer's."""
        tip = self.tip(ref)
        digest = self.tree(tip, closure) if tip else ""
        if not digest:
            return None
        same = [revision for revision in revisions if self.has(revision) and self.tree(revision, closure) == digest]
        if len(same) > 1:
            said = (trailer.revision for trailer in self.trailers(tip, service))
            return next((revision for revision in said if revision in same), same[0])
        return same[0] if same else "?" + digest

    # ------------------------------------------------------------------------------------------------ for the writer

    def truth(self) -> Truth:
        """Where the truth is now; what the user has configured to reach it is taken over on the way."""
        told = Git(self.source).line("config", "--list", "-z", "--includes")
        pairs = [row.partition("\n") for row in told.split("\0")[:-1]]
        settings = [(key, value if line_end else "true") for key, line_end, value in pairs]
        text = "".join(_section(key, value) for key, value in settings if _TAKEN.fullmatch(key.lower()))
        if not self._taken.is_file() or self._taken.read_text() != text:
            draft = self._taken.with_suffix(".new")
            draft.touch(0o600)
            draft.write_text(text)
            draft.replace(self._taken)
        return truth_of(settings, self.common, self._top)

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
        return self.at(f"refs/heads/{ref_name(ref)}")

    def at(self, full: str) -> str:
        """What a full ref of the mirror points to; '' when it is not there."""
        return self.git.answer("rev-parse", "--verify", "--quiet", "--end-of-options", full).text

    def has(self, commit: str) -> bool:
        """Whether the commit is here."""
        if ("has", commit) not in self._digests:
            if self.git.answer("cat-file", "-e", f"{commit_id(commit)}^{{commit}}").code:
                return False
            _remember(self._digests, ("has", commit), "")
        return True

    def parts(self, commit: str, paths: Sequence[str]) -> dict[str, str]:
        """Mode, type and object id of each path that the commit has; '' is its root."""
        named = [path for path in paths if path]
        rows = self._ask(commit, "ls-tree", "-z", "--full-tree", commit, "--", *named) if named else ""
        found = {path: meta for meta, _, path in (row.partition("\t") for row in rows.split("\0")[:-1])}
        if "" in paths:
            found[""] = self._ask(commit, "rev-parse", "--verify", "--quiet", f"{commit}^{{tree}}")
        return found

    def trailers(self, tip: str, service: str) -> tuple[Trailer, ...]:
        """What was recorded for the service on the first-parent line of a branch, newest first."""
        told = self.git.line(
            "log", "-z", "--first-parent", f"--grep=^{_TRAILER}: {checked('service', service)}/",
            f"--format=tformat:%H%x00%(trailers:key={_TRAILER},valueonly,separator=%x2C)"
            "%x00%(trailers:key=Branchline-Revision,valueonly,separator=%x2C)",
            "--end-of-options", commit_id(tip), "--",
        )  # fmt: skip
        cells = told.split("\0")[:-1]
        rows = [cells[n : n + 3] for n in range(0, len(cells), 3)]
        mine = f"{service}/"
        return tuple(Trailer(commit, at.removeprefix(mine), of) for commit, at, of in rows if at.startswith(mine))

    def borrow(self, commit: str) -> None:
        """Bring a commit that only the user's own repository has, such as a snapshot of the work tree.

        Raises UnknownReference when it is there neither.
        """
        if not self.has(commit):
            with self.lock:
                try:
                    self._fetch(ANY_COMMIT, "--end-of-options", str(self.common), commit)
                except RemoteUnreachable as failure:
                    raise UnknownReference(failure.cause, reference=commit[:12]) from failure

    # ------------------------------------------------------------------------------------------------ inside

    def _fetch(self, *arguments: str) -> None:
        try:
            answer = self.git.answer(
                "fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                "--no-recurse-submodules", *arguments, seconds=NETWORK,
            )  # fmt: skip
        except GitError as late:
            raise RemoteUnreachable(late.cause, remote=hidden(self.truth().fetch)) from late
        if answer.code:
            raise RemoteUnreachable(words(answer.err), remote=hidden(self.truth().fetch))

    def _recall(self) -> None:
        """Get back what an earlier mirror has kept in the truth, so that losing the state folder loses no code."""
        try:
            self._fetch("--end-of-options", self.truth().fetch, "+refs/branchline/*:refs/branchline/*")
        except RemoteUnreachable:
            return  # the next fetch will say so

    def _ask(self, commit: str, *arguments: str) -> str:
        self.borrow(commit)
        answer = self.git.answer("--literal-pathspecs", *arguments)
        if answer.code:
            raise UnknownReference(words(answer.err), reference=commit[:12])
        return answer.text

    def _entries(self, commit: str) -> tuple[Entry, ...]:
        known = self._trees.get(commit)
        if known is None:
            self.borrow(commit)
            known = entries(self.git, commit)
            if len(self._trees) >= 8:
                self._trees.clear()
            self._trees[commit] = known
        return known


def _remember(memory: dict[object, str], key: object, value: str) -> None:
    if len(memory) >= _REMEMBERED:
        memory.clear()
    memory[key] = value


def _section(key: str, value: str) -> str:
    """One setting as a configuration file has it."""
    first, _, rest = key.partition(".")
    middle, _, last = rest.rpartition(".")
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    inner = middle.replace("\\", "\\\\").replace('"', '\\"')
    return f'[{first} "{inner}"]\n\t{last} = "{quoted}"\n' if middle else f'[{first}]\n\t{last} = "{quoted}"\n'


# ------------------------------------------------------------------------------------------------ what the killed left


def clear_locks(path: Path, *, patience: float = 10.0, sleep: Callable[[float], None] = time.sleep) -> tuple[Path, ...]:
    """Remove lock files from a mirror of ours once no git works in it any more; returns what was removed.

    Only its owner may ask, under the daemon's lock: a command whose parent was killed may live on for a moment, and its
    locks are real. Raises GitError when one is still there after `patience` seconds.
    """
    end = time.monotonic() + patience
    while workers := _workers(path):
        if time.monotonic() > end:
            raise GitError(f"git still works in {path} (pid {', '.join(map(str, workers))})")
        sleep(0.02)
    stale = [*path.glob("*.lock"), *path.glob("*.new"), *path.glob("refs/**/*.lock"), *path.glob("objects/**/*.lock")]
    for file in stale:
        file.unlink(missing_ok=True)
    return tuple(stale)


def _workers(path: Path) -> list[int]:
    """The processes that were given this repository as GIT_DIR and are git (Linux; elsewhere none is seen)."""
    wanted = f"GIT_DIR={path}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            program = (folder / "comm").read_bytes()
            if program.startswith((b"git", b"setpriv")) and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found
