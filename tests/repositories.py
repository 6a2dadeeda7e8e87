"""This file makes real repositories for the tests: one person's clone, with a bare remote beside it or without one.

People's commits are written by `git fast-import` straight into the truth: one process each, no work tree, no hook.
The first repository of its kind is made command by command; those that follow are copies of it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

from branchline.adapters.git_conclusion import Conclusion
from branchline.adapters.git_mirror import Mirror
from branchline.ports import Repository, Writer

ALEX = "Alex <alex@example.invalid>"


class World(Protocol):
    """A repository, those who work in it, and both ports."""

    reachable: bool
    refusing: bool

    @property
    def repository(self) -> Repository: ...
    @property
    def writer(self) -> Writer: ...
    def write(self, branch: str, files: Mapping[str, str | None], *, start: str = "", message: str = "Work") -> str: ...
    def reset(self, branch: str, commit: str) -> None: ...
    def remove(self, branch: str) -> None: ...
    def tip(self, branch: str) -> str: ...
    def parents(self, commit: str) -> tuple[str, ...]: ...
    def message(self, commit: str) -> str: ...
    def kept(self) -> Mapping[str, str]: ...


class RealGit:
    """A repository of a person at `work`, its truth (`remote.git`, or itself), and our mirror of it."""

    def __init__(self, folder: Path, *, remote: bool = True, make: bool = True) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.truth = folder / "remote.git" if remote else self.work / ".git"
        self._clock = 1_600_000_000
        if make:
            self._copy(remote)

    @classmethod
    def at(cls, folder: Path, *, remote: bool = True) -> RealGit:
        """The one that was made there."""
        return cls(folder, remote=remote, make=False)

    def _copy(self, remote: bool) -> None:
        shutil.copytree(_made(remote), self.folder, dirs_exist_ok=True)
        self.git("update-index", "-q", "--refresh")  # it knows the files by their inodes
        self._clock += 1

    def _make(self, remote: bool) -> None:
        self.work.mkdir(parents=True)
        if remote:
            self.git("init", "--quiet", "--bare", str(self.truth), at=self.folder)
        self.git("init", "--quiet", at=self.work)
        self.write("main", {"README.md": "start\n"})
        if remote:
            self.git("remote", "add", "origin", "../remote.git")
            self.git("fetch", "--quiet", "origin")
            self.git("switch", "--quiet", "main")
        else:
            self.git("switch", "--quiet", "--detach", "main")

    @cached_property
    def repository(self) -> Mirror:
        """The real port Repository."""
        return Mirror(self.folder / "mirror.git", self.work)

    @cached_property
    def writer(self) -> Conclusion:
        """The real port Writer."""
        return Conclusion(self.repository)

    def git(self, *arguments: str, at: Path | None = None, stdin: str = "") -> str:
        """Run git as a person would; returns what it printed."""
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=at or self.work, input=stdin, capture_output=True, text=True, check=False)
        assert not done.returncode, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def write(
        self, branch: str, files: Mapping[str, str | None], *, start: str = "", message: str = "Work",
        mode: str = "100644",
    ) -> str:  # fmt: skip
        """Commit texts (None deletes) on a branch, which begins at `start` (a branch or commit) or at the trunk."""
        top = self.tip(branch) or (start and self.tip(start)) or start or self.tip("main")
        self._clock += 1
        rows = [f"commit refs/heads/{branch}", f"committer {ALEX} {self._clock} +0000", _data(message)]
        rows += [f"from {top}"] if top else []
        for path, text in files.items():
            rows.append(f'D "{path}"' if text is None else f'M {mode} inline "{path}"\n{_data(text)}')
        self.git("fast-import", "--quiet", "--force", at=self.truth, stdin="\n".join(rows) + "\n\n")
        return self.tip(branch)

    def reset(self, branch: str, commit: str) -> None:
        """Force a branch to a commit."""
        self.git("update-ref", f"refs/heads/{branch}", commit, at=self.truth)

    def remove(self, branch: str) -> None:
        """Delete a branch by hand."""
        self.git("update-ref", "-d", f"refs/heads/{branch}", at=self.truth)

    def tip(self, branch: str) -> str:
        """The tip of a branch of the truth; '' when there is none."""
        return self.git("for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}", at=self.truth)

    def parents(self, commit: str) -> tuple[str, ...]:
        """The parents of a commit of the truth."""
        return tuple(self.git("show", "-s", "--format=%P", commit, at=self.truth).split())

    def message(self, commit: str) -> str:
        """The whole text of a commit."""
        return self.git("show", "-s", "--format=%B", commit, at=self.truth) + "\n"

    def kept(self) -> Mapping[str, str]:
        """Tags, keep-refs and archived branches of the truth, and those that only the mirror has."""
        places = [self.repository.path, self.truth]
        asked = ("for-each-ref", "--format=%(refname) %(objectname)", "refs/tags/", "refs/branchline/")
        told = [row.partition(" ") for place in places for row in self.git(*asked, at=place).splitlines()]
        return {name: oid for name, _, oid in told}

    @property
    def reachable(self) -> bool:
        """Whether the remote is where it was; set it to take the remote away."""
        return self.truth.exists()

    @reachable.setter
    def reachable(self, there: bool) -> None:
        away = self.truth.with_suffix(".away")
        (away if there else self.truth).rename(self.truth if there else away)

    @property
    def refusing(self) -> bool:
        """Whether the remote refuses every push to a branch; set it to protect them."""
        return (self.truth / "hooks" / "pre-receive").exists()

    @refusing.setter
    def refusing(self, no: bool) -> None:
        self.hook("pre-receive", "while read o n ref; do case $ref in refs/heads/*) exit 1;; esac; done" if no else "")

    def hook(self, name: str, script: str) -> None:
        """Give the truth a hook, or take it away."""
        path = self.truth / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if script:
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)


@cache
def _made(remote: bool) -> Path:
    """A repository to copy, in the session's home."""
    folder = Path(tempfile.mkdtemp(prefix="repository-", dir=Path.home()))
    RealGit(folder, remote=remote, make=False)._make(remote)
    for sample in folder.glob("**/hooks/*.sample"):
        sample.unlink()
    return folder


def _data(text: str) -> str:
    return f"data {len(text.encode())}\n{text}"
