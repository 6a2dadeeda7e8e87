"""This file gives every test of what Observations do the fake and SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.ports import Observations
from tests.fakes.observations import FakeObservations


@pytest.fixture(params=["fake", "sqlite"])
def observations(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Observations]:
    if request.param == "fake":
        yield FakeObservations()
        return
    file = SqliteFile(tmp_path / "ledger.sqlite3")
    yield SqliteObservations(file)
    file.close()
