"""This file prints how long a dossier takes: 34,000 outcomes and 60,000 requests of one test, read from SQLite.

Rules. The controller and the law are real, and so is the ledger's file of requests and outcomes; git, the gateway and
the processes are fakes. Seconds are the processor's, for a machine that others use makes those of the clock worthless.
Each document is checked afterwards as `dossier verify` does. Run: python bench/dossier.py
"""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.core import dossier
from branchline.core import lifecycle as law
from branchline.core.dossier_page import page
from branchline.core.spec import Metric
from branchline.engine.documenting import Dossiers
from branchline.ports import Outcome, Served
from tests.world import MODEL, SAM, World

UNITS, REQUESTS, BATCH, ROUNDS = 34_000, 60_000, 1000, 5
GOAL = 2.0  # seconds
CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "").replace("mde = 1,", "mde = 0.008,")


def played(world: World, observations: SqliteObservations) -> None:
    """A test that nobody won, until somebody said so."""
    old, new = world.released(toml=CALM), world.testing(toml=CALM)
    shown, dice, at = world.router.shown("housing")[1], random.Random(7), world.clock.now()
    arms = [dice.choice((old, new)) for _ in range(UNITS)]
    for start in range(0, REQUESTS, BATCH):
        lines = [
            Served("housing", f"v{n % UNITS}", f"q{n}", arms[n % UNITS], arms[n % UNITS], shown.experiment, shown.table,
                   503 if dice.random() < 0.01 else 200, "", 0.01, at + 0.1 * n)
            for n in range(start, min(start + BATCH, REQUESTS))
        ]  # fmt: skip
        observations.take(lines, str(start))
        new_ones = [each for each in lines if int(each.request[1:]) < UNITS]
        outcomes = [Outcome("housing", 4 + 2 * dice.random(), each.unit) for each in new_ones]
        metric = Metric(name="rating", bounds=(0.0, 10.0), mde=0.008, window=10.0)
        observations.report(outcomes, {"housing": metric}, at=at + 0.1 * start)
    world.clock.advance(0.1 * REQUESTS + 10)
    world.record(law.Won(SAM, reason="challenger: the bench says so"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "state")
        observations = SqliteObservations(SqliteFile(Path(folder) / "ledger.sqlite3"))
        played(world, observations)
        dossiers = Dossiers(replace(world.ports, observations=observations), world.controller.desk)
        took = []
        for _ in range(ROUNDS):
            start = process_time()
            made = dossiers.dossier("housing@1.1.0")
            took.append(process_time() - start)
        start = process_time()
        said = len(page(made))
        drawn = process_time() - start
        start = process_time()
        differences = dossier.differences(made)
        checked = process_time() - start
    units = made["measurement"]["answer"]["units"]
    assert sum(units) == UNITS, units
    print(f"{UNITS:,} outcomes, {REQUESTS:,} requests: {min(took):.2f} to {max(took):.2f} s, asked at most {GOAL:.0f}")
    print(f"its page, {said / 1000:.0f} kB: {drawn:.2f} s")
    print(f"its check: {checked:.2f} s, {len(differences)} difference: the verdict was made up here")


if __name__ == "__main__":
    main()
