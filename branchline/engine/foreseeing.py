"""This file foresees a run: which steps would be reused, and which would run for which reason. Nothing is run or kept.

A step whose inputs would be made anew is not asked further: whether it runs depends on what they will leave.
"""

from __future__ import annotations

from branchline.core import graph
from branchline.core.reuse import explained
from branchline.core.spec import Step
from branchline.engine.building import MACHINE, Build, asked, found, jobs, joint_key, offered, opened
from branchline.engine.preparing import Prepared
from branchline.engine.progress import Progress
from branchline.engine.stepping import Job
from branchline.ports import Ports


def foresee(ports: Ports, prepared: Prepared, progress: Progress, topic: str) -> None:
    """Tell of each step whether it would run, and why, line by line; raises what `build` raises before it runs any."""
    this = opened(ports, prepared, progress, topic, lambda: False, MACHINE, ())
    steps = {step.name: step for step in prepared.spec.steps}
    after = graph.after(prepared.spec, this.needs)
    for name in graph.order(prepared.spec, this.needs):
        unknown = [need for need in after[name] if need not in this.results.artifacts]
        if unknown:
            this.note("..", name, f"depends on what {', '.join(unknown)} will leave")
        else:
            look(this, steps[name])


def look(this: Build, step: Step) -> None:
    """Tell of one step whose inputs are known, and remember its result if it would be reused."""
    try:
        wanted, items = asked(this, step)
    except ValueError as error:
        this.note("no", step.name, str(error))
        return
    if not wanted:
        this.note("=", step.name, f"skipped: {step.when} is not true")
        return
    offers = list(offered(this, jobs(this, step, items)))
    for job, trace in offers:
        if trace is None:
            this.note("..", job.name, "\n".join((f"would run: {job.why}", *details(this, job))))
    artifacts = [trace.artifact for _, trace in offers if trace]
    if len(artifacts) < len(offers):
        return
    if items is not None:
        joint = found(this, joint_key(artifacts))
        if joint is None:
            this.note("..", step.name, "would join other results than before; none of them would run")
            return
        artifacts = [joint.artifact]
    this.results.artifacts[step.name] = artifacts[0]
    this.note("=", step.name, "unchanged")


def details(this: Build, job: Job) -> tuple[str, ...]:
    """All that changed since the newest release, where, and how the step reaches it."""
    before = this.before().get((job.step.name, job.item))
    return explained(before.lines, job.lines) if before else ()
