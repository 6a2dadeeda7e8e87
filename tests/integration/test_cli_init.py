"""This file tests `init` and `check` in real repositories: what is written is understood, what is wrong is told."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from branchline.adapters.servicefile import read_service
from branchline.adapters.uv_locks import compiling, lock_in
from branchline.adapters.uv_locks import typed as uv_typed
from branchline.cli.main import main
from branchline.cli.scaffold import detected, files
from branchline.errors import LockMissing
from tests.integration.test_cli_repository import EXAMPLE, service, typed
from tests.repositories import RealGit


@pytest.fixture
def world(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path)


# ------------------------------------------------------------------------------------------------ init and check


def test_init_writes_what_check_takes_but_for_the_lock(world: RealGit) -> None:
    plan = typed(world, "init", "shop", "--dry-run")
    assert not (world.work / "shop").exists()
    told = typed(world, "init", "shop")
    assert told.exit_code == 0
    written = {line.split()[1] for line in told.stdout.splitlines()}
    assert written == {line.split()[1] for line in plan.stdout.splitlines() if line.startswith("plan")}
    assert all((world.work / path).is_file() for path in written)
    assert "uv pip compile --generate-hashes requirements.in -o requirements.lock" in told.stderr
    told = typed(world, "check")
    assert told.exit_code == 2
    assert told.stdout.count("error[") == 1
    assert "error[BL402]" in told.stdout
    lock = "".join(f"{name}==1.0 \\\n    --hash=sha256:0\n" for name in ("pytest", "uvicorn"))
    (world.work / "shop" / "requirements.lock").write_text(lock)
    told = typed(world, "check", "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout) == {
        "schema": "branchline.check/1", "ok": True, "services": ["shop"], "problems": [],
        "notices": [],
    }  # fmt: skip


def test_what_init_and_check_say_to_type_works_without_uv_on_the_path(
    world: RealGit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make setup` puts uv beside Branchline, not on the path."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    told = typed(world, "init", "shop")
    (line,) = [line for line in told.stderr.splitlines() if "pip compile" in line]
    found = re.fullmatch(r"next     \(cd shop && (\S+) pip compile .*\)", line)
    assert found
    assert subprocess.run([found[1], "--version"], capture_output=True, text=True).stdout.startswith("uv ")
    assert f"hint:  (cd shop && {found[1]} pip compile" in typed(world, "check").stdout


def test_what_init_wrote_has_to_be_committed_and_start_says_so(world: RealGit) -> None:
    typed(world, "init", "shop")
    told = typed(world, "start", "shop", "--because", "x", "--no-push")
    assert told.exit_code == 0, told.stderr
    assert told.stderr.splitlines()[-1].startswith("then     git add shop && git commit")
    world.git("add", "shop")
    world.git("commit", "--quiet", "-m", "Add shop")
    world.git("push", "--quiet", "origin", "HEAD:main")
    told = typed(world, "start", "shop", "--because", "x", "--no-push", "--handle", "sam")
    assert told.stderr.splitlines()[-1] == "next     edit shop, then: branchline run shop"


def test_init_names_commit_and_push_before_start(world: RealGit, tmp_path: Path) -> None:
    """H5: what is not pushed is not where an experiment begins."""
    assert typed(world, "init", "shop").stderr.splitlines()[-2:] == [
        "then     branchline check shop && git add shop && git commit && git push origin HEAD",
        'and      branchline start shop --because "..."',
    ]
    alone = RealGit(tmp_path / "alone", remote=False)
    assert "push" not in typed(alone, "init", "shop").stderr


def test_init_never_overwrites(world: RealGit) -> None:
    folder = service(world, "shop")
    before = (folder / "branchline.toml").read_text()
    told = typed(world, "init", "shop")
    assert (folder / "branchline.toml").read_text() == before
    assert "kept     shop/branchline.toml" in told.stderr


def test_init_without_a_name_is_for_the_folder_it_is_typed_in(world: RealGit) -> None:
    """At the top of the repository it asks for a name instead of making a folder of the repository's own name."""
    told = typed(world, "init")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "hint:  branchline init work" in told.stderr
    (world.work / "shop").mkdir()
    told = CliRunner().invoke(main, ["-C", str(world.work / "shop"), "init"])
    assert "wrote    shop/branchline.toml" in told.stdout


