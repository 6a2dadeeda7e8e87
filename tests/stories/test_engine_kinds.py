"""This file tests the kinds of metric: a ratio of sums, the time to an event, a mean adjusted by what was before.

Requirements: 1.37 (the determination), I15 (a restart changes no verdict), 1.14 (the dossier shows on what).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.servicefile import read_service
from branchline.core import dossier, dossier_page
from branchline.core.decision import Plan
from branchline.core.service import Candidate, Phase
from branchline.core.spec import Guardrails, Metric, Spec
from branchline.engine.documenting import Document, Dossiers
from branchline.engine.forecasting import Wish, forecast, split_again
from branchline.engine.measurement import Measurement, plan_of
from branchline.engine.rejudging import rejudged
from branchline.engine.surveying import alone, history_of
from branchline.ports import Outcome, Seen
from tests.world import MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
RATIO = CALM.replace("bounds = [0, 10], mde = 1", 'kind = "ratio", mde = 0.1')
TIME = CALM.replace("bounds = [0, 10], mde = 1", 'kind = "time-to", mde = 2')
ADJUSTED = CALM.replace("mde = 1", "mde = 0.5, before = 4")


def told(world: World, reference: str = SAM) -> Document:
    """Its dossier, which has to be sound and to have a page; and who judges again has to find the same."""
    made = Dossiers(world.ports, world.controller.desk).dossier(reference)
    assert dossier.differences(dossier.read(dossier_page.page(made))) == []
    found = rejudged(world.ports, world.controller.desk, reference, {})
    assert found["recorded"]["event"] == "" or found["identical"], found
    return made


def read(toml: str) -> Spec:
    return read_service(toml.encode(), "housing/branchline.toml")


# ── a ratio ────────────────────────────────────────────────────────────────────────────────────────────────────────


def part(rate: float) -> Callable[[int], Outcome]:
    """So many of the views of a unit; units have from one to nine."""
    return lambda n: Outcome("housing", round(rate * (1 + n % 9) + n % 2, 1), of=1.0 + n % 9)


@pytest.mark.parametrize(("rate", "event"), [(0.7, "Won"), (0.2, "Lost")])
def test_a_ratio_is_judged_by_the_sums_of_units(world: World, rate: float, event: str) -> None:
    """Killer: the mean of each unit's own ratio is another number."""
    old, new = world.released(toml=RATIO), world.testing()
    world.play(230, {old: part(0.4), new: part(rate)})
    world.settle()
    made = told(world, new)
    measured = made["measurement"]
    assert (world.last(event).event, measured["plan"]["form"], measured["plan"]["min_units"]) == (event, "ratio", 50)
    assert all(len(row) == 12 for row in measured["sums"].values())
    (row,) = measured["sums"].values()
    assert measured["answer"]["estimate"] == pytest.approx(row[7] / row[8] - row[1] / row[2])
    spoilt = {table: [1, *numbers[1:]] for table, numbers in measured["sums"].items()}
    assert dossier.differences({**made, "measurement": {**measured, "sums": spoilt}})


def test_several_reports_of_a_unit_are_summed_and_a_restart_finds_the_same(world: World) -> None:
    old = world.released(toml=RATIO)
    world.testing()
    arms = world.visit([f"u{n}" for n in range(400)])
    for again in "ab":
        said = {
            unit: Outcome("housing", (0.3 if arm == old else 0.36) * (1 + n % 3), id=f"{unit}{again}", of=1.0 + n % 3)
            for n, (unit, arm) in enumerate(arms.items())
        }
        assert set(world.report(said)) == {"kept"}
        assert set(world.report(said)) == {"duplicate"}
    world.clock.advance(9.9)
    world.restart()
    world.settle()
    world.clock.advance(1)
    world.settle()
    seen = history_of(world.ports, "housing", read(RATIO).metric or Metric("x"))
    assert (seen.units, seen.sigma > 0) == (400, False)
    arm = next(iter(told(world)["measurement"]["sums"].values()))
    assert arm[2] > arm[0] * 2  # the sum of both reports of each unit


