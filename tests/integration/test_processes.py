"""This file tests groups of real processes: they outlive the daemon, and a stranger is nobody of ours (F73)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from branchline.adapters.processes import ProcessLauncher
from branchline.core.spec import Requests
from branchline.errors import Fenced, StartFailed
from branchline.ports import Group, Instance, Stamp
from tests.family import has_ended
from tests.servers import CALLED, SERVER
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NOW = Stamp(1, 1)
DAEMON = """
import sys, time
from pathlib import Path
from branchline.adapters.processes import ProcessLauncher
from branchline.ports import Group, Stamp
launcher = ProcessLauncher(Path(sys.argv[1]), Path(sys.argv[2]))
group = Group("housing", "a1" * 20, "1.0.0", "production", (sys.executable, "-c", sys.argv[3], "well"),
              Path(sys.argv[1]), {"PATH": "/usr/bin:/bin"}, "/")
launcher.launch(group, Stamp(1, 1))
while launcher.instances()[0].state != "ready":
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""


class House:
    """A state folder, and the launchers that are opened on it one after another."""

    def __init__(self, state: Path, runtime: Path) -> None:
        self.state, self.runtime = state, runtime
        state.mkdir()
        self.launcher = self.opened()

    def opened(self, **options: Any) -> ProcessLauncher:
        return ProcessLauncher(self.state, self.runtime, **options)

    def group(self, mode: str, **changes: Any) -> Group:
        group = Group(
            "housing", mode, "1.0.0", "production", (sys.executable, "-c", SERVER, mode), self.state,
            {"PATH": "/usr/bin:/bin"}, "/", start_seconds=30, drain_seconds=1,
        )  # fmt: skip
        return replace(group, **changes)

    def launch(self, mode: str, **changes: Any) -> str:
        return self.launcher.launch(self.group(mode, **changes), NOW).nonce

    def now(self, nonce: str, launcher: ProcessLauncher | None = None) -> Instance:
        return next(each for each in (launcher or self.launcher).instances() if each.nonce == nonce)

    def does(self, nonce: str, mode: str) -> bool:
        """Whether a server does already what it will go on doing: it has said its word, and listens unless it hangs."""
        (path,) = self.now(nonce).sockets
        with socket.socket(socket.AF_UNIX) as caller:
            listens = caller.connect_ex(path + ".elsewhere" if mode == "elsewhere" else path) == 0
        return self.launcher.log(nonce) == f"{mode} starts" and (listens or mode == "hangs")

    def has_had(self, seconds: float, nonce: str) -> None:
        """Let that much of an incarnation's time be over."""
        self.noted(nonce, "begun", -seconds)

    def noted(self, nonce: str, name: str, change: float) -> None:
        """Change a time that an incarnation's file holds."""
        file = self.state / "instances" / nonce / "group.json"
        group = json.loads(file.read_text())
        file.write_text(json.dumps(group | {name: group[name] + change}))

    def becomes(self, nonce: str, state: str, launcher: ProcessLauncher | None = None) -> bool:
        return wait_until(lambda: self.now(nonce, launcher).state == state)


@pytest.fixture
def house(tmp_path: Path, runtime_dir: Path) -> Iterator[House]:
    made = House(tmp_path / "state", runtime_dir)
    yield made
    for instance in made.opened().instances():
        for pid in instance.pids:
            if not has_ended(pid):
                os.kill(pid, signal.SIGCONT)
        made.opened().stop(instance.nonce, Stamp(99, 99))


def test_a_group_outlives_the_daemon_and_is_adopted_untouched(house: House) -> None:
    """3.15, F24: `kill -9` of the daemon does not touch a healthy server, nor does its successor."""
    argv = (sys.executable, "-c", DAEMON, str(house.state), str(house.runtime), SERVER)
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"ready\n"
        before = house.opened().instances()
        daemon.kill()
        daemon.wait()
    after = house.opened().instances()
    assert after == before
    assert [each.state for each in after] == ["ready"]
    again = house.opened().launch(replace(house.group("well"), revision="a1" * 20), NOW)
    assert again.nonce == before[0].nonce
    house.opened().stop(again.nonce, NOW)
    assert all(has_ended(pid) for pid in before[0].pids)


