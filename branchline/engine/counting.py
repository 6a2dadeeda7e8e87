"""This file looks at counters that others keep, for the guardrails that are declared on them, and keeps what it read.

Rules. Both arms are asked as of one moment. What is read goes to the ledger and nowhere else: the judge takes it from
there, so a restart, a second judging and the dossier find the same. Where there are no data, or no answer, nothing is
kept, and a guardrail without looks holds the conclusion: no data never pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

from branchline.core.counters import Look, PrometheusGuardrail, filled
from branchline.core.service import Candidate, Service
from branchline.core.waiting import replaced
from branchline.core.world import policy_of
from branchline.engine.fetching import Act, Fetching, Key
from branchline.engine.observing import Observer
from branchline.engine.preparing import governed_spec
from branchline.engine.recording import Recorder
from branchline.engine.under_test import MEASURED
from branchline.errors import BranchlineError, QueryFailed
from branchline.ports import Ports


@dataclass(slots=True)
class Counting:
    """Looks at the counters of who is under test."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    troubles: dict[tuple[str, str], str]
    fetching: Fetching = field(init=False)

    def __post_init__(self) -> None:
        self.fetching = Fetching(self.ports, self.recorder, self.troubles, "guardrails", self._wanted, late)

    def look(self) -> bool:
        """Look at all whose time has come; says whether there was any."""
        return self.fetching.look()

    def _wanted(self, name: str) -> Iterator[tuple[Key, tuple[float, Act]]]:
        service = self.recorder.service(name)
        measured = [each for each in service.candidates if each.phase in MEASURED]
        shown = self.ports.router.shown(name) if measured else {}
        for candidate in measured:
            if candidate.line in shown and (experiment := shown[candidate.line].experiment):
                for rule in self._declared(service, candidate):
                    arms = replaced(service, candidate) or "", candidate.revision
                    key = name, f"guardrail {rule.name} of {candidate.revision}"
                    yield key, (rule.every, partial(self._count, name, experiment, arms, rule))

    def _declared(self, service: Service, candidate: Candidate) -> tuple[PrometheusGuardrail, ...]:
        trunk = self.observer.refs.get(policy_of(service, candidate.line), "")
        return governed_spec(self.ports, service.name, candidate.revision, trunk).guardrails.prometheus

    def _count(self, service: str, experiment: str, arms: tuple[str, str], rule: PrometheusGuardrail) -> None:
        """Look once; raises what a person is to be told."""
        at = self.ports.clock.now()
        found: list[tuple[float, float]] = []
        for commit in arms:
            version = self.ports.catalog.revision(service, commit).version
            whole, bad = (
                self.ports.readings.read(rule.url, filled(query, version, experiment), at)
                for query in (rule.all, rule.bad)
            )
            if whole is None:
                raise QueryFailed(
                    f"guardrail {rule.name} has no data of {service}@{version}; until then it holds",
                    table="guardrails.prometheus",
                )
            found.append((whole, bad or 0.0))  # a counter of what never was may not be there
        self.ports.looks.keep(service, experiment, arms, Look(0, rule.name, at, found[0], found[1]))


def late(seconds: float) -> BranchlineError:
    """What a person is told of a Prometheus that does not answer."""
    return QueryFailed(f"it was asked {seconds:.0f} s ago; nothing else waits for it", table="guardrails.prometheus")