def test_a_ratio_is_planned_by_the_spread_of_what_is_judged(world: World) -> None:
    old, new = world.released(toml=RATIO), world.testing()
    world.play(400, {old: part(0.4), new: part(0.41)})
    world.clock.advance(100)
    world.settle()
    found = forecast(world.ports, read(RATIO), Wish())
    assert found["sigma_from"] == "recorded"
    assert 0.1 < found["sigma"] < 0.3
    assert found["recorded"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert split_again(world.ports, read(RATIO), None, 3, 1)["outcomes"] > 100


def test_a_bad_outcome_of_a_ratio_is_a_unit_s_own(world: World) -> None:
    metric = Metric("part", "ratio", mde=0.1)
    seen = Measurement("old", "new", None, metric, Guardrails(bad_outcome_above=0.5), splits={1: (5000, 5000)})
    for order, (value, other) in enumerate([(3.0, 10.0), (6.0, 10.0), (6.0, 0.0)], 1):
        assert seen.see(Seen(order, f"u{order}", "new", 1, value, 0.0, other))
    assert (seen.guards["bad outcomes"].requests, seen.guards["bad outcomes"].bad) == (3, 1)


# ── the time to an event ───────────────────────────────────────────────────────────────────────────────────────────


def timed(state: Path, *, restart: bool) -> World:
    """A test of who is sooner: of the incumbent every third never comes."""
    world = World(state)
    old, new = world.released(toml=TIME), world.testing()
    arms = world.visit([f"u{n}" for n in range(240)])
    for second in range(10):
        world.clock.advance(1)
        soon = {
            unit: 1.0
            for n, (unit, arm) in enumerate(arms.items())
            if second == (n % 4 if arm == new else 4 + n % 4) and not (arm == old and n % 3 == 0)
        }
        assert set(world.report(soon)) <= {"kept"}
        if restart:
            world.restart()
            world.settle()
    world.clock.advance(1)
    world.settle()
    return world


def test_who_is_sooner_wins_and_who_never_comes_counts_as_the_whole_window(tmp_path: Path) -> None:
    """Killer: leave out who never came, and an arm that loses its slow ones looks fast."""
    world = timed(tmp_path / "one", restart=False)
    reason = world.last("Won").detail["reason"]
    assert timed(tmp_path / "two", restart=True).last("Won").detail["reason"] == reason
    made = told(world)
    (row,) = made["measurement"]["sums"].values()
    assert row[1] / row[0] > 7 > 3 > row[4] / row[3]
    assert made["measurement"]["plan"]["bounds"] == [0, 10]
    assert "which is better" in made["sentence"]
    assert "counts as all of that time" in dossier_page.page(made)


# ── what was before ────────────────────────────────────────────────────────────────────────────────────────────────


def habit(gain: float, seed: int, *, known: bool = True) -> Callable[[int], Outcome]:
    """Who bought much before buys much now."""
    chance = random.Random(seed)

    def of(n: int) -> Outcome:
        before = chance.uniform(1, 7)
        value = min(10.0, max(0.0, before + gain + chance.gauss(0, 0.3)))
        return Outcome("housing", value, before=before if known and n % 5 else None)

    return of


def test_what_is_known_from_before_takes_most_of_the_spread_away(world: World) -> None:
    """Killer: judge the plain mean, and two hundred units say nothing."""
    old, new = world.released(toml=ADJUSTED), world.testing()
    world.play(250, {old: habit(0, 1), new: habit(0.5, 2)})
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    made = told(world)
    assert made["measurement"]["plan"]["form"] == "adjusted"
    assert "what was before; 4 where that is not known" in dossier_page.page(made)
    history = history_of(world.ports, "housing", read(ADJUSTED).metric or Metric("x"))
    plain = history_of(world.ports, "housing", replace(read(ADJUSTED).metric or Metric("x"), before=None))
    assert history.sigma < 0.7 * plain.sigma


def test_nothing_of_before_adjusts_nothing() -> None:
    metric = Metric("rating", before=4.0)
    assert alone(metric, [(1.0, 4.0), (3.0, 4.0)]) == (1.0, 3.0)
    assert alone(Metric("part", "ratio"), [(1.0, 0.0)]) == (1.0,)
    plan = plan_of(replace(read(ADJUSTED), metric=replace(metric, mde=1.0)), Candidate(SAM, "new", "new"))
    assert plan == Plan(mde=1.0, form="adjusted", max_information=3 * Plan(mde=1.0).planned_information)
