"""This file fakes the Catalog port in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import eq, ge, gt, le, lt, ne

from branchline.core import names
from branchline.core.reuse import Trace
from branchline.core.revision import GateResult, Measure, Revision, StepRun
from branchline.core.tracking import Bound, Query, Run, last
from branchline.errors import UnknownReference

SIGNS: dict[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge, "=": eq, "!=": ne}


class FakeCatalog:
    """The Catalog port."""

    def __init__(self) -> None:
        self._revisions: dict[tuple[str, str], Revision] = {}
        self._made_for: dict[tuple[str, str], tuple[str, int, str]] = {}
        self._taken: dict[str, list[names.Version]] = {}
        self._gates: dict[tuple[str, str], tuple[GateResult, ...]] = {}
        self._runs: list[Run] = []

    def add(self, revision: Revision, bump: str, line: int, after: str = "") -> Revision:
        """Keep a built revision under a pre-release version."""
        key = (revision.service, revision.commit)
        if key not in self._revisions:
            taken = self._taken.setdefault(revision.service, [])
            branch = names.branch(revision.branch)
            handle = branch.handle if branch else "build"
            n = 1 + sum(
                each.branch == revision.branch and each.service == revision.service for each in self._revisions.values()
            )
            following = names.following(taken, bump, line, after)
            while (version := replace(following, pre=f"{handle}.{n}")) in taken:
                n += 1
            taken.append(version)
            self._made_for[key] = (bump, line, after)
            self._revisions[key] = replace(revision, version=str(version), final=False)
        return self._revisions[key]

    def finish(self, service: str, commit: str) -> Revision:
        """Allocate the final version."""
        kept = self.revision(service, commit)
        if kept.final:
            return kept
        version = names.following(self._taken[service], *self._made_for[service, commit])
        self._taken[service].append(version)
        self._revisions[service, commit] = replace(kept, version=str(version), final=True)
        return self._revisions[service, commit]

    def reserve(self, service: str, versions: Mapping[str, str]) -> None:
        """Keep versions from being given."""
        known = [names.version(text) for text in versions]
        taken = self._taken.setdefault(service, [])
        taken += [version for version in known if version and version not in taken]

    def revision(self, service: str, commit: str) -> Revision:
        """Raises UnknownReference."""
        if (service, commit) not in self._revisions:
            raise UnknownReference(reference=f"{service}@{commit}")
        return self._revisions[service, commit]

    def revisions(self, service: str) -> tuple[Revision, ...]:
        """All of them, newest first."""
        return tuple(reversed([each for each in self._revisions.values() if each.service == service]))

    def keep_gates(self, service: str, commit: str, results: Sequence[GateResult]) -> None:
        """Keep one evaluation's results."""
        if results:
            self._gates[service, commit] = tuple(results)

    def gates(self, service: str, commit: str) -> tuple[GateResult, ...]:
        """The results of the newest evaluation."""
        return self._gates.get((service, commit), ())

    def keep_run(self, service: str, commit: str, runs: Sequence[StepRun], run: int = 0) -> int:
        """Keep what became of the steps."""
        kept = tuple(map(self._kept, runs))
        if not kept:
            return run
        if run:
            self._runs[run - 1] = replace(self._runs[run - 1], steps=self._runs[run - 1].steps + kept)
            return run
        self._runs.append(Run(len(self._runs) + 1, service, commit, kept))
        return len(self._runs)

    def _kept(self, step: StepRun) -> StepRun:
        """The step as it is read again."""
        if step.state == "reused":
            for ran in self._steps("ran"):
                if (ran.key, ran.artifact) == (step.key, step.artifact):
                    return replace(step, lines=ran.lines, facts=ran.facts, metrics=ran.metrics)
        return (
            step
            if step.state in ("ran", "same", "close", "differs")
            else replace(step, facts=(), lines=() if step.state == "reused" else step.lines)
        )

    def _steps(self, *states: str) -> Iterator[StepRun]:
        """The steps of all runs that have a state, newest first."""
        for run in reversed(self._runs):
            yield from (step for step in reversed(run.steps) if step.state in states)

    def run(self, service: str, commit: str) -> tuple[StepRun, ...]:
        """The steps of the newest run."""
        mine = (run for run in reversed(self._runs) if (run.service, run.commit) == (service, commit))
        return next((run.steps for run in mine), ())

    def numbered(self, run: int) -> Run:
        """One run."""
        if not 0 < run <= len(self._runs):
            raise UnknownReference("no run has this number", reference=str(run), hint="branchline runs")
        return self._runs[run - 1]

    def runs(self, query: Query) -> tuple[Run, ...]:
        """The runs that a query means."""
        return tuple(brief(run) for run in reversed(self._runs) if meant(run, query))[: query.limit]

    def traces(self, keys: Collection[str]) -> dict[str, tuple[Trace, ...]]:
        """What may be reused under these keys."""
        kept: dict[str, list[Trace]] = {}
        for step in self._steps("ran"):
            if step.key in keys and step.artifact and step.reusable:
                kept.setdefault(step.key, []).append(Trace(step.artifact, step.facts))
        return {key: tuple(found[:16]) for key, found in kept.items()}


def meant(run: Run, query: Query) -> bool:
    """Whether a query means a run."""
    chosen = [step for step in run.steps if query.step in ("", step.step)]
    state = run.state in (query.state, "") if not query.step else query.state in {step.state for step in chosen}
    return bool(
        chosen
        and query.service in ("", run.service)
        and query.commit in ("", run.commit)
        and (not query.state or state)
        and (not query.before or run.number < query.before)
        and all(any(held(step, each) for step in chosen) for each in query.bounds)
    )


def held(step: StepRun, bound: Bound) -> bool:
    """Whether the last value of a step's metric keeps its bound."""
    found = last(step.metrics).get(bound.metric)
    return found is not None and bool(SIGNS[bound.sign](found, bound.value))


def brief(run: Run) -> Run:
    """A run as a search finds it."""
    steps = (replace(step, lines=(), facts=(), notices=(), metrics=newest(step.metrics)) for step in run.steps)
    return replace(run, steps=tuple(steps))


def newest(metrics: tuple[Measure, ...]) -> tuple[Measure, ...]:
    """The last of each name."""
    return tuple(each for at, each in enumerate(metrics) if each.name not in {m.name for m in metrics[at + 1 :]})
