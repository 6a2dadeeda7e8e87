"""This file tests what only real SQLite does: kills, torn schemas, tampering, a full disk, old and new files."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import inspect

from branchline.adapters import sqlite_schema
from branchline.adapters.sqlite import DRIVER, SAFE_WAL, SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.adapters.sqlite_looks import SqliteLooks
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.adapters.sqlite_tables import APPEND_ONLY, metadata
from branchline.core.counters import Look
from branchline.core.revision import GateResult, Measure, Result, Revision, StepRun
from branchline.core.service import Service
from branchline.errors import DiskFull, LedgerBroken, LedgerBusy, LedgerError, LedgerNewer
from tests.victims import victims_of
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20


class Older(ModuleType):
    """The driver as it was before the WAL-reset bug was mended."""

    def __init__(self) -> None:
        super().__init__("older")
        self.__dict__.update({name: value for name, value in vars(DRIVER).items() if not name.startswith("__")})
        self.sqlite_version_info = (3, 51, 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture(params=["wal", "delete"])
def ledger(request: pytest.FixtureRequest, path: Path) -> Iterator[SqliteLedger]:
    made = SqliteLedger(SqliteFile(path, driver=DRIVER if request.param == "wal" else Older()))
    yield made
    made.close()


def record(ledger: SqliteLedger, generation: int, because: str = "", kind: str = "Configured") -> None:
    state = Service("shop", generation=generation, slots=generation)
    ledger.record(state, {"type": kind, "slots": generation}, actor="t", because=because, at=generation)


def plain(path: Path) -> closing[sqlite3.Connection]:
    return closing(DRIVER.connect(str(path), isolation_level=None))


# ---- how it is opened


def test_wal_only_from_the_sqlite_in_which_it_is_safe(path: Path) -> None:
    def mode() -> str:
        with plain(path) as connection:
            return str(connection.execute("pragma journal_mode").fetchone()[0])

    SqliteFile(path, driver=Older()).close()
    assert mode() == "delete"
    if DRIVER.sqlite_version_info < SAFE_WAL:
        pytest.skip("this machine's SQLite is an old one")
    SqliteFile(path).close()
    assert mode() == "wal"
    SqliteFile(path, driver=Older()).close()
    assert mode() == "delete"


def test_every_commit_waits_for_the_disk(path: Path) -> None:
    file = SqliteFile(path)
    with file.writing() as connection:
        assert connection.exec_driver_sql("pragma synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("pragma foreign_keys").scalar_one() == 1
    file.close()


def test_only_its_owner_reads_the_file(path: Path) -> None:
    file = SqliteFile(path)
    ledger = SqliteLedger(file)
    record(ledger, 1)
    modes = {each.name: oct(each.stat().st_mode & 0o777) for each in path.parent.iterdir()}
    assert {name: mode for name, mode in modes.items() if not name.endswith(".reserve")} == {
        each.name: "0o600" for each in path.parent.glob("ledger.sqlite3*") if not each.name.endswith(".reserve")
    }
    ledger.close()


def test_reading_cannot_write(path: Path) -> None:
    file = SqliteFile(path)
    if file.wal:
        with pytest.raises(LedgerBroken, match="cannot be read"), file.reading() as connection:
            connection.exec_driver_sql("insert into reader values ('x', 'y')")
    file.close()


def test_a_reader_waits_for_no_writer_in_wal(path: Path) -> None:
    file = SqliteFile(path)
    ledger = SqliteLedger(file)
    record(ledger, 1)
    seen: list[int] = []
    if file.wal:
        with file.writing() as connection:
            connection.exec_driver_sql("update service set generation = 9")
            thread = threading.Thread(target=lambda: seen.append(ledger.service("shop").generation))
            thread.start()
            thread.join(timeout=60)
            assert seen == [1]
            connection.exec_driver_sql("update service set generation = 1")
    ledger.close()


def test_another_writer_is_busy_and_worth_trying_again_F53(path: Path) -> None:
    ledger = SqliteLedger(SqliteFile(path, busy_seconds=0.1))
    with plain(path) as other:
        other.execute("begin immediate")
        with pytest.raises(LedgerBusy) as told:
            record(ledger, 1)
        other.execute("rollback")
    assert told.value.transient
    record(ledger, 1)
    ledger.close()


@pytest.mark.parametrize("driver", [DRIVER, Older()], ids=["wal", "delete"])
def test_who_has_no_time_is_told_at_once_that_another_holds_it(path: Path, driver: ModuleType) -> None:
    """1.52. Killer: wait as long for it as any other write does: here for a minute."""
    ledger = SqliteLedger(SqliteFile(path, driver=driver, busy_seconds=60.0))
    record(ledger, 1)
    with plain(path) as other:
        other.execute("begin exclusive")
        begun = time.monotonic()
        with pytest.raises(LedgerBusy) as told:
            ledger.ready(0.1)
        assert "locked" in told.value.cause
        assert time.monotonic() - begun < 30
        waiting = threading.Thread(target=record, args=(ledger, 2))
        waiting.start()
        other.execute("rollback")
    waiting.join()
    assert ledger.service("shop").generation == 2, "every other write waits as before"
    ledger.ready(0.1)
    ledger.close()


def test_who_has_no_time_waits_for_no_write_of_our_own_either(path: Path) -> None:
    """1.52: that one may be what waits for another process."""
    file = SqliteFile(path)
    begun, over = threading.Event(), threading.Event()

    def write() -> None:
        with file.writing():
            begun.set()
            over.wait(60)

    writing = threading.Thread(target=write)
    writing.start()
    begun.wait(60)
    with pytest.raises(LedgerBusy) as told:
        file.ready(0.1)
    assert "has not ended" in told.value.cause
    over.set()
    writing.join()
    file.ready(0.1)
    file.close()


# ---- nothing is lost, nothing is torn


def test_kill_9_at_any_moment_loses_nothing_acknowledged_M7_I16(path: Path) -> None:
    seeded = random.Random(7)
    acknowledged: dict[str, set[int]] = {"epoch": set(), "event": {0}, "position": {0}, "outcome": set()}
    with victims_of("tests.integration.ledger_writer") as begin:
        for _ in range(KILLS):
            writer = begin(str(path))
            assert wait_until(partial(writer.has_told, seeded.randrange(1, 60)), every=0.001)
            assert not writer.has_ended
            writer.kill()
            for what, number in (line.split() for line in writer.lines):
                acknowledged[what].add(int(number))
            whole(path, acknowledged)
    assert acknowledged["epoch"] == set(range(1, KILLS + 1))


def whole(path: Path, acknowledged: dict[str, set[int]]) -> None:
    """What is in the file is sound, and holds at least what was acknowledged."""
    file = SqliteFile(path)
    ledger, observations = SqliteLedger(file), SqliteObservations(file)
    assert file.trouble() == ""
    generation = ledger.service("shop").generation
    assert generation == ledger.service("shop").slots == ledger.verify_chain() >= max(acknowledged["event"])
    position = int(observations.position() or 0)
    assert position >= max(acknowledged["position"])
    seen = observations.matured("shop", "e", after=0, until=9e9, window=86400)
    assert [each.unit for each in seen] == [f"u{n}" for n in range(position)]
    counts = observations.counts("shop", "e")
    if position:
        assert counts["a"]["units"] == counts["a"]["requests"] == position
        assert counts["a"]["outcomes"] == sum(each.value is not None for each in seen)
        kept = {number for number, each in enumerate(seen) if each.value == number % 5 % 2}
        assert kept >= {number - n for number in acknowledged["outcome"] for n in range(1, 6)}
    file.close()


def test_a_transaction_that_fails_leaves_nothing(ledger: SqliteLedger, path: Path) -> None:
    record(ledger, 1)
    with pytest.raises(ValueError, match="JSON"):
        ledger.record(Service("shop", generation=2), {"type": "X", "nan": float("nan")}, actor="", because="", at=1)
    nobody: Any = None
    with pytest.raises(LedgerError):
        ledger.record(Service("shop", generation=2), {"type": "X"}, actor=nobody, because="", at=1)
    assert ledger.verify_chain() == 1
    record(ledger, 2)
    assert ledger.verify_chain() == 2


@pytest.mark.parametrize("table", [table.name for table in APPEND_ONLY])
@pytest.mark.parametrize("verb", ["update", "delete"])
def test_facts_cannot_be_changed_or_deleted_I15(path: Path, table: str, verb: str) -> None:
    file = SqliteFile(path)
    record(SqliteLedger(file), 1)
    catalog = SqliteCatalog(file)
    catalog.add(Revision("shop", "a" * 40, "", "b", "t", "e", "s", "{}"), "minor", 0)
    catalog.keep_gates("shop", "a" * 40, [GateResult("g", Result.PASS, "")])
    catalog.keep_run("shop", "a" * 40, [StepRun("s", "ran", "k", "x", metrics=(Measure("m", 1.0),))])
    SqliteLooks(file).keep("shop", "e", ("old", "new"), Look(0, "g", 1.0, (1.0, 0.0), (1.0, 0.0)))
    file.close()
    column = {"audit": "actor", "event": "detail", "version": "version", "measure": "name"}.get(table, "service")
    with plain(path) as connection, pytest.raises(DRIVER.DatabaseError, match="append-only"):
        connection.execute(f"update {table} set {column} = 'x'" if verb == "update" else f"delete from {table}")


TAMPERING = {
    "detail": "update event set detail = '{}' where number = 2",
    "type": "update event set type = 'Other' where number = 2",
    "actor": "update audit set actor = 'mallory' where number = 2",
    "because": "update audit set because = 'no' where number = 2",
    "time": "update audit set at = at + 0.001 where number = 2",
    "chain": "update audit set chain = 'x' where number = 2",
    "generation": "update event set generation = 77 where number = 2",
    "state": "update service set state = replace(state, '\"slots\":5', '\"slots\":6')",
    "state's generation": "update service set generation = 4",
    "a lost service": "delete from service",
    "an unknown service": "insert into service values ('other', 1, '{}')",
    "a lost row": "delete from audit where number = 2; delete from event where number = 2",
    "a lost end": "delete from audit where number = 5; delete from event where number = 5",
    "an event without audit": "insert into event values (6, 'shop', 6, 'X', '{}')",
    "swapped": "update audit set actor = case number when 1 then 'a2' else 'a1' end where number < 3",
}


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found_I15(path: Path, kind: str) -> None:
    ledger = SqliteLedger(SqliteFile(path))
    for generation in range(1, 6):
        state = Service("shop", generation=generation, slots=generation)
        ledger.record(state, {"type": "C", "n": generation}, actor=f"a{generation}", because="", at=generation)
    assert ledger.verify_chain() == 5
    ledger.close()
    with plain(path) as connection:
        for table in ("event", "audit"):
            for verb in ("update", "delete"):
                connection.execute(f"drop trigger {table}_no_{verb}")
        connection.executescript(TAMPERING[kind])
    ledger = SqliteLedger(SqliteFile(path))
    with pytest.raises(LedgerBroken):
        ledger.verify_chain()
    ledger.close()


def test_a_history_that_was_written_anew_is_found_by_an_entry_written_down_elsewhere_T15(path: Path) -> None:
    ledgers = [SqliteLedger(SqliteFile(path)), SqliteLedger(SqliteFile(path.with_name("forged.sqlite3")))]
    for ledger, because in zip(ledgers, ("truth", "lie"), strict=True):
        for generation in (1, 2, 3):
            record(ledger, generation, because=because)
    anchor = ledgers[0].history()[0]
    assert ledgers[0].verify_chain(anchor.number, anchor.chain) == 3
    with pytest.raises(LedgerBroken):
        ledgers[1].verify_chain(anchor.number, anchor.chain)
    with pytest.raises(LedgerBroken):
        ledgers[0].verify_chain(4, anchor.chain)
    for ledger in ledgers:
        ledger.close()


# ---- a full disk


def fill(ledger: SqliteLedger) -> None:
    for generation in range(1, 10_000):
        record(ledger, generation, because="x" * 2000)


def test_a_full_disk_is_said_and_leaves_the_ledger_whole_F55(path: Path) -> None:
    ledger = SqliteLedger(SqliteFile(path, max_pages=60))
    with pytest.raises(DiskFull):
        fill(ledger)
    generation = ledger.service("shop").generation + 1
    assert ledger.verify_chain() == generation - 1
    ledger.close()
    ledger = SqliteLedger(SqliteFile(path))
    record(ledger, generation)
    assert ledger.verify_chain() == generation
    ledger.close()


def test_an_abort_is_recorded_on_a_full_disk_from_the_room_kept_for_it_F55(path: Path) -> None:
    script = """
