"""This file says how every Writer opens a branch of its own: drafted first, and never again once it was (beyond 7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.errors import BadName, Fenced
from branchline.ports import Stamp
from tests.contract.test_git import first
from tests.fakes.git import FakeGit
from tests.repositories import RealGit, World

OWN = "experiment--housing--data-0a1b2c3d"
STAMP = Stamp(9, 1)
LOCK = {"housing/data.lock": b"{}\n", "housing/new/deep.txt": b"\xc3\xa4\n"}


@pytest.fixture(params=["fake", "remote", "alone"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FakeGit() if request.param == "fake" else RealGit(tmp_path, remote=request.param == "remote")


def drafted(world: World, files: dict[str, bytes] | None = None) -> str:
    world.repository.fetch()
    return world.writer.draft(
        world.tip("main"), files or LOCK, "Try it\n\nMore\n", "bot <bot@localhost>", 1_700_000_000.5
    )


def test_a_draft_is_a_commit_that_no_branch_shows(world: World) -> None:
    """Killer: take the files of the work tree."""
    first(world)
    base = world.tip("main")
    commit = drafted(world)
    assert commit == drafted(world)
    assert world.parents(commit) == (base,) if isinstance(world, FakeGit) else True
    assert world.repository.base(base, commit) == base
    assert world.repository.changed(base, commit, ("housing",)) == tuple(sorted(LOCK))
    assert world.repository.read(commit, "housing/new/deep.txt") == LOCK["housing/new/deep.txt"]
    assert world.repository.read(commit, "housing/model.py") == world.repository.read(base, "housing/model.py")
    (row,) = world.repository.log("", commit, limit=1)
    assert (row["author"], row["email"], row["subject"], row["at"]) == ("bot", "bot@localhost", "Try it", "1700000000")
    assert commit not in world.repository.fetch().values()


def test_a_branch_begins_once_and_not_again_after_it_was_closed(world: World) -> None:
    """Killers: look at the branches only; move one that is there."""
    commit = drafted(world)
    assert world.writer.begin("housing", OWN, commit, STAMP)
    assert world.tip(OWN) == commit == world.repository.fetch()[OWN]
    other = drafted(world, {"housing/data.lock": b"other\n"})
    assert not world.writer.begin("housing", OWN, other, STAMP)
    assert world.tip(OWN) == commit
    world.writer.delete("housing", OWN, commit, STAMP)
    assert not world.writer.begin("housing", OWN, commit, STAMP)
    assert not world.tip(OWN)


def test_who_is_not_asked_any_more_begins_nothing(world: World) -> None:
    commit = drafted(world)
    world.writer.tell("housing", Stamp(10, 1))
    with pytest.raises(Fenced):
        world.writer.begin("housing", OWN, commit, STAMP)
    with pytest.raises(BadName):
        world.writer.begin("housing", "main", commit, STAMP)
    with pytest.raises(BadName):
        world.writer.begin("other", OWN, commit, STAMP)
    assert not world.tip(OWN)
