"""This file tests servers that are forked from a process with the packages imported: nobody can tell them from others.

1.22: an optional pre-warmed start. What is wrong with the process that they are forked from costs a cold start.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.processes_probe import UnixConnection
from branchline.core.spec import Limits
from branchline.ports import Bench, Group, Instance, Stamp
from branchline.sdk import values
from tests.family import has_ended
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NOW = Stamp(1, 1)
ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TZ": "UTC", "PYTHONHASHSEED": "7", "PYTHONDONTWRITEBYTECODE": "1"}
PACKAGES = {
    "heavy.py": "import os\nborn = os.getpid()\nos.environ['HEAVY'] = 'imported'",
    "threaded.py": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
    "native.py": "import ctypes, signal, _thread\n_thread.start_new_thread(signal.pause, ())",
    "talking.py": "import socket\nline = socket.socket()",
    "endless.py": "import os, time\nwhile os.path.exists(os.environ['ENDLESS']): time.sleep(0.01)",
}
CODE = """
import os, re, subprocess, sys, threading, time
import {package}
import heavy
mine = []

def load(train):
    return train

def predict(request, model):
    mine.append(request)
    if request == "secret":
        return model["secret"]
    if request == "escape":
        return escaped()
    if request == "exit":
        os._exit(9)
    if request == "eat":
        model["eaten"] = b"x" * (300 << 20)
        time.sleep(600)  # who looks at it from outside may come later than an answer
    if isinstance(request, list):
        return found(*request)
    return {{
        "asked": len(mine), "environ": dict(os.environ), "cwd": os.getcwd(), "path": sys.path, "hash": hash("house"),
        "forked": heavy.born != os.getpid(), "tasks": threading.active_count(), "files": files(), "pid": os.getpid(),
        "argv": sys.argv[1:], "heavy": {package}.__name__, "whose": os.getsid(0) == os.getpid(),
    }}

def files():
    links = []
    for name in os.listdir("/proc/self/fd"):
        if name == "0":  # empty, whatever it is
            continue
        try:
            links.append(os.readlink("/proc/self/fd/" + name).partition(":")[0])
        except OSError:
            pass
    return sorted(links)

def escaped():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            time.sleep(600)
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))

def found(first, second):
    # how often both parts of a word stand together in what this process has in memory
    count = 0
    with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
        for line in maps:
            at, may, *rest = line.split()
            if may.startswith("rw") and rest[-1] != "[vvar]":
                begin, end = (int(n, 16) for n in at.split("-"))
                memory.seek(begin)
                text = memory.read(end - begin)
                count += sum(text.startswith(second.encode(), m.end()) for m in re.finditer(first.encode(), text))
    return count
