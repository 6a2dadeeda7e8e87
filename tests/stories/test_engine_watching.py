"""This file tests what git says: a push, a moved tip, a deletion become events; all else means nothing.

Requirements: 1.24 and 1.26 (the name is the interface), 1.30 (any other ref deploys nothing), 1.41 (an A/B test is the
rule for models); F8 (names that are none), F10 (policy comes from the trunk), F30 (a moved tip), F31 (deleted by hand).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from branchline.adapters.servicefile import read_service
from branchline.core import lifecycle as law
from branchline.core.service import Method, Phase
from branchline.core.spec import Spec
from branchline.engine.preparing import governed_spec
from tests.world import ALEX, APP, KIM, LOG, MODEL, SAM, World


def with_rollout(words: str, toml: str = MODEL) -> str:
    return toml.replace("rollout = {", f"rollout = {{ {words},")


@pytest.mark.parametrize(
    "name",
    [
        "issue-17",
        "experiment--housing",
        "experiment--Housing--alex",
        "experiment--housing--$(id)",
        "experiment--housing--;rm",
        "experiment--housing--a|b",
        "experiment--housing--a--b",
        "fix--housing",
        "feature--housing--alex",
        "experiment--housing--\u202exela",
        "experiment--housing--" + "a" * 41,
    ],
)
def test_whatever_is_not_named_as_one_is_no_experiment_F8_1_30(world: World, name: str) -> None:
    world.push(name, folder="housing")
    world.settle()
    assert (world.events(), world.troubles()) == ([], [])


def test_a_branch_without_its_service_is_noted_and_left_alone(world: World) -> None:
    world.git.write(ALEX, {"README.md": "nothing yet\n"})
    world.settle()
    assert world.events() == []
    assert world.troubles() == [f"BL102: {ALEX} has no folder named housing with a branchline.toml"]
    world.push(ALEX)
    world.settle()
    assert (world.phase(ALEX), world.troubles()) == (Phase.LIVE, [])


def test_a_branch_that_changed_nothing_but_its_log_has_not_begun(world: World) -> None:
    world.released()
    world.git.write(SAM, {"housing/EXPERIMENT.md": LOG + "Tried again.\n", "notes.md": "words\n"})
    world.settle()
    assert world.troubles() == [f"{SAM} has changed nothing of housing yet but its log"]
    world.git.remove(SAM)
    world.settle()
    assert world.troubles() == []  # who has deleted it need not hear of it any more
    world.push(SAM)
    world.settle()
    assert (world.phase(SAM), world.troubles()) == (Phase.TESTING, [])


@pytest.mark.parametrize("trunk", ["main", ""])
def test_a_branch_of_other_beginnings_has_begun(world: World, trunk: str) -> None:
    """It shares no history with the trunk, or the trunk is gone."""
    first = world.released()
    world.git.heads[SAM] = world.git._keep(world.git.commits[first].files, (), "An orphan", "Sam <sam@x>", 1)
    if not trunk:
        world.git.remove("main")
    world.controller.watch()
    assert world.phase(SAM) is Phase.BUILDING


def test_a_file_that_cannot_be_read_hides_nobody_else_and_is_told_by_its_build(world: World) -> None:
    """Killer: read at the door, one broken file would keep every other event of the service out."""
    world.released()
    world.push(KIM, "kind = what")
    world.push(SAM)
    world.settle()
    assert (world.phase(KIM), world.phase(SAM)) == (Phase.FAILED, Phase.TESTING)
    assert "BL103" in world.last("BuildFailed").detail["reason"]


def test_a_first_file_that_cannot_be_read_stops_nobody_from_being_followed_I24(world: World) -> None:
    """Found by the sequences: what the service is made of was asked of the broken file, and no event came through."""
    world.push(ALEX, "kind = what")
    world.settle()
    world.git.remove(ALEX)
    world.push(SAM)
    world.settle()
    assert (world.phase(ALEX), world.phase(SAM)) == (Phase.WITHDRAWN, Phase.LIVE)
    assert world.parity()


def test_a_push_opens_and_names_its_author_1_26(world: World) -> None:
    tip = world.push()
    world.controller.watch()
    entry = world.last("Opened")
    assert (entry.detail["tip"], entry.actor, entry.because) == (tip, "Alex <alex@example.invalid>", "seen in git")
    assert not world.controller.watch()


@pytest.mark.parametrize(
    ("toml", "method"),
    [
        (MODEL, Method.AB_TEST),
        (APP, Method.CANARY),
        (with_rollout('skip_ab = "a hotfix for a fair"'), Method.CANARY),
        ('kind = "what"', Method.AB_TEST),  # building it will say what is wrong
    ],
)
def test_a_model_is_tested_unless_a_policy_says_why_not_1_41(world: World, toml: str, method: Method) -> None:
    world.push(toml=toml)
    world.controller.watch()
    assert world.on(ALEX).method is method


def test_a_branch_cannot_skip_its_test_by_its_own_file_F10(world: World) -> None:
    world.released()
    world.push(SAM, with_rollout('skip_ab = "I am in a hurry"'))
    world.controller.watch()
    assert world.on(SAM).method is Method.AB_TEST


def test_a_branch_cannot_widen_its_policy_F10(world: World) -> None:
    """Killer: without the trunk's word the branch would drop its gate, its guardrail and its wait."""
    strict = with_rollout('min_duration = "1h", slots = 2, share = 20').replace(
        'unit = "gates:unit"', 'unit = "gates:unit", data = "gates:data"'
    )
    world.runner.calls["gates:data"] = lambda order: True
    world.released(toml=strict)
    loose = MODEL.replace("below = 1", "below = -99").replace("rollout = {", "rollout = { share = 30,")
    tip = world.push(SAM, loose)
    world.settle()
    spec = governed_spec(world.ports, "housing", tip, world.git.tip("main"))
    assert (spec.rollout.min_seconds, spec.rollout.slots, spec.rollout.share) == (3600, 2, 30)
    assert spec.guardrails.bad_outcome_below == 1
    assert [gate.name for gate in spec.gates] == ["unit", "data"]
    alone = governed_spec(world.ports, "housing", tip, "")
    assert (alone.rollout.min_seconds, alone.guardrails.bad_outcome_below) == (0, -99)
    assert (world.phase(SAM), world.on(SAM).share) == (Phase.TESTING, 30)


