"""This file tries the awkward conclusions on real git: renames, races, lost answers, checked-out trunks.

Requirements 1.30 to 1.37; faults F29 to F37; invariants I1 to I3, I21.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from branchline.adapters.git_conclusion import Conclusion
from branchline.adapters.git_mirror import Mirror
from branchline.errors import (
    Fenced,
    ForeignCommit,
    MergeConflict,
    PushRefused,
    RefMoved,
    RemoteUnreachable,
    TrunkCheckedOut,
)
from branchline.ports import Change, Stamp
from tests.repositories import RealGit
from tests.waiting import wait_until

BRANCH = "experiment--housing--alex"
TEXT = "".join(f"line {n}\n" for n in range(40))


@pytest.fixture
def world(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path)


@pytest.fixture
def alone(tmp_path: Path) -> RealGit:
    return RealGit(tmp_path, remote=False)


def change(revision: str, event: int = 3, seen: str | None = None) -> Change:
    return Change(
        service="housing", closure=("housing",), ref="main", revision=revision, seen=seen, version=f"1.{event}.0",
        message="Conclude housing", actor="Sam <sam@example.invalid>", at=1_700_000_000.0, stamp=Stamp(event, 1),
        event=event,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ merging


def test_a_file_renamed_outside_is_followed(world: RealGit) -> None:
    world.write("main", {"docs/a.md": TEXT})
    one = world.write(BRANCH, {"housing/model.py": "one\n", "docs/a.md": TEXT + "mine\n"})
    world.write("main", {"docs/a.md": None, "docs/b.md": TEXT})
    new = world.writer.conclude(change(one))
    assert world.repository.read(new, "docs/b.md") == (TEXT + "mine\n").encode()
    assert world.repository.read(new, "docs/a.md") is None


def test_one_file_renamed_in_two_ways_needs_a_person(world: RealGit) -> None:
    """F29: every path is named."""
    world.write("main", {"docs/a.md": TEXT})
    one = world.write(BRANCH, {"housing/model.py": "one\n", "docs/a.md": None, "docs/mine.md": TEXT})
    world.write("main", {"docs/a.md": None, "docs/theirs.md": TEXT})
    with pytest.raises(MergeConflict) as told:
        world.writer.conclude(change(one))
    assert set(told.value.fields["paths"].split(", ")) == {"docs/a.md", "docs/mine.md", "docs/theirs.md"}


def test_a_file_moved_out_of_the_folder_on_the_trunk_is_foreign(world: RealGit) -> None:
    one = world.write("experiment--housing--first", {"housing/a.py": TEXT, "housing/b.py": "b\n"})
    world.writer.conclude(change(one))
    two = world.write(BRANCH, {"housing/b.py": "two\n"}, start=one)
    world.write("main", {"housing/a.py": None, "shared/a.py": TEXT})
    with pytest.raises(ForeignCommit):
        world.writer.conclude(change(two, 5, one))


def test_a_folder_moved_outside_takes_nothing_of_the_service_along(world: RealGit) -> None:
    """No directory renames are guessed: a new file stays where its author put it."""
    world.write("main", {f"old/{n}.md": TEXT + str(n) for n in range(4)})
    one = world.write(BRANCH, {"housing/model.py": "one\n", "old/new.md": "new\n"})
    world.write("main", {"old": None, **{f"moved/{n}.md": TEXT + str(n) for n in range(4)}})
    new = world.writer.conclude(change(one))
    assert world.repository.read(new, "old/new.md") == b"new\n"


def test_unrelated_histories_are_merged_where_they_do_not_meet(world: RealGit) -> None:
    rows = f"commit refs/heads/{BRANCH}\ncommitter A <a@b> 1 +0000\ndata 1\nx\n"
    rows += "M 100644 inline housing/model.py\ndata 2\n1\n\n"
    world.git("fast-import", "--quiet", at=world.truth, stdin=rows)
    new = world.writer.conclude(change(world.tip(BRANCH)))
    assert world.repository.read(new, "housing/model.py") == b"1\n"
    assert world.repository.read(new, "README.md") == b"start\n"


def test_modes_and_odd_names_inside_come_as_judged(world: RealGit) -> None:
    world.write(BRANCH, {"housing/run.sh": "#!/bin/sh\n"}, mode="100755")
    one = world.write(BRANCH, {"housing/Ünïcode nam*e[1].txt": "x\n", "housing/link": "run.sh"}, mode="100644")
    new = world.writer.conclude(change(one))
    at = "ls-tree", "-r", new, "housing"
    assert world.git(*at, at=world.truth) == world.git("ls-tree", "-r", one, "housing", at=world.truth)


def test_who_concludes_is_the_author_at_the_moment_of_the_event(world: RealGit) -> None:
    """M4."""
    new = world.writer.conclude(change(world.write(BRANCH, {"housing/model.py": "one\n"})))
    who = world.git("show", "-s", "--format=%an <%ae> %at|%cn <%ce> %ct", new, at=world.truth)
    assert who == "Sam <sam@example.invalid> 1700000000|Sam <sam@example.invalid> 1700000000"


# ------------------------------------------------------------------------------------------------ races and answers


class Racing(Mirror):
    """Something happens right after we have looked."""

    happens: Callable[[], object]

    def fetch(self) -> Mapping[str, str]:
        """Look, and be overtaken."""
        found = super().fetch()
        self.happens()
        return found


@pytest.fixture
def racing(world: RealGit) -> Racing:
    return Racing(world.folder / "other.git", world.work)


def test_whoever_pushed_in_between_is_not_overwritten(world: RealGit, racing: Racing) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    racing.happens = lambda: world.write("main", {"docs/race.md": "first\n"})
    with pytest.raises(RefMoved):
        Conclusion(racing).conclude(change(one))
    theirs = world.tip("main")
    new = world.writer.conclude(change(one))
    assert world.parents(new) == (theirs, one)


def test_a_trunk_set_back_in_between_is_not_overwritten(world: RealGit, racing: Racing) -> None:
    """F32: a fast-forward from there would be taken without a lease."""
    start = world.tip("main")
    world.write("main", {"docs/wrong.md": "x\n"})
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    racing.happens = lambda: world.reset("main", start)
    with pytest.raises(RefMoved):
        Conclusion(racing).conclude(change(one))
    assert world.tip("main") == start


def test_a_branch_that_moves_in_between_is_not_deleted(world: RealGit, racing: Racing) -> None:
    """I3, F30."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    racing.happens = lambda: world.write(BRANCH, {"housing/model.py": "two\n"})
    with pytest.raises(RefMoved):
        Conclusion(racing).delete("housing", BRANCH, one, Stamp(3, 1))
    assert world.repository.read(world.repository.fetch()[BRANCH], "housing/model.py") == b"two\n"