def test_init_refuses_what_cannot_be_a_name(world: RealGit) -> None:
    assert "error[BL101]" in typed(world, "init", "My_Shop").stderr


def test_check_tells_every_problem_at_once(world: RealGit) -> None:
    """Unknown keys with the near one, a missing function, unpinned data, no lock, no server."""
    folder = service(world)
    (folder / "branchline.toml").write_text(
        'kind = "model"\n'
        'serve = { predict = "serving:predikt", sample = "tests/sample.json", schema = "schema.json" }\n'
        'data = { sales = { path = "data/*.csv", every = "0 0 31 2 *" } }\n'
        'steps = { train = "steps:train", test = "steps:test" }\n'
        '[gates]\nunit = { pytest = "tests" }\nloss = { value = "train.los", max = 1 }\n'
    )
    (folder / "serving.py").write_text("def predict(model, request): ...\n")
    (folder / "steps.py").write_text("def train(sals):\n    return {'loss': 1}\ndef test(train): ...\n")
    (folder / "requirements.lock").write_text("numpy==1.0 --hash=sha256:0\nplain==1.0\n")
    told = typed(world, "check", "housing")
    assert told.exit_code == 2
    for code, words in (
        ("BL415", "step train needs 'sals'"), ("BL103", "there is no function serving:predikt"),
        ("BL103", "housing/tests/sample.json is not there"), ("BL103", "housing/tests is not there"),
        ("BL103", "there is no such file"), ("BL321", "'sales'"), ("BL329", "0 0 31 2 *"), ("BL413", "no ASGI server"),
        ("BL401", "requirements.lock does not fix by hash what is installed: plain==1.0"),
        ("BL103", "no metric is declared"), ("BL103", "train returns no 'los'. Did you mean 'loss'?"),
    ):  # fmt: skip
        assert any(line.startswith(f"error[{code}]") and words in line for line in told.stdout.splitlines()), words
    (folder / "branchline.toml").write_text('kindd = "model"\n')
    told = typed(world, "check", "housing")
    assert "kindd" in told.stdout
    assert "kind" in told.stdout


@pytest.mark.parametrize(
    "broken", [{"steps.py": "def train(:\n"}, {"serving.py": "def predict(\n"}], ids=["a step", "the server"]
)
def test_check_survives_code_that_cannot_be_read(world: RealGit, broken: dict[str, str]) -> None:
    shutil.copytree(EXAMPLE / "housing", world.work / "housing")
    for name, text in broken.items():
        (world.work / "housing" / name).write_text(text)
    told = typed(world, "check")
    assert told.exit_code == 2
    assert f"housing/{next(iter(broken))}:1: " in told.stdout


def test_check_says_what_a_service_of_another_name_may_be(world: RealGit) -> None:
    service(world)
    told = typed(world, "check", "hosing")
    assert told.exit_code == 2
    assert "Did you mean 'housing'?" in told.stderr


def test_check_warns_of_a_branch_that_nearly_means_something(world: RealGit) -> None:
    service(world)
    assert typed(world, "check").exit_code == 0
    world.git("switch", "--quiet", "-c", "experiment-housing-alex")
    told = typed(world, "check")
    assert told.exit_code == 2
    assert "error[BL101]" in told.stdout


# ------------------------------------------------------------------------------------------------ what init writes


def test_what_init_writes_is_short_commented_and_understood(tmp_path: Path) -> None:
    """At most 15 lines, and the reader of service files takes every one of them."""
    for kind in ("model", "app"):
        text = files("shop", detected(tmp_path, kind))["branchline.toml"]
        assert len(text.splitlines()) <= 15
        assert "#" in text
        assert read_service(text.encode(), "shop/branchline.toml").kind == kind


