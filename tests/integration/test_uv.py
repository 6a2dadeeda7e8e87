"""This file tests real environments: one builder, no halves, no change unnoticed (F26, F28; 3.05, 3.06)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from branchline.adapters.uv import UvEnvironments, typed
from branchline.errors import EnvironmentBusy, EnvironmentFailed
from branchline.ports import Environment
from tests.locks import TINY, lock_of
from tests.waiting import wait_until

PROJECT = """
[project]
name = "housing"
version = "1"
requires-python = ">=3.11"
dependencies = ["{name}"]
"""


def service(home: Path, lock: str = "") -> Path:
    folder = home / "housing"
    folder.mkdir(exist_ok=True)
    (folder / "requirements.lock").write_text(lock or lock_of(*TINY), encoding="utf-8")
    return folder


def project(home: Path, name: str = "iniconfig") -> Path:
    """A service folder with a `pyproject.toml` and the `uv.lock` that uv makes of it."""
    folder = home / "listings"
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT.format(name=name))
    command = [UvEnvironments(home).uv, "lock", "-q", "--project", str(folder), "--python", sys.executable]
    subprocess.run(command, check=True)
    return folder


def imported(environment: Environment, module: str) -> str:
    """The file that the environment's Python imports a module from."""
    command = [str(environment.python), "-c", f"import {module}; print({module}.__file__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_two_who_want_the_same_build_it_once(tmp_path: Path) -> None:
    """F28: two processes' worth of builders (each has a file lock of its own); one builds, one waits."""
    folder = service(tmp_path)
    found: list[Environment] = []
    builders = [UvEnvironments(tmp_path / "state") for _ in range(3)]
    threads = [
        threading.Thread(target=lambda each=each: found.append(each.ensure("housing", folder, ""))) for each in builders
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.reused for each in found) == [False, True, True]
    assert len({each.digest for each in found}) == 1


def test_a_uv_lock_is_built_without_the_service_itself(tmp_path: Path) -> None:
    """3.05: the code comes from the revision's tree, never from where the environment was built."""
    built = UvEnvironments(tmp_path / "state").ensure("listings", project(tmp_path), "")
    assert built.names == ("iniconfig",)
    assert imported(built, "iniconfig").startswith(str(built.python.parents[1]))


def test_a_uv_lock_for_another_project_file_is_told(tmp_path: Path) -> None:
    folder = project(tmp_path)
    (folder / "pyproject.toml").write_text(PROJECT.format(name="h11"))
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state").ensure("listings", folder, "")
    assert failed.value.cause == "uv.lock was made for another pyproject.toml: h11, iniconfig"
    assert failed.value.next == f"{typed()} lock"


def test_without_the_network_what_is_cached_is_enough(tmp_path: Path) -> None:
    """F26: the index may be down."""
    UvEnvironments(tmp_path / "one").ensure("housing", service(tmp_path), "")
    built = UvEnvironments(tmp_path / "two", offline=True).ensure("housing", service(tmp_path), "")
    assert not built.reused


def test_without_the_network_what_is_not_cached_is_named(tmp_path: Path) -> None:
    environ = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "empty")}
    environments = UvEnvironments(tmp_path / "state", offline=True, environ=environ)
    with pytest.raises(EnvironmentFailed) as failed:
        environments.ensure("housing", service(tmp_path), "")
    assert "iniconfig" in failed.value.cause
    assert not list((tmp_path / "state" / "envs").glob("*/"))


def test_a_wheel_that_is_not_the_one_that_was_locked_is_refused(tmp_path: Path) -> None:
    """F26: hash mismatch."""
    lock = lock_of(*TINY).partition("\\")[0].strip() + " --hash=sha256:" + "0" * 64 + "\n"
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state").ensure("housing", service(tmp_path, lock), "")
    assert "iniconfig" in failed.value.cause


def test_a_lock_without_hashes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state").ensure("housing", service(tmp_path, "iniconfig==2.1.0\n"), "")
    assert "iniconfig" in failed.value.cause


