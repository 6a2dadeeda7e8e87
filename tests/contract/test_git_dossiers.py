"""This file says how every Writer keeps dossiers: here for certain, in the truth when it can, each of them once.

Requirement: beyond 14.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.errors import BadName, Fenced, PushRefused, RemoteUnreachable
from branchline.ports import Stamp
from tests.contract.test_git import BRANCH, change, with_a_remote
from tests.fakes.git import FakeGit
from tests.repositories import RealGit, World

REF = "refs/branchline/dossiers/housing"
STAMP = Stamp(3, 1)
ONE, TWO = {"1.0.0.json": b"{}\n", "index.json": b"[1]\n"}, {"1.1.0.json": b"{2}\n", "index.json": b"[1,2]\n"}


@pytest.fixture(params=["fake", "remote", "alone"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FakeGit() if request.param == "fake" else RealGit(tmp_path, remote=request.param == "remote")


def deposit(world: World, files: dict[str, bytes], stamp: Stamp = STAMP) -> str:
    return world.writer.deposit("housing", files, "Dossier\n", 1_700_000_000.5, stamp)


def held(world: World) -> tuple[str | None, str | None]:
    """Where the ref is, in the mirror and in the truth."""
    if world.reachable:
        world.repository.fetch()
    marks = world.repository.marks()
    return marks.mirror.get(REF), marks.truth.get(REF)


def test_dossiers_are_kept_beside_one_another_and_each_once(world: World) -> None:
    """Killer: begin a tree of its own with each."""
    one = deposit(world, ONE)
    assert held(world) == (one, one)
    two = deposit(world, TWO)
    assert held(world) == (two, two)
    assert deposit(world, TWO) == deposit(world, {}) == two  # again is fine
    assert len(world.repository.log("", two)) == 2
    read = world.repository.read
    assert [read(two, name) for name in ("1.0.0.json", "1.1.0.json", "index.json")] == [b"{}\n", b"{2}\n", b"[1,2]\n"]
    assert set(world.repository.fetch()) == {"main"}


def test_equal_dossiers_make_equal_commits(world: World, tmp_path: Path) -> None:
    """So that a retry after a lost answer finds its own."""
    assert deposit(world, ONE) == deposit(RealGit(tmp_path / "other") if isinstance(world, RealGit) else FakeGit(), ONE)


@with_a_remote
def test_without_a_remote_the_mirror_has_it_until_there_is_one(world: World) -> None:
    """Killer: reach the remote first."""
    one = deposit(world, ONE)
    world.reachable = False
    with pytest.raises(RemoteUnreachable):
        deposit(world, TWO)
    mine, there = held(world)
    assert (there, world.repository.read(mine or "", "1.1.0.json")) == (one, b"{2}\n")
    world.reachable = True
    assert deposit(world, {}) == mine
    assert held(world) == (mine, mine)


def test_what_lies_elsewhere_too_is_written_on_top_of_what_is_there(world: World, tmp_path: Path) -> None:
    """Killer: force the truth."""
    one = deposit(world, ONE)
    if isinstance(world, FakeGit):
        del world.refs[REF]
    elif isinstance(world, RealGit):
        world.git("update-ref", "-d", REF, at=world.repository.path)
    two = deposit(world, TWO)
    assert held(world) == (two, two)
    assert [row["commit"] for row in world.repository.log("", two)] == [two, one]


def test_who_has_moved_on_is_refused(world: World) -> None:
    world.writer.tell("housing", Stamp(4, 1))
    with pytest.raises(Fenced):
        deposit(world, ONE)
    with pytest.raises(BadName):
        world.writer.deposit("../housing", ONE, "", 0.0, STAMP)
    assert held(world) == (None, None)


def test_a_refused_ref_is_told_and_held_here(tmp_path: Path) -> None:
    world = RealGit(tmp_path)
    world.hook("pre-receive", "while read o n ref; do case $ref in refs/branchline/*) exit 1;; esac; done")
    with pytest.raises(PushRefused):
        deposit(world, ONE)
    mine, there = held(world)
    assert mine
    assert there is None
    world.hook("pre-receive", "")
    assert deposit(world, {}) == mine
    assert held(world) == (mine, mine)


def test_another_state_folder_gets_them_back(tmp_path: Path) -> None:
    world = RealGit(tmp_path)
    one = deposit(world, ONE)
    world.repository.path.rename(tmp_path / "lost.git")
    again = RealGit.at(tmp_path)
    assert held(again) == (one, one)


def test_a_conclusion_names_the_dossier_of_its_verdict(world: World) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    new = world.writer.conclude(change(one, dossier=f"{REF}:1.0.0.html"))
    assert world.message(new).splitlines()[-1] == f"Branchline-Dossier: {REF}:1.0.0.html"
    assert world.writer.conclude(change(one, dossier=f"{REF}:1.0.0.html")) == new
    two = world.write(BRANCH, {"housing/model.py": "two\n"})
    assert "Dossier" not in world.message(world.writer.conclude(change(two, "1.1.0", 5, seen=one)))
