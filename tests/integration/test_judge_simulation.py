"""This file plays whole experiments through ledger, exposures, outcomes and judge, in accelerated time.

Requirements: 1.37 to 1.39. The recorded verdict is held to the engine's own on the same outcomes, unit by unit, so what
stands between an outcome and a conclusion adds no error of its own.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.core.boundary import fixed_information
from branchline.core.evidence import make
from branchline.core.service import Phase
from tests.world import MODEL, SAM, World

RATE, MDE, AT_A_TIME, MOST_BATCHES = 0.3, 0.2, 40, 250
TOML = (
    MODEL.replace('name = "rating", bounds = [0, 10], mde = 1', f'name = "sold", kind = "binary", mde = {MDE}')
    .replace("guardrails = { bad_outcome = { below = 1 } }", "guardrails = { failed_requests = false }")
)  # fmt: skip
EVENTS = {"promote": "Won", "harmful": "Lost", "futile": "Lost", "inconclusive": "Undecided"}


class OnDisk(World):
    """A world whose ledger and observations are in one real SQLite file."""

    def __init__(self, state: Path, file: SqliteFile) -> None:
        super().__init__(state)
        self.observations = SqliteObservations(file)  # type: ignore[assignment]
        self.ports = replace(self.ports, ledger=SqliteLedger(file), observations=self.observations)
        self._story = None  # nothing is told from memory: the file would not know it
        self.restart()


def played(world: OnDisk, chance: random.Random, rate: float) -> tuple[str, int, str, int]:
    """One experiment until it has ended: the recorded event and its units, the engine's word and its units."""
    control, challenger = world.released(toml=TOML), world.testing()
    engine, sums, word, seen = (
        make("mean", {"mde": MDE, "max_information": 3 * fixed_information(MDE)}),
        Counter[str](),
        "",
        0,
    )
    crowd = chance.getrandbits(64)  # other people each time, so other arms
    for batch in range(MOST_BATCHES):
        if world.phase(SAM) is not Phase.TESTING:
            break
        arms = world.visit([f"{crowd}-{batch}-{n}" for n in range(AT_A_TIME)])
        values = {unit: float(chance.random() < (rate if arm == challenger else RATE)) for unit, arm in arms.items()}
        world.controller.read_exposures()
        world.report(values)
        world.clock.advance(10)
        world.controller.judge_all()
        for unit, arm in arms.items():
            if word:
                break
            side = "1" if arm == challenger else "0"
            assert arm in (control, challenger)
            sums += Counter({f"n{side}": 1}) + Counter({f"s{side}": int(values[unit])})
            row = {f"{name}{each}": sums[f"{part}{each}"] for each in "01" for name, part in ("nn", "ss", "qs")}
            told, seen = engine.update(**row), seen + 1
            word = "" if told == "continue" else told
    entry = next(e for e in world.ports.ledger.history("housing") if e.event in EVENTS.values())
    found = re.search(r"(\d+) outcomes", str(entry.detail["reason"]))
    assert found, entry.detail
    return entry.event, int(found[1]), word, seen


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "seed"), [(RATE, 1), (RATE + MDE, 2)], ids=["A/A", "planted effect"])
def test_two_hundred_experiments_end_as_the_engine_says_1_37_1_38_1_39(tmp_path: Path, rate: float, seed: int) -> None:
    """At most 0.025 of A/A may be promoted and 0.10 of the effects missed; three standard errors are allowed."""
    chance, ended = random.Random(seed), Counter[str]()
    for number in range(200):
        file = SqliteFile(tmp_path / f"{number}.sqlite3")
        event, units, word, seen = played(OnDisk(tmp_path / "state", file), chance, rate)
        file.close()
        assert (event, units) == (EVENTS[word], seen), number
        ended[word] += 1
    assert ended["inconclusive"] <= 4
    if rate == RATE:
        assert ended["promote"] <= 11
        assert ended["promote"] + ended["harmful"] <= 19
    else:
        assert ended["promote"] >= 167