def test_init_asks_no_packages_of_what_is_not_python(tmp_path: Path) -> None:
    """A microservice in another language needs no lock, and is checked by what it answers."""
    (tmp_path / "Procfile").write_text("web: node server.js {socket}\n")
    written = files("shop", detected(tmp_path))
    assert [*written] == ["branchline.toml"]
    spec = read_service(written["branchline.toml"].encode(), "shop/branchline.toml")
    assert [(gate.kind, gate.rps) for gate in spec.gates] == [("load", 5)]
    assert lock_in("shop", tmp_path) is None
    (tmp_path / "app.py").write_text("x = 1\n")
    assert "requirements.in" in files("shop", detected(tmp_path))


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("requirements.in", "# tools\nuvicorn  # serves\n", f"(cd shop && {compiling()})"),
        ("requirements.txt", "uvicorn\n", f"(cd shop && {compiling('requirements.txt')})"),
        ("pyproject.toml", '[project]\ndependencies = ["uvicorn"]\n', f"(cd shop && {uv_typed()} lock)"),
        ("requirements.in", "# nothing yet\n", ""),
        ("pyproject.toml", "[tool.ruff]\nline-length = 120\n", ""),
        ("pyproject.toml", "no toml", ""),
    ],
)
def test_only_what_asks_for_packages_has_to_lock_them(tmp_path: Path, name: str, text: str, command: str) -> None:
    """BL402: with the command to type, from the top of the repository."""
    (tmp_path / name).write_text(text)
    if not command:
        assert lock_in("shop", tmp_path) is None
        return
    with pytest.raises(LockMissing) as caught:
        lock_in("shop", tmp_path)
    assert (caught.value.cause, caught.value.next) == (f"{name} asks for packages", command)


