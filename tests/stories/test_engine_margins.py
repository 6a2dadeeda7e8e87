"""This file tests what a metric may have besides a smallest effect: a margin, and a cap at which values are cut.

Requirements: 1.37 (the determination), I15 (a restart changes no verdict), 1.14 (the dossier shows on what).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from branchline.adapters.servicefile import read_service
from branchline.core import dossier, dossier_page
from branchline.core.service import Phase
from branchline.core.spec import Spec
from branchline.engine.documenting import Document, Dossiers
from branchline.engine.forecasting import Wish, forecast, split_again
from branchline.engine.rejudging import rejudged
from tests.world import KIM, MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
NO_WORSE = CALM.replace("mde = 1", "margin = 1")
UNBOUNDED = CALM.replace("bounds = [0, 10], ", "")
FINE = UNBOUNDED.replace("mde = 1", "mde = 0.1")


def around(mean: float) -> Callable[[int], float]:
    return lambda n: mean + n % 3 - 1


def read(toml: str) -> Spec:
    return read_service(toml.encode(), "housing/branchline.toml")


def told(world: World, reference: str = SAM) -> Document:
    """Its dossier, which has to be sound and to have a page; and who judges again has to find the same."""
    made = Dossiers(world.ports, world.controller.desk).dossier(reference)
    assert dossier.differences(dossier.read(dossier_page.page(made))) == []
    found = rejudged(world.ports, world.controller.desk, reference, {})
    assert found["recorded"]["event"] == "" or found["identical"], found
    return made


# ── no worse by a margin ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mean", "event", "said", "words"),
    [
        (
            4.0, "Won", "challenger: the challenger is no worse by more than 1",
            "is no worse than housing 1.0.0 by more than 1 and replaces it",
        ),
        (
            2.0, "Lost", "incumbent: the challenger is worse by more than 1",
            "is worse than housing 1.0.0 by more than 1, which stays",
        ),
        (
            3.0, "Lost", "incumbent: that the challenger is as good is ruled out",
            "is not as good as housing 1.0.0, which stays",
        ),
    ],
)  # fmt: skip
def test_with_a_margin_who_is_no_worse_is_promoted(
    world: World, mean: float, event: str, said: str, words: str
) -> None:
    """Killer: judge by the margin as if it were an mde, and whoever is as good is given up."""
    old, new = world.released(toml=NO_WORSE), world.testing()
    world.play(400, {old: around(4), new: around(mean)})
    world.settle()
    reason = world.last(event).detail["reason"]
    assert reason.startswith(said)
    assert "; wanted higher or no worse by 1\n" in reason
    made = told(world, new)
    assert words in made["sentence"]
    assert (made["measurement"]["plan"]["margin"], made["measurement"]["plan"]["mde"]) == (1, 0)
    page = dossier_page.page(made)
    assert "let pass, if worse by no more than" in page
    assert "let pass: −1" in page


def test_a_test_of_no_worse_is_planned_by_its_margin(world: World) -> None:
    world.released(toml=NO_WORSE)
    found = forecast(world.ports, read(NO_WORSE), Wish(per_day=100.0))
    assert (found["mde"], found["asks"]) == (1, "margin")
    assert "with a margin of " in found["text"]
    assert forecast(world.ports, read(NO_WORSE), Wish(mde=2.0, per_day=100.0))["mde"] == 2.0


# ── where values are cut ───────────────────────────────────────────────────────────────────────────────────────────


def test_values_are_cut_at_the_declared_cap_and_a_hundred_are_enough(world: World) -> None:
    toml = UNBOUNDED.replace("mde = 1", "mde = 1, cap = 8")
    old, new = world.released(toml=toml), world.testing()
    world.play(230, {old: around(4), new: lambda n: 6.0 if n % 50 else 1e6})
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    made = told(world)
    assert made["measurement"]["plan"]["cap"] == 8
    assert made["measurement"]["answer"]["estimate"] < 4
    assert "values are cut at" in dossier_page.page(made)


def twice(state: Path, *, restart: bool) -> World:
    """A second test of values without bounds, after a first whose incumbent goes on."""
    world = World(state)
    old, new = world.released(toml=FINE), world.testing()
    world.play(2300, {old: lambda n: 4.0 + n % 3 - 1 if n % 400 else 60.0, new: around(4)})
    world.settle()
    assert world.phase(SAM) is Phase.DECLINED
    world.clock.advance(5)
    kim = world.testing(KIM)
    values: dict[str, Callable[[int], float]] = {old: around(4), kim: lambda n: 4.6 + n % 3 - 1 if n % 90 else 1e5}
    for seed, units in (("v", 150), ("w", 1500)):
        world.play(units, values, seed=seed)
        if restart:
            world.restart()
        world.settle()
    return world


def test_without_bounds_the_cap_is_what_the_incumbent_was_like_before_and_stays(tmp_path: Path) -> None:
    """Killer: take the cap from what is known now, and a restart in the middle finds another one."""
    world = twice(tmp_path / "one", restart=False)
    reason = world.last("Won").detail["reason"]
    assert twice(tmp_path / "two", restart=True).last("Won").detail["reason"] == reason
    made = told(world, KIM)
    assert made["measurement"]["plan"]["cap"] == 60.0
    assert made["measurement"]["answer"]["estimate"] < 5


def test_with_few_outcomes_of_the_incumbent_nothing_is_cut_and_five_hundred_are_asked_for(world: World) -> None:
    old, new = world.released(toml=UNBOUNDED), world.testing()
    world.play(230, {old: around(4), new: around(6)})
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    text = str((world.controller.reader.measured("housing", SAM) or {})["text"])
    assert re.search(r"[0-9]+ of 500 units in an arm, for a mean without bounds or cap$", text)
    assert told(world)["measurement"]["plan"]["cap"] is None


def test_how_far_a_test_is_says_where_its_values_are_cut(world: World) -> None:
    old, new = world.released(toml=UNBOUNDED.replace("mde = 1", "mde = 0.1, cap = 8")), world.testing()
    world.play(130, {old: around(4), new: around(4)})
    world.settle()
    document = world.controller.reader.measured("housing", SAM) or {}
    assert document["cap"] == 8
    assert ", values cut at 8, " in str(document["text"])


def test_what_is_foretold_knows_the_cap(world: World) -> None:
    old, new = world.released(toml=FINE), world.testing()
    world.play(2300, {old: lambda n: 4.0 + n % 3 - 1 if n % 400 else 60.0, new: around(4)})
    world.settle()
    found = forecast(world.ports, read(UNBOUNDED), Wish())
    assert found["cap"] == 60.0
    assert split_again(world.ports, read(UNBOUNDED), None, 3, 1)["outcomes"] > 1000
    declared = UNBOUNDED.replace("mde = 1", "mde = 1, cap = 5")
    assert forecast(world.ports, read(declared), Wish())["sigma"] < found["sigma"]
