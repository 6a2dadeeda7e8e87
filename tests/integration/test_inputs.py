"""This file lets real steps change what they were given to read (F23): each fails, and nothing stored is harmed.

Real are the worker and its forks, commands, the store and the data; only git is a fake.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.runner import ProcessRunner
from branchline.adapters.sources import LocalSources
from branchline.adapters.workers import WarmWorkers
from branchline.core.revision import StepRun
from branchline.engine.building import build
from branchline.engine.preparing import prepare, spec_at
from branchline.errors import InputChanged, StepFailed
from branchline.ports import Environment, Ports, Task
from tests.fakes.environments import FakeEnvironments
from tests.family import children_with
from tests.world import ALEX, World

ROOT = Path(__file__).resolve().parents[2]
TOML = """\
kind = "app"
serve = { predict = "serving:predict" }
data = { sales = "data/*.csv" }
[steps]
clean = "steps:clean"
train = { call = "steps:train", reuse = "always", because = "the file that it does is the test's" }
[steps.report]
command = ["sh", "../report.sh"]
inputs = ["clean", "train", "sales"]
output = "out"
"""
STEPS = """\
from pathlib import Path

def clean(sales: Path):
    return (sales / "a.csv").read_text()

def train(clean: Path, sales: Path):
    exec(Path(MODE).read_text())
    return "model"
