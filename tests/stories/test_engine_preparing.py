"""This file tests getting a commit ready: one service by its name, data as it is pinned, one closed environment.

Requirements: 2.24 and 3.15 (staging is production), 3.03; F10 (policy of the trunk), F46.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchline.engine.preparing import closed_environment, governed_spec, pinned, prepare, pycache, spec_at
from branchline.errors import BadServiceFile, DataNotPinned, EnvironmentFailed, UnknownService
from branchline.ports import DataVersion
from tests.world import ALEX, MODEL, World

COMMAND = MODEL.replace('predict = "serving:predict"', 'command = ["./serve"], health = "/up", env = { MODE = "fast" }')
WITH_DATA = MODEL.replace("steps = {", 'data = { sales = "data/*.csv" }\nsteps = {')


def locked(version: DataVersion) -> str:
    pin = {"digest": version.digest, "files": version.files, "rows": version.rows, "size": version.size}
    return json.dumps({version.source: pin})


def test_a_commit_without_the_service_says_so(world: World) -> None:
    with pytest.raises(UnknownService) as caught:
        spec_at(world.ports, "housing", world.git.tip("main"))
    assert caught.value.cause.startswith("no folder named housing holds a branchline.toml in ")


def test_two_folders_of_one_name_are_refused(world: World) -> None:
    tip = world.git.write(ALEX, {"a/housing/branchline.toml": MODEL, "b/housing/branchline.toml": MODEL})
    with pytest.raises(BadServiceFile) as caught:
        spec_at(world.ports, "housing", tip)
    assert caught.value.cause == "two folders have this name: a/housing, b/housing"


def test_a_trunk_that_has_no_such_service_governs_nobody_F10(world: World) -> None:
    tip = world.push()
    own = spec_at(world.ports, "housing", tip)
    assert governed_spec(world.ports, "housing", tip, world.git.tip("main")) == own
    assert governed_spec(world.ports, "housing", tip, "") == own


def test_data_is_what_the_commit_pins_F46(world: World) -> None:
    world.sources.here["data/*.csv"] = {"one.csv": b"a\n1\n"}
    version = world.sources.pin("sales", "data/*.csv")
    tip = world.push(toml=WITH_DATA, files={"data.lock": locked(version)})
    spec = spec_at(world.ports, "housing", tip)
    assert pinned(world.ports, spec, tip) == {"sales": version.digest}
    ready = prepare(world.ports, spec, tip)
    assert (ready.data["sales"] / "one.csv").read_bytes() == b"a\n1\n"
    assert prepare(world.ports, spec, tip).data == ready.data  # laid out once, and used again


@pytest.mark.parametrize("lock", [None, '{"other": {"digest": "%s", "files": 1, "rows": 1, "size": 1}}' % ("a" * 64)])
def test_data_that_is_not_pinned_is_refused(world: World, lock: str | None) -> None:
    tip = world.push(toml=WITH_DATA, files={"data.lock": lock} if lock else {})
    with pytest.raises(DataNotPinned):
        pinned(world.ports, spec_at(world.ports, "housing", tip), tip)


def test_a_step_may_have_an_environment_of_its_own_2_26(world: World) -> None:
    """The service's own stays what it is; what cannot be built is told by the folder that its lock is in."""
    heavy = MODEL.replace('"steps:train"', '{ call = "steps:train", environment = "heavy" }')
    tip = world.push(toml=heavy, files={"heavy/requirements.lock": "torch==1.0\n"})
    spec = spec_at(world.ports, "housing", tip)
    ready = prepare(world.ports, spec, tip)
    assert {folder: each.names for folder, each in ready.environments.items()} == {
        "": ("uvicorn",),
        "heavy": ("torch",),
    }
    binaries = str(ready.environments["heavy"].python.parent)
    home = ready.code
    assert closed_environment(ready, home, ready.environments["heavy"])["PATH"].startswith(f"{binaries}:")
    assert closed_environment(ready, home)["PATH"].startswith(f"{ready.environment.python.parent}:")
    world.environments.broken["housing/heavy"] = "no such package"
    with pytest.raises(EnvironmentFailed) as caught:
        prepare(world.ports, spec, tip)
    assert caught.value.message == "The environment of housing/heavy cannot be built"


