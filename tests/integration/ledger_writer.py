"""This file is the process that tests kill: it writes into a ledger as fast as it can and says what was acknowledged.

A victim (`tests.victims`). A line is printed only after the call it tells of returned.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.core.service import Service
from branchline.core.spec import Metric
from branchline.errors import UnknownService
from branchline.ports import Outcome, Served

METRICS = {"shop": Metric("bought", "binary")}
BATCH = 5


def main(path: str) -> None:
    """Write until killed."""
    file = SqliteFile(Path(path))
    ledger, observations = SqliteLedger(file), SqliteObservations(file)
    try:
        generation = ledger.service("shop").generation
    except UnknownService:
        generation = 0
    print("epoch", ledger.take_over(), flush=True)
    for number in count(generation + 1):
        state = Service("shop", generation=number, slots=number)
        ledger.record(state, {"type": "Configured", "slots": number}, actor="t", because="x" * 200, at=number)
        print("event", number, flush=True)
        start = int(observations.position() or 0)
        observations.take([line(start + n) for n in range(BATCH)], str(start + BATCH))
        print("position", start + BATCH, flush=True)
        said = [Outcome("shop", n % 2, unit=f"u{start + n}") for n in range(BATCH)]
        assert {each.word for each in observations.report(said, METRICS, at=start)} == {"kept"}
        print("outcome", start + BATCH, flush=True)


def line(number: int) -> Served:
    """The request number `number` of the gateway's log, each of a unit of its own."""
    return Served("shop", f"u{number}", f"r{number}", "a", "a", "e", 1, 200, "", 0.01, float(number))