"""
WELL, FAILS = "", "raise ValueError('not today')"
SPOILS = {
    "writes": ("clean", "clean.write_text('0')"),
    "adds": ("clean", "(clean.parent / 'more').write_text('0')"),
    "removes": ("clean", "import shutil; shutil.rmtree(clean.parent)"),
    "data": ("sales", "open(sales / 'a.csv', 'a').write('9')"),
    "both": ("clean, sales", "clean.unlink(); (sales / 'a.csv').unlink()"),
    "killed": ("clean", "clean.write_text('0'); import os; os.kill(os.getpid(), 9)"),
    "by a child": ("clean", "import os\nif not os.fork(): clean.write_text('0'); os._exit(0)\nos.wait()"),
}


class OwnEnvironments(FakeEnvironments):
    """The environment that the tests run in, for everybody."""

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        return replace(super().ensure(service, folder, python), python=Path(sys.executable))

    def sdk(self) -> tuple[str, Path]:
        return "5d" * 32, ROOT


@dataclass
class Bench:
    """A commit whose step `train` and whose command `report` do what a file says now."""

    world: World
    ports: Ports
    home: Path
    tip: str

    def build(
        self, train: str = WELL, report: str = WELL, stopped: Callable[[], bool] = lambda: False
    ) -> list[StepRun]:
        """Build the commit; an input whose name the command is told stands in `$BRANCHLINE_NAME`."""
        (self.home / "train").write_text(train)
        (self.home / "report").write_text(report)
        prepared = prepare(self.ports, spec_at(self.ports, "housing", self.tip), self.tip)
        return [*build(self.ports, prepared, self.world.controller.progress, "topic", stopped)]

    def exact(self) -> bool:
        """Whether everything that is laid out is what its name promises, and the store is whole."""
        laid = {path.name: self.ports.artifacts.put(path) for path in (self.ports.state / "laid").glob("[0-9a-f]*")}
        data = [path.read_text() for path in (self.ports.state / "data").glob("*/a.csv")]
        kept = [run.artifact for run in self.ports.catalog.run("housing", self.tip) if run.artifact]
        return (
            all(laid[name] == name for name in laid) and data == ["x\n1\n"] and all(map(self.ports.artifacts.has, kept))
        )

    def states(self) -> dict[str, str]:
        """What became of the steps of the newest build."""
        return {run.step: run.state for run in self.ports.catalog.run("housing", self.tip)}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmWorkers]:
    made = WarmWorkers(tmp_path_factory.mktemp("workers"), grace=1, every=0.02)
    yield made
    made.close()


@pytest.fixture
def bench(tmp_path: Path, workers: WarmWorkers) -> Bench:
    world, store = World(tmp_path / "state"), FolderArtifacts(tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("x\n1\n")
    sources = LocalSources(tmp_path, tmp_path / "sources", store)
    pinned = sources.pin("sales", "data/*.csv")
    lock = {"sales": {"digest": pinned.digest, "files": 1, "rows": pinned.rows, "size": pinned.size}}
    files = {
        "branchline.toml": TOML.replace("../report.sh", str(tmp_path / "report.sh")),
        "steps.py": STEPS.replace("MODE", repr(str(tmp_path / "train"))),
        "data.lock": json.dumps(lock),
        "requirements.lock": "uvicorn==1.0\n",
    }
    (tmp_path / "report.sh").write_text(f". {tmp_path / 'report'}\necho fine > out\n")
    tip = world.git.write(ALEX, {f"housing/{path}": text for path, text in files.items()})
    ports = replace(
        world.controller.ports, environments=OwnEnvironments(), runner=ProcessRunner(grace=1, every=0.02),
        workers=workers, artifacts=store, sources=sources,
    )  # fmt: skip
    return Bench(world, ports, tmp_path, tip)


@pytest.mark.parametrize("how", SPOILS)
def test_a_step_that_changes_its_input_fails_and_harms_nothing_F23(bench: Bench, how: str) -> None:
    """BL405, by a result that was reused: it is as it was, and the next build goes on with it.

    Killers: do not compare; put nothing back.
    """
    named, code = SPOILS[how]
    with pytest.raises(StepFailed):
        bench.build(FAILS)
    with pytest.raises(InputChanged) as caught:
        bench.build(code)
    error = caught.value
    assert error.message == f"Step train of housing was given {named}, and it was changed while the step ran"
    assert (error.code, error.cause.endswith("was changed"), str(bench.ports.state) in error.cause) == (
        "BL405",
        True,
        True,
    )
    assert error.next.startswith("let the step copy what it changes")
    assert bench.exact()
    assert bench.states() == {"clean": "reused", "train": "failed"}
    assert [run.state for run in bench.build()] == ["reused", "ran", "ran"]
    assert bench.exact()


def test_a_result_of_the_same_build_was_stored_before_anybody_could_change_it_F23(bench: Bench) -> None:
    """What is laid out of the store afterwards is what was left. Killer: store results when the build ends."""
    with pytest.raises(InputChanged):
        bench.build(SPOILS["writes"][1])
    assert bench.states() == {"clean": "ran", "train": "failed"}
    assert [run.state for run in bench.build()] == ["reused", "ran", "ran"]
    assert bench.exact()


def test_a_command_that_changes_its_input_fails_F23(bench: Bench) -> None:
    """The same for a command, whose inputs stand in its environment."""
    with pytest.raises(StepFailed):
        bench.build(report="exit 1")
    with pytest.raises(InputChanged) as caught:
        bench.build(report='echo 9 >> "$BRANCHLINE_SALES/a.csv"; rm -r "$BRANCHLINE_TRAIN"')
    assert caught.value.fields["input"] == "sales, train"
    assert bench.exact()
    assert [run.state for run in bench.build()] == ["reused", "reused", "ran"]


def test_a_build_that_is_ended_in_a_step_leaves_its_inputs_as_they_were_F23(bench: Bench) -> None:
    """Nobody answers for a step whose worker is ended; killer: put back what an answer names only."""
    with pytest.raises(StepFailed):
        bench.build(FAILS)
    begun = bench.home / "begun"
    code = f"clean.write_text('0'); Path({str(begun)!r}).touch(); import time; time.sleep(600)"
    with pytest.raises(InputChanged):
        bench.build(code, stopped=begun.exists)
    assert bench.exact()
    assert [run.state for run in bench.build()] == ["reused", "ran", "ran"]


def test_data_that_cannot_be_laid_out_again_is_missed_and_not_trusted_F23(bench: Bench) -> None:
    """What was changed is never read again. Killer: leave it where it was."""
    with pytest.raises(StepFailed):
        bench.build(FAILS)
    for file in (bench.home / "sources").glob("*.json"):
        file.unlink()
    with pytest.raises(InputChanged):
        bench.build(SPOILS["data"][1])
    assert [*(bench.ports.state / "data").iterdir()] == []


def test_a_supervisor_that_is_killed_leaves_no_input_trusted_F23(tmp_path: Path) -> None:
    """Nobody has compared: the runner names every input."""
    given = tmp_path / "given"
    given.mkdir()
    task = Task(("sleep", "600"), tmp_path, {"PATH": "/usr/bin:/bin"}, tmp_path / "log", inputs=(given,))

    def stopped() -> bool:
        for each in children_with("run-"):
            each.kill()
        return False

    finished = ProcessRunner(every=0.02).run(task, stopped)
    assert (finished.exit, finished.changed) == (137, (given,))