def test_two_controllers_begin_one_incarnation(house: House) -> None:
    assert house.launch("well") == house.opened().launch(house.group("well"), NOW).nonce


def test_what_one_controller_is_told_binds_the_other(house: House) -> None:
    """F52: one that was stopped in its sleep is refused when it wakes up."""
    asleep = house.opened()
    house.launcher.tell("housing", Stamp(2, 2))
    with pytest.raises(Fenced):
        asleep.launch(house.group("well"), Stamp(2, 1))


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        ("fails", "answered 500"),
        ("elsewhere", "nothing listens on the socket that BRANCHLINE_SOCKET names"),
        ("hangs", "nothing listens on the socket that BRANCHLINE_SOCKET names"),
        ("stranger", "answered by a stranger"),
        ("silent", "answered by a stranger"),
    ],
)
def test_who_does_not_answer_for_this_incarnation_never_gets_ready(house: House, mode: str, why: str) -> None:
    """F65, F73, M17: a stranger's 200 is no readiness. The reason and the last lines are told, and it is ended."""
    nonce = house.launch(mode, start_seconds=600)
    assert wait_until(partial(house.does, nonce, mode))
    assert house.now(nonce).state == "starting"  # what it answers now is no readiness, for as long as it has
    house.has_had(600, nonce)
    assert house.becomes(nonce, "failed", house.opened(probe_seconds=60))
    failed = house.now(nonce)
    assert why in failed.tail.splitlines()[0]
    assert failed.tail.splitlines()[-1] == f"{mode} starts"
    assert wait_until(lambda: not house.now(nonce).pids)


@pytest.mark.parametrize("step", [-1e9, 1e9])
def test_a_clock_that_was_set_neither_fails_nor_prolongs_a_start_F56(house: House, step: float) -> None:
    """The deadline is by the machine's own clock: a wall clock that is years off is nothing to it."""
    nonce = house.launch("hangs", start_seconds=600)
    house.noted(nonce, "at", step)
    assert house.now(nonce, house.opened()).state == "starting"
    house.has_had(600, nonce)
    assert house.now(nonce, house.opened()).state == "failed"


def test_a_server_that_does_not_know_the_nonce_is_known_by_its_socket(house: House) -> None:
    assert house.becomes(house.launch("silent", nonce_aware=False), "ready")


def test_a_server_that_speaks_http2_alone_is_asked_by_a_call(house: House) -> None:
    """What serves gRPC takes a GET for nonsense, and would never get ready."""
    argv = (sys.executable, "-c", CALLED)
    nonce = house.launch("called", argv=argv, nonce_aware=False, requests=Requests(protocol="http2"))
    assert house.becomes(nonce, "ready")
    other = house.launch("well", start_seconds=600, nonce_aware=False, requests=Requests(protocol="http2"))
    assert wait_until(partial(house.does, other, "well"))
    house.has_had(600, other)
    assert house.becomes(other, "failed", house.opened(probe_seconds=60))
    assert "POST / by HTTP/2" in house.now(other).tail


def test_who_dies_at_once_has_failed_at_once_with_its_words(house: House) -> None:
    nonce = house.launch("dies")
    assert house.becomes(nonce, "failed")
    tail = house.now(nonce).tail.splitlines()
    assert tail[0].startswith("it ended by itself with exit 1 ")
    assert tail[-1] == "no model here"


def test_a_program_that_is_not_there_has_failed_with_its_name(house: House) -> None:
    nonce = house.launch("well", argv=("no-such-server",))
    assert house.becomes(nonce, "failed")
    assert "cannot run no-such-server" in house.now(nonce).tail


