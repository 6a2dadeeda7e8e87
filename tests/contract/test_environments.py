"""This file says what every Environments does: the fake and uv (3.05, 3.06, F28)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from branchline.adapters.uv import UvEnvironments
from branchline.errors import EnvironmentFailed, LockMissing
from branchline.ports import Environments
from tests.fakes.environments import FakeEnvironments
from tests.locks import TINY, lock_of


@dataclass
class House:
    """Environments, and service folders."""

    environments: Environments
    folder: Path

    def service(self, name: str, lock: str | None) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        if lock is not None:
            (folder / "requirements.lock").write_text(lock, encoding="utf-8")
        return folder


@pytest.fixture(params=["fake", "uv"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    fake = FakeEnvironments(tmp_path / "state")
    fake.broken["broken"] = "no-such-package-at-all is nowhere"
    return House(fake if request.param == "fake" else UvEnvironments(tmp_path / "state", environ=os.environ), tmp_path)


def test_a_lock_is_built_once_and_reused_by_every_service(house: House) -> None:
    one = house.environments.ensure("housing", house.service("housing", lock_of(*TINY)), "")
    two = house.environments.ensure("listings", house.service("listings", lock_of(*TINY)), "")
    assert (one.reused, two.reused) == (False, True)
    assert (one.digest, one.python, one.names, one.packages) == (two.digest, two.python, ("iniconfig",), 1)
    assert one.level == "checked"
    assert one.python.parent.name == "bin"


def test_another_lock_is_another_environment(house: House) -> None:
    one = house.environments.ensure("housing", house.service("housing", lock_of(*TINY)), "")
    two = house.environments.ensure("housing", house.service("housing", "# nothing is needed\n"), "")
    assert one.digest != two.digest
    assert (two.names, two.packages) == ((), 0)


def test_what_asks_for_packages_needs_a_lock(house: House) -> None:
    folder = house.service("housing", None)
    (folder / "requirements.in").write_text("iniconfig\n")
    with pytest.raises(LockMissing) as caught:
        house.environments.ensure("housing", folder, "")
    assert caught.value.cause == "requirements.in asks for packages"


def test_what_asks_for_none_needs_none(house: House) -> None:
    """A service in another language, or of the standard library alone."""
    bare = house.environments.ensure("housing", house.service("housing", None), "")
    assert (bare.packages, bare.names, bare.reused) == (0, (), False)
    again = house.environments.ensure("listings", house.service("listings", None), "")
    assert (again.digest, again.reused) == (bare.digest, True)


def test_what_cannot_be_built_names_the_package_and_leaves_nothing(house: House) -> None:
    """F26."""
    folder = house.service("broken", f"no-such-package-at-all==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(EnvironmentFailed) as failed:
        house.environments.ensure("broken", folder, "")
    assert "no-such-package-at-all" in failed.value.cause
    assert not list(house.folder.glob("state/envs/*/"))


def test_what_would_be_reused_is_known_without_being_used(house: House) -> None:
    """A key is made of its digest; nothing is built for that."""
    folder = house.service("housing", "# nothing is needed\n")
    assert house.environments.known("housing", folder, "") is None
    built = house.environments.ensure("housing", folder, "")
    assert house.environments.known("housing", folder, "") == replace(built, reused=True)


def test_a_sweep_takes_what_nobody_keeps_or_used_lately(house: House) -> None:
    """F49 for environments: reachability is by digest."""
    folders = [house.service(name, f"# {name}\n") for name in ("housing", "listings")]
    kept, left = (house.environments.ensure("housing", folder, "") for folder in folders)
    assert house.environments.sweep({kept.digest}, older_than=3600) == {}
    assert [*house.environments.sweep({kept.digest}, older_than=0, dry_run=True)] == [left.digest]
    assert house.environments.known("housing", folders[1], "") is not None
    assert house.environments.sweep({kept.digest}, older_than=0).keys() == {left.digest}
    assert house.environments.known("housing", folders[1], "") is None
    assert house.environments.ensure("housing", folders[0], "").reused
    assert not house.environments.ensure("housing", folders[1], "").reused


def test_the_sdk_is_kept_by_digest(house: House) -> None:
    digest, folder = house.environments.sdk()
    assert house.environments.sdk() == (digest, folder)
    assert len(digest) == 64
