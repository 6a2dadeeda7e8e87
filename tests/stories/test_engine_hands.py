"""This file tests what hands do in git while Branchline works: each has one outcome, one reason, and what to type next.

Only a verdict changes what serves. What somebody wrote on a trunk is never overwritten unless it is a revision that is
known; nothing that was pushed is lost. Faults F30 (a moved tip), F31 (deleted by hand), F32 (a trunk rewritten), F33
(a foreign commit); requirement 1.38; `docs/limits.md` says what hands cannot do.
"""

from __future__ import annotations

import re

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from tests.world import ALEX, APP, KIM, SAM, World

FIX = "fix--housing--by-hand"
FOLDER = ("housing",)


def shown(world: World, revision: str, ref: str = "main") -> bool:
    """Whether a branch has the folder of a revision."""
    return world.git.tree(world.git.tip(ref), FOLDER) == world.git.tree(revision, FOLDER)


def rewritten(world: World, branch: str) -> str:
    """A force-push: the branch begins anew at the trunk."""
    world.git.reset(branch, world.git.tip("main"))
    return world.push(branch)


# ------------------------------------------------------------------------------------------------ pushes


def test_a_force_push_before_traffic_is_the_next_candidate_at_once_F30(world: World) -> None:
    world.released()
    world.ask("freeze", "housing")
    before = world.push(SAM)
    world.settle()
    after = rewritten(world, SAM)
    world.settle()
    assert before not in world.git._line(after)
    assert (world.on(SAM).revision, world.phase(SAM)) == (after, Phase.QUEUED)


def test_a_force_push_under_test_waits_for_its_end_and_nothing_judged_is_lost_F30_I3(world: World) -> None:
    world.released()
    judged = world.testing()
    late = rewritten(world, SAM)
    world.settle()
    assert (world.on(SAM).revision, world.on(SAM).tip, world.phase(SAM)) == (judged, late, Phase.TESTING)
    world.record(law.Lost(SAM))
    world.settle()
    assert world.on(SAM).revision == late
    assert world.git.tip(SAM) == late
    assert judged in world.git.kept().values()


@pytest.mark.parametrize("forced", [False, True], ids=["push", "force-push"])
def test_what_is_pushed_while_git_is_told_is_not_merged_and_not_deleted_F30_I3(world: World, forced: bool) -> None:
    world.released()
    judged = world.testing()
    world.git.refusing = True
    world.record(law.Won(SAM))
    world.settle()
    late = rewritten(world, SAM) if forced else world.push(SAM)
    world.settle()
    assert (world.phase(SAM), world.on(SAM).trouble) == (Phase.CONCLUDING, "permission")
    world.git.refusing = False
    world.settle()
    assert world.service().line(1).incumbent == judged
    assert shown(world, judged)
    assert (world.on(SAM).revision, world.git.tip(SAM)) == (late, late)


# ------------------------------------------------------------------------------------------------ branches


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.TESTING, Phase.CONCLUDING])
def test_a_branch_that_is_deleted_is_withdrawn_wherever_it_was_F31(world: World, phase: Phase) -> None:
    first = world.released()
    if phase is Phase.QUEUED:
        world.ask("freeze", "housing")
        world.push(SAM)
        world.settle()
    else:
        world.testing()
    if phase is Phase.CONCLUDING:
        world.git.refusing = True
        world.record(law.Won(SAM))
        world.settle()
    assert world.phase(SAM) is phase
    world.git.remove(SAM)
    world.settle()
    world.git.refusing = False
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.WITHDRAWN, {first: 100})
    assert world.last("Withdrew").detail["reason"] == "its branch was deleted"
    assert shown(world, first)
    assert world.parity()


def test_a_branch_that_is_renamed_begins_anew_under_its_new_name_F31(world: World) -> None:
    world.released()
    tip = world.testing()
    world.git.heads[KIM] = world.git.heads.pop(SAM)
    world.settle()
    assert (world.phase(SAM), world.phase(KIM)) == (Phase.WITHDRAWN, Phase.TESTING)
    assert world.last("Withdrew").detail["reason"] == f"it was renamed to {KIM}"
    assert (world.on(KIM).revision, world.git.tip(KIM)) == (tip, tip)
    assert world.parity()


def test_a_branch_whose_service_is_gone_fails_its_build_and_hides_nothing(world: World) -> None:
    """Renamed or dropped on the branch: before traffic that is what cannot be built; the next push can."""
    world.released()
    world.ask("freeze", "housing")
    world.push(SAM)
    world.settle()
    files = {path: text for path, text in world.git.commits[world.git.tip(SAM)].files.items() if "housing/" in path}
    moved = {path.replace("housing/", "homes/"): text for path, text in files.items()}
    world.git.write(SAM, {"housing": None, **moved})
    world.settle()
    assert world.phase(SAM) is Phase.FAILED
    assert "BL102" in world.last("BuildFailed").detail["reason"]
    elsewhere = {path.replace("housing/", "models/housing/"): text for path, text in files.items()}
    world.git.write(SAM, {"homes": None, **elsewhere})
    world.ask("thaw", "housing")
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


