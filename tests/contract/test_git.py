"""This file says what every Repository and Writer does: the fake, real git with a remote, and without one.

Requirements 1.30 to 1.37 and 1.41, invariants I1 to I3, I21, I25, faults F8, F29 to F37.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from branchline.errors import (
    BadName,
    Fenced,
    ForeignCommit,
    MergeConflict,
    PushRefused,
    RefMoved,
    RemoteUnreachable,
)
from branchline.ports import Change, Stamp
from tests.fakes.git import FakeGit
from tests.repositories import RealGit, World

BRANCH = "experiment--housing--alex"
STAMP = Stamp(3, 1)
CLOSURE = ("housing", "shared/features.py")


@pytest.fixture(params=["fake", "remote", "alone"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "fake":
        return FakeGit()
    return RealGit(tmp_path, remote=request.param == "remote")


with_a_remote = pytest.mark.parametrize("world", ["fake", "remote"], indirect=True)


def change(revision: str, version: str = "1.0.0", event: int = 3, **more: object) -> Change:
    made = Change(
        service="housing", closure=CLOSURE, ref="main", revision=revision, seen=None, version=version,
        message=f"Conclude housing {version}", actor="Sam <sam@example.invalid>", at=1_700_000_000.0,
        stamp=Stamp(event, 1), event=event,
    )  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


def first(world: World) -> str:
    """The first revision, concluded."""
    one = world.write("experiment--housing--first", {"housing/model.py": "one\n", "shared/features.py": "f1\n"})
    world.writer.conclude(change(one))
    return one


def test_a_trunk_shows_the_revision_whose_tree_it_has(world: World) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    two = world.write(BRANCH, {"housing/model.py": "two\n"})
    world.repository.fetch()
    shows = world.repository.shows
    assert shows("main", "housing", CLOSURE, [one, two]) is None
    assert shows("nothing", "housing", CLOSURE, [one, two]) is None
    assert shows(BRANCH, "housing", CLOSURE, [one, two]) == two
    world.write("main", {"housing/model.py": "three\n"})
    world.repository.fetch()
    assert shows("main", "housing", CLOSURE, [one, two]) == "?" + world.repository.tree(world.tip("main"), CLOSURE)


# ------------------------------------------------------------------------------------------------ concluding


def test_a_first_revision_is_merged_tagged_and_kept(world: World) -> None:
    """1.30, 1.34, I25."""
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    new = world.writer.conclude(change(one))
    assert world.tip("main") == new
    assert world.parents(new) == (start, one)
    assert world.message(new) == (
        "Conclude housing 1.0.0\n\n"
        f"Branchline-Event: housing/3\nBranchline-Revision: {one}\nBranchline-Version: 1.0.0\n"
    )
    assert world.repository.shows("main", "housing", CLOSURE, [one]) == one
    assert world.kept() == {"refs/tags/housing@v1.0.0": one, "refs/branchline/revisions/housing/1.0.0": one}


def test_a_retry_finds_it_done(world: World) -> None:
    """I2, F37: also when others have gone on since."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    new = world.writer.conclude(change(one))
    assert world.writer.conclude(change(one)) == new
    later = world.write("main", {"README.md": "later\n"})
    assert world.writer.conclude(change(one)) == new
    assert world.tip("main") == later


def test_the_same_event_makes_the_same_commit(world: World) -> None:
    """M4."""
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    new = world.writer.conclude(change(one))
    world.reset("main", start)
    assert world.writer.conclude(change(one)) == new
    world.reset("main", start)
    assert world.writer.conclude(change(one, event=4)) != new


