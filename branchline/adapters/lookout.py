"""This file hears of files that are written: the Lookout port by the system's own notices (inotify), via watchfiles.

A place is a glob below the project's root. Its folder is watched with all below it, and what is heard there counts
when its path fits the glob; a folder that is not there yet is looked for again at every call. Where the system gives
no notices (too many are watched, a network drive), every place is named once in a while instead: who asks then looks
for himself, which is cheap.
"""

from __future__ import annotations

import fnmatch
import threading
import time
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from watchfiles import watch

BLIND = 30.0  # seconds between two times that places are named which cannot be watched
DEBOUNCE, STEP, TIMEOUT = 200, 50, 500  # milliseconds
_MAGIC = frozenset("*?[")


class FolderLookout:
    """The Lookout port on the files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._lock = threading.Lock()
        self._places: frozenset[str] = frozenset()
        self._heard: set[str] = set()
        self._watched: tuple[Path, ...] = ()
        self._stop = threading.Event()
        self._blind_since: float | None = None

    def watch(self, places: Collection[str]) -> None:
        """Hear of these places and of no others; each is named once when it has begun to be watched."""
        with self._lock:
            self._places = frozenset(places)
        folders = tuple(sorted({folder for place in places if (folder := self._folder(place)).is_dir()}))
        if folders == self._watched and not (folders and self._stop.is_set()):
            return
        self._stop.set()
        self._watched, self._stop, self._blind_since = folders, threading.Event(), None
        if folders:
            threading.Thread(target=self._listen, args=(folders, self._stop), name="lookout", daemon=True).start()

    def heard(self) -> frozenset[str]:
        """The places where something was written since this was last asked."""
        with self._lock:
            heard, self._heard = self._heard, set()
            if self._blind_since is not None and time.monotonic() - self._blind_since >= BLIND:
                self._blind_since = time.monotonic()
                heard |= self._places
            return frozenset(heard & self._places)

    def close(self) -> None:
        """Watch nothing any more."""
        self._stop.set()
        self._watched = ()

    def _folder(self, place: str) -> Path:
        """The folder below which a place lies."""
        parts = PurePosixPath(place).parts
        fixed = next((at for at, part in enumerate(parts) if _MAGIC & set(part)), len(parts))
        path = self._root.joinpath(*parts[:fixed])
        return path if fixed < len(parts) or path.is_dir() else path.parent

    def _listen(self, folders: tuple[Path, ...], stop: threading.Event) -> None:
        """Take down what is written until told to stop; what was written before we listened counts as heard."""
        try:
            notices = watch(
                *folders, stop_event=stop, debounce=DEBOUNCE, step=STEP, rust_timeout=TIMEOUT, yield_on_timeout=True,
                raise_interrupt=False,
            )  # fmt: skip
            for number, notice in enumerate(notices):
                with self._lock:
                    self._heard |= set() if number else self._places
                    paths = [Path(path).relative_to(self._root).as_posix() for _, path in notice]
                    self._heard |= {place for place in self._places for path in paths if fits(path, place)}
        except (OSError, RuntimeError, ValueError):
            with self._lock:
                self._blind_since = time.monotonic() - BLIND


def fits(path: str, place: str) -> bool:
    """Whether a file that was written may be of a place: more is heard than there is, never less."""
    return (
        path == place
        or path.startswith(f"{place.rstrip('/')}/")
        or fnmatch.fnmatchcase(path, place.replace("**/", "*"))
    )
