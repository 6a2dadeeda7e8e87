"""This file writes an artifact's files where somebody wants them: all of them, or none under the name asked for.

Files are copies: what is laid out is shared by who uses the artifact, so there is nothing to link to, and a link that
somebody writes through would spoil the store. Rule: what is found is on the disk, for who finds it trusts it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from branchline.adapters.folder_members import Member
from branchline.errors import ReuseError

_FEW = 16  # up to here each file is synced by itself, beyond it the file system as a whole


class Laying:
    """The files of one artifact below `part`, which is not there yet. Made at once: folders, and empty files."""

    def __init__(self, part: Path, found: Sequence[Member]) -> None:
        self._part, self._found = part, found
        folders = {each["path"] if _is_folder(each) else os.path.dirname(each["path"]) for each in found}
        if [each["path"] for each in found] != [""]:
            part.mkdir()
            for folder in sorted(folders - {""}):
                (part / folder).mkdir(parents=True, exist_ok=True)
        for which, each in enumerate(found):
            if not _is_folder(each) and not each["size"]:
                self.file(which, ())

    def file(self, which: int, pieces: Iterable[memoryview]) -> None:
        """Write a file."""
        each = self._found[which]
        path = f"{self._part}/{each['path']}" if each["path"] else str(self._part)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for piece in pieces:
                while piece:
                    piece = piece[os.write(descriptor, piece) :]
            os.fchmod(descriptor, 0o755 if each["executable"] else 0o644)
            if len(self._found) <= _FEW:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def settle(self) -> None:
        """Let all of it survive a power cut."""
        if len(self._found) > _FEW:
            _sync_all(self._part)


def _is_folder(member: Member) -> bool:
    return bool(member.get("folder"))


def _sync_all(path: Path) -> None:
    """Sync the file system that a path lies in: one wait, where ten thousand files would be as many."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(descriptor)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A place beside `path` that becomes `path` when all went well, and nothing otherwise."""
    if path.exists() or path.is_symlink():
        raise ReuseError(f"{path} exists already")
    path.parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}-", dir=path.parent))
    try:
        yield home / "part"
        try:
            (home / "part").rename(path)
        except OSError:
            if not path.is_dir():  # else somebody was first with the same
                raise
    finally:
        shutil.rmtree(home, ignore_errors=True)
