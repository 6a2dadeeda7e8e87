"""This file shows by example what is wanted of git and production, and in which order. The explorer tries the rest."""

from __future__ import annotations

from dataclasses import replace

from branchline.core.lifecycle import Line, Method, Phase
from branchline.core.world import (
    FOREIGN,
    PRODUCTION,
    STAGING,
    Absorb,
    Delete,
    Doomed,
    Drop,
    Route,
    Running,
    Start,
    Stop,
    World,
    Write,
    blocked,
    desired,
    plan,
    reachable,
    ready,
)
from tests.scenarios import candidate, service


def running(*revisions: str, line: int = 1) -> frozenset[Running]:
    return frozenset(Running(each, PRODUCTION, line) for each in revisions)


REST = World(trunks=(("main", "r0"),), routes=((1, (("r0", 100),)),), running=running("r0"))
TESTED = service(candidate("a", phase=Phase.TESTING))
SPLIT = ((1, (("r0", 80), ("a1", 20))),)


def test_at_rest_there_is_nothing_to_do() -> None:
    assert desired(service()) == REST
    assert plan(REST, desired(service())) == []


def test_evaluating_and_queued_run_in_staging() -> None:
    """Who approves has something to look at."""
    for phase in (Phase.EVALUATING, Phase.QUEUED):
        assert Running("a1", STAGING, 1) in desired(service(candidate("a", phase=phase), frozen=True)).running


def test_a_challenger_is_started_before_it_is_routed() -> None:
    wanted = desired(TESTED)
    assert wanted.routes == SPLIT
    assert plan(REST, wanted) == [Start(1, "a1", PRODUCTION), Route(1, SPLIT[0][1])]
    assert ready(REST, wanted) == [Start(1, "a1", PRODUCTION)]
    assert blocked(Route(1, SPLIT[0][1]), REST, wanted) == "start"


def test_a_canary_has_a_slice_of_the_arm_it_wants() -> None:
    canary = candidate("c", method=Method.CANARY, phase=Phase.CANARY)
    fix = candidate("f", method=Method.PATCH, phase=Phase.CANARY, base="a", onto="a1")
    assert desired(service(canary)).routes == ((1, (("r0", 90), ("c1", 10))),)
    both = service(candidate("a", phase=Phase.TESTING), fix)
    assert dict(desired(both).routes[0][1]) == {"r0": 80, "a1": 18, "f1": 2}


def test_an_absent_challenger_holds_up_no_shift() -> None:
    """I11: its share lies with the trunk's holder, as long as that one runs."""
    want = (("r0", 60), ("a1", 20), ("b1", 20))
    assert reachable(want, World(running=running("r0", "b1"))) == (("r0", 80), ("b1", 20))
    assert reachable(want, World(running=running("a1"))) == ()
    here = replace(REST, running=running("r0", "b1"), routes=((1, (("r0", 80), ("d1", 20))),))
    wanted = replace(REST, routes=((1, want),), running=running("r0", "a1", "b1"))
    assert ready(here, wanted)[0] == Route(1, (("r0", 80), ("b1", 20)))


def test_git_is_told_when_the_route_is_read_back() -> None:
    wanted = desired(service(candidate("a", phase=Phase.CONCLUDING)))
    assert wanted.running == running("r0", "a1")
    here = replace(REST, routes=SPLIT, running=running("r0", "a1"))
    write = Write(1, "main", "a1", "r0")
    assert plan(here, wanted) == [Route(1, (("a1", 100),)), write]
    assert blocked(write, here, wanted) == "route"
    assert ready(replace(here, routes=wanted.routes), wanted) == [write]


def test_a_fix_is_absorbed_when_it_has_the_arm() -> None:
    fix = candidate("f", method=Method.PATCH, phase=Phase.CONCLUDING, base="a", onto="a1")
    wanted = desired(service(candidate("a", phase=Phase.TESTING), fix))
    assert wanted.running == running("r0", "a1", "f1")
    here = replace(REST, routes=SPLIT, running=wanted.running)
    absorb = Absorb(1, "a", "f1")
    assert (absorb in plan(here, wanted), blocked(absorb, here, wanted)) == (True, "route")
    assert ready(replace(here, routes=wanted.routes), wanted) == [absorb]


def test_nothing_is_stopped_that_is_routed_or_the_last_of_its_line() -> None:
    """I7, I8"""
    stop = Stop(1, "a1", PRODUCTION)
    here = replace(REST, routes=SPLIT, running=running("r0", "a1"))
    assert blocked(stop, here, REST) == "route"
    assert ready(here, REST) == [Route(1, (("r0", 100),))]
    assert blocked(stop, replace(REST, running=running("a1")), REST) == "start"
    assert blocked(stop, replace(REST, running=running("r0", "a1")), REST) == ""
    assert ready(replace(REST, running=REST.running | {Running("a1", STAGING, 1)}), REST) == [Stop(1, "a1", STAGING)]


def test_a_branch_is_deleted_at_its_tip_when_the_trunk_has_it() -> None:
    """I2, 1.38"""
    live = service(candidate("a", phase=Phase.LIVE), lines=(Line(1, ("r0", "a1")),))
    wanted = desired(live)
    assert wanted.doomed == {Doomed("a", "a1", 1)}
    here = World((("main", "r0"),), wanted.routes, wanted.running, branches=frozenset({("a", "a1")}))
    delete = Delete(1, "a", "a1")
    assert (delete in plan(here, wanted), blocked(delete, here, wanted)) == (True, "trunk")
    assert ready(replace(here, trunks=wanted.trunks), wanted) == [delete]
    assert plan(replace(here, trunks=wanted.trunks, branches=frozenset({("a", "a2")})), wanted) == []


MAJORS = service(lines=(Line(1, ("r0",)), Line(2, ("m1",))))


def test_an_older_major_gets_a_trunk_before_the_newer_takes_the_default_branch() -> None:
    wanted = desired(MAJORS)
    assert wanted.trunks == (("main", "m1"), ("major--s--1", "r0"))
    here = replace(REST, routes=wanted.routes, running=wanted.running)
    older, newer = Write(1, "major--s--1", "r0", None), Write(2, "main", "m1", "r0")
    assert plan(here, wanted) == [older, newer]
    assert (ready(here, wanted), blocked(newer, here, wanted)) == ([older], "trunk")


def test_a_trunk_is_dropped_when_its_code_stands_elsewhere() -> None:
    both = desired(MAJORS)
    here = replace(both, doomed=frozenset())
    drop, write = Drop("major--s--1"), Write(1, "main", "r0", "m1")
    assert [each for each in plan(here, REST) if isinstance(each, Write | Drop)] == [write, drop]
    assert ready(here, REST)[0] == Route(2, ())
    assert (blocked(drop, here, REST), blocked(write, here, REST)) == ("trunk", "")


def test_a_tree_that_nobody_knows_is_left_alone() -> None:
    here = replace(REST, trunks=(("main", FOREIGN),))
    assert plan(here, REST) == []