def test_what_moved_outside_the_closure_is_merged(world: World) -> None:
    """F33."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n", "docs/b.md": "b\n"}, start=one)
    world.write("main", {"other/model.py": "theirs\n", "README.md": None})
    new = world.writer.conclude(change(two, "1.1.0", 5, seen=one))
    assert world.repository.read(new, "housing/model.py") == b"two\n"
    assert world.repository.read(new, "other/model.py") == b"theirs\n"
    assert world.repository.read(new, "docs/b.md") == b"b\n"
    assert world.repository.read(new, "README.md") is None


def test_a_foreign_commit_inside_the_closure_stops_it(world: World) -> None:
    """F33, I1: unless somebody said that the judged tree replaces it."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n"}, start=one)
    foreign = world.write("main", {"shared/features.py": "theirs\n"})
    with pytest.raises(ForeignCommit):
        world.writer.conclude(change(two, "1.1.0", 5, seen=one))
    assert world.tip("main") == foreign
    new = world.writer.conclude(change(two, "1.1.0", 5, seen=one, keep=True))
    assert world.repository.shows("main", "housing", CLOSURE, [one, two]) == two
    assert world.repository.read(new, "shared/features.py") == b"f1\n"


def test_an_unknown_trunk_is_known_when_nothing_happened_since_branching(world: World) -> None:
    world.write("main", {"housing/model.py": "by hand\n"})
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.write("main", {"README.md": "more\n"})
    world.writer.conclude(change(one))
    assert world.repository.shows("main", "housing", CLOSURE, [one]) == one


def test_the_other_challenger_was_concluded_meanwhile(world: World) -> None:
    """The trunk shows `seen`, which the branch was not made from."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n", "housing/alex.py": "\n"}, start=one)
    three = world.write("experiment--housing--sam", {"housing/model.py": "three\n"}, start=one)
    world.writer.conclude(change(two, "1.1.0", 5, seen=one))
    new = world.writer.conclude(change(three, "1.2.0", 7, seen=two))
    assert world.repository.shows("main", "housing", CLOSURE, [one, two, three]) == three
    assert world.repository.read(new, "housing/alex.py") is None


def test_a_conflict_outside_the_closure_needs_a_person(world: World) -> None:
    """F29: the paths are named, nothing is written."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n", "README.md": "mine\n"}, start=one)
    theirs = world.write("main", {"README.md": "theirs\n"})
    with pytest.raises(MergeConflict) as told:
        world.writer.conclude(change(two, "1.1.0", 5, seen=one))
    assert told.value.fields["paths"] == "README.md"
    assert world.tip("main") == theirs


def test_a_service_that_was_dropped_from_the_trunk_is_foreign(world: World) -> None:
    """A merge would be clean and bring a second copy; `keep` does not help."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n"}, start=one)
    world.write("main", {"housing": None, "houses/model.py": "one\n"})
    for keep in (False, True):
        with pytest.raises(ForeignCommit):
            world.writer.conclude(change(two, "1.1.0", 5, seen=one, keep=keep))


def test_rolled_back_and_concluded_again(world: World) -> None:
    """Ancestry would say that it is merged already."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n", "docs/two.md": "2\n"}, start=one)
    merged = world.writer.conclude(change(two, "1.1.0", 5, seen=one))
    back = world.writer.conclude(change(one, "1.0.0", 6, seen=two))
    assert world.parents(back) == (merged,)
    assert world.repository.read(back, "housing/model.py") == b"one\n"
    assert world.repository.read(back, "docs/two.md") == b"2\n"
    again = world.writer.conclude(change(two, "1.1.0", 8, seen=one))
    assert world.parents(again) == (back,)
    assert world.repository.shows("main", "housing", CLOSURE, [one, two]) == two
    assert world.writer.conclude(change(two, "1.1.0", 8, seen=one)) == again == world.tip("main")


def test_of_equal_trees_the_newest_trailer_decides(world: World) -> None:
    one = first(world)
    two = world.write(BRANCH, {"docs/only.md": "same closure\n"}, start=one)
    assert world.repository.shows("main", "housing", CLOSURE, [two, one]) == one
    new = world.writer.conclude(change(two, "1.0.1", 5, seen=one))
    assert world.repository.shows("main", "housing", CLOSURE, [one, two]) == two
    assert world.writer.conclude(change(two, "1.0.1", 5, seen=one)) == new
    world.writer.conclude(change(one, "1.0.0", 6, seen=two))
    assert world.repository.shows("main", "housing", CLOSURE, [two, one]) == one