def test_what_is_told_in_between_stops_the_step(world: RealGit, racing: Racing) -> None:
    """I21: asked again right before each push."""
    start, one = world.tip("main"), world.write(BRANCH, {"housing/model.py": "one\n"})
    writer = Conclusion(racing)
    racing.happens = lambda: writer.tell("housing", Stamp(4, 1))
    with pytest.raises(Fenced):
        writer.conclude(change(one))
    racing.happens = lambda: writer.tell("housing", Stamp(5, 1))
    with pytest.raises(Fenced):
        writer.delete("housing", BRANCH, one, Stamp(4, 1))
    assert (world.tip("main"), world.tip(BRANCH)) == (start, one)


@pytest.mark.parametrize("at", ["main", BRANCH])
def test_a_lost_answer_is_found_to_have_been_a_yes(world: RealGit, at: str) -> None:
    """F37, M3: the same push again would be rejected."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.hook("post-update", f'case " $* " in *"refs/heads/{at} "*) kill -9 $PPID;; esac')
    if at == "main":
        with pytest.raises(RemoteUnreachable):
            world.writer.conclude(change(one))
    new = world.writer.conclude(change(one))
    assert new == world.tip("main")
    assert world.parents(new)[1:] == (one,)
    if at == BRANCH:
        with pytest.raises(RemoteUnreachable):
            world.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    world.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    assert world.tip(BRANCH) == ""
    assert world.kept()["refs/tags/housing@v1.3.0"] == one


def test_a_refused_tag_or_archive_does_not_hold_up_the_conclusion(world: RealGit) -> None:
    """Tags and keep-refs in the truth are projections; the mirror has them."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.hook("pre-receive", "while read o n ref; do case $ref in refs/tags/*|refs/branchline/*) exit 1;; esac; done")
    world.writer.conclude(change(one))
    world.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    assert world.git("for-each-ref", "--format=%(refname)", at=world.truth) == "refs/heads/main"
    assert len(world.kept()) == 2


def test_telling_does_not_wait_for_a_push_and_stops_what_comes_after_it(world: RealGit) -> None:
    """I21: what was under way may land, the steps after it do not."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.hook("pre-receive", f"touch {world.folder}/in; while [ -e {world.folder}/in ]; do sleep 0.02; done")
    ended: list[BaseException | str] = []

    def run() -> None:
        try:
            ended.append(world.writer.conclude(change(one)))
        except Fenced as refusal:
            ended.append(refusal)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert wait_until((world.folder / "in").exists)
        world.writer.tell("housing", Stamp(4, 1))
    finally:
        (world.folder / "in").unlink()
        thread.join()
    assert isinstance(ended[0], Fenced)
    assert "refs/tags/housing@v1.3.0" not in world.kept()


def test_a_branch_that_only_a_pull_request_merged_is_recorded(world: RealGit) -> None:
    """F31: a true merge by a forge, without our trailer."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.git("fetch", "--quiet", "origin")
    world.git("merge", "--quiet", "--no-ff", "-m", "Merge pull request #1", one)
    world.git("push", "--quiet", "origin", "main")
    assert world.writer.conclude(change(one)) == world.tip("main") == world.git("rev-parse", "main")


# ------------------------------------------------------------------------------------------------ the person's clone


def test_the_clone_follows_what_was_written_to_the_remote(world: RealGit) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.git("fetch", "--quiet", "origin")
    world.git("branch", "--quiet", "--no-track", BRANCH, one)
    new = world.writer.conclude(change(one))
    world.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    refs = world.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    assert f"refs/remotes/origin/main {new}" in refs
    assert not [row for row in refs if BRANCH in row]


def test_a_local_branch_with_more_on_it_stays(world: RealGit) -> None:
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.git("fetch", "--quiet", "origin")
    world.git("switch", "--quiet", BRANCH)
    world.git("commit", "--quiet", "--allow-empty", "-m", "not pushed")
    world.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    assert world.tip(BRANCH) == ""
    assert world.git("symbolic-ref", "--short", "HEAD") == BRANCH


@pytest.mark.parametrize("remote", [True, False])
def test_a_deleted_branch_that_is_checked_out_leaves_everything_but_the_name(tmp_path: Path, remote: bool) -> None:
    world = RealGit(tmp_path, remote=remote)
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    if remote:
        world.git("fetch", "--quiet", "origin")
    world.git("switch", "--quiet", BRANCH)
    (world.work / "housing" / "model.py").write_text("being edited\n")
    world.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    assert world.git("rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert world.git("rev-parse", "HEAD") == one
    assert world.git("status", "--porcelain") == "M housing/model.py"


def test_a_clean_work_tree_follows_its_trunk(alone: RealGit) -> None:
    alone.git("switch", "--quiet", "main")
    one = alone.write(BRANCH, {"housing/model.py": "one\n", "README.md": None})
    new = alone.writer.conclude(change(one))
    assert alone.git("rev-parse", "HEAD") == new
    assert alone.git("status", "--porcelain") == ""
    assert (alone.work / "housing" / "model.py").read_text() == "one\n"
    assert not (alone.work / "README.md").exists()


@pytest.mark.parametrize(("path", "text"), [("README.md", "edited\n"), ("housing/model.py", "in the way\n")])
def test_a_work_tree_with_changes_holds_its_trunk(alone: RealGit, path: str, text: str) -> None:
    """Nothing is lost, nothing is written; once it is clean the conclusion goes on."""
    alone.git("switch", "--quiet", "main")
    start = alone.tip("main")
    one = alone.write(BRANCH, {"housing/model.py": "one\n"})
    file = alone.work / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(TrunkCheckedOut):
        alone.writer.conclude(change(one))
    assert alone.tip("main") == start
    assert file.read_text() == text
    alone.git("stash", "--quiet", "--include-untracked")
    assert alone.writer.conclude(change(one)) == alone.git("rev-parse", "HEAD")
    assert alone.git("status", "--porcelain") == ""


def test_a_file_that_is_in_nobodys_way_is_left_alone(alone: RealGit) -> None:
    alone.git("switch", "--quiet", "main")
    one = alone.write(BRANCH, {"housing/model.py": "one\n"})
    (alone.work / "note.txt").write_text("mine\n")
    alone.writer.conclude(change(one))
    assert alone.git("status", "--porcelain") == "?? note.txt"


def test_a_work_tree_that_was_left_behind_follows_at_the_next_try(alone: RealGit) -> None:
    """Killed between the compare-and-swap and the work tree."""
    alone.git("switch", "--quiet", "main")
    start = alone.tip("main")
    one = alone.write(BRANCH, {"housing/model.py": "one\n"})
    new = alone.writer.conclude(change(one))
    alone.git("read-tree", "-m", "-u", new, start)
    assert alone.git("status", "--porcelain") != ""
    assert alone.writer.conclude(change(one)) == new
    assert alone.git("status", "--porcelain") == ""


def test_without_a_remote_the_users_hooks_do_not_run(alone: RealGit) -> None:
    """F13."""
    ran = alone.folder / "ran"
    for hook in ("pre-receive", "update", "post-receive", "post-update", "reference-transaction", "post-checkout",
                 "pre-push", "post-index-change", "proc-receive", "push-to-checkout"):  # fmt: skip
        alone.hook(hook, f"echo {hook} >> {ran}")
    alone.git("config", "core.fsmonitor", f"echo fsmonitor >> {ran}; false")
    alone.git("config", "receive.denyCurrentBranch", "refuse")
    alone.git("config", "receive.denyDeletes", "true")
    ran.unlink(missing_ok=True)
    alone.git("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "switch", "--quiet", "main")
    one = alone.write(BRANCH, {"housing/model.py": "one\n"})
    ran.unlink(missing_ok=True)
    alone.writer.conclude(change(one))
    alone.writer.delete("housing", BRANCH, one, Stamp(3, 1))
    assert not ran.exists(), ran.read_text()


def test_a_protected_trunk_says_who_refused(world: RealGit) -> None:
    """F34: the remote's own words are passed on."""
    one = world.write(BRANCH, {"housing/model.py": "one\n"})
    world.hook("pre-receive", "echo 'main moves only by review' >&2; exit 1")
    with pytest.raises(PushRefused) as told:
        world.writer.conclude(change(one))
    assert "main moves only by review" in told.value.cause
    assert told.value.fields["ref"] == "main"