import sys
from pathlib import Path
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.core.service import Service
from branchline.errors import DiskFull
folder = Path(sys.argv[1])
ledger = SqliteLedger(SqliteFile(folder / "ledger.sqlite3"))
generation = 0
try:
    while True:
        generation += 1
        ledger.record(Service("shop", generation=generation), {"type": "Won"}, actor="", because="x" * 9999, at=1)
except DiskFull:
    pass
try:
    ledger.record(Service("shop", generation=generation), {"type": "Won"}, actor="", because="x" * 99999, at=1)
except DiskFull:
    print("full")
ledger.record(Service("shop", generation=generation), {"type": "Aborted"}, actor="", because="x" * 99999, at=1)
print(ledger.history()[0].event, ledger.verify_chain() == generation)
"""
    mounted = f'mount -t tmpfs -o size=4m none "{path.parent}" && exec "$0" -c "$1" "{path.parent}"'
    ran = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", mounted, sys.executable, script], cwd=ROOT, capture_output=True, text=True
    )
    if "unshare" in ran.stderr or "mount" in ran.stderr:
        pytest.skip("this machine lets nobody mount")
    assert ran.stdout.split() == ["full", "Aborted", "True"], ran.stderr


# ---- files of other times


def test_the_schema_that_revisions_make_is_the_one_the_tables_say(path: Path) -> None:
    file = SqliteFile(path)
    with file.writing() as connection:
        found = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)
        assert found == []
        for table in metadata.tables.values():  # what compare_metadata does not look at
            nullable = {each["name"]: each["nullable"] for each in inspect(connection).get_columns(table.name)}
            assert nullable == {column.name: column.nullable for column in table.columns}
    file.close()


def second(op: Operations) -> None:
    op.execute("create table later (x text)")


def broken(op: Operations) -> None:
    op.execute("create table later (x text)")
    op.execute("no sql at all")


def test_an_older_file_is_brought_up_to_date_after_a_copy_was_made_F59(path: Path) -> None:
    ledger = SqliteLedger(SqliteFile(path))
    record(ledger, 1)
    ledger.close()
    file = SqliteFile(path, revisions=(*sqlite_schema.REVISIONS, ("9999", second)))
    assert SqliteLedger(file).verify_chain() == 1
    with file.reading() as connection:
        assert "later" in inspect(connection).get_table_names()
        assert sqlite_schema.found(connection) == "9999"
    file.close()
    copy = path.with_name("ledger.sqlite3.before-9999")
    old = SqliteLedger(SqliteFile(copy))
    assert old.verify_chain() == 1
    old.close()


def test_a_migration_that_fails_changes_nothing_F59(path: Path) -> None:
    ledger = SqliteLedger(SqliteFile(path))
    record(ledger, 1)
    ledger.close()
    with pytest.raises(LedgerBroken):
        SqliteFile(path, revisions=(*sqlite_schema.REVISIONS, ("9999", broken)))
    file = SqliteFile(path)
    with file.reading() as connection:
        assert "later" not in inspect(connection).get_table_names()
    assert SqliteLedger(file).verify_chain() == 1
    file.close()


def test_a_newer_file_is_refused_and_left_alone_F59(path: Path) -> None:
    SqliteFile(path, revisions=(*sqlite_schema.REVISIONS, ("9999", second))).close()
    before = path.read_bytes()
    with pytest.raises(LedgerNewer) as told:
        SqliteFile(path)
    assert "9999" in told.value.message
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["noise", "cut", "folder", "flipped"])
def test_a_file_that_is_no_ledger_is_broken_F54(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    else:
        ledger = SqliteLedger(SqliteFile(path))
        record(ledger, 1)
        ledger.close()
        content = path.read_bytes()
        pages = {"noise": b"no database at all, " * 500, "cut": content[:5000]}
        path.write_bytes(pages.get(kind, content[:4096] + bytes(4096 * 8) + content[4096 * 9 :]))
    with pytest.raises(LedgerBroken):
        SqliteLedger(SqliteFile(path)).verify_chain()


def test_a_copy_is_whole_while_others_write(path: Path, tmp_path: Path) -> None:
    file = SqliteFile(path)
    ledger = SqliteLedger(file)
    thread = threading.Thread(target=lambda: list(map(partial(record, ledger), range(1, 60))))
    thread.start()
    assert wait_until(lambda: bool(ledger.services()))
    file.copy(tmp_path / "copy.sqlite3")
    thread.join()
    ledger.close()
    copied = SqliteLedger(SqliteFile(tmp_path / "copy.sqlite3"))
    assert 1 <= copied.verify_chain() <= 59
    copied.close()
