"""This file keeps artifacts in a folder, by content: the Artifacts port on the local disk.

Layout: `chunks/aa/<sha256>` holds bytes, `artifacts/aa/<id>` the canonical manifest whose SHA-256 is the id:
{"artifact": 1, "members": [{"path", "size", "chunks", "executable"} | {"path", "folder": true}]}; a lone file has the
path ''. Rules: temp, fsync, rename, fsync of the folder; chunks before the manifest, so what is visible is complete
(I13). Every byte is checked as it is read. Names are labels: never absolute, never `..`, no links, no devices (F39).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from branchline.errors import ArtifactBroken, DiskFull, ReuseError, UnsafeArtifact

CHUNK = 8 << 20
Member = dict[str, Any]


class FolderArtifacts:
    """The Artifacts port. `root` is made when it is not there; several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._chunks, self._manifests, self._parts = root / "chunks", root / "artifacts", root / "parts"
        for folder in (root, self._chunks, self._manifests, self._parts):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()

    def put(self, path: Path) -> str:
        """Keep a file or a folder and return its id; visible only when complete (I13).

        Raises UnsafeArtifact for anything but plain files and folders, and DiskFull.
        """
        with _told(str(path)):
            members = [self._kept(member, where) for member, where in _members(path)]
            text = _canonical({"artifact": 1, "members": members})
            artifact = hashlib.sha256(text).hexdigest()
            self._keep(text, _place(self._manifests, artifact))
        return artifact

    def get(self, artifact: str, path: Path) -> None:
        """Write the artifact to a path that does not exist yet; every byte checked; raises ArtifactBroken."""
        members = self._members(artifact)
        with _told(str(path)), _appearing(path) as part:
            if [each["path"] for each in members] != [""]:
                part.mkdir()
            for each in members:
                target = part / each["path"] if each["path"] else part
                if each.get("folder"):
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    for chunk in self._content(artifact, each):
                        file.write(chunk)
                    file.flush()
                    os.fsync(file.fileno())  # who finds the folder trusts it: it must be there after a power cut, too
                target.chmod(0o755 if each["executable"] else 0o644)

    def content(self, artifact: str) -> Iterator[bytes]:
        """The bytes of a lone file, checked, some megabytes at a time; raises ArtifactBroken."""
        for each in self._members(artifact):
            yield from self._content(artifact, each)

    def has(self, artifact: str) -> bool:
        """Whether it is complete here: its manifest, and each chunk at its full size."""
        try:
            members = self._members(artifact)
        except ArtifactBroken:
            return False
        for each in members:
            try:
                found = sum(_place(self._chunks, chunk).stat().st_size for chunk in each.get("chunks", ()))
            except OSError:
                return False
            if found != each.get("size", 0):
                return False
        return True

    def size(self, artifact: str) -> int:
        """Bytes of content; raises ArtifactBroken."""
        return sum(each.get("size", 0) for each in self._members(artifact))

    # ---- writing

    def _kept(self, member: Member, where: Path) -> Member:
        """The member with its chunks, kept: it says what was read, whatever the file becomes meanwhile."""
        if member.get("folder"):
            return member
        chunks, size = [], 0
        # O_NOFOLLOW and O_NONBLOCK: between looking and opening it may have become a link or a pipe.
        descriptor = os.open(where, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while chunk := _full(file, CHUNK):
                digest = hashlib.sha256(chunk).hexdigest()
                self._keep(chunk, _place(self._chunks, digest))
                chunks.append(digest)
                size += len(chunk)
        return {**member, "size": size, "chunks": chunks}

    def _keep(self, content: bytes, place: Path) -> None:
        """Make the file appear, whole and on the disk. One that is there already is used only when it is right."""
        with suppress(OSError):
            if place.stat().st_size == len(content) and place.read_bytes() == content:
                return
        if not place.parent.exists():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            _settle(place.parent.parent)
        descriptor, part = tempfile.mkstemp(prefix=f"{os.getpid()}-", dir=self._parts)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(part).rename(place)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
        _settle(place.parent)

    def _sweep(self) -> None:
        """Remove what processes that are gone have left half written."""
        for part in self._parts.iterdir():
            pid = part.name.partition("-")[0]
            if not pid.isdigit() or not _alive(int(pid)):
                part.unlink(missing_ok=True)

    # ---- reading

    def _members(self, artifact: str) -> list[Member]:
        """The members of a manifest that is what its name promises, and names no place outside of it."""
        if not _is_digest(artifact):
            raise ArtifactBroken("that is no artifact's id", digest=artifact)
        try:
            text = _place(self._manifests, artifact).read_bytes()
        except OSError as error:
            raise ArtifactBroken(f"its manifest: {error.strerror}", digest=artifact) from error
        if hashlib.sha256(text).hexdigest() != artifact:
            raise ArtifactBroken("its manifest was changed", digest=artifact)
        members: list[Member] = json.loads(text)["members"]
        for each in members:
            if not _is_label(each["path"]) and not (each["path"] == "" and len(members) == 1):
                raise ArtifactBroken(f"it names {each['path']!r}, which leads out of it", digest=artifact)
        return members

    def _content(self, artifact: str, member: Member) -> Iterator[bytes]:
        name = member["path"] or "it"
        for digest in member.get("chunks", ()):
            try:
                chunk = _place(self._chunks, digest).read_bytes()
            except OSError as error:
                raise ArtifactBroken(f"a part of {name}: {error.strerror}", digest=artifact) from error
            if hashlib.sha256(chunk).hexdigest() != digest:
                raise ArtifactBroken(f"a part of {name} was changed", digest=artifact)
            yield chunk


def _members(path: Path) -> Iterator[tuple[Member, Path]]:
    """What is to be kept, sorted by name: files, and folders that are empty."""
    if not stat.S_ISDIR(_mode(path)):
        yield _file(path, ""), path
        return
    found: list[tuple[str, Path]] = []
    for folder, folders, files in os.walk(path, onerror=_raise):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        found += [(_label(here / name, path), here / name) for name in (*files, *links)]
        if here != path and not folders and not files:
            found.append((_label(here, path), here))
    for label, where in sorted(found):
        if stat.S_ISDIR(_mode(where)):
            yield {"path": label, "folder": True}, where
        else:
            yield _file(where, label), where


def _raise(error: OSError) -> None:
    raise error


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError as error:
        raise UnsafeArtifact("there is nothing", path=path) from error


def _file(path: Path, label: str) -> Member:
    mode = _mode(path)
    if not stat.S_ISREG(mode):
        raise UnsafeArtifact("it is a link" if stat.S_ISLNK(mode) else "it is no plain file", path=path)
    return {"path": label, "executable": bool(mode & stat.S_IXUSR)}


def _label(path: Path, root: Path) -> str:
    label = path.relative_to(root).as_posix()
    if not _is_label(label):
        raise UnsafeArtifact("its name is not UTF-8", path=path)
    return label


def _is_label(label: str) -> bool:
    """Whether a name stays below the folder it is put into, on every machine."""
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    parts = PurePosixPath(label).parts
    return bool(parts) and label == "/".join(parts) and "\0" not in label and not {"..", "/"} & set(parts)


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def _place(root: Path, digest: str) -> Path:
    if not _is_digest(digest):
        raise ArtifactBroken("that is no digest", digest=digest)
    return root / digest[:2] / digest


def _full(file: Any, size: int) -> bytes:
    """Read that many bytes, or all that are left."""
    parts = bytearray()
    while len(parts) < size and (part := file.read(size - len(parts))):
        parts += part
    return bytes(parts)


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
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


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(str(error), what=what) from error
        raise ReuseError(f"{what}: {error.strerror or error}") from error


def _settle(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
