"""This file plays fixes and syncs over the fakes: who is behind, who is told, what brings a branch up to date.

Requirements: 1.25 (several challengers), 1.53 to 1.57 (a fix of the incumbent, a fix of a challenger, independently).
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.engine.comparing import told, ways_out
from tests.world import ALEX, KIM, MODEL, SAM, World

PATCH, FIX, SYNC = "fix--housing--ada", "fix--housing--typo--sam", "fix--housing--sync-1--sam"
TWO = MODEL.replace("rollout = {", "rollout = { slots = 2, share = 30,")


def row(world: World, branch: str) -> dict[str, Any]:
    (found,) = [row for row in world.controller.reader.service("housing")["rows"] if row["branch"] == branch]
    return dict(found)


def patched(world: World, text: str = "mended\n") -> str:
    """A fix of the incumbent, released; returns its commit."""
    commit = world.git.write(PATCH, {"housing/note.md": text}, start="main", message="Mend the note")
    world.settle()
    assert world.phase(PATCH) is Phase.CANARY
    world.record(law.Won(PATCH))
    world.settle()
    assert world.phase(PATCH) is Phase.LIVE
    return commit


def synced(world: World, branch: str = SYNC, ours: str = "") -> str:
    """A branch on which a challenger's judged commit and the trunk are merged, as `sync` makes it."""
    ours, theirs = ours or world.on(SAM).revision, world.git.tip("main")
    note = world.git.commits[theirs].files["housing/note.md"]
    texts = {**world.git.commits[ours].files, "housing/note.md": note}
    world.git.heads[branch] = world.git._keep(texts, (ours, theirs), "Merge main", "Sam <sam@x>", 1_700_000_000)
    return world.git.tip(branch)


def test_a_patch_leaves_a_challenger_behind_and_says_so_in_words_and_in_history_1_57(world: World) -> None:
    first = world.released()
    challenger = world.testing()
    assert (row(world, SAM)["behind"], told(None)) == (None, "")
    patch = patched(world)
    found = row(world, SAM)
    assert found["behind"] == {
        "serves": {"version": "1.0.1", "commit": patch, "branch": PATCH},
        "made_from": {"version": "1.0.0", "commit": first, "branch": ALEX},
        "conflicts": [],
        "next": [f"branchline sync {SAM}", f"branchline sync --keep {SAM}"],
    }
    assert found["detail"].endswith(f"; behind 1.0.1 ({PATCH}): branchline sync {SAM}")
    assert world.last("Recorded").detail["left_behind"] == [SAM]
    assert (world.on(SAM).revision, world.on(SAM).segment) == (challenger, 1)  # measured against another one now


def test_a_sync_under_test_is_a_fix_of_its_own_arm(world: World) -> None:
    """1.56, settled 1: canaried in its arm, absorbed; then the challenger wins, and the patch is in the trunk."""
    world.released()
    world.testing()
    patched(world)
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(SAM), law.waits_for(world.service(), world.on(SAM))) == (Phase.WON, "behind")
    tip = synced(world)
    world.settle()
    assert world.phase(SYNC) is Phase.CANARY
    assert row(world, SYNC)["version"] == "1.1.1"  # a patch of the challenger, not of the incumbent
    world.record(law.Won(SYNC))
    world.settle()
    assert (world.phase(SYNC), world.phase(SAM), world.on(SAM).revision) == (Phase.ABSORBED, Phase.LIVE, tip)
    assert world.git.commits[world.git.tip("main")].files["housing/note.md"] == "mended\n"
    assert world.parity()


def test_a_fix_of_a_challenger_that_is_behind_does_not_bring_it_up_to_date(world: World) -> None:
    """Killer: a fix that contained its challenger counted as containing the incumbent, and its patch was lost."""
    world.released()
    world.testing()
    patched(world)
    world.ask("freeze", "housing")
    world.push(FIX, start=SAM)
    world.settle()
    world.push(FIX)  # once more: a push says the same as the opening
    world.settle()
    world.ask("thaw", "housing")
    world.record(law.Won(FIX))
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(FIX), world.phase(SAM)) == (Phase.ABSORBED, Phase.WON)
    assert law.waits_for(world.service(), world.on(SAM)) == "behind"
    assert world.git.commits[world.git.tip("main")].files["housing/note.md"] == "mended\n"


def test_keeping_says_what_it_throws_away_before_it_is_done(world: World) -> None:
    world.released()
    judged = world.testing()
    patch = patched(world)
    world.record(law.Won(SAM))
    desk = world.controller.desk
    planned = desk.ask("keep", SAM, {}, actor="kim", because="", dry_run=True)
    assert [(lost["commit"], lost["subject"]) for lost in planned.loses if lost["commit"] == patch] == [
        (patch, "Mend the note")
    ]
    assert not planned.recorded
    assert desk.ask("keep", SAM, {}, actor="kim", because="", dry_run=False).loses == planned.loses
    world.settle()
    assert (world.phase(SAM), world.service().line(1).incumbent) == (Phase.LIVE, judged)
    assert "housing/note.md" not in world.git.commits[world.git.tip("main")].files
    assert world.plan("freeze", "housing") == ()


