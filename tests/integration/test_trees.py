"""This file tests that a process tree ends when it should, wholly, whatever is in it (F15, F16, F19, F24)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from branchline.adapters.runner import SHIM, ProcessRunner
from branchline.ports import Finished, Task
from branchline.sdk import trees
from tests.family import has_ended
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
ESCAPE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("escaped", "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not os.path.exists("escaped") or not open("escaped").read():
    time.sleep(0.01)
"""
DAEMON = """
import sys
from pathlib import Path
from branchline.adapters.runner import ProcessRunner
from branchline.ports import Task
folder = Path(sys.argv[1])
task = Task((sys.executable, "-c", sys.argv[2]), folder, {"PATH": "/usr/bin:/bin"}, folder / "log")
ProcessRunner().run(task)
"""
# A tree gets a quarter of a second to fold up; on a busy machine that may be over before a child has run at all.
PATIENT = """
import os, subprocess, sys, time
from branchline.sdk import shim, trees
trees.PATIENCE = 60.0
given, log = sys.argv[1:]
"""
FOLDS = "def body(): subprocess.Popen(['sleep', '0.05'])\nprint(shim.supervise(body, log).left)"
WRITES = """
def body():
    root = os.getpid()
    if os.fork() == 0:
        while os.getppid() == root:
            time.sleep(0.01)
        open(given, "w").close()
        os._exit(0)
ended = shim.supervise(body, log, inputs=[given])
print(ended.exit, ended.left, ended.changed == (given,))
"""


def run(folder: Path, program: str, seconds: float = 60, runner: ProcessRunner | None = None) -> Finished:
    return ran(folder, (sys.executable, "-c", program), seconds, runner)


def ran(folder: Path, argv: tuple[str, ...], seconds: float, runner: ProcessRunner | None = None) -> Finished:
    task = Task(argv, folder, {"PATH": "/usr/bin:/bin"}, folder / "log", seconds)
    return (runner or ProcessRunner(grace=0.5, every=0.02)).run(task)


def patiently(folder: Path, program: str) -> str:
    """What a program prints that supervises a tree of its own, which gets a minute to fold up."""
    (folder / "given").write_text("given")
    command = [sys.executable, "-c", PATIENT + program, str(folder / "given"), str(folder / "log")]
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def alive(folder: Path, name: str = "escaped") -> bool:
    """Whether the process that wrote its number there still runs."""
    text = (folder / name).read_text() if (folder / name).exists() else ""
    return bool(text) and not has_ended(int(text))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a task which has a child that escapes its group and then sleeps."""
    program = ESCAPE + "time.sleep(600)"
    argv = (sys.executable, "-c", DAEMON, str(tmp_path), program)
    with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        assert wait_until(lambda: alive(tmp_path))
        yield process
        process.kill()


def test_a_child_that_forks_twice_into_its_own_session_is_swept_and_counted(tmp_path: Path) -> None:
    """F16, M18: it survives a signal to the group; the subreaper finds it."""
    finished = run(tmp_path, ESCAPE)
    assert (finished.exit, finished.left) == (0, 1)
    assert not alive(tmp_path)


def test_a_tree_that_ignores_termination_is_killed_after_the_grace(tmp_path: Path) -> None:
    """F15. Its root is a shell, for that is deaf long before its time is over."""
    deaf = ("sh", "-c", 'trap "" TERM; exec "$@"', "sh", sys.executable, "-c", ESCAPE + "\ntime.sleep(600)")
    finished = ran(tmp_path, deaf, 1.0)
    assert (finished.timed_out, finished.exit) == (True, 137)
    assert finished.seconds < 30
    assert not alive(tmp_path)


def test_a_tree_gets_its_grace(tmp_path: Path) -> None:
    tidies = ("sh", "-c", "trap 'sleep 0.3; echo tidied up; exit 1' TERM; sleep 600")
    finished = ran(tmp_path, tidies, 1.0, ProcessRunner(grace=60, every=0.02))
    assert (finished.timed_out, finished.exit) == (True, 1)
    assert finished.tail.endswith("tidied up")


def test_a_killed_step_ends_as_a_shell_counts(tmp_path: Path) -> None:
    assert run(tmp_path, "import os; os.kill(os.getpid(), 9)").exit == 137


def test_children_that_fold_up_by_themselves_are_not_held_against_a_step(tmp_path: Path) -> None:
    """Killer: give them no time."""
    assert trees.PATIENCE > 0.1
    assert patiently(tmp_path, FOLDS) == "0\n"


def test_what_a_child_changes_when_its_root_has_ended_is_noticed_F23(tmp_path: Path) -> None:
    """Killer: look at the inputs before the tree has folded up."""
    assert patiently(tmp_path, WRITES) == "0 0 True\n"


def test_an_environment_is_closed(tmp_path: Path) -> None:
    """2.24: nothing of the person's shell reaches a step."""
    finished = run(tmp_path, "import json, os; print(json.dumps(dict(os.environ)))")
    assert set(json.loads(finished.tail)) <= {"PATH", "BRANCHLINE_RUN", "LC_CTYPE"}


