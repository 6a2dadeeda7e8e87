"""This file tests the answers: what is where, what happened, and why.

Requirements: 1.09 and 1.16 (a revision and its evidence), 3.02, 3.09 and 3.25 (history and status).
"""

from __future__ import annotations

import json
from typing import Any

from branchline.core import lifecycle as law
from branchline.core.evidence import Answer, Judgement, Plan
from branchline.core.spec import Guardrails
from branchline.engine.measurement import Measurement
from branchline.engine.reading import measurement_document
from tests.world import ALEX, MODEL, SAM, World


def reader(world: World) -> Any:
    return world.controller.reader


def rows(world: World) -> dict[str, dict[str, Any]]:
    return {row["branch"]: row for row in reader(world).status()["services"][0]["rows"]}


def test_every_answer_is_json_with_its_schema(world: World) -> None:
    world.released()
    world.testing()
    world.visit(["u1"])
    world.settle()
    memory = world.controller.memory
    answers = {
        "branchline.status/1": reader(world).status(),
        "branchline.parity/1": world.controller.parity.document(),
        "branchline.history/1": reader(world).history("housing", 3),
        "branchline.revision/1": memory.revision(SAM),
        "branchline.why/1": memory.why(SAM),
        "branchline.logs/1": memory.log("housing"),
        "branchline.notes/1": memory.notes(SAM),
    }
    for schema, document in answers.items():
        assert json.loads(json.dumps(document))["schema"] == schema


def test_status_says_of_each_revision_where_it_is_3_25(world: World) -> None:
    first = world.released()
    second = world.testing()
    found = rows(world)
    assert list(found) == ["main", SAM]
    incumbent, challenger = found["main"], found[SAM]
    assert (incumbent["commit"], incumbent["version"], incumbent["share"]) == (first, "1.0.0", 50)
    assert (incumbent["state"], incumbent["healthy"], incumbent["detail"]) == ("incumbent", True, "")
    assert incumbent["address"] == "http://127.0.0.1:20000/housing/"
    assert (challenger["commit"], challenger["version"], challenger["share"]) == (second, "1.1.0", 50)
    assert (challenger["state"], challenger["perimeter"], challenger["detail"]) == (
        "A/B test",
        "production",
        NO_OUTCOME,
    )
    assert challenger["address"] == "http://127.0.0.1:20000/housing@1.1.0/"
    assert reader(world).status("housing@sam")["services"][0]["name"] == "housing"
    assert reader(world).status()["remote"] == {"reachable": True}


NO_OUTCOME = "failed requests: 0 bad of 0; bad outcomes: 0 bad of 0"


def test_status_names_what_somebody_waits_for_and_where_it_can_be_seen(world: World) -> None:
    world.push(ALEX, MODEL.replace("rollout = {", 'rollout = { approval = "before",'))
    world.settle()
    world.ask("approve", ALEX)
    world.settle()
    tip = world.push(SAM)
    world.settle()
    row = rows(world)[SAM]
    told = f"waits for: approval (branchline approve {SAM})"
    assert (row["state"], row["detail"], row["waits_for"]) == ("queued", told, "approval")
    assert (row["perimeter"], row["healthy"], row["address"]) == (
        "staging",
        True,
        "http://127.0.0.1:20000/housing@1.1.0/",
    )
    pins = {pin for each in world.router.endpoints("housing") for pin in each.pins if each.revision == tip}
    assert "1.1.0" in pins  # that address leads there


def test_status_keeps_the_reason_of_the_last_no(world: World) -> None:
    world.released()
    world.push(SAM, says={"unit": False})
    world.settle()
    row = rows(world)[SAM]
    assert (row["state"], row["detail"], row["perimeter"]) == ("evaluation failed", "unit: it said no", "")
    assert (row["share"], row["healthy"], row["address"]) == (0, False, "")


def test_status_of_who_was_never_told_why_is_silent(world: World) -> None:
    world.push()
    world.controller.watch()
    row = rows(world)[ALEX]
    assert (row["state"], row["detail"], row["address"], row["version"]) == ("building", "", "", "")


