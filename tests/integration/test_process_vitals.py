"""This file tests that what processes print and how many threads they have is counted: once, whatever is rotated,
cut or started anew (3.20).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from branchline.adapters import processes_counts as counts
from branchline.adapters.processes_counts import ProcessVitals
from branchline.ports import Vital
from branchline.sdk import trees
from tests.waiting import wait_until

KEY = ("housing", "1.0.0")
ONE = "WARNING:root:it is late\n"
FELL = "Traceback (most recent call last):\n  File 'x'\nValueError: no\n"
THREADS = """
import sys, threading
held = threading.Event()
for _ in range(3):
    threading.Thread(target=held.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


class Group:
    """An incarnation that lies in a state folder, and may print."""

    def __init__(self, state: Path, nonce: str = "n1", version: str = "1.0.0") -> None:
        self.home = state / "instances" / nonce
        self.place = self.home / "0"
        self.place.mkdir(parents=True)
        (self.home / "group.json").write_text(json.dumps({"service": "housing", "version": version}))
        self.log.touch()

    @property
    def log(self) -> Path:
        return self.place / "log"

    def say(self, text: str) -> None:
        with self.log.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        """As the supervisor does when a log is full."""
        self.log.replace(self.place / "log.1")
        self.log.touch()


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return Group(tmp_path)


def seen(vitals: ProcessVitals) -> tuple[int, int]:
    found = vitals.read()[KEY]
    return found.warnings, found.exceptions


def test_warnings_and_tracebacks_are_counted_line_by_line(tmp_path: Path, group: Group) -> None:
    vitals = ProcessVitals(tmp_path)
    assert seen(vitals) == (0, 0)
    group.say("INFO: all is well, no warning here\n" + ONE + FELL)
    assert seen(vitals) == (1, 1)
    group.say("app.py:3: UserWarning: old\n  warnings.warn('old')\n" + '{"level": "warning", "msg": "x"}\nWARN slow\n')
    assert seen(vitals) == (4, 1)
    group.say("FORWARNING is no word\nHeUserWarning without its colon\n")
    assert seen(vitals) == (4, 1)


def test_a_line_that_is_not_whole_waits(tmp_path: Path, group: Group) -> None:
    """Killer: count what is there, and a line that comes in two parts counts never, or twice."""
    vitals = ProcessVitals(tmp_path)
    group.say("WARNI")
    assert seen(vitals) == (0, 0)
    group.say("NG at last\n")
    assert seen(vitals) == seen(vitals) == (1, 0)


def test_a_reader_that_is_started_anew_counts_nothing_twice(tmp_path: Path, group: Group) -> None:
    """Killer: keep no place, and every restart of the daemon counts all logs again."""
    group.say(ONE * 5 + FELL)
    assert seen(ProcessVitals(tmp_path)) == (5, 1)
    assert seen(ProcessVitals(tmp_path)) == (5, 1)
    group.say(ONE)
    assert seen(ProcessVitals(tmp_path)) == (6, 1)


@pytest.mark.parametrize("anew", [False, True])
def test_rotation_loses_no_line_and_counts_none_twice(tmp_path: Path, group: Group, anew: bool) -> None:
    """Killer: go on in the new log alone, and what was printed before it was put aside is lost."""
    vitals = ProcessVitals(tmp_path)
    printed = 0
    for turn in range(5):
        group.say(f"turn {turn}\n" + ONE * 3)
        assert seen(vitals) == (printed + 3, 0)
        group.say(ONE * 2)  # not looked at before it is put aside
        group.rotate()
        group.say(f"new {turn}\n" + ONE)
        printed += 6
        vitals = ProcessVitals(tmp_path) if anew else vitals
        assert seen(vitals) == (printed, 0)


def test_a_log_put_aside_twice_between_two_looks_is_taken_up_where_it_is_left(tmp_path: Path, group: Group) -> None:
    """What fell out meanwhile nobody can count; what is there is counted once."""
    vitals = ProcessVitals(tmp_path)
    group.say("first\n" + ONE)
    assert seen(vitals) == (1, 0)
    group.rotate()
    group.say("second\n" + ONE * 2)
    group.rotate()
    group.say("third\n" + ONE * 4)
    assert seen(vitals) == seen(vitals) == (7, 0)


def test_an_inode_that_is_given_again_is_another_log(tmp_path: Path, group: Group) -> None:
    """Killer: trust the inode, and the beginning of a new log is taken for read."""
    vitals = ProcessVitals(tmp_path)
    group.say("old\n" + ONE)
    assert seen(vitals) == (1, 0)
    group.log.write_text("new, in the same file\n" + ONE * 3)
    assert seen(vitals) == (4, 0)


def test_nothing_goes_back_when_a_folder_is_cleared_away(tmp_path: Path, group: Group) -> None:
    vitals = ProcessVitals(tmp_path)
    group.say(ONE + FELL)
    other = Group(tmp_path, "n2")
    other.say(ONE)
    assert seen(vitals) == (2, 1)
    shutil.rmtree(group.home)
    assert seen(vitals) == (2, 1)
    other.say(FELL)
    assert seen(vitals) == (2, 2)


@pytest.mark.parametrize("spoilt", ["", "[]", "{", '{"offset": 3, "colour": 1}'])
def test_a_spoilt_place_begins_anew(tmp_path: Path, group: Group, spoilt: str) -> None:
    group.say(ONE)
    (group.place / counts.KEPT).write_text(spoilt)
    assert seen(ProcessVitals(tmp_path)) == (1, 0)


def test_what_lies_there_half_begun_is_passed_over(tmp_path: Path, group: Group) -> None:
    (tmp_path / "instances" / "n2" / "0").mkdir(parents=True)
    (tmp_path / "instances" / "n2" / "group.json").write_text("")
    assert ProcessVitals(tmp_path).read() == {KEY: Vital()}
    assert ProcessVitals(tmp_path / "nowhere").read() == {}


@contextmanager
def running(group: Group) -> Iterator[subprocess.Popen[str]]:
    """A supervisor whose child has four threads."""
    argv = [sys.executable, "-c", PARENT, THREADS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        state = {"pid": process.pid, "ticks": trees.ticks(process.pid), "child": 0}
        (group.place / "state.json").write_text(json.dumps(state))
        yield process


def test_the_threads_of_the_tree_are_counted_and_not_its_supervisor(tmp_path: Path, group: Group) -> None:
    vitals = ProcessVitals(tmp_path)
    with running(group):
        assert vitals.read()[KEY].threads == 4
    assert wait_until(lambda: vitals.read()[KEY].threads == 0)


def test_a_process_id_that_is_given_again_is_nobody_of_ours(tmp_path: Path, group: Group) -> None:
    with running(group) as process:
        state = {"pid": process.pid, "ticks": trees.ticks(process.pid) - 1}
        (group.place / "state.json").write_text(json.dumps(state))
        assert ProcessVitals(tmp_path).read()[KEY].threads == 0


def test_a_full_disk_keeps_nobody_from_counting(tmp_path: Path, group: Group) -> None:
    os.mkdir(group.place / f"{counts.KEPT}.new")  # nothing can be written in its place
    vitals = ProcessVitals(tmp_path)
    group.say(ONE)
    assert seen(vitals) == seen(vitals) == (1, 0)