"""


class House:
    """A service whose revisions differ in a secret, and launchers on its state."""

    def __init__(self, home: Path, runtime: Path, python: Path) -> None:
        self.home, self.runtime, self.python = home, runtime, python
        self.launcher = self.opened()
        self.bench = Bench(python, ROOT, {**ENV, "ENDLESS": str(home / "endless")})

    def opened(self) -> ProcessLauncher:
        return ProcessLauncher(self.home / "state", self.runtime)

    def group(self, revision: str, package: str = "heavy", **changes: Any) -> Group:
        """The group of a revision, which is made for that."""
        home = self.home / revision
        home.mkdir(exist_ok=True)
        (home / "serving.py").write_text(CODE.format(package=package))
        values.save({"secret": f"secret-of-{revision}-{self.home.name}"}, home / "train")
        spec = {"predict": "serving:predict", "load": "serving:load", "results": {"train": str(home / "train")}}
        spec["modules"] = ["serving"]
        (home / "serving.json").write_text(json.dumps(spec))
        own = {"BRANCHLINE_SERVICE_SPEC": str(home / "serving.json"), "OWN": revision, "HOME": str(home)}
        env = {**self.bench.env, **own, "PYTHONPATH": f"{ROOT}:{home}"}
        argv = (str(self.python), "-P", "-m", "branchline.sdk.serve")
        group = Group("housing", revision, "1.0.0", "production", argv, home, env, "/-/health", drain_seconds=1)
        return replace(group, bench=self.bench, **changes)

    def launch(self, revision: str, package: str = "heavy", **changes: Any) -> str:
        return self.launcher.launch(self.group(revision, package, **changes), NOW).nonce

    def ready(self, revision: str, package: str = "heavy", **changes: Any) -> str:
        nonce = self.launch(revision, package, **changes)
        assert wait_until(lambda: self.now(nonce).state != "starting")
        assert self.now(nonce).state == "ready", self.now(nonce).tail
        return nonce

    def now(self, nonce: str) -> Instance:
        return next(each for each in self.launcher.instances() if each.nonce == nonce)

    def ask(self, nonce: str, request: object) -> Any:
        connection = UnixConnection(Path(self.now(nonce).sockets[0]), 30)
        connection.request("POST", "/predict", json.dumps(request).encode())
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def warmed(self) -> psutil.Process:
        """The process to fork from, once it has imported."""
        (one,) = self.launcher.nurseries._kept.values()
        assert wait_until(one.is_warm)
        return psutil.Process(one.process.pid)

    def has_none_to_fork_from(self) -> bool:
        self.launcher.instances()
        return not self.launcher.nurseries._kept


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has an ASGI server, and those packages."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    packages = next(home.glob("lib/python*/site-packages"))
    for name, text in PACKAGES.items():
        (packages / name).write_text(text)
    (packages / "own.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin" / "python"


@pytest.fixture
def house(tmp_path: Path, runtime_dir: Path, python: Path) -> Iterator[House]:
    made = House(tmp_path, runtime_dir, python)
    yield made
    (tmp_path / "endless").unlink(missing_ok=True)
    for instance in made.launcher.instances():
        made.launcher.stop(instance.nonce, NOW)
    made.launcher.close()
    assert not list((tmp_path / "state").glob("nurseries/*"))


def test_the_second_is_forked_and_is_as_the_first(house: House) -> None:
    """1.22: variables, folder, import path, seed, descriptors and session are the order's, as in a cold start."""
    cold = house.ask(house.ready("one"), "look")
    house.warmed()
    nonce = house.ready("two")
    warm = house.ask(nonce, "look")
    assert (cold["forked"], warm["forked"]) == (False, True)
    assert "started cold: its packages are being imported" in house.launcher.log(house.launcher.instances()[0].nonce)
    assert house.launcher.log(nonce) == ""
    for name in ("hash", "argv", "tasks", "whose", "asked", "files"):
        assert warm[name] == cold[name], name
    as_one = json.loads(json.dumps(warm).replace(f"{house.home}/two", f"{house.home}/one").replace(nonce, "N"))
    other = json.loads(json.dumps(cold).replace(house.launcher.instances()[0].nonce, "N"))
    assert as_one["environ"] | {"OWN": "one"} == other["environ"]
    assert (as_one["path"], as_one["cwd"]) == (other["path"], other["cwd"])


def test_a_fork_carries_nothing_of_another(house: House) -> None:
    """1.22: no socket, nonce or model of whoever was forked before, anywhere in its memory. It finds its own."""
    first = house.ready("one")
    house.warmed()
    second, third = house.ready("two"), house.ready("three")
    own = house.ask(third, "secret")
    assert house.ask(third, [own[:9], own[9:]]) > 0
    for stranger in (first, second):
        secret = house.ask(stranger, "secret")
        assert house.ask(third, [secret[:9], secret[9:]]) == 0
        assert house.ask(third, [stranger[:8], stranger[8:]]) == 0


def test_a_forked_server_outlives_both_and_is_adopted(house: House) -> None:
    """F24: it serves on without the process that it was forked from, and without the daemon; it is ended as any."""
    house.ready("one")
    origin = house.warmed()
    nonce = house.ready("two", instances=2)
    pids = house.now(nonce).pids
    origin.kill()
    assert wait_until(lambda: has_ended(origin.pid))
    assert house.ask(nonce, "look")["forked"]
    house.launcher.instances()
    assert not psutil.pid_exists(origin.pid)  # nobody's zombie
    again = house.opened()
    assert [each.pids for each in again.instances() if each.nonce == nonce] == [pids]
    again.stop(nonce, NOW)
    assert all(has_ended(pid) for pid in pids)
    assert not list(house.runtime.glob(f"{nonce}.*"))


def test_a_killed_process_to_fork_from_means_a_cold_start(house: House) -> None:
    house.ready("one")
    house.warmed().kill()
    assert not house.ask(house.ready("two"), "look")["forked"]
    house.warmed()
    assert house.ask(house.ready("three"), "look")["forked"]


def test_one_that_is_stopped_means_a_cold_start_and_one_server(house: House) -> None:
    """It is killed as soon as it is late, and cannot come back and serve the same."""
    house.ready("one")
    origin = house.warmed()
    house.launcher.nurseries.patience = 0.5
    origin.suspend()
    begun = time.monotonic()
    nonce = house.launch("two")
    assert time.monotonic() - begun < 5, "whoever is not killed at once holds up the start for 6 s"
    assert wait_until(lambda: house.now(nonce).state == "ready")
    assert not house.ask(nonce, "look")["forked"]
    assert wait_until(lambda: has_ended(origin.pid))
    assert len(psutil.Process(house.now(nonce).pids[0]).children()) == 1


