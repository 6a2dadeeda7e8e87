"""This file tests what is kept of a candidate that is measured, and the plan by which it is judged.

Requirements: 1.36, 1.39, 1.41.
"""

from __future__ import annotations

from branchline.core.evidence import Plan
from branchline.core.service import Candidate
from branchline.core.spec import Guardrails, Metric, Spec
from branchline.engine.measurement import Measurement, plan_of
from branchline.ports import Seen, Tally

BRANCH = "experiment--housing--sam"


def test_without_guardrails_none_is_asked() -> None:
    seen = Measurement("old", "new", None, None, Guardrails(failed_requests=False))
    seen.count(Tally(1, "new", 1, bad=True, at=5.0))
    assert (seen.guards, seen.began, seen.breached) == ({}, 5.0, [])


def test_a_guardrail_counts_both_arms_and_no_third() -> None:
    rails = Guardrails(bad_outcome_above=5.0, bad_outcome_below=1.0)
    seen = Measurement("old", "new", None, None, rails, splits={1: (5000, 5000)})
    for order, (arm, value) in enumerate([("old", 6.0), ("new", 0.5), ("new", 3.0), ("third", 9.0)], 1):
        seen.count(Tally(order, arm, 1, bad=arm == "third", at=float(order)))
        assert seen.see(Seen(order, f"u{order}", arm, 1, value, float(order))) == (arm != "third")
    guard = seen.guards["bad outcomes"]
    assert (guard.requests, guard.bad, seen.guards["failed requests"].bad) == (2, 1, 0)


def test_the_plan_shares_its_error_among_the_slots() -> None:
    spec = Spec("housing", "housing", metric=Metric("rating", mde=1.0))
    one, two = (plan_of(spec, Candidate(BRANCH, "new", "new", seated=slots)) for slots in (1, 2))
    assert isinstance(one, Plan)
    assert isinstance(two, Plan)
    assert (one.alpha, two.alpha) == (0.05, 0.025)
    assert one.max_information == 3 * one.planned_information
    assert plan_of(Spec("housing", "housing"), Candidate(BRANCH, "new", "new")) is None
    assert plan_of(Spec("housing", "housing", metric=Metric("rating")), Candidate(BRANCH, "new", "new")) is None
