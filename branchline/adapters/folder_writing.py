"""This file writes what one put adds: packs of what is not kept yet, each synced before the manifest that names it.

Rules. Nothing is referred to but what lies in a pack that was looked at, or was written just now. A pack that is full
is sealed by another thread while the next one is filled; the pack with the manifest is sealed last. What was sealed by
a put that then died is found by the next one, and goes with a sweep when there is none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from branchline.adapters.folder_index import Index, Near
from branchline.adapters.folder_packs import SUFFIX, Content, Draft


class PackGone(Exception):
    """A pack that the index knows is gone or was cut."""


class Writing:
    """What one put writes, in packs of at most `full` bytes; a context, so that nothing half written is left."""

    def __init__(self, index: Index, packs: Path, parts: Path, full: int) -> None:
        self._index, self._packs, self._parts, self._full = index, packs, parts, full
        self._near = Near(index)
        self._fresh: set[bytes] = set()
        self._draft: Draft | None = None
        self._used: set[tuple[str, int]] = set()
        self._sealing: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown()
        if self._draft:
            self._draft.drop()

    def keep(self, found: Sequence[tuple[bytes, Content]]) -> None:
        """Write the chunks that are not kept yet."""
        there = self._near.find([digest for digest, _ in found if digest not in self._fresh])
        self._used.update((place.pack, place.size) for place in there.values())
        for digest, content in found:
            if digest not in there and digest not in self._fresh:
                self._add(digest, content)

    def finish(self, artifact: bytes, manifest: bytes) -> None:
        """Make the artifact visible; raises PackGone when what it refers to is not there any more."""
        for sealed in self._sealing:
            sealed.result()
        for name, size in self._used:
            if not _is_there(self._packs / f"{name}{SUFFIX}", size):
                raise PackGone(name)
        known = self._index.find([artifact]).get(artifact)
        if known is None:
            self._add(artifact, manifest, manifest=True)
        elif _is_there(pack := self._packs / f"{known.pack}{SUFFIX}", known.size):
            os.utime(pack)  # it was put now: young again for a sweep
        else:
            raise PackGone(known.pack)
        if self._draft:
            draft, self._draft = self._draft, None
            self._seal(draft)

    def _add(self, digest: bytes, content: Content, manifest: bool = False) -> None:
        if self._draft and self._draft.size + len(content) > self._full and not manifest:
            self._sealing.append(self._pool.submit(self._seal, self._draft))
            self._draft = None
            if len(self._sealing) > 1:
                self._sealing[-2].result()  # a disk that is slower than we are sets the pace
        self._draft = self._draft or Draft(self._parts)
        self._draft.add(digest, content, manifest)
        self._fresh.add(digest)

    def _seal(self, draft: Draft) -> None:
        self._index.add(draft.seal(self._packs), draft.objects, written=True)


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False
