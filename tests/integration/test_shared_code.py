"""This file tests shared code: real Python imports it in a step, in `predict` and in the gates (1.52, 2.24).

The gates' copy lies below a folder with pytest settings and a conftest that would break every run: nothing above the
copy may be read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.processes_probe import UnixConnection
from branchline.adapters.runner import ProcessRunner
from branchline.adapters.workers import WarmWorkers
from branchline.core.revision import Revision
from branchline.core.service import Method
from branchline.core.spec import as_json
from branchline.engine.building import build
from branchline.engine.checking import evaluate
from branchline.engine.preparing import group_of, prepare, spec_at
from branchline.ports import Environment, Ports, Stamp
from tests.fakes.environments import FakeEnvironments
from tests.fakes.git import FakeGit
from tests.waiting import wait_until
from tests.world import ALEX, World

ROOT = Path(__file__).resolve().parents[2]
TOML = """\
kind = "app"
serve = { predict = "serving:predict" }
shared = ["wine", "libs/scale.py", "libs", "notes.txt", "gone"]
[steps]
train = "steps:train"
[steps.export]
command = ["sh", "-c", "cat ../wine/__init__.py > out"]
output = "out"
[gates]
own = { pytest = "tests" }
beside = { command = ["sh", "-c", "test -f ../notes.txt && test ! -e ../other"] }
"""
TESTS = """\
from pathlib import Path
import pytest
import wine
from libs.scale import double

def test_shared():
    assert double(wine.COLOUR) == "redred"
    assert Path("../wine/__init__.py").is_file()

def test_what_is_not_shared():
    with pytest.raises(ImportError):
        import other
"""
FILES = {
    "housing/branchline.toml": TOML,
    "housing/steps.py": "import wine\nfrom libs.scale import double\ndef train(): return double(wine.COLOUR)\n",
    "housing/serving.py": "import wine\ndef predict(request, train): return [train, wine.COLOUR]\n",
    "housing/tests/test_shared.py": TESTS,
    "housing/requirements.lock": "uvicorn==1.0\n",
    "wine/__init__.py": 'COLOUR = "red"\n',
    "libs/scale.py": "def double(text): return text * 2\n",
    "notes.txt": "",
    "other/__init__.py": "",
}


class OwnEnvironments(FakeEnvironments):
    """The environment that the tests run in, for everybody."""

    def ensure(self, service: str, folder: Path, python: str) -> Environment:
        return replace(super().ensure(service, folder, python), python=Path(sys.executable))

    def sdk(self) -> tuple[str, Path]:
        return "5d" * 32, ROOT


@pytest.fixture
def ports(tmp_path: Path, runtime_dir: Path) -> Iterator[Ports]:
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = "--no-such-option"\n')
    (tmp_path / "conftest.py").write_text("raise SystemExit('a conftest of the work tree was read')\n")
    world = World(tmp_path / "state")
    launcher = ProcessLauncher(tmp_path / "state", runtime_dir)
    world.git.write(ALEX, FILES)
    workers = WarmWorkers(tmp_path / "workers")
    yield replace(
        world.controller.ports, environments=OwnEnvironments(), runner=ProcessRunner(), workers=workers,
        launcher=launcher,
    )  # fmt: skip
    workers.close()
    for instance in launcher.instances():
        launcher.stop(instance.nonce, Stamp(1, 1))


def test_shared_code_is_imported_everywhere_and_nothing_else_is_1_52(ports: Ports) -> None:
    assert isinstance(ports.repository, FakeGit)
    tip = ports.repository.tip(ALEX)
    spec = spec_at(ports, "housing", tip)
    ready = prepare(ports, spec, tip)
    assert prepare(ports, spec, tip).imports == ready.imports
    assert [path.name for path in ready.code.parent.iterdir() if path.name.startswith(".")] == []
    progress = World(ports.state).controller.progress
    runs = build(ports, ready, progress, "topic")
    assert {run.step: (run.state, run.notices, run.reusable) for run in runs} == {
        "train": ("ran", (), True), "export": ("ran", (), True),
    }  # fmt: skip
    again = ports.repository.write(ALEX, {"libs/scale.py": "def double(text): return text * 3\n"}, start=tip)
    changed = build(ports, prepare(ports, spec, again), progress, "topic")
    assert {run.step: (run.state, run.why) for run in changed}["train"] == (
        "ran", "changed: libs.scale:double (libs/scale.py:1), via train > double",
    )  # fmt: skip
    artifacts = tuple((run.step, run.artifact) for run in runs)
    revision = Revision(
        "housing", tip, "1.0.0", "", ready.tree, ready.environment.digest, ready.sdk, as_json(spec), artifacts
    )
    gates = evaluate(ports, ready, revision, None, Method.CANARY, "", progress, "topic")
    told = [note.text for note in progress.since(0, "topic")]
    assert [(gate.gate, gate.summary) for gate in gates] == [("own", "2 tests passed"), ("beside", "exit 0")], told
    nonce = ports.launcher.launch(group_of(ports, revision, ready, "staging"), Stamp(1, 1)).nonce
    (instance,) = ports.launcher.instances()
    assert wait_until(lambda: ports.launcher.instances()[0].state != "starting")
    (instance,) = ports.launcher.instances()
    assert instance.state == "ready", ports.launcher.log(nonce)
    connection = UnixConnection(Path(instance.sockets[0]), 10)
    connection.request("POST", "/predict", b"1")
    assert connection.getresponse().read() == b'["redred", "red"]'
    connection.close()
