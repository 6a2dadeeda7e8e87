"""This file fakes the Catalog port in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from branchline.core import names
from branchline.core.revision import GateResult, Revision, StepRun
from branchline.errors import UnknownReference


class FakeCatalog:
    """The Catalog port."""

    def __init__(self) -> None:
        self._revisions: dict[tuple[str, str], Revision] = {}
        self._made_for: dict[tuple[str, str], tuple[str, int, str]] = {}
        self._taken: dict[str, list[names.Version]] = {}
        self._gates: dict[tuple[str, str], tuple[GateResult, ...]] = {}
        self._runs: dict[tuple[str, str], tuple[StepRun, ...]] = {}
        self._artifacts: dict[str, str] = {}

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

    def keep_run(self, service: str, commit: str, runs: Sequence[StepRun]) -> None:
        """Keep what became of the steps."""
        if runs:
            self._runs[service, commit] = tuple(runs)
        self._artifacts |= {run.key: run.artifact for run in runs if run.artifact and run.state != "failed"}

    def run(self, service: str, commit: str) -> tuple[StepRun, ...]:
        """The steps of the newest run."""
        return self._runs.get((service, commit), ())

    def artifact(self, key: str) -> str:
        """The artifact id under this key."""
        return self._artifacts.get(key, "")
