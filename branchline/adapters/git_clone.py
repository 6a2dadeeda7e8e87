"""This file keeps the user's own repository in step with what was written to the truth.

Rules: with a remote all of it is a courtesy and may fail; without one the user's repository is the truth, and a trunk
that is checked out moves only together with its clean work tree. A local branch goes only at the judged tip; who has it
checked out keeps every file and a detached HEAD. Commands here are not cut when we die: this is not our repository.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from branchline.adapters.git import Git
from branchline.errors import GitError, TrunkCheckedOut


class Clone:
    """The user's repository, by its common git folder."""

    def __init__(self, common: Path) -> None:
        self._git = Git(common, env={"GIT_DIR": str(common)}, sheltered=False)

    def check(self, branch: str, new_paths: Sequence[str]) -> None:
        """Raise TrunkCheckedOut when a work tree of the branch has changes, or a file where a new one is to come."""
        for tree in self._work_trees(branch):
            told = tree.line("status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all")
            rows = [row for row in told.split("\0") if row]
            untracked = {row[3:] for row in rows if row.startswith("?? ")}
            if len(untracked) < len(rows) or untracked.intersection(new_paths):
                raise TrunkCheckedOut(f"in {tree.folder}", ref=branch)

    def follow(self, branch: str, old: str, new: str) -> None:
        """Bring clean work trees of a branch that has moved from `old` to `new` after it; again is fine.

        One in which something was staged meanwhile is its owner's. Raises TrunkCheckedOut where files are in the way.
        """
        for tree in self._work_trees(branch):
            tree.answer("update-index", "-q", "--refresh")
            if not tree.answer("diff-index", "--cached", "--quiet", new).code:
                continue
            if tree.answer("diff-index", "--cached", "--quiet", old).code:
                continue
            if tree.answer("read-tree", "-m", "-u", old, new).code:
                raise TrunkCheckedOut(f"in {tree.folder}", ref=branch)

    def let_go(self, branch: str, tip: str) -> None:
        """Detach the HEAD of every work tree that has the branch checked out at that tip."""
        if self._at(f"refs/heads/{branch}") == tip:
            for tree in self._work_trees(branch):
                tree.out("update-ref", "--no-deref", "-m", f"branchline: {branch} is concluded", "HEAD", tip, tip)

    def forget(self, remote: str, branch: str, tip: str) -> None:
        """Delete the local branch and the remote-tracking one, each only at that tip; as far as it goes."""
        try:
            self.let_go(branch, tip)
            for ref in (f"refs/heads/{branch}", f"refs/remotes/{remote}/{branch}"):
                if self._at(ref) == tip:
                    self._git.answer("update-ref", "-d", ref, tip)
        except GitError:
            return

    def track(self, remote: str, branch: str, mirror: Path) -> None:
        """Move the remote-tracking branch to where the mirror has the branch; as far as it goes."""
        try:
            ref = f"refs/remotes/{remote}/{branch}"
            if self._at(ref):
                self._git.answer(
                    "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
                    "--no-recurse-submodules", "--end-of-options", str(mirror), f"+refs/heads/{branch}:{ref}",
                )  # fmt: skip
        except GitError:
            return

    def _at(self, ref: str) -> str:
        return self._git.answer("rev-parse", "--verify", "--quiet", "--end-of-options", ref).text

    def _work_trees(self, branch: str) -> Iterator[Git]:
        """The work trees that have the branch checked out."""
        told = self._git.line("worktree", "list", "--porcelain", "-z")
        for record in told.split("\0\0"):
            cells = dict(cell.partition(" ")[::2] for cell in record.split("\0") if cell)
            folder = Path(cells.get("worktree", ""))
            if cells.get("branch") == f"refs/heads/{branch}" and "bare" not in cells and folder.is_dir():
                yield Git(folder, sheltered=False)