def test_what_a_forge_merged_is_recorded(world: World) -> None:
    """1.34, F31, F37: squashed, its branch deleted, no trailer; by its tree. Its release gets its tag all the same."""
    one = first(world)
    two = world.write(BRANCH, {"housing/model.py": "two\n"}, start=one)
    world.repository.fetch()
    world.writer.hold("housing", two, "1.1.0")
    world.remove(BRANCH)
    squashed = world.write("main", {"housing/model.py": "two\n"}, message="Two (#7)")
    assert world.writer.conclude(change(two, "1.1.0", 5, seen=one)) == squashed == world.tip("main")
    assert world.kept()["refs/tags/housing@v1.1.0"] == two
    assert world.repository.shows("main", "housing", CLOSURE, [one, two]) == two


def test_a_first_branch_that_changed_nothing_inside_is_merged_all_the_same(world: World) -> None:
    world.write("main", {"housing/model.py": "one\n"})
    one = world.write(BRANCH, {"EXPERIMENT.md": "why\n"})
    new = world.writer.conclude(change(one))
    assert world.repository.read(new, "EXPERIMENT.md") == b"why\n"


def test_the_trunk_of_an_older_major_is_born(world: World) -> None:
    one = first(world)
    new = world.writer.conclude(change(one, "1.0.0", 9, ref="major--housing--1"))
    assert world.tip("major--housing--1") == new
    assert world.parents(new) == (one,)
    assert world.repository.shows("major--housing--1", "housing", CLOSURE, [one]) == one
    assert world.writer.conclude(change(one, "1.0.0", 9, ref="major--housing--1")) == new


def test_the_judged_commit_is_merged_never_a_later_tip(world: World) -> None:
    """I3, F30: and the branch stays."""
    judged = world.write(BRANCH, {"housing/model.py": "one\n"})
    later = world.write(BRANCH, {"housing/model.py": "later\n"})
    new = world.writer.conclude(change(judged))
    assert world.repository.read(new, "housing/model.py") == b"one\n"
    with pytest.raises(RefMoved):
        world.writer.delete("housing", BRANCH, judged, STAMP)
    assert world.tip(BRANCH) == later


# ------------------------------------------------------------------------------------------------ other refs


def test_a_branch_is_archived_and_deleted_once(world: World) -> None:
    """1.36, I25."""
    tip = world.write(BRANCH, {"housing/model.py": "one\n"})
    for _ in range(2):
        world.writer.delete("housing", BRANCH, tip, STAMP)
        assert world.tip(BRANCH) == ""
        assert world.kept() == {f"refs/branchline/archive/{BRANCH}/{tip}": tip}


def test_only_branches_of_the_service_are_deleted(world: World) -> None:
    """F8."""
    tip = world.tip("main")
    for name in ("main", "experiment--other--alex", "--delete", "experiment--housing--$(id)", "major--housing--1"):
        with pytest.raises(BadName):
            world.writer.delete("housing", name, tip, STAMP)
        with pytest.raises(BadName):
            world.writer.absorb("housing", name, tip, tip, STAMP)
    for name in ("main", BRANCH, "--all", "major--other--1"):
        with pytest.raises(BadName):
            world.writer.drop("housing", name, STAMP)
    with pytest.raises(BadName):
        world.writer.conclude(change(tip, ref="--mirror"))
    assert world.tip("main") == tip


