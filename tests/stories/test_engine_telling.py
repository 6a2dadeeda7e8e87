"""This file tests the words of git: a conclusion's commit says what was judged, and says it again at each retry.

Requirements: 1.38 and 1.48 (the merge), I2 (it merges exactly once), I3 (the judged commit); F37 (the answer was lost).
"""

from __future__ import annotations

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.core.world import Write
from branchline.engine.telling import conclusion_message
from tests.world import SAM, World


def won_but_unrecorded(world: World) -> None:
    world.released()
    world.testing()
    world.git.refusing = True
    world.record(law.Won(SAM, reason="challenger: better\n  +2 stars"))
    world.settle()
    assert world.phase(SAM) is Phase.CONCLUDING


def test_the_merge_says_what_was_judged_and_by_what(world: World) -> None:
    won_but_unrecorded(world)
    world.git.refusing = False
    world.settle()
    text = world.git.message(world.git.tip("main"))
    assert text.startswith("Release housing@1.1.0\n\nMerges experiment--housing--sam at ")
    assert "the judged commit.\nchallenger: better\n  +2 stars\n" in text
    assert "gate unit: pass  passed" in text
    assert f"Branchline-Revision: {world.on(SAM).revision}" in text


def message(world: World) -> tuple[int, str]:
    commit = world.on(SAM).revision
    step = Write(1, "main", commit, world.service().line(1).incumbent)
    entry, text, _ = conclusion_message(world.ports, world.service(), step, world.catalog.revision("housing", commit))
    return entry.number, text


def test_a_retry_says_the_same_whatever_was_recorded_meanwhile_I2(world: World) -> None:
    won_but_unrecorded(world)
    before = message(world)
    world.ask("freeze", "housing")
    world.ask("thaw", "housing")
    world.record(law.Refused(SAM, reason="remote"))
    world.push("experiment--housing--kim")
    world.settle()
    world.ask("abort", "experiment--housing--kim")
    assert message(world) == before


def test_a_first_revision_has_no_verdict_1_44(world: World) -> None:
    world.released()
    assert "The first revision of the service." in world.git.message(world.git.tip("main"))


def test_a_rollback_names_its_reason(world: World) -> None:
    won_but_unrecorded(world)
    world.git.refusing = False
    world.settle()
    world.ask("rollback", "housing")
    world.settle()
    text = world.git.message(world.git.tip("main"))
    assert text.startswith("Roll housing back to 1.0.0\n\nRolledBack: said so\n")
    world.record(law.Frozen())
    assert text == world.git.message(world.git.tip("main"))


def test_going_back_without_words_names_the_event(world: World) -> None:
    """A merge that landed after the challenger was withdrawn is written back."""
    won_but_unrecorded(world)
    world.record(law.Withdrew(SAM))
    world.git.refusing = False
    world.git.heads["main"] = world.on(SAM).tip  # the push that was under way has landed
    world.settle()
    text = world.git.message(world.git.tip("main"))
    assert text.startswith("Roll housing back to 1.0.0\n\nWithdrew\n")
    assert world.parity()


@pytest.mark.parametrize("event", [law.Aborted, law.Breached])
def test_a_merge_that_landed_after_its_winner_was_taken_back_was_made_by_no_hand(
    world: World, event: type[law.Aborted | law.Breached]
) -> None:
    """Killer: take every revision that is still tried for one that somebody merged."""
    won_but_unrecorded(world)
    world.record(event(SAM, reason="too slow"))
    world.git.refusing = False
    world.git.heads["main"] = world.on(SAM).tip  # the push that was under way has landed
    world.settle()
    text = world.git.message(world.git.tip("main"))
    assert text.startswith(f"Roll housing back to 1.0.0\n\n{event.__name__}: too slow\n")
    assert world.parity()


def test_who_was_taken_back_before_it_had_won_can_only_be_merged_by_hand(world: World) -> None:
    world.released()
    tip = world.testing()
    world.record(law.Aborted(SAM, reason="too slow"))
    world.git.reset("main", tip)
    world.settle()
    assert world.git.message(world.git.tip("main")).startswith("Show housing@1.0.0 again\n")


def test_the_trunk_of_an_incumbent_that_is_gone_is_written_by_its_own_words(world: World) -> None:
    """Somebody deleted the default branch: it is made again, and nothing says rollback."""
    first = world.released()
    world.git.remove("main")
    world.settle()
    assert world.git.message(world.git.tip("main")).startswith("Release housing@1.0.0")
    assert world.git.tree(world.git.tip("main"), ["housing"]) == world.git.tree(first, ["housing"])


def test_without_any_cause_the_newest_entry_stands(world: World) -> None:
    first = world.released()
    world.ledger.entries = [e for e in world.ledger.entries if e.event not in ("GatesPassed", "Won")]
    step = Write(1, "main", first, None)
    entry, _, _ = conclusion_message(world.ports, world.service(), step, world.catalog.revision("housing", first))
    assert entry == world.ledger.entries[-1]
