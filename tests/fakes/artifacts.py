"""This file fakes the Artifacts port in memory."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from pathlib import Path

from branchline.core.revision import digest
from branchline.errors import ArtifactBroken, ReuseError, UnsafeArtifact
from branchline.ports import Swept

Members = dict[str, tuple[bytes, bool] | None]  # name -> content and executable; None: an empty folder


class FakeArtifacts:
    """The Artifacts port; `kept` may be changed by a test to lose or to break what is kept."""

    def __init__(self) -> None:
        self.kept: dict[str, Members] = {}
        self.put_at: dict[str, float] = {}

    def put(self, path: Path) -> str:
        """Keep a file or a folder."""
        members: Members = {}
        for each in sorted(path.rglob("*")) if path.is_dir() and not path.is_symlink() else [path]:
            name = "" if each == path else each.relative_to(path).as_posix()
            if each.is_symlink() or not (each.is_file() or each.is_dir()):
                raise UnsafeArtifact(path=each)
            if each.is_file():
                members[name] = (each.read_bytes(), bool(each.stat().st_mode & 0o100))
            elif not any(each.iterdir()):
                members[name] = None
        artifact = digest([[name, repr(content)] for name, content in members.items()])
        self.kept[artifact] = members
        self.put_at[artifact] = time.time()
        return artifact

    def get(self, artifact: str, path: Path) -> None:
        """Write the artifact to a path that does not exist yet."""
        members = self._members(artifact)
        if path.exists():
            raise ReuseError(f"{path} exists already")
        path.parent.mkdir(parents=True, exist_ok=True)
        if list(members) != [""]:
            path.mkdir()
        for name, content in members.items():
            target = path / name if name else path
            if content is None:
                target.mkdir(parents=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content[0])
            target.chmod(0o755 if content[1] else 0o644)

    def content(self, artifact: str) -> Iterator[bytes]:
        """The bytes of a lone file."""
        yield from (content[0] for content in self._members(artifact).values() if content and content[0])

    def has(self, artifact: str) -> bool:
        """Whether it is here."""
        return artifact in self.kept

    def size(self, artifact: str) -> int:
        """Bytes of content."""
        return sum(len(content[0]) for content in self._members(artifact).values() if content)

    def artifacts(self) -> Iterator[str]:
        """The ids of what is kept."""
        return iter(tuple(self.kept))

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Swept:
        """Remove what is neither wanted nor young."""
        limit = time.time() - older_than
        gone = [artifact for artifact in self.kept if artifact not in keep and self.put_at.get(artifact, 0) <= limit]
        swept = Swept(len(gone), sum(self.size(artifact) for artifact in gone))
        for artifact in gone if not dry_run else ():
            del self.kept[artifact]
        return swept

    def _members(self, artifact: str) -> Members:
        if artifact not in self.kept:
            raise ArtifactBroken(digest=artifact)
        return self.kept[artifact]
