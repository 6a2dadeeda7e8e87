"""This file keeps the recorded state of all services: the Ledger port on SQLite.

Rules: event, new state and audit row are one transaction. Each audit row's chain is the SHA-256 of the chain before it
and of everything that was recorded, the state's digest included: changing or removing one row breaks all that follow
(I15). What changes a state but has no row of its own here does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from sqlalchemy import Table, bindparam, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.engine import Connection, Row

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_tables import audit, epoch, event, service
from branchline.core.records import from_json, to_json
from branchline.core.service import Service
from branchline.errors import DiskFull, LedgerBroken, Stale, UnknownService
from branchline.ports import Entry

# Events that may use the room kept for an emergency (F55): they only take away traffic.
URGENT = frozenset({"Aborted", "Breached", "RolledBack", "Withdrew", "Frozen"})

RESTORED = "Restored"  # not an event of the law: the record itself was put back to an older one

NEW_EPOCH = insert(epoch).values(number=None)
EPOCH = select(func.max(epoch.c.number))
NAMES = select(service.c.name).order_by(service.c.name)
STATE = select(service.c.state).where(service.c.name == bindparam("name"))
STATES = select(service.c.name, service.c.generation, service.c.state)
GENERATION = select(service.c.generation).where(service.c.name == bindparam("name"))
KEEP_STATE = upsert(service)
KEEP_STATE = KEEP_STATE.on_conflict_do_update(
    index_elements=[service.c.name],
    set_={"generation": KEEP_STATE.excluded.generation, "state": KEEP_STATE.excluded.state},
)
LAST = select(audit.c.number, audit.c.chain).order_by(audit.c.number.desc()).limit(1)
ENTRIES = select(event, audit.c.actor, audit.c.because, audit.c.at, audit.c.state, audit.c.chain).join(audit)
NEWEST = ENTRIES.order_by(event.c.number.desc()).limit(bindparam("limit"))
EVENTS = select(func.count()).select_from(event)


class SqliteLedger:
    """The Ledger port."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._states: dict[str, Service] = {}  # as they are in the file, which nobody else writes

    def take_over(self) -> int:
        """Begin a new epoch and return it; each call returns a larger one. Not idempotent."""
        with self._file.writing("the takeover") as connection:
            (number,) = connection.execute(NEW_EPOCH).inserted_primary_key or (0,)
        return int(number)

    def epoch(self) -> int:
        """The newest epoch; 0 before the first."""
        with self._file.reading() as connection:
            return connection.execute(EPOCH).scalar_one() or 0

    def ready(self, seconds: float) -> None:
        """Return once something could be recorded; raises LedgerBusy after so many seconds."""
        self._file.ready(seconds)

    def services(self) -> tuple[str, ...]:
        """The names of all known services, sorted."""
        with self._file.reading() as connection:
            return tuple(connection.execute(NAMES).scalars())

    def service(self, name: str) -> Service:
        """The recorded state; raises UnknownService, and LedgerBroken when the state cannot be read."""
        if name in self._states:
            return self._states[name]
        with self._file.reading() as connection:
            text = connection.execute(STATE, {"name": name}).scalar_one_or_none()
        if text is None:
            raise UnknownService(name=name)
        try:
            return self._states.setdefault(name, from_json(json.loads(text)))
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerBroken(f"the state of {name}: {error}") from error

    def record(self, after: Service, event: Mapping[str, Any], *, actor: str, because: str, at: float) -> Entry:
        """Write event, new state and audit row in one transaction; raises Stale, DiskFull (and then wrote nothing)."""
        try:
            return self._record(after, event, actor, because, at)
        except DiskFull:
            if event["type"] in URGENT and self._file.release_reserve():
                return self._record(after, event, actor, because, at)
            raise

    def history(self, service: str = "", *, limit: int = 50, before: int = 0) -> tuple[Entry, ...]:
        """Entries, newest first; `before` is an entry number to page on."""
        asked = NEWEST
        if service:  # in the order of its own index
            asked = asked.where(event.c.service == service).order_by(None).order_by(event.c.generation.desc())
        if before:
            asked = asked.where(event.c.number < before)
        with self._file.reading() as connection:
            return tuple(_entry(row) for row in connection.execute(asked, {"limit": limit}))

    def verify_chain(self, number: int = 0, chain: str = "") -> int:
        """Read the whole audit again and return how many entries it has; raises LedgerBroken naming the first bad one.

        `number` and `chain` are an entry that was written down elsewhere: it must still be there, word for word.
        """
        before, count = "", 0
        states: dict[str, tuple[int, str]] = {}
        with self._file.reading() as connection:
            for row in connection.execute(ENTRIES.order_by(event.c.number)):
                count += 1
                if row.number != count or row.chain != _chain(before, row._asdict()):
                    raise LedgerBroken(f"entry {count} is not what was recorded")
                if row.number == number and row.chain != chain:
                    raise LedgerBroken(f"entry {number} is not the one that was written down")
                before, states[row.service] = row.chain, (row.generation, row.state)
            kept = {row.name: (row.generation, _digest(row.state)) for row in connection.execute(STATES)}
            events = connection.execute(EVENTS).scalar_one()
        if events != count or count < number:
            raise LedgerBroken(f"there are {events} events, {count} audited, at least {number} expected")
        for name in sorted(states.keys() | kept.keys()):
            if states.get(name) != kept.get(name):
                raise LedgerBroken(f"the state of {name} is not what was recorded last")
        return count

    def restore(self, name: str, default: str, generation: int, *, actor: str, because: str, at: float) -> Entry:
        """Let a service's generation jump and say so in the audit; raises Stale when it would not grow."""
        try:
            before = self.service(name)
        except UnknownService:
            before = Service(name, default=default)
        after = replace(before, generation=generation)
        return self._record(after, {"type": RESTORED, "generation": before.generation}, actor, because, at)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _record(self, after: Service, happened: Mapping[str, Any], actor: str, because: str, at: float) -> Entry:
        detail = {key: value for key, value in happened.items() if key != "type"}
        state = _canonical(to_json(after))
        with self._file.writing("the event") as connection:
            recorded = connection.execute(GENERATION, {"name": after.name}).scalar_one_or_none() or 0
            if after.generation != recorded + 1 and (happened["type"] != RESTORED or after.generation <= recorded):
                raise Stale(f"recorded is generation {recorded}, this is {after.generation}", service=after.name)
            number, chain = _last(connection)
            row: dict[str, Any] = {
                "number": number + 1, "service": after.name, "generation": after.generation, "type": happened["type"],
                "detail": _canonical(detail), "actor": actor, "because": because, "at": float(at),
                "state": _digest(state),
            }  # fmt: skip
            row["chain"] = _chain(chain, row)
            connection.execute(insert(event), {name: row[name] for name in _names(event)})
            connection.execute(insert(audit), {name: row[name] for name in _names(audit)})
            connection.execute(KEEP_STATE, {"name": after.name, "generation": after.generation, "state": state})
        self._states[after.name] = after
        return Entry(
            row["number"], after.name, after.generation, row["type"], detail, actor, because, row["at"], row["chain"]
        )


def _last(connection: Connection) -> tuple[int, str]:
    row = connection.execute(LAST).one_or_none()
    return (row.number, row.chain) if row else (0, "")


def _entry(row: Row[Any]) -> Entry:
    return Entry(
        row.number, row.service, row.generation, row.type, json.loads(row.detail),
        row.actor, row.because, row.at, row.chain,
    )  # fmt: skip


def _names(table: Table) -> list[str]:
    return [column.name for column in table.c]


def _chain(before: str, row: Mapping[str, Any]) -> str:
    """The chain of an entry: SHA-256 over the chain before it and its canonical row."""
    parts = ("number", "service", "generation", "type", "detail", "actor", "because", "at", "state")
    return _digest(_canonical([before, *(row[name] for name in parts)]))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _canonical(document: object) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
