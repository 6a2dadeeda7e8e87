"""This file tests the commands that tell of a revision: why, logs, notes; the real API over a world of fakes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.core import lifecycle as law
from tests.fakes.runner import printed
from tests.places import Place
from tests.world import ALEX, KIM, MODEL, SAM

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made_place = Place(tmp_path)
    with made_place.answering():
        yield made_place


def test_why_tells_of_every_step_and_logs_of_every_instance(place: Place) -> None:
    place.world.released()
    told = place.type("why", "housing")
    assert told.stdout.splitlines()[0].startswith(" ok  train")
    one, *of_it = place.type("why", "housing", "train").stdout.splitlines()
    assert one == told.stdout.splitlines()[0]
    assert [line.split()[0] for line in of_it] == ["key", "guard"]
    nothing = place.type("why", "housing", "trian")
    assert (nothing.exit_code, nothing.stdout) == (2, "")
    assert nothing.stderr.splitlines()[:2] == [
        "error[BL109]: housing has no step 'trian'",
        "  cause: did you mean train?",
    ]
    assert "1.0.0 production" in place.type("logs", "housing").stderr
    assert place.read("logs", "housing")["schema"] == "branchline.logs/1"
    (place.settings.state / "daemon.log").write_text("one\ntwo\nthree\n")
    assert place.type("logs", "daemon", "-n", "2").stdout == "two\nthree\n"
    assert place.type("logs", "gateway").exit_code == 0


def test_why_and_logs_tell_what_the_gates_found(place: Place) -> None:
    """1.09: pass, fail or inconclusive, with numbers and what was printed."""
    world = place.world
    world.released()
    says = {"unit": {"ok": False, "rows": 3, "worst": 0.25, "summary": "a row is wrong"}}
    gates = 'gates = { unit = "gates:unit", lint = { command = ["echo", "all", "is", "tidy"] } }'
    commit = world.push(SAM, MODEL.replace('gates = { unit = "gates:unit" }', gates), says=says)
    world.settle()
    lines = place.type("why", SAM).stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith(" no  gate unit"))
    assert lines[at].split()[3:7] == ["a", "row", "is", "wrong"]
    assert lines[at + 1].strip() == "rows 3, worst 0.25"
    found = {gate["gate"]: gate for gate in place.read("why", SAM)["gates"]}
    assert found["unit"]["numbers"] == {"rows": 3, "worst": 0.25}
    told = place.type("logs", SAM)
    assert f"-- {commit[:7]} gate lint pass" in told.stderr
    assert "all is tidy" in told.stdout
    broken = world.push(KIM, says={"train": "raise the data is gone"})
    world.settle()
    told = place.type("logs", KIM)
    assert f"-- {broken[:7]} build failed" in told.stderr
    assert "the data is gone" in told.stdout


def test_a_gate_that_failed_is_told_with_its_last_lines(place: Place) -> None:
    """What was printed is where the next command leads, and once."""
    gates = 'gates = { lint = { command = ["fails"] } }'
    place.world.runner.commands["fails"] = lambda task: printed(task, "line 7\nE  assert 1 == 2", exit=1)
    place.world.push(SAM, MODEL.replace('gates = { unit = "gates:unit" }', gates))
    place.world.settle()
    told = place.type("why", SAM).stdout
    assert told.count("| E  assert 1 == 2") == 1
    assert "GatesFailed" not in told
    tip = place.world.push(KIM)
    place.world.launcher.behave[f"{tip}/staging"] = "dies"
    place.world.settle()
    assert " no  GatesFailed        error[BL412]" in place.type("why", KIM).stdout


def test_every_command_finds_a_revision_whose_branch_name_is_used_again(place: Place) -> None:
    """1.09, 3.25: while the next one is under test, and after it won."""
    first = place.world.released()
    second = place.world.testing(ALEX)
    for reference, commit in (
        ("housing@incumbent", first),
        ("housing@1.0.0", first),
        (ALEX, second),
        ("housing", second),
    ):
        assert place.read("why", reference)["commit"] == commit
        assert place.read("status", reference)["services"][0]["name"] == "housing"
        assert place.read("logs", reference)["logs"]
    place.world.record(law.Won(ALEX))
    place.world.settle()
    for reference, commit in (("housing@1.0.0", first), ("housing@incumbent", second), ("housing", second)):
        assert place.read("why", reference)["commit"] == commit


def test_release_notes_are_markdown_3_10(place: Place) -> None:
    place.world.released()
    place.world.testing()
    place.world.record(law.Won(SAM, reason="challenger: it is better\n  20 outcomes"))
    place.world.settle()
    lines = place.type("notes", "housing@1.1.0").stdout.splitlines()
    assert lines[0] == "# housing 1.1.0"
    assert lines[2].startswith(f"Replaces 1.0.0. Built from `{SAM}` at ")
    assert [line for line in lines if line.startswith("##")] == ["## Changes", "## Gates", "## Verdict"]
    assert "- unit: pass, passed" in lines
    assert lines[-3].endswith(": challenger: it is better")
    assert lines[-1] == "- 20 outcomes"
    first = place.type("notes", "housing@1.0.0").stdout.splitlines()
    assert (first[2][:19], first[-1]) == ("The first revision.", "None was needed: nothing served before.")
    assert place.read("notes", "housing@1.1.0")["verdict"]["event"] == "Won"


def test_times_are_iso_8601_for_programs(place: Place) -> None:
    """experience: UTC in JSON, local and how long ago for people."""
    place.world.released()
    assert ISO.fullmatch(place.read("history")["entries"][0]["at"])
    assert ISO.fullmatch(place.read("notes", "housing")["built"])