def test_keeping_a_fix_loses_what_its_challenger_has_more(world: World) -> None:
    world.released()
    judged = world.testing()
    world.push(FIX, start="main")
    world.settle()
    desk = world.controller.desk
    planned = desk.ask("keep", FIX, {}, actor="kim", because="", dry_run=True)
    assert [lost["commit"] for lost in planned.loses] == [judged]
    assert row(world, FIX)["behind"]["serves"]["commit"] == judged
    assert row(world, FIX)["behind"]["made_from"] == {"version": "", "commit": "", "branch": ""}


def test_where_a_sync_needs_a_person_is_known_before(world: World) -> None:
    world.released()
    world.testing()
    world.git.write(PATCH, {"housing/serving.py": "# another\ndef predict(request): ...\n"}, start="main")
    world.settle()
    world.record(law.Won(PATCH))
    world.settle()
    assert row(world, SAM)["behind"]["conflicts"] == ["housing/serving.py"]
    assert f"behind 1.0.1 ({PATCH}), conflict in housing/serving.py: branchline sync {SAM}" in row(world, SAM)["detail"]


def test_without_a_trunk_nothing_of_it_is_lost(world: World) -> None:
    world.released()
    world.testing()
    patched(world)
    world.git.remove("main")
    world.controller.watch()
    asked = world.controller.desk.ask("keep", SAM, {}, actor="kim", because="", dry_run=True)
    assert (asked.loses, row(world, SAM)["behind"]["conflicts"]) == ((), [])


def test_what_is_inside_anothers_arm_can_only_keep(world: World) -> None:
    world.released()
    world.testing()
    world.push(FIX, start=SAM)
    world.settle()
    assert (world.phase(FIX), ways_out(world.on(FIX))) == (Phase.CANARY, ("sync --keep",))
    assert ways_out(world.on(SAM)) == ("sync", "sync --keep")


def test_a_fix_of_who_was_declined_never_brings_its_code_to_the_trunk(world: World) -> None:
    """Killer: pushed again it became a fix of the trunk, with all of the declined challenger's code, untested."""
    world.released()
    world.testing()
    world.push(FIX, start=SAM)
    world.settle()
    world.record(law.Lost(SAM))
    world.settle()
    assert world.phase(FIX) is Phase.SUPERSEDED
    world.push(FIX)
    world.settle()
    assert (world.phase(FIX), world.on(FIX).base) == (Phase.SUPERSEDED, SAM)
    world.git.reset(FIX, world.git.write("work", {"housing/note.md": "mended\n"}, start="main"))
    world.settle()
    assert (world.phase(FIX), world.on(FIX).base) == (Phase.CANARY, None)  # rid of it: a fix of the trunk


@pytest.mark.parametrize("merged", [False, True])
def test_after_a_rollback_only_who_has_merged_the_trunk_is_up_to_date(world: World, merged: bool) -> None:
    """Killer: by ancestry every branch contains the older incumbent, and with it what was rolled back."""
    world.released()
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.ask("freeze", "housing")
    world.push(KIM)
    world.settle()
    world.ask("rollback", "housing")
    world.settle()
    assert world.last("RolledBack").detail["left_behind"] == [KIM]
    if merged:
        ours, theirs = world.git.tip(KIM), world.git.tip("main")
        texts = {**world.git.commits[theirs].files, "housing/note.md": "kim\n"}
        world.git.heads[KIM] = world.git._keep(texts, (ours, theirs), "Merge main", "Kim <kim@x>", 1_700_000_000)
    else:
        world.push(KIM)
    world.settle()
    world.ask("thaw", "housing")
    world.settle()
    assert (world.phase(KIM), law.behind(world.service(), world.on(KIM))) == (
        (Phase.TESTING, False) if merged else (Phase.QUEUED, True)
    )


def test_the_error_rate_is_divided_by_the_slots_of_when_it_was_seated_1_25(world: World) -> None:
    """Killer: whoever changed the slots later would have changed the odds of a running test."""
    world.released(toml=TWO)
    world.testing(SAM)
    world.settle()
    measured = world.controller.judge.measurements["housing", SAM][1]
    assert (world.on(SAM).seated, measured.plan and measured.plan.alpha) == (2, 0.025)
    world.git.write("main", {"housing/branchline.toml": TWO.replace("slots = 2", "slots = 3")})
    world.settle()
    assert (world.service().slots, world.on(SAM).seated) == (3, 2)
    assert world.controller.judge.measurements["housing", SAM][1] is measured
    world.testing(KIM)
    assert world.on(KIM).seated == 3


def test_when_one_wins_the_others_stay_and_are_measured_anew_1_25(world: World) -> None:
    world.released(toml=TWO)
    sam, kim = world.testing(SAM), world.testing(KIM)
    held = {unit for unit in map(str, range(200)) if world.router.arm("housing", 1, unit) == kim}
    world.record(law.Won(KIM))
    world.record(law.Won(SAM))  # SAM is older, but KIM concludes already
    world.settle()
    assert world.service().line(1).incumbent == kim
    assert (world.phase(SAM), world.on(SAM).segment) == (Phase.TESTING, 1)  # its verdict is void
    assert world.shares() == {kim: 70, sam: 30}
    assert held <= {unit for unit in map(str, range(200)) if world.router.arm("housing", 1, unit) == kim}
    assert world.last("Recorded").detail["left_behind"] == [SAM]
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(SAM), law.waits_for(world.service(), world.on(SAM))) == (Phase.WON, "behind")