def test_the_trunk_configures_the_service_and_before_it_the_newest_branch(world: World) -> None:
    world.push(ALEX, with_rollout("slots = 3"))
    world.push(SAM, with_rollout("slots = 2"))
    world.controller.watch()
    world.controller.watch()
    assert world.service().slots == 2
    world.settle()
    world.push(KIM, with_rollout("slots = 9"))
    world.settle()
    assert world.service().slots == 3  # alex was first, so its file is the trunk's


def test_a_policy_that_cannot_be_is_told_and_stops_nothing(world: World) -> None:
    """The reader of service files refuses what the law would; one of another version may not."""

    def lax(text: bytes, path: str) -> Spec:
        spec = read_service(text, path)
        return replace(spec, rollout=replace(spec.rollout, slice=100))

    world.ports = replace(world.ports, read_spec=lax)
    world.restart()
    world.push(ALEX)
    world.settle()
    assert world.phase(ALEX) is Phase.LIVE
    assert world.troubles() == ["BL105: Configured cannot happen to housing now"]


def test_a_push_under_test_keeps_the_judged_commit_and_is_next_F30_I3(world: World) -> None:
    world.released()
    judged = world.testing()
    late = world.push(SAM)
    world.settle()
    assert (world.on(SAM).revision, world.on(SAM).tip) == (judged, late)
    assert judged in world.shares()
    world.record(law.Won(SAM))
    world.settle()
    assert world.git.tree(world.git.tip("main"), ["housing"]) == world.git.tree(judged, ["housing"])
    assert world.git.tip(SAM) == late  # never deleted at a tip that nobody judged
    assert (world.on(SAM).revision, world.phase(SAM)) == (late, Phase.TESTING)


def test_a_push_before_traffic_is_the_next_candidate_at_once(world: World) -> None:
    world.released()
    world.ask("freeze", "housing")
    world.push(SAM)
    world.settle()
    late = world.push(SAM)
    world.settle()
    assert (world.on(SAM).revision, world.phase(SAM)) == (late, Phase.QUEUED)


def test_a_push_that_contains_the_incumbent_is_synced_and_one_that_does_not_is_behind(world: World) -> None:
    world.released(toml=with_rollout("slots = 2, share = 30"))
    world.testing(SAM)
    kim = world.testing(KIM)
    world.record(law.Won(SAM))
    world.settle()
    world.record(law.Undecided(KIM))
    world.push(KIM)
    world.settle()
    assert (world.phase(KIM), law.waits_for(world.service(), world.on(KIM))) == (Phase.QUEUED, "behind")
    world.git.reset(KIM, world.git.write("work", {}, start=world.git.tip("main")))
    world.push(KIM)
    world.settle()
    assert (world.phase(KIM), kim != world.on(KIM).revision) == (Phase.TESTING, True)


def test_a_branch_deleted_by_hand_is_withdrawn_and_its_traffic_goes_back_F31(world: World) -> None:
    first = world.released()
    second = world.testing()
    world.git.remove(SAM)
    world.settle()
    assert (world.phase(SAM), world.last("Withdrew").actor) == (Phase.WITHDRAWN, "git")
    assert world.shares() == {first: 100}
    assert world.git.kept()["refs/branchline/revisions/housing/1.1.0"] == second  # the code is still there