def test_what_was_changed_after_it_was_built_is_refused(tmp_path: Path) -> None:
    """Hard links are writable: a write in one environment is a write in all of them. Level: checked."""
    environ = {**os.environ, "UV_LINK_MODE": "copy"}
    environments = UvEnvironments(tmp_path / "state", environ=environ)
    built = environments.ensure("housing", service(tmp_path), "")
    with Path(imported(built, "iniconfig")).open("a") as module:
        module.write("\nhacked = True\n")
    with pytest.raises(EnvironmentFailed) as failed:
        environments.ensure("housing", service(tmp_path), "")
    assert "1 of its files were changed after it was built" in failed.value.cause
    assert "iniconfig/__init__.py" in failed.value.cause


def test_a_module_that_was_added_is_noticed_too(tmp_path: Path) -> None:
    environments = UvEnvironments(tmp_path / "state")
    built = environments.ensure("housing", service(tmp_path), "")
    (Path(imported(built, "iniconfig")).parents[1] / "sitecustomize.py").write_text("")
    with pytest.raises(EnvironmentFailed, match="cannot be built"):
        environments.ensure("housing", service(tmp_path), "")


def test_bytecode_is_compiled_once_beside_it_and_used(tmp_path: Path) -> None:
    built = UvEnvironments(tmp_path / "state").ensure("housing", service(tmp_path), "")
    pycache = built.python.parents[2] / "pycache"
    assert list(pycache.rglob("iniconfig/*.pyc"))
    assert not list(built.python.parents[1].rglob("*.pyc"))
    program = "import iniconfig; print(iniconfig.__cached__)"
    environ = {"PYTHONPYCACHEPREFIX": str(pycache)}
    cached = subprocess.run(
        [str(built.python), "-v", "-c", program], env=environ, capture_output=True, text=True
    ).stderr
    assert "code object from '" + str(pycache) in cached


def test_what_a_killed_builder_left_is_built_anew(tmp_path: Path) -> None:
    environments = UvEnvironments(tmp_path / "state")
    built = environments.ensure("housing", service(tmp_path), "")
    home = built.python.parents[2]
    (home / "environment.json").unlink()
    (home / "venv" / "half").touch()
    other = home.with_name("0" * 64)
    (other / "venv").mkdir(parents=True)
    other.with_name(other.name + ".lock").touch()
    assert not environments.ensure("housing", service(tmp_path), "").reused
    assert not (home / "venv" / "half").exists()
    assert not other.exists()


def test_who_waits_too_long_for_another_builder_is_told(tmp_path: Path) -> None:
    slow, hasty = UvEnvironments(tmp_path / "state"), UvEnvironments(tmp_path / "state", wait=0.1)
    digest = slow.ensure("housing", service(tmp_path), "").digest
    begun = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with slow.building(digest):
            begun.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert wait_until(begun.is_set)
    before = time.monotonic()
    with pytest.raises(EnvironmentBusy):
        hasty.ensure("housing", service(tmp_path), "")
    assert time.monotonic() - before < 20
    done.set()
    holder.join()


def test_a_python_that_is_not_here_is_told_and_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state").ensure("housing", service(tmp_path), "3.98")
    assert "3.98" in failed.value.cause + failed.value.next


def test_the_python_that_runs_branchline_may_be_asked_for_by_its_version(tmp_path: Path) -> None:
    environments = UvEnvironments(tmp_path / "state")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    one = environments.ensure("housing", service(tmp_path), "")
    assert environments.ensure("housing", service(tmp_path), version).digest == one.digest


def test_no_uv_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state", uv=str(tmp_path / "no-uv")).ensure("housing", service(tmp_path), "")
    assert (failed.value.cause, failed.value.next) == ("there is no uv", "pip install uv")


def test_a_kept_sdk_runs_by_itself(tmp_path: Path) -> None:
    """The SDK of a revision rides in by path, without an installed Branchline."""
    digest, folder = UvEnvironments(tmp_path / "state").sdk()
    assert folder.name == digest
    program = "import branchline.sdk.run, branchline.sdk.serve, branchline.core.spec; print(branchline.__file__)"
    environ = {"PYTHONPATH": str(folder)}
    ran = subprocess.run([sys.executable, "-P", "-S", "-c", program], env=environ, capture_output=True, text=True)
    assert ran.stdout.strip() == str(folder / "branchline" / "__init__.py")
    assert not list(folder.rglob("ports.py"))
