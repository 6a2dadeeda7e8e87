"""This file tests metrics that are watched beside the primary one: shown with interval and count, never a reason.

Requirements: 3.20 (numbers with interval and count), I15 (a restart changes nothing), 1.14 (the dossier).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.core import dossier, dossier_page
from branchline.core.service import Phase
from branchline.core.spec import Metric
from branchline.core.watched import Watched
from branchline.engine.documenting import Document, Dossiers
from branchline.ports import Outcome
from tests.world import MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
BESIDE = CALM.replace("mde = 1", "mde = 0.05") + 'watched = { clicks = { bounds = [0, 9], window = "5s" } }\n'


def looked_at(state: Path, *, restart: bool) -> World:
    """A test whose challenger gets as good ratings as the incumbent, and many more clicks."""
    world = World(state)
    old, new = world.released(toml=BESIDE), world.testing()
    for seed in "abc":
        arms = world.visit([f"{seed}{n}" for n in range(110)])
        for name, gain in (("", 0), ("clicks", 3)):
            said = {
                unit: Outcome("housing", 3.0 + n % 3 + (gain if arm == new else 0), metric=name)
                for n, (unit, arm) in enumerate(arms.items())
            }
            assert set(world.report(said)) == {"kept"}
        world.clock.advance(10)
        if restart:
            world.restart()
        world.settle()
    assert world.shares() == {old: 50, new: 50}
    return world


def told(world: World) -> Document:
    made = Dossiers(world.ports, world.controller.desk).dossier(SAM)
    assert dossier.differences(dossier.read(dossier_page.page(made))) == []
    return made


def test_what_is_watched_is_shown_and_decides_nothing(tmp_path: Path) -> None:
    """Killer: hold it against the bar of a verdict, and the test ends."""
    world = looked_at(tmp_path / "one", restart=False)
    assert world.phase(SAM) is Phase.TESTING
    document = world.controller.reader.measured("housing", SAM) or {}
    clicks = document["watched"]["clicks"]
    assert 2.5 < clicks["low"] < 3 < clicks["high"] < 3.5
    assert sum(clicks["units"]) == 330
    assert "; clicks +" in str(document["text"])
    assert str(document["text"]).endswith(" on 330")
    made = told(world)
    assert made["measurement"]["watched"]["clicks"] == clicks
    assert "Watched besides" in dossier_page.page(made)
    spoilt = {**clicks, "high": 9.0}
    measured = {**made["measurement"], "watched": {"clicks": spoilt}}
    assert any("watched clicks, high" in each for each in dossier.differences({**made, "measurement": measured}))
    again = looked_at(tmp_path / "two", restart=True).controller.reader.measured("housing", SAM) or {}
    assert again["watched"] == document["watched"]


def test_while_there_are_few_there_is_no_interval(world: World) -> None:
    old, new = world.released(toml=BESIDE), world.testing()
    arms = world.visit([f"u{n}" for n in range(50)])
    world.report({unit: Outcome("housing", 3.0 + n % 2, metric="clicks") for n, unit in enumerate(arms) if n % 5})
    world.clock.advance(10)
    world.settle()
    document = world.controller.reader.measured("housing", SAM) or {}
    assert sum(document["watched"]["clicks"]["units"]) == 40  # who reports nothing is left out
    assert (document["watched"]["clicks"]["judged"], "clicks" in str(document["text"])) == (False, False)
    assert "too few to say" in dossier_page.page(told(world))
    assert {old, new} == set(world.shares())


def test_the_interval_is_tuned_once_by_the_first_hundred_units() -> None:
    seen = Watched(Metric("clicks", bounds=(0, 9)))
    for n in range(199):
        seen.take(1, 4.0 + n % 5, 0.0, mine=n % 2 == 1)
        assert seen.effect == 0
    seen.take(1, 4.0, 0.0, mine=True)
    first = seen.effect
    assert first == pytest.approx(3.24 * 1.414 / 1250**0.5, rel=0.02)
    for n in range(300):
        seen.take(1, 9.0 * (n % 2), 0.0, mine=n % 4 > 1)
    assert seen.effect == first


def test_what_does_not_vary_has_no_interval() -> None:
    seen = Watched(Metric("clicks", bounds=(0, 9)))
    for n in range(400):
        seen.take(1, 4.0, 0.0, mine=n % 2 == 1)
    assert (seen.effect, seen.judgement.low) == (0, None)
