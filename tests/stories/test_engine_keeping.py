"""This file tests that git keeps a dossier of each concluded experiment, whatever dies or refuses meanwhile.

Requirements: beyond 14 (linked from the merge commit, kept for losers); a conclusion waits for none of it.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from branchline.core import dossier
from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.engine.documenting import Document
from tests.stories.test_engine_documenting import CALM, UNITS, around, played, told
from tests.world import ALEX, KIM, SAM, World

REF = "refs/branchline/dossiers/housing"


def kept(world: World, name: str) -> bytes:
    """A file as the truth has it."""
    found = world.git.read(world.git.shelves[REF], name)
    assert found is not None
    return found


def rows(world: World) -> list[Document]:
    found: list[Document] = json.loads(kept(world, "index.json"))["dossiers"]
    return found


def tips(world: World) -> list[str]:
    """The commits of the ref, the newest first."""
    return [row["subject"] for row in world.git.log("", world.git.shelves[REF])] if REF in world.git.shelves else []


def test_a_winner_is_kept_and_its_merge_says_where(world: World) -> None:
    played(world, 6.0)
    made = told(world, "housing@1.1.0")
    assert kept(world, "1.1.0.json").decode() == dossier.text(made)
    assert dossier.read(kept(world, "1.1.0.html").decode()) == json.loads(kept(world, "1.1.0.json"))
    assert dossier.differences(json.loads(kept(world, "1.1.0.json"))) == []
    message = world.git.message(world.git.tip("main"))
    assert f"\nBranchline-Dossier: {REF}:1.1.0.html\n" in message
    assert "\ndossier: branchline dossier housing@1.1.0\n" in message
    (row,) = rows(world)
    assert (row["event"], row["version"], row["branch"]) == ("Won", "1.1.0", SAM)
    assert row["low"] < row["estimate"] < row["high"]
    assert row["n"] == sum(made["measurement"]["answer"]["units"])
    assert tips(world) == ["Dossier of housing@1.1.0"]


def test_the_first_revision_has_none(world: World) -> None:
    world.released()
    assert "Dossier" not in world.git.message(world.git.tip("main"))
    assert world.git.shelves == {}


def test_a_loser_is_kept_beside_its_archive(world: World) -> None:
    """Killer: keep the winners only."""
    played(world, 2.5)
    assert world.phase(SAM) is Phase.DECLINED
    assert json.loads(kept(world, "1.1.0.json"))["verdict"]["event"] == "Lost"
    world.testing(KIM)
    world.play(UNITS, {world.service().lines[0].incumbent or "": around(4), world.on(KIM).revision: around(6)})
    world.settle()
    assert [row["version"] for row in rows(world)] == ["1.2.0", "1.1.0"]
    assert tips(world) == ["Dossier of housing@1.2.0", "Dossier of housing@1.1.0"]
    listed = world.controller.keeping.listed
    assert [row["branch"] for row in listed()["dossiers"]] == [KIM, SAM]
    assert listed("housing") == listed() == {"schema": "branchline.dossiers/1", "dossiers": rows(world)}


def test_what_happens_afterwards_is_written_to_it(world: World) -> None:
    """Killer: look only at what is not kept yet."""
    played(world, 6.0)
    world.ask("rollback", "housing")
    world.settle()
    found = json.loads(kept(world, "1.1.0.json"))
    assert found["timeline"][-1]["event"] == "RolledBack"
    assert (len(rows(world)), len(tips(world))) == (1, 2)
    world.restart()
    world.settle()
    assert len(tips(world)) == 2


def test_who_wins_next_changes_nothing_of_it(world: World) -> None:
    """Killer: tell the state of now."""
    _, first = played(world, 6.0)
    before = kept(world, "1.1.0.json")
    world.clock.advance(1)
    world.testing(KIM)
    world.play(300, {first: around(4), world.on(KIM).revision: around(9)}, seed="k")
    world.settle()
    assert world.phase(KIM) is Phase.LIVE
    assert kept(world, "1.1.0.json") == before == dossier.text(told(world, "housing@1.1.0")).encode()


def test_who_comes_while_traffic_leaves_is_in_no_dossier(world: World) -> None:
    """Killer: count until now."""
    _, new = played(world, 6.0)
    last = world.meter.lines[-1]
    world.clock.advance(1)
    late = replace(last, unit="late", request="late", assigned=new, answered=new, at=world.clock.now())
    world.meter.lines.append(late)
    world.controller.read_exposures()
    assert kept(world, "1.1.0.json") == dossier.text(told(world, "housing@1.1.0")).encode()


def test_what_the_gateway_tells_late_changes_no_dossier_that_is_kept(world: World) -> None:
    """Killer: make it anew for whoever asks. A request that was under way at the verdict is told when it has ended."""
    _, new = played(world, 6.0)
    before = kept(world, "1.1.0.json").decode()
    last = world.meter.lines[-1]
    world.meter.lines.append(replace(last, unit="slow", request="slow", assigned=new, answered=new))
    world.controller.read_exposures()
    assert dossier.text(told(world, "housing@1.1.0")) != before
    assert dossier.text(world.controller.keeping.dossier("housing@1.1.0")) == before
    assert world.controller.keeping.dossier("housing@1.0.0")["verdict"] is None


def test_a_kept_dossier_that_was_spoilt_is_made_anew(world: World) -> None:
    """Killer: believe what lies there."""
    played(world, 6.0)
    made = world.controller.keeping.dossier("housing@1.1.0")
    stamp = world.controller.recorder.stamp(world.service())
    for rubbish in (b"", b"3", b"{}", json.dumps({**made, "version": "9.9.9"}).encode()):
        world.git.deposit("housing", {"1.1.0.json": rubbish}, "", 0.0, stamp)
        assert dossier.text(world.controller.keeping.dossier("housing@1.1.0")) == dossier.text(made)


def test_who_is_measured_on_is_kept_when_it_is_over(world: World) -> None:
    toml = CALM.replace("rollout = {", 'rollout = { max_duration = "1h",')
    old, new = world.released(toml=toml), world.testing()
    world.play(20, {old: around(4), new: around(6)})
    world.clock.advance(3600)
    world.settle()
    assert rows(world)[0]["event"] == "Undecided"
    world.ask("extend", SAM)
    world.settle()
    assert len(tips(world)) == 1  # under test again: nothing is concluded
    world.play(UNITS, {old: around(4), new: around(6)}, seed="v")
    world.settle()
    assert [row["event"] for row in rows(world)] == ["Won"]


def test_who_met_nobody_is_no_experiment(world: World) -> None:
    world.released()
    world.push(SAM, says={"unit": False})
    world.settle()
    world.record(law.Withdrew(SAM))
    world.push(KIM, says={"train": "raise it"})  # never built
    world.settle()
    world.record(law.Withdrew(KIM))
    world.settle()
    assert world.git.shelves == {}


# ── what dies, and what refuses ────────────────────────────────────────────────────────────────────────────────────


def test_no_remote_stops_no_conclusion_and_the_dossier_is_made_up_for(world: World) -> None:
    """Killer: write to the truth first."""
    world.released()
    world.testing()
    world.git.reachable = False
    world.record(law.Aborted(SAM, reason="enough"))
    world.settle()
    assert (world.phase(SAM), world.git.shelves) == (Phase.ROLLED_BACK, {})
    assert [row["version"] for row in world.controller.keeping.listed()["dossiers"]] == ["1.1.0"]
    world.git.reachable = True
    world.settle()
    assert [row["version"] for row in rows(world)] == ["1.1.0"]


def test_a_remote_that_refuses_is_told_and_asked_again_after_a_while(world: World) -> None:
    old, new = world.released(toml=CALM), world.testing()
    world.play(UNITS, {old: around(4), new: around(2.5)})
    world.git.refusing = True
    world.settle()
    assert world.git.shelves == {}
    assert any(REF in text for text in world.troubles())
    world.git.refusing = False
    world.settle()
    assert world.git.shelves == {}
    world.clock.advance(30)
    world.settle()
    assert (len(rows(world)), world.troubles()) == (1, [])


def test_an_answer_that_was_lost_writes_nothing_twice(world: World) -> None:
    old, new = world.released(toml=CALM), world.testing()
    world.play(UNITS, {old: around(4), new: around(2.5)})
    world.git.answer_lost = True
    world.settle()
    world.git.answer_lost = False
    world.settle()
    assert (world.phase(SAM), len(tips(world))) == (Phase.DECLINED, 1)


@pytest.mark.parametrize("lost", ["mirror", "truth"])
def test_what_was_lost_is_written_again_by_the_next_start(world: World, lost: str) -> None:
    played(world, 6.0)
    before = dict(world.git.shelves)
    if lost == "mirror":
        del world.git.refs[REF]
    else:
        world.git.shelves.clear()
    world.restart()
    world.settle()
    assert world.git.shelves == before


def test_one_that_cannot_be_made_stops_no_other_one(world: World) -> None:
    """Killer: stop at the first that fails."""
    _, new = played(world, 2.5)
    del world.git.shelves[REF], world.git.refs[REF]
    broken = world.git.commits.pop(new)
    world.testing(KIM)
    world.record(law.Aborted(KIM))
    world.restart()
    world.settle()
    assert [row["branch"] for row in rows(world)] == [KIM]
    assert [what for _, what in world.controller.troubles] == ["dossiers"]
    world.git.commits[new] = broken
    world.clock.advance(30)
    world.settle()
    assert [row["branch"] for row in rows(world)] == [KIM, SAM]


def test_a_list_that_is_not_ours_is_told_and_let_be(world: World) -> None:
    played(world, 2.5)
    rubbish = {"index.json": b'{"schema": "branchline.dossiers/1", "dossiers": [3]}'}
    world.git.deposit("housing", rubbish, "", 0.0, world.controller.recorder.stamp(world.service()))
    world.restart()
    world.settle()
    assert [key for key, _ in sorted(world.controller.troubles.items())] == [("housing", "dossiers")]
    world.git.deposit("housing", {"index.json": b"["}, "", 0.0, world.controller.recorder.stamp(world.service()))
    world.clock.advance(30)
    world.settle()
    assert (len(rows(world)), world.troubles()) == (1, [])


def test_a_history_that_nobody_can_follow_has_no_dossiers(world: World) -> None:
    played(world, 2.5)
    del world.git.shelves[REF], world.git.refs[REF]
    entry = world.ledger.entries[0]
    world.ledger.entries[0] = type(entry)(**{name: getattr(entry, name) for name in entry.__slots__} | {"event": "Odd"})
    world.restart()
    world.settle()
    assert (world.git.shelves, world.troubles()) == ({}, [])


def test_what_was_recorded_meanwhile_is_looked_at_again(world: World) -> None:
    """Killer: take an older state's dossier for the newest."""
    world.released()
    world.testing()
    world.record(law.Aborted(SAM))
    world.controller.produce()
    stale = world.controller.recorder.stamp(world.service())
    world.git.tell("housing", stale._replace(generation=stale.generation + 1))
    assert world.controller.keeping.look("housing")
    assert world.git.shelves == {}
    world.record(law.Frozen())
    world.settle()
    assert len(rows(world)) == 1


def test_git_keeps_none_of_a_service_without_a_verdict(world: World) -> None:
    world.push(ALEX)
    world.settle()
    assert world.controller.keeping.listed()["dossiers"] == []
