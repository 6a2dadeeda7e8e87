"""This file shows the law by example: what becomes of a service, one short story each. The explorer tries the rest."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import pytest

from branchline.core.lifecycle import (
    RULES,
    Aborted,
    Approved,
    Breached,
    BuildFailed,
    Built,
    Candidate,
    Configured,
    Cooled,
    Event,
    Extended,
    Frozen,
    GatesFailed,
    GatesPassed,
    IllegalMove,
    Kept,
    Line,
    Lost,
    Method,
    Opened,
    Phase,
    Pushed,
    Ramped,
    Recorded,
    Refused,
    Retired,
    RolledBack,
    Scaled,
    Service,
    Thawed,
    Undecided,
    Withdrew,
    Won,
    behind,
    move,
    waits_for,
)
from branchline.core.records import EVENTS

A = "experiment--s--a"
B = "experiment--s--b"
F = "fix--s--f--a"
SERVING = Service("s", lines=(Line(1, ("r0",)),))


def after(service: Service, *events: Event) -> Service:
    return reduce(move, events, service)


def passed(branch: str, tip: str, **fields: object) -> list[Event]:
    return [Opened(branch, tip, **fields), Built(branch), GatesPassed(branch)]  # type: ignore[arg-type]


def phase(service: Service, branch: str = A) -> Phase:
    return service.on(branch).phase


def test_a_first_revision_goes_to_all_at_once_and_is_live_when_git_has_it() -> None:
    """1.34, 1.43, 1.44"""
    service = after(Service("s"), *passed(A, "a1"))
    assert phase(service) is Phase.CONCLUDING
    service = after(service, Recorded(A))
    assert (phase(service), service.line(1)) == (Phase.LIVE, Line(1, ("a1",)))


def test_a_challenger_is_tested_wins_and_concludes() -> None:
    """1.35, 1.38, 1.45, 1.47"""
    service = after(SERVING, *passed(A, "a1"))
    assert (phase(service), service.on(A).share) == (Phase.TESTING, 50)
    service = after(service, Won(A))
    assert phase(service) is Phase.CONCLUDING
    service = after(service, Refused(A, "permission"))
    assert waits_for(service, service.on(A)) == "permission"
    service = after(service, Recorded(A))
    assert (service.line(1).history, service.line(1).warm, service.on(A).trouble) == (("r0", "a1"), True, "")
    assert after(service, Cooled(1)).line(1).warm is False


@pytest.mark.parametrize(
    ("event", "end"),
    [
        (Lost(A), Phase.DECLINED),
        (Undecided(A, "futile"), Phase.INCONCLUSIVE),
        (Breached(A), Phase.ROLLED_BACK),
        (Aborted(A, "veto"), Phase.ROLLED_BACK),
        (Withdrew(A), Phase.WITHDRAWN),
    ],
)
def test_other_ends_of_a_test(event: Event, end: Phase) -> None:
    """1.39, 1.49, 1.50"""
    service = after(SERVING, *passed(A, "a1"), event)
    assert (phase(service), service.line(1).incumbent) == (end, "r0")


@pytest.mark.parametrize("event", [BuildFailed(A), Aborted(A), Withdrew(A)])
def test_a_branch_that_fails_before_traffic(event: Event) -> None:
    """1.31, 1.33: it stays, unless its author closes it."""
    ends = {Phase.FAILED, Phase.WITHDRAWN}
    assert phase(after(SERVING, Opened(A, "a1"), event)) in ends
    assert phase(after(SERVING, Opened(A, "a1"), Built(A), GatesFailed(A))) is Phase.FAILED


@pytest.mark.parametrize(
    ("method", "may"), [(Method.BLUE_GREEN, True), (Method.CANARY, False), (Method.AB_TEST, False)]
)
def test_only_what_stands_by_can_fail_while_it_is_queued(method: Method, may: bool) -> None:
    """3.18: it runs in production before anybody is asked; of all else nothing runs there yet."""
    queued = after(replace(SERVING, approval="before"), *passed(A, "a1", method=method))
    assert phase(queued) is Phase.QUEUED
    if may:
        assert phase(after(queued, GatesFailed(A))) is Phase.FAILED
    else:
        with pytest.raises(IllegalMove, match="GatesFailed cannot happen"):
            after(queued, GatesFailed(A))


def test_a_canary_takes_over_the_arm_and_a_patch_voids_no_verdict() -> None:
    """1.55"""
    both = [*passed(B, "b1"), *passed(A, "a1", method=Method.PATCH)]
    service = after(replace(SERVING, approval="after"), *both, Won(B))
    assert (phase(service), phase(service, B)) == (Phase.CANARY, Phase.WON)
    service = after(service, Won(A), Approved(A), Recorded(A))
    assert (phase(service, B), service.on(B).segment) == (Phase.WON, 1)
    assert waits_for(service, service.on(B)) == "behind"
    assert phase(after(service, Kept(B), Approved(B)), B) is Phase.CONCLUDING


def test_a_verdict_is_void_when_the_incumbent_goes() -> None:
    service = after(replace(SERVING, slots=2, approval="after"), *passed(A, "a1"), *passed(B, "b1"), Won(A), Won(B))
    service = after(service, Approved(A), Recorded(A))
    assert (phase(service, B), behind(service, service.on(B))) == (Phase.TESTING, True)


def test_who_waits_says_for_what() -> None:
    service = after(SERVING, *passed(A, "a1"), *passed(B, "b1"))
    assert waits_for(service, service.on(B)) == "slot"
    assert waits_for(after(service, Frozen()), service.on(B)) == "frozen"
    assert waits_for(service, service.on(A)) == ""
    assert phase(after(service, Lost(A)), B) is Phase.TESTING


def test_a_fix_of_a_challenger_is_part_of_it() -> None:
    """1.54, 1.56"""
    service = after(SERVING, *passed(A, "a1"), *passed(F, "f1", base=A, method=Method.PATCH, synced=True))
    assert phase(service, F) is Phase.CANARY
    service = after(service, Won(F), Recorded(F, "m1"))
    fixed = service.on(A)
    assert (phase(service, F), fixed.revision, fixed.tip, fixed.phase) == (Phase.ABSORBED, "f1", "m1", Phase.TESTING)
    assert phase(after(service, Lost(A))) is Phase.BUILDING  # the merge was never judged: it is the next candidate


def test_a_fix_follows_what_becomes_of_its_challenger() -> None:
    opened = Opened(F, "f1", Method.PATCH, A)
    service = after(SERVING, *passed(A, "a1"), opened)
    assert service.on(F).holds == "r0"
    gone = after(service, Lost(A))
    assert phase(gone, F) is Phase.SUPERSEDED
    assert after(gone, Pushed(F, "f2", synced=True)).on(F).base is None
    assert phase(after(gone, Pushed(F, "f2")), F) is Phase.SUPERSEDED
    won = after(service, Won(A), Recorded(A))
    assert (won.on(F).base, won.on(F).phase) == (None, Phase.BUILDING)


def test_a_push_under_test_waits_and_is_then_the_next_candidate() -> None:
    """I3"""
    service = after(SERVING, *passed(A, "a1"), Pushed(A, "a2"))
    assert (service.on(A).revision, service.on(A).tip) == ("a1", "a2")
    service = after(service, Undecided(A))
    assert (service.on(A).revision, phase(service)) == ("a2", Phase.BUILDING)


def test_longer_keeps_the_evidence() -> None:
    service = after(SERVING, *passed(A, "a1"), Undecided(A), Extended(A))
    assert (phase(service), service.on(A).segment) == (Phase.TESTING, 0)


def test_a_benchmark_is_measured_and_never_promoted() -> None:
    service = after(SERVING, *passed(A, "a1", method=Method.BENCHMARK))
    assert phase(service) is Phase.MEASURED


def test_a_rollback_goes_back_in_history_and_a_guardrail_only_to_what_is_warm() -> None:
    live = after(SERVING, *passed(A, "a1"), Won(A), Recorded(A))
    for event in (RolledBack(1), Breached(A)):
        assert (phase(after(live, event)), after(live, event).line(1).incumbent) == (Phase.RETIRED, "r0")
    cold = after(live, Cooled(1))
    assert after(cold, RolledBack(1)).line(1).incumbent == "r0"
    with pytest.raises(IllegalMove):
        move(cold, Breached(A))


def test_a_sick_first_revision_stays_until_a_person_says_so() -> None:
    service = after(Service("s"), *passed(A, "a1"))
    assert phase(after(service, Breached(A))) is Phase.CONCLUDING
    assert phase(after(service, Aborted(A))) is Phase.ROLLED_BACK


def test_majors_have_lines_of_their_own() -> None:
    service = after(SERVING, *passed(A, "a1"), *passed(B, "b1", line=2), Recorded(B))
    assert [line.incumbent for line in service.lines] == ["r0", "b1"]
    retired = after(service, Retired(1, "nobody calls it"))
    assert (len(retired.lines), phase(retired)) == (1, Phase.SUPERSEDED)
    assert phase(after(retired, Pushed(A, "a2"))) is Phase.SUPERSEDED
    moved = after(retired, Pushed(A, "a2", synced=True)).on(A)
    assert (moved.line, moved.phase, moved.holds) == (2, Phase.BUILDING, "b1")
    with pytest.raises(IllegalMove, match="cannot happen"):
        move(retired, Opened("experiment--s--c", "c1", line=1))
    assert phase(after(service, Retired(2)), B) is Phase.RETIRED


def test_the_trunk_says_how_many_and_how_much() -> None:
    service = after(SERVING, Configured(3, 20, "before"), *passed(A, "a1"))
    assert (service.slots, service.slice, service.on(A).share) == (3, 20, 25)
    assert waits_for(service, service.on(A)) == "approval"
    service = after(service, Approved(A), Ramped(A, 60))
    assert (service.on(A).share, service.on(A).segment) == (60, 1)


TESTED = after(SERVING, *passed(A, "a1"))


ILLEGAL: dict[str, tuple[Service, Event]] = {
    "built what was never opened": (SERVING, Built(A)),
    "thawed without a freeze": (SERVING, Thawed()),
    "frozen twice": (after(SERVING, Frozen()), Frozen()),
    "no slots": (SERVING, Configured(0, 10)),
    "no process": (SERVING, Scaled("r0", 0)),
    "more processes than there may be": (SERVING, Scaled("r0", 65)),
    "processes of what does not serve": (SERVING, Scaled("a1", 2)),
    "a slice of everything": (SERVING, Configured(1, 100)),
    "approval at an unknown time": (SERVING, Configured(1, 10, "always")),
    "cooled what is cold": (SERVING, Cooled(1)),
    "back to nothing": (SERVING, RolledBack(1)),
    "retired the only line": (SERVING, Retired(1)),
    "opened twice": (TESTED, Opened(A, "a2")),
    "a fix that is no patch": (TESTED, Opened(F, "f1", Method.CANARY, A)),
    "a fix of what has no arm": (after(TESTED, Lost(A)), Opened(F, "f1", Method.PATCH, A)),
    "gates that passed long ago": (TESTED, GatesPassed(A)),
    "a share that leaves nothing": (after(SERVING, Opened(A, "a1"), Built(A)), GatesPassed(A, share=99)),
    "approved twice": (
        after(replace(SERVING, approval="before"), *passed(A, "a1"), Approved(A), Frozen(), Won(A)),
        Approved(A),
    ),
    "kept what is not behind": (TESTED, Kept(A)),
    "the share it has": (TESTED, Ramped(A, 50)),
    "a share too large": (TESTED, Ramped(A, 99)),
    "a share too small": (TESTED, Ramped(A, 1)),
    "a tip that is known": (TESTED, Pushed(A, "a1")),
    "recorded what does not conclude": (TESTED, Recorded(A)),
    "aborted what is withdrawn": (after(TESTED, Withdrew(A)), Aborted(A)),
}


@pytest.mark.parametrize("what", ILLEGAL)
def test_everything_else_is_an_illegal_move(what: str) -> None:
    service, event = ILLEGAL[what]
    with pytest.raises(IllegalMove) as refused:
        move(service, event)
    assert type(event).__name__ in str(refused.value) or "no candidate" in refused.value.cause


def test_every_event_about_a_branch_has_a_row() -> None:
    rows = {kind.__name__ for kind in RULES}
    others = {"Opened", "Cooled", "RolledBack", "Retired", "Frozen", "Thawed", "Scaled", "Configured"}
    assert rows | others == set(EVENTS)
    assert all(isinstance(to, Phase) for row in RULES.values() for to in row.values())
    assert Candidate("a", "b", "b").method is Method.AB_TEST


def test_the_file_of_the_tip_says_for_which_line_it_is() -> None:
    """Seed: a changed schema = major; `major = 2` may come with a later push, when a gate has asked for it."""
    second = after(SERVING, Opened(A, "a1"), Built(A, line=2))
    assert (second.on(A).line, second.on(A).holds, behind(second, second.on(A))) == (2, None, False)
    both = after(second, GatesPassed(A), Recorded(A))
    assert [(line.major, line.incumbent) for line in both.lines] == [(1, "r0"), (2, "a1")]
    stale = after(both, Opened(B, "b1"), Built(B, line=2))
    assert (stale.on(B).line, behind(stale, stale.on(B))) == (2, True)
    fresh = after(both, Opened(B, "b1"), Built(B, line=2, synced=True))
    assert (fresh.on(B).holds, behind(fresh, fresh.on(B))) == ("a1", False)


@pytest.mark.parametrize("line", [3, 4])
def test_no_line_is_left_out(line: int) -> None:
    with pytest.raises(IllegalMove, match="Built"):
        after(SERVING, Opened(A, "a1"), Built(A, line=line))
    assert after(Service("s"), Opened(A, "a1"), Built(A, line=line)).on(A).line == line


def test_a_fix_stays_in_the_arm_that_it_was_made_for() -> None:
    tested = after(SERVING, *passed(A, "a1"), Opened(F, "f1", Method.PATCH, base=A, synced=True))
    with pytest.raises(IllegalMove):
        move(tested, Built(F, line=2))
    assert move(tested, Built(F, line=1)).on(F).phase is Phase.EVALUATING


def test_the_file_of_the_tip_says_how_it_is_judged() -> None:
    """A benchmark that is meant in earnest after all, and the other way round."""
    measured = after(SERVING, Opened(A, "a1"), Built(A, method=Method.BENCHMARK), GatesPassed(A))
    assert measured.on(A).phase is Phase.MEASURED
    tested = after(measured, Pushed(A, "a2"), Built(A, method=Method.AB_TEST), GatesPassed(A))
    assert tested.on(A).phase is Phase.TESTING


TWO = Service("s", lines=(Line(1, ("r0",)), Line(2, ("r1", "r2"))))


@pytest.mark.parametrize(
    ("service", "event", "cause"),
    [
        (SERVING, Thawed(), "it is not frozen"),
        (replace(SERVING, frozen=True), Frozen(), "it is frozen already"),
        (SERVING, Retired(1), "it is all that serves"),
        (SERVING, Retired(2), "nothing of it serves"),
        (SERVING, RolledBack(1), "nothing served before"),
        (SERVING, Cooled(1), "nothing is warm"),
        (after(TWO, *passed(A, "a1", method=Method.CANARY, line=2), Won(A)), Retired(2), "abort that first"),
    ],
)
def test_what_people_may_not_decide_now_is_refused_with_a_cause(service: Service, event: Event, cause: str) -> None:
    with pytest.raises(IllegalMove) as told:
        move(service, event)
    assert cause in told.value.cause
    assert told.value.next == "branchline status s"