def test_a_step_cannot_wait_for_a_terminal(tmp_path: Path) -> None:
    assert run(tmp_path, "import sys; print(repr(sys.stdin.read()), sys.stdin.isatty())").tail == "'' False"


def test_a_flood_is_capped_and_the_newest_kept(tmp_path: Path) -> None:
    """F19: no newline, no end, no mercy."""
    program = "import sys\nfor _ in range(2000): sys.stdout.write('x' * 1000)\nprint('\\nthe end')"
    finished = run(tmp_path, program, runner=ProcessRunner(cap=100_000))
    assert finished.exit == 0
    assert finished.tail.splitlines()[-1] == "the end"
    assert sum(path.stat().st_size for path in tmp_path.glob("log*")) < 400_000


def test_a_log_is_text_that_a_terminal_can_bear(tmp_path: Path) -> None:
    """F19: binary and escape sequences do not reach whoever reads the log."""
    program = (
        "import sys\n"
        r"sys.stdout.buffer.write(b'\x1b[31mred\x1b[0m \x1b]0;title\x07 \xff\x00 50%\r100%\r\nd\xc3\xa9j\xc3\xa0 vu\n')"
    )
    assert run(tmp_path, program).tail.splitlines() == ["red  � 50%", "100%", "déjà vu"]
    assert "\x1b" not in (tmp_path / "log").read_text()


def test_a_folder_that_is_not_ascii_is_no_trouble(tmp_path: Path) -> None:
    folder = tmp_path / "dépôt données"
    folder.mkdir()
    assert run(folder, "print('här')").tail == "här"


def test_an_exception_of_whoever_asks_ends_the_tree_first(tmp_path: Path) -> None:
    task = Task((sys.executable, "-c", ESCAPE + "time.sleep(600)"), tmp_path, {}, tmp_path / "log")

    def look() -> bool:
        if alive(tmp_path):
            raise ZeroDivisionError
        return False

    with pytest.raises(ZeroDivisionError):
        ProcessRunner(grace=0.2, every=0.02).run(task, look)
    assert not alive(tmp_path)


def test_a_start_whose_daemon_died_before_it_was_told_goes_on(tmp_path: Path) -> None:
    """I22, F57, found by killing the daemon: nobody reads `ok` any more, and the group is there for its successor."""
    order = {"argv": ["/bin/true"], "env": {}, "cwd": "/", "log": str(tmp_path / "log"), "folder": str(tmp_path)}
    shim = subprocess.Popen([sys.executable, "-S", "-I", SHIM, "x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert shim.stdin is not None
    assert shim.stdout is not None
    shim.stdout.close()
    shim.communicate(json.dumps(order).encode() + b"\n")
    assert wait_until((tmp_path / "exit.json").is_file)
    assert json.loads((tmp_path / "exit.json").read_text())["exit"] == 0


def test_nothing_of_a_step_outlives_the_daemon(daemon: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """F24: the next daemon runs it again, and never beside itself."""
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    assert wait_until(lambda: not alive(tmp_path))


def test_what_a_killed_supervisor_leaves_is_swept_too(daemon: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """The last line of defence: its root dies with it, the rest is found by the mark in its environment."""
    shims = [child for child in psutil.Process(daemon.pid).children() if "run-" in " ".join(child.cmdline())]
    assert len(shims) == 1
    shims[0].kill()
    assert wait_until(lambda: daemon.poll() is not None)
    assert wait_until(lambda: not alive(tmp_path))