def test_a_service_that_moves_its_folder_takes_its_trunk_along(world: World) -> None:
    """Its name is the last part of its folder's path, wherever that lies."""
    world.released(toml=APP)
    files = {path: text for path, text in world.git.commits[world.git.tip("main")].files.items() if "housing/" in path}
    moved = {path.replace("housing/", "models/housing/"): text for path, text in files.items()}
    world.git.write(SAM, {"housing": None, **moved})
    world.settle()
    world.record(law.Won(SAM))
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    paths = set(world.git.commits[world.git.tip("main")].files)
    assert {path.partition("/")[0] for path in paths} == {"README.md", "models"}
    assert world.parity()


# ------------------------------------------------------------------------------------------------ merged by hand


@pytest.mark.parametrize("squashed", [False, True], ids=["merged", "squashed"])
@pytest.mark.parametrize("phase", [Phase.TESTING, Phase.INCONCLUSIVE])
def test_a_branch_that_a_forge_merged_and_deleted_without_a_verdict_is_withdrawn_F31(
    world: World, squashed: bool, phase: Phase
) -> None:
    """The trunk is put back by a commit that says why; what to type to try it again is the reason."""
    first = world.released()
    tip = world.testing()
    if phase is Phase.INCONCLUSIVE:
        world.record(law.Undecided(SAM))
    forge(world, tip, squashed)
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.WITHDRAWN, {first: 100})
    reason = world.last("Withdrew").detail["reason"]
    assert reason.startswith("it was merged by hand without a verdict: main shows what serves again; to try it again: ")
    said = re.fullmatch(r".*: branchline start housing, then: git checkout ([0-9a-f]{12}) -- housing", reason)
    assert said
    (shows,) = [each for each in world.git._line(world.git.tip("main")) if each.startswith(said[1])]
    assert world.git.tree(shows, FOLDER) == world.git.tree(tip, FOLDER)  # everybody who has the trunk has that one
    assert shown(world, first)
    assert "merged by hand" in world.git.message(world.git.tip("main"))
    world.git.write(SAM, {}, start="main")  # as the reason says
    mine = {path: text for path, text in world.git.commits[tip].files.items() if path.startswith("housing/")}
    again = world.git.write(SAM, mine)
    world.settle()
    assert (world.phase(SAM), world.on(SAM).revision) == (Phase.TESTING, again)
    assert world.parity()


def forge(world: World, tip: str, squashed: bool) -> None:
    """The button: one commit on the trunk, with the branch as a parent or without, and the branch is gone."""
    main = world.git.tip("main")
    parents = (main,) if squashed else (main, tip)
    files = world.git.commits[tip].files
    world.git.heads["main"] = world.git._keep(files, parents, "Merge pull request #7", "Forge <forge@x>", 2_000_000_000)
    world.git.remove(SAM)


@pytest.mark.parametrize("squashed", [False, True], ids=["merged", "squashed"])
def test_it_was_merged_by_hand_even_if_the_trunk_was_put_back_before_anybody_looked(
    world: World, squashed: bool
) -> None:
    """Killer: ask only what the trunk shows now; git's lane is sometimes quicker than the one that watches."""
    world.released()
    tip = world.testing()
    forge(world, tip, squashed)
    world.controller.observer.fetch()
    assert world.controller.reconciler.git("housing")
    world.settle()
    assert world.merges()[0] == "Show housing@1.0.0 again"
    assert world.last("Withdrew").detail["reason"].startswith("it was merged by hand without a verdict")


def test_a_branch_without_a_trunk_is_deleted_and_nothing_else(world: World) -> None:
    world.released()
    world.testing()
    world.git.remove(SAM)
    world.git.remove("main")
    world.controller.watch()
    assert world.last("Withdrew").detail["reason"] == "its branch was deleted"


def test_a_branch_that_was_merged_by_hand_and_is_still_there_goes_on_being_tested(world: World) -> None:
    first = world.released()
    tip = world.testing()
    world.git.reset("main", tip)
    world.settle()
    assert (world.phase(SAM), set(world.shares())) == (Phase.TESTING, {first, tip})
    assert world.merges()[0] == "Show housing@1.0.0 again"
    assert f"main was made to show {tip[:7]} by hand" in world.git.message(world.git.tip("main"))
    assert world.parity()
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(SAM), shown(world, tip)) == (Phase.LIVE, True)


def test_a_first_revision_that_was_merged_by_hand_goes_on_F31(world: World) -> None:
    """Nothing serves yet that its verdict could be about; the forge's merge is its conclusion."""
    tip = world.push()
    world.controller.watch()
    world.git.heads["main"] = world.git.heads.pop(ALEX)
    world.settle()
    assert (world.phase(ALEX), world.service().line(1).incumbent) == (Phase.LIVE, tip)
    assert "Withdrew" not in world.events()
    assert world.git.kept()["refs/tags/housing@v1.0.0"] == tip


