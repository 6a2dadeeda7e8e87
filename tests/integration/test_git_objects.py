"""This file reads a real repository through the process that stays: what it answers, and how it comes and goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from branchline.adapters.git import Git
from branchline.adapters.git_objects import Batch, Entry, Objects
from branchline.errors import GitError, UnknownReference
from tests.family import children_with, has_ended
from tests.repositories import RealGit
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
FILES = {
    "branchline.toml": "root",
    "a/branchline.toml": "a",
    "a/b/branchline.toml": "b",
    "a/b/x.py": "x",
    "a.py": "y",
    "other/branchline.toml/file": "z",
}
READER = """
import sys
from pathlib import Path
from branchline.adapters.git import Git
from branchline.adapters.git_objects import Batch
batch = Batch(Git(Path(sys.argv[1])))
batch.object("0" * 40)
print(batch._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def world(tmp_path: Path) -> RealGit:
    """A repository of a person with a remote."""
    return RealGit(tmp_path)


def reading(folder: Path) -> Objects:
    """What reads a repository."""
    return Objects(Batch(Git(folder)))


def pid(objects: Objects) -> int:
    """The process through which is read; 0 while there is none."""
    return objects.batch._process.pid if objects.batch._process else 0


def test_what_it_says_is_what_git_says(world: RealGit) -> None:
    """Files, their places, and the folders that hold a name, as `ls-tree` has them; paths within others count once."""
    commit, objects = world.write("main", FILES), reading(world.truth)
    rows = world.git("ls-tree", "-r", commit, "--", "a", "a.py", at=world.truth).splitlines()
    wanted = [Entry(row.split()[0], row.split()[2], row.partition("\t")[2]) for row in rows]
    assert sorted(objects.files(commit, ["a/b", "a", "a.py"]), key=lambda each: each.path) == sorted(
        wanted, key=lambda each: each.path
    )
    told = world.git("ls-tree", commit, "--", "a", "a.py", at=world.truth).splitlines()
    parts = {path: meta for meta, _, path in (row.partition("\t") for row in told)}
    assert objects.parts(commit, ["a", "a.py", "nowhere", "a.py/x"]) == parts
    assert objects.parts(commit, [""]) == {"": world.git("rev-parse", f"{commit}^{{tree}}", at=world.truth)}
    assert objects.folders(commit, "branchline.toml") == ("", "a", "a/b")
    assert [objects.read(commit, path) for path in ("a/b/x.py", "a", "a/nothing", "")] == [b"x", None, None, None]


def test_names_and_modes_that_are_odd(world: RealGit) -> None:
    """A mode is written as `ls-tree` does, for a step's key is made of it; a submodule is no folder (F12)."""
    first = world.write("main", {"run.sh": "#!"}, mode="100755")
    row = f"M 160000 {first} elsewhere"
    ask = f"commit refs/heads/main\ncommitter A <a@b> 1 +0000\ndata 1\nx\nfrom {first}\n{row}\n\n"
    world.git("fast-import", "--quiet", at=world.truth, stdin=ask)
    commit, objects = world.write("main", {"naïve name/x": "1"}), reading(world.truth)
    found = objects.parts(commit, ["elsewhere", "run.sh", "naïve name"])
    assert [found[path].rpartition(" ")[0] for path in found] == ["160000 commit", "100755 blob", "040000 tree"]
    assert (objects.read(commit, "elsewhere"), objects.place(commit, "elsewhere/x")) == (None, None)
    assert Entry("160000", first, "elsewhere") in objects.files(commit, [""])


def test_a_tree_as_deep_as_somebody_likes(world: RealGit) -> None:
    """F13: how deep a tree is decides who pushes it. Killer: walk it by recursion."""
    commit = world.write("main", {"/".join(["d"] * 1500) + "/branchline.toml": "deep"})
    objects = reading(world.truth)
    assert [len(path) for path in objects.folders(commit, "branchline.toml")] == [2999]
    assert max(len(entry.path) for entry in objects.files(commit, [""])) == 3015


def test_thousands_of_questions_are_one_process(world: RealGit) -> None:
    """2,000 branches are looked at without 2,000 processes; killer: run git for each."""
    commits, objects = [world.write("main", {"a": str(n)}) for n in range(20)], reading(world.truth)
    texts = {objects.read(commit, "a") for commit in commits}
    readers = [each.pid for each in children_with("--batch", at=world.truth)]
    assert (len(texts), readers) == (20, [pid(objects)])


def test_what_was_not_there_is_found_once_it_is(world: RealGit) -> None:
    """A commit that is fetched after it was asked for; killer: remember that it was missing."""
    objects, elsewhere = reading(world.work / ".git"), world.write("main", {"a": "new"})
    assert objects.root(elsewhere) == ""
    with pytest.raises(UnknownReference):
        objects.read(elsewhere, "a")
    world.git("fetch", "--quiet", "origin")
    assert objects.read(elsewhere, "a") == b"new"


def test_a_reader_that_was_killed_is_started_again(world: RealGit) -> None:
    """Killer: let the first broken pipe count, or keep what it did not take for the end to write once more."""
    commit, objects = world.write("main", FILES), reading(world.truth)
    objects.root(commit)
    first = pid(objects)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: has_ended(first))
    assert objects.read(commit, "a.py") == b"y"
    assert pid(objects) != first


def test_a_broken_object_is_told_F38(world: RealGit) -> None:
    """Broken or gone: GitError names it, and what can be read is read afterwards."""
    commit, objects = world.write("main", FILES), reading(world.work / ".git")
    world.git("fetch", "--quiet", "origin", "main")
    place = objects.place(commit, "a.py")
    assert place is not None
    lost = world.work / ".git/objects" / place[1][:2] / place[1][2:]
    lost.chmod(0o600)
    lost.write_bytes(b"nonsense")
    with pytest.raises(GitError) as told:
        objects.read(commit, "a.py")
    assert told.value.cause == f"the blob {place[1][:12]} is not there"
    assert objects.read(commit, "a/b/x.py") == b"x"


def test_a_reader_ends_with_who_reads(world: RealGit) -> None:
    """Nobody guards it: it ends with its input, were its reader killed. Killer: let somebody else hold that pipe."""
    ran = subprocess.Popen(
        [sys.executable, "-c", READER, str(world.truth)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert ran.stdin is not None
    assert ran.stdout is not None
    with ran.stdin, ran.stdout:
        reader = int(ran.stdout.readline())
        assert not has_ended(reader)
        ran.kill()
        ran.wait()
    assert wait_until(lambda: has_ended(reader))


def test_a_reader_ends_when_nobody_holds_it(world: RealGit) -> None:
    """No process is left behind by a mirror that is forgotten."""
    objects = reading(world.truth)
    objects.root("0" * 40)
    reader = pid(objects)
    del objects
    assert wait_until(lambda: not psutil.pid_exists(reader))
