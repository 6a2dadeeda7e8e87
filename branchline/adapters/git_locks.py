"""This file clears what killed git commands have left in a repository of our own (F36).

Rules: never in the user's repository. Only its owner may ask, under the daemon's lock and while it writes nothing
itself. A command whose parent was killed may live on for a moment, and its locks are real: they are cleared when no git
but our own children works there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from branchline.errors import GitError

DRAFT = "draft-"  # how the name of a folder begins in which an index is made


def clear_locks(path: Path, *, patience: float = 10.0, sleep: Callable[[float], None] = time.sleep) -> tuple[Path, ...]:
    """Remove the lock files of a bare repository; returns them. Raises GitError if git works there for `patience` s."""
    end = time.monotonic() + patience
    while workers := _workers(path):
        if time.monotonic() > end:
            raise GitError(f"git still works in {path} (pid {', '.join(map(str, workers))})")
        sleep(0.02)
    stale = [*path.glob("*.lock"), *path.glob("*.new"), *path.glob("refs/**/*.lock"), *path.glob("objects/**/*.lock")]
    for file in stale:
        file.unlink(missing_ok=True)
    return tuple(stale)


def clear_drafts(path: Path) -> None:
    """Remove half-received packs and temporary indexes, after `clear_locks`."""
    for left in [*path.glob(f"{DRAFT}*"), *path.glob("objects/pack/tmp_*"), *path.glob("objects/incoming-*")]:
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _workers(path: Path) -> list[int]:
    """The processes, not our own children, that are git and were given this GIT_DIR (Linux; elsewhere none is seen)."""
    wanted = f"GIT_DIR={path}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            program, _, rest = (folder / "stat").read_bytes().partition(b"(")[2].rpartition(b")")
            ours = program.startswith((b"git", b"setpriv")) and int(rest.split()[1]) != os.getpid()
            if ours and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found
