"""This file tests real environments: one builder, no halves, no change unnoticed (F26, F28; 3.05, 3.06)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from typing import Self

import pytest

from branchline.adapters.uv import UvEnvironments
from branchline.adapters.uv_locks import typed
from branchline.errors import EnvironmentBusy, EnvironmentFailed
from branchline.ports import Environment
from tests.indexes import serving
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
    assert failed.value.next == f"(cd listings && {typed()} lock)"


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


def test_bytecode_of_the_same_file_is_borrowed_and_names_its_own_file(tmp_path: Path) -> None:
    """To add a package is to compile that package; a traceback shows the environment that it is of."""
    environ = {**os.environ, "UV_LINK_MODE": "hardlink"}
    with serving(tmp_path / "index") as index:
        environments = UvEnvironments(tmp_path / "state", environ={**environ, **index.environ(tmp_path / "cache")})
        plain, other = index.add("plain", "1.0"), index.add("other", "1.0")
        one = environments.ensure("housing", service(tmp_path, plain), "")
        two = environments.ensure("housing", service(tmp_path, plain + other), "")
        index.add("plain", "2.0")
        three = environments.ensure("housing", service(tmp_path, index.add("plain", "3.0")), "")
    assert cached(one, "plain").samefile(cached(two, "plain"))
    assert not cached(three, "plain").samefile(cached(one, "plain"))
    assert cached(two, "other").exists()
    program = "import plain; print(plain.f.__code__.co_filename)"
    environ = {"PYTHONPYCACHEPREFIX": str(two.python.parents[2] / "pycache")}
    ran = subprocess.run(
        [str(two.python), "-v", "-c", program], env=environ, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == imported(two, "plain")
    assert f"code object from '{cached(two, 'plain')}'" in ran.stderr


def cached(environment: Environment, module: str) -> Path:
    """The file with a module's bytecode."""
    found = [*(environment.python.parents[2] / "pycache").rglob(f"{module}/*.pyc")]
    assert len(found) == 1
    return found[0]


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


class Overtaken(UvEnvironments):
    """Another builder is done right before its lock is looked at."""

    @contextmanager
    def alone(self, digest: str) -> Iterator[bool]:
        """Whether nobody builds it, by now."""
        (self.home / digest / "environment.json").touch()
        with super().alone(digest) as alone:
            yield alone


def test_what_was_built_in_the_moment_it_is_looked_at_is_not_cleared_away_F28(tmp_path: Path) -> None:
    """Killer: remove what had no file before its lock was had."""
    other = tmp_path / "state" / "envs" / ("0" * 64)
    (other / "venv").mkdir(parents=True)
    other.with_name(other.name + ".lock").touch()
    Overtaken(tmp_path / "state").clear()
    assert (other / "venv").exists()


class Swept(PosixPath):
    """A folder in which an environment goes while it is looked through."""

    def glob(self, pattern: str) -> Generator[Self, None, None]:
        """What was there at first."""
        yield from (self / "gone" / "environment.json", self / "here" / "environment.json")


def test_what_is_swept_while_donors_are_looked_for_is_none(tmp_path: Path) -> None:
    """Killer: ask for the time of a file that is gone, and the build fails by it."""
    environments = UvEnvironments(tmp_path)
    environments.home = Swept(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "environment.json").touch()
    assert environments.lately() == [tmp_path / "here"]


def test_a_sweep_lets_be_what_is_being_built_and_what_was_used_lately(tmp_path: Path) -> None:
    """F28, F49: a use counts, not only the building."""
    times = [1_000_000.0]
    environments = UvEnvironments(tmp_path / "state", now=lambda: times[0])
    digest = environments.ensure("housing", service(tmp_path), "").digest
    times[0] += 3000
    assert environments.ensure("housing", service(tmp_path), "").reused
    times[0] += 3000
    assert environments.sweep((), older_than=3600) == {}
    with environments.building(digest):
        assert environments.sweep((), older_than=60) == {}
    freed = environments.sweep((), older_than=60)
    assert freed[digest] > 0
    assert not (tmp_path / "state" / "envs" / digest).exists()


