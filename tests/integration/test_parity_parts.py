"""This file tests what parity looks at on real parts: processes that were forgotten, strangers, edited files, notes.

Requirement 1.51; faults F53, F64, F73.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from branchline.adapters.git_worktree import WorkTree
from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.processes_probe import ENDED, is_within, listener_of, parent, peer
from branchline.errors import DirtyWorkTree
from branchline.ports import Group, Stamp
from tests.gateways import gateway
from tests.repositories import RealGit
from tests.servers import SERVER
from tests.waiting import wait_until

NOW = Stamp(1, 1)


def group(folder: Path) -> Group:
    return Group(
        service="housing", revision="a" * 40, version="1.0.0", perimeter="production",
        argv=(sys.executable, "-c", SERVER, "silent"), cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        health="/", nonce_aware=False, drain_seconds=1,
    )  # fmt: skip


@pytest.fixture
def launcher(tmp_path: Path, runtime_dir: Path) -> ProcessLauncher:
    return ProcessLauncher(tmp_path / "state", runtime_dir)


def ready(launcher: ProcessLauncher) -> bool:
    return wait_until(lambda: [each.state for each in launcher.instances()] == ["ready"])


def test_a_forgotten_process_is_found_by_its_socket_and_ends_when_it_is_asked(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    """The command that parity prints is `kill PID`, of the supervisor: it takes its whole tree along."""
    nonce = launcher.launch(group(tmp_path), NOW).nonce
    assert ready(launcher)
    supervisor, child = launcher.instances()[0].pids
    shutil.rmtree(launcher.home / nonce)
    (stray,) = launcher.strays()
    assert (stray.kind, stray.pid, stray.service, stray.what) == ("orphan", supervisor, "housing", "housing@1.0.0")
    subprocess.run(("kill", str(stray.pid)), check=True)
    assert wait_until(lambda: parent(child) == ENDED and launcher.strays() == ())


def test_a_stranger_is_not_served_from_however_well_it_answers(launcher: ProcessLauncher, tmp_path: Path) -> None:
    """F73, also for a server that cannot carry the nonce: it is no child of our supervisor."""
    begun = launcher.launch(group(tmp_path), NOW)
    assert ready(launcher)
    path = Path(begun.sockets[0])
    path.unlink()
    environ = {"BRANCHLINE_SOCKET": str(path), "BRANCHLINE_NONCE": "x", "PATH": os.environ["PATH"]}
    stranger = subprocess.Popen((sys.executable, "-c", SERVER, "silent"), env=environ, stdout=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: peer(path, 0) == (stranger.pid, False))
        (stray,) = launcher.strays()
        assert (stray.kind, stray.pid, stray.what) == ("stranger", stranger.pid, f"1.0.0 at {path}")
        (instance,) = launcher.instances()
        assert (instance.state, instance.tail.splitlines()[0]) == (
            "failed", f"a stranger (pid {stranger.pid}) listens on its socket",
        )  # fmt: skip
        assert launcher.strays() == (stray,)
    finally:
        stranger.kill()
        stranger.wait()
        launcher.stop(begun.nonce, NOW)


def test_who_cannot_be_told_counts_as_ours(tmp_path: Path) -> None:
    gone = subprocess.Popen(("true",))
    gone.wait()
    assert is_within(gone.pid, 1)
    assert is_within(os.getpid(), os.getppid())
    assert not is_within(os.getppid(), gone.pid)
    # Reaped between two looks, as whoever was killed is: it was never a stranger. Killer: look twice, or take 0 for it.
    above = iter([77, ENDED])
    assert is_within(78, 99, lambda _: next(above))
    assert not is_within(78, 99, lambda _: 0)  # begun from outside of this container: it has no parent here
    one, other = socket.socketpair()
    with one, other:
        assert listener_of(one) == os.getpid()
    assert peer(tmp_path / "nobody", 5) == (0, True)


def test_an_edited_file_is_found_and_nothing_is_done_about_it(tmp_path: Path, runtime_dir: Path) -> None:
    with gateway(tmp_path, runtime_dir) as real:
        end = real.backyard.add("a" * 40, "1.0.0").endpoint
        real.writer.offer("housing", [end], NOW)
        real.writer.shift("housing", 1, [("a" * 40, 100)], NOW)
        folder = real.writer.envoy.folder
        for name in ("rds.pb", "lds.json", "bootstrap.json"):
            text = (folder / name).read_bytes()
            (folder / name).write_bytes(text + b" ")
            other = real.another()
            assert other.survey().edited == (name,)
            assert (folder / name).read_bytes() == text + b" "
            (folder / name).write_bytes(text)
            assert other.survey().edited == ()
        real.writer.stop()
        port = real.writer.survey()
        assert (port.running, port.taken, port.edited) == (False, "", ())


def test_a_checkout_is_known_by_its_note_and_put_back_with_a_stash(tmp_path: Path) -> None:
    world = RealGit(tmp_path)
    one = world.write("main", {"housing/model.py": "one\n"})
    world.git("fetch", "--quiet", "origin")
    tree, folder = WorkTree(world.work), tmp_path / "my look"
    world.repository.fetch()
    tree.checkout(one, folder, world.repository.path, "housing@1.0.0")
    (found,) = world.repository.checkouts()
    assert (found.folder, found.reference, found.commit, found.altered) == (folder, "housing@1.0.0", one, ())
    assert not tree.again(one, folder)
    (folder / "housing" / "model.py").write_text("mine\n")
    assert world.repository.checkouts()[0].altered == ("housing/model.py",)
    assert tree.again(one, folder)
    assert (folder / "housing" / "model.py").read_text() == "one\n"
    assert "changed in" in world.git("stash", "list", at=folder)
    world.git("commit", "--quiet", "--allow-empty", "-m", "Mine", at=folder)
    assert world.repository.checkouts()[0].altered == ()
    (folder / "housing" / "model.py").write_text("committed\n")
    world.git("commit", "--quiet", "--all", "-m", "Mine", at=folder)
    assert tree.again(one, folder)
    assert world.git("rev-parse", "HEAD", at=folder) == one
    (folder / ".git").unlink()
    with pytest.raises(DirtyWorkTree):
        tree.again(one, folder)
    shutil.rmtree(folder)
    assert world.repository.checkouts() == ()
