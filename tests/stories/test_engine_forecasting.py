"""This file tests what is foretold of a test: from what was recorded, or honestly from nothing, and what A/A finds.

Requirement: 1.37 (the determination), as far as a person plans it and trusts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from branchline.adapters.servicefile import read_service
from branchline.core.revision import GateResult, Result
from branchline.core.spec import Metric, Spec
from branchline.engine.checking import in_time
from branchline.engine.forecasting import Wish, forecast, planned, split_again
from branchline.engine.surveying import history_of
from branchline.errors import NothingToDo
from tests.world import MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
DAY = 86_400.0


def spec_of(toml: str = CALM) -> Spec:
    return read_service(toml.encode(), "housing/branchline.toml")


def around(mean: float) -> Callable[[int], float]:
    return lambda n: mean + n % 3 - 1


def measured(world: World, visits: int, seconds: float = 4 * DAY) -> None:
    """A test of so many units in four days, or as said, in which nothing is decided."""
    old, new = world.released(toml=CALM), world.testing()
    for half in range(2):
        world.play(visits // 2, {old: around(4), new: around(4.4)}, seed=f"u{half}-")
        world.clock.advance(seconds / 2 - 10)
    world.visit(["last"])  # four days after the first
    world.controller.read_exposures()


def told(world: World, toml: str = CALM, **wish: Any) -> Mapping[str, Any]:
    return forecast(world.ports, spec_of(toml), Wish(**wish))


# ── how long it takes ──────────────────────────────────────────────────────────────────────────────────────────────


def test_traffic_and_spread_are_those_that_were_recorded(world: World) -> None:
    measured(world, 400)
    found = told(world)
    seen = found["recorded"]
    assert (found["schema"], seen["tests"], seen["outcomes"]) == ("branchline.plan-test/1", 1, 400)
    assert (seen["units"], round(seen["days"], 3)) == (400, 4.0)  # the last one's window is open
    assert (round(found["per_day"], 1), found["per_day_from"], found["sigma_from"]) == (100.0, "recorded", "recorded")
    assert found["sigma"] == pytest.approx(0.82, abs=0.01)  # of -1, 0 and 1
    assert seen["low"] < seen["mean"] < seen["high"]
    assert found["outcomes"] == {"fixed": 28, "expected": 200, "without_effect": 200, "at_most": 200}
    assert found["days"]["expected"] == pytest.approx(2.0, abs=0.01)
    assert (found["fits"], found["limit_days"]) == (True, 14)
    assert found["text"] == "at 100 outcomes a day this takes 2 days; with an MDE of 2 it takes 2 days"


def test_traffic_of_less_than_a_day_is_told_to_be_no_more(world: World) -> None:
    """Killer: two minutes of a script are a million outcomes a day."""
    measured(world, 400, 7200)
    assert told(world)["text"].endswith(", if it goes on as in the 2 hours that were measured")


def test_an_effect_too_small_does_not_fit_and_the_one_that_does_is_named(world: World) -> None:
    measured(world, 400)
    found = told(world, mde=0.05)
    assert (found["fits"], found["mde"]) == (False, 0.05)
    assert found["text"] == (
        f"at 100 outcomes a day this takes 73 days; with an MDE of {found['mde_that_fits']:g} it takes 13 days"
    )
    assert told(world, mde=found["mde_that_fits"])["fits"]
    assert told(world, mde=0.05, days=100.0)["fits"]
    assert told(world, mde=0.05, days=1.0)["mde_that_fits"] is None
    assert "no MDE fits into 1 day" in told(world, mde=0.05, days=1.0)["text"]


def test_where_nothing_is_recorded_a_person_says_what_comes_and_the_bounds_how_far_it_spreads(world: World) -> None:
    found = told(world)
    assert (found["per_day"], found["days"], found["fits"], found["mde_that_fits"]) == (None, {}, None, None)
    assert (found["sigma"], found["sigma_from"], found["outcomes"]["expected"]) == (5.0, "bounds", 684)
    assert found["text"] == (
        "this takes about 684 outcomes, after a window of less than a minute; how many come in a day is not recorded "
        "yet: say --per-day N"
    )
    said = told(world, per_day=54.0)
    assert (said["per_day_from"], said["text"].partition(";")[0]) == (
        "said", "at 54 outcomes a day this takes 13 days",
    )  # fmt: skip
    binary = CALM.replace('name = "rating", bounds = [0, 10], mde = 1', 'name = "sold", kind = "binary", mde = 0.1')
    assert told(world, binary)["sigma"] == 0.5
    later = told(world, CALM.replace('window = "10s"', 'window = "2d"'))["text"]
    assert "after a window of 2 days" in later


def test_what_cannot_be_foretold_is_said_with_what_to_do(world: World) -> None:
    with pytest.raises(NothingToDo, match="how much the values of rating spread is not known"):
        told(world, CALM.replace("bounds = [0, 10], ", ""))
    with pytest.raises(NothingToDo, match="has no mde"):
        told(world, CALM.replace("mde = 1, ", ""))
    assert told(world, CALM.replace("mde = 1, ", ""), mde=2.0)["mde"] == 2.0
    with pytest.raises(NothingToDo, match="declares no metric"):
        planned(replace(spec_of(), metric=None), 1.0)


def test_outcomes_of_another_metric_say_nothing(world: World) -> None:
    measured(world, 400)
    other = CALM.replace('"rating"', '"stars"')
    assert told(world, other)["recorded"] == {"tests": 0, "units": 0, "outcomes": 0, "days": 0.0}
    assert told(world, other)["sigma_from"] == "bounds"


def test_what_was_kept_of_a_revision_that_nobody_knows_any_more_says_nothing(world: World) -> None:
    measured(world, 400)
    commit = world.on(SAM).revision
    known = world.catalog.revision("housing", commit)
    world.catalog._revisions["housing", commit] = replace(known, spec="no json")
    assert history_of(world.ports, "housing", spec_of().metric or Metric("x")).tests == 0
    del world.catalog._revisions["housing", commit]
    assert history_of(world.ports, "housing", spec_of().metric or Metric("x")).tests == 0


def test_no_report_is_a_zero_where_that_was_said(world: World) -> None:
    toml = CALM.replace('window = "10s"', 'window = "10s", missing = "zero"')
    world.released(toml=toml)
    world.testing()
    world.visit([f"u{n}" for n in range(60)])
    world.controller.read_exposures()
    world.clock.advance(60)
    metric = spec_of(toml).metric
    assert metric is not None
    seen = history_of(world.ports, "housing", metric)
    assert (seen.units, seen.sums.n, seen.sums.total, seen.sigma, seen.per_day) == (60, 60, 0.0, 0.0, 0.0)
    assert history_of(world.ports, "housing", replace(metric, missing="drop")).sums.n == 0


def test_several_slots_share_traffic_and_error_rate(world: World) -> None:
    two = CALM.replace("rollout = {", "rollout = { slots = 2,")
    found = told(world, two, per_day=90.0)
    assert (found["alpha"], round(found["share"], 3), round(found["per_day"], 1)) == (0.025, 0.493, 60.3)


def test_the_gate_says_how_long_it_takes_and_refuses_what_would_not_end_in_time(world: World) -> None:
    declared = "rating, effect 1, window 10 s"
    for toml in (CALM, CALM.replace("bounds = [0, 10], ", "")):  # nothing is recorded, and no spread is known
        assert in_time(world.ports, spec_of(toml)) == GateResult("test-plan", Result.PASS, declared)
    assert in_time(world.ports, spec_of(CALM.replace("mde = 1, ", ""))).result is Result.FAIL
    measured(world, 400)
    found = in_time(world.ports, spec_of())
    assert (found.result, found.summary.partition("; ")[0]) == (Result.PASS, declared)
    assert "at 100 outcomes a day this takes 2 days" in found.summary
    late = in_time(world.ports, spec_of(CALM.replace("mde = 1", "mde = 0.05")))
    assert (late.result, late.summary) == (
        Result.FAIL,
        "at 100 outcomes a day this takes 73 days; with an MDE of 0.12 it takes 13 days, and max_duration is 14 days",
    )


# ── the judge, and nothing ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_incumbent_against_itself_is_seldom_called_different(world: World) -> None:
    measured(world, 1000)
    found = split_again(world.ports, spec_of(), 0.3, 200, 1)
    assert (found["schema"], found["splits"], sum(found["answers"].values())) == ("branchline.aa/1", 200, 200)
    assert found["false"] == found["answers"]["promote"] + found["answers"]["harmful"]
    assert found["low"] <= found["rate"] == found["false"] / 200 <= found["high"]
    assert found["rate"] <= 0.05
    assert found["as_promised"] == (found["low"] <= 0.05)
    assert found["looks"] <= 200 <= found["outcomes"]
    assert split_again(world.ports, spec_of(), 0.3, 200, 1) == found, "the seed decides"
    assert split_again(world.ports, spec_of(), 0.3, 200, 2)["answers"] != found["answers"]


@pytest.mark.parametrize("released", [False, True])
def test_of_too_little_nothing_is_split(world: World, released: bool) -> None:
    if released:
        world.released(toml=CALM)
    with pytest.raises(NothingToDo, match="too little to split"):
        split_again(world.ports, spec_of(), None, 10, 1)
