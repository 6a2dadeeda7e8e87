"""This file tests what keeps a group within its limits, by each way that this machine has (1.21): who takes more ends
alone, and its neighbour does not notice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.adapters import processes_cgroups as cgroups
from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.processes_cgroups import Level
from branchline.adapters.processes_probe import UnixConnection
from branchline.core.spec import Limits
from branchline.errors import StartFailed
from branchline.ports import Group, Instance, Stamp
from tests.family import has_ended
from tests.waiting import wait_until

NOW = Stamp(1, 1)
MB = 1_000_000
LEVELS = cgroups.levels()
HUNGRY = """
import os, time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer

held = []

def eat():
    while sum(map(len, held)) < 1_000_000_000:  # far more than it may, and no harm if nobody stops it
        held.append(b"x" * 4_000_000)
        time.sleep(0.005)

def fork():
    for number in range(200):
        try:
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
        except OSError:
            return number
    return 200

def spin():
    while True:
        pass

class Handler(BaseHTTPRequestHandler):
    def address_string(self):
        return "unix"

    def log_message(self, *words):
        pass

    def do_GET(self):
        done = {"/eat": eat, "/fork": fork, "/spin": spin}.get(self.path, lambda: "well")()
        self.send_response(200)
        self.send_header("x-envoy-upstream-healthchecked-cluster", os.environ["BRANCHLINE_NONCE"])
        self.end_headers()
        self.wfile.write(str(done).encode())

class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

