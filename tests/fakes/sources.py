"""This file fakes the Sources port in memory: a test says what lies where."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from branchline.core.profile import Keys, Profile, table
from branchline.core.revision import digest
from branchline.errors import DataGone, DataMissing, ReuseError
from branchline.ports import DataVersion


class FakeSources:
    """The Sources port; `here` is what lies where now: `where` -> name -> content."""

    def __init__(self) -> None:
        self.here: dict[str, dict[str, bytes]] = {}
        self.kept: dict[str, dict[str, bytes]] = {}
        self.unstored: dict[str, str] = {}
        self.artifacts: dict[str, tuple[str, ...]] = {}
        self.pinned_at: dict[str, float] = {}
        self.pins = 0

    def pin(self, source: str, where: str, store: bool = True) -> DataVersion:
        """Pin what is there now; a version that is not stored is there while it still lies there."""
        self.pins += 1
        files = self.here.get(where)
        if not files:
            raise DataMissing(source=source)
        rows = {name: rows_of(name, content) for name, content in files.items()}
        listed = [
            {"path": name, "sha256": sha256(content).hexdigest(), "size": len(content), "rows": rows[name]}
            for name, content in sorted(files.items())
        ]
        pinned = digest({"files": listed})
        self.kept[pinned] = dict(files)
        self.pinned_at[pinned] = time.time()
        if store or pinned not in self.artifacts:  # what was copied once stays
            self.artifacts[pinned] = (digest(pinned),) if store else ()
        if not store:
            self.unstored[pinned] = where
        size = sum(len(content) for content in files.values())
        known = self.profile(source, pinned)
        count = known.rows + sum(rows[name] for name in known.unread)
        return DataVersion(source, pinned, len(files), count, size, tuple(known.columns.items()))

    def profile(self, source: str, digest: str, key: Sequence[str] = ()) -> Profile:
        """What a version holds."""
        if digest not in self.kept:
            raise DataGone(source=source, digest=digest)
        keys = Keys(key)
        tables = {
            name: None if b"\0" in content else table(name, content.decode().splitlines(keepends=True), keys)
            for name, content in sorted(self.kept[digest].items())
        }
        known = tuple(each for each in tables.values() if each)
        return Profile(known, tuple(name for name, each in tables.items() if each is None), keys.duplicates)

    def lay(self, source: str, digest: str, folder: Path) -> None:
        """Lay a pinned version out."""
        if digest not in self.kept:
            raise DataGone(source=source, digest=digest)
        where = self.unstored.get(digest)
        if where is not None and self.here.get(where) != self.kept[digest]:
            raise DataGone(source=source, digest=digest)
        if folder.exists():
            raise ReuseError(f"{folder} exists already")
        for name, content in self.kept[digest].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def versions(self) -> Mapping[str, tuple[str, ...]]:
        """Every version with its artifacts."""
        return {pinned: self.artifacts[pinned] for pinned in self.kept}

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Mapping[str, int]:
        """Forget what nobody keeps or pinned lately."""
        old = [each for each in self.kept if each not in keep and time.time() - self.pinned_at[each] >= older_than]
        for each in old if not dry_run else ():
            del self.kept[each]
        return dict.fromkeys(old, 1)


def rows_of(name: str, content: bytes) -> int:
    """Lines of a text, less the header of a table."""
    if b"\0" in content:
        return 0
    return max(0, len(content.splitlines()) - name.endswith((".csv", ".tsv")))
