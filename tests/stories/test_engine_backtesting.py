"""This file tests that an offline metric is held against the verdicts there were (1.37 to 1.39)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from branchline.core.revision import Measure, StepRun
from branchline.engine.backtesting import backtest
from branchline.errors import NothingToDo, UnknownService
from tests.world import KIM, MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
THIRD = "experiment--housing--third"


def around(mean: float) -> Callable[[int], float]:
    return lambda n: mean + n % 3 - 1


def told(world: World, commit: str, mape: float) -> None:
    """A step that has told a metric."""
    run = StepRun("train", "ran", "k", "art", 1.0, metrics=(Measure("mape", mape),))
    world.catalog.keep_run("housing", commit, [run])


def tried(world: World, branch: str, mean: float, mape: float | None) -> str:
    """A challenger with this mape, and its test against an incumbent whose outcomes are about 4."""
    incumbent, new = world.service().line(1).incumbent or "", world.testing(branch)
    if mape is not None:
        told(world, new, mape)
    world.play(230, {incumbent: around(4), new: around(mean)}, seed=branch)
    world.clock.advance(1)
    world.settle()
    return new


def test_what_looked_better_is_held_against_what_won(world: World) -> None:
    first = world.released(toml=CALM)
    tried(world, SAM, 4.0, 8.0)  # looked better, and had no effect
    tried(world, KIM, 2.5, 12.0)  # looked worse, and was
    tried(world, THIRD, 6.0, None)  # told nothing, and won
    told(world, first, 9.0)
    found = backtest(world.ports, world.controller.desk, "housing", "mape", "lower")
    assert (found["schema"], found["without"], found["undecided"]) == ("branchline.backtest/1", 1, 0)
    rows = [(row["version"], row["against"], row["better"], row["verdict"]["cause"]) for row in found["tests"]]
    assert [row[2:] for row in rows] == [(True, "futile"), (False, "harmful")]
    assert {row[1] for row in rows} == {"1.0.0"}
    assert found["tests"][0]["offline"] == {"challenger": 8.0, "incumbent": 9.0, "difference": -1.0}
    online = found["tests"][1]["online"]
    assert online["low"] < online["estimate"] < online["high"] < 0 < online["units"]
    assert found["better"] == {"tests": 1, "won": 0, "low": 0.0, "high": pytest.approx(0.79, abs=0.01)}
    assert found["not_better"]["tests"] == 1
    other = backtest(world.ports, world.controller.desk, "housing", "mape", "higher")
    assert (other["better"]["tests"], other["tests"][0]["better"]) == (1, False)


def test_what_won_is_counted_and_what_looked_the_same_did_not_look_better(world: World) -> None:
    first = world.released(toml=CALM)
    tried(world, SAM, 6.0, 9.0)
    told(world, first, 9.0)
    found = backtest(world.ports, world.controller.desk, "housing", "mape", "lower")
    assert (found["not_better"]["won"], found["better"]) == (1, {"tests": 0, "won": 0, "low": None, "high": None})


def test_an_end_without_a_verdict_says_nothing_of_the_metric(world: World) -> None:
    first, new = world.released(toml=CALM), world.testing(SAM)
    told(world, first, 9.0)
    told(world, new, 8.0)
    world.visit(["a", "b"])
    world.settle()
    with pytest.raises(NothingToDo, match="no ended test of housing tells mape") as refused:
        backtest(world.ports, world.controller.desk, "housing", "mape", "lower")
    assert refused.value.cause == "no A/B test of it has ended"
    world.ask("abort", SAM)
    world.settle()
    found = backtest(world.ports, world.controller.desk, "housing", "mape", "lower")
    assert (found["undecided"], len(found["tests"]), found["better"]["tests"]) == (1, 1, 0)


def test_a_metric_that_nobody_told_is_said_with_what_is_near(world: World) -> None:
    first = world.released(toml=CALM)
    tried(world, SAM, 6.0, 8.0)
    told(world, first, 9.0)
    with pytest.raises(NothingToDo) as refused:
        backtest(world.ports, world.controller.desk, "housing", "mpae", "lower")
    assert refused.value.cause == "did you mean mape?"
    with pytest.raises(UnknownService):
        backtest(world.ports, world.controller.desk, "hosing", "mape", "lower")
