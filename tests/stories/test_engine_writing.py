"""This file tests what is written to git: once, at the judged commit, with each trouble named and got over.

Requirements: 1.38, 1.48 and 1.50; I2 (one merge), I3 (the judged commit); F29, F30, F33 to F35, F37.
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.core.world import Absorb, Drop
from branchline.engine.telling import was_kept
from branchline.errors import MergeConflict
from branchline.ports import Change
from tests.world import ALEX, KIM, MODEL, SAM, World

TWO_SLOTS = MODEL.replace("rollout = {", "rollout = { slots = 2, share = 30,")


def conflicting(world: World) -> None:
    conclude = world.git.conclude

    def refused(change: Change) -> str:
        world.git.conclude = conclude  # type: ignore[method-assign]
        raise MergeConflict(branch=SAM, paths="README.md")

    world.git.conclude = refused  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("trouble", "code", "begin", "end"),
    [
        ("remote", "BL202", {"reachable": False}, {"reachable": True}),
        ("permission", "BL203", {"refusing": True}, {"refusing": False}),
        ("checked out", "BL208", {"checked_out": "main"}, {"checked_out": ""}),
    ],
)
def test_a_conclusion_names_its_trouble_and_goes_on_when_it_is_cured_F34_F35(
    world: World, trouble: str, code: str, begin: dict[str, Any], end: dict[str, Any]
) -> None:
    first = world.released()
    second = world.testing()
    for name, value in begin.items():
        setattr(world.git, name, value)
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(SAM), world.on(SAM).trouble) == (Phase.CONCLUDING, trouble)
    assert any(text.startswith(code) for text in world.troubles())
    assert world.events().count("Refused") == 1  # said once, tried again for ever
    assert {i.revision for i in world.launcher.running()} == {first, second}  # the incumbent is kept
    for name, value in end.items():
        setattr(world.git, name, value)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert world.parity()


def test_a_conflict_found_while_recording_keeps_the_winner_at_its_arm_F29(world: World) -> None:
    first = world.released()
    second = world.testing()
    conflicting(world)
    world.record(law.Won(SAM))
    world.controller.reconciler.production("housing")
    world.controller.reconciler.git("housing")
    assert (world.on(SAM).trouble, world.shares()) == ("conflict", {second: 100})
    assert first in {i.revision for i in world.launcher.running()}
    world.settle()
    assert world.phase(SAM) is Phase.LIVE


def test_a_foreign_version_on_the_trunk_is_never_written_over_F33(world: World) -> None:
    world.released()
    world.testing()
    strange = world.git.write("main", {"housing/serving.py": "# somebody's own\n"})
    world.record(law.Won(SAM))
    world.settle()
    assert world.phase(SAM) is Phase.CONCLUDING
    assert world.git.tip("main") == strange
    assert any("shows no known revision" in what for what in world.drifts())
    world.git.write(
        "main", {"housing/serving.py": world.git.commits[world.on(ALEX).revision].files["housing/serving.py"]}
    )
    world.settle()
    assert world.phase(SAM) is Phase.LIVE


def test_a_foreign_commit_that_comes_between_looking_and_writing_is_told(world: World) -> None:
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.controller.reconciler.production("housing")
    world.git.write("main", {"housing/serving.py": "# somebody's own\n"})
    world.controller.reconciler.git("housing")
    assert world.on(SAM).trouble == "foreign"


def test_the_trunk_may_move_outside_the_closure_F33(world: World) -> None:
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.git.write("main", {"other/file.txt": "elsewhere\n"})
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert "other/file.txt" in world.git.commits[world.git.tip("main")].files


def test_a_lost_answer_is_recognised_by_what_is_there_F37_I2(world: World) -> None:
    world.released()
    world.testing()
    world.git.answer_lost = True
    world.record(law.Won(SAM))
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    world.git.answer_lost = False
    world.settle()
    assert world.merges() == ["Release housing@1.1.0", "Release housing@1.0.0"]
    assert world.git.tip(SAM) == ""


def test_a_branch_that_moved_before_it_was_deleted_stays_F30(world: World) -> None:
    """Killer for the compare-and-swap: the tip that nobody has read is the next candidate."""
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.controller.reconciler.production("housing")
    world.controller.reconciler.git("housing")
    assert world.phase(SAM) is Phase.LIVE
    late = world.push(SAM)
    world.controller.reconciler.git("housing")
    assert world.git.tip(SAM) == late
    world.controller.watch()
    assert (world.phase(SAM), world.on(SAM).revision) == (Phase.BUILDING, late)


def test_a_rollback_with_a_dead_remote_is_a_trouble_of_nobody(world: World) -> None:
    first = world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.git.reachable = False
    world.ask("rollback", "housing")
    world.settle()
    assert world.shares() == {first: 100}
    assert "Refused" not in world.events()
    world.git.reachable = True
    world.settle()
    assert world.merges()[0] == "Roll housing back to 1.0.0"


# ── fixes, trunks, what a person keeps ─────────────────────────────────────────────────────────────────────────────


def test_a_fix_of_a_challenger_is_absorbed_into_its_branch(world: World) -> None:
    world.released()
    judged = world.testing()
    fix = world.push("fix--housing--typo--sam", start=SAM)
    world.settle()
    assert world.phase("fix--housing--typo--sam") is Phase.CANARY
    world.record(law.Won("fix--housing--typo--sam"))
    world.settle()
    assert world.phase("fix--housing--typo--sam") is Phase.ABSORBED
    assert (world.on(SAM).revision, world.on(SAM).tip, world.git.tip(SAM)) == (fix, fix, fix)
    assert world.git.tip("fix--housing--typo--sam") == ""
    assert Absorb(1, SAM, fix) in world.effects
    assert judged not in world.shares()


def test_a_fix_that_has_to_be_merged_leaves_its_tip_as_seen(world: World) -> None:
    """Killer: the tip that we made ourselves is no push of a person."""
    world.released()
    judged = world.testing()
    world.push("fix--housing--typo--sam", start=judged)
    world.git.write(SAM, {"notes.md": "meanwhile\n"})
    world.settle()
    world.record(law.Won("fix--housing--typo--sam"))
    world.settle()
    assert world.phase("fix--housing--typo--sam") is Phase.ABSORBED
    assert world.on(SAM).tip == world.git.tip(SAM) != world.on(SAM).revision
    assert world.events().count("Pushed") == 1


def test_the_trunk_of_a_major_that_ended_is_dropped(world: World) -> None:
    first = world.released()
    world.git.reset("major--housing--1", first)
    world.settle()
    assert world.git.tip("major--housing--1") == ""
    assert Drop("major--housing--1") in world.effects


def test_a_judged_tree_that_a_person_keeps_replaces_what_another_winner_brought(world: World) -> None:
    world.released(toml=TWO_SLOTS)
    second = world.testing(SAM)
    world.testing(KIM)
    world.record(law.Won(KIM))
    world.settle()
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(SAM), law.waits_for(world.service(), world.on(SAM))) == (Phase.WON, "behind")
    world.ask("keep", SAM)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert world.git.tree(world.git.tip("main"), ["housing"]) == world.git.tree(second, ["housing"])
    assert world.merges()[:2] == ["Release housing@1.1.0", "Release housing@1.2.0"]
    assert was_kept(world.ports, world.service(), world.on(SAM))


def test_a_judged_tree_is_kept_only_by_a_person_who_said_so_of_this_try(world: World) -> None:
    world.released()
    world.testing()
    service, candidate = world.service(), world.on(SAM)
    assert not was_kept(world.ports, service, candidate)
    world.ledger.entries.clear()
    assert not was_kept(world.ports, service, candidate)
