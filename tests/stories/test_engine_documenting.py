"""This file tests dossiers: from what is recorded alone, the same bytes again, and enough to find the verdict again.

Requirements: beyond 14 (a dossier), 1.14 and 1.15 (what was decided, on what), 3.20 (numbers with interval and count).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape

import pytest

from branchline.core import dossier, dossier_page, dossier_words
from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.engine.documenting import Document, Dossiers
from branchline.errors import UnknownReference
from tests.world import ALEX, APP, KIM, MODEL, SAM, World

UNITS = 230
CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")


def around(mean: float) -> Callable[[int], float]:
    """Values about a mean, by the number of the unit."""
    return lambda n: mean + n % 3 - 1


def with_rollout(words: str, toml: str = CALM) -> str:
    return toml.replace("rollout = {", f"rollout = {{ {words},")


def told(world: World, reference: str = SAM) -> Document:
    """The dossier: the same bytes when made again and after a restart, sound, and a page that holds it."""
    made = Dossiers(world.ports, world.controller.desk).dossier(reference)
    text = dossier.text(made)
    world.restart()
    assert dossier.text(Dossiers(world.ports, world.controller.desk).dossier(reference)) == text
    page = dossier_page.page(made)
    assert dossier_page.page(json.loads(text)) == page
    assert dossier.read(page) == dossier.read(text) == json.loads(text)
    assert dossier.differences(dossier.read(page)) == []
    return made


def played(world: World, mean: float, toml: str = CALM, of_old: float = 4) -> tuple[str, str]:
    """A first revision, and a challenger judged by outcomes."""
    old, new = world.released(toml=toml), world.testing()
    world.play(UNITS, {old: around(of_old), new: around(mean)})
    world.settle()
    return old, new


# ── verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mean", "event", "cause", "said"),
    [
        (6.0, "Won", "promote", "is better than housing 1.0.0 and replaces it: its rating is "),
        (
            2.5,
            "Lost",
            "harmful",
            "is worse than housing 1.0.0, which stays: its rating is 1.63 lower (between −2.07 and −1.19)",
        ),
        (4.0, "Lost", "futile", "is not better than housing 1.0.0 by the 1 that was asked for, so housing 1.0.0 stays"),
    ],
)
def test_a_verdict_follows_again_from_its_dossier(world: World, mean: float, event: str, cause: str, said: str) -> None:
    """Killer: thin out the sums of the verdict along with those of the picture."""
    old, new = played(world, mean)
    made = told(world, new)
    measured = made["measurement"]
    assert (made["verdict"]["event"], measured["answer"]["cause"]) == (event, cause)
    assert said in made["sentence"]
    recorded = made["verdict"]["reason"].splitlines()
    assert recorded[0] == f"{measured['answer']['side']}: {measured['answer']['reason']}"
    assert [line.strip() for line in recorded[1:]] == measured["answer"]["lines"]
    assert (made["replaces"]["commit"], made["hashes"]["commit"]) == (old, new)
    assert [arm["commit"] for arm in measured["arms"]] == [old, new]
    assert measured["series"][-1]["sums"] == measured["sums"]
    assert len(measured["series"]) >= sum(measured["answer"]["units"]) - 10  # from the second unit of each arm on
    assert measured["splits"] == {next(iter(measured["sums"])): [50, 50]}
    losing = made["cost"]["losing"]
    assert losing["role"] == ("incumbent" if event == "Won" else "challenger")
    assert losing["effect"][1] <= losing["effect"][0] <= losing["effect"][2]


def test_a_dossier_has_why_it_was_tried_and_what_it_was_made_of(world: World) -> None:
    played(world, 6.0)
    made = told(world, "housing@1.1.0")
    assert made["hypothesis"] == ""  # the log of the incumbent's is no hypothesis of its own
    assert told(world, "housing@1.0.0")["hypothesis"] == "Better."
    assert [gate["gate"] for gate in made["gates"]] == ["test-plan", "log", "unit"]
    assert [(step["name"], step["state"]) for step in made["steps"]] == [("train", "ran")]
    assert made["hashes"].keys() == {"commit", "tree", "environment", "sdk", "trained", "artifacts"}
    assert made["declaration"]["metric"]["mde"] == 1
    assert [each["subject"] for each in made["commits"]] == ["Work on housing"]
    assert [each["event"] for each in made["timeline"]] == ["Opened", "Built", "GatesPassed", "Won", "Recorded"]
    assert made["verdict"]["chain"] == world.last("Won").chain


def test_what_happens_later_changes_no_dossier(world: World) -> None:
    """Killer: tell the versions, incumbents and totals of now."""
    played(world, 4.0)
    made = told(world)
    world.testing(KIM)
    world.play(
        UNITS, {world.on(KIM).revision: around(9), world.service().lines[0].incumbent or "": around(4)}, seed="k"
    )
    world.settle()
    assert world.phase(KIM) is Phase.LIVE
    assert told(world, made["hashes"]["commit"]) == made


def test_a_breach_is_found_again_from_its_bad_requests(world: World) -> None:
    world.released()
    new = world.testing()
    world.visit([f"u{n}" for n in range(60)], fails=[new])
    world.settle()
    made = told(world)
    guard = made["measurement"]["guards"]["failed requests"]
    assert (made["verdict"]["event"], guard["answer"]) == ("Breached", "rollback")
    assert guard["bad"][1] == len(guard["bads"])
    assert "because it does harm: " in made["sentence"]
    world.record(law.Withdrew(SAM))
    world.settle()
    assert told(world)["verdict"] == made["verdict"]  # closing what rests is no verdict


@pytest.mark.parametrize("bad", ["requests", "outcomes"])
def test_who_had_won_and_was_taken_out_while_it_waited(world: World, bad: str) -> None:
    world.released(toml=with_rollout('approval = "after"', MODEL))
    new = world.testing()
    old = world.service().lines[0].incumbent or ""
    world.play(UNITS, {old: around(4), new: around(6)})
    world.settle()
    assert world.phase(SAM) is Phase.WON
    if bad == "requests":
        world.visit([f"v{n}" for n in range(90)], fails=[new])
    else:
        world.play(90, {old: around(4), new: lambda n: 0.5}, seed="v")
    world.settle()
    made = told(world)
    assert [each["event"] for each in made["timeline"]][-2:] == ["Won", "Breached"]
    assert made["measurement"]["answer"]["cause"] == "rollback"


def test_a_canary_has_its_guardrails_and_no_picture(world: World) -> None:
    old = world.released(toml=with_rollout('slice = 50, canary = { duration = "1h", requests = 5 }', APP))
    world.testing()
    world.visit([f"u{n}" for n in range(40)])
    world.settle()
    world.clock.advance(3600)
    world.settle()
    made = told(world)
    assert (made["measurement"]["answer"]["cause"], made["measurement"]["series"]) == ("unproven", [])
    assert "no harm was seen in the time given" in made["sentence"]
    assert made["replaces"]["commit"] == old


# ── without one ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_revision_was_compared_with_nothing(world: World) -> None:
    world.released()
    made = told(world, "housing")
    assert (made["replaces"], made["measurement"], made["verdict"], made["segments"]) == (None, None, None, [])
    assert made["sentence"].startswith("housing 1.0.0 is the first revision: nothing served before")


def test_who_is_under_test_has_a_dossier_so_far(world: World) -> None:
    old, new = world.released(toml=CALM), world.testing()
    assert told(world)["measurement"] is None
    world.play(60, {old: around(4), new: around(5)})
    world.settle()
    made = told(world)
    assert made["verdict"] is None
    assert made["sentence"].startswith(f"housing {made['version']} is still under test: its rating is ")
    assert sum(made["measurement"]["answer"]["units"]) == 60


def test_who_met_nobody_says_which_gate_said_no(world: World) -> None:
    world.released()
    world.push(SAM, says={"unit": False})
    world.settle()
    made = told(world)
    assert (made["measurement"], made["replaces"] is None) == (None, False)
    assert "its gate unit said fail" in made["sentence"]
    with pytest.raises(UnknownReference):
        told(world, "housing@9.9.9")


def test_a_person_overrides_and_it_is_told_for_ever(world: World) -> None:
    old, new = world.released(toml=with_rollout("share = 20")), world.testing()
    world.play(60, {old: around(4), new: around(5)})
    world.settle()
    world.ask("split", SAM, share=60)
    world.settle()
    world.play(60, {old: around(4), new: around(5)}, seed="v")
    world.settle()
    world.ask("abort", SAM)
    world.settle()
    made = told(world)
    assert [(e["event"], e["kind"]) for e in made["timeline"] if e["kind"]] == [
        ("Ramped", "overrode"),
        ("Aborted", "overrode"),
    ]
    assert "was taken out by kim before the data had decided: said so." in made["sentence"]
    assert list(made["measurement"]["splits"].values()) == [[80, 20], [40, 60]]
    assert made["measurement"]["counts"]["tables"] == 2


@pytest.mark.parametrize("side", ["challenger", "incumbent", "nobody"])
def test_who_was_decided_by_a_person_and_not_by_the_data_says_so(world: World, side: str) -> None:
    old, new = world.released(toml=with_rollout("share = 50")), world.testing()
    world.play(60, {old: around(4), new: around(5)})
    world.settle()
    world.ask("conclude", SAM, override="a promise.", side=side)
    world.settle()
    made = told(world, "housing@1.1.0" if side == "challenger" else SAM)
    assert [(e["event"], e["side"]) for e in made["timeline"] if e["kind"]] == [("Overrode", side)]
    assert made["sentence"].startswith(f"kim decided for {side} in the verdict's place, of housing 1.1.0")
    said = world.last("Overrode").detail["said"]
    assert made["sentence"].endswith(f": a promise. By then {said}.")
    assert f"The evidence by then: {said}" in unescape(dossier_page.page(made))
    older = {**made, "verdict": {key: value for key, value in made["verdict"].items() if key != "said"}}
    assert ": a promise. By then its rating is " in dossier_words.sentence(older)  # as it was filed before
    assert made["cost"]["losing"]["role"] == ("incumbent" if side == "challenger" else "challenger")
    assert not list(dossier.differences(made))
    assert "overrides: 1." in dossier_page.page(made)


def test_who_was_rolled_back_after_its_verdict_says_so(world: World) -> None:
    played(world, 6.0)
    made = told(world, "housing@1.1.0")
    world.ask("rollback", "housing")
    world.settle()
    later = told(world, "housing@1.1.0")
    assert [each["event"] for each in later["timeline"]][-1] == "RolledBack"
    assert later["measurement"] == made["measurement"]


def test_a_test_that_is_given_more_time_is_not_over(world: World) -> None:
    old, new = world.released(toml=with_rollout('max_duration = "1h"')), world.testing()
    world.play(20, {old: around(4), new: around(6)})
    world.clock.advance(3600)
    world.settle()
    made = told(world)
    assert made["verdict"]["event"] == "Undecided"
    assert made["sentence"].startswith("Nobody won, so housing 1.0.0 stays: max_duration is over")
    world.ask("extend", SAM)
    world.settle()
    made = told(world)
    assert made["verdict"] is None
    assert [e["event"] for e in made["timeline"] if e["kind"] == "overrode"] == ["Extended"]


def test_what_was_seen_against_another_incumbent_is_exploratory(world: World) -> None:
    """Killer: judge all that was ever seen of it."""
    old, new = world.released(toml=MODEL.replace("rollout = {", "rollout = { slots = 2,")), world.testing()
    world.play(40, {old: around(4), new: around(4)})
    kim = world.testing(KIM)
    world.play(600, {old: around(4), new: around(4.4), kim: around(9)}, seed="v")
    world.settle()
    assert world.phase(KIM) is Phase.LIVE
    world.visit([f"w{n}" for n in range(9)])
    world.settle()
    made = told(world)
    assert len(made["segments"]) >= 1
    assert [each["exploratory"] for each in made["segments"]].count(False) <= 1
    assert ALEX not in made["branch"]
