"""This file tests the judge at work: verdicts at each outcome, in order, and the same after a restart.

Requirements: 1.36 to 1.39; I10 (a breach), I17, F74 to F78 as the engine reads them, F56, F79 (incomparable arms).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.core.verdict import Cause, Side, Verdict
from branchline.core.waiting import replaced
from branchline.engine.judging import event_of
from tests.world import APP, KIM, MODEL, SAM, World

UNITS = 230  # enough for a hundred in each arm
CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")


def around(mean: float) -> Callable[[int], float]:
    """Values about a mean, by the number of the unit."""
    return lambda n: mean + n % 3 - 1


def under_test(world: World, toml: str = "") -> tuple[str, str]:
    """A first revision and a challenger of it, in traffic."""
    return world.released(toml=toml), world.testing()


def with_rollout(words: str, toml: str = CALM) -> str:
    return toml.replace("rollout = {", f"rollout = {{ {words},")


# ── verdicts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mean", "phase", "event"), [(6.0, Phase.LIVE, "Won"), (2.5, Phase.DECLINED, "Lost"), (4.0, Phase.DECLINED, "Lost")]
)
def test_outcomes_determine_who_stays_1_37_1_38_1_39(world: World, mean: float, phase: Phase, event: str) -> None:
    old, new = under_test(world, CALM)
    before = world.git.tip("main")
    world.play(UNITS, {old: around(4), new: around(mean)})
    world.settle()
    assert (world.phase(SAM), world.git.tip(SAM)) == (phase, "")
    assert " outcomes: " in world.last(event).detail["reason"]
    assert world.shares() == {new if event == "Won" else old: 100}
    assert (world.git.tip("main") == before) == (event == "Lost")
    assert any(ref.startswith(f"refs/branchline/archive/{SAM}/") for ref in world.git.kept())
    assert world.parity()


def played(state: Path, looks: int, restart: int = 1000) -> str:
    """One test whose windows close one by one, looked at every so many units; returns the verdict as recorded."""
    world = World(state)
    _, new = under_test(world, with_rollout('min_duration = "14s"'))
    for n in range(280):
        arm = world.visit([f"u{n}"])[f"u{n}"]
        world.clock.advance(0.015625)
        world.meter.lines[-1] = replace(world.meter.lines[-1], prediction=around(5.2 if arm == new else 4)(n))
    world.report({f"u{n}": world.meter.lines[n].prediction or 0.0 for n in range(280)})
    world.clock.advance(10 - 280 / 64)
    for n in range(280):
        world.clock.advance(0.015625)
        if n % restart == restart - 1:
            world.restart()
        if n % looks == looks - 1 and n > 190:
            world.controller.judge_all()
    return str(world.last("Won").detail["reason"])


def test_a_restart_or_a_late_look_changes_no_verdict(tmp_path: Path) -> None:
    """Killer: judged by the time of the look, the shortest duration would have held other outcomes back."""
    eager = played(tmp_path / "eager", looks=20, restart=20)
    assert played(tmp_path / "late", looks=280) == eager
    assert int(eager.splitlines()[1].split()[0]) > UNITS  # held back, then decided in the middle


@pytest.mark.parametrize("gone", ["challenger", "everything"])
def test_processes_that_come_back_find_their_evidence_again(world: World, gone: str) -> None:
    """I15: a challenger that died, or a night with everything down, neither ends a test nor moves anybody."""
    old, new = under_test(world, CALM)
    before = world.play(60, {old: around(4), new: around(5)})
    for instance in world.launcher.running():
        if gone == "everything" or instance.revision == new:
            world.launcher.end(instance.nonce)
    world.restart()
    world.settle()
    world.clock.advance(60)  # who died is started again after a while
    world.settle()
    left = ("shift", "housing", 1, ((old, 100),)) in world.router.calls[-6:]
    assert left == (gone == "challenger")  # who returns together with the incumbent never left the split
    assert world.visit(before) == before
    world.settle()
    assert world.controller.judge.measurements["housing", SAM][1].units == 60


def test_the_shortest_duration_holds_a_winner_and_not_harm(world: World) -> None:
    old, new = under_test(world, with_rollout('min_duration = "1h"'))
    world.play(UNITS, {old: around(4), new: around(6)})
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    document = world.controller.reader.measured("housing", SAM)
    assert document is not None
    assert document["verdict"]["reason"] == "min_duration: 3590 s left"
    world.clock.advance(3600)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE


def test_the_longest_duration_ends_it_undecided_and_the_branch_stays(world: World) -> None:
    old, new = under_test(world, with_rollout('max_duration = "1h"'))
    world.play(20, {old: around(4), new: around(6)})
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    world.clock.advance(3600)
    world.settle()
    assert world.phase(SAM) is Phase.INCONCLUSIVE
    assert world.last("Undecided").detail["reason"].startswith("inconclusive: max_duration is over")
    assert (world.shares(), bool(world.git.tip(SAM))) == ({old: 100}, True)


def test_an_outcome_after_its_window_or_from_nowhere_counts_nowhere_F76_F77_I17(world: World) -> None:
    _, new = under_test(world, CALM)
    arms = world.visit([f"u{n}" for n in range(UNITS)])
    world.clock.advance(11)
    assert set(world.report({unit: 9.0 if arm == new else 0.0 for unit, arm in arms.items()})) == {"late"}
    assert world.report({"forged": 9.0}) == ("unknown",)
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


# ── guardrails ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failed_requests_roll_back_at_once_I10(world: World) -> None:
    old, new = under_test(world)
    world.visit([f"u{n}" for n in range(60)], fails=[new])
    world.settle()
    assert (world.phase(SAM), world.shares(), bool(world.git.tip(SAM))) == (Phase.ROLLED_BACK, {old: 100}, True)
    assert world.last("Breached").because.startswith("incumbent: guardrail breached: failed requests; ")


def test_a_client_that_left_is_no_failure(world: World) -> None:
    _, new = under_test(world)
    world.visit([f"u{n}" for n in range(60)], fails=[new], flags="DC")
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


def test_a_guardrail_stands_over_a_winning_metric(world: World) -> None:
    """Better on the mean, and harmful to some: out."""
    old, new = under_test(world)
    world.play(UNITS, {old: around(4), new: lambda n: 0.5 if n % 3 == 0 else 9.0})
    world.settle()
    assert world.phase(SAM) is Phase.ROLLED_BACK
    assert world.last("Breached").because.startswith("incumbent: guardrail breached: bad outcomes; ")


@pytest.mark.parametrize("bad", ["requests", "outcomes"])
def test_who_has_won_but_waits_can_still_breach(world: World, bad: str) -> None:
    old, new = under_test(world, with_rollout('approval = "after"', MODEL))
    world.record(law.Won(SAM))
    assert (world.phase(SAM), law.waits_for(world.service(), world.on(SAM))) == (Phase.WON, "approval")
    world.settle()
    assert world.phase(SAM) is Phase.WON
    if bad == "requests":
        world.visit([f"u{n}" for n in range(60)], fails=[new])
    else:
        world.play(90, {old: around(4), new: lambda n: 0.5})
    world.settle()
    assert (world.phase(SAM), world.shares()) == (Phase.ROLLED_BACK, {old: 100})
    assert world.last("Breached").detail["reason"] == ("failed requests" if bad == "requests" else "bad outcomes")


# ── what cannot be compared ────────────────────────────────────────────────────────────────────────────────────────


def invalid(world: World) -> str:
    world.settle()
    assert (world.phase(SAM), bool(world.git.tip(SAM))) == (Phase.INCONCLUSIVE, True)
    return str(world.last("Undecided").because)


def test_a_split_that_is_not_what_was_said_is_invalid_F79(world: World) -> None:
    old, new = under_test(world, CALM)
    units = [f"u{n}" for n in range(300)]
    mine = [unit for unit in units if world.router.arm("housing", 1, unit) == new]
    lost = set(mine[20:])
    world.visit([unit for unit in units if unit not in lost])
    world.clock.advance(10)
    assert invalid(world).startswith("inconclusive: invalid: sample-ratio mismatch (evidence ")
    assert world.shares() == {old: 100}


def test_reports_from_one_arm_alone_are_invalid_F79(world: World) -> None:
    old, _ = under_test(world, CALM)
    world.play(300, {old: around(4)})
    assert invalid(world).startswith("inconclusive: invalid: the arms do not report equally")


def test_no_report_is_a_zero_where_that_was_said(world: World) -> None:
    """Not reporting is no missing value then, so there is nothing unequal about it."""
    _, new = under_test(world, CALM.replace('window = "10s"', 'window = "10s", missing = "zero"'))
    world.play(UNITS, {new: around(4)})
    world.settle()
    assert world.phase(SAM) is Phase.LIVE


def test_units_in_both_arms_are_invalid(world: World) -> None:
    old, new = under_test(world, CALM)
    arms = world.visit([f"u{n}" for n in range(150)])
    world.visit(list(arms)[:2], moved=dict.fromkeys(arms, old) | {u: new for u in list(arms)[:2] if arms[u] == old})
    world.visit(list(arms)[2:6], moved={u: new if arms[u] == old else old for u in arms})
    assert "units were in both arms" in invalid(world)


def test_units_that_were_moved_by_a_ramp_invalidate_nothing(world: World) -> None:
    """Killer: a share that grows moves units of the incumbent over, as it was asked to."""
    under_test(world, with_rollout("share = 20"))
    arms = world.visit([f"u{n}" for n in range(150)])
    world.settle()
    world.ask("split", SAM, share=60)
    world.settle()
    again = world.visit([f"u{n}" for n in range(150)])
    assert sum(arms[unit] != again[unit] for unit in arms) > 20
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


@pytest.mark.parametrize("how", ["a ramp", "a restart after it"])
def test_what_was_bad_before_a_ramp_counts_after_it(world: World, how: str) -> None:
    """Killer: know the split of the table that is shown alone, and each bad request of an earlier one says nothing."""
    _, new = under_test(world, with_rollout("share = 20", CALM.replace("false", "true")))
    world.visit([u for u in map(str, range(60)) if world.router.arm("housing", 1, u) == new][:3], fails=[new])
    world.settle()
    before = world.controller.judge.measurements["housing", SAM][1].guards["failed requests"]
    assert 1 < before.evidence < 100
    world.clock.advance(1)
    world.ask("split", SAM, share=60)
    if how == "a restart after it":
        world.restart()
    world.settle()
    after = world.controller.judge.measurements["housing", SAM][1]
    assert (after.guards["failed requests"], len(after.splits)) == (before, 2)


def test_a_history_that_the_law_does_not_know_keeps_nobody_from_being_judged(world: World) -> None:
    """What was recorded by another version may not be replayed: then only the split that is shown is known."""
    under_test(world, with_rollout("share = 20"))
    world.visit(["u1"])
    world.settle()
    world.ask("split", SAM, share=60)
    world.ledger.entries.insert(1, world.ledger.entries[-1])
    world.restart()
    world.settle()
    assert len(world.controller.judge.measurements["housing", SAM][1].splits) == 1


def test_strays_are_held_against_all_units_and_not_only_the_matured(world: World) -> None:
    """Killer: a replay sees today's totals at yesterday's outcomes, and must find no more than was found then."""
    old, new = under_test(world, CALM)
    world.play(110, {old: around(4), new: around(4.4)})
    arms = world.visit([f"v{n}" for n in range(300)])
    world.visit(["v1", "v2"], moved={u: new if arms[u] == old else old for u in arms})
    world.settle()
    world.restart()
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


def test_an_incumbent_that_stepped_in_too_often_is_invalid(world: World) -> None:
    _, new = under_test(world, CALM)
    world.visit([f"u{n}" for n in range(100)])
    world.visit([f"v{n}" for n in range(10)], steps_in=[new])
    assert "the incumbent stepped in for" in invalid(world)


def test_a_handful_of_units_invalidates_nothing(world: World) -> None:
    old, new = under_test(world, CALM)
    arms = world.visit([f"u{n}" for n in range(30)])
    world.visit(list(arms)[:3], moved={u: new if arms[u] == old else old for u in arms})
    world.settle()
    assert world.phase(SAM) is Phase.TESTING


# ── canaries ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_canary_that_nobody_could_prove_is_let_through_after_its_time(world: World) -> None:
    old = world.released(toml=with_rollout('canary = { duration = "1h", requests = 5 }', APP))
    new = world.testing()
    assert world.shares() == {old: 90, new: 10}
    world.visit([f"u{n}" for n in range(100)])
    world.clock.advance(10)
    world.settle()
    assert world.phase(SAM) is Phase.CANARY
    world.clock.advance(3600)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert world.last("Won").because.startswith("challenger: no guardrail was breached in the time given; ")


def test_a_canary_without_enough_requests_holds(world: World) -> None:
    """And `status` says how far it is: time first, from its first request on, then what it lacks."""
    world.released(toml=with_rollout('slice = 50, canary = { duration = "1h", requests = 90 }', APP))
    world.testing()
    assert far(world).startswith("0 s of 3600 s, 0 of 90 requests; failed requests: ")
    world.visit([f"u{n}" for n in range(60)])
    world.clock.advance(12)
    world.settle()
    told = r"12 s of 3600 s, ([1-9]\d) of 90 requests; failed requests: 0 bad of \1 \(0 to"
    assert re.match(told, far(world))
    world.clock.advance(7200)
    world.settle()
    assert far(world).startswith("3600 s of 3600 s, ")
    assert world.phase(SAM) is Phase.CANARY


def far(world: World) -> str:
    """What `status` says of the challenger."""
    told = world.controller.reader.status()["services"][0]["rows"]
    (detail,) = (row["detail"] for row in told if row["branch"] == SAM)
    return str(detail)


def test_a_canary_is_rolled_back_by_bad_outcomes(world: World) -> None:
    old = world.released(toml=with_rollout("slice = 50", APP))
    new = world.testing()
    world.play(90, {old: around(4), new: lambda n: 0.5})
    world.settle()
    assert world.phase(SAM) is Phase.ROLLED_BACK


def test_a_fix_is_compared_with_the_arm_it_wants(world: World) -> None:
    old, new = under_test(world)
    world.push("fix--housing--typo--sam", start=SAM)
    world.settle()
    service = world.service()
    assert replaced(service, service.on("fix--housing--typo--sam")) == new
    assert replaced(service, service.on(SAM)) == old
    assert replaced(law.Service("x"), service.on(SAM)) is None


# ── measuring ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_without_traffic_is_judged(world: World) -> None:
    world.released()
    tip = world.push(SAM)
    world.launcher.behave[f"{tip}/production"] = "hangs"
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    assert world.controller.judge.measurements == {}


def test_a_new_segment_is_measured_anew(world: World) -> None:
    two = with_rollout("slots = 2, share = 30")
    old, new = under_test(world, two)
    world.testing(KIM)
    world.visit([f"u{n}" for n in range(20)])
    world.settle()
    first = world.controller.judge.measurements["housing", SAM]
    world.ask("split", SAM, share=40)
    world.settle()
    second = world.controller.judge.measurements["housing", SAM]
    assert first[0] != second[0]
    assert second[1].control == old
    assert second[1].share(999) is None
    assert new


def test_a_verdict_about_a_state_that_was_left_is_not_recorded(world: World) -> None:
    """The abort comes while the judge is looking."""
    old, new = under_test(world, CALM)
    service, candidate, shown = world.service(), world.on(SAM), world.router.shown("housing")[1]
    world.play(UNITS, {old: around(4), new: around(6)})
    world.controller.read_exposures()
    world.ask("abort", SAM)
    assert not world.controller.judge._look_at(service, candidate, shown)
    assert "Won" not in world.events()


def test_a_canary_without_a_metric_is_only_guarded(world: World) -> None:
    plain = "".join(line for line in APP.splitlines(True) if not line.startswith(("metric", "guardrails")))
    world.released(toml=plain)
    new = world.testing()
    world.visit([f"u{n}" for n in range(200)], fails=[new])
    world.settle()
    assert world.phase(SAM) is Phase.ROLLED_BACK


@pytest.mark.parametrize(
    ("verdict", "event"),
    [
        (Verdict(Side.INCUMBENT, Cause.FAILURE, "it died"), law.Breached),
        (Verdict(Side.INCUMBENT, Cause.ROLLBACK, "harm"), law.Breached),
        (Verdict(Side.CHALLENGER, Cause.PROMOTE, "better"), law.Won),
        (Verdict(Side.INCUMBENT, Cause.FUTILE, "no better"), law.Lost),
        (Verdict(Side.INCONCLUSIVE, Cause.INVALID, "mismatch"), law.Undecided),
        (Verdict(Side.NONE, Cause.CONTINUE, "so far"), type(None)),
    ],
)
def test_a_verdict_is_an_event(verdict: Verdict, event: type[object]) -> None:
    assert type(event_of(law.Candidate(SAM, "a", "a"), verdict)) is event


def test_a_wall_clock_that_jumps_back_begins_nothing_anew_F56(world: World) -> None:
    old, new = under_test(world, with_rollout('min_duration = "1h"'))
    world.play(UNITS, {old: around(4), new: around(6)})
    world.settle()
    world.clock.jump(-86400)
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
