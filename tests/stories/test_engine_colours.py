"""This file plays blue/green (3.18): a second colour stands by, warm, and takes the whole arm at a person's word.

Requirements: 1.41 (why there is no A/B test), 1.45 and 1.49 (nobody is moved before it has to be), 1.46 (the way back).
"""

from __future__ import annotations

import pytest

from branchline.adapters.servicefile import read_service
from branchline.core import lifecycle as law
from branchline.core.service import Method, Phase
from branchline.engine.preparing import governed_spec
from branchline.errors import BadServiceFile
from tests.world import ALEX, APP, MODEL, SAM, World

COLOURS = APP.replace("rollout = {", 'rollout = { method = "blue-green",')
SKIPPED = MODEL.replace("rollout = {", 'rollout = { method = "blue-green", skip_ab = "one answer for all",')


def standing_by(world: World, toml: str = COLOURS) -> tuple[str, str]:
    """A blue that serves and a green that stands by; their commits."""
    blue = world.released(toml=toml)
    world.push(SAM, toml)
    world.settle()
    return blue, world.on(SAM).revision


def running(world: World, revision: str) -> set[str]:
    """The perimeters in which a revision runs."""
    return {each.perimeter for each in world.launcher.instances() if (each.revision, each.state) == (revision, "ready")}


def processes(world: World) -> dict[str, int]:
    """How many processes each revision has in production."""
    return {each.revision: len(each.sockets) for each in world.launcher.running() if each.perimeter == "production"}


def detail_of(world: World, branch: str) -> str:
    """What its row says of a branch."""
    rows = world.controller.reader.status()["services"][0]["rows"]
    return str(next(row["detail"] for row in rows if row["branch"] == branch))


def test_the_first_revision_has_nothing_to_stand_beside(world: World) -> None:
    first = world.released(toml=COLOURS)
    assert world.on(ALEX).method is Method.BLUE_GREEN
    assert world.shares() == {first: 100}


def test_green_stands_by_in_production_without_traffic_and_says_what_it_waits_for_3_18(world: World) -> None:
    blue, green = standing_by(world)
    assert running(world, green) == {"production"} == running(world, blue)
    assert world.shares() == {blue: 100}
    pins = {pin for each in world.router.endpoints("housing") for pin in each.pins if each.revision == green}
    assert {"1.1.0", "sam", SAM, green} <= pins
    rows = {row["branch"]: row for row in world.controller.reader.status()["services"][0]["rows"]}
    row = rows[SAM]
    assert (row["state"], row["perimeter"], row["share"], row["healthy"]) == ("queued", "production", 0, True)
    assert row["detail"] == f"stands by without traffic; waits for: approval (branchline approve {SAM})"
    world.visit([f"u{number}" for number in range(50)])
    world.settle()
    assert world.shares() == {blue: 100}  # no evidence moves it, only a word


def test_at_a_word_it_takes_the_whole_arm_and_blue_stays_warm_for_the_way_back_1_46(world: World) -> None:
    blue, _ = standing_by(world)
    before = len(world.effects)
    world.ask("approve", SAM)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    shifts = [text for kind, text in world.done(before) if kind == "traffic"]
    assert shifts == ["1.1.0 100%"]  # at once: nobody was given a part
    assert running(world, blue) == {"production"}
    world.ask("rollback", "housing")
    world.settle()
    assert world.shares() == {blue: 100}
    assert [text for kind, text in world.done(before) if kind == "process" and "start" in text] == []
    assert world.parity()


def test_blue_is_stopped_when_its_time_is_over(world: World) -> None:
    blue, _ = standing_by(world)
    world.ask("approve", SAM)
    world.settle()
    world.clock.advance(61)
    world.settle()
    assert running(world, blue) == set()


