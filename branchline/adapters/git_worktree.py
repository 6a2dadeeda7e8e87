"""This file is the person's own repository as the command line sees it: branches, identity, work tree.

Rules: used by commands a person typed and by nothing else; hooks do not run, settings are the person's own. The index
is never touched but by `git switch`, and what is not committed is never lost. Reading asks nothing of the network,
except where a docstring says so.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from branchline.adapters.git import ANY_COMMIT, NETWORK, Git, commit_id, push_failure, ref_name, words
from branchline.core.names import handle_from
from branchline.errors import (
    BranchExists,
    DirtyWorkTree,
    GitError,
    MergeConflict,
    NotARepository,
    NothingToDo,
    RefMoved,
    RemoteUnreachable,
    UnknownReference,
)

NOTE = "branchline-checkout"  # in a work tree's own git folder: REFERENCE COMMIT


class WorkTree:
    """The work tree that a folder belongs to; raises NotARepository."""

    def __init__(self, folder: Path) -> None:
        asked = ("--path-format=absolute", "--show-toplevel", "--git-common-dir", "--git-path", "index")
        found = Git(folder, sheltered=False).answer("rev-parse", *asked)
        if found.code:
            raise NotARepository(words(found.err), path=str(folder))
        self.root, self.common, self._index = map(Path, found.text.splitlines())
        self._git = Git(self.root, sheltered=False)

    # ------------------------------------------------------------------------------------------------ what is there

    @property
    def remote(self) -> str:
        """The remote that is git's truth: `origin`, else the only one; '' when there is none."""
        remotes = self._git.line("remote").splitlines()
        return "origin" if "origin" in remotes else remotes[0] if len(remotes) == 1 else ""

    @property
    def branch(self) -> str:
        """The branch that is checked out; '' when HEAD is detached."""
        return self._git.answer("symbolic-ref", "--quiet", "--short", "HEAD").text

    @property
    def branches(self) -> tuple[str, ...]:
        """One's own branches that are experiments or fixes by their name."""
        asked = ("for-each-ref", "--format=%(refname:short)", "refs/heads/experiment--*", "refs/heads/fix--*")
        return tuple(self._git.line(*asked).splitlines())

    @property
    def head(self) -> str:
        """The commit that is checked out; '' before the first one."""
        return self._at("HEAD")

    def person(self) -> str:
        """Whoever commits here, as `Name <mail>`; '' when git does not know."""
        found = re.fullmatch(r"(.* <.+>) \d+ [+-]\d{4}", self._git.answer("var", "GIT_AUTHOR_IDENT").text)
        return found[1] if found else ""

    def handle(self) -> str:
        """A handle made of the person's mail address, else of the name; '' when git knows neither."""
        name, _, mail = self.person().rstrip(">").partition(" <")
        return handle_from(mail) or handle_from(name)

    def trunk(self) -> str:
        """The default branch: what the remote says (asked when it is not known here), else what is usual here."""
        remote = self.remote
        if remote:
            known = self._git.answer("symbolic-ref", "--quiet", "--short", f"refs/remotes/{remote}/HEAD").text
            if known:
                return known.removeprefix(f"{remote}/")
            told = self._git.answer("ls-remote", "--symref", "--end-of-options", remote, "HEAD", seconds=NETWORK)
            found = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", told.text, re.MULTILINE)
            if found:
                return found[1]
        usual = [self._git.answer("config", "--get", "init.defaultBranch").text, "main", "master"]
        there = [name for name in usual if name and self._at(f"refs/heads/{name}")]
        return there[0] if there else self.branch or "main"

    def tip(self, branch: str) -> str:
        """The tip of a branch as known here, the remote's before one's own; '' when there is none."""
        places = [f"refs/remotes/{self.remote}/", "refs/heads/"] if self.remote else ["refs/heads/"]
        return next((tip for place in places if (tip := self._at(place + ref_name(branch)))), "")

    def beginning(self, branch: str, base: str, file: str = "", kept: str = "") -> str:
        """The commit that a new branch would start from, as known here.

        Raises BranchExists, UnknownReference when there is no base, NothingToDo when the base does not hold the file,
        or when switching there would take away the one that is to be kept.
        """
        if self.tip(branch):
            raise BranchExists(branch=branch)
        tip = self.tip(base)
        if not tip:
            empty = not self._at("HEAD")
            raise UnknownReference(
                reference=base, hint="git commit --allow-empty -m Start" if empty else "branchline status"
            )
        if file and not self._holds(tip, file):
            hint = 'branchline start SERVICE --because "..."'
            raise NothingToDo(what=f"{base} holds no {file}, so nothing of it can be mended", hint=hint)
        if kept and self._holds("HEAD", kept) and not self._holds(tip, kept):
            raise self._left_behind(base, tip, kept)
        return tip

    def commit(self, text: str) -> str:
        """The full id of a commit, a branch or a tag; raises UnknownReference."""
        found = self._at(ref_name(text))
        if not found:
            raise UnknownReference(reference=text)
        return found

    def is_dirty(self, paths: Sequence[str] = ()) -> bool:
        """Whether anything below the paths (none: anywhere) is not committed, new files included."""
        asked = ("status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all", "--", *paths)
        return bool(self._git.out("--literal-pathspecs", *asked))

    def files(self, name: str) -> tuple[str, ...]:
        """Every file of that name which is committed or could be (ignored ones left out), by its path, sorted."""
        asked = (
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--full-name",
            "--",
            f":(glob)**/{name}",
        )
        found = {path for path in self._git.line(*asked).split("\0") if path and (self.root / path).is_file()}
        return tuple(sorted(found))

    def pinned(self, path: str, *tips: str, limit: int = 100) -> tuple[tuple[Mapping[str, str], bytes], ...]:
        """Each commit reached from the tips that left another text of a file, and that text, the newest first."""
        if not tips:
            return ()
        asked = ("log", f"--max-count={limit}", "--format=%H%x00%an%x00%ct%x00%s", *tips, "--", path)
        rows = [row.split("\0") for row in self._git.line("--literal-pathspecs", *asked).splitlines()]
        commits = [dict(zip(("commit", "author", "at", "subject"), row, strict=True)) for row in rows]
        texts = [(each, self._git.answer("cat-file", "blob", f"{each['commit']}:{path}")) for each in commits]
        return tuple((each, text.out) for each, text in texts if not text.code)

    def snapshot(self, paths: Sequence[str] = ()) -> str:
        """A commit of the work tree as it is, ignored files left out; HEAD itself when nothing differs.

        Index and HEAD stay as they are; the same work tree on the same HEAD is the same commit. With paths, only what
        lies below them is taken from the work tree.
        """
        told = self._git.answer("rev-list", "--max-count=1", "--no-commit-header", "--format=%H %T %ct", "HEAD")
        head, there, date = ("", "", "0") if told.code else told.text.split()
        with tempfile.TemporaryDirectory(prefix="branchline-") as folder:
            index = {"GIT_INDEX_FILE": f"{folder}/index"}
            if self._index.is_file():  # what git remembers of the files' times saves reading them all
                # With its own time: by that git knows of files that may have changed in the moment it was written.
                shutil.copy2(self._index, index["GIT_INDEX_FILE"])
            if paths:
                self._git.out("read-tree", head or "--empty", env=index)
            self._git.out("--literal-pathspecs", "add", "--all", "--", *(paths or ["."]), env=index)
            tree = self._git.line("write-tree", env=index)
        if head and there == tree:
            return head
        who = (("NAME", "branchline"), ("EMAIL", "branchline@localhost"), ("DATE", f"@{date} +0000"))
        known = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who}
        parent = ["-p", head] if head else []
        return self._git.line("commit-tree", tree, *parent, "-m", "The work tree as it was", env=known)

    # ------------------------------------------------------------------------------------------------ what is done

    def fetch(self) -> None:
        """Bring the remote-tracking branches up to date; nothing to do without a remote. Raises RemoteUnreachable."""
        remote = self.remote
        if remote:
            answer = self._git.answer("fetch", "--quiet", "--prune", "--end-of-options", remote, seconds=NETWORK)
            if answer.code:
                raise RemoteUnreachable(words(answer.err), remote=remote)

    def start(self, branch: str, base: str, file: str = "", kept: str = "") -> str:
        """Create a branch at the fetched tip of another one and switch to it; returns the commit it starts from.

        Changes that are not committed are carried along, as `git switch` does. Raises DirtyWorkTree,
        RemoteUnreachable, and what `beginning` raises.
        """
        self.fetch()
        tip = self.beginning(branch, base, file, kept)
        answer = self._git.answer("switch", "--quiet", "--no-track", "--create", branch, tip)
        if answer.code:
            raise DirtyWorkTree(words(answer.err))
        return tip

    def switch(self, branch: str) -> None:
        """Check a branch out, the remote's when there is none here; raises DirtyWorkTree, UnknownReference."""
        if not self.tip(branch):
            raise UnknownReference(reference=branch)
        answer = self._git.answer("switch", "--quiet", branch)
        if answer.code:
            raise DirtyWorkTree(words(answer.err))

    def record(self, path: str, message: str) -> str:
        """Commit one file and nothing else, whatever is staged besides; returns the commit. Raises GitError."""
        self._git.out("--literal-pathspecs", "add", "--force", "--", path)
        self._git.out("--literal-pathspecs", "commit", "--quiet", "--no-verify", "--only", "-m", message, "--", path)
        return self.head

    def merge(self, branch: str) -> bool:
        """Merge a branch as known here into the one that is checked out; False when there was nothing to merge.

        Raises DirtyWorkTree, and MergeConflict, which leaves the merge to be finished by hand.
        """
        before, tip = self.head, self.tip(branch)
        if not tip:
            raise UnknownReference(reference=branch)
        answer = self._git.answer("merge", "--quiet", "--no-edit", "-m", f"Merge {branch}", tip)
        if answer.code:
            paths = self._git.line("diff", "--name-only", "--diff-filter=U").splitlines()
            if not paths:
                raise DirtyWorkTree(words(answer.err))
            hint = "resolve them, git commit, branchline deploy; or: git merge --abort"
            raise MergeConflict(hint=hint, branch=branch, paths=", ".join(paths))
        return self.head != before

    def push(self, branch: str) -> None:
        """Push one's own branch to the remote and follow it there; without a remote it is where it belongs.

        Raises UnknownReference, RefMoved, PushRefused, RemoteUnreachable.
        """
        ref = f"refs/heads/{ref_name(branch)}"
        if not self._at(ref):
            raise UnknownReference(reference=branch)
        remote = self.remote
        if remote:
            asked = ("push", "--porcelain", "--no-verify", "--set-upstream", "--end-of-options", remote, f"{ref}:{ref}")
            answer = self._git.answer(*asked, seconds=NETWORK)
            if answer.code:
                raise push_failure(answer, branch, remote)

    def merged(self, ours: str, theirs: str, message: str) -> str:
        """A commit of the person's that merges one commit into another, beside the work tree; raises MergeConflict."""
        from branchline.adapters.git_graft import Conflict, merge  # few commands merge, and all wait for imports

        try:
            tree = merge(self._git, ours, theirs)
        except Conflict as conflict:
            raise MergeConflict(branch=ours[:12], paths=str(conflict)) from conflict
        return self._git.line("commit-tree", tree, "-p", ours, "-p", theirs, "-m", message)

    def publish(self, branch: str, commit: str) -> None:
        """Create a branch at a commit: in the remote, without one here; nothing is checked out.

        Raises RefMoved when it is there already, PushRefused, RemoteUnreachable.
        """
        remote, ref = self.remote, f"refs/heads/{ref_name(branch)}"
        if not remote:
            answer = self._git.answer("update-ref", ref, commit_id(commit), "0" * len(commit))
            if answer.code:
                raise RefMoved(words(answer.err), ref=branch)
            return
        asked = ("push", "--porcelain", "--no-verify", f"--force-with-lease={ref}:", "--end-of-options", remote)
        answer = self._git.answer(*asked, f"{commit_id(commit)}:{ref}", seconds=NETWORK)
        if answer.code:
            raise push_failure(answer, branch, remote)

    def bring(self, commit: str, mirror: Path) -> None:
        """Have a commit here, from our mirror when nobody else has it any more; raises UnknownReference."""
        if not self._at(commit_id(commit)):
            asked = ("--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", ANY_COMMIT, "--end-of-options")
            answer = self._git.answer("fetch", "--quiet", *asked, str(mirror), commit, seconds=NETWORK)
            if answer.code:
                raise UnknownReference(words(answer.err), reference=commit[:12])

    def checkout(self, commit: str, folder: Path, mirror: Path, reference: str = "") -> None:
        """Add a work tree with a detached HEAD at a commit, brought from our mirror when it is not here any more.

        Its git folder gets a note of what it is, so that parity can say when its files differ.

        Raises NothingToDo when the folder is there already, UnknownReference when nobody has the commit.
        """
        if folder.exists():
            hint = f"cd {folder}; or put back what was changed in it: branchline checkout {reference} --again"
            raise NothingToDo(what=f"{folder} is there already", hint=hint)
        self.bring(commit, mirror)
        answer = self._git.answer("worktree", "add", "--quiet", "--detach", "--end-of-options", str(folder), commit)
        if answer.code:
            raise GitError(words(answer.err))
        note = Git(folder).line("rev-parse", "--path-format=absolute", "--git-path", NOTE)
        Path(note).write_text(f"{reference or commit} {commit}\n", encoding="utf-8")

    def again(self, commit: str, folder: Path) -> bool:
        """Put a work tree back to the commit it was laid out at; what was changed there is kept as a stash.

        Whether anything had to be. Raises DirtyWorkTree with git's words.
        """
        git = Git(folder, sheltered=False)
        if not git.answer("diff", "--quiet", "--no-ext-diff", commit_id(commit), "--").code:
            return False
        steps: list[tuple[str, ...]] = [("checkout", "--quiet", "--detach", commit)]
        if git.answer("diff", "--quiet", "HEAD", "--").code:
            steps.insert(0, ("stash", "push", "--quiet", "-m", f"changed in {folder}"))
        for step in steps:
            answer = git.answer(*step)
            if answer.code:
                raise DirtyWorkTree(words(answer.err))
        return True

    def _holds(self, commit: str, file: str) -> bool:
        """Whether a commit has a file at that path."""
        return not self._git.answer("cat-file", "-e", f"{commit}:{file}").code

    def _left_behind(self, base: str, tip: str, file: str) -> NothingToDo:
        """That a base lacks what is committed here, and what to type to get it there."""
        remote, mine = self.remote, f"refs/heads/{ref_name(base)}"
        place = f"{remote}/{base}" if remote and self._at(f"refs/remotes/{remote}/{base}") else base
        has = self._holds(mine, file)
        count = self._git.line("rev-list", "--left-right", "--count", f"{tip}...{mine if has else 'HEAD'}", "--")
        behind, ahead = (int(number) for number in count.split())
        whose = f"your {base}" if has else self.branch or "HEAD"
        todo = [f"git switch {base}"] if self.branch != base and (behind or not has) else []
        todo += [f"git pull --no-rebase {remote} {base}"] if place != base and behind else []
        todo += [] if has else [f"git merge {self.branch or self.head}"]
        todo += [f"git push {remote} {base}"] if place != base else []
        far = f"{ahead} commit{'s' * (ahead != 1)} ahead"
        return NothingToDo(what=f"{place} has no {file}; {whose} is {far}, and has it", hint=" && ".join(todo))

    def _at(self, name: str) -> str:
        """The commit of a name; '' when it names none."""
        return self._git.answer("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").text