def test_a_group_is_the_same_in_each_perimeter_3_15(world: World) -> None:
    world.released()
    staging, production = world.launcher.groups
    assert (staging.argv, staging.cwd) == (production.argv, production.cwd)
    differs = {key for key in staging.env if staging.env[key] != production.env[key]}
    assert differs == {"BRANCHLINE_PERIMETER", "BRANCHLINE_REVISION"}
    assert staging.argv[-1] == "branchline.sdk.serve"
    assert (production.health, production.nonce_aware) == ("/-/health", True)
    order = json.loads(Path(production.env["BRANCHLINE_SERVICE_SPEC"]).read_text())
    assert order["predict"] == "serving:predict"
    assert order["results"].keys() == {"train"}
    assert order["modules"] == ["serving", "steps"]
    assert production.env["BRANCHLINE_RESULT_TRAIN"] == order["results"]["train"]


def test_nothing_of_a_shell_reaches_a_service_2_24(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    world.released()
    assert "secret" not in world.launcher.groups[-1].env.values()
    assert all("secret" not in task.env.values() for task in world.runner.tasks)
    monkeypatch.undo()


def test_a_command_serves_as_it_is_declared(world: World) -> None:
    world.released(toml=COMMAND)
    group = world.launcher.groups[-1]
    assert (group.argv, group.health, group.nonce_aware) == (("./serve",), "/up", False)
    assert group.env["MODE"] == "fast"
    assert "OMP_NUM_THREADS" not in group.env


def test_what_servers_are_forked_from_is_of_the_environment_1_22(world: World) -> None:
    """It has the service's own variables, for a library reads them as it is imported, and nothing of a revision."""
    world.released()
    assert [group.bench for group in world.launcher.groups] == [None, None]
    serve = 'predict = "serving:predict", prewarm = true, env = { LEVEL = "high" }'
    world.push(toml=MODEL.replace('predict = "serving:predict"', serve))
    world.settle()
    group = world.launcher.groups[-1]
    assert group.bench is not None
    assert (str(group.bench.python), str(group.bench.sdk)) == (group.argv[0], group.env["PYTHONPATH"].split(":")[0])
    own = {name for name in group.env if name not in group.bench.env}
    assert {name for name in own if not name.startswith("BRANCHLINE_")} == {"HOME", "PYTHONPATH"}
    assert group.bench.env.items() <= group.env.items()
    assert (group.bench.env["LEVEL"], group.bench.env["OMP_NUM_THREADS"]) == ("high", "1")


def test_a_server_is_told_where_other_services_are(world: World) -> None:
    """experience 7: a service calls another at its stable address, below the gateway's."""
    world.released()
    for group in world.launcher.groups:
        assert world.router.address("listings") == f"{group.env['BRANCHLINE_GATEWAY']}/listings/"


def test_a_sample_is_found_in_the_revision(world: World) -> None:
    toml = MODEL.replace('predict = "serving:predict"', 'predict = "serving:predict", sample = "sample.json"')
    world.push(toml=toml, files={"sample.json": "{}"})
    world.settle()
    order = json.loads(Path(world.launcher.groups[-1].env["BRANCHLINE_SERVICE_SPEC"]).read_text())
    assert order["sample"].endswith("/housing/sample.json")


def test_bytecode_that_was_compiled_for_the_lock_is_used(world: World) -> None:
    tip = world.push()
    spec = spec_at(world.ports, "housing", tip)
    environment = prepare(world.ports, spec, tip).environment
    assert pycache(environment) == {"PYTHONDONTWRITEBYTECODE": "1"}
    folder = environment.python.parent.parent.parent / "pycache"
    folder.mkdir(parents=True)
    assert pycache(environment) == {"PYTHONPYCACHEPREFIX": str(folder)}