@pytest.mark.parametrize("package", ["threaded", "native", "talking"])
def test_what_cannot_be_forked_from_is_started_cold(house: House, package: str) -> None:
    """1.22: threads that an import starts, those that Python knows nothing of, and sockets."""
    house.ready("one", package)
    assert wait_until(house.has_none_to_fork_from)
    nonce = house.ready("two", package)
    assert not house.ask(nonce, "look")["forked"]
    assert "cannot be had ahead" in house.launcher.log(nonce)


def test_an_import_without_end_holds_up_nobody(house: House) -> None:
    """The next start is cold, too; and it ends with whoever wanted it."""
    (house.home / "endless").touch()
    first = house.launch("one", "endless")
    begun = house.launcher.nurseries._kept.copy()
    second = house.launch("two", "endless")
    (house.home / "endless").unlink()
    assert wait_until(lambda: {house.now(n).state for n in (first, second)} == {"ready"})
    assert begun == house.launcher.nurseries._kept
    assert not house.ask(second, "look")["forked"]


def test_the_daemon_takes_the_process_to_fork_from_with_it(house: House) -> None:
    """F24: also amid an import, and killed; the server stays."""
    (house.home / "endless").touch()
    group = house.group("one", "endless")
    program = (
        "import sys, time; from pathlib import Path, PosixPath; from branchline.ports import *;"
        "from branchline.core.spec import *; from branchline.adapters.processes import ProcessLauncher;"
        "launcher = ProcessLauncher(Path(sys.argv[1]), Path(sys.argv[2])); launcher.launch(eval(sys.argv[3]),"
        "Stamp(1, 1)); (one,) = launcher.nurseries._kept.values(); print(one.process.pid, flush=True); time.sleep(600)"
    )
    argv = (sys.executable, "-c", program, str(house.home / "state"), str(house.runtime), repr(group))
    with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout is not None
        origin = int(daemon.stdout.readline())
        daemon.kill()
    assert wait_until(lambda: has_ended(origin))
    (house.home / "endless").unlink()
    (instance,) = house.launcher.instances()
    assert wait_until(lambda: house.now(instance.nonce).state == "ready")


def test_a_forked_server_is_supervised_as_any(house: House) -> None:
    """F16, 1.20: how it ends is known; what escaped goes with it; what a killed supervisor leaves is ended."""
    house.ready("one")
    house.warmed()
    nonce = house.ready("two")
    supervisor, root = house.now(nonce).pids
    assert f"housing@1.0.0~{nonce}" in psutil.Process(supervisor).cmdline()
    escaped = house.ask(nonce, "escape")
    os.kill(root, signal.SIGKILL)
    assert wait_until(lambda: house.now(nonce).state == "failed")
    assert "exit 137" in house.now(nonce).tail
    assert has_ended(escaped)

    nonce = house.ready("three")
    supervisor, _ = house.now(nonce).pids
    escaped = house.ask(nonce, "escape")
    os.kill(supervisor, signal.SIGKILL)
    assert wait_until(lambda: house.now(nonce).state == "failed")
    assert "supervisor was killed" in house.now(nonce).tail
    assert wait_until(lambda: has_ended(escaped))


def test_a_forked_server_whose_folder_is_lost_is_an_orphan(house: House) -> None:
    """7.10: one of it, told by its supervisor's pid and name."""
    house.ready("one")
    house.warmed()
    nonce = house.ready("two")
    supervisor, _ = house.now(nonce).pids
    folder = house.home / "state" / "instances" / nonce
    folder.rename(house.home / "lost")
    strays = [(each.kind, each.pid, each.what) for each in house.launcher.strays()]
    (house.home / "lost").rename(folder)
    assert strays == [("orphan", supervisor, "housing@1.0.0")]


def test_a_forked_server_has_its_limits(house: House) -> None:
    """1.20: memory and open files are its own, not those of whom it was forked from."""
    house.ready("one")
    house.warmed()
    nonce = house.ready("two", limits=Limits(memory=200_000_000, files=64))
    _, root = house.now(nonce).pids
    assert psutil.Process(root).rlimit(psutil.RLIMIT_NOFILE) == (64, 64)
    with pytest.raises(OSError, match=r"closed|reset"):
        house.ask(nonce, "eat")
    assert wait_until(lambda: house.now(nonce).state == "failed")
    assert "out of memory" in house.now(nonce).tail


def test_an_error_of_the_service_is_told_as_in_a_cold_start(house: House) -> None:
    """3.13: the traceback is in the log of the revision."""
    house.ready("one")
    house.warmed()
    group = house.group("two")
    (house.home / "two" / "serving.py").write_text("import heavy\nraise KeyError('no model here')\n")
    nonce = house.launcher.launch(group, NOW).nonce
    assert wait_until(lambda: house.now(nonce).state == "failed")