def test_a_command_is_told_its_socket_in_its_words(house: House) -> None:
    nonce = house.launch("well", argv=("echo", "listen", "unix:{socket}"))
    assert house.becomes(nonce, "failed")
    assert house.launcher.log(nonce) == f"listen unix:{house.now(nonce).sockets[0]}"


def test_stopping_takes_the_whole_tree(house: House) -> None:
    nonce = house.launch("children")
    assert house.becomes(nonce, "ready")
    shim = psutil.Process(house.now(nonce).pids[0])
    family = [shim.pid, *(child.pid for child in shim.children(recursive=True))]
    assert len(family) >= 3
    house.launcher.stop(nonce, NOW)
    assert all(has_ended(pid) for pid in family)
    assert not any(Path(socket).exists() for socket in house.now(nonce).sockets)


def test_a_killed_supervisor_is_a_failed_group_and_its_tree_is_swept(house: House) -> None:
    nonce = house.launch("children")
    assert house.becomes(nonce, "ready")
    shim, root = house.now(nonce).pids
    family = [child.pid for child in psutil.Process(shim).children(recursive=True)]
    assert root in family
    os.kill(shim, signal.SIGKILL)
    assert house.becomes(nonce, "failed")
    assert house.now(nonce).tail.splitlines()[0] == "its supervisor was killed"
    assert wait_until(lambda: all(has_ended(pid) for pid in family))


def test_a_supervisor_that_dies_while_it_is_looked_at_leaves_no_stranger(house: House) -> None:
    """What it leaves is of no tree any more: it was told as a stranger, and served on."""

    class Unlucky(ProcessLauncher):
        def answers(self, *asked: Any) -> list[str]:
            os.kill(shim, signal.SIGKILL)
            wait_until(lambda: has_ended(shim))
            return super().answers(*asked)

    nonce = house.launch("children")
    assert house.becomes(nonce, "ready")
    shim, root = house.now(nonce).pids
    found = house.now(nonce, Unlucky(house.state, house.runtime))
    assert (found.state, found.tail.splitlines()[0]) == ("failed", "its supervisor was killed")
    assert wait_until(lambda: has_ended(root))


def test_who_is_stopped_and_forgotten_while_it_is_looked_at_has_not_failed(house: House) -> None:
    """Another thread begins something, and clears away what has ended. Killer: write down its failure all the same."""

    class Slow(ProcessLauncher):
        def answers(self, *asked: Any) -> list[str]:
            house.launcher.stop(nonce, NOW)
            shutil.rmtree(self.home / nonce)
            return super().answers(*asked)

    nonce = house.launch("well")
    assert house.becomes(nonce, "ready")
    assert house.now(nonce, Slow(house.state, house.runtime)).state == "stopped"


def test_a_number_that_was_given_again_is_nobody_of_ours(house: House) -> None:
    """Start ticks and boot make a pid a name; without them a stranger would be adopted, and killed."""
    nonce = house.launch("well")
    assert house.becomes(nonce, "ready")
    state = house.state / "instances" / nonce / "0" / "state.json"
    known = state.read_text()
    with subprocess.Popen(["sleep", "600"]) as stranger:
        state.write_text(known.replace(f'"pid": {house.now(nonce).pids[0]},', f'"pid": {stranger.pid},'))
        assert house.now(nonce, house.opened()).state == "failed"
        house.launcher.stop(nonce, NOW)
        assert stranger.poll() is None
        stranger.kill()
    state.write_text(known)
    house.launcher.stop(nonce, NOW)


