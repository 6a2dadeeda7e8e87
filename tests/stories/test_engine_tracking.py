"""This file tests how runs are found and compared by the engine (2.11 to 2.14, 3.30)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from branchline.core.reuse import Line
from branchline.core.revision import Measure, StepRun
from branchline.engine.tracking import Tracker
from branchline.errors import NothingToDo, UnknownReference, UnknownService, UsageError
from tests.world import ALEX, MODEL, World

LINES = (
    Line("code features:scale", "a" * 64), Line("step", "b" * 64), Line("data sales", "c" * 64),
    Line("input clean", "d"),
    Line("environment", "e" * 64), Line("parameter seed", "f" * 64), Line("whole models", "1" * 64),
)  # fmt: skip
TRAIN = StepRun(
    "train", "ran", "k", "art", 2.0, at=50.0, cpu=1.5, peak=1000, lines=LINES,
    metrics=(Measure("loss", 0.5, 1.0), Measure("loss", 0.25, 2.0)),
)  # fmt: skip
SCORE = StepRun("score", "ran", "k2", "art2", 1.0, at=52.0, lines=LINES[1:3], metrics=(Measure("mape", 9.5),))


@pytest.fixture
def tracker(world: World) -> Tracker:
    return Tracker(world.controller.ports, world.controller.desk)


def rows(document: dict[str, Any], *, same: bool | None = None) -> dict[str, tuple[Any, Any]]:
    chosen = (row for row in document["rows"] if same in (None, row["same"]))
    return {f"{row['part']} | {row['name']}": (row["a"], row["b"]) for row in chosen}


def test_runs_are_rows_with_their_revision_and_metrics_2_12(world: World, tracker: Tracker) -> None:
    commit = world.released()
    number = tracker.ports.catalog.keep_run("housing", commit, [TRAIN, SCORE])
    found = tracker.runs("housing", where=["mape<10"])["runs"]
    assert found == [
        {
            "run": number, "service": "housing", "version": "1.0.0", "branch": ALEX, "commit": commit, "state": "ran",
            "at": "1970-01-01T00:00:50.000Z", "seconds": 3.0, "cpu": 1.5, "peak": 1000,
            "steps": {"train": "ran", "score": "ran"}, "metrics": {"loss": 0.25, "mape": 9.5},
        }
    ]  # fmt: skip
    assert [run["run"] for run in tracker.runs("housing", limit=0)["runs"]] == [number]
    assert tracker.runs("housing", "score", "failed")["runs"] == []
    assert len(tracker.runs("housing", before=number)["runs"]) == number - 1


def test_a_run_of_a_work_tree_belongs_to_no_revision_and_is_found_too(tracker: Tracker) -> None:
    tracker.ports.catalog.keep_run("other", "f" * 40, [replace(TRAIN, at=0.0)])
    [found] = tracker.runs("other")["runs"]
    assert (found["version"], found["branch"], found["at"]) == ("", "", "")


def test_what_is_unknown_or_not_understood_is_said(world: World, tracker: Tracker) -> None:
    world.released()
    assert tracker.runs("housing", "nothing")["runs"] == []
    with pytest.raises(UnknownService) as caught:
        tracker.runs("huosing")
    assert caught.value.cause == "did you mean housing?"
    with pytest.raises(UsageError):
        tracker.runs(where=["mape"])


def test_two_runs_are_compared_by_what_they_were_made_of_and_what_came_out_2_11(tracker: Tracker) -> None:
    keep = tracker.ports.catalog.keep_run
    changed = (Line("code features:scale", "9" * 64), *LINES[1:])
    one = keep("housing", "a" * 40, [TRAIN, SCORE])
    other = keep(
        "housing", "b" * 40, [replace(TRAIN, key="k3", lines=changed, seconds=3.0, metrics=(Measure("loss", 0.2),))]
    )
    document = tracker.compare(str(one), str(other))
    assert rows(document, same=False) == {
        "code | commit": ("a" * 12, "b" * 12),
        "code | code features:scale": ("a" * 12, "9" * 12),
        "code | score: step": ("b" * 12, None),
        "metrics | loss": (0.25, 0.2),
        "metrics | mape": (9.5, None),
        "time | score seconds": (1.0, None),
        "time | train seconds": (2.0, 3.0),
    }
    assert list(rows(document, same=True)) == [
        "code | train: step", "code | whole models", "data | data sales", "environment | environment",
        "parameters | parameter seed", "time | train cpu", "time | train peak",
    ]  # fmt: skip
    assert [(side["run"], side["reference"]) for side in document["sides"]] == [(one, str(one)), (other, str(other))]


def test_a_name_that_steps_use_for_different_things_is_told_with_each_step(tracker: Tracker) -> None:
    lines = (Line("environment", "9" * 64),)
    paris, nice = (
        replace(TRAIN, step="fit", item=item, key=item, lines=(Line("parameter city", item),))
        for item in ("paris", "nice")
    )
    one = tracker.ports.catalog.keep_run("housing", "a" * 40, [TRAIN, replace(SCORE, lines=lines), paris, nice])
    found = rows(tracker.compare(str(one), str(one)))
    assert found["environment | train: environment"] == ("e" * 12, "e" * 12)
    assert found["environment | score: environment"] == ("9" * 12, "9" * 12)
    assert found["parameters | fit[nice]: parameter city"] == ("nice", "nice")
    assert found["metrics | train: loss"] == (0.25, 0.25)


def test_a_revision_took_the_time_in_which_its_results_were_made(world: World, tracker: Tracker) -> None:
    """2.11. Killer: compare what its newest run took, which reused them all in no time."""
    commit = world.released()
    keep = tracker.ports.catalog.keep_run
    made = keep("housing", "f" * 40, [TRAIN])  # of the work tree, before it was a commit
    again = keep("housing", commit, [replace(TRAIN, state="reused", seconds=0.0, cpu=0.0)])
    keep("housing", commit, [replace(TRAIN, state="same", seconds=9.0)])  # verified since
    document = tracker.compare(str(made), "housing")
    assert rows(document, same=True)["time | train seconds"] == (2.0, 2.0)
    assert document["sides"][1]["steps"] == {"train": "same"}
    assert rows(tracker.compare(str(made), str(again)))["time | train seconds"] == (2.0, None)


def test_revisions_and_branches_mean_their_newest_run_with_the_values_of_parameters(
    world: World, tracker: Tracker
) -> None:
    commit = world.released(toml=MODEL + "[parameters]\nseed = 7\n")
    revision = tracker.ports.catalog.revision("housing", commit)
    tracker.ports.catalog.keep_run("housing", commit, [TRAIN])
    document = tracker.compare("housing@1.0.0", "housing")
    assert [side["version"] for side in document["sides"]] == ["1.0.0", "1.0.0"]
    assert rows(document, same=False) == {}
    assert rows(document)["code | commit"] == (revision.commit[:12],) * 2
    assert rows(document)["parameters | parameter seed"] == ("7", "7")
    world.push("experiment--housing--kim")
    world.controller.watch()
    with pytest.raises(NothingToDo):
        tracker.compare("housing", "experiment--housing--kim")
    for nothing in ("77", "housing@7.7.7"):
        with pytest.raises(UnknownReference):
            tracker.compare(nothing, "housing")


def test_a_result_is_laid_out_to_be_read_3_30(world: World, tracker: Tracker) -> None:
    world.released()
    found = tracker.lay("housing@1.0.0", "train")
    assert Path(found["path"]).exists()
    assert found["artifact"] == dict(tracker.desk.revision("housing").artifacts)["train"]
    with pytest.raises(NothingToDo) as caught:
        tracker.lay("housing", "trian")
    assert caught.value.cause == "did you mean train?"
