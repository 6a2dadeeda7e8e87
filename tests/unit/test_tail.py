"""This file tests that a log is followed line by line, through every file that it lies in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchline.cli.tail import Source, Tail, processes


class Log:
    """A log as a supervisor writes it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log"

    def say(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotate(self) -> None:
        self.path.replace(self.path.with_name("log.1"))
        self.path.touch()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_the_last_lines_come_first_and_then_every_one(log: Log) -> None:
    log.say("one\ntwo\nthree\n")
    tail = Tail(log.path, 2)
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []
    log.say("four\nfive\nsix\n")
    assert tail.lines() == ["four", "five", "six"]
    tail.close()


def test_the_last_lines_may_lie_in_the_older_half(log: Log) -> None:
    log.say("one\ntwo\n")
    log.rotate()
    log.say("three\n")
    tail = Tail(log.path, 2)
    assert tail.lines() == ["two", "three"]
    tail.close()


def test_a_line_is_shown_when_it_is_whole(log: Log) -> None:
    log.say("be")
    tail = Tail(log.path, None)
    assert tail.lines() == []
    log.say("gun\nand")
    assert tail.lines() == ["begun"]
    tail.close()


def test_rotation_loses_no_line_and_shows_none_twice(log: Log) -> None:
    """Killer: hold on to the file, or begin the new one alone."""
    log.say("0\n")
    tail = Tail(log.path, 5)
    seen = tail.lines()
    for turn in range(5):
        log.say(f"{turn}a\n{turn}")
        log.rotate()
        log.say(f"b\n{turn}c\n")
        seen += tail.lines()
    assert seen == ["0", *(f"{turn}{part}" for turn in range(5) for part in "abc")]
    tail.close()


def test_a_log_put_aside_twice_since_the_last_look_is_shown_whole(log: Log) -> None:
    log.say("one\n")
    tail = Tail(log.path, 5)
    assert tail.lines() == ["one"]
    for word in ("two", "three"):
        log.rotate()
        log.say(f"{word}\n")
    assert tail.lines() == ["two", "three"]
    assert tail.lines() == []
    tail.close()


def test_one_that_begins_later_is_shown_from_its_first_line(log: Log) -> None:
    tail = Tail(log.path, None)
    assert tail.lines() == []
    log.say("a\nb\n")
    assert tail.lines() == ["a", "b"]
    log.path.unlink()
    assert tail.lines() == []
    tail.close()


def test_what_is_no_text_is_shown_as_far_as_it_can_be(log: Log) -> None:
    log.path.write_bytes(b"\xff\xfe\n")
    tail = Tail(log.path, 5)
    assert tail.lines() == ["��"]
    tail.close()


def begun(state: Path, nonce: str, revision: str, perimeter: str = "production", count: int = 1) -> Path:
    home = state / "instances" / nonce
    home.mkdir(parents=True)
    group = {"service": "housing", "revision": revision, "version": f"1.{revision}.0", "perimeter": perimeter}
    (home / "group.json").write_text(json.dumps(group))
    for number in range(count):
        (home / str(number)).mkdir()
        (home / str(number) / "log").touch()
    return home


def test_a_service_is_all_of_its_revisions_and_a_revision_all_its_processes(tmp_path: Path) -> None:
    begun(tmp_path, "ffff0", "0")
    stopped = begun(tmp_path, "aaaa1", "1", "staging", count=2)
    (stopped / "stopped").touch()
    (tmp_path / "instances" / "cccc3").mkdir()
    (tmp_path / "instances" / "cccc3" / "group.json").write_text("{")
    assert [str(each) for each in processes(tmp_path, "housing", "").values()] == [
        "1.1.0 staging aaaa.0", "1.1.0 staging aaaa.1", "1.0.0 ffff.0",
    ]  # fmt: skip
    only = processes(tmp_path, "housing", "1")
    assert [(each.process, each.ended) for each in only.values()] == [(0, True), (1, True)]
    assert processes(tmp_path, "other", "") == {}
    assert str(Source()) == ".0"
