"""This file finds objects in packs: a SQLite file that says which pack holds which digest, made of the packs' tables.

Rules. It is a memory: the packs are the truth, and a damaged or lost index is made anew from them. A pack's rows are
written after the pack is on the disk. Who dies in between, or between a pack's end and that of its rows, is made good
by `sync`, which every opening does, and whoever misses a pack. Rows are removed by whoever holds the store alone, for
what has no row is not referred to by a put.
A copy that was found damaged is marked in `damaged/`, has no row, and is written again by the next put of it (F40).
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from branchline.adapters.folder_packs import SUFFIX, BrokenPack, Packed, table
from branchline.errors import ReuseError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL,
    whole INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS objects (digest BLOB PRIMARY KEY, pack INTEGER NOT NULL, start INTEGER NOT NULL,
    length INTEGER NOT NULL, manifest INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS manifests ON objects (pack) WHERE manifest;
CREATE TEMP TABLE live (digest BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_FIND = """SELECT digest, name, size, start, length FROM objects JOIN packs ON number = pack WHERE digest IN ({})"""
_NAMED = "(SELECT number FROM packs WHERE name IN (SELECT value FROM json_each(?)))"
_HITS, _REMEMBERED = 100, 100_000  # found in a pack until all of it is read, and objects in memory
_FEW, _MANY = 8, 128  # one of two statements: each is prepared once
_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_IOERR}


class Place(NamedTuple):
    """Where an object lies: in which pack, of which size, from where, how long."""

    pack: str
    size: int
    start: int
    length: int


class Index:
    """The index of one store; threads and processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._packs, self._damaged = root / "packs", root / "damaged"
        self._path, self._suspect = root / "index.sqlite3", root / "index.damaged"
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)

    def stale(self) -> bool:
        """Whether it has to be opened first: it never was, was found damaged, or somebody has made it anew."""
        return self._db is None or self._suspect.exists() or self._file != _identity(self._path)

    def open(self, alone: bool) -> bool:
        """Open it and bring it up to date; False when there is none or it is damaged: who makes one holds the store
        `alone`, for of two that make it at once SQLite turns one away.
        """
        with self._lock:
            if not self.stale():
                return True
            if self._db is not None:
                self._db.close()
                self._db = None
            if not alone and (self._suspect.exists() or not _is_made(self._path)):
                return False
            if self._suspect.exists():
                self._discard()
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF not in _CORRUPT:
                    raise _told(error) from error
            else:
                return True
            if not alone:
                return False
            self._discard()
            try:
                self._connect()
            except sqlite3.DatabaseError as error:
                raise _told(error) from error
            return True

    def find(self, digests: Sequence[bytes]) -> dict[bytes, Place]:
        """Where objects lie; those that are not here are left out."""
        found: dict[bytes, Place] = {}
        with self._asked() as db:
            for begin in range(0, len(digests), _MANY):
                asked = digests[begin : begin + _MANY]
                width = _FEW if len(asked) <= _FEW else _MANY
                padded = [*asked, *[asked[-1]] * (width - len(asked))]
                rows = db.execute(_FIND.format(",".join("?" * width)), padded)
                found.update((row[0], Place(*row[1:])) for row in rows)
        return found

    def add(self, name: str, objects: Iterable[Packed], written: bool = False, again: bool = False) -> None:
        """Take up a pack that is on the disk. It was `written` just now, then no copy in it is damaged any more; of
        objects that lie elsewhere, too, the old place counts unless they were written `again`.
        """
        marked = {mark for mark in self._marks() if mark.endswith(name)}
        if written:
            for mark in marked:
                (self._damaged / mark).unlink(missing_ok=True)
            marked.clear()
        size = (self._packs / f"{name}{SUFFIX}").stat().st_size
        rows = sorted((each.digest, each.start, each.length, each.manifest) for each in objects)
        good = [row for row in rows if _mark(row[0], name) not in marked] if marked else rows
        with self._changed() as db:
            text = """INSERT INTO packs (name, size, whole) VALUES (?, ?, ?) ON CONFLICT DO
                UPDATE SET size = excluded.size, whole = excluded.whole"""
            db.execute(text, (name, size, len(good) == len(rows)))
            (number,) = db.execute("SELECT number FROM packs WHERE name = ?", (name,)).fetchone()
            verb = "REPLACE" if again else "IGNORE"
            db.executemany(f"INSERT OR {verb} INTO objects VALUES (?, {number}, ?, ?, ?)", good)

    def beside(self, pack: str) -> list[tuple[bytes, Place]]:
        """All that lies in a pack, when all of it may be referred to; else nothing."""
        with self._asked() as db:
            found = db.execute("SELECT size, whole FROM packs WHERE name = ?", (pack,)).fetchone()
        if not found or not found[1]:
            return []
        with suppress(BrokenPack, OSError):
            objects = table(self._packs / f"{pack}{SUFFIX}")
            return [(each.digest, Place(pack, found[0], each.start, each.length)) for each in objects]
        return []

    def sync(self) -> None:
        """Take up the packs that it does not know, and forget those that are gone or were cut."""
        with self._asked() as db:  # first what it knows, then what is there: else a new pack would seem to be gone
            known = dict(db.execute("SELECT name, size FROM packs").fetchall())
        there = dict(packs(self._packs))
        self.forget([name for name in known if there.get(name) != known[name]])
        for name in there:
            if known.get(name) == there[name]:
                continue
            objects: list[Packed] = []  # of a broken one nothing is known; a sweep removes it
            with suppress(BrokenPack, OSError):
                objects = table(self._packs / f"{name}{SUFFIX}")
            with suppress(FileNotFoundError):
                self.add(name, objects)

    def forget(self, names: Sequence[str]) -> None:
        """Remove the rows of packs."""
        if not names:
            return
        with self._changed() as db:
            db.execute(f"DELETE FROM objects WHERE pack IN {_NAMED}", (json.dumps(names),))
            db.execute(f"DELETE FROM packs WHERE number IN {_NAMED}", (json.dumps(names),))

    def quarantine(self, digest: bytes, pack: str) -> None:
        """Refer no more to this copy of an object: it is not what its name promises."""
        (self._damaged / _mark(digest, pack)).touch(mode=0o600)
        with self._changed() as db:
            text = "DELETE FROM objects WHERE digest = ? AND pack = (SELECT number FROM packs WHERE name = ?)"
            db.execute(text, (digest, pack))
            db.execute("UPDATE packs SET whole = 0 WHERE name = ?", (pack,))

    def manifests(self) -> list[tuple[bytes, Place]]:
        """The manifests, and where they lie."""
        text = "SELECT digest, name, size, start, length FROM objects JOIN packs ON number = pack WHERE manifest"
        with self._asked() as db:
            return [(row[0], Place(*row[1:])) for row in db.execute(text)]

    def keep(self, digests: Iterable[bytes]) -> None:
        """Mark objects as needed, for `weighed` and `prune`; marks are this connection's."""
        with self._changed() as db:
            db.executemany("INSERT OR IGNORE INTO live VALUES (?)", ((digest,) for digest in digests))

    def weighed(self) -> dict[str, int]:
        """Pack -> bytes of it that are needed, their lines in the table included."""
        text = """SELECT name, coalesce(sum(length + 36), 0) FROM packs LEFT JOIN
            (SELECT pack, length FROM objects WHERE digest IN live) ON pack = number GROUP BY name"""
        with self._asked() as db:
            return {name: int(size) for name, size in db.execute(text)}

    def prune(self, names: Sequence[str]) -> None:
        """Remove the rows of what is not needed in these packs."""
        with self._changed() as db:
            text = f"DELETE FROM objects WHERE pack IN {_NAMED} AND digest NOT IN live RETURNING pack"
            cut = set(db.execute(text, (json.dumps(names),)))
            db.executemany("UPDATE packs SET whole = 0 WHERE number = ?", cut)

    def unmark(self) -> None:
        """Forget which objects are needed, and the damaged copies of packs that are gone."""
        with self._changed() as db:
            db.execute("DELETE FROM live")
        there = {name for name, _ in packs(self._packs)}
        for mark in self._marks():
            if mark.partition(".")[2] not in there:
                (self._damaged / mark).unlink(missing_ok=True)

    # ---- the file

    def _connect(self) -> None:
        db = sqlite3.connect(self._path, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")  # whole after a power cut; what is missing then, `sync` adds
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        self._db, self._file = db, _identity(self._path)
        self.sync()

    def _discard(self) -> None:
        for path in (self._path, *(Path(f"{self._path}-{part}") for part in ("wal", "shm")), self._suspect):
            path.unlink(missing_ok=True)

    @contextmanager
    def _asked(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            assert self._db is not None, "open it first"
            try:
                yield self._db
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode & 0xFF in _CORRUPT:
                    self._suspect.touch(mode=0o600)
                raise _told(error) from error

    @contextmanager
    def _changed(self) -> Iterator[sqlite3.Connection]:
        with self._asked() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _marks(self) -> frozenset[str]:
        return frozenset(os.listdir(self._damaged))


class Near:
    """Finds objects during one operation, in which nothing is removed: content that is met again is met in the order in
    which it was packed, so what lies beside what was found is looked up once for all.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._hits: dict[str, int] = {}
        self._known: dict[bytes, Place] = {}

    def find(self, digests: Sequence[bytes]) -> dict[bytes, Place]:
        """Where objects lie; those that are not here are left out."""
        known = self._known
        found = {digest: known[digest] for digest in digests if digest in known}
        if len(found) < len(digests):
            asked = self._index.find([digest for digest in digests if digest not in found])
            for pack in {place.pack for place in asked.values()}:
                self._hits[pack] = self._hits.get(pack, 0) + len(asked)
                if self._hits[pack] >= _HITS:
                    self._hits[pack] = -(1 << 62)  # once
                    kept = self._known if len(self._known) < _REMEMBERED else {}
                    self._known = kept | dict(self._index.beside(pack))
            found |= asked
        return found


def packs(folder: Path) -> Iterator[tuple[str, int]]:
    """The packs in a folder: name and size."""
    with suppress(FileNotFoundError), closing(os.scandir(folder)) as entries:
        for entry in entries:
            if entry.name.endswith(SUFFIX):
                with suppress(FileNotFoundError):
                    yield entry.name.removesuffix(SUFFIX), entry.stat().st_size


def _mark(digest: bytes, pack: str) -> str:
    return f"{digest.hex()}.{pack}"


def _is_made(path: Path) -> bool:
    """Whether it is a file of SQLite with a write-ahead log: bytes 18 and 19 of its header say so."""
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(20)[18:] == b"\2\2"
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_dev, found.st_ino


def _told(error: sqlite3.DatabaseError) -> Exception:
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, str(error))
    return ReuseError(f"the index of the artifact store: {error}; it is made anew when next it is used")
