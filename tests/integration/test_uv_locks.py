"""This file tests locks and what becomes of them against an index of our own: which file counts, what is refused and
how it is told, and that what the cache holds needs no network (F26; 2.24, 2.26, 3.05, 3.06).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.adapters.uv import UvEnvironments
from branchline.adapters.uv_locks import lock_in, typed
from branchline.errors import EnvironmentFailed, LockMissing
from branchline.ports import Environment
from tests.indexes import Index, serving, wheel

KINDS = ("requirements.lock", "requirements.txt", "pylock.toml", "uv.lock")
PROJECT = (
    '[project]\nname = "housing"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["plain=={version}"]\n'
)
HASH = "--hash=sha256:" + "0" * 64
CLOSED = "http://127.0.0.1:9"  # the port of a service that nobody runs any more
NO_NETWORK = {"HTTP_PROXY": CLOSED, "HTTPS_PROXY": CLOSED, "ALL_PROXY": CLOSED, "UV_HTTP_RETRIES": "0"}


@dataclass
class Shop:
    """Services whose packages come from an index of our own."""

    home: Path
    index: Index

    def environ(self, cache: str = "cache", **more: str) -> Mapping[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.upper().endswith("PROXY")}
        return {**ours, **self.index.environ(self.home / cache), **more}

    def uv(self, *words: str, cwd: Path) -> None:
        program = UvEnvironments(self.home).uv
        subprocess.run([program, *words], cwd=cwd, env=self.environ("locking"), check=True, capture_output=True)

    def service(self, kind: str, version: str = "1.0", name: str = "housing") -> Path:
        """The folder of a service with a lock of that kind on `plain`."""
        folder = self.home / f"{name}-{kind}-{version}"
        folder.mkdir()
        if kind == "uv.lock":
            (folder / "pyproject.toml").write_text(PROJECT.format(version=version))
            self.uv("lock", "--python", sys.executable, cwd=folder)
        else:
            (folder / "requirements.in").write_text(f"plain=={version}\n")
            self.uv("pip", "compile", "--generate-hashes", "requirements.in", "-o", kind, cwd=folder)
        return folder

    def built(self, folder: Path, state: str = "state", cache: str = "cache", **environ: str) -> Environment:
        return UvEnvironments(self.home / state, environ=self.environ(cache, **environ)).ensure("housing", folder, "")

    def refused(self, folder: Path, cache: str = "cache", **environ: str) -> EnvironmentFailed:
        """The error, after which nothing half is there."""
        with pytest.raises(EnvironmentFailed) as failed:
            self.built(folder, cache=cache, **environ)
        assert not list((self.home / "state" / "envs").glob("*/"))
        assert "\n" not in failed.value.cause
        return failed.value


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with serving(tmp_path / "index") as index:
        index.add("plain", "1.0")
        index.add("plain", "2.0")
        yield Shop(tmp_path, index)


def version(environment: Environment) -> str:
    command = [str(environment.python), "-c", "import plain; print(plain.VERSION)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


# ------------------------------------------------------------------------------------------------ which file counts


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_lock_is_built_and_reused(shop: Shop, kind: str) -> None:
    folder = shop.service(kind)
    built = shop.built(folder)
    assert (built.names, built.reused, version(built)) == (("plain",), False, "1.0")
    asked = len(shop.index.asked)
    assert shop.built(folder).reused
    assert len(shop.index.asked) == asked  # an unchanged lock installs and asks nothing


def test_the_first_lock_in_order_counts(tmp_path: Path) -> None:
    order = ("uv.lock", "pylock.toml", "requirements.lock", "requirements.txt")
    for name in reversed(order):
        (tmp_path / name).write_text(f"plain==1.0 {HASH}\n")
        found = lock_in("housing", tmp_path)
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    "text",
    [
        "plain==1.0\n",
        f"plain==1.0 {HASH}\nother\n",
        f"plain==1.0 {HASH}\n-r more.txt\n",
        f"plain==1.0  # {HASH}\n",
        "plain==1.0 \\\n    # no hash\n",
    ],
)
def test_requirements_without_hashes_are_only_a_wish(tmp_path: Path, text: str) -> None:
    (tmp_path / "requirements.txt").write_text(text)
    with pytest.raises(LockMissing) as caught:
        lock_in("housing", tmp_path)
    command = f"{typed()} pip compile --generate-hashes requirements.txt -o requirements.lock"
    assert (caught.value.cause, caught.value.next) == (
        "requirements.txt asks for packages",
        f"(cd housing && {command})",
    )


def test_requirements_with_hashes_ask_for_no_other_lock(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(f"# made by a tool\n--no-binary=none\nplain==1.0 \\\n    {HASH}\n")
    assert lock_in("housing", tmp_path) == tmp_path / "requirements.txt"


def test_the_folder_of_a_steps_environment_has_to_be_there(tmp_path: Path) -> None:
    """2.26: a name that is mistyped is not Python without packages."""
    with pytest.raises(LockMissing) as caught:
        UvEnvironments(tmp_path / "state").ensure("housing", tmp_path / "torhc", "")
    assert caught.value.cause == "there is no folder torhc"


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("kind", KINDS)
def test_another_file_than_the_one_that_was_locked_is_refused(shop: Shop, kind: str) -> None:
    """F26: hash mismatch. The index has something else under the same name now."""
    folder = shop.service(kind)
    wheel(shop.index.folder, "plain", "1.0", "other = True\n")
    failed = shop.refused(folder)
    assert failed.cause.startswith("plain==1.0 is not the file that was locked: sha256:")
    command = {
        "uv.lock": f"{typed()} lock --upgrade-package plain",
        "pylock.toml": f"{typed()} pip compile --upgrade-package plain requirements.in -o pylock.toml",
    }
    other = f"{typed()} pip compile --generate-hashes --upgrade-package plain requirements.in -o {kind}"
    assert failed.next == f"(cd housing && {command.get(kind, other)})"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", ["plain-2.0-py3-none-any.whl", ""])
def test_what_the_index_has_no_more_is_refused(shop: Shop, kind: str, left: str) -> None:
    """F26: a version that is gone, and a package that is."""
    folder = shop.service(kind)
    for path in shop.index.folder.glob("*.whl"):
        if path.name != left:
            path.unlink()
    failed = shop.refused(folder)
    gone = "the index has no plain" if kind.startswith("req") else "the index has the file of plain==1.0 no more"
    assert failed.cause.startswith(gone)
    assert "--upgrade-package plain" in failed.next


@pytest.mark.parametrize("kind", ["requirements.lock", "requirements.txt"])
def test_what_was_yanked_is_refused(shop: Shop, kind: str) -> None:
    """F26. uv itself would install it and warn."""
    folder = shop.service(kind)
    shop.index.yanked["plain-1.0-py3-none-any.whl"] = "loses data"
    failed = shop.refused(folder)
    assert failed.cause == "plain==1.0 was yanked by those who published it: loses data"
    assert shop.refused(folder).cause == failed.cause  # that it is in the cache now changes nothing
    assert "--upgrade-package plain" in failed.next


def test_what_was_built_before_it_was_yanked_is_used(shop: Shop) -> None:
    """F26: an environment with the same lock stays usable."""
    folder = shop.service("requirements.lock")
    shop.built(folder)
    shop.index.yanked["plain-1.0-py3-none-any.whl"] = "loses data"
    assert shop.built(folder).reused


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_cannot_be_reached_is_told(shop: Shop, kind: str) -> None:
    failed = shop.refused(shop.service(kind), UV_DEFAULT_INDEX="http://nowhere.invalid/simple", **NO_NETWORK)
    assert failed.cause.startswith("plain")
    assert "cannot be fetched from http://" in failed.cause
    assert failed.next == "see that the index can be reached, then type the same again"


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_cache_lacks_is_named_when_the_network_is_off(shop: Shop, kind: str) -> None:
    failed = shop.refused(shop.service(kind), UV_OFFLINE="1")
    assert failed.cause.startswith("plain")
    assert failed.cause.endswith("is not in uv's cache, and the network is switched off")


LOOSE = {
    "requirements.lock": (f"iniconfig==2.1.0\nplain==1.0 {HASH}\n-r more.txt\n./lib\n",
                          "iniconfig==2.1.0, -r more.txt, ./lib"),
    "pylock.toml": ('lock-version = "1.0"\ncreated-by = "me"\n'
                    '[[packages]]\nname = "Li_b"\ndirectory = { path = "lib" }\n'
                    '[[packages]]\nname = "plain"\nwheels = [{ path = "plain-1.0-py3-none-any.whl", hashes = {} }]\n'
                    '[[packages]]\nname = "fixed"\nvcs = { type = "git", url = "x", commit-id = "abc" }\n',
                    "li-b, plain"),
    "uv.lock": ('version = 1\nrequires-python = ">=3.11"\n[[package]]\nname = "housing"\nversion = "1"\n'
                'source = { virtual = "." }\ndependencies = [{ name = "plain" }]\n'
                '[[package]]\nname = "plain"\nsource = { git = "x#abc" }\n[package.optional-dependencies]\n'
                'fast = [{ name = "lib" }]\n[[package]]\nname = "lib"\nsource = { directory = "../lib" }\n'
                '[[package]]\nname = "unused"\nsource = { directory = "../unused" }\n', "lib"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOOSE)
def test_what_a_lock_leaves_open_is_named(tmp_path: Path, kind: str) -> None:
    """3.05: a folder may change while the lock, and so the digest, does not. That would be stale reuse."""
    (tmp_path / kind).write_text(LOOSE[kind][0])
    (tmp_path / "pyproject.toml").write_text(PROJECT.format(version="1.0"))
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state").ensure("housing", tmp_path, "")
    assert failed.value.cause == f"{kind} does not fix by hash what is installed: {LOOSE[kind][1]}"
    assert not list((tmp_path / "state" / "envs").glob("*/"))


@pytest.mark.parametrize(
    ("kind", "text", "cause"),
    [
        ("uv.lock", "no toml", "uv.lock cannot be read: "),
        ("uv.lock", "", "uv.lock cannot be read: beside it is no pyproject.toml with a [project] that has a name"),
        ("pylock.toml", "[[packages]]\nversion = 1\n", "pylock.toml cannot be read: "),
    ],
)
def test_a_lock_that_is_none_is_told(tmp_path: Path, kind: str, text: str, cause: str) -> None:
    (tmp_path / kind).write_text(text)
    with pytest.raises(EnvironmentFailed) as failed:
        UvEnvironments(tmp_path / "state").ensure("housing", tmp_path, "")
    assert failed.value.cause.startswith(cause)


# ------------------------------------------------------------------------------------------------ side by side, offline


@pytest.mark.parametrize("kind", KINDS)
def test_services_with_conflicting_pins_stand_side_by_side(shop: Shop, kind: str) -> None:
    """3.05: neither sees the other's, and both are there at once."""
    one, two = shop.built(shop.service(kind, "1.0")), shop.built(shop.service(kind, "2.0", "listings"))
    assert (version(one), version(two)) == ("1.0", "2.0")
    assert one.digest != two.digest


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_cache_holds_is_built_without_the_network(shop: Shop, kind: str) -> None:
    """F26: another state folder, the index gone, and a proxy that refuses everything."""
    folder = shop.service(kind)
    one, asked = shop.built(folder, state="one"), len(shop.index.asked)
    two = shop.built(folder, state="two", UV_DEFAULT_INDEX=f"{shop.index.address}/simple", **NO_NETWORK)
    assert (two.reused, two.digest, version(two)) == (False, one.digest, "1.0")
    assert len(shop.index.asked) == asked
