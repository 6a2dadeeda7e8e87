"""This file pins data that is not in git: the Sources port on files of this machine, and on HTTP(S) addresses.

A source is a glob below the project's root (a file, a folder, `data/sales/*.csv`) or an address. A version is the
digest of its manifest {"files": [{"path", "sha256", "size", "rows"}]}, sorted; paths count from the last folder without
a wildcard, so moving the folder makes no new version. Beside it is kept what may be made of the same bytes again: where
they are in the store, and what their tables hold. Rules: the digests are of what was copied into the store, not of what
lies in the work tree (F46); a file that changes meanwhile is refused. A file is not read again while size, time and
inode stay as they were, unless it was written just before it was read (as git does with racily clean entries); an
address not while its server says that nothing changed.
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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from branchline.adapters.sources_http import fetched, is_address, name_of
from branchline.adapters.sources_tables import PARQUET, is_table, parquet, told
from branchline.core.profile import Keys, Profile, Table
from branchline.core.revision import digest as digest_of
from branchline.errors import DataChanged, DataGone, DataMissing, DiskFull, ReuseError
from branchline.ports import Artifacts, DataVersion

RACY_NS = 2_000_000_000
HEADED = (".csv", ".tsv")
CHUNK = 8 << 20
MANIFESTS = f"{'[0-9a-f]' * 64}.json"
_MAGIC = frozenset("*?[")
_OF_CONTENT = ("sha256", "size", "rows")


class Store(Artifacts, Protocol):
    """Where the bytes are kept."""

    def content(self, artifact: str) -> Iterator[bytes]:
        """The bytes of a lone file, checked, some megabytes at a time."""


class LocalSources:
    """The Sources port. `root` is the project's root, `folder` is ours: manifests, and what was read before. `hosts`
    may be asked although their addresses are no public ones.
    """

    def __init__(
        self, root: Path, folder: Path, store: Store, hosts: Callable[[], Collection[str]] = lambda: ()
    ) -> None:
        self._root, self._folder, self._store, self._hosts = root, folder, store, hosts
        self._lock = threading.Lock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def pin(self, source: str, where: str, store: bool = True) -> DataVersion:
        """Read what is there now into the store, or without `store` only its digests.

        Raises DataMissing, DataChanged, DataRefused, DataUnreachable.
        """
        with self._lock:
            seen = self._seen()
            if is_address(where):
                files = [self._asked(source, where, seen, store)]
            else:
                files = [self._file(label, path, seen, store) for label, path in self._found(source, where)]
            manifest = {"files": [{key: file[key] for key in ("path", *_OF_CONTENT)} for file in files]}
            digest = digest_of(manifest)
            beside = self._beside(digest, files)
            self._write(self._folder / f"{digest}.json", {**manifest, **beside})
            self._write(self._folder / "seen.json", seen)
        known = _profile(manifest["files"], beside["tables"])
        rows = known.rows + sum(file["rows"] for file in files if file["path"] in known.unread)
        columns = tuple(known.columns.items())
        return DataVersion(source, digest, len(files), rows, sum(file["size"] for file in files), columns)

    def differs(self, source: str, where: str, digest: str) -> bool:
        """Whether the files of a source are others than those of a version that was pinned here; changes nothing.

        Only what is not remembered is read. False where nobody knows: of an address, of what was not pinned here, and
        of what is not there or changes now.
        """
        try:
            pinned = (
                {} if is_address(where) else {f["path"]: f["sha256"] for f in self._pinned(source, digest)["files"]}
            )
            found = self._found(source, where) if pinned else []
        except (DataGone, DataMissing):
            return False
        seen = self._seen()
        return bool(found) and self._differ(found, pinned, seen)

    def _differ(self, found: list[tuple[str, Path]], pinned: dict[str, str], seen: dict[str, Any]) -> bool:
        return {label for label, _ in found} != {*pinned} or any(
            pinned[label] != self._digest(label, path, seen.get(str(path))) for label, path in found
        )

    def _digest(self, label: str, path: Path, known: dict[str, Any] | None) -> str:
        if known and known["stamp"] == _stamp(path):
            return str(known["sha256"])
        return str(_read(label, _chunks(path), path)["sha256"])

    def profile(self, source: str, digest: str, key: Sequence[str] = ()) -> Profile:
        """What a pinned version holds, and how many rows repeat the key; raises DataGone, ArtifactBroken."""
        pinned = self._pinned(source, digest)
        mark, tables = json.dumps(list(key)), pinned.get("tables")
        if tables is None or (key and mark not in pinned["duplicates"]):
            keys, tables = Keys(key), {}
            for file in pinned["files"]:
                tables[file["path"]] = self._table(source, digest, pinned, file["path"], keys)
            with self._lock:
                counted = {**pinned.get("duplicates", {}), mark: keys.duplicates}
                self._write(self._folder / f"{digest}.json", {**pinned, "tables": tables, "duplicates": counted})
                pinned["duplicates"] = counted
        return replace(_profile(pinned["files"], tables), duplicates=pinned["duplicates"].get(mark) if key else None)

    def lay(self, source: str, digest: str, folder: Path) -> None:
        """Lay a pinned version out as a folder that does not exist yet; raises DataGone, ArtifactBroken.

        What is not kept in the store is copied from where it was, if it still is what was pinned.
        """
        pinned = self._pinned(source, digest)
        if folder.exists():
            raise ReuseError(f"{folder} exists already")
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name[:40]}-", dir=folder.parent))
        try:
            for file in pinned["files"]:
                artifact = pinned["artifacts"][file["path"]]
                if not artifact:
                    self._copy(source, digest, pinned["places"][file["path"]], file, part / file["path"])
                elif self._store.has(artifact):
                    self._store.get(artifact, part / file["path"])
                else:
                    raise DataGone(f"{file['path']} is not there", source=source, digest=digest[:8])
            part.chmod(0o755)
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody was first with the same
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def versions(self) -> dict[str, tuple[str, ...]]:
        """Every version that was pinned and not swept: its digest, and the artifacts that its bytes lie in."""
        found = {}
        for path in sorted(self._folder.glob(MANIFESTS)):
            with suppress(DataGone):
                artifacts = self._pinned("", path.stem)["artifacts"].values()
                found[path.stem] = tuple(artifact for artifact in artifacts if artifact)
        return found

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> dict[str, int]:
        """Forget the versions that nobody keeps and that were pinned long ago; see the port."""
        gone = {}
        with self._lock:
            for path in sorted(self._folder.glob(MANIFESTS)):
                found = path.stat()
                if path.stem not in keep and time.time() - found.st_mtime >= older_than:
                    gone[path.stem] = found.st_blocks * 512
                    if not dry_run:
                        path.unlink()
        return gone

    def _pinned(self, source: str, digest: str) -> dict[str, Any]:
        """A manifest and what is kept beside it; raises DataGone."""
        try:
            pinned: dict[str, Any] = json.loads((self._folder / f"{digest}.json").read_bytes())
        except (OSError, ValueError) as error:
            raise DataGone(str(error), source=source, digest=digest[:8]) from error
        if digest_of({"files": pinned["files"]}) != digest:
            raise DataGone("its manifest was changed", source=source, digest=digest[:8])
        return pinned

    def _beside(self, digest: str, files: list[dict[str, Any]]) -> dict[str, Any]:
        """What is kept beside a manifest; where a version was copied into the store before, it still is."""
        try:
            before = self._pinned("", digest)
        except DataGone:
            before = {}
        artifacts = {
            file["path"]: file["artifact"] or before.get("artifacts", {}).get(file["path"], "") for file in files
        }
        return {
            "artifacts": artifacts,
            "places": {file["path"]: file["place"] for file in files},
            "tables": {file["path"]: file["table"] for file in files},
            "duplicates": before.get("duplicates", {}),
        }

    def _table(self, source: str, digest: str, pinned: dict[str, Any], path: str, keys: Keys) -> Any:
        """What one file of a version holds, read again for the sake of its keys."""
        if not is_table(path):
            return None
        artifact = pinned["artifacts"][path]
        with tempfile.TemporaryDirectory(prefix="table-", dir=self._folder) as folder:
            file = Path(folder) / "file"
            if not artifact:
                wanted = next(each for each in pinned["files"] if each["path"] == path)
                self._copy(source, digest, pinned["places"][path], wanted, file)
            elif not self._store.has(artifact):
                raise DataGone(f"{path} is not there", source=source, digest=digest[:8])
            elif path.lower().endswith(PARQUET):
                self._store.get(artifact, file)
            chunks = _chunks(file) if file.exists() else self._store.content(artifact)
            return _plain(parquet(path, file, keys) if path.lower().endswith(PARQUET) else told(path, chunks, keys))

    def _copy(self, source: str, digest: str, place: str, wanted: dict[str, Any], target: Path) -> None:
        """Copy what is not in the store from its place; raises DataGone when it is not what was pinned any more."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if is_address(place):
            fetched(source, place, target, self._hosts())
        else:
            try:
                shutil.copyfile(place, target)
            except OSError as error:
                raise DataGone(str(error), source=source, digest=digest[:8]) from error
        if _read(wanted["path"], _chunks(target), target)["sha256"] != wanted["sha256"]:
            cause = f"{wanted['path']} is another one by now, and store = false keeps no copy"
            raise DataGone(cause, source=source, digest=digest[:8])

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

    def _file(self, label: str, path: Path, seen: dict[str, Any], store: bool) -> dict[str, Any]:
        """What a file is, from what is remembered of it, or read now, into the store or without it."""
        before, key = _stamp(path), str(path)
        known = seen.get(key)
        if known and known["stamp"] == before and self._is_kept(known, store):
            return {"path": label, "place": key, **known}
        started = time.time_ns()
        artifact = self._store.put(path.resolve()) if store else ""
        try:
            read = _read(label, self._store.content(artifact) if store else _chunks(path), path)
        except OSError as error:
            raise DataChanged(str(error), path=path) from error
        if _stamp(path) != before:
            raise DataChanged(path=path)
        entry = {"stamp": before, "artifact": artifact, **read}
        seen.pop(key, None)
        if before[1] < started - RACY_NS:
            seen[key] = entry
        return {"path": label, "place": key, **entry}

    def _asked(self, source: str, address: str, seen: dict[str, Any], store: bool) -> dict[str, Any]:
        """What an address gives, remembered while its server says that nothing changed."""
        known = seen.get(address, {})
        marks = known["marks"] if known and self._is_kept(known, store) else {}
        label = name_of(address)
        with tempfile.TemporaryDirectory(prefix="fetched-", dir=self._folder) as folder:
            file = Path(folder) / "file"
            answer = fetched(source, address, file, self._hosts(), marks)
            if answer is not None:
                artifact = self._store.put(file) if store else ""
                known = {"marks": answer, "artifact": artifact, **_read(label, _chunks(file), file)}
                seen[address] = known
        return {"path": label, "place": address, **known}

    def _is_kept(self, known: dict[str, Any], store: bool) -> bool:
        """Whether what is remembered of a file is enough."""
        return "table" in known and (not store or (bool(known["artifact"]) and self._store.has(known["artifact"])))

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