Server(os.environ["BRANCHLINE_SOCKET"], Handler).serve_forever()
"""


@dataclass
class House:
    """A launcher that keeps limits in one way, and what it has begun."""

    state: Path
    runtime: Path
    level: Level
    gpus: tuple[int, ...] = (0, 1, 2)

    def opened(self) -> ProcessLauncher:
        return ProcessLauncher(self.state, self.runtime, level=self.level, gpus=self.gpus)

    def launch(self, name: str, limits: Limits, instances: int = 1) -> str:
        argv, env = (sys.executable, "-c", HUNGRY), {"PATH": "/usr/bin:/bin"}
        group = Group(
            "housing", name, "1.0.0", "production", argv, self.state, env, "/", instances=instances, limits=limits
        )
        return self.opened().launch(group, NOW).nonce

    def ready(self, name: str, limits: Limits, instances: int = 1) -> str:
        nonce = self.launch(name, limits, instances)
        assert wait_until(lambda: self.now(nonce).state == "ready")
        return nonce

    def now(self, nonce: str) -> Instance:
        return next(each for each in self.opened().instances() if each.nonce == nonce)

    def stop(self, nonce: str) -> None:
        self.opened().stop(nonce, NOW)

    def ask(self, nonce: str, path: str, number: int = 0) -> str:
        """What a server answers; '' when it cannot any more, and of what has no end."""
        seconds = 0.2 if path in ("/eat", "/spin") else 60
        connection = UnixConnection(Path(self.now(nonce).sockets[number]), seconds)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def folders(self, nonce: str) -> dict[str, str]:
        """The cgroups of an incarnation."""
        found: dict[str, str] = self.opened().group(nonce)["cgroups"]
        return found


@pytest.fixture(params=LEVELS, ids=lambda level: level.name)
def house(request: pytest.FixtureRequest, tmp_path: Path, runtime_dir: Path) -> Iterator[House]:
    made = House(tmp_path / "state", runtime_dir, request.param)
    yield made
    for instance in made.opened().instances():
        made.stop(instance.nonce)
        assert not any(Path(folder).exists() for folder in made.folders(instance.nonce).values())


def test_who_outgrows_its_memory_ends_alone_and_says_so_1_21_F67(house: House) -> None:
    """Killer: without the limit the glutton lives on with a billion bytes."""
    limits = Limits(memory=96 * MB)
    glutton, neighbour = house.ready("glutton", limits), house.ready("neighbour", limits)
    before = house.now(neighbour)
    house.ask(glutton, "/eat")
    assert wait_until(lambda: house.now(glutton).state == "failed")
    assert house.now(glutton).tail.splitlines()[0] == "out of memory: more than 96 MB"
    assert house.now(neighbour) == before
    assert (before.state, before.level) == ("ready", house.level.name)


def test_one_of_three_that_outgrows_its_part_is_lost_and_two_serve_on_I8(house: House) -> None:
    """Killer: with one cgroup for the three, the kernel killed a second one now and then."""
    nonce = house.ready("glutton", Limits(memory=240 * MB), 3)
    pids = house.now(nonce).pids
    house.ask(nonce, "/eat", 1)
    assert wait_until(lambda: house.now(nonce).lost == 1)
    assert (house.now(nonce).state, house.now(nonce).pids) == ("ready", pids[:2] + pids[4:])
    assert house.now(nonce).tail.splitlines()[0] == "out of memory: more than 80 MB"


def test_who_forks_more_than_it_may_is_refused_where_that_can_be_kept_1_21(house: House) -> None:
    nonce, other = house.ready("forks", Limits(processes=12)), house.ready("other", Limits(processes=12))
    kept = "pids" in house.level.below
    assert int(house.ask(nonce, "/fork")) in (range(1, 12) if kept else (200,))
    assert (house.ask(other, "/"), house.now(other).level) == ("well", house.level.name if kept else "limits")


def test_who_computes_more_than_it_may_is_slowed_down_where_that_can_be_kept_1_21(house: House) -> None:
    nonce = house.ready("spins", Limits(cores=0.25))
    house.ask(nonce, "/spin")
    for folder in house.folders(nonce).values():
        numbers = Path(folder, "cpu.stat")
        assert wait_until(lambda: "nr_throttled 0\n" not in numbers.read_text())  # noqa: B023
    assert set(house.folders(nonce)) == {"cpu"} & set(house.level.below)


def test_the_limits_are_of_the_tree_and_not_of_its_supervisor_1_21(house: House) -> None:
    """Else nobody could write how it ended."""
    nonce = house.ready("files", Limits(files=64, memory=200 * MB))
    shim, root = house.now(nonce).pids
    assert "Max open files            64 " in Path(f"/proc/{root}/limits").read_text()
    assert "Max open files            64 " not in Path(f"/proc/{shim}/limits").read_text()
    for folder in house.folders(nonce).values():
        assert Path(folder, "0", "cgroup.procs").read_text().split() == [str(root)]


def test_a_group_without_limits_has_no_level(house: House) -> None:
    nonce = house.ready("free", Limits())
    assert (house.now(nonce).level, house.folders(nonce)) == ("", {})


def test_what_a_killed_daemon_left_is_removed_by_the_next_launch(house: House) -> None:
    """It died over a stop: the processes end by themselves, their cgroup would stay."""
    nonce = house.ready("gone", Limits(memory=200 * MB))
    pids, folders = house.now(nonce).pids, house.folders(nonce).values()
    assert all(Path(folder).exists() for folder in folders)
    (house.state / "instances" / nonce / "stopped").touch()
    assert house.now(nonce).state == "stopped"
    assert wait_until(lambda: all(has_ended(pid) for pid in pids))
    house.launch("next", Limits())
    assert not any(Path(folder).exists() for folder in folders)


def test_limits_that_cannot_be_set_start_nothing(tmp_path: Path, runtime_dir: Path) -> None:
    house = House(tmp_path / "state", runtime_dir, Level("v1", {"memory": tmp_path / "nowhere"}))
    with pytest.raises(StartFailed) as caught:
        house.launch("free", Limits(memory=MB))
    assert "its limits cannot be set" in caught.value.cause
    assert [(each.state, each.pids) for each in house.opened().instances()] == [("failed", ())]


def test_a_gpu_belongs_to_one_group_while_it_runs_1_21(tmp_path: Path, runtime_dir: Path) -> None:
    house = House(tmp_path / "state", runtime_dir, Level())

    def sees(nonce: str) -> str:
        words = Path(f"/proc/{house.now(nonce).pids[1]}/environ").read_bytes().split(b"\0")
        return next((word.decode() for word in words if word.startswith(b"CUDA")), "")

    first, second, third = (house.ready(name, Limits(gpus=n)) for name, n in (("a", 1), ("b", 2), ("c", 0)))
    assert [sees(each) for each in (first, second, third)] == ["CUDA_VISIBLE_DEVICES=0", "CUDA_VISIBLE_DEVICES=1,2", ""]
    with pytest.raises(StartFailed, match="did not become ready") as caught:
        house.launch("d", Limits(gpus=1))
    assert caught.value.cause == "1 of its 1 GPUs are not free"
    house.stop(first)
    fourth = house.ready("d", Limits(gpus=1))
    assert sees(fourth) == "CUDA_VISIBLE_DEVICES=0"
    for each in (second, third, fourth):
        house.stop(each)


V2 = """\
25 23 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
26 23 0:23 / /proc rw - proc proc rw
"""
V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 /docker/ab /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:31 /elsewhere /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
"""
MINE = "4:cpu,cpuacct:/docker/ab\n3:memory:/user/x\n2:pids:/docker/ab\n0::/user.slice/a.service\n"