@pytest.mark.parametrize(
    ("name", "text", "kind", "serve"),
    [
        ("main.py", "from fastapi import FastAPI\napi = FastAPI(title='x')\n", "app", '"main:api", "--uds"'),
        ("app/main.py", "from fastapi import FastAPI\napp = FastAPI()\n", "app",
         '["uvicorn", "app.main:app", "--uds", "{socket}"]'),
        ("app/__init__.py", "from fastapi import FastAPI\napi = FastAPI()\n", "app", '"app:api", "--uds"'),
        ("tests/main.py", "from fastapi import FastAPI\napp = FastAPI()\n", "model", "serving:predict"),
        (".venv/main.py", "from fastapi import FastAPI\napp = FastAPI()\n", "model", "serving:predict"),
        ("Procfile", "web: node server.js '$PORT'\n", "app", '"node", "server.js", "$PORT"'),
        ("other.py", "x = 1\n", "model", "serving:predict"),
    ],
)  # fmt: skip
def test_init_sees_what_is_there(tmp_path: Path, name: str, text: str, kind: str, serve: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    found = detected(tmp_path)
    assert found.kind == kind
    assert serve in found.serve


def test_init_prefers_the_module_that_is_named_as_usual(tmp_path: Path) -> None:
    """The folder's own modules first, then its packages'; the test it writes imports the one that was found."""
    text = "from fastapi import FastAPI\napp = FastAPI()\n"
    (tmp_path / "app").mkdir()
    for name in ("admin", "main"):
        (tmp_path / "app" / f"{name}.py").write_text(text)
    found = detected(tmp_path)
    assert (found.module, found.said) == ("app.main", "app/main.py: an ASGI app")
    assert "import app.main\n" in files("shop", found)["tests/test_shop.py"]
    (tmp_path / "zero.py").write_text(text)
    assert detected(tmp_path).module == "zero"


@pytest.mark.parametrize(
    ("asked", "written"),
    [
        ("fastapi==0.1\n", "-r requirements.txt\npytest\nuvicorn\n"),
        ("# web\nUvicorn[standard]>=0.30 ; python_version > '3'\npy.test-extra\n", "-r requirements.txt\npytest\n"),
        ("pytest\nuvicorn\n", "-r requirements.txt\n"),
        ("", "-r requirements.txt\npytest\nuvicorn\n"),
        (None, "pytest\nuvicorn\n"),
    ],
)
def test_init_asks_for_what_requirements_txt_asks_for(tmp_path: Path, asked: str | None, written: str) -> None:
    """H4: nothing that the service needs is left out, and no name is there twice."""
    if asked is not None:
        (tmp_path / "requirements.txt").write_text(asked)
    assert files("shop", detected(tmp_path))["requirements.in"] == written


APPLICATION = "from fastapi import FastAPI\nfrom app.rates import price\napp = FastAPI()\n"


def test_an_application_of_the_repository_stays_where_it_is_and_is_shared(world: RealGit) -> None:
    """For a new folder; its tests are the gate, and what its requirements.txt asks for is not asked for twice."""
    (world.work / "app").mkdir()
    (world.work / "tests").mkdir()
    (world.work / "app" / "main.py").write_text(APPLICATION)
    (world.work / "requirements.txt").write_text("fastapi\nuvicorn\n")
    told = typed(world, "init", "parcels")
    assert "found    app/main.py: an ASGI app" in told.stderr
    assert told.stdout.splitlines() == ["wrote    parcels/branchline.toml", "wrote    parcels/requirements.in"]
    assert (world.work / "parcels" / "requirements.in").read_text() == "-r ../requirements.txt\npytest\n"
    spec = read_service((world.work / "parcels" / "branchline.toml").read_bytes(), "parcels/branchline.toml")
    assert spec.shared == ("app", "tests")
    assert spec.serving.command == ("uvicorn", "app.main:app", "--uds", "{socket}")
    assert spec.serving.health == "/openapi.json"
    assert [gate.command for gate in spec.gates] == [("python", "-m", "pytest", "-q", "../tests")]
    assert "found" not in typed(world, "init", "parcels").stderr, "that folder is not new any more"


def test_a_module_of_the_root_is_shared_with_what_it_can_import(tmp_path: Path) -> None:
    """And not with another service, nor with what is there for other tools."""
    for path in ("main.py", "rates.py", "setup.py", "lib/__init__.py", "tests/__init__.py", "eta/main.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(APPLICATION if path.endswith("main.py") else "")
    (tmp_path / "eta" / "branchline.toml").write_text("")
    found = detected(tmp_path / "services" / "parcels", "", tmp_path)
    assert found.shared == ("main.py", "rates.py", "lib", "tests")
    assert (found.up, found.module) == ("../../", "main")
    (tmp_path / "main.py").unlink()
    (tmp_path / "lib" / "api.py").write_text(APPLICATION)
    assert detected(tmp_path / "parcels", "", tmp_path).shared == ("lib", "tests")
    (tmp_path / "lib" / "api.py").unlink()
    assert detected(tmp_path / "parcels", "", tmp_path).shared == ()


@pytest.mark.parametrize(
    ("route", "health"),
    [
        ("@app.get('/healthz')", "/healthz"), ('@app.get( "/ping" )', "/ping"), ("@app.get('/')", "/"),
        ("@app.get('/{number}')", "/openapi.json"), ("@app.post('/health')", "/openapi.json"),
    ],
)  # fmt: skip
def test_init_names_a_path_that_answers(tmp_path: Path, route: str, health: str) -> None:
    """Without one of its own a FastAPI application has its document; `/` would be a 404, and never ready."""
    (tmp_path / "main.py").write_text(f"{APPLICATION}\n{route}\ndef answer(): ...\n")
    text = files("shop", detected(tmp_path))["branchline.toml"]
    assert read_service(text.encode(), "shop/branchline.toml").serving.health == health
