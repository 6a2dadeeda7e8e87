"""This file says what outcomes of a service are held against: who is under test, and by which metric."""

from __future__ import annotations

from collections.abc import Mapping

from branchline.core.service import SERVING, Phase
from branchline.core.spec import Metric
from branchline.engine.preparing import spec_at
from branchline.engine.recording import Recorder
from branchline.ports import Ports

MEASURED = frozenset({Phase.TESTING, Phase.CANARY, Phase.WON})


def metric_of(ports: Ports, recorder: Recorder, service: str) -> Metric | None:
    """The metric that is measured now: of who is under test, else of the incumbent; None when nobody declares one."""
    state = recorder.service(service)
    commits = [c.revision for c in state.candidates if c.phase in SERVING]
    commits += [line.incumbent for line in reversed(state.lines) if line.incumbent]
    for commit in commits:
        metric = spec_at(ports, service, commit).metric
        if metric is not None:
            return metric
    return None


def running(ports: Ports, recorder: Recorder, service: str, metric: Metric) -> Mapping[str, Metric] | None:
    """The experiments of a service that have not ended, each with its metric (`metric` where its revision declares
    none); None while the gateway does not show one for each line.

    An arm whose processes are down for a moment comes back to its experiment: what is reported meanwhile counts.
    """
    candidates = reversed(recorder.service(service).candidates)  # of a line the longest under test counts
    under_test = {each.line: each for each in candidates if each.phase in MEASURED}
    shown, found = ports.router.shown(service), {}
    for line, candidate in under_test.items():
        if line not in shown or not shown[line].experiment:
            return None
        found[shown[line].experiment] = spec_at(ports, service, candidate.revision).metric or metric
    return found
