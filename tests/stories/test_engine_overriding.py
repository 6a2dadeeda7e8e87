"""This file tests a person's word in the verdict's place: what it can do, what not, and that it stays seen.

A guardrail, a freeze and an approval stand over it, as they stand over a verdict.
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.errors import IllegalMove
from tests.stories.test_engine_judging import CALM, around, under_test, with_rollout
from tests.world import ALEX, KIM, SAM, World

WHY = "legal wants it gone"


def override(world: World, side: str, why: str = WHY) -> None:
    world.ask("conclude", SAM, override=why, side=side)
    world.settle()


def refused(world: World, side: str, branch: str = SAM, why: str = WHY) -> str:
    with pytest.raises(IllegalMove) as caught:
        world.ask("conclude", branch, override=why, side=side)
    return caught.value.cause


def row(world: World, phase: str) -> dict[str, Any]:
    rows = world.controller.reader.status("housing")["services"][0]["rows"]
    return next(each for each in rows if each["phase"] == phase)


@pytest.mark.parametrize(
    ("side", "phase"),
    [("challenger", Phase.LIVE), ("incumbent", Phase.DECLINED), ("nobody", Phase.INCONCLUSIVE)],
)
def test_a_person_ends_a_test_before_its_verdict(world: World, side: str, phase: Phase) -> None:
    old, new = under_test(world, CALM)
    world.play(60, {old: around(4), new: around(4)})
    world.settle()
    override(world, side)
    assert world.phase(SAM) is phase
    assert world.shares() == {new if side == "challenger" else old: 100}
    assert bool(world.git.tip(SAM)) == (side == "nobody")
    entry = world.last("Overrode")
    assert (entry.actor, entry.detail["by"], entry.detail["reason"], entry.detail["side"]) == ("kim", "kim", WHY, side)
    assert entry.detail["said"].startswith("60 outcomes")
    assert world.parity()


def test_the_merge_commit_and_the_status_say_who_overrode_and_what_was_known(world: World) -> None:
    old, new = under_test(world, CALM)
    world.play(60, {old: around(4), new: around(4)})
    world.settle()
    override(world, "challenger")
    text = world.git.message(world.git.tip("main"))
    assert f"OVERRIDE for the challenger by kim: {WHY}\n  the evidence by then: 60 outcomes" in text
    assert row(world, "live")["override"] == f"kim: {WHY}"
    assert f"override by kim: {WHY}" in row(world, "live")["detail"]
    world.restart()
    assert row(world, "live")["override"] == f"kim: {WHY}"
    made = world.controller.memory.notes("housing@1.1.0")
    assert made["verdict"]["event"] == "Overrode"


def test_who_was_put_away_by_a_person_says_so_while_its_branch_is_there(world: World) -> None:
    under_test(world, CALM)
    override(world, "nobody")
    assert row(world, "inconclusive")["detail"] == f"override by kim: {WHY}"
    assert world.last("Overrode").detail["said"] == "no outcome yet"
    world.ask("extend", SAM)
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    assert row(world, "A/B test")["override"] == ""


@pytest.mark.parametrize(("mean", "phase"), [(6.0, Phase.WON), (2.5, Phase.DECLINED), (4.0, Phase.DECLINED)])
def test_with_approval_after_only_who_won_waits_for_a_person(world: World, mean: float, phase: Phase) -> None:
    """A person forbids that anybody is promoted by itself; who lost leaves production at once all the same."""
    old, new = under_test(world, with_rollout('approval = "after"'))
    trunk = world.git.tip("main")
    world.play(230, {old: around(4), new: around(mean)})
    world.settle()
    assert (world.phase(SAM), world.git.tip("main")) == (phase, trunk)
    assert world.shares() == ({old: 50, new: 50} if phase is Phase.WON else {old: 100})
    if phase is Phase.WON:
        assert row(world, "won")["waits_for"] == "approval"
        world.ask("conclude", SAM)
        world.settle()
        assert (world.phase(SAM), world.shares()) == (Phase.LIVE, {new: 100})


def test_a_person_decides_against_a_verdict_that_waits(world: World) -> None:
    """With `approval = "after"` the verdict waits for a person, who may say no by name and reason."""
    old, new = under_test(world, with_rollout('approval = "after"'))
    world.play(230, {old: around(4), new: around(6)})
    world.settle()
    assert (world.phase(SAM), row(world, "won")["waits_for"]) == (Phase.WON, "approval")
    assert refused(world, "challenger") == "it has won already"
    override(world, "incumbent")
    assert (world.phase(SAM), world.shares()) == (Phase.DECLINED, {old: 100})


def test_an_override_waits_for_approval_and_for_a_thaw_as_a_verdict_does(world: World) -> None:
    old, new = under_test(world, with_rollout('approval = "after"'))
    world.ask("freeze", "housing")
    override(world, "challenger")
    assert (world.phase(SAM), row(world, "won")["waits_for"]) == (Phase.WON, "frozen")
    assert row(world, "won")["detail"] == f"waits for: frozen; override by kim: {WHY}"
    world.ask("thaw", "housing")
    world.settle()
    assert (world.phase(SAM), row(world, "won")["waits_for"]) == (Phase.WON, "approval")
    said = f"waits for: approval (branchline approve {SAM}); override by kim: {WHY}"
    assert row(world, "won")["detail"] == said
    assert world.shares() == {old: 50, new: 50}
    world.ask("approve", SAM)
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.LIVE, {new: 100})


def test_nobody_is_promoted_past_a_guardrail_that_was_breached_meanwhile(world: World) -> None:
    """Killer: without a look at what the gateway has logged by now, the challenger would have had all traffic."""
    old, new = under_test(world)
    world.play(60, {old: around(4), new: around(4)})
    world.settle()
    world.visit([f"late{n}" for n in range(60)], fails=[new])
    assert refused(world, "challenger") == "it is rolled back"
    assert world.phase(SAM) is Phase.ROLLED_BACK
    world.settle()
    assert world.shares() == {old: 100}


def test_nobody_is_promoted_while_there_is_nothing_to_go_back_to(world: World) -> None:
    old, _ = under_test(world, CALM)
    for instance in world.launcher.running():
        if instance.revision == old:
            world.launcher.end(instance.nonce)
    assert refused(world, "challenger").endswith("nothing to go back to")
    world.ask("conclude", SAM, override=WHY, side="incumbent")
    assert world.phase(SAM) is Phase.DECLINED


def test_an_override_needs_a_reason_a_side_and_an_a_b_test(world: World) -> None:
    under_test(world, CALM)
    for side, why in (("challenger", "  "), ("me", WHY)):
        assert refused(world, side, why=why) == "say for whom, and why"
    assert world.phase(ALEX) is Phase.LIVE
    world.push("fix--housing--hot", start="main")
    world.settle()
    assert world.phase("fix--housing--hot") is Phase.CANARY
    assert refused(world, "challenger", "fix--housing--hot") == "it is canary"
    world.ask("freeze", "housing")
    world.record(law.Won("fix--housing--hot"))
    assert "only an A/B test" in refused(world, "incumbent", "fix--housing--hot")


def test_another_incumbent_makes_nothing_of_what_was_decided_against_the_one_before(world: World) -> None:
    under_test(world, with_rollout('approval = "after", slots = 2'))
    override(world, "challenger")
    world.testing(KIM)
    world.ask("conclude", KIM, override="a better one", side="challenger")
    world.ask("approve", KIM)
    world.settle()
    assert (world.phase(KIM), world.phase(SAM), world.on(SAM).overridden) == (Phase.LIVE, Phase.TESTING, "")
