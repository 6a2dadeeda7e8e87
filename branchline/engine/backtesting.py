"""This file holds an offline metric against the verdicts there were: does what looks better before a test win it?

A metric that steps tell is compared between each challenger and whom it was tried against, and set beside what outcomes
said: the estimate with its interval, and the verdict. Counted are tests that ended with a verdict on the metric that
outcomes are judged by; a breach, an abort or an end without a verdict says nothing of that. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from branchline.core.planning import proportion
from branchline.core.verdict import Cause
from branchline.engine.asking import Desk, did_you_mean
from branchline.engine.reading import moment
from branchline.engine.rejudging import Recorded, again, tested, under_test
from branchline.engine.replaying import states
from branchline.engine.tracking import metrics_of
from branchline.errors import NothingToDo
from branchline.ports import Ports

Document = dict[str, Any]
DECIDED = (Cause.PROMOTE, Cause.HARMFUL, Cause.FUTILE)


def backtest(ports: Ports, desk: Desk, service: str, metric: str, direction: str) -> Document:
    """Every test of a service that has ended, with an offline metric of both sides, the oldest first, and how often
    what looked better by it won.

    Raises NothingToDo where no challenger of an ended test has such a metric.
    """
    name = desk.find(service)[0].name
    history = states(ports, name)
    tried = dict.fromkeys(
        each.revision for _, state in history for each in state.candidates if under_test(state, each.revision)
    )
    tests = [test for commit in tried if (test := tested(ports, history, name, commit)) and test.ended]
    rows = [row_of(ports, test, metric, direction) for test in tests]
    known = [row for row in rows if row["offline"]]
    if not known:
        told = {key for test in tests for key in metrics_of(ports.catalog.run(name, test.candidate.revision))}
        why = did_you_mean(metric, sorted(told)) if tests else "no A/B test of it has ended"
        raise NothingToDo(why, what=f"no ended test of {name} tells {metric} of both sides",
                          hint="branchline runs " + name)  # fmt: skip
    decided = [row for row in known if row["decided"]]
    return {
        "schema": "branchline.backtest/1",
        "service": name,
        "metric": metric,
        "direction": direction,
        "tests": known,
        "without": len(rows) - len(known),
        "undecided": len(known) - len(decided),
        "better": won_of([row for row in decided if row["better"]]),
        "not_better": won_of([row for row in decided if not row["better"]]),
    }


def row_of(ports: Ports, test: Recorded, metric: str, direction: str) -> Document:
    """One test: the offline metric of both sides ({} where one has none), what outcomes said, and what was recorded."""
    own, other = (
        metrics_of(ports.catalog.run(test.service, commit)).get(metric)
        for commit in (test.candidate.revision, test.control)
    )
    offline: Document = {}
    if own is not None and other is not None:
        offline = {"challenger": own, "incumbent": other, "difference": own - other}
    gain = offline.get("difference", 0.0)
    seen, verdict, _ = again(ports, test, {})
    judged = seen.judgement
    versions = {each.commit: each.version for each in ports.catalog.revisions(test.service)}
    return {
        "version": versions.get(test.candidate.revision, test.candidate.revision[:7]),
        "against": versions.get(test.control, test.control[:7]),
        "at": moment(test.until),
        "offline": offline,
        "better": (gain > 0) == (direction == "higher") and gain != 0,
        "online": {
            "estimate": judged.estimate if judged else None, "low": judged.low if judged else None,
            "high": judged.high if judged else None, "units": judged.units if judged else 0,
        },
        "verdict": {"side": str(verdict.side), "cause": str(verdict.cause)},
        "decided": verdict.cause in DECIDED,
    }  # fmt: skip


def won_of(rows: Sequence[Document]) -> Document:
    """How many of these challengers won, and the interval of their part; None where there were none."""
    won = sum(row["verdict"]["cause"] == Cause.PROMOTE for row in rows)
    low, high = proportion(won, len(rows)) if rows else (None, None)
    return {"tests": len(rows), "won": won, "low": low, "high": high}
