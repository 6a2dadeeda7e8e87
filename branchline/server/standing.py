"""This file tells a Prometheus how the tests of this moment stand: what the judge has seen of each, arm by arm.

A series ends with its test. Every value is as of the judge's last look; nothing is judged here, and what has no number
yet has no sample: an alert on a difference is silent while there is none.
"""

from __future__ import annotations

from collections.abc import Iterator

from branchline.core.arms import total
from branchline.core.service import Candidate
from branchline.engine.controlling import Controller
from branchline.engine.measurement import Measurement
from branchline.engine.under_test import MEASURED
from branchline.server.exposition import Labels, Sample


def of_tests(controller: Controller) -> Iterator[Sample]:
    """The metric and the guardrails of whoever is measured, and of the incumbent beside it."""
    for service in sorted(controller.services()):
        candidates = [each for each in controller.recorder.service(service).candidates if each.phase in MEASURED]
        versions = {each.commit: each.version for each in controller.ports.catalog.revisions(service) if candidates}
        for candidate in candidates:
            known = controller.judge.measurements.get((service, candidate.branch))
            if known is None or known[1].challenger != candidate.revision:
                continue  # nobody has looked at it yet
            seen = known[1]
            names = {commit: versions.get(commit, "") for commit in (seen.control, seen.challenger)}
            yield from of_metric(service, candidate, seen, names)
            for name, guard in sorted(seen.guards.items()):
                told = {**of(service, candidate), "revision": names[seen.challenger], "guardrail": name}
                yield "branchline_guardrail_requests", "", told, guard.requests
                yield "branchline_guardrail_bad", "", told, guard.bad
                yield "branchline_guardrail_evidence", "", told, guard.highest


def of(service: str, candidate: Candidate) -> Labels:
    """The labels that name a test."""
    return {"service": service, "branch": candidate.branch}


def of_metric(service: str, candidate: Candidate, seen: Measurement, names: Labels) -> Iterator[Sample]:
    """The primary metric: of both arms what was counted, of the challenger what follows."""
    metric, judged = seen.metric, seen.judgement
    if metric is None:
        return
    common = {**of(service, candidate), "metric": metric.name, "direction": metric.direction}
    strata = list(seen.strata.values())
    for role, commit in (("incumbent", seen.control), ("challenger", seen.challenger)):
        arms = [each.challenger if role == "challenger" else each.control for each in strata]
        told = {**common, "revision": names[commit], "role": role}
        units, values, of_what = total(arms, metric.form)
        yield "branchline_metric_units", "", told, units
        yield "branchline_metric_sum", "", told, values
        if of_what:
            yield "branchline_metric_mean", "", told, values / of_what
    if judged is None:
        return
    told = {**common, "revision": names[seen.challenger]}
    ends = {"": judged.estimate, "_low": judged.low, "_high": judged.high}
    for end, value in ends.items():
        if value is not None:
            yield f"branchline_metric_difference{end}", "", told, value
    yield "branchline_metric_evidence", "", {**told, "says": "better"}, judged.e_for
    yield "branchline_metric_evidence", "", {**told, "says": "worse"}, judged.e_against
    yield "branchline_metric_progress", "", told, judged.progress