def test_a_push_silences_the_no_of_the_commit_before(world: World) -> None:
    world.push(says={"unit": False})
    world.settle()
    tip = world.push(says={"unit": True})
    world.launcher.behave[f"{tip}/staging"] = "hangs"
    world.push(SAM)
    world.settle()
    assert rows(world)[ALEX]["state"] == "evaluating"
    assert rows(world)[ALEX]["detail"].startswith("behind 1.0.0 (")  # and not what was said of the commit before
    world.ledger.entries.clear()
    assert rows(world)[ALEX]["detail"].startswith("behind 1.0.0 (")


def test_who_serves_until_what_follows_is_up_is_leaving(world: World) -> None:
    first = world.released()
    second = world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.clock.advance(61)
    world.settle()
    world.launcher.behave[first] = "hangs"
    world.ask("rollback", "housing")
    world.settle()
    leaving = rows(world)[""]
    assert (leaving["commit"], leaving["share"], leaving["state"]) == (second, 100, "leaving")


def test_status_before_anything_is_empty(world: World) -> None:
    document = reader(world).status()
    assert (document["services"], document["parity"]) == ([], {"ok": True, "drifts": []})


def test_status_tells_troubles_of_its_service_alone(world: World) -> None:
    world.released()
    world.controller.troubles["housing", "start"] = "BL412: did not become ready"
    world.controller.troubles["cars", "start"] = "BL412: other"
    assert reader(world).status()["services"][0]["troubles"] == ["BL412: did not become ready"]


def test_the_one_before_is_said_to_be_warm(world: World) -> None:
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    assert rows(world)["main"]["detail"] == "the one before is warm"


def test_without_traffic_yet_nothing_is_measured(world: World) -> None:
    world.released()
    tip = world.push(SAM)
    world.launcher.behave[f"{tip}/production"] = "hangs"
    world.settle()
    row = rows(world)[SAM]
    assert (row["detail"], row["measurement"], row["healthy"]) == ("no traffic yet", None, False)


def test_a_measurement_is_told_in_numbers_and_in_one_line(world: World) -> None:
    old = world.released()
    new = world.testing()
    arms = {old: lambda n: 4.0 + n % 3, new: lambda n: 4.2 + n % 3}
    world.play(20, arms)
    world.settle()
    row = rows(world)[SAM]
    measured = row["measurement"]
    assert row["detail"] == measured["text"]
    assert measured["text"].startswith("20 outcomes, ")
    assert measured["text"].endswith(" of 100 units in an arm")  # newcomer: how far it is
    assert measured["low"] < measured["estimate"] < measured["high"]
    assert measured["guardrails"]["bad outcomes"]["bad"] == 0
    assert measured["verdict"] == {"side": "none yet", "reason": measured["text"].split(", ")[-1]}


def test_an_estimate_without_an_interval_is_not_told_in_words(world: World) -> None:
    """Killer: a difference of 0.004 with two digits after the point was none, and looked like proof of none."""
    seen = Measurement("old", "new", None, None, Guardrails(failed_requests=False))
    assert measurement_document(seen)["text"] == "no outcome yet"
    seen.judgement = Judgement(Plan(), Answer.CONTINUE, "", estimate=0.5, units_control=2, units_challenger=3)
    assert measurement_document(seen) | {"guardrails": {}} == {
        "metric": "", "guardrails": {}, "verdict": None, "estimate": 0.5, "low": None, "high": None, "units": 5,
        "text": "5 outcomes", "alpha": 0.05,
    }  # fmt: skip
    seen.judgement = Judgement(Plan(mde=0.01), Answer.CONTINUE, "so far", 0.0042, information=1e6)
    assert measurement_document(seen)["text"] == "0 outcomes, +0.0042 [+0.0002987, +0.008101], so far"
    seen.judgement = Judgement(Plan(mde=5e4), Answer.CONTINUE, "so far", 12345.6, information=1e-7)
    assert measurement_document(seen)["text"].startswith("0 outcomes, +12,346 [")


# ── the past ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_history_is_paged_newest_first_3_02(world: World) -> None:
    world.released()
    entries = reader(world).history("housing", 2)["entries"]
    assert [e["event"] for e in entries] == ["Recorded", "GatesPassed"]
    assert [e["event"] for e in reader(world).history(before=entries[-1]["number"])["entries"]] == ["Built", "Opened"]
