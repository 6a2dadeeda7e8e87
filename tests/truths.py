"""This file lets a real controller meet real git: a world of fakes around a person's repository, its truth, our mirror.

Everything but git is a fake. People act on the truth (`Truth`), the controller sees it through its own mirror.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from branchline.engine.reconciling import Reconciler
from tests.repositories import RealGit
from tests.world import World


class Truth(RealGit):
    """Real git as a world of fakes asks it: people read what was pushed before anybody has fetched it."""

    @property
    def commits(self) -> list[str]:
        """All commits of the truth."""
        return self.git("rev-list", "--all", at=self.truth).splitlines()

    def tip(self, branch: str) -> str:
        """The tip of a branch of the truth; '' when there is none."""
        return super().tip(branch) if branch else ""

    def read(self, commit: str, path: str) -> bytes | None:
        """One file of a commit of the truth."""
        found = self.git("ls-tree", "-r", "--name-only", commit, "--", path, at=self.truth)
        return self.git("show", f"{commit}:{path}", at=self.truth).encode() if found else None

    def folder_of(self, name: str, path: str = "housing") -> str:
        """The object of a folder in a commit or branch of the truth: equal content is an equal object."""
        return self.git("rev-parse", f"{name}:{path}", at=self.truth)

    def merge(self, commit: str, *, squashed: bool = False) -> str:
        """What a forge's button does: one commit without our trailer, straight into the truth."""
        parents = ("-p", "main") if squashed else ("-p", "main", "-p", commit)
        words = ("commit-tree", f"{commit}^{{tree}}", *parents, "-m", "Merge pull request #7")
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


class Story(World):
    """A world of fakes around real git."""

    git: Truth  # type: ignore[assignment]

    def __init__(self, folder: Path, *, remote: bool = True) -> None:
        super().__init__(folder / "state")
        self.git = Truth(folder, remote=remote)
        self.start()

    def start(self, reconciler: type[Reconciler] = Reconciler) -> None:
        """A daemon: what only the one before it knew is gone."""
        git = Truth.at(self.git.folder, remote=self.git.truth.name == "remote.git")
        git.work = self.git.work
        self.ports = replace(self.ports, repository=git.repository, writer=git.writer)
        parts = self.restart()
        parts.reconciler = reconciler(self.ports, parts.recorder, parts.observer, parts.progress, parts.troubles)
        parts.reconciler.spawn, parts.workshop.staged = lambda act: act(), parts.reconciler.staged
        parts.watch()
