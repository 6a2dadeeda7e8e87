"""This file writes the tree of a commit into a folder, byte by byte as git holds it, and refuses what is unsafe there.

Rules: blobs are written as they are: no filter, no line-end conversion, no `export-ignore`, whatever the repository
asks for. What leads out of the tree is refused (F11), as is what is not there: a submodule or an LFS pointer where
content is expected (F12). The folder appears whole, by one rename, or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from branchline.adapters.git import Git, commit_id, tree_path
from branchline.adapters.git_objects import LINK, PROGRAM, SUBMODULE, Entry
from branchline.errors import DiskFull, GitError, UnknownReference, UnsafeTree

_POINTER = b"version https://git-lfs.github.com/spec/"


def entries(git: Git, commit: str, paths: Sequence[str] = ()) -> tuple[Entry, ...]:
    """All files, links and submodules of a commit below the paths (none: the whole tree); raises UnknownReference."""
    answer = git.answer("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", commit_id(commit), "--", *paths)
    if answer.code:
        raise UnknownReference(answer.err.strip(), reference=commit[:12])
    found = []
    for row in answer.out.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        meta, path = row.split("\t", 1)
        mode, _, oid = meta.split()
        found.append(Entry(mode, oid, path))
    return tuple(found)


def files(git: Git, commit: str, paths: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Id and bytes of each file of a commit below the paths; a link is a file that holds where it leads."""
    answer = git.answer(
        "--literal-pathspecs", "ls-tree", "-r", "-l", "-z", "--full-tree", commit_id(commit), "--", *paths
    )
    if answer.code:
        raise UnknownReference(answer.err.strip(), reference=commit[:12])
    found = {}
    for row in answer.out.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        meta, path = row.split("\t", 1)
        mode, _, oid, size = meta.split()
        if mode != SUBMODULE:
            found[path] = (oid, int(size))
    return found


def export(git: Git, commit: str, folder: Path, closure: Sequence[str] = ()) -> None:
    """Write a commit's tree into a folder that does not exist yet; there already: nothing is done.

    Inside the closure (none given: everywhere) unsafe entries raise UnsafeTree; outside of it a submodule becomes an
    empty folder, a link that leads out is left out, and an LFS pointer stays what it is.
    """
    if folder.exists():
        return
    wanted = entries(git, commit)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(git, commit, wanted, draft, tuple(tree_path(path) for path in closure))
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # else somebody else was first with the same tree
                raise
    except OSError as failure:
        if failure.errno != errno.ENOSPC:
            raise
        raise DiskFull(str(failure), what=str(folder)) from failure
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(git: Git, commit: str, wanted: Sequence[Entry], folder: Path, closure: Sequence[str]) -> None:
    blobs = []
    for entry in wanted:
        if not is_plain(entry.path):
            raise UnsafeTree("git or a file system takes it for something else", commit=commit[:12], path=entry.path)
        if entry.mode != SUBMODULE:
            blobs.append(entry)
        elif _within(entry.path, closure):
            raise UnsafeTree("it is a submodule; its content is not in the commit", commit=commit[:12], path=entry.path)
        else:
            (folder / entry.path).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as asked:
        asked.write("".join(f"{entry.oid}\n" for entry in blobs).encode())
        asked.seek(0)
        with git.stream("cat-file", "--batch", "--buffer", stdin=asked) as told:
            links = [link for link in (_write_one(told, commit, entry, folder, closure) for entry in blobs) if link]
    for path, target in links:  # last, so that no file can be written through one
        path.symlink_to(target)


def _write_one(
    told: IO[bytes], commit: str, entry: Entry, folder: Path, closure: Sequence[str]
) -> tuple[Path, str] | None:
    """Write the next blob of the stream; a link is returned, not made."""
    header = told.readline().split()
    if len(header) != 3 or header[1] != b"blob":
        raise GitError(f"{entry.path} of {commit[:12]} cannot be read")
    left = int(header[2])
    path = folder / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.mode == LINK:
        target = told.read(left).decode("utf-8", "surrogateescape")
        told.read(1)
        if stays_inside(entry.path, target):
            return path, target
        if _within(entry.path, closure):
            raise UnsafeTree(f"it is a link to {target!r}, outside of the tree", commit=commit[:12], path=entry.path)
        return None
    first = told.read(min(left, 1 << 20))
    if first.startswith(_POINTER) and left < 1024 and _within(entry.path, closure):
        raise UnsafeTree(
            "it is a Git LFS pointer; Branchline delivers what is in the commit",
            hint="pin it as data: see [data] in the service file", commit=commit[:12], path=entry.path,
        )  # fmt: skip
    with path.open("xb") as file:
        while first:
            file.write(first)
            left -= len(first)
            first = told.read(min(left, 1 << 20))
    told.read(1)
    if left:
        raise GitError(f"{entry.path} of {commit[:12]} ended early")
    if entry.mode == PROGRAM:
        os.chmod(path, 0o755)
    return None


def differing(wanted: Sequence[Entry], folder: Path) -> list[Entry]:
    """Those entries that a folder does not hold as they are in git; submodules are not looked at."""
    return [entry for entry in wanted if entry.mode != SUBMODULE and not _is_there(entry, folder / entry.path)]


def put_back(git: Git, commit: str, wanted: Sequence[Entry], folder: Path) -> None:
    """Write entries again, each by one rename: the folder itself stays, for a process may live in it."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(git, commit, wanted, draft, ())
        for entry in wanted:
            path = folder / entry.path
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            (draft / entry.path).replace(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_there(entry: Entry, path: Path) -> bool:
    if path.is_symlink() or entry.mode == LINK:
        return path.is_symlink() and entry.mode == LINK and _blob(os.fsencode(path.readlink()), entry) == entry.oid
    if not path.is_file() or (entry.mode == PROGRAM) != bool(path.stat().st_mode & 0o100):
        return False
    return _blob(path.read_bytes(), entry) == entry.oid


def _blob(content: bytes, entry: Entry) -> str:
    """The object id of a content, by the kind of hash that the entry's has."""
    kind = hashlib.sha256 if len(entry.oid) == 64 else hashlib.sha1
    return kind(b"blob %d\0" % len(content) + content).hexdigest()


def _within(path: str, closure: Sequence[str]) -> bool:
    return not closure or any(top == "" or path == top or path.startswith(top + "/") for top in closure)


def is_plain(path: str) -> bool:
    """Whether no part of the path means something else: `..`, `.git` however it is spelt, an absolute path."""
    for part in path.split("/"):
        # What HFS+ and NTFS take for `.git`: characters that do not count, closing dots and spaces, the short name.
        seen = "".join(char for char in part if unicodedata.category(char) != "Cf").casefold().rstrip(" .")
        if part in {"", ".", ".."} or seen.split(":")[0] in {".git", "git~1"}:
            return False
    return True


def stays_inside(path: str, target: str) -> bool:
    """Whether a link leads to a place in its own tree.

    `..` counts only at the front: there the folders are real ones of the tree; behind another link it leads anywhere.
    """
    parts = [part for part in target.split("/") if part not in {"", "."}]
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    inside = not target.startswith("/") and up <= path.count("/") and is_plain("/".join(parts[up:]) or "x")
    return bool(parts) and inside
