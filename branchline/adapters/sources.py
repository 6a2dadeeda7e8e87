"""This file pins data that is not in git: the Sources port on files of this machine.

A source is a glob below the project's root (a file, a folder, `data/sales/*.csv`). A version is the digest of its
manifest {"files": [{"path", "sha256", "size", "rows"}]}, sorted; paths count from the last folder without a wildcard,
so moving the folder makes no new version. Rules: the digests are of what was copied into the store, not of what lies
in the work tree (F46); a file that changes meanwhile is refused. A file is not read again while size, time and inode
stay as they were, unless it was written just before it was read (as git does with racily clean entries).
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from branchline.core.revision import digest as digest_of
from branchline.errors import DataChanged, DataGone, DataMissing, DiskFull, ReuseError
from branchline.ports import Artifacts, DataVersion

RACY_NS = 2_000_000_000
HEADED = (".csv", ".tsv")
_MAGIC = frozenset("*?[")


class Store(Artifacts, Protocol):
    """Where the bytes are kept."""

    def content(self, artifact: str) -> Iterator[bytes]:
        """The bytes of a lone file, checked, some megabytes at a time."""


class LocalSources:
    """The Sources port. `root` is the project's root, `folder` is ours: manifests, and what was read before."""

    def __init__(self, root: Path, folder: Path, store: Store) -> None:
        self._root, self._folder, self._store = root, folder, store
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def pin(self, source: str, where: str) -> DataVersion:
        """Read what is there now into the store; raises DataMissing, DataChanged."""
        with self._lock:
            seen = self._seen()
            files = [self._file(label, path, seen) for label, path in self._found(source, where)]
            manifest = {"files": [{key: file[key] for key in ("path", "sha256", "size", "rows")} for file in files]}
            digest = digest_of(manifest)
            artifacts = {file["path"]: file["artifact"] for file in files}
            self._write(self._folder / f"{digest}.json", {**manifest, "artifacts": artifacts})
            self._write(self._folder / "seen.json", seen)
        return DataVersion(source, digest, len(files), *(sum(file[key] for file in files) for key in ("rows", "size")))

    def lay(self, source: str, digest: str, folder: Path) -> None:
        """Lay a pinned version out as a folder that does not exist yet; raises DataGone, ArtifactBroken."""
        try:
            pinned = json.loads((self._folder / f"{digest}.json").read_bytes())
        except (OSError, ValueError) as error:
            raise DataGone(str(error), source=source, digest=digest[:8]) from error
        if digest_of({"files": pinned["files"]}) != digest:
            raise DataGone("its manifest was changed", source=source, digest=digest[:8])
        if folder.exists():
            raise ReuseError(f"{folder} exists already")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}-", dir=folder.parent))
        try:
            for file in pinned["files"]:
                artifact = pinned["artifacts"][file["path"]]
                if not self._store.has(artifact):
                    raise DataGone(f"{file['path']} is not there", source=source, digest=digest[:8])
                self._store.get(artifact, part / file["path"])
            part.chmod(0o755)
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody was first with the same
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _found(self, source: str, where: str) -> list[tuple[str, Path]]:
        """The files of a source with their names in it, sorted."""
        parts = PurePosixPath(where).parts
        if not parts or where.startswith("/") or ".." in parts:
            raise DataMissing(f"{where!r} leads out of the project", source=source)
        fixed = next((place for place, part in enumerate(parts) if _MAGIC & set(part)), len(parts))
        base = self._root.joinpath(*parts[:fixed])
        if fixed < len(parts):
            names = glob.glob("/".join(parts[fixed:]), root_dir=base, recursive=True)
        elif base.is_dir():
            names = glob.glob("**", root_dir=base, recursive=True)
        else:
            base, names = base.parent, [base.name]
        found = sorted((name, base / name) for name in names if (base / name).is_file())
        if not found:
            raise DataMissing(f"nothing matches {where}", source=source)
        home = self._root.resolve()
        for name, path in found:
            if not path.resolve().is_relative_to(home):
                raise DataMissing(f"{name} is a link that leads out of the project", source=source)
        return found

    def _file(self, label: str, path: Path, seen: dict[str, Any]) -> dict[str, Any]:
        """What a file is, from what is remembered of it, or read now into the store."""
        before, key = _stamp(path), str(path)
        known = seen.get(key)
        if known and known["stamp"] == before and self._store.has(known["artifact"]):
            return {"path": label, **{name: known[name] for name in ("sha256", "size", "rows", "artifact")}}
        started = time.time_ns()
        artifact = self._store.put(path.resolve())
        if _stamp(path) != before:
            raise DataChanged(path=path)
        hashed, size, lines, text, last = hashlib.sha256(), 0, 0, True, b"\n"
        for chunk in self._store.content(artifact):
            hashed.update(chunk)
            text = text and b"\0" not in chunk[:8192]
            size, lines, last = size + len(chunk), lines + chunk.count(b"\n"), chunk[-1:]
        lines += last != b"\n"
        rows = max(0, lines - path.name.lower().endswith(HEADED)) if text else 0
        read = {"sha256": hashed.hexdigest(), "size": size, "rows": rows, "artifact": artifact}
        seen.pop(key, None)
        if before[1] < started - RACY_NS:
            seen[key] = {"stamp": before, **read}
        return {"path": label, **read}

    def _seen(self) -> dict[str, Any]:
        try:
            seen = json.loads((self._folder / "seen.json").read_bytes())
        except (OSError, ValueError):  # only a memory: without it everything is read again
            return {}
        return seen if isinstance(seen, dict) else {}

    def _write(self, path: Path, document: object) -> None:
        part = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            with part.open("w", encoding="utf-8") as file:
                json.dump(document, file, sort_keys=True, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            part.unlink(missing_ok=True)
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DiskFull(str(error), what=str(path)) if full else ReuseError(str(error)) from error


def _stamp(path: Path) -> list[int]:
    """Size, time and inode: while they stay, so does the content."""
    try:
        found = path.stat()
    except OSError as error:
        raise DataChanged(str(error), path=path) from error
    return [found.st_size, found.st_mtime_ns, found.st_ino]
