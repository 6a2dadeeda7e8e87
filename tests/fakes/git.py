"""This file fakes the ports Repository and Writer: one repository in memory, its commits trees of text.

It does what the real one does as far as the engine can tell: merges path by path, grafts the closure, writes trailers,
compares and swaps, keeps and archives. A person's acts are `write`, `reset`, `remove`; faults are `reachable`,
`refusing`, `answer_lost` and `checked_out`. Renames, links and modes are left to the real one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from branchline.adapters.git import commit_id, ref_name, tree_path
from branchline.core import names
from branchline.errors import (
    BadName,
    Fenced,
    ForeignCommit,
    MergeConflict,
    PushRefused,
    RefMoved,
    RemoteUnreachable,
    TrunkCheckedOut,
    UnknownReference,
)
from branchline.ports import Change, Checkout, Marks, Stamp
from tests.fakes.texts import OURS, Commit, text_of, within


class FakeGit:
    """Both git ports, and the people who work beside them."""

    def __init__(self, trunk: str = "main") -> None:
        self.commits: dict[str, Commit] = {}
        self.heads: dict[str, str] = {}
        self.refs: dict[str, str] = {}
        self.reachable = True
        self.refusing = False
        self.answer_lost = False
        self.checked_out = ""  # a branch that a work tree with changes has checked out
        self.remote = "origin"
        self.marked: dict[str, str] = {}  # tags and keep-refs that somebody has moved in the truth ('': deleted)
        self.shelves: dict[str, str] = {}  # refs of dossiers as the truth has them
        self.unheld: set[str] = set()  # keep-refs that our own mirror has lost
        self.laid: list[Checkout] = []  # work trees that `checkout` laid out
        self.writes: list[str] = []  # every ref that was written in the truth, oldest first
        self._trunk = trunk
        self._seen: dict[str, str] = {}
        self._told: dict[str, Stamp] = {}
        self._clock = 1_600_000_000
        self.write(trunk, {"README.md": "start\n"})

    @property
    def repository(self) -> FakeGit:
        """Itself: it is both ports."""
        return self

    @property
    def writer(self) -> FakeGit:
        """Itself: it is both ports."""
        return self

    # ---- people

    def write(self, branch: str, files: Mapping[str, str | None], *, start: str = "", message: str = "Work") -> str:
        """Commit texts (None deletes) on a branch, which begins at `start` (a branch or commit) or at the trunk."""
        top = self.heads.get(branch) or self.heads.get(start, start) or self.heads.get(self._trunk, "")
        texts = dict(self.commits[top].files) if top else {}
        for path, text in files.items():
            if text is None:
                texts = {p: t for p, t in texts.items() if p != path and not p.startswith(path + "/")}
            else:
                texts[path] = text
        self._clock += 1
        parents = (top,) if top else ()
        self.heads[branch] = self._keep(texts, parents, message, "Alex <alex@example.invalid>", self._clock)
        return self.heads[branch]

    def reset(self, branch: str, commit: str) -> None:
        """Force a branch to a commit."""
        self.heads[branch] = commit

    def remove(self, branch: str) -> None:
        """Delete a branch by hand."""
        self.heads.pop(branch, None)

    def tip(self, branch: str) -> str:
        """The tip of a branch of the truth; '' when there is none."""
        return self.heads.get(branch, "")

    def parents(self, commit: str) -> tuple[str, ...]:
        """The parents of a commit."""
        return self.commits[commit].parents

    def message(self, commit: str) -> str:
        """The whole text of a commit."""
        return self.commits[commit].message

    def kept(self) -> Mapping[str, str]:
        """Tags, keep-refs and archived branches."""
        return dict(self.refs)

    # ------------------------------------------------------------------------------------------------ Repository

    def fetch(self) -> Mapping[str, str]:
        """Look at the truth."""
        if not self.reachable:
            raise RemoteUnreachable(remote="origin")
        self._seen = dict(self.heads)
        return dict(self._seen)

    def tree(self, commit: str, closure: Sequence[str]) -> str:
        """A digest of the texts below the paths."""
        found = self._inside(commit, closure)
        return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest() if found else ""

    def read(self, commit: str, path: str) -> bytes | None:
        """One text."""
        text = self._commit(commit).files.get(tree_path(path))
        return None if text is None else text.encode()

    def files(self, commit: str, closure: Sequence[str]) -> dict[str, tuple[str, int]]:
        """The texts below the paths, by what they say."""
        found = self._inside(commit, closure)
        return {path: (hashlib.sha1(text.encode()).hexdigest(), len(text.encode())) for path, text in found.items()}

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders that directly hold a file of that name."""
        parts = [path.rpartition("/") for path in self._commit(commit).files]
        return tuple(sorted(folder for folder, _, last in parts if last == name))

    def borrow(self, commit: str) -> None:
        """Here there is one place only."""
        self._commit(commit)

    def base(self, one: str, other: str) -> str:
        """The first ancestor of `one` that is one of `other` as well."""
        theirs = set(self._line(other))
        return next((commit for commit in self._line(one) if commit in theirs), "")

    def clashes(self, ours: str, theirs: str) -> tuple[str, ...]:
        """Paths that both have changed, each its own way."""
        try:
            self._merged(ours, theirs, self.base(ours, theirs), (), "")
        except MergeConflict as conflict:
            return tuple(str(conflict.fields["paths"]).split(", "))
        return ()

    def export(self, commit: str, folder: Path, closure: Sequence[str] = ()) -> None:
        """Write the texts into a folder."""
        files = self._commit(commit).files
        if not folder.exists():
            folder.mkdir(parents=True)
            for path, text in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)

    def changed(self, one: str, other: str, closure: Sequence[str]) -> tuple[str, ...]:
        """Paths with another text."""
        old, new = self.commits[one].files, self.commits[other].files
        mine = [p for p in {*old, *new} if any(p == c or p.startswith(f"{c}/") for c in closure)]
        return tuple(sorted(path for path in mine if old.get(path) != new.get(path)))

    def log(self, since: str, until: str, closure: Sequence[str] = (), limit: int = 0) -> tuple[Mapping[str, str], ...]:
        """Commits since one, newest first."""
        known = set(self._line(since)) if since else set()
        rows = []
        for oid in self._line(until):
            commit = self.commits[oid]
            name, _, mail = commit.author.rstrip(">").partition(" <")
            before = [self.tree(parent, closure) for parent in commit.parents] or [""]
            if oid not in known and (not closure or self.tree(oid, closure) not in before):
                subject = commit.message.splitlines()[0]
                rows.append({"commit": oid, "author": name, "email": mail, "at": str(commit.at), "subject": subject})
        return tuple(rows[: limit or None])

    def shows(self, ref: str, service: str, closure: Sequence[str], revisions: Sequence[str]) -> str | None:
        """Which revision's texts the branch has."""
        tip = self._seen.get(ref_name(ref), "")
        digest = self.tree(tip, closure) if tip else ""
        if not digest:
            return None
        same = [r for r in revisions if r in self.commits and self.tree(r, closure) == digest]
        if len(same) > 1:
            return next((revision for _, _, revision in self._trailers(tip, service) if revision in same), same[0])
        return same[0] if same else "?" + digest

    def marks(self) -> Marks:
        """Tags and keep-refs: as the truth had them when it was looked at, and as we hold them."""
        ours = {ref: commit for ref, commit in self.refs.items() if "/archive/" not in ref}
        shared = {ref: commit for ref, commit in ours.items() if "/dossiers/" not in ref}
        truth = {ref: commit for ref, commit in {**shared, **self.shelves, **self.marked}.items() if commit}
        return Marks(self.remote, "mirror.git", truth, {ref: ours[ref] for ref in ours.keys() - self.unheld})

    def recorded(self, ref: str) -> Mapping[str, int]:
        """The newest trailer of each service."""
        found: dict[str, int] = {}
        tip = self._seen.get(ref_name(ref), "")
        for commit in self._line(tip) if tip else []:
            for line in self.commits[commit].message.splitlines():
                service, _, generation = line.removeprefix("Branchline-Event: ").partition("/")
                if line.startswith("Branchline-Event: "):
                    found.setdefault(service, int(generation))
        return found

    def altered(self, commit: str, folder: Path, closure: Sequence[str]) -> tuple[str, ...]:
        """Texts of the closure that the folder holds otherwise."""
        return tuple(
            sorted(path for path, text in self._inside(commit, closure).items() if text_of(folder / path) != text)
        )

    def mend(self, commit: str, folder: Path, closure: Sequence[str]) -> tuple[str, ...]:
        """Write them again."""
        altered = self.altered(commit, folder, closure)
        for path in altered:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(self.commits[commit].files[path])
        return altered

    def checkouts(self) -> tuple[Checkout, ...]:
        """Those that a test says there are."""
        return tuple(self.laid)

    # ------------------------------------------------------------------------------------------------ Writer

    def tell(self, service: str, stamp: Stamp) -> None:
        """Raise the mark."""
        self._told[service] = max(stamp, self._told.get(service, stamp))

    def hold(self, service: str, revision: str, version: str) -> None:
        """Keep a revision."""
        self._create(f"refs/branchline/revisions/{names.checked('service', service)}/{version}", revision)

    def conclude(self, change: Change) -> str:
        """Graft, merge, compare and swap, tag."""
        ref_name(change.ref)
        self._check(change.service, change.stamp)
        self.fetch()
        self._commit(change.revision)
        tip = self.heads.get(change.ref, "")
        made = self._recorded(change, tip) or self._write_trunk(change, tip)
        self._create(f"refs/branchline/revisions/{change.service}/{change.version}", change.revision)
        self.refs.setdefault(f"refs/tags/{change.service}@v{change.version}", change.revision)
        return made

    def delete(self, service: str, branch: str, tip: str, stamp: Stamp) -> None:
        """Archive and delete."""
        self._named(service, branch)
        self._check(service, stamp)
        now = self.fetch().get(branch, "")
        if now not in {"", tip}:
            raise RefMoved(ref=branch)
        self._create(f"refs/branchline/archive/{branch}/{tip}", tip)
        if now:
            self._push(branch, "", tip)

    def draft(self, base: str, files: Mapping[str, bytes], message: str, actor: str, at: float) -> str:
        """Commit texts on top of another commit; no head shows it."""
        texts = {**self._commit(base).files, **{tree_path(path): text.decode() for path, text in files.items()}}
        return self._keep(texts, (base,), message, actor, int(at))

    def deposit(self, service: str, files: Mapping[str, bytes], message: str, at: float, stamp: Stamp) -> str:
        """Keep texts on the ref of dossiers: here, then in the truth."""
        ref = f"refs/branchline/dossiers/{names.checked('service', service)}"
        self._check(service, stamp)
        mine, there = self.refs.get(ref, ""), self.shelves.get(ref, "")
        base = mine if mine and (not there or there in self._line(mine)) else there
        old = self.commits[base].files if base else {}
        texts = {**old, **{tree_path(path): text.decode() for path, text in files.items()}}
        same, parents = bool(base) and texts == old, (base,) if base else ()
        new = self.refs[ref] = base if same else self._keep(texts, parents, message, OURS, int(at))
        self.fetch()
        if new != there and self.refusing:
            raise PushRefused(ref=ref)
        self.shelves[ref] = new
        if new != there and self.answer_lost:
            raise RemoteUnreachable(remote="origin")
        return new

    def begin(self, service: str, branch: str, commit: str, stamp: Stamp) -> bool:
        """Create a branch that never was."""
        self._named(service, branch)
        self._check(service, stamp)
        archived = any(ref.startswith(f"refs/branchline/archive/{branch}/") for ref in self.refs)
        if archived or branch in self.fetch():
            return False
        self._push(branch, commit, "")
        return True

    def absorb(self, service: str, branch: str, tip: str, revision: str, stamp: Stamp) -> str:
        """Merge a fix."""
        self._named(service, branch)
        self._check(service, stamp)
        now = self.fetch().get(branch, "")
        if now and self.base(now, revision) == revision:
            return now
        if now != tip:
            raise RefMoved(ref=branch)
        new = revision
        if self.base(revision, tip) != tip:
            texts = self._merged(tip, revision, self.base(tip, revision), (), branch)
            at = max(self.commits[tip].at, self.commits[revision].at)
            new = self._keep(texts, (tip, revision), f"Absorb {revision[:12]}", OURS, at)
        self._push(branch, new, tip)
        return new

    def drop(self, service: str, ref: str, stamp: Stamp) -> None:
        """Archive and delete the trunk of an older major."""
        if not ref.startswith(f"major--{service}--"):
            raise BadName(what="branch", name=ref)
        self._check(service, stamp)
        tip = self.fetch().get(ref, "")
        if tip:
            self._create(f"refs/branchline/archive/{ref}/{tip}", tip)
            self._push(ref, "", tip)

    # ------------------------------------------------------------------------------------------------ inside

    def _recorded(self, change: Change, tip: str) -> str:
        wanted = self.tree(change.revision, change.closure)
        if not tip or self.tree(tip, change.closure) != wanted:
            return ""
        commit, event, of = next(iter(self._trailers(tip, change.service)), ("", "", ""))
        if (event, of) == (str(change.event), change.revision):
            return commit
        before = change.seen or of or self.base(tip, change.revision)
        return tip if before == change.revision or not before or self.tree(before, change.closure) != wanted else ""

    def _write_trunk(self, change: Change, tip: str) -> str:
        texts: Mapping[str, str] = self._commit(change.revision).files
        parents: tuple[str, ...] = (change.revision,)
        if tip:
            base = self.base(tip, change.revision)
            known = {self.tree(commit, change.closure) if commit else "" for commit in (base, change.revision)}
            known |= {self.tree(change.seen, change.closure)} if change.seen and change.seen in self.commits else set()
            dropped = self._tops(base, change.closure) - self._tops(tip, change.closure)
            if dropped or (self.tree(tip, change.closure) not in known and not change.keep):
                raise ForeignCommit(ref=change.ref, service=change.service)
            texts = self._merged(tip, change.revision, base, change.closure, f"{change.service}@{change.version}")
            parents = (tip,) if base == change.revision else (tip, change.revision)
        text = (
            f"{change.message.strip()}\n\nBranchline-Event: {change.service}/{change.event}\n"
            f"Branchline-Revision: {change.revision}\nBranchline-Version: {change.version}\n"
        )
        text += f"Branchline-Dossier: {change.dossier}\n" if change.dossier else ""
        if change.ref == self.checked_out:
            raise TrunkCheckedOut(ref=change.ref)
        new = self._keep(texts, parents, text, change.actor, int(change.at))
        self._push(change.ref, new, tip)
        return new

    def _merged(self, ours: str, theirs: str, base: str, closure: Sequence[str], branch: str) -> dict[str, str]:
        a, b = self.commits[ours].files, self.commits[theirs].files
        o = self.commits[base].files if base else {}
        texts = {path: text for path, text in b.items() if closure and within(path, closure)}
        clashes = []
        for path in sorted(set(a) | set(b)):
            if closure and within(path, closure):
                continue
            one, other, then = a.get(path), b.get(path), o.get(path)
            if one != other and then not in {one, other}:
                clashes.append(path)
            text = other if one == then else one
            if text is not None:
                texts[path] = text
        if clashes:
            raise MergeConflict(branch=branch, paths=", ".join(clashes))
        return texts

    def _push(self, branch: str, new: str, old: str) -> None:
        if self.refusing:
            raise PushRefused(ref=branch)
        if self.heads.get(branch, "") != old:
            raise RefMoved(ref=branch)
        self.heads = {**{b: t for b, t in self.heads.items() if b != branch}, **({branch: new} if new else {})}
        self._seen = dict(self.heads)
        self.writes.append(branch)
        if self.answer_lost:
            raise RemoteUnreachable(remote="origin")

    def _create(self, ref: str, target: str) -> None:
        if self.refs.setdefault(ref, target) != target:
            raise RefMoved(ref=ref)

    def _check(self, service: str, stamp: Stamp) -> None:
        if stamp < self._told.get(service, stamp):
            raise Fenced(service=service)

    def _named(self, service: str, branch: str) -> None:
        named = names.branch(branch)
        if named is None or named.service != service:
            raise BadName(what="branch", name=branch)

    def _commit(self, oid: str) -> Commit:
        if commit_id(oid) in self.commits:
            return self.commits[oid]
        raise UnknownReference(reference=oid[:12])

    def _inside(self, commit: str, closure: Sequence[str]) -> dict[str, str]:
        paths = [tree_path(path) for path in closure]
        return {path: text for path, text in self._commit(commit).files.items() if within(path, paths)}

    def _tops(self, commit: str, closure: Sequence[str]) -> set[str]:
        return {path for path in closure if commit and self.tree(commit, [path])}

    def _line(self, tip: str) -> list[str]:
        """A commit and all that it comes from, newest first: nobody before its children."""
        self._commit(tip)
        found, todo, ages = [], [tip], {oid: age for age, oid in enumerate(self.commits)}
        while todo:
            todo.sort(key=lambda oid: ages[oid])
            oid = todo.pop()
            if oid not in found:
                found.append(oid)
                todo.extend(self.commits[oid].parents)
        return found

    def _trailers(self, tip: str, service: str) -> list[tuple[str, str, str]]:
        """Commit, generation and revision of what was recorded for a service, newest first."""
        found, oid = [], tip
        while oid:
            said = dict(line.split(": ", 1) for line in self.commits[oid].message.splitlines() if ": " in line)
            of, _, event = said.get("Branchline-Event", "").partition("/")
            if of == service:
                found.append((oid, event, said["Branchline-Revision"]))
            oid = next(iter(self.commits[oid].parents), "")
        return found

    def _keep(self, files: Mapping[str, str], parents: tuple[str, ...], message: str, author: str, at: int) -> str:
        commit = Commit(dict(files), parents, message, author, at)
        oid = hashlib.sha1(repr((sorted(files.items()), parents, message, author, at)).encode()).hexdigest()
        self.commits.setdefault(oid, commit)
        return oid
