"""This file says how every Repository reads: the fake, real git with a remote, and without one (F8, F29)."""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.errors import BadName, UnknownReference
from tests.contract.test_git import BRANCH, CLOSURE
from tests.fakes.git import FakeGit
from tests.repositories import RealGit, World


@pytest.fixture(params=["fake", "remote", "alone"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FakeGit() if request.param == "fake" else RealGit(tmp_path, remote=request.param == "remote")


def test_fetching_tells_every_branch_with_its_tip(world: World) -> None:
    tip = world.write(BRANCH, {"housing/model.py": "one\n"})
    assert world.repository.fetch() == {"main": world.tip("main"), BRANCH: tip}
    world.remove(BRANCH)
    assert world.repository.fetch() == {"main": world.tip("main")}


def test_a_tree_is_its_content_and_nothing_else(world: World) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n", "shared/features.py": "f1\n"})
    two = world.write(BRANCH, {"other/file": "x\n"})
    three = world.write(BRANCH, {"shared/features.py": "f2\n"})
    tree = world.repository.tree
    world.repository.fetch()
    assert tree(one, CLOSURE) == tree(two, CLOSURE) == tree(two, tuple(reversed(CLOSURE)))
    assert tree(two, CLOSURE) != tree(three, CLOSURE)
    assert tree(two, ["housing/"]) == tree(three, ["./housing"])
    assert tree(one, ["nothing"]) == ""
    assert tree(two, [""]) != tree(three, [""])


def test_files_are_read_and_folders_found(world: World) -> None:
    tip = world.write(BRANCH, {"housing/branchline.toml": "kind\n", "a/b/branchline.toml": "", "x/toml": ""})
    world.repository.fetch()
    assert world.repository.read(tip, "housing/branchline.toml") == b"kind\n"
    assert world.repository.read(tip, "housing") is None
    assert world.repository.read(tip, "nothing") is None
    assert world.repository.folders(tip, "branchline.toml") == ("a/b", "housing")


def test_files_are_listed_by_their_content(world: World) -> None:
    """3.03: what a step reads is known by the id of its content, whatever commit it is of."""
    one = world.write(BRANCH, {"housing/a.py": "one\n", "housing/b.py": "one\n", "other/file": "x\n"})
    two = world.write(BRANCH, {"housing/a.py": "two!\n"})
    world.repository.fetch()
    before, after = world.repository.files(one, ["housing"]), world.repository.files(two, ["housing", "other/file"])
    assert {path: size for path, (_, size) in before.items()} == {"housing/a.py": 4, "housing/b.py": 4}
    assert before["housing/a.py"] == before["housing/b.py"] == after["housing/b.py"] != after["housing/a.py"]
    assert (sorted(after), after["housing/a.py"][1]) == (["housing/a.py", "housing/b.py", "other/file"], 5)
    assert world.repository.files(one, ["nothing"]) == {}
    with pytest.raises(UnknownReference):
        world.repository.files("0" * 39 + "1", ["housing"])


def test_what_is_no_commit_is_never_looked_up(world: World) -> None:
    """F8, T4."""
    for name in ("--help", "main", "HEAD", "$(id)", "", "a" * 39, ":/Work"):
        with pytest.raises(BadName):
            world.repository.tree(name, ["housing"])
    with pytest.raises(BadName):
        world.repository.read(world.tip("main"), "../../etc/passwd")
    with pytest.raises(UnknownReference):
        world.repository.tree("0" * 39 + "1", ["housing"])


def test_a_base_is_where_two_lines_part(world: World) -> None:
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    other = world.write("main", {"README.md": "more\n"})
    world.repository.fetch()
    assert world.repository.base(one, other) == start
    assert world.repository.base(one, one) == one


def test_what_needs_a_person_is_known_without_a_merge(world: World) -> None:
    mine, tip = world.write(BRANCH, {"a": "mine\n", "b": "mine\n"}), world.write("main", {"b": "theirs\n"})
    world.repository.fetch()
    assert [world.repository.clashes(mine, theirs) for theirs in (tip, mine, tip)] == [("b",), (), ("b",)]


def test_the_log_is_newest_first_and_of_a_closure(world: World) -> None:
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n"}, message="First\n\nmore")
    two = world.write(BRANCH, {"other": "x\n"}, message="Second")
    world.repository.fetch()
    rows = world.repository.log(start, two)
    assert [(row["commit"], row["subject"]) for row in rows] == [(two, "Second"), (one, "First")]
    assert rows[0]["author"] == "Alex"
    assert rows[0]["email"] == "alex@example.invalid"
    assert [row["commit"] for row in world.repository.log(start, two, CLOSURE)] == [one]
    assert [row["commit"] for row in world.repository.log("", two)] == [two, one, start]
    assert world.repository.log(two, two) == ()
    assert [row["commit"] for row in world.repository.log("", two, limit=1)] == [two]


def test_what_changed_between_two_commits_is_named(world: World) -> None:
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n", "housing/a/b": "x\n", "other": "x\n"})
    world.repository.fetch()
    assert world.repository.changed(start, one, CLOSURE) == ("housing/a/b", "housing/model.py")
    assert world.repository.changed(one, one, CLOSURE) == ()


def test_a_commit_is_exported_whole(world: World, tmp_path: Path) -> None:
    tip = world.write(BRANCH, {"housing/model.py": "one\n", "a/b/c": "deep\n"})
    world.repository.fetch()
    world.repository.export(tip, tmp_path / "out")
    files = {str(p.relative_to(tmp_path / "out")): p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == {"README.md": "start\n", "housing/model.py": "one\n", "a/b/c": "deep\n"}
    world.repository.export(tip, tmp_path / "out")
