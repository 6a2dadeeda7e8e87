"""This file tests `logs --follow` as a person types it: a process of its own, over logs that grow (3.20)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

from tests.places import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.answering():
        yield made


def begun(place: Place, nonce: str, revision: str, version: str) -> Path:
    """A process of an incarnation; its log."""
    home = place.settings.state / "instances" / nonce
    (home / "0").mkdir(parents=True)
    group = {"service": "housing", "revision": revision, "version": version, "perimeter": "production"}
    (home / "0" / "log").touch()
    (home / "group.json").write_text(json.dumps(group))
    return home / "0" / "log"


def say(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


class Following:
    """A command that follows."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: Queue[str] = Queue()
        self.thread = Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def line(self) -> str:
        """The next line."""
        return self.lines.get(timeout=60)

    def silent(self) -> bool:
        """Whether there was none until now."""
        try:
            self.lines.get_nowait()
        except Empty:
            return True
        return False


@contextmanager
def following(place: Place, *words: str) -> Iterator[Following]:
    command = [sys.executable, "-m", "branchline.cli.main", "logs", "-f", *words]
    with subprocess.Popen(
        command, cwd=place.git.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        shown = Following(process)
        try:
            yield shown
        finally:
            process.send_signal(2)
            assert process.wait() == 130
            shown.thread.join()  # before what it reads is closed


def test_lines_come_as_they_are_printed_through_rotation(place: Place) -> None:
    commit = place.world.released()
    log = begun(place, "aaaa", commit, "1.0.0")
    say(log, "first\nsecond\n")
    with following(place, "housing@1.0.0", "-n", "1") as shown:
        assert shown.line() == "second"
        say(log, "third\n")
        assert shown.line() == "third"
        log.replace(log.with_name("log.1"))
        say(log, "fourth\n")
        assert shown.line() == "fourth"
        assert shown.silent()


def test_several_are_told_apart_and_new_ones_join(place: Place) -> None:
    commit = place.world.released()
    other = place.world.testing()
    first = begun(place, "aaaa", commit, "1.0.0")
    with following(place, "housing") as shown:
        say(first, "alone\n")
        assert shown.line() == "alone"
        say(begun(place, "bbbb", other, "1.1.0"), "joined\n")
        assert shown.line() == "1.1.0 bbbb.0 | joined"
        say(first, "more\n")
        assert shown.line() == "1.0.0 aaaa.0 | more"


def test_a_revision_is_followed_alone_and_what_has_ended_is_left_out(place: Place) -> None:
    commit = place.world.released()
    other = place.world.testing()
    ended = begun(place, "aaaa", commit, "1.0.0")
    say(ended, "long ago\n")
    (ended.parents[1] / "stopped").touch()
    with following(place, "housing@1.0.0") as shown:
        assert shown.process.stderr is not None
        assert shown.process.stderr.readline().startswith("nothing of housing@1.0.0 runs now")
        say(begun(place, "bbbb", other, "1.1.0"), "of another\n")
        say(begun(place, "cccc", commit, "1.0.0"), "of this\n")
        assert shown.line() == "of this"


def test_programs_get_a_document_a_line(place: Place) -> None:
    log = begun(place, "aaaa", place.world.released(), "1.0.0")
    say(log, "x\n")
    with following(place, "housing", "--json") as shown:
        assert json.loads(shown.line()) == {
            "schema": "branchline.line/1", "service": "housing", "version": "1.0.0", "perimeter": "production",
            "nonce": "aaaa", "process": 0, "text": "x",
        }  # fmt: skip


def test_the_daemons_own_log_can_be_followed(place: Place) -> None:
    log = place.settings.state / "daemon.log"
    say(log, "begun\n")
    with following(place, "daemon") as shown:
        assert shown.line() == "begun"
        say(log, "more\n")
        assert shown.line() == "more"


def test_what_nobody_knows_cannot_be_followed(place: Place) -> None:
    place.world.released()
    told = place.type("logs", "-f", "hosing")
    assert (told.exit_code, "BL102" in told.stderr, "did you mean housing?" in told.stderr) == (2, True, True)
    told = place.type("logs", "-f", "housing@9.9.9")
    assert "error[BL" in told.stderr
    assert "hint" in told.stderr