@pytest.mark.parametrize(("command", "phase"), [("abort", Phase.FAILED), ("close", Phase.WITHDRAWN)])
def test_a_person_says_no_before_any_traffic(world: World, command: str, phase: Phase) -> None:
    blue, green = standing_by(world)
    world.ask(command, SAM)
    world.settle()
    assert (world.phase(SAM), running(world, green), world.shares()) == (phase, set(), {blue: 100})


def test_while_it_concludes_a_rollback_gives_all_back(world: World) -> None:
    blue, green = standing_by(world)
    world.git.refusing = True
    world.ask("approve", SAM)
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.CONCLUDING, {green: 100})
    world.ask("rollback", "housing")
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {blue: 100})


def test_a_green_that_does_not_stay_up_is_given_up_before_anybody_is_asked_F67(world: World) -> None:
    """Killer: only what is under test is given up; it would be started again and again until a person notices."""
    blue = world.released(toml=COLOURS)
    green = world.push(SAM, COLOURS)
    world.launcher.behave[f"{green}/production"] = "late"
    for _ in range(3):
        world.settle()
        world.clock.advance(31)
    world.settle()
    assert (world.phase(SAM), world.shares(), running(world, green)) == (Phase.FAILED, {blue: 100}, set())
    why = str(world.last("GatesFailed").detail["reason"])
    assert why.startswith("error[BL412]: housing@1.1.0 did not become ready")
    assert [g.perimeter for g in world.launcher.groups if g.revision == green] == ["staging"] + 3 * ["production"]


def test_another_release_passes_green_which_is_then_behind(world: World) -> None:
    """Standing by holds nobody up: a fix goes on, and green has to be brought up to date."""
    standing_by(world)
    world.push("fix--housing--kim", files={"note.txt": "better\n"})
    world.settle()
    assert world.phase("fix--housing--kim") is Phase.CANARY
    world.record(law.Won("fix--housing--kim"))
    world.settle()
    assert world.phase("fix--housing--kim") is Phase.LIVE
    assert detail_of(world, SAM).startswith("stands by without traffic; waits for: behind; ")


def test_what_stands_by_says_so_whatever_it_waits_for_3_18(world: World) -> None:
    """Killer: say it of approval alone."""
    standing_by(world)
    world.ask("freeze", "housing")
    assert detail_of(world, SAM) == "stands by without traffic; waits for: frozen"


def test_a_model_needs_the_reason_why_it_is_not_tested_1_41(world: World) -> None:
    with pytest.raises(BadServiceFile) as refused:
        read_service(SKIPPED.replace('skip_ab = "one answer for all",', "").encode(), "housing/branchline.toml")
    assert "rollout.method needs the reason why not, in skip_ab" in refused.value.cause
    standing_by(world, SKIPPED)
    assert world.on(SAM).method is Method.BLUE_GREEN
    (opened,) = (each for each in world.ledger.entries if each.event == "Opened" and each.detail["branch"] == SAM)
    assert opened.because == "seen in git; no A/B test: one answer for all"


def test_how_it_takes_over_is_the_trunks_to_say_F10(world: World) -> None:
    world.released(toml=APP)
    tip = world.push(SAM, COLOURS)
    assert governed_spec(world.ports, "housing", tip, world.git.tip("main")).rollout.method == "canary"
    world.settle()
    assert world.phase(SAM) is Phase.CANARY


def test_green_has_as_many_processes_as_its_own_file_says_unless_it_is_scaled_itself(world: World) -> None:
    """1.20: a number set on blue is not taken over."""
    toml = COLOURS.replace('"serving:predict"', '"serving:predict", instances = 2')
    blue = world.released(toml=toml)
    world.ask("scale", "housing", revision=blue, instances=4)
    world.push(SAM, toml)
    world.settle()
    green = world.on(SAM).revision
    assert processes(world) == {blue: 4, green: 2}
    world.ask("scale", "housing", revision=green, instances=3)
    world.settle()
    assert processes(world) == {blue: 4, green: 3}
    world.ask("approve", SAM)
    world.settle()
    assert processes(world) == {blue: 4, green: 3}