def test_evidence_against_the_incumbent_before_never_counts_against_the_new_one(world: World) -> None:
    """Killer: who was seen while KIM was still a challenger would have judged SAM against it.

    A restart replays only what is of the new experiment.
    """
    first = world.released(toml=TWO.replace("warm =", 'min_duration = "1h", warm ='))
    sam, kim = world.testing(SAM), world.testing(KIM)
    before = world.router.shown("housing")[1].experiment
    world.play(600, {first: lambda n: 2 + n % 2, sam: lambda n: 8 + n % 2, kim: lambda n: 4 + n % 2})
    world.settle()
    world.record(law.Won(KIM))
    world.settle()
    after = world.router.shown("housing")[1].experiment
    assert after.startswith(f"{before}.")
    for _ in range(2):
        measured = world.controller.judge.measurements["housing", SAM][1]
        assert (measured.control, measured.challenger, measured.seen, measured.units) == (kim, sam, 0, 0)
        assert world.phase(SAM) is Phase.TESTING
        world.restart()
        world.settle()


def test_who_was_extended_keeps_its_evidence_and_has_no_horizon(world: World) -> None:
    """law: inconclusive, extended: the same people, the same evidence, and no end but a verdict."""
    old = world.released(toml=MODEL.replace("rollout = {", 'rollout = { max_duration = "1h",'))
    new = world.testing()
    world.play(20, {old: lambda n: 4 + n % 2, new: lambda n: 6 + n % 2})
    world.clock.advance(3600)
    world.settle()
    assert world.phase(SAM) is Phase.INCONCLUSIVE
    world.ask("extend", SAM)
    world.settle()
    measured = world.controller.judge.measurements["housing", SAM][1]
    assert (world.phase(SAM), world.on(SAM).extended) == (Phase.TESTING, True)
    assert measured.judgement is not None
    assert (measured.judgement.units, measured.plan and measured.plan.max_information) == (20, None)
    world.play(230, {old: lambda n: 4 + n % 2, new: lambda n: 6 + n % 2}, seed="v")
    world.settle()
    assert world.phase(SAM) is Phase.LIVE


def test_what_was_absorbed_is_called_after_its_challenger(world: World) -> None:
    """Killer: the fix has the same commit, and was found first: its challenger could neither be pinned nor aborted."""
    world.released()
    world.testing()
    world.push(FIX, start=SAM)
    world.settle()
    pins = {pin for endpoint in world.router.endpoints("housing") for pin in endpoint.pins}
    assert {SAM, "sam", FIX, "1.1.1"} <= pins
    assert "typo" not in pins  # a handle names an experiment: two challengers have a sync-1
    world.record(law.Won(FIX))
    world.settle()
    pins = {p for e in world.router.endpoints("housing") if e.revision == world.on(SAM).revision for p in e.pins}
    assert {SAM, "sam", "1.1.1"} <= pins
    assert FIX not in pins
    other = world.push(KIM)
    world.settle()
    assert law.waits_for(world.service(), world.on(KIM)) == "slot"
    world.record(law.Won(SAM))
    world.settle()
    assert row(world, KIM)["behind"]["serves"]["branch"] == SAM
    assert world.on(KIM).revision == other
    world.ask("abort", "housing@1.2.0")
    assert world.phase(KIM) is Phase.FAILED


def test_a_challenger_with_a_fix_in_it_is_found_by_its_version(world: World) -> None:
    world.released()
    world.testing()
    world.push(FIX, start=SAM)
    world.settle()
    world.record(law.Won(FIX))
    world.settle()
    world.ask("abort", "housing@1.1.1")
    assert (world.phase(FIX), world.phase(SAM)) == (Phase.ABSORBED, Phase.ROLLED_BACK)
    assert world.service().owner("nobody's") is None


def test_a_fix_that_its_challenger_has_grown_apart_from_waits_for_a_person_1_56(world: World) -> None:
    """Found: nobody was told who waited nor how to end it, for only what the trunk refuses was kept as a trouble."""
    world.released()
    challenger = world.testing()
    world.push(FIX, start=SAM)
    world.settle()
    assert world.phase(FIX) is Phase.CANARY
    world.push(SAM)  # the same file
    world.record(law.Won(FIX))
    world.settle()
    assert (world.phase(FIX), world.on(FIX).trouble) == (Phase.CONCLUDING, "conflict")
    drifts = {each.drift: each.repair for each in world.controller.parity.drifts(["housing"])}
    assert drifts["conclusion held up"] == f"branchline abort {FIX}"
    world.ask("abort", FIX)
    world.settle()
    assert (world.phase(FIX), world.on(SAM).revision) == (Phase.ROLLED_BACK, challenger)
    assert (world.parity(), world.troubles()) == (True, [])
