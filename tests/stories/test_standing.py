"""This file tests what a Prometheus is told of the tests of this moment (3.28): of each arm, as long as one runs."""

from __future__ import annotations

from itertools import cycle

import pytest

from branchline.core.service import Phase
from branchline.server.exposition import FAMILIES, exposition
from branchline.server.standing import of_tests
from tests.exposition import Family, parsed, value
from tests.world import APP, MODEL, SAM, World

PATIENT = MODEL.replace("rollout = {", 'rollout = { min_duration = "1h",')
ARMS = {"incumbent": "1.0.0", "challenger": "1.1.0"}


def told(world: World) -> dict[str, Family]:
    """What is scraped of the tests."""
    text = exposition(of_tests(world.controller))
    return parsed(text) if text.strip() else {}


def test_a_test_is_told_arm_by_arm_and_ends_with_its_series(world: World) -> None:
    """Killer: without the phase asked, the series of who has ended would stay for ever."""
    old, new = world.released(toml=PATIENT), world.testing()
    world.settle()
    begun = told(world)
    test = {"service": "housing", "branch": SAM, "metric": "rating", "direction": "higher"}
    assert value(begun, "branchline_metric_units", **test, revision="1.0.0", role="incumbent") == 0
    assert "branchline_metric_mean" not in begun
    assert "branchline_metric_difference" not in begun
    values = {old: cycle((3.0, 5.0)), new: cycle((5.0, 7.0))}
    world.play(230, {arm: lambda n, arm=arm: next(values[arm]) for arm in values})  # type: ignore[misc]
    world.settle()
    found = told(world)
    assert found.keys() == {
        name for name in FAMILIES if name.startswith(("branchline_metric_", "branchline_guardrail_"))
    }
    arms = {
        role: [
            value(found, f"branchline_metric_{what}", **test, revision=revision, role=role)
            for what in ("units", "sum", "mean")
        ]
        for role, revision in ARMS.items()
    }
    assert sum(units for units, _, _ in arms.values()) == 230
    assert all(total == pytest.approx(units * mean) for units, total, mean in arms.values())
    about = {**test, "revision": "1.1.0"}
    low, middle, high = (value(found, f"branchline_metric_difference{end}", **about) for end in ("_low", "", "_high"))
    assert 0 < low < middle < high
    assert middle == pytest.approx(arms["challenger"][2] - arms["incumbent"][2])
    better, worse = (value(found, "branchline_metric_evidence", **about, says=says) for says in ("better", "worse"))
    assert better > 40 > worse
    assert value(found, "branchline_metric_progress", **about) > 0
    guard = {"service": "housing", "branch": SAM, "revision": "1.1.0", "guardrail": "bad outcomes"}
    assert value(found, "branchline_guardrail_requests", **guard) == arms["challenger"][0]
    assert value(found, "branchline_guardrail_bad", **guard) == 0
    assert 0 < value(found, "branchline_guardrail_evidence", **guard) < 100
    world.clock.advance(3600)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert told(world) == {}


def test_a_canary_has_guardrails_and_no_difference(world: World) -> None:
    world.released(toml=APP)
    world.push(SAM, toml=APP)
    world.settle()
    world.visit([f"u{n}" for n in range(40)])
    world.controller.judge_all()
    found = told(world)
    assert "branchline_guardrail_requests" in found
    assert "branchline_metric_difference" not in found
