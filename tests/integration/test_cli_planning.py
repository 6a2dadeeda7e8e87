"""This file tests the commands that look ahead of a test and back at one: the real API over a world of fakes.

Requirements: 1.37 to 1.39 (the determination), as a person plans it, trusts it and asks about it again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.core.revision import Measure, StepRun
from tests.places import Place
from tests.world import MODEL, SAM

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")
DAY = 86_400.0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    (made.git.work / "housing").mkdir()
    (made.git.work / "housing" / "branchline.toml").write_text(CALM)
    with made.answering():
        yield made


def concluded(place: Place, mean: float = 6.0) -> None:
    """A test of 400 units in four days, in which the challenger gets two points more."""
    world = place.world
    old, new = world.released(toml=CALM), world.testing()
    for half in range(2):
        values = {old: lambda n: 4 + n % 3 - 1.0, new: lambda n: mean + n % 3 - 1.0}
        world.play(200, values, seed=f"u{half}-")
        world.clock.advance(2 * DAY - 10)
    world.visit(["last"])
    world.settle()


def test_a_test_is_planned_where_nothing_is_recorded(place: Place) -> None:
    told = place.type("plan-test")
    lines = told.stdout.splitlines()
    assert told.exit_code == 0, told.stderr
    assert lines[0] == "plan      housing: rating, higher by 1; alpha 0.05, power 0.9, share 50%"
    assert lines[1:3] == [
        "recorded  nothing usable is recorded yet",
        "assumed   deviation 5, the largest that the bounds allow: the truth takes less",
    ]
    assert lines[3].split(maxsplit=2) == ["684", "outcomes", "if it is as much better as the MDE says"]
    assert lines[-1].endswith("how many come in a day is not recorded yet: say --per-day N")
    said = place.type("plan-test", "housing", "--per-day", "54").stdout.splitlines()
    assert "assumed   54 outcomes a day, as you say" in said
    assert said[-1] == "so        at 54 outcomes a day this takes 13 days; with an MDE of 2 it takes 4 days"
    small = place.type("plan-test", "housing", "--per-day", "54", "--mde", "0.1", "--days", "30").stdout.splitlines()
    assert small[-2].startswith("fits      into 30 days: an MDE of 0.")
    assert small[-1].startswith("too long  at 54 outcomes a day this takes ")
    none = place.type("plan-test", "--per-day", "5", "--days", "2").stdout.splitlines()
    assert none[-2] == "fits      into 2 days: none"


def test_a_test_is_planned_by_what_was_recorded(place: Place) -> None:
    concluded(place)
    lines = place.type("plan-test", "housing").stdout.splitlines()
    assert lines[1].startswith("recorded  mean 5.0")
    assert "400 outcomes of 400 units in 4 days" in lines[1]
    found = place.read("plan-test", "housing")
    assert (found["schema"], found["sigma_from"], found["fits"]) == ("branchline.plan-test/1", "recorded", True)


def test_check_says_how_long_it_takes_and_refuses_what_does_not_fit(place: Place) -> None:
    """Only where a daemon knows the traffic; nothing else is wrong with the file."""
    folder = place.git.work / "housing"
    (folder / "serving.py").write_text("def predict(request): ...\n")
    (folder / "steps.py").write_text("def train(): ...\n")
    (folder / "gates.py").write_text("def unit(train): ...\n")
    (folder / "requirements.lock").write_text("uvicorn==1.0 --hash=sha256:" + "0" * 64 + "\n")
    assert place.type("check").stdout == "ok: housing\n"
    concluded(place)
    assert place.type("check").stdout.splitlines() == [
        "plan   housing: at 100 outcomes a day this takes 2 days; with an MDE of 2 it takes 2 days", "ok: housing",
    ]  # fmt: skip
    assert place.read("check")["plans"]["housing"]["fits"]
    (folder / "branchline.toml").write_text(CALM.replace("mde = 1", "mde = 0.05"))
    told = place.type("check")
    assert (told.exit_code, told.stdout.splitlines()) == (2, [
        "error[BL103]: housing/branchline.toml: at 100 outcomes a day this takes 73 days; with an MDE of 0.12 it takes "
        "13 days, and max_duration is 14 days",
        "  hint:  branchline plan-test housing",
    ])  # fmt: skip
    app = CALM.replace("mde = 1", "mde = 0.05").replace('"model"', '"app"')
    (folder / "branchline.toml").write_text(app)
    assert place.type("check").stdout == "ok: housing\n"
    assert "goes by canary: this is what a test would take" in place.type("plan-test").stdout


def test_the_incumbent_against_itself_gives_a_rate_with_its_interval(place: Place) -> None:
    concluded(place)
    lines = place.type("plan-test", "housing", "--aa", "--splits", "50").stdout.splitlines()
    assert "outcomes of the incumbent, given to two arms by lot 50 times" in lines[0]
    found = place.read("plan-test", "housing", "--aa", "--splits", "50", "--seed", "3")
    assert (found["schema"], found["splits"], found["seed"]) == ("branchline.aa/1", 50, 3)
    false = place.read("plan-test", "--aa", "--splits", "50")["false"]
    assert lines[1].startswith(f"claimed   a difference in {false} of 50: ")
    refused = place.type("plan-test", "housing", "--aa", "--days", "3")
    assert (refused.exit_code, "BL100" in refused.stderr) == (2, True)


def test_a_recorded_verdict_is_found_again_and_nothing_is_changed_1_37(place: Place) -> None:
    concluded(place)
    before = place.read("history")
    lines = place.type("rejudge", SAM).stdout.splitlines()
    assert lines[0] == f"test      housing@1.1.0 against 1.0.0, {SAM}"
    assert lines[1] == "settings  mde 1.0, margin 0.0, alpha 0.05, beta 0.1, direction higher"
    assert lines[2] == "recorded  challenger: the challenger is better"
    again = next(number for number, line in enumerate(lines) if line.startswith("rejudged"))
    assert [line[10:] for line in lines[2:again]] == [line[10:] for line in lines[again:-1]]
    assert lines[-1] == "same      the recorded verdict is found again"
    assert place.read("rejudge", "housing@1.1.0")["identical"]
    assert place.read("history") == before


def test_with_other_settings_it_is_exploratory(place: Place) -> None:
    concluded(place)
    told = place.type("rejudge", SAM, "--direction", "lower", "--alpha", "0.01")
    assert "rejudged  incumbent: the challenger is worse" in told.stdout.splitlines()
    assert "alpha 0.01 (had 0.05)" in told.stdout
    assert "exploratory" in told.stderr
    assert "rejudged  no verdict: 400 outcomes" in place.type("rejudge", SAM, "--mde", "0.0001").stdout
    assert place.type("rejudge", "housing@1.0.0").exit_code == 2


def test_a_test_without_a_verdict_says_so(place: Place) -> None:
    world = place.world
    old, new = world.released(toml=CALM), world.testing()
    world.play(40, {old: lambda n: 4.0, new: lambda n: 5.0 + n % 2})
    world.settle()
    lines = place.type("rejudge", SAM).stdout.splitlines()
    assert lines[2] == "recorded  no verdict yet"
    assert lines[3].startswith("rejudged  no verdict: 40 outcomes")


def test_a_verdict_is_shown_with_its_interval_and_the_outcomes_it_rests_on(place: Place) -> None:
    """Wherever a number of a test is shown: status, conclude, why."""
    world = place.world
    waits = CALM.replace("rollout = {", 'rollout = { approval = "after",')
    old, new = world.released(toml=waits), world.testing()
    world.play(60, {old: lambda n: 4.0 + n % 2, new: lambda n: 5.0 + n % 2})
    world.settle()
    interval = r"60 outcomes, \+[\d.]+ \[\+[\d.]+, \+[\d.]+\], \d+ of 100 units in an arm"
    assert re.search(interval, place.type("status").stdout)
    assert re.search(f"evidence {interval}", place.type("conclude", SAM).stderr)
    world.play(200, {old: lambda n: 4.0 + n % 2, new: lambda n: 6.0 + n % 2}, seed="v")
    world.settle()
    assert re.search(r"evidence \d+ outcomes, \+[\d.]+ \[\+[\d.]+, \+[\d.]+\]", place.type("conclude", SAM).stderr)
    why = place.type("why", SAM).stdout
    assert re.search(r"challenger - incumbent \+[\d.]+, 95% sequence \[\+[\d.]+, \+[\d.]+\]", why)


def test_an_offline_metric_is_held_against_verdicts(place: Place) -> None:
    concluded(place)
    keep, world = place.world.catalog.keep_run, place.world
    commits = [each.commit for each in world.catalog.revisions("housing")]
    for commit, mape in zip(commits, (8.5, 9.0), strict=True):
        keep("housing", commit, [StepRun("train", "ran", "k", "art", 1.0, metrics=(Measure("mape", mape),))])
    lines = place.type("backtest", "housing", "mape", "--direction", "lower").stdout.splitlines()
    assert lines[0].split("  ")[0] == "REVISION"
    assert lines[1].startswith("1.1.0     1.0.0    9 -> 8.5, better  +1.9")
    assert lines[1].endswith("challenger: promote")
    assert lines[2] == "won       1 of 1 that looked better by mape: [21%, 100%]"
    assert place.read("backtest", "housing", "mape", "--direction", "lower")["better"]["won"] == 1
    assert place.type("backtest", "housing", "mape").exit_code == 2
