"""This file writes the gateway's files: under one lock, by rename, and once more from a reserve when the disk is full.

Rules. Renamed first, synced after: a shift must not wait for a slow disk, and what a power cut takes is rendered
again. One lock file serves the daemon and a command that works without it. The reserve is given up for one change and
laid aside again as soon as there is room.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from branchline.errors import DiskFull, GatewayDown

RESERVE = 4 << 20


class Files:
    """The gateway's folder; whoever else holds it is waited for so many seconds."""

    def __init__(self, folder: Path, patience: float = float("inf")) -> None:
        self.folder = folder
        self._patience = patience
        self._unsynced: set[str] = set()

    @contextlib.contextmanager
    def locked(self, *, lasting: bool = True) -> Iterator[None]:
        """Be the only one who reads and changes the folder, among threads and processes; syncs before it lets go,
        unless what is written may wait for that of the next who does.

        Raises GatewayDown when somebody else does not let go of it.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(handle)
            yield
            if lasting:
                self._sync()
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        if self._patience == float("inf"):
            fcntl.flock(handle, fcntl.LOCK_EX)
            return
        deadline = time.monotonic() + self._patience
        while not _locked(handle):
            if time.monotonic() > deadline:
                pid = holder(os.fstat(handle).st_ino)
                hint = f"kill -CONT {pid}, or kill -9 {pid} (what serves goes on); then the same again" if pid else ""
                raise GatewayDown(f"process {pid or '?'} holds {self.folder / 'lock'} and does nothing", hint=hint)
            time.sleep(0.005)

    def read(self, name: str) -> str:
        """A file's text; '' when it is not there."""
        return self.read_bytes(name).decode("utf-8", "replace")

    def read_bytes(self, name: str) -> bytes:
        """A file as it is; nothing when it is not there."""
        try:
            with open(self._at(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def trace(self, name: str) -> tuple[int, ...] | None:
        """What tells that a file is another one than before; None when it is not there."""
        try:
            stat = os.stat(self._at(name))
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns, stat.st_size

    def put(self, name: str, text: str) -> None:
        """Replace a file as a whole; what is the same already is left alone. Raises DiskFull."""
        self.put_bytes(name, text.encode())

    def put_bytes(self, name: str, content: bytes) -> None:
        """The same for what is no text."""
        if content and self.read_bytes(name) == content:
            return
        try:
            self._write(name, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            (self.folder / "reserve").unlink(missing_ok=True)
            self._again(name, content)

    def _again(self, name: str, content: bytes) -> None:
        try:
            self._write(name, content)
        except OSError as error:
            raise DiskFull(str(error), what=name) from error

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The JSON lines of a file; what somebody else has spoilt in it is left out."""
        found = []
        for line in self.read(name).splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [each for each in found if isinstance(each, dict)]

    def keep_reserve(self) -> None:
        """Lay room aside for the day the disk is full; without room, another time."""
        path = self.folder / "reserve"
        if path.exists() and path.stat().st_size == RESERVE:
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            path.unlink(missing_ok=True)

    def _write(self, name: str, content: bytes) -> None:
        path, fresh = self._at(name), self._at(f"{name}.new")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(fresh)
            raise
        os.replace(fresh, path)
        self._unsynced.add(path)

    def _at(self, name: str) -> str:
        """Where a file is: a text, for a change asks seventy times, and a Path takes longer than the file does."""
        return f"{self.folder}/{name}"

    def _sync(self) -> None:
        for path in (*self._unsynced, str(self.folder)) if self._unsynced else ():
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
        self._unsynced.clear()


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(inode: int) -> int:
    """The process that has locked a file (proc_locks(5)); 0 when the system does not say."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(f":{inode}"):
                return int(words[4])
    return 0


def aside(folder: Path) -> None:
    """Rename the access log to its number; whoever has it open writes on into it until it opens the name anew."""
    active = folder / "access.log"
    if active.exists() and active.stat().st_size:
        number = next_number(folder)
        active.rename(folder / f"access.{number:06d}.log")
        fresh = folder / "access.number.new"
        with contextlib.suppress(OSError):  # without room: the renamed log tells it as well, while it is there
            fresh.write_text(str(number), encoding="utf-8")
            fresh.replace(folder / "access.number")


def rotated(folder: Path) -> list[Path]:
    """The access logs that were put aside, the oldest first."""
    return sorted(folder.glob("access.[0-9]*.log"), key=number_of)


def number_of(path: Path) -> int:
    """The number of a log that was put aside."""
    return int(path.name.split(".")[1])


def next_number(folder: Path) -> int:
    """The number that the log being written will have: one more than any had, whatever became of those since."""
    try:
        last = int((folder / "access.number").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = 0
    return max([last, *map(number_of, rotated(folder))]) + 1
