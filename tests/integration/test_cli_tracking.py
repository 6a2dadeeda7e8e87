"""This file tests the commands that look at runs, and reading from a notebook: the real API over a world of fakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import branchline
from branchline.core.reuse import Line
from branchline.core.revision import Measure, StepRun
from branchline.errors import DaemonDown, NotARepository
from branchline.sdk import values
from branchline.sdk.notebook import Untrusted
from branchline.sdk.report import Refused
from tests.places import Place

ROOT = Path(__file__).resolve().parents[2]


def trained(mape: float, seconds: float, code: str) -> StepRun:
    lines = (Line("code train:fit", code * 64), Line("data sales", "d" * 64))
    told = (Measure("mape", mape), *(Measure(f"m{n}", n) for n in range(6)))
    return StepRun("train", "ran", code, "art", seconds, at=1.0, peak=5_000_000, lines=lines, metrics=told)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made_place = Place(tmp_path)
    with made_place.answering():
        yield made_place


@pytest.fixture
def two(place: Place) -> tuple[int, int]:
    keep = place.world.controller.ports.catalog.keep_run
    failed = StepRun("train", "failed", "x")
    keep("listings", "c" * 40, [failed])
    return keep("housing", "a" * 40, [trained(9.5, 2.0, "1")]), keep("housing", "b" * 40, [trained(12.0, 3.0, "2")])


def test_runs_are_found_and_told_2_12(place: Place, two: tuple[int, int]) -> None:
    one, other = two
    lines = place.type("runs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [str(other), str(one), str(one - 1)]
    assert "mape=12 m0=0 m1=1 m2=2 m3=3 and 2 more" in lines[0]
    assert lines[2].split()[-2:] == ["failed", "0.0s"]
    found = place.read("runs", "housing", "--where", "mape<10", "--where", "m0=0", "--step", "train")
    assert [run["run"] for run in found["runs"]] == [one]
    assert (found["schema"], found["runs"][0]["metrics"]["mape"]) == ("branchline.runs/1", 9.5)
    assert place.type("runs", "--state", "reused").stderr.strip() == "no run is like that"
    refused = place.type("runs", "--where", "mape")
    assert (refused.exit_code, "mape<10" in refused.stderr) == (2, True)


def test_without_a_run_it_says_so(place: Place) -> None:
    assert place.type("runs").stderr.strip() == "nothing was run here yet"


def test_two_runs_stand_side_by_side_2_11(place: Place, two: tuple[int, int]) -> None:
    one, other = map(str, two)
    lines = [line.split() for line in place.type("compare", one, other).stdout.splitlines()]
    assert lines[0] == ["housing", "(run", one + ")", "housing", "(run", other + ")"]
    assert ["train:fit", "1" * 12, "2" * 12, "changed"] in lines
    assert ["data", "sales", "d" * 12, "d" * 12, "="] in lines
    assert ["mape", "9.5", "12", "+2.5", "(+26.3%)"] in lines
    assert ["time", "train", "peak", "5", "MB", "5", "MB", "="] in lines
    assert ["train", "seconds", "2.000s", "3.000s", "+1", "(+50.0%)"] in lines
    table = place.type("compare", one, other, "--md").stdout.splitlines()
    assert table[:2] == [f"| | | housing (run {one}) | housing (run {other}) | |", "|---|---|---|---|---|"]
    assert "| metrics | mape | 9.5 | 12 | +2.5 (+26.3%) |" in table
    assert place.read("compare", one, other)["schema"] == "branchline.compare/1"
    assert place.type("compare", one, "999").exit_code == 2


def test_what_one_side_alone_has_is_told(place: Place, two: tuple[int, int]) -> None:
    one, other = map(str, (two[0], two[0] - 1))
    assert "only A" in place.type("compare", one, other).stdout
    assert "only B" in place.type("compare", other, one).stdout


class Notebook:
    """A person's script in the place's work tree."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place = place
        place.settings.state.mkdir(parents=True, exist_ok=True)
        self.told = place.settings.state / "daemon.json"
        self.told.write_text(json.dumps({"socket": str(place.settings.socket)}))
        monkeypatch.setenv("BRANCHLINE_STATE", str(place.settings.state))

    def result(self, value: object) -> None:
        """Let the result of the released training be this value."""
        shutil.rmtree(self.laid, ignore_errors=True)
        values.save(value, self.laid)

    @property
    def laid(self) -> Path:
        """Where it lies."""
        artifact = self.place.world.controller.ports.catalog.revisions("housing")[0].artifacts[0][1]
        return self.place.world.controller.ports.state / "laid" / artifact


