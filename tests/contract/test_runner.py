"""This file says what every Runner does: the fake and real processes (F15, F19, F20)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.runner import ProcessRunner
from branchline.ports import Runner, Task
from tests.fakes.runner import FakeRunner


@pytest.fixture(params=["fake", "processes"])
def runner(request: pytest.FixtureRequest) -> Runner:
    return FakeRunner() if request.param == "fake" else ProcessRunner(grace=1, every=0.02)


def task(folder: Path, *argv: str, seconds: float = 30, stdin: str = "") -> Task:
    return Task(argv, folder, {"PATH": "/usr/bin:/bin"}, folder / "logs" / "log", seconds, stdin)


def test_the_exit_status_is_told(runner: Runner, tmp_path: Path) -> None:
    assert [runner.run(task(tmp_path, word)).exit for word in ("true", "false")] == [0, 1]


def test_what_is_printed_is_in_the_log_and_its_end_in_the_answer(runner: Runner, tmp_path: Path) -> None:
    finished = runner.run(task(tmp_path, "echo", "hello", "there"))
    assert (finished.exit, finished.tail) == (0, "hello there")
    assert (tmp_path / "logs" / "log").read_text() == "hello there\n"


def test_standard_input_is_handed_over(runner: Runner, tmp_path: Path) -> None:
    assert runner.run(task(tmp_path, "cat", stdin="what is asked\n")).tail == "what is asked"


def test_a_program_that_is_not_there_is_told_as_a_shell_does(runner: Runner, tmp_path: Path) -> None:
    finished = runner.run(task(tmp_path, "no-such-program"))
    assert (finished.exit, "cannot run no-such-program" in finished.tail) == (127, True)


def test_what_takes_too_long_is_stopped(runner: Runner, tmp_path: Path) -> None:
    """F15."""
    finished = runner.run(task(tmp_path, "sleep", "600", seconds=0.2))
    assert (finished.timed_out, finished.exit) == (True, 143)
    assert finished.seconds < 60


def test_it_is_stopped_when_nobody_wants_it_any_more(runner: Runner, tmp_path: Path) -> None:
    finished = runner.run(task(tmp_path, "sleep", "600"), lambda: True)
    assert (finished.timed_out, finished.exit) == (False, 143)


def test_nothing_is_left_of_a_plain_command(runner: Runner, tmp_path: Path) -> None:
    assert runner.run(task(tmp_path, "true")).left == 0


def test_what_was_changed_of_the_inputs_is_told_F23(runner: Runner, tmp_path: Path) -> None:
    """The first path of each, deepest first; what was only read is not."""
    one, other = tmp_path / "one", tmp_path / "other"
    (one / "deep").mkdir(parents=True)
    other.touch()
    asked = replace(task(tmp_path, "touch", str(one / "deep" / "file")), inputs=(one, other))
    assert runner.run(asked).changed == (one / "deep" / "file",)
    assert runner.run(replace(asked, argv=("true",))).changed == ()
