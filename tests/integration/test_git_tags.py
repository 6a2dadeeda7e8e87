"""This file lets a real controller meet real git at a bad moment: every merge gets its tag in the end, whoever made it.

Everything but git is a fake. What follows a merge is the tag and the ref that keeps the revision; it is written before
the conclusion is recorded, by whichever daemon is there then. Requirements 1.34, 1.38; faults F31, F34, F35, F37, F57.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from branchline.core.service import Phase
from branchline.engine.reconciling import Reconciler
from tests.repositories import RealGit
from tests.world import ALEX, World

TAG = "refs/tags/housing@v1.0.0"
KEPT = "refs/branchline/revisions/housing/1.0.0"
PROTECTED = "while read o n ref; do [ $ref != refs/heads/main ] || exit 1; done"


class Truth(RealGit):
    """Real git as a world of fakes asks it: people read what was pushed before anybody has fetched it."""

    @property
    def commits(self) -> list[str]:
        return self.git("rev-list", "--all", at=self.truth).splitlines()

    def tip(self, branch: str) -> str:
        return super().tip(branch) if branch else ""

    def read(self, commit: str, path: str) -> bytes | None:
        found = self.git("ls-tree", "-r", "--name-only", commit, "--", path, at=self.truth)
        return self.git("show", f"{commit}:{path}", at=self.truth).encode() if found else None

    def merge(self, commit: str) -> str:
        """What a forge's button does: a merge commit without our trailer, straight into the truth."""
        words = ("commit-tree", f"{commit}^{{tree}}", "-p", "main", "-p", commit, "-m", "Merge pull request #7")
        who = ("-c", "user.name=Forge", "-c", "user.email=forge@example.invalid")
        self.reset("main", self.git(*who, *words, at=self.truth))
        return self.tip("main")

    def dies_after(self, ref: str) -> None:
        """The next push to this ref is taken; then the remote goes away without an answer."""
        away = self.truth.with_suffix(".away")
        self.hook("post-update", f'case "$*" in "{ref}") mv {self.truth} {away}; kill -9 $PPID;; esac')

    def revive(self) -> None:
        """The remote is back, and stays."""
        self.reachable = True
        self.hook("post-update", "")


class Forgetful(Reconciler):
    """Without the protection: a trunk that shows the revision is all there is to a conclusion."""

    def _named(self, *anything: object) -> bool:
        return True


class Story(World):
    """A world of fakes around real git; its one branch becomes the first release."""

    git: Truth  # type: ignore[assignment]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "state")
        self.git = Truth(folder)
        self.start()

    def start(self, reconciler: type[Reconciler] = Reconciler) -> None:
        """A daemon: what only the one before it knew is gone."""
        git = Truth.at(self.git.folder)
        self.ports = replace(self.ports, repository=git.repository, writer=git.writer)
        parts = self.restart()
        parts.reconciler = reconciler(self.ports, parts.recorder, parts.observer, parts.progress)
        parts.reconciler.spawn, parts.workshop.staged = lambda act: act(), parts.reconciler.staged
        parts.watch()

    def stuck(self) -> str:
        """Go on until nothing can be done, and say what a conclusion waits for."""
        self.settle()
        assert self.phase(ALEX) is Phase.CONCLUDING
        return self.on(ALEX).trouble

    def named(self) -> list[str]:
        """The tag, and the ref that keeps the revision, of those that the truth has."""
        told = self.git.git("for-each-ref", "--format=%(refname) %(objectname)", TAG, KEPT, at=self.git.truth)
        return [row.removesuffix(f" {self.on(ALEX).revision}") for row in told.splitlines()]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_a_branch_that_a_forge_merged_gets_its_tag_F31_F34(story: Story) -> None:
    """The trunk is protected, only the forge's button moves it; nothing is merged a second time."""
    story.git.hook("pre-receive", PROTECTED)
    tip = story.push()
    assert (story.stuck(), story.named()) == ("permission", [])
    merged = story.git.merge(tip)
    story.settle()
    assert (story.phase(ALEX), story.git.tip("main"), story.named()) == (Phase.LIVE, merged, [KEPT, TAG])
    assert (story.git.tip(ALEX), story.troubles()) == ("", [])


@pytest.mark.parametrize("reconciler", [Reconciler, Forgetful], ids=["kept", "killer"])
def test_a_daemon_that_died_between_merge_and_tag_has_it_written_by_the_next_F57(
    story: Story, reconciler: type[Reconciler]
) -> None:
    """Killer: where the next daemon only looks at the trunk, the release never gets its tag."""
    story.git.dies_after("refs/heads/main")
    tip = story.push()
    story.stuck()
    story.git.revive()
    merged = story.git.tip("main")
    assert (story.git.parents(merged)[1:], story.named()) == ((tip,), [])
    story.start(reconciler)
    story.settle()
    assert (story.phase(ALEX), story.git.tip("main")) == (Phase.LIVE, merged)
    assert story.named() == ([KEPT, TAG] if reconciler is Reconciler else [])


def test_a_remote_that_is_dead_at_that_moment_is_waited_for_F35_F37(story: Story) -> None:
    """It takes the merge, and later the first of two refs, and goes away each time without an answer."""
    story.git.dies_after("refs/heads/main")
    tip = story.push()
    assert (story.stuck(), story.shares()) == ("remote", {tip: 100})
    story.git.revive()
    merged = story.git.tip("main")
    story.git.dies_after(KEPT)
    assert story.stuck() == "remote"
    story.git.revive()
    assert story.named() == [KEPT]
    story.settle()
    assert (story.phase(ALEX), story.git.tip("main"), story.named()) == (Phase.LIVE, merged, [KEPT, TAG])
    assert story.troubles() == []
