"""This file says what a recorded run is, how runs are asked for, and what a step tells of itself.

A run is one execution of the build's steps (2.11 to 2.14). It is recorded by whoever runs the steps, not by the steps:
they only tell their numbers, a line of JSON each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from branchline.core.revision import Measure, StepRun
from branchline.errors import UsageError

MOST = 1000  # runs that are read at once
WORST = ("failed", "stopped", "ran")  # what a run as a whole is called by, if any of its steps is
BOUND = re.compile(r"\s*([^\s<>=!]+)\s*(<=|>=|!=|==?|<|>)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its number among all runs, and what became of each of its steps, in the order in which they ended."""

    number: int
    service: str
    commit: str
    steps: tuple[StepRun, ...]

    @property
    def state(self) -> str:
        """Failed if a step did, stopped if one was, reused if all were, else ran."""
        states = {step.state for step in self.steps}
        return next((state for state in WORST if state in states), "reused")

    @property
    def at(self) -> float:
        """When it began (Unix seconds); 0 of one that an older ledger recorded."""
        return min((step.at for step in self.steps if step.at), default=0.0)


@dataclass(frozen=True, slots=True)
class Bound:
    """What the last value of a metric has to be: `sign` is <, <=, >, >=, = or !=."""

    metric: str
    sign: str
    value: float


@dataclass(frozen=True, slots=True)
class Query:
    """Which runs: '' and () mean any; with a step, state and bounds are of that step. `before` is a run's number.
    A commit needs its service."""

    service: str = ""
    step: str = ""
    state: str = ""
    bounds: tuple[Bound, ...] = ()
    limit: int = 20
    before: int = 0
    commit: str = ""


def as_made(steps: Iterable[StepRun], runs: Iterable[Run]) -> tuple[StepRun, ...]:
    """Each step as the first of these `runs` (the newest first) that left its result had it, whoever reused or
    verified it since: new data is tried before it has a branch.
    """
    ran = (step for run in runs for step in run.steps if step.state == "ran")
    first = {(step.name, step.key, step.artifact): step for step in ran}  # the oldest one stays
    return tuple(_made(step, first.get((step.name, step.key, step.artifact))) for step in steps)


def bound(text: str) -> Bound:
    """Read `mape<10`; raises UsageError."""
    found = BOUND.fullmatch(text)
    try:
        value = float(found[3]) if found else math.nan
    except ValueError:
        value = math.nan
    if found is None or math.isnan(value):
        cause = f"{text!r} is no bound of a metric; write one like 'mape<10', with one of < <= > >= = !="
        raise UsageError(cause, hint="branchline runs --where 'mape<10'")
    return Bound(found[1], "=" if found[2] == "==" else found[2], value)


def told(lines: bytes) -> tuple[Measure, ...]:
    """Read what `branchline.log` wrote in a step; a line that is not whole or not its own is left out."""
    return tuple(measure for line in lines.splitlines() for measure in _measures(line))


def _measures(line: bytes) -> Iterator[Measure]:
    try:
        name, value, position = json.loads(line)
        measure = Measure(str(name), float(value), None if position is None else float(position))
    except (ValueError, TypeError):
        return
    if math.isfinite(measure.value):
        yield measure


def last(metrics: tuple[Measure, ...]) -> dict[str, float]:
    """The newest value of each metric, by which runs are found and compared."""
    return {measure.name: measure.value for measure in metrics}


def _made(step: StepRun, first: StepRun | None) -> StepRun:
    if first is None or step.state in ("ran", "failed"):
        return step
    return replace(
        step, state="ran", why=first.why, summary=first.summary, seconds=first.seconds, cpu=first.cpu, peak=first.peak
    )