def _chunks(path: Path) -> Iterator[bytes]:
    """The bytes of a file, some megabytes at a time."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _read(label: str, chunks: Iterable[bytes], path: Path) -> dict[str, Any]:
    """Digest, size, rows and table of a file, read once; `path` is where a Parquet file of this content lies."""
    hashed, size, lines, text, last = hashlib.sha256(), 0, 0, True, b"\n"

    def tapped() -> Iterator[bytes]:
        nonlocal size, lines, text, last
        for chunk in chunks:
            hashed.update(chunk)
            text = text and b"\0" not in chunk[:8192]
            size, lines, last = size + len(chunk), lines + chunk.count(b"\n"), chunk[-1:]
            yield chunk

    tap, is_parquet = tapped(), label.lower().endswith(PARQUET)
    found = told(label, tap) if is_table(label) and not is_parquet else None
    for _ in tap:  # what a broken table was not asked for
        pass
    found = parquet(label, path) if is_parquet else found
    lines += last != b"\n"
    rows = max(0, lines - label.lower().endswith(HEADED)) if text else 0
    return {"sha256": hashed.hexdigest(), "size": size, "rows": rows, "table": _plain(found)}


def _plain(table: Table | None) -> Any:
    """A table as it is kept."""
    return None if table is None else [table.rows, [list(column) for column in table.columns]]


def _profile(files: Sequence[dict[str, Any]], tables: dict[str, Any]) -> Profile:
    """What is kept of the tables of a version's files."""
    known = [
        Table(file["path"], tables[file["path"]][0], tuple((name, kind) for name, kind in tables[file["path"]][1]))
        for file in files
        if tables[file["path"]] is not None
    ]
    return Profile(tuple(known), tuple(file["path"] for file in files if tables[file["path"]] is None))
