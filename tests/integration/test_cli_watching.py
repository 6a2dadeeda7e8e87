"""This file tests what a person sees of live traffic, as a client of the real API over a world of fakes (3.20)."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from branchline.engine.gauging import EVERY
from branchline.ports import Vital
from tests.places import Place
from tests.waiting import wait_until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.answering():
        made.world.released()
        made.world.testing()
        look(made)
        yield made


def look(place: Place) -> None:
    place.world.clock.advance(EVERY)
    place.world.controller.reader.gauging.totals()  # somebody watches
    place.world.controller.reader.gauging.look()


def busy(place: Place) -> None:
    place.world.gauges.served("housing", "1.0.0", count=99, milliseconds=2)
    place.world.gauges.served("housing", "1.0.0", 500, milliseconds=2)
    place.world.vitals.vitals["housing", "1.0.0"] = Vital(9, 2, 1)
    look(place)


def test_status_of_a_service_shows_how_each_revision_answers(place: Place) -> None:
    busy(place)
    lines = [line.split() for line in place.type("status", "housing").stdout.splitlines()]
    head = next(at for at, line in enumerate(lines) if line[:2] == ["LAST", "2"])
    times = ("2.0", "ms") * 3
    assert lines[head + 1] == ["1.0.0", "50%", "50.0", "1.0%", "±4.4", *times, "9", "2", "1"]
    assert lines[head + 2] == ["1.1.0", "50%", *"-" * 8]
    found = place.read("status", "housing")["services"][0]["rows"][0]
    assert (found["rates"]["requests"], found["rates"]["failed"], found["processes"]["exceptions"]) == (100, 1, 1)


def row(watching: subprocess.Popen[str]) -> dict[str, Any]:
    """The incumbent's row of the next document."""
    assert watching.stdout is not None
    found: dict[str, Any] = json.loads(watching.stdout.readline())["services"][0]["rows"][0]
    return found


def test_watch_shows_new_rates_as_they_come(place: Place) -> None:
    command = [sys.executable, "-m", "branchline.cli.main", "status", "housing", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=place.git.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        first = row(watching)
        busy(place)
        while (second := row(watching))["rates"] is None:
            pass  # who looks between two deeds of `busy` is shown what there is by then
        watching.send_signal(2)
        assert watching.wait() == 130
    assert (first["rates"], second["rates"]["per_second"]) == (None, 50.0)


@pytest.mark.parametrize(("width", "colour"), [(80, True), (120, False)])
def test_the_screen_fits_the_terminal_and_heeds_no_color(place: Place, width: int, colour: bool) -> None:
    busy(place)
    env = {**os.environ, "TERM": "xterm"} | ({} if colour else {"NO_COLOR": "1"})
    env.pop("COLUMNS", None)
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", str(width), "rows", "40"], stdin=theirs, check=True)
    command = [sys.executable, "-m", "branchline.cli.main", "status", "housing", "--watch"]
    seen = b""

    def drawn() -> bool:
        nonlocal seen
        seen += os.read(ours, 65536)
        return b"detaches" in seen

    with subprocess.Popen(command, cwd=place.git.work, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as watching:
        os.close(theirs)
        assert wait_until(drawn)
        watching.send_signal(2)
        while b"\x1b[?1049l" not in seen:  # the screen is given back
            seen += os.read(ours, 65536)
        assert watching.wait() == 130
    os.close(ours)
    assert (b"\x1b[31m1.0%" in seen) is colour
    text = seen.decode().replace("\x1b[31m", "").replace("\x1b[33m", "").replace("\x1b[2m", "").replace("\x1b[0m", "")
    drawn_lines = text.partition("\x1b[J")[2].partition("Ctrl-C")[0].split("\r\n")
    assert len(drawn_lines) > 6
    assert max(map(len, drawn_lines)) <= width