def test_one_that_was_ready_and_falls_silent_is_failed_but_not_ended(house: House) -> None:
    """The last copy may be only slow: whether it has to go is not decided here."""
    nonce = house.launch("well")
    assert house.becomes(nonce, "ready")
    impatient = house.opened(probe_seconds=0.1, silence=0.3)
    patient = house.opened(probe_seconds=0.1, silence=600)
    root = house.now(nonce).pids[1]
    os.kill(root, signal.SIGSTOP)
    assert house.now(nonce, patient).state == "ready"
    assert house.becomes(nonce, "failed", impatient)
    assert "has not answered for 0.3 s" in house.now(nonce, impatient).tail
    assert not has_ended(root)
    os.kill(root, signal.SIGCONT)


def test_of_three_the_killed_and_the_frozen_are_lost_and_the_third_serves_on_I8(house: House) -> None:
    """F67: the two are replaced beside it; its own process is the same before and after."""
    nonce = house.launch("children", instances=3)
    assert house.becomes(nonce, "ready")
    impatient = house.opened(probe_seconds=1.0, silence=2.0)
    pids = house.now(nonce).pids
    killed, frozen, kept = pids[0:2], pids[2:4], pids[4:6]
    os.kill(killed[0], signal.SIGKILL)  # its supervisor: what is left of its tree is swept, and nothing of the others'
    os.kill(frozen[1], signal.SIGSTOP)
    assert wait_until(lambda: house.now(nonce, impatient).lost == 2)
    worn = house.now(nonce, impatient)
    assert (worn.state, worn.pids) == ("ready", frozen + kept)
    assert worn.tail.splitlines()[0] == "its supervisor was killed"
    assert wait_until(lambda: has_ended(killed[1]))
    new = impatient.launch(house.group("children", instances=3), NOW).nonce
    assert house.becomes(new, "ready", impatient)
    assert house.now(nonce, impatient).pids == frozen + kept
    os.kill(frozen[1], signal.SIGCONT)
    assert wait_until(lambda: house.now(nonce, impatient).lost == 1)  # it answers again
    house.launcher.stop(nonce, NOW)
    assert all(has_ended(pid) for pid in kept)
    assert len(house.now(new).pids) == 6


def test_a_stranger_on_one_of_two_sockets_is_a_lost_process_I8_F73(house: House) -> None:
    nonce = house.launch("well", instances=2)
    assert house.becomes(nonce, "ready")
    path = Path(house.now(nonce).sockets[0])
    path.unlink()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()
        now = house.now(nonce)
        assert (now.state, now.lost) == ("ready", 1)
        assert f"a stranger (pid {os.getpid()}) listens on its socket" in now.tail


def test_a_stop_that_was_cut_short_is_finished_by_whoever_looks(house: House) -> None:
    nonce = house.launch("well")
    assert house.becomes(nonce, "ready")
    (house.state / "instances" / nonce / "stopped").touch()
    assert wait_until(lambda: house.now(nonce, house.opened()).pids == ())


def test_a_start_that_was_cut_short_is_no_failure(house: House) -> None:
    """F57: whoever started it was killed over that; while somebody may still be at it, it is starting."""
    nonce = house.launch("well")
    assert house.becomes(nonce, "ready")
    (house.state / "instances" / nonce / "0" / "state.json").rename(house.state / "kept")
    with house.launcher.locked():
        assert house.now(nonce, house.opened()).state == "starting"
    assert house.now(nonce, house.opened()).state == "stopped"
    (house.state / "kept").rename(house.state / "instances" / nonce / "0" / "state.json")
    assert wait_until(lambda: house.now(nonce, house.opened()).pids == ())
    assert house.launch("well") != nonce


def test_secrets_of_the_environment_lie_in_no_file(house: House) -> None:
    """M21."""
    nonce = house.launch("well", env={"PATH": "/usr/bin:/bin", "PASSWORD": "hunter2"})
    assert house.becomes(nonce, "ready")  # from here on nothing comes or goes
    files = [path for path in house.state.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


def test_a_folder_whose_sockets_would_have_too_long_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailed):
        ProcessLauncher(tmp_path, tmp_path / ("x" * 100))