@pytest.fixture
def notebook(place: Place, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    return Notebook(place, monkeypatch)


def test_a_notebook_reads_runs_as_rows_2_14(notebook: Notebook, two: tuple[int, int]) -> None:
    rows = branchline.runs("housing")
    assert [(row["run"], row["metrics.mape"], row["steps.train"]) for row in rows] == [
        (two[1], 12.0, "ran"), (two[0], 9.5, "ran"),
    ]  # fmt: skip
    assert [row["run"] for row in branchline.runs(where=["mape<10", "m0=0"], limit=5)] == [two[0]]
    assert branchline.runs(where="mape<1") == []
    with pytest.raises(Refused, match="mape<10"):
        branchline.runs(where="mape")


def test_a_notebook_reads_a_revision_2_09(notebook: Notebook) -> None:
    world = notebook.place.world
    commit = world.released()
    found = branchline.load("housing@1.0.0")
    assert (found.name, found.version, found.commit, found.steps) == ("housing@1.0.0", "1.0.0", commit, ("train",))
    assert repr(found) == f"<housing@1.0.0 {commit[:7]}: train>"
    notebook.result([1, 2])
    assert found.artifact("train") == [1, 2]
    assert found.path("train").name == "value.json"
    with pytest.raises(Refused, match="did you mean train"):
        found.artifact("trian")
    with pytest.raises(Refused):
        branchline.load("housing@9.9.9")
    world.controller.ports.catalog.keep_run("housing", commit, [trained(9.5, 2.0, "1")])
    assert branchline.load("housing").metrics["mape"] == 9.5
    items = [
        replace(trained(mape, 2.0, "1"), item=city, artifact=city) for city, mape in (("rome", 9.5), ("oslo", 7.5))
    ]
    world.controller.ports.catalog.keep_run("housing", commit, items)  # killer: keep the last item's alone
    told = branchline.load("housing").metrics
    assert (told["train[rome]: mape"], told["train[oslo]: mape"]) == (9.5, 7.5)


def test_a_pickle_is_read_only_when_it_is_trusted_or_at_home(notebook: Notebook, tmp_path: Path) -> None:
    notebook.place.world.released()
    found = branchline.load("housing@1.0.0")
    notebook.result({1, 2})
    with pytest.raises(Untrusted, match="trust=True"):
        found.artifact("train")
    assert found.artifact("train", trust=True) == {1, 2}
    shutil.move(found.path("train").parent, tmp_path / "one")
    for number, value in enumerate(([1], [2])):
        values.save(value, notebook.laid / "items" / str(number))
    assert found.artifact("train") == [[1], [2]]
    shutil.move(tmp_path / "one", notebook.laid / "items" / "2")
    with pytest.raises(Untrusted):
        found.artifact("train")
    assert found.artifact("train", trust=True) == [[1], [2], {1, 2}]
    notebook.result({1, 2})


def test_at_home_is_the_environment_that_the_revision_was_built_in(notebook: Notebook, tmp_path: Path) -> None:
    notebook.place.world.released()
    environment = str(branchline.load("housing@1.0.0").document["environment"])
    notebook.result({1, 2})
    script = "import branchline; print(branchline.load('housing@1.0.0').artifact('train'))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, said in ((environment, "{1, 2}"), ("other", "")):
        venv.create(tmp_path / name / "venv", symlinks=True)
        command = [str(tmp_path / name / "venv" / "bin" / "python"), "-c", script]
        ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (ended.stdout.strip(), "Untrusted" in ended.stderr) == (said, not said)


def test_where_nobody_answers_or_nothing_is_it_is_said(
    notebook: Notebook, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notebook.told.unlink()
    with pytest.raises(DaemonDown) as gone:
        branchline.runs()
    assert gone.value.__notes__[0].endswith("next: branchline up")
    assert gone.value.__suppress_context__  # no second traceback, of a file that nobody asked for
    monkeypatch.delenv("BRANCHLINE_STATE")
    with pytest.raises(NotARepository):
        branchline.runs(repository="/")
    (tmp_path / "w" / "deep").mkdir(parents=True)
    (tmp_path / "main" / ".git" / "worktrees" / "w").mkdir(parents=True)
    (tmp_path / "main" / ".git" / "worktrees" / "w" / "commondir").write_text("../..\n")
    (tmp_path / "w" / ".git").write_text(f"gitdir: {tmp_path}/main/.git/worktrees/w\n")
    told: list[Any] = []
    for folder in (tmp_path / "w" / "deep", tmp_path / "main"):
        with pytest.raises(DaemonDown) as down:
            branchline.load("housing", repository=folder)
        told.append(down.value.cause.partition(":")[0])
    assert told == [str(tmp_path / "main" / ".git" / "branchline")] * 2