def test_a_branch_that_was_merged_by_hand_is_not_withdrawn_F31(world: World) -> None:
    """Killer: forges delete the branch as they merge it."""
    world.released()
    second = world.testing()
    world.git.refusing = True
    world.record(law.Won(SAM))
    world.settle()
    world.git.heads["main"] = world.git.heads.pop(SAM)  # a fast-forward at the forge
    world.git.refusing = False
    world.settle()
    assert "Withdrew" not in world.events()
    assert (world.phase(SAM), world.service().line(1).incumbent) == (Phase.LIVE, second)
    assert world.parity()


def test_a_fix_of_a_challenger_knows_its_base(world: World) -> None:
    world.released()
    world.testing()
    world.push("fix--housing--typo--sam", start=SAM)
    world.push("fix--housing--typo", start="main")
    world.controller.watch()
    challenger, trunk = world.on("fix--housing--typo--sam"), world.on("fix--housing--typo")
    assert (challenger.base, challenger.onto, challenger.method) == (SAM, world.on(SAM).revision, Method.PATCH)
    assert (trunk.base, trunk.method) == (None, Method.PATCH)
    world.push("fix--housing--typo--sam")
    world.settle()
    assert law.waits_for(world.service(), world.on("fix--housing--typo--sam")) == ""


def test_a_fix_that_was_not_begun_at_its_challenger_is_behind(world: World) -> None:
    world.released()
    world.testing()
    world.push("fix--housing--typo--sam", start="main")
    world.settle()
    assert law.waits_for(world.service(), world.on("fix--housing--typo--sam")) == "behind"


def test_a_fix_of_nobody_is_told(world: World) -> None:
    world.released()
    world.push("fix--housing--typo--sam")
    world.settle()
    (told,) = world.troubles()
    assert told.startswith(
        "BL105: Opened cannot happen to fix--housing--typo--sam now: only a patch can take over an arm"
    )


def test_one_service_that_cannot_be_read_hides_no_other_I24(world: World) -> None:
    world.push(ALEX.replace("housing", "cars"))
    folders = world.git.folders

    def broken(commit: str, name: str) -> tuple[str, ...]:
        found = folders(commit, name)
        if "cars" in found:
            raise law.IllegalMove(event="reading", subject="cars")
        return found

    world.git.folders = broken  # type: ignore[method-assign]
    world.push(ALEX)
    world.settle()
    assert world.phase(ALEX) is Phase.LIVE
    assert world.troubles() == ["BL105: reading cannot happen to cars now"]


def test_the_author_of_a_commit_without_a_log_is_git(world: World) -> None:
    world.git.log = lambda *args, **limit: ()  # type: ignore[method-assign]
    world.push()
    world.controller.watch()
    assert world.last("Opened").actor == "git"


def test_a_branch_that_changed_only_its_log_is_not_tested(world: World) -> None:
    """1.23, 1.27: `start` pushes a hypothesis; what would be tested is still the incumbent itself."""
    world.released()
    begun = world.git.write(SAM, {"housing/EXPERIMENT.md": "# Hypothesis\nanother"}, start="main")
    world.settle()
    assert SAM not in {candidate.branch for candidate in world.service().candidates}
    assert any(f"{SAM} has changed nothing" in text for text in world.controller.troubles.values())
    tip = world.push(SAM)
    world.settle()
    assert world.service().on(SAM).revision == tip != begun
    assert not any("changed nothing" in text for text in world.controller.troubles.values())


def test_a_skipped_ab_test_is_recorded_with_its_reason(world: World) -> None:
    """1.41: the skip is a policy of the trunk, and the audit says why."""
    world.released(ALEX, MODEL.replace("rollout = {", 'rollout = { skip_ab = "no traffic yet",'))
    world.push(SAM)
    world.settle()
    assert world.service().on(SAM).method is Method.CANARY
    assert world.last("Opened").because == "seen in git; no A/B test: no traffic yet"


def test_a_branch_made_from_an_incumbent_that_has_gone_begins_behind(world: World) -> None:
    """1.23: it was off a trunk of before; nothing of what serves now may get lost by it unseen."""
    world.released()
    before = world.git.tip("main")
    world.testing(SAM)
    world.record(law.Won(SAM))
    world.settle()
    assert world.service().line(1).incumbent == world.service().on(SAM).revision
    world.git.write(KIM, {"README.md": "kim\n"}, start=before)
    world.push(KIM)
    world.settle()
    assert law.waits_for(world.service(), world.service().on(KIM)) == "behind"
