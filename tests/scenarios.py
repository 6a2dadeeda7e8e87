"""This file holds the scenarios that are explored: the situations in which a law for releases can go wrong.

Rules: as small as the situation allows, for each event and each process multiplies the states. Branches are called by
one letter, their first commit is `a1`, a push to it is `a2`; `r0` is the incumbent at the beginning.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from branchline.core.lifecycle import (
    Candidate,
    Configured,
    Cooled,
    Event,
    Frozen,
    Line,
    Method,
    Opened,
    Phase,
    Ramped,
    Refused,
    Retired,
    RolledBack,
    Service,
    Thawed,
    advance,
)
from tests.happenings import Scenario


def service(*candidates: Candidate, **fields: Any) -> Service:
    """A service with an incumbent `r0`, in which whoever waits for nothing has gone on."""
    return advance(replace(Service("s", lines=(Line(1, ("r0",)),), candidates=candidates), **fields))


def candidate(branch: str, **fields: Any) -> Candidate:
    """A candidate made from `r0`."""
    return replace(Candidate(branch, f"{branch}1", f"{branch}1", "r0", share=20), **fields)


AFTER: tuple[Event, ...] = (RolledBack(), Cooled())
EVALUATING, QUEUED = Phase.EVALUATING, Phase.QUEUED
PATCH, CANARY, BLUE_GREEN = Method.PATCH, Method.CANARY, Method.BLUE_GREEN
SCENARIOS = (
    Scenario(
        "first revision, two at once",
        Service("s", candidates=(candidate("a", holds=None), candidate("b", holds=None))),
        also=AFTER,
        staging=True,
    ),
    Scenario("two A/B tests, one slot", service(candidate("a"), candidate("b")), also=AFTER, staging=True),
    Scenario("two A/B tests, two slots", service(candidate("a"), candidate("b"), slots=2), also=AFTER, staging=True),
    Scenario("three A/B tests, two slots", service(*map(candidate, "abc"), slots=2), also=AFTER),
    Scenario(
        "two slots, ramps",
        service(candidate("a"), candidate("b"), slots=2),
        also=(Ramped("a", 50), Ramped("a", 20), Ramped("b", 50), *AFTER),
        staging=True,
    ),
    Scenario(
        "two slots, pushes and syncs",
        service(candidate("a"), candidate("b"), slots=2),
        pushes=("a", "b"),
        also=AFTER,
    ),
    Scenario(
        "a push nobody has told us of",
        service(candidate("a")),
        opens=(Opened("a", "a2"),),
        pushes=("a",),
        also=AFTER,
        unread=True,
        staging=True,
    ),
    Scenario("a branch opened again", service(candidate("a")), opens=(Opened("a", "a3"),), also=AFTER, staging=True),
    Scenario(
        "a branch made from an incumbent that has gone",
        service(lines=(Line(1, ("q0", "r0")),)),
        opens=(Opened("d", "d1", outdated=True),),
        pushes=("d",),
        also=AFTER,
        staging=True,
    ),
    Scenario(
        "a foreign commit on the trunk",
        service(candidate("a"), candidate("f", method=PATCH)),
        also=(Refused("a", "foreign"), *AFTER),
        foreign=True,
        staging=True,
    ),
    Scenario(
        "hotfix on the incumbent",
        service(candidate("a"), candidate("f", method=PATCH)),
        pushes=("a", "f"),
        also=AFTER,
    ),
    Scenario(
        "hotfix on a challenger",
        service(candidate("a")),
        opens=(Opened("f", "f1", PATCH, "a"),),
        pushes=("f",),
        also=AFTER,
        staging=True,
    ),
    Scenario(
        "a push beside a hotfix on it",
        service(candidate("a", phase=QUEUED)),
        opens=(Opened("f", "f1", PATCH, "a"),),
        pushes=("a",),
        also=AFTER,
    ),
    Scenario(
        "hotfix on one of two challengers",
        service(candidate("a", phase=QUEUED), candidate("b", phase=QUEUED), slots=2),
        opens=(Opened("f", "f1", PATCH, "a"),),
        also=AFTER,
    ),
    Scenario(
        "sync of a winner under a hotfix",
        service(candidate("a", phase=QUEUED), candidate("h", method=PATCH, phase=QUEUED)),
        opens=(Opened("f", "f1", PATCH, "a", synced=True),),
        also=AFTER,
    ),
    Scenario(
        "two canaries", service(candidate("a", method=CANARY), candidate("b", method=CANARY)), pushes=("a",), also=AFTER
    ),
    Scenario(
        "blue and green beside a canary",
        service(candidate("g", method=BLUE_GREEN), candidate("c", method=CANARY, phase=QUEUED)),
        also=AFTER,
        staging=True,
    ),
    Scenario(
        "approval before, freeze",
        service(candidate("a"), approval="before"),
        pushes=("a",),
        also=(Frozen(), Thawed(), *AFTER),
        staging=True,
    ),
    Scenario(
        "approval after, freeze, git refuses",
        service(candidate("a"), candidate("c", method=CANARY), approval="after"),
        also=(Frozen(), Thawed(), Refused("a"), *AFTER),
        staging=True,
    ),
    Scenario(
        "a major beside the old one",
        service(candidate("a"), candidate("m", line=2, holds=None)),
        pushes=("a",),
        also=(Retired(1), Retired(2), *AFTER),
    ),
    Scenario(
        "tests in two majors",
        service(
            candidate("a", phase=QUEUED),
            candidate("m", line=2, holds="m0", phase=QUEUED),
            lines=(Line(1, ("r0",)), Line(2, ("m0",))),
        ),
        also=(Retired(1), Retired(2), RolledBack(2), Cooled(2), *AFTER),
    ),
    Scenario(
        "benchmark beside a test",
        service(candidate("v", method=Method.BENCHMARK), candidate("a")),
        pushes=("v",),
        also=AFTER,
        staging=True,
    ),
    Scenario(
        "slots, slice and approval change",
        service(candidate("a", phase=QUEUED), candidate("c", method=CANARY, phase=QUEUED)),
        also=(Configured(2, 10), Configured(1, 30), Configured(2, 10, "after")),
        staging=True,
    ),
)
SMALL = (
    Scenario(
        "two first revisions",
        Service("s", candidates=(candidate("a", holds=None), candidate("b", holds=None, phase=EVALUATING))),
        also=AFTER,
    ),
    Scenario("an A/B test", service(candidate("a")), pushes=("a",), also=AFTER, staging=True),
    Scenario(
        "an approval too early",
        service(candidate("a", phase=QUEUED), approval="after", frozen=True),
        also=(Thawed(),),
        deaths=False,
    ),
    Scenario(
        "a rollback under a test",
        service(candidate("a", phase=QUEUED), lines=(Line(1, ("q0", "r0")),)),
        also=(RolledBack(),),
        deaths=False,
    ),
    Scenario("an approval", service(candidate("a", phase=EVALUATING), approval="before"), pushes=("a",), deaths=False),
    Scenario("two A/B tests", service(candidate("a", phase=QUEUED), candidate("b", phase=QUEUED)), deaths=False),
    Scenario(
        "two A/B tests at once",
        service(candidate("a", phase=QUEUED), candidate("b", phase=QUEUED), slots=2),
        also=(Ramped("a", 60), Ramped("a", 99)),
        deaths=False,
    ),
    Scenario(
        "a canary and a freeze",
        service(candidate("a", method=CANARY)),
        pushes=("a",),
        also=(Frozen(), Thawed(), Refused("a"), *AFTER),
        deaths=False,
    ),
    Scenario("blue and green", service(candidate("g", method=BLUE_GREEN)), pushes=("g",), also=AFTER, staging=True),
    Scenario("a benchmark", service(candidate("v", method=Method.BENCHMARK)), pushes=("v",), also=AFTER, deaths=False),
    Scenario(
        "a fix of a challenger",
        service(candidate("a", phase=QUEUED)),
        opens=(Opened("f", "f1", PATCH, "a"),),
        deaths=False,
    ),
    Scenario(
        "a fix of a challenger that is behind",
        service(candidate("a", holds="q0", phase=Phase.TESTING), lines=(Line(1, ("q0", "r0")),)),
        opens=(Opened("f", "f1", PATCH, "a", synced=True, outdated=True),),
        deaths=False,
    ),
    Scenario("a foreign commit", service(candidate("a", phase=QUEUED)), also=AFTER, foreign=True),
    Scenario("a major", service(candidate("m", line=2, holds=None, phase=EVALUATING)), also=(Retired(1), Retired(2))),
    Scenario(
        "the end of a line",
        service(candidate("a"), lines=(Line(1, ("r0",)), Line(2, ("m0",)))),
        pushes=("a",),
        also=(Retired(1),),
        deaths=False,
    ),
)
