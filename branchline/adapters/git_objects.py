"""This file reads the objects of a repository through one `git cat-file` that stays: commits, trees, files.

Rules: whoever looks at 200 services asks for thousands of objects, and a process for each would take most of the time.
What an id names never changes, so a little of it is remembered. A process that dies is started again, once a question;
it ends with its input, so that none outlives us and none needs to be guarded. It holds no lock of the repository.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from branchline.adapters.git import LOCAL, Git, commit_id, end, words
from branchline.errors import GitError, UnknownReference

TREE, LINK, SUBMODULE, PROGRAM = "040000", "120000", "160000", "100755"
_KINDS = {TREE: "tree", SUBMODULE: "commit"}  # everything else is a blob
_ROWS = {size: re.compile(rb"([0-7]+) ([^\0]+)\0(.{%d})" % (size // 2), re.DOTALL) for size in (40, 64)}
_REMEMBERED, _ENTRIES, _SMALL = 20_000, 50_000, 1 << 16
Place = tuple[str, str]  # mode and object id
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree as `ls-tree` prints it."""

    mode: str
    oid: str
    path: str


class Batch:
    """One `git cat-file --batch`, asked by one thread at a time; started at the first question."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ending: weakref.finalize[..., object] | None = None

    def object(self, oid: str) -> tuple[str, bytes] | None:
        """Kind and content of an object; None when it is not here. Raises GitError with git's own words."""
        with self._lock:
            try:
                return self._answer(oid)
            except GitError:
                self._end()  # killed, or out of step
            try:
                return self._answer(oid)
            except GitError:
                self._end()
                raise

    def _answer(self, oid: str) -> tuple[str, bytes] | None:
        process = self._process or self._begin()
        assert process.stdin is not None
        try:
            os.write(process.stdin.fileno(), f"{oid}\n".encode())
        except BrokenPipeError as gone:
            raise GitError("git cat-file has ended") from gone
        told = self._more(process)
        while b"\n" not in told:
            told += self._more(process)
        head, _, rest = told.partition(b"\n")
        cells = head.decode("utf-8", "replace").split(" ")
        if cells[-1] == "missing":
            return None
        if len(cells) != 3 or cells[0] != oid:
            raise GitError(f"git cat-file answered {' '.join(cells)!r}")
        size, content = int(cells[2]), bytearray(rest)
        while len(content) <= size:  # a line end follows
            content += self._more(process)
        return cells[1], bytes(content[:size])

    def _more(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        if not poll.poll(LOCAL * 1000):
            raise GitError(f"git cat-file took longer than {LOCAL:.0f} s")
        if found := os.read(process.stdout.fileno(), 1 << 20):
            return found
        assert process.stderr is not None
        raise GitError(f"git cat-file: {words(process.stderr.read().decode('utf-8', 'replace')) or 'it has ended'}")

    def _begin(self) -> subprocess.Popen[bytes]:
        self._process = process = self._git.conversation("cat-file", "--batch")
        self._ending = weakref.finalize(self, end, process)
        return process

    def _end(self) -> None:
        if self._ending:
            self._ending()
        self._process = self._ending = None


@dataclass(slots=True)
class Objects:
    """Commits, trees and files of one repository, by id and path ('' is the root)."""

    batch: Batch
    _roots: dict[str, str] = field(default_factory=dict)
    _listings: dict[str, Mapping[str, Place]] = field(default_factory=dict)
    _listed: int = 0
    _texts: dict[str, bytes] = field(default_factory=dict)
    _holding: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)

    def root(self, commit: str) -> str:
        """The id of a commit's whole tree; '' when there is no such commit here."""
        if commit not in self._roots:
            kind, content = self.batch.object(commit_id(commit)) or ("", b"")
            if kind != "commit":
                return ""
            remember(self._roots, commit, content[5 : 5 + len(commit)].decode())
        return self._roots[commit]

    def place(self, commit: str, path: str) -> Place | None:
        """Mode and id of a path; None when the commit has no such path. Raises UnknownReference without the commit."""
        mode, oid = TREE, self._root(commit)
        for part in path.split("/") if path else ():
            found = self._listing(oid).get(part) if mode == TREE else None
            if found is None:
                return None
            mode, oid = found
        return mode, oid

    def parts(self, commit: str, paths: Iterable[str]) -> dict[str, str]:
        """Mode, type and id of each path that the commit has, as `ls-tree` prints them; of the root its id."""
        found = {path: self.place(commit, path) for path in paths}
        return {
            path: f"{place[0]} {_KINDS.get(place[0], 'blob')} {place[1]}" if path else place[1]
            for path, place in found.items()
            if place
        }

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit; None when there is none."""
        place = self.place(commit, path)
        if place is None or place[0] in _KINDS:
            return None
        if place[1] in self._texts:
            return self._texts[place[1]]
        text = self._content(place[1], "blob")
        if len(text) <= _SMALL:
            remember(self._texts, place[1], text, most=2000)
        return text

    def files(self, commit: str, paths: Iterable[str]) -> tuple[Entry, ...]:
        """All files, links and submodules below the paths, in the order of git."""
        found: dict[str, Entry] = {}
        waiting = [(path, place) for path in sorted(paths, reverse=True) if (place := self.place(commit, path))]
        while waiting:
            path, (mode, oid) = waiting.pop()
            if mode == TREE:
                below = ((f"{path}/{name}" if path else name, place) for name, place in self._listing(oid).items())
                waiting += reversed([*below])
            else:
                found[path] = Entry(mode, oid, path)
        return tuple(found.values())

    def folders(self, commit: str, name: str) -> tuple[str, ...]:
        """The folders that directly hold a file of that name, sorted; what a folder holds is found out once.

        Not by recursion: how deep a tree is decides who pushes it.
        """
        root, known = self._root(commit), self._holding
        if len(known) >= _REMEMBERED:
            known.clear()  # here only: the walk builds upon what it has found
        waiting = [root]
        while waiting:
            listing = self._listing(waiting[-1])
            below = {path: oid for path, (mode, oid) in listing.items() if mode == TREE}
            if unknown := {oid for oid in below.values() if (oid, name) not in known}:
                waiting += unknown
                continue
            here = [""] if name in listing and listing[name][0] not in _KINDS else []
            deeper = [f"{path}/{each}".rstrip("/") for path, oid in below.items() for each in known[oid, name]]
            known[waiting.pop(), name] = (*here, *deeper)
        return tuple(sorted(known[root, name]))

    def _root(self, commit: str) -> str:
        root = self.root(commit)
        if not root:
            raise UnknownReference("no such commit", reference=commit[:12])
        return root

    def _listing(self, tree: str) -> Mapping[str, Place]:
        """The entries of one tree, by name."""
        known = self._listings.get(tree)
        if known is None:
            rows = _ROWS[len(tree)].findall(self._content(tree, "tree"))
            known = {
                name.decode("utf-8", "surrogateescape"): (mode.decode().zfill(6), oid.hex()) for mode, name, oid in rows
            }
            if self._listed > _ENTRIES:
                self._listings, self._listed = {}, 0
            self._listings[tree] = known
            self._listed += len(known)
        return known

    def _content(self, oid: str, kind: str) -> bytes:
        found = self.batch.object(oid)
        if found is None or found[0] != kind:
            raise GitError(f"the {kind} {oid[:12]} is not there")
        return found[1]


def remember(memory: dict[Key, Value], key: Key, value: Value, most: int = _REMEMBERED) -> Value:
    """Keep what can be found out again, and return it; all of it is forgotten when it has become too much."""
    if len(memory) >= most:
        memory.clear()
    memory[key] = value
    return value
