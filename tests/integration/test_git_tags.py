"""This file lets a real controller meet real git at a bad moment: every merge gets its tag in the end, whoever made it.

Everything but git is a fake. What follows a merge is the tag and the ref that keeps the revision; it is written before
the conclusion is recorded, by whichever daemon is there then. Requirements 1.34, 1.38; faults F31, F34, F35, F37, F57.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.core.service import Phase
from branchline.engine.reconciling import Reconciler
from tests.truths import Story
from tests.world import ALEX

TAG = "refs/tags/housing@v1.0.0"
KEPT = "refs/branchline/revisions/housing/1.0.0"
PROTECTED = "while read o n ref; do [ $ref != refs/heads/main ] || exit 1; done"


class Forgetful(Reconciler):
    """Without the protection: a trunk that shows the revision is all there is to a conclusion."""

    def _named(self, *anything: object) -> bool:
        return True


class Waiting(Story):
    """Its one branch becomes the first release."""

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
def story(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


def test_a_branch_that_a_forge_merged_gets_its_tag_F31_F34(story: Waiting) -> None:
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
    story: Waiting, reconciler: type[Reconciler]
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


def test_a_remote_that_is_dead_at_that_moment_is_waited_for_F35_F37(story: Waiting) -> None:
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
