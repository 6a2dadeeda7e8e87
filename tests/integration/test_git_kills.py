"""This file kills whoever concludes, again and again: each conclusion ends exactly once (I1, I2, I25, F57, M1, M5)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from branchline.adapters.git import Git
from branchline.adapters.git_locks import clear_locks
from branchline.errors import GitError
from tests.concluding import ROOT, check_each_was_concluded_once, kill_often
from tests.family import has_ended
from tests.repositories import RealGit
from tests.waiting import wait_until

KILLS = int(os.environ.get("KILLS", "30"))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("remote", [True, False], ids=["remote", "alone"])
def test_a_conclusion_ends_once_however_often_it_is_killed(tmp_path: Path, remote: bool) -> None:
    """Exactly one merge a service, in each of them; `git fsck` clean; KILLS=200 for more."""
    world = kill_often(tmp_path, remote=remote, kills=KILLS, seed=KILLS, services=12)
    check_each_was_concluded_once(world, 12)


def test_a_killed_daemon_takes_its_git_commands_along(tmp_path: Path) -> None:
    """A surviving child would hold real locks. This one waits for more on a pipe that stays open."""
    world = RealGit(tmp_path)
    os.mkfifo(tmp_path / "asked")
    held = os.open(tmp_path / "asked", os.O_RDWR)
    script = (
        "import sys; from pathlib import Path; from branchline.adapters.git import Git\n"
        "with Git(Path(sys.argv[1])).stream('cat-file', '--batch', stdin=open(sys.argv[2], 'rb')) as told:\n"
        "    print('begun', flush=True); told.read()"
    )
    words = [sys.executable, "-c", script, str(world.work), str(tmp_path / "asked")]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert wait_until(lambda: [child.name() for child in psutil.Process(process.pid).children()] == ["git"])
    child = psutil.Process(process.pid).children()[0]
    process.kill()
    process.wait()
    process.stdout.close()
    try:
        assert wait_until(lambda: has_ended(child.pid))
    finally:
        os.close(held)


def test_stale_locks_are_cleared_at_start_and_on_the_way(tmp_path: Path) -> None:
    """F36, M1."""
    world = RealGit(tmp_path)
    tip = world.write("experiment--housing--alex", {"housing/model.py": "one\n"})
    mirror = world.repository
    world.repository.fetch()
    locks = [mirror.path / "packed-refs.lock", mirror.path / "refs/heads/experiment--housing--alex.lock"]
    for lock in locks:
        lock.touch()
    (mirror.path / "draft-left").mkdir()
    again = RealGit.at(tmp_path)
    assert again.repository.fetch()["experiment--housing--alex"] == tip
    assert not any(lock.exists() for lock in locks)
    assert not (mirror.path / "draft-left").exists()
    tip = world.write("experiment--housing--alex", {"housing/model.py": "two\n"})
    locks[1].touch()
    assert world.repository.fetch()["experiment--housing--alex"] == tip
    assert not locks[1].exists()


def test_the_locks_of_a_living_command_are_left_alone(tmp_path: Path) -> None:
    """F36: a killed parent's git may be at work still."""
    world = RealGit(tmp_path)
    path = world.repository.path
    lock = path / "packed-refs.lock"
    lock.touch()
    starter = "import subprocess as s; print(s.Popen(['git', 'cat-file', '--batch'], stdin=0, stdout=s.DEVNULL).pid)"
    read, write = os.pipe()
    told = subprocess.run(
        [sys.executable, "-c", starter], stdin=read, stdout=subprocess.PIPE, check=True, text=True,
        env={**os.environ, "GIT_DIR": str(path)},
    )  # fmt: skip
    os.close(read)
    try:
        assert wait_until(lambda: psutil.Process(int(told.stdout)).name() == "git")
        with pytest.raises(GitError):
            clear_locks(path, patience=0.0)
        assert lock.exists()
    finally:
        os.close(write)
    assert clear_locks(path) == (lock,)


def test_a_broken_mirror_is_put_aside_and_made_anew(tmp_path: Path) -> None:
    """F38: what the truth keeps for us comes back."""
    world = RealGit(tmp_path)
    tip = world.write("experiment--housing--alex", {"housing/model.py": "one\n"})
    world.repository.fetch()
    world.writer.delete("housing", "experiment--housing--alex", tip, (1, 1))  # type: ignore[arg-type]
    for file in world.repository.path.glob("objects/*/*"):
        file.unlink()
    again = RealGit.at(tmp_path)
    assert set(again.repository.fetch()) == {"main"}
    assert again.repository.read(tip, "housing/model.py") == b"one\n"
    assert (tmp_path / "mirror.broken-1").is_dir()


def test_a_git_command_that_hangs_is_ended(tmp_path: Path) -> None:
    git = Git(tmp_path)
    with pytest.raises(GitError) as told:
        git.answer("credential-cache--daemon", str(tmp_path / "s"), seconds=0.3)
    assert "longer than" in told.value.cause
