"""This file tests the person's own repository as the commands see it: branches, identity, snapshots, work trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from branchline.adapters.git_worktree import WorkTree
from branchline.errors import (
    BadName,
    BranchExists,
    DirtyWorkTree,
    GitError,
    MergeConflict,
    NotARepository,
    NothingToDo,
    PushRefused,
    RefMoved,
    RemoteUnreachable,
    UnknownReference,
)
from branchline.ports import Stamp
from tests.repositories import RealGit

BRANCH = "experiment--housing--alex"


@pytest.fixture
def world(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path)


@pytest.fixture
def alone(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path, remote=False)


def test_it_is_found_from_any_folder_of_it(world: RealGit, tmp_path: Path) -> None:
    (world.work / "a" / "b").mkdir(parents=True)
    tree = WorkTree(world.work / "a" / "b")
    assert (tree.root, tree.common) == (world.work, world.work / ".git")
    world.git("worktree", "add", "--quiet", "--detach", "../second")
    second = WorkTree(tmp_path / "second")
    assert (second.root, second.common) == (tmp_path / "second", world.work / ".git")
    with pytest.raises(NotARepository):
        WorkTree(tmp_path)


def test_a_repository_without_a_commit_has_a_trunk(tmp_path: Path, world: RealGit) -> None:
    new = tmp_path / "new"
    world.git("init", "--quiet", "-b", "trunk", str(new))
    tree = WorkTree(new)
    assert (tree.head, tree.branch, tree.trunk(), tree.remote) == ("", "trunk", "trunk", "")
    (new / "a").write_text("a\n")
    commit = tree.snapshot()
    assert world.git("show", f"{commit}:a", at=new) == "a"
    with pytest.raises(UnknownReference):
        tree.start(BRANCH, "trunk")


@pytest.mark.parametrize("known", [True, False])
def test_the_trunk_is_what_the_remote_says(world: RealGit, known: bool) -> None:
    world.git("branch", "--quiet", "-m", "main", "develop", at=world.truth)
    world.git("symbolic-ref", "HEAD", "refs/heads/develop", at=world.truth)
    if known:
        world.git("fetch", "--quiet", "origin")
        world.git("remote", "set-head", "origin", "--auto")
    assert WorkTree(world.work).trunk() == "develop"


def test_the_person_is_who_commits_here(world: RealGit, monkeypatch: pytest.MonkeyPatch) -> None:
    assert WorkTree(world.work).person() == "Test <test@example.invalid>"
    assert WorkTree(world.work).handle() == "test"
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "Sam.Lee@example.invalid")
    assert WorkTree(world.work).handle() == "sam-lee"
    world.git("config", "user.useConfigOnly", "true")
    monkeypatch.delenv("GIT_AUTHOR_EMAIL")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    assert WorkTree(world.work).handle() == ""


def test_a_branch_starts_where_the_remotes_trunk_is_now(world: RealGit) -> None:
    tree = WorkTree(world.work)
    newest = world.write("main", {"docs/new.md": "new\n"})
    (world.work / "draft").write_text("not committed\n")
    assert tree.start(BRANCH, "main") == newest
    assert (tree.branch, tree.head) == (BRANCH, newest)
    assert (world.work / "docs" / "new.md").exists()
    assert (world.work / "draft").exists()
    assert world.tip(BRANCH) == ""
    tree.push(BRANCH)
    assert world.tip(BRANCH) == newest
    assert world.git("rev-parse", "--abbrev-ref", "@{upstream}") == f"origin/{BRANCH}"
    with pytest.raises(BranchExists):
        tree.start(BRANCH, "main")


def test_a_branch_of_that_name_on_the_remote_is_not_started_again(world: RealGit) -> None:
    world.write(BRANCH, {"housing/model.py": "theirs\n"})
    with pytest.raises(BranchExists):
        WorkTree(world.work).start(BRANCH, "main")


def test_changes_in_the_way_are_not_lost(world: RealGit) -> None:
    tree = WorkTree(world.work)
    world.write("main", {"README.md": "theirs\n"})
    (world.work / "README.md").write_text("mine\n")
    with pytest.raises(DirtyWorkTree):
        tree.start(BRANCH, "main")
    assert (world.work / "README.md").read_text() == "mine\n"
    assert tree.branch == "main"


def test_a_push_says_why_it_failed(world: RealGit) -> None:
    tree = WorkTree(world.work)
    tree.start(BRANCH, "main")
    world.refusing = True
    with pytest.raises(PushRefused):
        tree.push(BRANCH)
    world.refusing = False
    world.write(BRANCH, {"housing/model.py": "theirs\n"})
    world.git("commit", "--quiet", "--allow-empty", "-m", "mine")
    with pytest.raises(RefMoved):
        tree.push(BRANCH)
    world.reachable = False
    with pytest.raises(RemoteUnreachable):
        tree.push(BRANCH)
    with pytest.raises(RemoteUnreachable):
        tree.fetch()
    with pytest.raises(UnknownReference):
        tree.push("experiment--housing--nobody")


def test_without_a_remote_a_branch_is_where_it_belongs(alone: RealGit) -> None:
    tree = WorkTree(alone.work)
    start = tree.start(BRANCH, tree.trunk())
    tree.push(BRANCH)
    assert alone.repository.fetch()[BRANCH] == start


def test_hooks_of_the_person_do_not_run(world: RealGit) -> None:
    """F13."""
    for hook in ("pre-push", "post-checkout", "reference-transaction"):
        path = world.work / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\ntouch ../ran\nexit 1\n")
        path.chmod(0o755)
    tree = WorkTree(world.work)
    tree.start(BRANCH, "main")
    tree.push(BRANCH)
    assert not (world.folder / "ran").exists()


def test_a_snapshot_is_the_work_tree_and_leaves_it_alone(world: RealGit) -> None:
    tree = WorkTree(world.work)
    assert tree.snapshot() == tree.head
    assert not tree.is_dirty()
    (world.work / ".gitignore").write_text("ignored\n")
    (world.work / "ignored").write_text("no\n")
    (world.work / "README.md").write_text("staged\n")
    world.git("add", "README.md")
    (world.work / "README.md").write_text("edited\n")
    (world.work / "housing").mkdir()
    (world.work / "housing" / "new.py").write_text("new\n")
    before = world.git("status", "--porcelain=v2"), world.git("ls-files", "--stage")
    commit = tree.snapshot()
    assert tree.snapshot() == commit
    assert (world.git("status", "--porcelain=v2"), world.git("ls-files", "--stage")) == before
    assert world.git("ls-tree", "-r", "--name-only", commit).splitlines() == [
        ".gitignore",
        "README.md",
        "housing/new.py",
    ]
    assert world.git("show", f"{commit}:README.md") == "edited"
    assert world.git("rev-parse", f"{commit}^") == tree.head
    part = tree.snapshot(["housing"])
    assert world.git("ls-tree", "-r", "--name-only", part).splitlines() == ["README.md", "housing/new.py"]
    assert world.git("show", f"{part}:README.md") == "start"
    assert tree.is_dirty()
    assert tree.is_dirty(["housing"])
    assert not tree.is_dirty(["other"])


def test_files_of_a_name_are_those_that_are_committed_or_could_be(world: RealGit) -> None:
    """Killer: leave out `--others`, `--exclude-standard`, the `**/`, or whether the file is still there."""
    texts = {"branchline.toml": "", "a/branchline.toml": "", "a/b/branchline.toml": "", "gone/branchline.toml": ""}
    others = {".gitignore": "ignored/\n", "a/other-branchline.toml": "", "no/branchline.toml/x": ""}
    world.write("main", {**texts, **others})
    world.git("pull", "--quiet")
    (world.work / "gone" / "branchline.toml").unlink()
    for folder in ("new", "ignored", "ä ö\tü"):
        (world.work / folder).mkdir()
        (world.work / folder / "branchline.toml").write_text("")
    wanted = ("a/b/branchline.toml", "a/branchline.toml", "branchline.toml", "new/branchline.toml")
    assert WorkTree(world.work).files("branchline.toml") == (*wanted, "ä ö\tü/branchline.toml")
    assert WorkTree(world.work / "a").files("branchline.toml") == (*wanted, "ä ö\tü/branchline.toml")
    assert WorkTree(world.work).files("nothing") == ()


def test_a_record_is_a_commit_of_one_file_and_of_nothing_else(world: RealGit) -> None:
    """1.27: the log is committed even where it is ignored; what is staged or edited besides stays as it is (F13)."""
    tree = WorkTree(world.work)
    hook = world.work / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    (world.work / ".git" / "info" / "exclude").write_text("*.md\n")
    (world.work / "README.md").write_text("edited\n")
    (world.work / "staged.txt").write_text("staged\n")
    world.git("add", "staged.txt")
    (world.work / "EXPERIMENT[1].md").write_text("why\n")
    (world.work / "EXPERIMENT1.md").write_text("another\n")
    before = tree.head
    commit = tree.record("EXPERIMENT[1].md", "-m is no option here")
    assert commit == tree.head
    assert world.git("rev-parse", f"{commit}^") == before
    assert world.git("show", "--name-status", "--format=%s", commit).split("\n") == [
        "-m is no option here", "", "A\tEXPERIMENT[1].md",
    ]  # fmt: skip
    assert world.git("status", "--porcelain").splitlines() == ["M README.md", "A  staged.txt"]
    (world.work / "EXPERIMENT[1].md").write_text("more\n")
    assert world.git("rev-parse", f"{tree.record('EXPERIMENT[1].md', 'Go on')}^") == commit
    with pytest.raises(GitError):
        tree.record("EXPERIMENT[1].md", "nothing is new")


def test_a_merge_brings_what_is_known_of_a_branch(world: RealGit) -> None:
    tree = WorkTree(world.work)
    tree.start(BRANCH, "main")
    assert tree.merge("main") is False
    trunk = world.write("main", {"docs/new.md": "new\n"})
    assert tree.merge("main") is False  # as known here
    tree.fetch()
    world.git("commit", "--quiet", "--allow-empty", "-m", "mine")
    mine = tree.head
    assert tree.merge("main") is True
    assert world.git("show", "-s", "--format=%P|%s", "HEAD") == f"{mine} {trunk}|Merge main"
    with pytest.raises(UnknownReference):
        tree.merge("nothing")


def test_a_conflict_is_told_by_its_paths_and_left_to_be_finished(world: RealGit) -> None:
    """Killer: call every failed merge a conflict, or abort it."""
    tree = WorkTree(world.work)
    tree.start(BRANCH, "main")
    (world.work / "README.md").write_text("mine\n")
    world.git("commit", "--quiet", "-am", "mine")
    mine = tree.head
    world.write("main", {"README.md": "theirs\n", "docs/new.md": "new\n"})
    tree.fetch()
    (world.work / "docs").mkdir()
    (world.work / "docs" / "new.md").write_text("in the way\n")
    with pytest.raises(DirtyWorkTree):
        tree.merge("main")
    assert (tree.head, (world.work / "docs" / "new.md").read_text()) == (mine, "in the way\n")
    (world.work / "docs" / "new.md").unlink()
    with pytest.raises(MergeConflict) as told:
        tree.merge("main")
    assert (told.value.fields["branch"], told.value.fields["paths"]) == ("main", "README.md")
    assert tree.head == mine
    (world.work / "README.md").write_text("both\n")
    world.git("commit", "--quiet", "-am", "both")
    assert tree.merge("main") is False


@pytest.mark.parametrize("remote", [True, False])
def test_a_merge_beside_the_work_tree_leaves_it_alone(tmp_path: Path, remote: bool) -> None:
    """How what is under test is synced: no index, no HEAD and no file is touched; a name is taken only once."""
    world = RealGit(tmp_path, remote=remote)
    mine, theirs = world.write(BRANCH, {"a": "mine\n"}), world.write("main", {"b": "theirs\n"})
    tree = WorkTree(world.work)
    tree.fetch()
    (world.work / "README.md").write_text("changed\n")
    before = (tree.head, world.git("status", "--porcelain"))
    made = tree.merged(mine, theirs, "Merge main")
    tree.publish("fix--housing--sync-1--alex", made)
    assert (world.tip("fix--housing--sync-1--alex"), tuple(world.parents(made))) == (made, (mine, theirs))
    assert (tree.head, world.git("status", "--porcelain")) == before
    with pytest.raises((RefMoved, PushRefused)):
        tree.publish("fix--housing--sync-1--alex", mine)
    clash = world.write("main", {"a": "theirs\n"})
    tree.fetch()
    with pytest.raises(MergeConflict, match="a"):
        tree.merged(mine, clash, "Merge main")
    with pytest.raises(UnknownReference):
        tree.bring("0" * 40, tmp_path / "nothing.git")


def test_a_branch_begins_only_where_its_file_is(world: RealGit) -> None:
    tree = WorkTree(world.work)
    with pytest.raises(NothingToDo):
        tree.start(BRANCH, "main", "housing/branchline.toml")
    tip = world.write("main", {"housing/branchline.toml": ""})
    with pytest.raises(NothingToDo):
        tree.beginning(BRANCH, "main", "housing/branchline.toml")  # as known here
    assert tree.start(BRANCH, "main", "housing/branchline.toml") == tip
    with pytest.raises(BranchExists):
        tree.beginning(BRANCH, "main")
    with pytest.raises(UnknownReference):
        tree.beginning("fix--housing--sam", "nothing")


def test_a_snapshot_holds_an_edit_of_the_moment_in_which_git_wrote_its_index(world: RealGit) -> None:
    """Killer: copy the index without its time, and an edit of as many bytes in the same second is not seen."""
    world.git("config", "core.trustctime", "false")  # else the test would have to hit the second
    moment = (1_700_000_000, 1_700_000_000)
    place = world.work / "mode"
    place.write_text("well")
    os.utime(place, moment)
    world.git("add", "mode")
    world.git("commit", "--quiet", "-m", "Well")
    place.write_text("dies")
    os.utime(place, moment)
    os.utime(world.work / ".git" / "index", moment)
    assert world.git("show", f"{WorkTree(world.work).snapshot()}:mode") == "dies"


def test_the_mirror_can_read_a_snapshot(world: RealGit, tmp_path: Path) -> None:
    (world.work / "draft.py").write_text("draft\n")
    commit = WorkTree(world.work).snapshot()
    world.repository.fetch()
    assert world.repository.read(commit, "draft.py") == b"draft\n"
    world.repository.export(commit, tmp_path / "out")
    assert (tmp_path / "out" / "draft.py").read_text() == "draft\n"


def test_a_revision_is_checked_out_beside_even_when_its_branch_is_gone(world: RealGit, tmp_path: Path) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.writer.delete("housing", BRANCH, one, Stamp(1, 1))
    tree = WorkTree(world.work)
    tree.checkout(one, tmp_path / "beside", world.repository.path)
    assert (tmp_path / "beside" / "housing" / "model.py").read_text() == "one\n"
    assert WorkTree(tmp_path / "beside").branch == ""
    with pytest.raises(NothingToDo):
        tree.checkout(one, tmp_path / "beside", world.repository.path)
    with pytest.raises(UnknownReference):
        tree.checkout("1" * 40, tmp_path / "other", world.repository.path)


def test_names_become_commits(world: RealGit) -> None:
    tree = WorkTree(world.work)
    tip = world.write(BRANCH, {"housing/model.py": "one\n"})
    tree.fetch()
    assert tree.tip(BRANCH) == tip == tree.commit(tip[:8])
    assert tree.commit("main") == tree.head
    with pytest.raises(UnknownReference):
        tree.commit("nothing")
    for name in ("--all", "main~1", "$(id)", ":/start"):
        with pytest.raises(BadName):
            tree.commit(name)
    tree.switch(BRANCH)
    assert tree.head == tip
    with pytest.raises(UnknownReference):
        tree.switch("nothing")