def test_a_fix_that_was_merged_into_its_challenger_by_hand_is_a_push_there(world: World) -> None:
    world.released()
    judged = world.testing()
    fix = world.push("fix--housing--typo--sam", start=SAM)
    world.settle()
    world.git.reset(SAM, fix)
    world.git.remove("fix--housing--typo--sam")
    world.settle()
    assert world.phase("fix--housing--typo--sam") is Phase.WITHDRAWN
    assert world.last("Withdrew").detail["reason"] == f"it was merged into {SAM} by hand: that is a push there"
    assert (world.on(SAM).revision, world.on(SAM).tip) == (judged, fix)


# ------------------------------------------------------------------------------------------------ the trunk


def test_a_trunk_set_back_to_an_incumbent_of_before_shows_what_serves_again_F32(world: World) -> None:
    """Never by force: a commit on top of it, which says that it was done by hand."""
    world.released()
    before = world.git.tip("main")
    second = world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.git.reset("main", before)
    world.settle()
    tip = world.git.tip("main")
    assert (world.git.parents(tip)[0], shown(world, second)) == (before, True)
    assert world.merges()[0] == "Show housing@1.1.0 again"
    assert world.parity()


def test_a_trunk_set_back_to_before_the_service_gets_it_back_F32(world: World) -> None:
    start = world.git.tip("main")
    first = world.released()
    world.git.reset("main", start)
    world.settle()
    assert shown(world, first)
    assert world.parity()


def test_a_trunk_rewritten_with_the_same_content_is_no_matter_F32(world: World) -> None:
    world.released()
    files = world.git.commits[world.git.tip("main")].files
    rewritten = world.git._keep(files, (), "All of it, anew", "Kim <kim@x>", 2_000_000_000)
    world.git.reset("main", rewritten)
    world.settle()
    assert world.git.tip("main") == rewritten
    assert world.parity()
    assert world.troubles() == []


def test_a_trunk_that_dropped_the_service_is_left_to_a_person_F33(world: World) -> None:
    first = world.released()
    dropped = world.git.write("main", {"housing": None})
    world.settle()
    assert (world.git.tip("main"), world.shares()) == (dropped, {first: 100})
    (drift,) = world.controller.parity.drifts(["housing"])
    assert drift.repair.startswith("git switch main && ")
    assert world.troubles()[0].startswith("BL206: main holds a version of housing that Branchline does not know")


def test_a_foreign_commit_holds_up_who_concludes_by_that_name_and_is_never_written_over_F33(world: World) -> None:
    world.released()
    judged = world.testing()
    strange = world.git.write("main", {"housing/serving.py": "# by hand\n"})
    world.settle()
    assert world.troubles() == ["BL206: main holds a version of housing that Branchline does not know"]
    world.record(law.Won(SAM))
    world.settle()
    assert (world.phase(SAM), world.on(SAM).trouble) == (Phase.CONCLUDING, "foreign")
    assert law.waits_for(world.service(), world.on(SAM)) == "foreign"
    assert (world.git.tip("main"), world.events().count("Refused")) == (strange, 1)
    was = world.git.commits[world.on(ALEX).revision].files["housing/serving.py"]
    world.git.write("main", {"housing/serving.py": was})  # as parity prints it
    world.settle()
    assert (world.phase(SAM), shown(world, judged), world.troubles()) == (Phase.LIVE, True, [])
    assert world.parity()


def test_a_foreign_commit_is_tried_as_a_fix_by_who_opens_one_there(world: World) -> None:
    """The way to keep it: `branchline fix`, begun at the trunk as it is. Then the trunk shows what serves again."""
    first = world.released()
    strange = world.git.write(
        "main", {"housing/serving.py": "# by hand\ndef predict(request): ...\n", "README.md": "theirs\n"}
    )
    world.settle()
    world.git.reset(FIX, strange)
    world.settle()
    assert (world.phase(FIX), world.on(FIX).revision, shown(world, first)) == (Phase.CANARY, strange, True)
    assert world.git.commits[world.git.tip("main")].files["README.md"] == "theirs\n"
    world.record(law.Won(FIX))
    world.settle()
    assert (world.phase(FIX), shown(world, strange), world.git.tip(FIX)) == (Phase.LIVE, True, "")
    assert world.parity()


def test_an_experiment_begun_at_a_foreign_commit_is_its_authors_own_to_begin(world: World) -> None:
    """Killer: `start` pushes a log; what lay on the trunk is not tested in its author's name."""
    world.released()
    world.git.write("main", {"housing/serving.py": "# by hand\n"})
    world.git.write(SAM, {"housing/EXPERIMENT.md": "# Hypothesis\nanother"}, start="main")
    world.settle()
    assert SAM not in {each.branch for each in world.service().candidates}
    assert f"{SAM} has changed nothing of housing yet but its log" in world.troubles()


def test_a_foreign_commit_holds_up_nobody_who_does_not_conclude(world: World) -> None:
    """A test goes on beside a foreign commit; its verdict is what has to wait."""
    first = world.released()
    second = world.testing()
    world.git.write("main", {"housing/serving.py": "# by hand\n"})
    world.settle()
    assert (world.phase(SAM), set(world.shares())) == (Phase.TESTING, {first, second})
    assert "Refused" not in world.events()