def test_the_own_cgroup_is_found_by_what_proc_says() -> None:
    """A bind mount shows a part of the tree: a cgroup that is not in it cannot be named."""
    assert cgroups.own_folders(V2, MINE, "v2") == {"": Path("/sys/fs/cgroup/user.slice/a.service")}
    assert cgroups.own_folders(V1, MINE, "v1") == {
        "cpu": Path("/sys/fs/cgroup/cpu,cpuacct"),
        "memory": Path("/sys/fs/cgroup/memory/user/x"),
    }
    assert cgroups.own_folders(V1, MINE, "v2") == {}


@pytest.mark.parametrize("top", [True, False])
def test_version_2_is_made_at_the_top_or_beside_us_1_21(tmp_path: Path, top: bool) -> None:
    """As files: what is written, and where; whether a kernel keeps it is tested where there is one that has it."""
    own = tmp_path / "slice" / "a.service"
    own.mkdir(parents=True)
    below = own if top else own.parent
    for folder in (own, own.parent):
        (folder / "cgroup.procs").touch()
        (folder / "cgroup.controllers").write_text("cpu memory pids io\n")
        (folder / "cgroup.subtree_control").write_text("" if top else "cpu memory pids\n")
    if not top:
        (own / "cgroup.events").touch()
    level = Level("v2", cgroups.writable("v2", {"": own}))
    assert level.below == dict.fromkeys(("memory", "cpu", "pids"), below)
    limits = Limits(cores=1.5, memory=5 * MB, processes=7)
    (below / "branchline-ab").mkdir()
    (below / "branchline-ab" / "cgroup.subtree_control").touch()  # which a kernel makes
    folders = cgroups.planned(level, "ab", limits)
    cgroups.make("v2", folders, limits, 2)
    home = below / "branchline-ab"
    found = {file.relative_to(home).as_posix(): file.read_text() for file in home.rglob("*.max")}
    of_each = {
        f"{n}/{name}": value for n in "01" for name, value in (("memory.max", "2500000"), ("memory.swap.max", "0"))
    }
    assert found == {"cpu.max": "150000 100000", "pids.max": "7"} | of_each
    assert cgroups.entries(folders, 1) == [str(home / "1" / "cgroup.procs")]
    (home / "1" / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert [cgroups.killed(folders, number) for number in (0, 1)] == [0, 2]


def test_what_is_kept_is_told_in_plain_words() -> None:
    here = dict.fromkeys(cgroups.CONTROLLERS, Path("/"))
    assert (
        cgroups.told(Level("v2", here)) == "by cgroups v2: memory, cores, processes; by limits of each process: files"
    )
    assert cgroups.told(Level()).endswith("not kept here: cores and processes (no cgroup that may be written)")
