"""This file says what every Vitals does: the fake, and the logs and threads of processes (3.20)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.adapters.processes_counts import ProcessVitals
from branchline.ports import Vital, Vitals
from tests.fakes.gauges import FakeVitals

KEY = ("housing", "1.0.0")


@dataclass
class World:
    """Vitals, and ways to let an incarnation of a version print, and to clear it away."""

    vitals: Vitals
    say: Callable[[str, str, int, int], None]
    clear: Callable[[str], None]


@pytest.fixture(params=["fake", "processes"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "fake":
        fake = FakeVitals()

        def count(nonce: str, version: str, warnings: int, exceptions: int) -> None:
            before = fake.vitals.get(("housing", version), Vital())
            after = Vital(0, before.warnings + warnings, before.exceptions + exceptions)
            fake.vitals["housing", version] = after

        return World(fake, count, lambda nonce: None)

    def say(nonce: str, version: str, warnings: int, exceptions: int) -> None:
        home = tmp_path / "instances" / nonce
        (home / "0").mkdir(parents=True, exist_ok=True)
        (home / "group.json").write_text(json.dumps({"service": "housing", "version": version}))
        with (home / "0" / "log").open("a") as log:
            log.write("WARNING slow\n" * warnings + "Traceback (most recent call last):\n" * exceptions)

    return World(ProcessVitals(tmp_path), say, lambda nonce: shutil.rmtree(tmp_path / "instances" / nonce))


def test_all_incarnations_of_a_revision_are_summed(world: World) -> None:
    world.say("n1", "1.0.0", 2, 1)
    world.say("n2", "1.0.0", 3, 0)
    world.say("n3", "1.1.0", 0, 4)
    found = world.vitals.read()
    assert found == {KEY: Vital(0, 5, 1), ("housing", "1.1.0"): Vital(0, 0, 4)}
    assert world.vitals.read() == found


def test_no_count_goes_back(world: World) -> None:
    world.say("n1", "1.0.0", 2, 1)
    world.vitals.read()
    world.clear("n1")
    assert world.vitals.read()[KEY] == Vital(0, 2, 1)
    world.say("n2", "1.0.0", 1, 1)
    assert world.vitals.read()[KEY] == Vital(0, 3, 2)
