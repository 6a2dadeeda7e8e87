"""This file fakes the Sources port in memory: a test says what lies where."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from branchline.core.revision import digest
from branchline.errors import DataGone, DataMissing, ReuseError
from branchline.ports import DataVersion


class FakeSources:
    """The Sources port; `here` is what lies where now: `where` -> name -> content."""

    def __init__(self) -> None:
        self.here: dict[str, dict[str, bytes]] = {}
        self.kept: dict[str, dict[str, bytes]] = {}

    def pin(self, source: str, where: str) -> DataVersion:
        """Pin what is there now."""
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
        size = sum(len(content) for content in files.values())
        return DataVersion(source, pinned, len(files), sum(rows.values()), size)

    def lay(self, source: str, digest: str, folder: Path) -> None:
        """Lay a pinned version out."""
        if digest not in self.kept:
            raise DataGone(source=source, digest=digest)
        if folder.exists():
            raise ReuseError(f"{folder} exists already")
        for name, content in self.kept[digest].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def rows_of(name: str, content: bytes) -> int:
    """Lines of a text, less the header of a table."""
    if b"\0" in content:
        return 0
    return max(0, len(content.splitlines()) - name.endswith((".csv", ".tsv")))
