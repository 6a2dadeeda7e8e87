"""This file computes what a trunk's tree becomes: the judged tree inside the service's closure, a merge outside of it.

Rules: the closure is made equal on all three sides of the merge, so that only what lies outside can conflict, and a
revision that was rolled back comes back whole. Nothing here moves a ref; equal input makes equal objects. Works without
a work tree and with git 2.38: the merge base is given as the parent of two commits made for it, not by `--merge-base`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence

from branchline.adapters.git import Git, words
from branchline.adapters.git_export import entries
from branchline.adapters.git_locks import DRAFT
from branchline.errors import GitError

_NOBODY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "branchline"), ("EMAIL", "branchline@localhost"), ("DATE", "@0 +0000"))
}


class Conflict(Exception):
    """Both sides changed these paths in different ways."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__(", ".join(paths))
        self.paths = tuple(paths)


def grafted_merge(git: Git, trunk: str, judged: str, base: str, closure: Sequence[str]) -> str:
    """The tree of trunk and judged commit merged, with the closure as judged; raises Conflict. `base` may be ''."""
    if "" in closure:
        return git.line("rev-parse", "--verify", f"{judged}^{{tree}}")
    bottom = commit(git, _graft(git, base, judged, closure), [])
    ours = commit(git, _graft(git, trunk, judged, closure), [bottom])
    theirs = commit(git, git.line("rev-parse", "--verify", f"{judged}^{{tree}}"), [bottom])
    return merge(git, ours, theirs)


def merge(git: Git, ours: str, theirs: str) -> str:
    """The tree of two commits merged; raises Conflict."""
    answer = git.answer("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs)
    tree, *paths = answer.text.rstrip("\0").split("\0")
    if answer.code == 1:
        raise Conflict(sorted({path for path in paths if path}))
    if answer.code:
        raise GitError(f"git merge-tree: {words(answer.err)}")
    return tree


def commit(
    git: Git, tree: str, parents: Sequence[str], message: str = "", *, who: tuple[str, str] = ("", ""), at: float = 0
) -> str:
    """Write a commit by `who` (name, address) at that Unix second; the same input makes the same id."""
    name, address = who
    env = _NOBODY if not name else {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", name), ("EMAIL", address), ("DATE", f"@{int(at)} +0000"))
    }  # fmt: skip
    options = [word for parent in parents for word in ("-p", parent)]
    return git.line("commit-tree", tree, *options, "-F", "-", stdin=message.encode("utf-8", "replace"), env=env)


def drafted(git: Git, base: str, files: Mapping[str, bytes]) -> str:
    """The tree of a commit ('' is the empty one) with these files in the place of its own."""
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=git.folder) as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git.out("read-tree", *([f"{base}^{{tree}}"] if base else ["--empty"]), env=index)
        for path, content in files.items():
            blob = git.line("hash-object", "-w", "--stdin", "--no-filters", stdin=content)
            row = f"100644 {blob}\t{path}".encode("utf-8", "surrogateescape") + b"\0"
            git.out("update-index", "-z", "--index-info", stdin=row, env=index)
        return git.line("write-tree", env=index)


def _graft(git: Git, onto: str, judged: str, closure: Sequence[str]) -> str:
    """The tree of `onto` ('' is the empty one) with the closure's paths as in the judged commit."""
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=git.folder) as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git.out("read-tree", *([f"{onto}^{{tree}}"] if onto else ["--empty"]), env=index)
        there = git.out("--literal-pathspecs", "ls-files", "-z", "--", *closure, env=index).split(b"\0")[:-1]
        rows = [b"0 " + b"0" * len(judged) + b"\t" + path for path in there]
        for entry in entries(git, judged, closure):
            rows.append(f"{entry.mode} {entry.oid}\t{entry.path}".encode("utf-8", "surrogateescape"))
        git.out("update-index", "-z", "--index-info", stdin=b"".join(row + b"\0" for row in rows), env=index)
        return git.line("write-tree", env=index)
