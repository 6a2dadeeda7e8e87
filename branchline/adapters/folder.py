"""This file keeps artifacts in a folder, by content: the Artifacts port on the local disk.

Layout: `packs/` holds everything, `index.sqlite3` says where it lies, `damaged/` what must be written again, `parts/`
what is being written; `lock` is shared by who reads or writes and held alone by who removes, so that a sweep meets no
put (F49). Rules: a put writes one pack (a large one several, the manifest last), so what is visible is complete (I13).
Every byte is checked as it is read; what is damaged is quarantined, and the next put of the same mends it (F40).
Memory is bounded by blocks and by the number of files and chunks, never by how large the content is.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from branchline.adapters.folder_chunks import HANDS, chunks
from branchline.adapters.folder_index import Index, Near, Place
from branchline.adapters.folder_laying import Laying, appearing
from branchline.adapters.folder_members import Member, digests, is_id, members, read, written
from branchline.adapters.folder_packs import SUFFIX, named
from branchline.adapters.folder_sweep import Store, sweep
from branchline.adapters.folder_writing import PackGone, Writing
from branchline.errors import ArtifactBroken, DiskFull, ReuseError
from branchline.ports import Swept

PACK = 128 << 20  # bytes of a pack, after which the next one begins
_BATCH, _AHEAD = 64, 3  # chunks that are read together, and batches that are read ahead
Wanted = tuple[int, bytes]  # of which member, and a chunk's digest
Piece = tuple[int, memoryview]  # of which member, and a chunk's content


class FolderArtifacts:
    """The Artifacts port. `root` is made when it is not there; threads and processes may use it at once. A pack is
    `full` at so many bytes.
    """

    def __init__(self, root: Path, full: int = PACK) -> None:
        self._full = full
        self._root, self._packs, self._parts = root, root / "packs", root / "parts"
        for folder in (root, self._packs, self._parts, root / "damaged"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = Index(root)
        self._whole: dict[str, frozenset[tuple[str, int]]] = {}  # artifact -> the packs it needs, with their sizes
        with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for part in self._parts.iterdir():  # who is alone knows that nobody writes
                part.unlink(missing_ok=True)

    def put(self, path: Path) -> str:
        """Keep a file or a folder and return its id; visible only when complete (I13).

        Raises UnsafeArtifact for anything but plain files and folders, and DiskFull.
        """
        with _told(str(path)), self._held():
            for _ in range(3):
                try:
                    return self._put(path)
                except PackGone:
                    self._index.sync()
            raise ReuseError(f"{self._packs}: packs vanish while they are used")

    def get(self, artifact: str, path: Path) -> None:
        """Write the artifact to a path that does not exist yet; every byte checked; raises ArtifactBroken."""
        with _told(str(path)), self._held():
            found = self._members(artifact)
            with appearing(path) as part:
                laying = Laying(part, found)
                for which, pieces in groupby(self._pieces(artifact, found), key=itemgetter(0)):
                    laying.file(which, (piece for _, piece in pieces))
                laying.settle()

    def content(self, artifact: str) -> Iterator[bytes]:
        """The bytes of a lone file, checked, some megabytes at a time; raises ArtifactBroken."""
        with _told(artifact), self._held():
            found = self._members(artifact)
        wanted = [(which, digest) for which, each in enumerate(found) for digest in digests(each)]
        for begin in range(0, len(wanted), _BATCH):  # nothing is held while others do something with it
            with _told(artifact), self._held():
                batch = self._batch(artifact, found, Near(self._index), wanted[begin : begin + _BATCH])
            yield b"".join(piece for _, piece in batch)

    def has(self, artifact: str) -> bool:
        """Whether it is complete here: its manifest, and the packs of all its chunks at their full size."""
        needed = self._whole.get(artifact)
        if needed is not None and all(self._is_there(*pack) for pack in needed):
            return True
        self._whole.pop(artifact, None)
        with _told(artifact), self._held():
            try:
                needed = self._needed(artifact)
            except ArtifactBroken:
                return False
        self._whole[artifact] = needed
        return True

    def size(self, artifact: str) -> int:
        """Bytes of content; raises ArtifactBroken."""
        with _told(artifact), self._held():
            return sum(each.get("size", 0) for each in self._members(artifact))

    def artifacts(self) -> Iterator[str]:
        """The ids of what is kept, in no order."""
        with _told(str(self._root)), self._held():
            return iter([digest.hex() for digest, _ in self._index.manifests()])

    def sweep(self, keep: Collection[str], older_than: float, dry_run: bool = False) -> Swept:
        """Remove the artifacts that are not in `keep` and were last put longer than `older_than` seconds ago (F49)."""
        store = Store(self._index, self._packs, self._parts, self._full, self._held, self._members)
        with _told(str(self._root)):
            return sweep(store, keep, older_than, dry_run)

    # ---- writing

    def _put(self, path: Path) -> str:
        found = list(members(path))
        files = [(member, where) for member, where in found if not member.get("folder")]
        named_by: list[list[bytes]] = [[] for _ in files]
        with Writing(self._index, self._packs, self._parts, self._full) as writing:
            for block in chunks(where for _, where in files):
                writing.keep([(digest, content) for _, digest, content in block])
                for which, digest, content in block:
                    named_by[which].append(digest)
                    files[which][0]["size"] = files[which][0].get("size", 0) + len(content)
            for (member, _), names in zip(files, named_by, strict=True):
                member["chunks"] = b"".join(names).hex()
                member.setdefault("size", 0)
            artifact, text = written([member for member, _ in found])
            writing.finish(bytes.fromhex(artifact), text)
        return artifact

    # ---- reading

    def _members(self, artifact: str) -> list[Member]:
        """The members of a manifest that is here and right."""
        if not is_id(artifact):
            raise ArtifactBroken("that is no artifact's id", digest=artifact)
        digest = bytes.fromhex(artifact)
        place = self._index.find([digest]).get(digest)
        if place is None:
            raise ArtifactBroken("it is not in the store", digest=artifact)
        (text,) = self._run(artifact, "its manifest", [(digest, place)], manifest=True)
        return read(artifact, bytes(text))

    def _needed(self, artifact: str) -> frozenset[tuple[str, int]]:
        """The packs that an artifact needs, all of them there; raises ArtifactBroken."""
        digest = bytes.fromhex(artifact) if is_id(artifact) else b""
        found, needed, near = self._members(artifact), set[tuple[str, int]](), Near(self._index)
        own = self._index.find([digest])
        for each in found:
            wanted = list(digests(each))
            places = own | near.find(wanted)
            if sum(places[one].length for one in wanted if one in places) != each.get("size", 0):
                raise ArtifactBroken(f"a part of {each['path'] or 'it'} is not there", digest=artifact)
            needed |= {(place.pack, place.size) for place in places.values()}
        if not all(self._is_there(*pack) for pack in needed):
            self._index.sync()
            raise ArtifactBroken("a pack is not there", digest=artifact)
        return frozenset(needed)

    def _pieces(self, artifact: str, found: Sequence[Member]) -> Iterator[Piece]:
        """The content of an artifact's files, in order: which member, and the next of it; checked by other threads."""
        near = Near(self._index)
        wanted = ((which, digest) for which, each in enumerate(found) for digest in digests(each))
        batches = iter(lambda: list(islice(wanted, _BATCH)), [])
        first = next(batches, [])
        if len(first) < _BATCH:
            yield from self._batch(artifact, found, near, first)
            return
        waiting: deque[Future[list[Piece]]] = deque()
        with ThreadPoolExecutor(HANDS) as pool:
            waiting.append(pool.submit(self._batch, artifact, found, near, first))
            for batch in batches:
                waiting.append(pool.submit(self._batch, artifact, found, near, batch))
                if len(waiting) == _AHEAD:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _batch(self, artifact: str, found: Sequence[Member], near: Near, batch: list[Wanted]) -> list[Piece]:
        """The content of some chunks; what lies side by side is read at once."""
        places = near.find([digest for _, digest in batch])
        pieces: list[Piece] = []
        run: list[tuple[Wanted, Place]] = []
        for which, digest in (*batch, (-1, b"")):
            place = places.get(digest)
            if run and (place is None or not _beside(run[-1][1], place)):
                name = str(found[run[0][0][0]]["path"] or "it")
                contents = self._run(artifact, f"a part of {name}", [(wanted[1], at) for wanted, at in run])
                pieces += [(wanted[0], content) for (wanted, _), content in zip(run, contents, strict=True)]
                run = []
            if place is not None:
                run.append(((which, digest), place))
            elif which >= 0:
                raise ArtifactBroken(f"a part of {found[which]['path'] or 'it'} is not there", digest=artifact)
        return pieces

    def _run(
        self, artifact: str, name: str, run: Sequence[tuple[bytes, Place]], manifest: bool = False
    ) -> list[memoryview]:
        """Read objects that lie side by side in a pack, each checked; what is not right is quarantined."""
        pack, start = run[0][1].pack, run[0][1].start
        try:
            content = _read_at(self._packs / f"{pack}{SUFFIX}", start, sum(place.length for _, place in run))
        except FileNotFoundError as error:
            self._index.sync()
            raise ArtifactBroken(f"{name}: its pack is gone", digest=artifact) from error
        pieces: list[memoryview] = []
        for digest, place in run:
            piece = content[place.start - start :][: place.length]
            if named(piece, manifest) != digest:
                self._index.quarantine(digest, pack)
                self._whole.pop(artifact, None)
                raise ArtifactBroken(f"{name} was changed", digest=artifact)
            pieces.append(piece)
        return pieces

    def _is_there(self, pack: str, size: int) -> bool:
        try:
            return os.stat(f"{self._packs}/{pack}{SUFFIX}").st_size == size
        except OSError:
            return False

    # ---- who may do what when

    @contextmanager
    def _held(self, alone: bool = False) -> Iterator[None]:
        """Share the store with those who read and write, or have it alone; a dead process holds nothing.

        Nobody comes in while somebody waits to be alone. So nothing may be held by who asks again.
        """
        while True:
            with self._locked(fcntl.LOCK_EX if alone else fcntl.LOCK_SH):
                if not self._index.stale() or self._index.open(alone):
                    yield
                    return
            alone = True  # only so the index can be made

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with _opened(self._root / "lock") as lock:
            with _opened(self._root / "turn") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX | (how & fcntl.LOCK_NB))
                fcntl.flock(lock, how)
            yield


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _beside(one: Place, other: Place) -> bool:
    return one.pack == other.pack and one.start + one.length == other.start


def _read_at(path: Path, start: int, length: int) -> memoryview:
    """Bytes of a file; fewer when it ends, or when the disk cannot read them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return memoryview(os.pread(descriptor, length, start))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return memoryview(b"")
    finally:
        os.close(descriptor)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(str(error), what=what) from error
        raise ReuseError(f"{what}: {error.strerror or error}") from error
