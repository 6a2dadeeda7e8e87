"""This file looks at live traffic and records verdicts: at every request and every matured outcome, in order.

What was seen is replayed from the ledger after a restart in the same order, so a restart changes no verdict.
Exposures and verdicts use the *assigned* arm (intention to treat). Units enter when their window has closed, once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from branchline.core import lifecycle as law
from branchline.core.arms import means
from branchline.core.evidence import Stratum
from branchline.core.harm import advised
from branchline.core.service import Candidate, Method, Phase, Service
from branchline.core.spec import Spec
from branchline.core.terms import asked
from branchline.core.verdict import Cause, Side, Verdict
from branchline.core.waiting import replaced
from branchline.core.world import policy_of
from branchline.engine.measurement import NOTHING, Measurement, concluded, plan_of
from branchline.engine.observing import Observer
from branchline.engine.preparing import governed_spec
from branchline.engine.progress import Progress
from branchline.engine.recording import Recorder
from branchline.engine.replaying import splits_of, states
from branchline.engine.surveying import capped, glance
from branchline.errors import IllegalMove, NothingToDo
from branchline.ports import Ports, Shown


@dataclass(slots=True)
class Judge:
    """Judges whoever is under test or in a canary."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    progress: Progress
    measurements: dict[tuple[str, str], tuple[tuple[object, ...], Measurement]] = field(default_factory=dict)

    def look(self, name: str) -> bool:
        """Look at all that is new of a service; says whether a verdict was recorded."""
        service = self.recorder.service(name)
        shown = self.ports.router.shown(name)
        done = False
        for candidate in service.candidates:
            line = shown.get(candidate.line)
            if line is None or candidate.revision not in dict(line.shares):
                continue  # it has no traffic yet
            if candidate.phase in (Phase.TESTING, Phase.CANARY):
                done |= self._look_at(service, candidate, line)
            elif candidate.phase is Phase.WON:
                done |= self._guard_won(service, candidate, line)
        return done

    def measurement(self, service: Service, candidate: Candidate, shown: Shown) -> tuple[Spec, Measurement]:
        """What was seen of a candidate in its segment; begun anew when either side of the comparison has changed."""
        trunk = self.observer.refs.get(policy_of(service, candidate.line), "")
        spec = governed_spec(self.ports, service.name, candidate.revision, trunk)
        control = replaced(service, candidate) or ""
        plan = plan_of(spec, candidate)
        identity = (candidate.revision, candidate.segment, control, shown.experiment, plan)
        known = self.measurements.get((service.name, candidate.branch))
        if known is None or known[0] != identity:
            found = Measurement(control, candidate.revision, plan, spec.metric, spec.guardrails)
            found.splits.update(self._splits(service.name, candidate, control, shown.experiment))
            known = self.measurements[service.name, candidate.branch] = (identity, found)
        shares = shares_now(shown)
        if control in shares and candidate.revision in shares:
            known[1].splits[shown.table] = (shares[control], shares[candidate.revision])
        return spec, known[1]

    def _splits(self, name: str, candidate: Candidate, control: str, experiment: str) -> dict[int, tuple[float, float]]:
        """How the traffic was split under the tables that there were before: a ramp, or a restart, forgets none."""
        rows = [each for each in self.ports.observations.exposed(name) if each.experiment == experiment]
        with contextlib.suppress(NothingToDo):  # recorded by another version: only what is shown now is known
            return splits_of(states(self.ports, name) if rows else [], rows, control, candidate)
        return {}

    def _look_at(self, service: Service, candidate: Candidate, shown: Shown) -> bool:
        spec, seen = self.measurement(service, candidate, shown)
        arms, until = (seen.control, seen.challenger), self.ports.clock.now()
        glance(self.ports, service.name, shown.experiment, arms, spec.metric, seen.beside, until)
        for moment in self._news(service, spec, seen, shown):
            if self._conclude(service, candidate, spec, seen, moment):
                return True
        now = self.ports.clock.now()
        return self._conclude(service, candidate, spec, seen, now) or self._keep_to_budget(
            service, candidate, spec, seen, shown.table, now
        )

    def _keep_to_budget(
        self, service: Service, candidate: Candidate, spec: Spec, seen: Measurement, table: int, now: float
    ) -> bool:
        """Give who is on a harm budget the share that all its evidence allows; end its test where it is spent."""
        rollout, metric = spec.rollout, spec.metric
        if not rollout.harm_budget or candidate.method is not Method.AB_TEST or seen.plan is None or metric is None:
            return False
        lasted = seen.lasted(now)
        seen.cost = advice = advised(
            rollout.harm_budget, service.slots, candidate.share, [means(each) for each in seen.strata.values()],
            means(seen.strata.get(table, Stratum())), seen.plan, units=seen.met,
            pace=seen.units / lasted if lasted else 0.0, window=metric.window,
        )  # fmt: skip
        if not advice.share:
            seen.verdict = concluded(seen, rollout, candidate, now, spent=advice.reason)
            event = event_of(candidate, seen.verdict)
            return event is not None and self._record(service, event, seen.verdict.text)
        if advice.share == candidate.share or (service.frozen and advice.share > candidate.share):
            return False
        ramped = law.Ramped(candidate.branch, share=advice.share, reason=advice.reason)
        return self._record(service, ramped, advice.reason, "share")

    def _news(self, service: Service, spec: Spec, seen: Measurement, shown: Shown) -> Iterator[float]:
        """Take in what is new, in order, and yield the moment of each thing that may decide."""
        observations, experiment = self.ports.observations, shown.experiment
        seen.total(observations.counts(service.name, experiment))
        for tally in observations.requests(service.name, experiment, after=seen.tallied):
            seen.count(tally)
            if seen.breached:
                yield tally.at
        arms = seen.control, seen.challenger
        read = spec.guardrails.prometheus  # else nobody looks: the ledger need not be asked
        for look in self.ports.looks.since(service.name, experiment, arms, seen.looked) if read else ():
            if seen.look(look) and seen.breached:
                yield look.at
        metric, until = spec.metric or NOTHING, self.ports.clock.now()
        for unit in observations.matured(
            service.name, experiment, after=seen.seen, until=until, window=metric.window, pooled=metric.pooled
        ):
            if not seen.seen:
                seen.plan = capped(self.ports, service.name, experiment, seen.control, spec.metric, seen.plan)
            if seen.see(unit):
                yield unit.at + metric.window

    def _guard_won(self, service: Service, candidate: Candidate, shown: Shown) -> bool:
        """Guardrails live in every waiting state: who has won but waits can still breach."""
        spec, seen = self.measurement(service, candidate, shown)
        for _ in self._news(service, spec, seen, shown):
            if seen.breached:
                return self._record(service, law.Breached(candidate.branch, reason=", ".join(seen.breached)), "")
        return False

    def _conclude(self, service: Service, candidate: Candidate, spec: Spec, seen: Measurement, now: float) -> bool:
        """Judge as of a moment: time is that of what was seen, so that a replay finds the same."""
        rollout = spec.rollout
        if candidate.method is not Method.AB_TEST:
            far, requests = (
                min(seen.lasted(now), rollout.canary_seconds),
                min(asked(seen.guards), rollout.canary_requests),
            )
            seen.far = (
                f"{far:.0f} s of {rollout.canary_seconds:.0f} s, {requests} of {rollout.canary_requests} requests"
            )
        seen.verdict = concluded(seen, rollout, candidate, now)
        event = event_of(candidate, seen.verdict)
        return event is not None and self._record(service, event, seen.verdict.text)

    def _record(self, service: Service, event: law.BranchEvent, text: str, word: str = "verdict") -> bool:
        try:
            self.recorder.record(service.name, event, because=in_one_line(text))
        except IllegalMove:
            return False
        self.progress.note(service.name, event.branch, "ok", word, text)
        return True


def in_one_line(text: str) -> str:
    """A verdict as the history has it: who stays and why, on how many outcomes, by how much."""
    return "; ".join(line.strip() for line in text.splitlines()[:3])


def event_of(candidate: Candidate, verdict: Verdict) -> law.BranchEvent | None:
    """The event that a verdict is, or None while there is none."""
    branch, reason = candidate.branch, verdict.text
    if verdict.cause in (Cause.ROLLBACK, Cause.FAILURE):
        return law.Breached(branch, reason=reason)
    match verdict.side:
        case Side.CHALLENGER:
            return law.Won(branch, reason=reason)
        case Side.INCUMBENT:
            return law.Lost(branch, reason=reason)
        case Side.INCONCLUSIVE:
            return law.Undecided(branch, reason=reason)
    return None


def shares_now(shown: Shown) -> Mapping[str, float]:
    """Buckets by revision under the table that is shown."""
    held: dict[str, float] = {}
    for revision, buckets in shown.segments:
        held[revision] = held.get(revision, 0.0) + buckets
    return held
