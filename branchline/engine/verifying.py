"""This file says what running a revision's steps again has left, against what the revision is made of.

A step that is run again is given the results that the revision has, not those of another second run: each step is
judged alone. One that could not be compared while it ran, because nothing was kept that may be reused, is compared
here. What was released stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from branchline.core.revision import Revision, StepRun
from branchline.core.spec import Spec
from branchline.engine.stepping import apart, value_in
from branchline.ports import Ports

Document = dict[str, Any]
EQUAL, CLOSE, DIFFERENT = "equal", "close", "different"
VERDICTS = {"close": CLOSE, "differs": DIFFERENT}


def verified(ports: Ports, revision: Revision, spec: Spec, runs: Sequence[StepRun], step: str = "") -> list[Document]:
    """What became of each step (of one, if it is named) and of each item: equal, close within its tolerance, or
    different, with the artifact that the revision has and the one that was left now ('' where it was not kept in mind).
    """
    kept, tolerance = dict(revision.artifacts), {each.name: each.tolerance for each in spec.steps}
    return [
        document(run, kept.get(run.step, "") if not run.item else run.artifact, *judged(ports, run, kept, tolerance))
        for run in runs
        if step in ("", run.step)
    ]


def judged(ports: Ports, run: StepRun, kept: Mapping[str, str], tolerance: Mapping[str, float]) -> tuple[str, str]:
    """The verdict on one run of a step, and why."""
    before = kept.get(run.step, "")
    if run.item or run.artifact == before:
        return VERDICTS.get(run.state, EQUAL), run.summary if run.state in VERDICTS else ""
    if not ports.artifacts.has(before):
        return DIFFERENT, "another result than before, which is in the store no more"
    by = apart(value_in(ports, before), value_in(ports, run.artifact))
    if by is None:
        return DIFFERENT, "another result than before"
    within = by <= tolerance.get(run.step, 0.0)
    return (CLOSE, f"numbers differ by {by:.2g} at most") if within else (DIFFERENT, f"numbers differ by {by:.2g}")


def document(run: StepRun, before: str, verdict: str, text: str) -> Document:
    """One verdict as people and programs get it."""
    left = "" if run.state in VERDICTS else run.artifact
    return {"step": run.step, "item": run.item, "verdict": verdict, "artifact": before, "left": left, "text": text}
