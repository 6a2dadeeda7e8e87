"""This file says what parity may ask of every Repository: marks, conclusions, and files that differ from their commit.

Requirement 1.51, invariant I25.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.test_git import BRANCH, CLOSURE, change, first
from tests.fakes.git import FakeGit
from tests.repositories import RealGit, World


@pytest.fixture(params=["fake", "remote", "alone"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FakeGit() if request.param == "fake" else RealGit(tmp_path, remote=request.param == "remote")


def test_tags_and_keep_refs_are_those_of_the_truth_and_of_the_mirror(world: World) -> None:
    """I25: by full name the commit, as of the last fetch; keep-refs as they are here, too."""
    one = first(world)
    world.repository.fetch()
    kept, tag = "refs/branchline/revisions/housing/1.0.0", "refs/tags/housing@v1.0.0"
    marks = world.repository.marks()
    assert (marks.truth[kept], marks.truth[tag], marks.mirror[kept]) == (one, one, one)
    assert marks.place


def test_a_branch_tells_the_newest_conclusion_of_each_service(world: World) -> None:
    assert world.repository.recorded("main") == {}
    first(world)
    two = world.write("experiment--housing--second", {"housing/model.py": "two\n"})
    world.writer.conclude(change(two, "1.1.0", event=7))
    world.repository.fetch()
    assert world.repository.recorded("main") == {"housing": 7}
    assert world.repository.recorded("nothing") == {}


def test_files_that_differ_are_named_and_put_back(world: World, tmp_path: Path) -> None:
    files = {
        "housing/model.py": "one\n",
        "housing/deep/er.py": "x\n",
        "shared/features.py": "f1\n",
        "other/file": "o\n",
    }
    commit, folder = world.write(BRANCH, files), tmp_path / "tree"
    world.repository.fetch()
    world.repository.export(commit, folder, CLOSURE)
    altered, mend = world.repository.altered, world.repository.mend
    assert altered(commit, folder, CLOSURE) == mend(commit, folder, CLOSURE) == ()
    (folder / "housing" / "model.py").write_text("mine\n")
    (folder / "housing" / "deep" / "er.py").unlink()
    (folder / "housing" / "deep").rmdir()
    (folder / "other" / "file").write_text("outside\n")
    (folder / "housing" / "written.db").touch()
    wrong = ("housing/deep/er.py", "housing/model.py")
    assert altered(commit, folder, CLOSURE) == wrong
    assert mend(commit, folder, CLOSURE) == wrong
    assert altered(commit, folder, CLOSURE) == ()
    assert (folder / "housing" / "model.py").read_text() == "one\n"
    assert (folder / "housing" / "written.db").exists()
    assert (folder / "other" / "file").read_text() == "outside\n"
