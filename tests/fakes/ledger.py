"""This file fakes the Ledger port in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from branchline.core.records import from_json, to_json
from branchline.core.service import Service
from branchline.errors import DiskFull, LedgerBusy, Stale, UnknownService
from branchline.ports import Entry


class FakeLedger:
    """The Ledger port; `full` makes every write fail as a full disk does, `busy` says who holds it.

    `entries` is the audit.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.full = False
        self.busy = ""
        self._states: dict[str, str] = {}
        self._epoch = 0

    def take_over(self) -> int:
        """Begin a new epoch."""
        self._epoch += 1
        return self._epoch

    def epoch(self) -> int:
        """The newest epoch."""
        return self._epoch

    def ready(self, seconds: float) -> None:
        """Refuse while somebody holds it."""
        if self.busy:
            raise LedgerBusy(self.busy)

    def services(self) -> tuple[str, ...]:
        """The names of all known services, sorted."""
        return tuple(sorted(self._states))

    def service(self, name: str) -> Service:
        """The recorded state; raises UnknownService."""
        if name not in self._states:
            raise UnknownService(name=name)
        return from_json(json.loads(self._states[name]))

    def record(self, after: Service, event: Mapping[str, Any], *, actor: str, because: str, at: float) -> Entry:
        """Keep event and state; raises Stale."""
        recorded = self.service(after.name).generation if after.name in self._states else 0
        if after.generation != recorded + 1:
            raise Stale(service=after.name)
        if self.full:
            raise DiskFull(what="the event")
        detail = {key: value for key, value in event.items() if key != "type"}
        number = len(self.entries) + 1
        entry = Entry(number, after.name, after.generation, event["type"], detail, actor, because, at, f"{number:064x}")
        self._states[after.name] = json.dumps(to_json(after))
        self.entries.append(entry)
        return entry

    def restore(self, name: str, default: str, generation: int, *, actor: str, because: str, at: float) -> Entry:
        """Let the generation jump."""
        before = self.service(name) if name in self._states else Service(name, default=default)
        if generation <= before.generation:
            raise Stale(service=name)
        self._states[name] = json.dumps(to_json(replace(before, generation=generation)))
        number, detail = len(self.entries) + 1, {"generation": before.generation}
        entry = Entry(number, name, generation, "Restored", detail, actor, because, at, f"{number:064x}")
        self.entries.append(entry)
        return entry

    def history(self, service: str = "", *, limit: int = 50, before: int = 0) -> tuple[Entry, ...]:
        """Entries, newest first."""
        found = [
            entry
            for entry in reversed(self.entries)
            if service in ("", entry.service) and (not before or entry.number < before)
        ]
        return tuple(found[:limit])

    def close(self) -> None:
        """Nothing to let go of."""