def test_bytes_that_uvs_cache_still_holds_are_not_said_to_be_freed(tmp_path: Path) -> None:
    folder = service(tmp_path)
    freed = []
    for mode in ("hardlink", "copy"):
        environments = UvEnvironments(tmp_path / mode, environ={**os.environ, "UV_LINK_MODE": mode})
        environments.ensure("housing", folder, "")
        freed.append(sum(environments.sweep((), older_than=0).values()))
    assert freed[0] < freed[1]


def test_who_waits_too_long_for_another_builder_is_told(tmp_path: Path) -> None:
    slow, hasty = UvEnvironments(tmp_path / "state"), UvEnvironments(tmp_path / "state", wait=0.1)
    digest = slow.ensure("housing", service(tmp_path), "").digest
    begun = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with slow.building(digest):
            begun.set()
            done.wait(60)

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


def test_a_service_has_the_python_that_it_asks_for(tmp_path: Path) -> None:
    """3.05: its version is its own; the same lock under another Python is another environment, beside the first."""
    environments, folder = UvEnvironments(tmp_path / "state"), service(tmp_path)
    version = other_python(environments)
    own, other = environments.ensure("housing", folder, ""), environments.ensure("housing", folder, version)
    program = "import iniconfig, sys; print(*sys.version_info[:2], sep='.')"
    told = subprocess.run([str(other.python), "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == version
    assert own.digest != other.digest
    assert UvEnvironments(tmp_path / "state").ensure("housing", folder, version).reused


def other_python(environments: UvEnvironments) -> str:
    """A version that is installed here and is not our own."""
    for minor in {12, 13, 14} - {sys.version_info.minor}:
        with suppress(EnvironmentFailed):
            environments.found("housing", f"3.{minor}")
            return f"3.{minor}"
    pytest.skip("this machine has one Python")


def test_a_steps_own_environment_is_that_of_its_folder(tmp_path: Path) -> None:
    """2.26: any folder with a lock; the service's own stays as it is."""
    folder = service(tmp_path)
    (folder / "heavy").mkdir()
    (folder / "heavy" / "requirements.lock").write_text(lock_of("h11"), encoding="utf-8")
    environments = UvEnvironments(tmp_path / "state")
    own, heavy = environments.ensure("housing", folder, ""), environments.ensure("housing", folder / "heavy", "")
    assert (own.names, heavy.names) == (("iniconfig",), ("h11",))


def fake_python(path: Path, version: str) -> None:
    path.write_text(f"#!/bin/sh\necho CPython {version} linux-x86_64 cpython-398\n")
    path.chmod(0o755)


def test_an_upgraded_interpreter_is_another_environment(tmp_path: Path) -> None:
    """3.06: a package manager puts the new version in the place of the old one, under a daemon that runs on."""
    folder, path = service(tmp_path), tmp_path / "python3.98"
    environments = UvEnvironments(tmp_path / "state")
    environments.pythons["3.98"] = str(path)
    fake_python(path, "3.98.1")
    one = environments.named("housing", folder, "3.98")
    assert environments.named("housing", folder, "3.98") == one
    path.unlink()
    fake_python(path, "3.98.10")
    assert environments.named("housing", folder, "3.98")[2] != one[2]


def test_our_own_interpreter_may_be_upgraded_too(tmp_path: Path) -> None:
    environments = UvEnvironments(tmp_path / "state")
    now = environments.interpreter("housing", "")
    environments.asked[sys.executable] = ("another file", "CPython 3.11.0")
    assert environments.interpreter("housing", "") == now


def test_an_interpreter_that_does_not_run_is_told(tmp_path: Path) -> None:
    environments = UvEnvironments(tmp_path / "state")
    environments.pythons["3.98"] = str(tmp_path / "python3.98")
    (tmp_path / "python3.98").write_text("no program")
    with pytest.raises(EnvironmentFailed) as failed:
        environments.ensure("housing", service(tmp_path), "3.98")
    assert (failed.value.cause, failed.value.next) == (f"{tmp_path}/python3.98 does not run", "install Python 3.98")


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
