"""This file tests that who is tried again unchanged spends half of the error rate that the time before had.

Requirements: 1.37 (the determination), I15 (a restart changes nothing).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from branchline.core.service import Phase
from branchline.engine.documenting import Dossiers
from branchline.engine.rejudging import rejudged
from tests.world import KIM, MODEL, SAM, World

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
LOSS = {"train": {"loss": 7}}


def around(mean: float) -> Callable[[int], float]:
    return lambda n: mean + n % 3 - 1


def judged(world: World, old: str, branch: str, mean: float, seed: str, **files: str | None) -> str:
    """A challenger that comes to its verdict; returns its commit."""
    new = world.push(branch, says=LOSS, files={"EXPERIMENT.md": f"{LOG}{seed}\n", **files})
    world.settle()
    assert world.phase(branch) is Phase.TESTING
    world.play(260, {old: around(4), new: around(mean)}, seed=seed)
    world.clock.advance(1)
    world.settle()
    return new


LOG = "# Hypothesis\nBetter.\n# Metric\nrating\n# Log\nTried.\n"


def alpha(world: World, reference: str) -> float:
    return float(rejudged(world.ports, world.controller.desk, reference, {})["had"]["alpha"])


def test_each_time_that_the_same_is_tried_again_has_half_of_the_error_rate(world: World) -> None:
    """Killer: forget on which branch it was tried; count only what was decided."""
    old = world.released(toml=CALM)
    judged(world, old, SAM, 4.0, "a")
    assert (world.phase(SAM), alpha(world, SAM)) == (Phase.DECLINED, 0.05)
    new = judged(world, old, KIM, 4.0, "b")
    assert world.last("GatesPassed").detail["repeats"] == 1
    assert alpha(world, KIM) == 0.025
    found = rejudged(world.ports, world.controller.desk, new, {})
    assert found["identical"]
    assert "of 80)" in found["verdict"]["text"]
    made = Dossiers(world.ports, world.controller.desk).dossier(new)
    assert made["measurement"]["plan"]["alpha"] == 0.025
    new = world.push(KIM, says=LOSS, start="main", files={"EXPERIMENT.md": f"{LOG}c\n"})
    world.settle()
    world.controller.judge_all()
    assert world.on(KIM).repeats == 2
    notes = [note.text for note in world.controller.progress.since(0) if note.name == "repeated"]
    assert notes[-1].endswith("2 times before: its part of the error rate is 1/4")
    plan = world.controller.judge.measurements["housing", KIM][1].plan
    world.restart()
    world.settle()
    assert world.controller.judge.measurements["housing", KIM][1].plan == plan
    assert plan is not None
    assert plan.alpha == 0.0125


@pytest.mark.parametrize(
    ("files", "repeats"),
    [
        ({"serving.py": "def predict(request):\n    # said otherwise\n    ...\n"}, 1),
        ({"serving.py": "def predict(request):\n    return 1\n"}, 0),
        ({"more.py": "x = 1\n"}, 0),
        ({"branchline.toml": CALM.replace("mde = 1", "mde = 0.9")}, 1),
        ({"branchline.toml": CALM.replace('predict"', 'predict", instances = 2')}, 0),
        ({"requirements.lock": "uvicorn==2.0\n"}, 0),
    ],
)
def test_a_comment_is_no_change_and_other_code_is(world: World, files: dict[str, str | None], repeats: int) -> None:
    old = world.released(toml=CALM)
    judged(world, old, SAM, 4.0, "a")
    judged(world, old, KIM, 4.0, "b", **files)
    assert world.last("GatesPassed").detail["repeats"] == repeats


def test_another_training_is_another_challenger(world: World) -> None:
    old = world.released(toml=CALM)
    judged(world, old, SAM, 4.0, "a")
    world.push(KIM, says={"train": {"loss": 8}})
    world.settle()
    assert world.on(KIM).repeats == 0
