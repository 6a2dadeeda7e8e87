"""This file keeps packs: files of many objects (chunks of content, manifests) that say themselves what they hold.

Layout of `NAME.pack`: the objects, one after another; the table, 36 bytes for each object in order (its digest, then
its length with the kind in the highest bit); the tail: number of objects, magic. NAME is the SHA-256 of the table, so
who writes the same at once writes the same file. Rules: a pack is written in `parts/`, synced, renamed and never
changed, so it is there whole or not at all (I13). A manifest is named by its SHA-256, which is the artifact's id; a
chunk by its BLAKE3, for SHA-256 would make a put of what is there already half as slow again.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

SUFFIX = ".pack"
Content = bytes | memoryview
_ROW, _TAIL, _MAGIC = struct.Struct(">32sI"), struct.Struct(">Q8s"), b"BLPACK1\n"
_MANIFEST = 1 << 31


@dataclass(frozen=True, slots=True)
class Packed:
    """An object in a pack: its digest, where it begins, how long it is, and whether it is a manifest."""

    digest: bytes
    start: int
    length: int
    manifest: bool


class BrokenPack(Exception):
    """A pack's table is not what its name promises."""


def named(content: Content, manifest: bool = False) -> bytes:
    """The digest that names these bytes."""
    return hashlib.sha256(content).digest() if manifest else blake3(content).digest()


class Draft:
    """A pack that is being written; it becomes visible when it is sealed, and is nothing when it is dropped."""

    def __init__(self, parts: Path) -> None:
        descriptor, path = tempfile.mkstemp(dir=parts)
        self._raw, self._path = io.FileIO(descriptor, "wb"), Path(path)
        self._file = io.BufferedWriter(self._raw, 1 << 20)
        self.objects: list[Packed] = []
        self.size = 0

    def add(self, digest: bytes, content: Content, manifest: bool = False) -> None:
        """Append an object."""
        self._file.write(content)
        self.objects.append(Packed(digest, self.size, len(content), manifest))
        self.size += len(content)

    def seal(self, packs: Path) -> str:
        """Write the table, sync, and give the pack its name, which is returned."""
        table = b"".join(_ROW.pack(each.digest, each.length | each.manifest * _MANIFEST) for each in self.objects)
        name = hashlib.sha256(table).hexdigest()
        try:
            self._file.write(table + _TAIL.pack(len(self.objects), _MAGIC))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.rename(packs / f"{name}{SUFFIX}")
        except BaseException:
            self.drop()
            raise
        synced(packs)
        return name

    def drop(self) -> None:
        """Leave nothing behind."""
        self._path.unlink(missing_ok=True)
        try:
            self._file.close()
        except OSError:  # what was buffered did not fit on the disk either
            self._raw.close()


def table(path: Path) -> list[Packed]:
    """What a pack holds; raises BrokenPack, and OSError when it cannot be read."""
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        count, magic = _TAIL.unpack(os.pread(file.fileno(), _TAIL.size, max(0, size - _TAIL.size)).rjust(_TAIL.size))
        length = count * _ROW.size
        begins = size - _TAIL.size - length
        if magic != _MAGIC or begins < 0:
            raise BrokenPack(path.name)
        text = os.pread(file.fileno(), length, begins)
    if hashlib.sha256(text).hexdigest() != path.name.removesuffix(SUFFIX):
        raise BrokenPack(path.name)
    objects = list(_objects(text))
    if sum(each.length for each in objects) != begins:
        raise BrokenPack(path.name)
    return objects


def _objects(text: bytes) -> Iterator[Packed]:
    start = 0
    for digest, marked in _ROW.iter_unpack(text):
        length = marked & ~_MANIFEST
        yield Packed(digest, start, length, bool(marked & _MANIFEST))
        start += length


def synced(folder: Path) -> None:
    """Let the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