def test_a_fix_is_absorbed_forward_or_by_a_merge(world: World) -> None:
    """1.41."""
    tip = world.write(BRANCH, {"housing/model.py": "one\n"})
    fix = world.write("fix--housing--typo--alex", {"housing/model.py": "fixed\n"}, start=BRANCH)
    assert world.writer.absorb("housing", BRANCH, tip, fix, STAMP) == fix == world.tip(BRANCH)
    assert world.writer.absorb("housing", BRANCH, tip, fix, STAMP) == fix
    other = world.write("fix--housing--doc--alex", {"housing/doc.md": "doc\n"}, start=fix)
    moved = world.write(BRANCH, {"housing/more.py": "more\n"})
    with pytest.raises(RefMoved):
        world.writer.absorb("housing", BRANCH, fix, other, STAMP)
    new = world.writer.absorb("housing", BRANCH, moved, other, STAMP)
    assert world.parents(new) == (moved, other)
    assert world.repository.read(new, "housing/doc.md") == b"doc\n"
    assert world.repository.read(new, "housing/more.py") == b"more\n"


def test_an_older_majors_trunk_is_dropped(world: World) -> None:
    tip = world.write("major--housing--1", {"housing/model.py": "one\n"})
    for _ in range(2):
        world.writer.drop("housing", "major--housing--1", STAMP)
        assert world.tip("major--housing--1") == ""
    assert world.kept() == {f"refs/branchline/archive/major--housing--1/{tip}": tip}


def test_a_kept_revision_never_moves(world: World) -> None:
    """I25."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    two = world.write(BRANCH, {"housing/model.py": "two\n"})
    world.repository.fetch()
    world.writer.hold("housing", one, "1.0.0-alex.1")
    world.writer.hold("housing", one, "1.0.0-alex.1")
    with pytest.raises(RefMoved):
        world.writer.hold("housing", two, "1.0.0-alex.1")
    assert world.kept() == {"refs/branchline/revisions/housing/1.0.0-alex.1": one}


# ------------------------------------------------------------------------------------------------ faults


def test_what_was_planned_before_the_newest_told_stamp_is_refused(world: World) -> None:
    """I21: per service, generation first, then epoch."""
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.writer.tell("housing", Stamp(4, 1))
    world.writer.tell("housing", Stamp(3, 9))
    world.writer.tell("other", Stamp(99, 9))
    with pytest.raises(Fenced):
        world.writer.conclude(change(one, event=3))
    with pytest.raises(Fenced):
        world.writer.conclude(change(one, stamp=Stamp(4, 0)))
    for late in (Stamp(3, 2), Stamp(4, 0)):
        with pytest.raises(Fenced):
            world.writer.delete("housing", BRANCH, one, late)
        with pytest.raises(Fenced):
            world.writer.absorb("housing", BRANCH, one, one, late)
        with pytest.raises(Fenced):
            world.writer.drop("housing", "major--housing--1", late)
    assert (world.tip("main"), world.tip(BRANCH)) == (start, one)
    assert world.writer.conclude(change(one, stamp=Stamp(4, 1))) == world.tip("main")


@with_a_remote
def test_an_unreachable_remote_is_said_to_be_so(world: World) -> None:
    """F35."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.repository.fetch()
    world.reachable = False
    with pytest.raises(RemoteUnreachable):
        world.repository.fetch()
    with pytest.raises(RemoteUnreachable):
        world.writer.conclude(change(one))
    world.writer.hold("housing", one, "1.0.0")
    world.reachable = True
    world.writer.conclude(change(one))
    assert world.repository.shows("main", "housing", CLOSURE, [one]) == one


@with_a_remote
def test_a_refused_push_changes_nothing(world: World) -> None:
    """F34."""
    start = world.tip("main")
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.refusing = True
    with pytest.raises(PushRefused):
        world.writer.conclude(change(one))
    with pytest.raises(PushRefused):
        world.writer.delete("housing", BRANCH, one, STAMP)
    assert (world.tip("main"), world.tip(BRANCH)) == (start, one)
    assert world.repository.shows("main", "housing", CLOSURE, [one]) is None
    world.refusing = False
    assert world.writer.conclude(change(one)) == world.tip("main")
