"""This file opens the one SQLite file that the ledger, the catalog and the observations share, and keeps it whole.

Rules: one process opens it (the daemon, under a lock of its own); in it one write connection, guarded by a lock. Every
write is a transaction that begins IMMEDIATE and is on the disk when it ends (FULL). WAL from SQLite 3.51.3 only:
before that, two connections could corrupt it (WAL-reset bug, 3.7.0 to 3.51.2); else a rollback journal, and reads go
through the write connection. A schema that is behind is brought up to date at once, after a copy of the file was made.
What SQLite says is translated here: LedgerBroken, LedgerBusy, DiskFull.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import URL, NullPool, create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import PoolProxiedConnection

from branchline.adapters import sqlite_schema
from branchline.core.codes import is_exhausted
from branchline.errors import DiskFull, Exhausted, LedgerBroken, LedgerBusy, LedgerError

DRIVER: ModuleType = sqlite3
with suppress(ImportError):  # a SQLite newer than the system's, where there is a wheel for it
    DRIVER = import_module("pysqlite3.dbapi2")

SAFE_WAL = (3, 51, 3)
RESERVE_BYTES = 1 << 20


class SqliteFile:
    """The open file. `writing` and `reading` are the only ways in.

    `driver` is a DB-API module like `sqlite3`; `revisions` are those of `sqlite_schema`; `max_pages` bounds the file
    (SQLite's max_page_count; 0: the disk does), `busy_seconds` is how long another process is waited for.
    """

    def __init__(
        self,
        path: Path,
        *,
        driver: ModuleType = DRIVER,
        revisions: tuple[sqlite_schema.Revision, ...] = sqlite_schema.REVISIONS,
        max_pages: int = 0,
        busy_seconds: float = 5.0,
    ) -> None:
        self.path = path
        self.busy_seconds = busy_seconds
        self.wal = tuple(driver.sqlite_version_info) >= SAFE_WAL
        self._lock = threading.RLock()
        self._reserve = path.with_name(path.name + ".reserve")
        pragmas = [f"journal_mode={'wal' if self.wal else 'delete'}", "synchronous=full", "foreign_keys=on"]
        pragmas += ["mmap_size=0", *([f"max_page_count={max_pages}"] if max_pages else [])]
        with self._told("the ledger"):
            # Made 0600 before SQLite opens it: what it adds beside takes over the mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
            self._engine = _engine(path, driver, "begin immediate", pragmas, busy_seconds)
            self._readers = _engine(path, driver, "begin", ["query_only=on"], busy_seconds) if self.wal else None
            self._writer = self._engine.connect()
            self._bring_up_to_date(revisions)
        self._keep_reserve()

    @contextmanager
    def writing(self, what: str = "the event") -> Iterator[Connection]:
        """A write transaction: all of it or nothing, on the disk at its end; one at a time. DiskFull names `what`."""
        with self._lock, self._told(what), self._writer.begin():
            yield self._writer

    def ready(self, seconds: float) -> None:
        """Return once a write could begin; raises LedgerBusy when another holds the file for so many seconds."""
        deadline = time.monotonic() + seconds
        if not self._lock.acquire(timeout=seconds):
            raise LedgerBusy(f"{self.path}: a write before it has not ended")
        try:
            with self._told("nothing"):
                self._wait_for(max(0.0, deadline - time.monotonic()))
                with self._writer.begin():
                    pass
        finally:
            self._wait_for(self.busy_seconds)
            self._lock.release()

    def _wait_for(self, seconds: float) -> None:
        connection: Any = self._writer.connection.driver_connection
        connection.execute(f"pragma busy_timeout={round(seconds * 1000)}").close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view; in WAL it waits for no writer."""
        if self._readers is None:
            with self.writing() as connection:
                yield connection
        else:
            with self._told("nothing"), self._readers.begin() as connection:
                yield connection

    def copy(self, path: Path) -> None:
        """Write a consistent copy of the file (SQLite's backup), for good when this returns."""
        with self._lock, self._told("the copy"):
            _copy(self._writer.connection, path)

    def trouble(self) -> str:
        """What SQLite finds wrong with the whole file; '' when it is well. Reads every page."""
        with self.reading() as connection:
            found = str(connection.exec_driver_sql("pragma integrity_check(1)").scalar_one())
        return "" if found == "ok" else found

    def release_reserve(self) -> bool:
        """Give the disk the room that was kept for an emergency; false when it has been given already."""
        with suppress(FileNotFoundError):
            self._reserve.unlink()
            return True
        return False

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._writer.close()
            if self._readers is not None:
                self._readers.dispose()
            self._engine.dispose()

    def _bring_up_to_date(self, revisions: tuple[sqlite_schema.Revision, ...]) -> None:
        with self._writer.begin():
            found = sqlite_schema.found(self._writer)
            missing = sqlite_schema.missing(found, revisions)
        if missing and found:
            _copy(self._writer.connection, self.path.with_name(f"{self.path.name}.before-{missing[-1][0]}"))
        if missing:
            with self._writer.begin():
                sqlite_schema.bring(self._writer, missing)

    def _keep_reserve(self) -> None:
        """Room that is let go when the disk is full, so that an abort can still be recorded (F55)."""
        with suppress(OSError):
            if not self._reserve.exists() or self._reserve.stat().st_size < RESERVE_BYTES:
                self._reserve.write_bytes(b"\0" * RESERVE_BYTES)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except IntegrityError as error:
            raise LedgerError(str(error.orig)) from error
        except DBAPIError as error:
            raise self._translated(str(error.orig), what) from error
        except OSError as error:
            raise LedgerBroken(f"{self.path}: {error.strerror}") from error

    def _translated(self, said: str, what: str) -> LedgerError:
        if "is full" in said:
            return DiskFull(said, what=what)
        if "locked" in said:
            return LedgerBusy(f"{self.path}: {said}")
        if "unable to open" in said:
            try:
                os.close(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as why:
                if is_exhausted(why):
                    return Exhausted(said)
        return LedgerBroken(f"{self.path}: {said}")


def _engine(path: Path, driver: ModuleType, begin: str, pragmas: list[str], busy_seconds: float) -> Engine:
    """An engine whose transactions begin as they are told to; the driver's own habit is switched off."""
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        module=driver,
        connect_args={"check_same_thread": False, "timeout": busy_seconds},
        **({"poolclass": NullPool} if begin != "begin" else {}),
    )

    @event.listens_for(engine, "connect")
    def _opened(connection: Any, _: object) -> None:
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"pragma {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _copy(source: PoolProxiedConnection, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    connection: Any = source.driver_connection
    target = type(connection)(str(part))
    try:
        connection.backup(target)
    finally:
        target.close()
    part.chmod(0o600)
    _settle(part)
    part.replace(path)
    _settle(path.parent)


def _settle(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
