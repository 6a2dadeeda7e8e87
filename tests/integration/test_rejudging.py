"""This file tests that a verdict recorded in SQLite is found again from what SQLite kept (1.37, I16)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.engine.forecasting import Wish, forecast
from branchline.engine.rejudging import rejudged
from tests.world import ALEX, MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")


def test_what_sqlite_kept_is_judged_as_it_was(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "ledger.sqlite3")
    world, kept = World(tmp_path / "state"), SqliteObservations(file)
    world.ports = replace(world.ports, ledger=SqliteLedger(file), observations=kept)
    vars(world).update(observations=kept)
    world.restart()
    for branch, toml in ((ALEX, CALM), (SAM, "")):
        world.push(branch, toml)
        world.settle()
    old, new = world.service().line(1).incumbent or "", world.on(SAM).revision
    world.play(230, {old: lambda n: 3.0 + n % 3, new: lambda n: 3.9 + n % 3})
    world.clock.advance(86_400)
    world.visit(["a day later"])
    world.settle()
    found = rejudged(world.ports, world.controller.desk, SAM, {})
    assert (found["recorded"]["event"], found["identical"]) == ("Won", True)
    spec = world.ports.read_spec(CALM.encode(), "housing/branchline.toml")
    told = forecast(world.ports, spec, Wish())
    assert (told["recorded"]["outcomes"], round(told["per_day"])) == (230, 230)
    file.close()
