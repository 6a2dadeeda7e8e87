"""This file finds recorded runs and puts two of them side by side: code, data, environment, parameters, metrics, time.

Answers are plain JSON documents with a schema id; reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from branchline.core.revision import Revision, StepRun
from branchline.core.tracking import MOST, Query, Run, as_made, bound, last
from branchline.engine.asking import Desk, did_you_mean
from branchline.engine.preparing import laid, spec_at
from branchline.engine.reading import moment
from branchline.errors import BranchlineError, NothingToDo, UnknownService
from branchline.ports import Ports

Document = dict[str, Any]
Told = tuple[str, str, Any]  # part, name, value
NUMBER = 7  # from so many digits on a number is a commit's
# The first word of a line's name -> the part that it belongs to; what is not here follows from the others.
PARTS = {
    "code": "code", "effects": "code", "whole": "code", "file": "code", "step": "code", "data": "data",
    "environment": "environment", "sdk": "environment", "parameter": "parameters", "variable": "parameters",
}  # fmt: skip
ORDER = ("code", "data", "environment", "parameters", "metrics", "time")


@dataclass(slots=True)
class Tracker:
    """Finds and compares runs."""

    ports: Ports
    desk: Desk

    def runs(
        self, service: str = "", step: str = "", state: str = "", where: Iterable[str] = (), limit: int = 20,
        before: int = 0,
    ) -> Document:  # fmt: skip
        """Runs, newest first, that keep the bounds (`mape<10`); raises UnknownService, UsageError (2.12, 2.14)."""
        bounds = tuple(map(bound, where))
        query = Query(service, step, state, bounds, limit=max(1, min(limit, MOST)), before=before)
        found = self.ports.catalog.runs(query)
        if service and not found and service not in (known := self.ports.ledger.services()):
            raise UnknownService(did_you_mean(service, known), name=service)
        built = {each: self._built(each) for each in {run.service for run in found}}
        return {
            "schema": "branchline.runs/1",
            "runs": [run_document(run, built[run.service].get(run.commit)) for run in found],
        }

    def compare(self, one: str, other: str) -> Document:
        """Two runs side by side, each named by its number or by a revision or branch: its newest run, and what each
        step took when its result was made. Raises UnknownReference, NothingToDo for what was never built.
        """
        runs = [self._run(reference) for reference in (one, other)]
        revisions = [self._built(run.service).get(run.commit) for run in runs]
        told = [{(p, n): v for p, n, v in parts(run, self._parameters(run))} for run in runs]
        names = sorted({*told[0], *told[1]}, key=lambda each: (ORDER.index(each[0]), each[1] != "commit", each[1]))
        rows = [(each, told[0].get(each), told[1].get(each)) for each in names]
        return {
            "schema": "branchline.compare/1",
            "sides": [
                {"reference": reference, **run_document(run, revision)}
                for reference, run, revision in zip((one, other), runs, revisions, strict=True)
            ],
            "rows": [{"part": p, "name": n, "a": a, "b": b, "same": a == b} for (p, n), a, b in rows],
        }

    def lay(self, reference: str, step: str) -> Document:
        """Lay a step's result of a revision out as a folder that nobody may change; raises NothingToDo (3.30)."""
        revision = self.desk.revision(reference)
        artifacts = dict(revision.artifacts)
        if step not in artifacts:
            raise NothingToDo(did_you_mean(step, list(artifacts)), what=f"{revision.name} has no result of {step!r}")
        return {
            "schema": "branchline.laid/1",
            "artifact": artifacts[step],
            "environment": revision.environment,
            "path": str(laid(self.ports, artifacts[step])),
        }

    def _run(self, reference: str) -> Run:
        if is_number(reference):
            return self.ports.catalog.numbered(int(reference))
        service, commit = self.desk.meant(reference)
        runs = self.ports.catalog.runs(Query(service, commit=commit, limit=1))
        if not runs:
            raise NothingToDo(f"{commit[:7]} has not been built", what=f"there is no run of {reference}")
        newest = self.ports.catalog.numbered(runs[0].number)
        made = as_made(newest.steps, self.ports.catalog.runs(Query(service, limit=MOST)))
        took = (replace(each, state=step.state) for each, step in zip(made, newest.steps, strict=True))
        return replace(newest, steps=tuple(took))

    def _parameters(self, run: Run) -> Mapping[str, str]:
        """The values of a run's parameters; {} when its commit is not here any more, or cannot be read."""
        try:
            return dict(spec_at(self.ports, run.service, run.commit).parameters)
        except BranchlineError:
            return {}

    def _built(self, service: str) -> Mapping[str, Revision]:
        return {revision.commit: revision for revision in self.ports.catalog.revisions(service)}


def is_number(reference: str) -> bool:
    """Whether a reference is the number of a run."""
    return reference.isdecimal() and len(reference) < NUMBER


def run_document(run: Run, revision: Revision | None) -> Document:
    """One run as a row."""
    return {
        "run": run.number,
        "service": run.service,
        "version": revision.version if revision else "",
        "branch": revision.branch if revision else "",
        "commit": run.commit,
        "state": run.state,
        "at": moment(run.at) if run.at else "",
        "seconds": round(sum(step.seconds for step in run.steps), 6),
        "cpu": round(sum(step.cpu for step in run.steps), 6),
        "peak": max((step.peak for step in run.steps), default=0),
        "steps": {step.name: step.state for step in run.steps},
        "metrics": metrics_of(run.steps),
    }


def parts(run: Run, parameters: Mapping[str, str]) -> Iterator[Told]:
    """All that a comparison looks at."""
    yield "code", "commit", run.commit[:12]
    values = {f"parameter {name}": value for name, value in parameters.items()}
    for part in ORDER:
        told = (
            (step, *line) for step in run.steps for line in lines(step, values) if PARTS[line[0].split()[0]] == part
        )
        yield from shared(told, part)
    yield from shared(metrics(run.steps), "metrics")
    for step in run.steps:
        spent = {"seconds": round(step.seconds, 6), "cpu": round(step.cpu, 6), "peak": step.peak}
        yield from (("time", f"{step.name} {name}", value) for name, value in spent.items() if value)


def lines(step: StepRun, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What the step's key was made of; parameters with their values where they are known, the rest by its hash."""
    for line in step.lines:
        if line.name.split()[0] in PARTS:
            yield line.name, values.get(line.name, line.hash[:12])


def metrics_of(steps: Iterable[StepRun]) -> dict[str, float]:
    """The last value of each metric by its name, which is `STEP: NAME` where several steps tell it."""
    return {name: value for _, name, value in shared(metrics(steps), "metrics")}


def metrics(steps: Iterable[StepRun]) -> Iterator[tuple[StepRun, str, float]]:
    """The last value of each metric."""
    for step in steps:
        for name, value in last(step.metrics).items():
            yield step, name, value


def shared(told: Iterable[tuple[StepRun, str, Any]], part: str) -> Iterator[Told]:
    """What steps tell by one name, told once where they agree, else by the name of each."""
    by_name: dict[str, list[tuple[StepRun, Any]]] = {}
    for step, name, value in told:
        by_name.setdefault(name, []).append((step, value))
    for name, values in by_name.items():
        if len({value for _, value in values}) == 1 and (part != "metrics" or len(values) == 1) and name != "step":
            yield part, name, values[0][1]
        else:
            yield from ((part, f"{step.name}: {name}", value) for step, value in values)
