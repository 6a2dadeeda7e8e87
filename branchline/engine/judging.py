"""This file looks at live traffic and records verdicts: at every request and every matured outcome, in order.

What was seen is replayed from the ledger after a restart in the same order, so a restart changes no verdict.
Exposures and verdicts use the *assigned* arm (intention to treat). Units enter when their window has closed, once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from branchline.core import lifecycle as law
from branchline.core.arms import Arms, added, means
from branchline.core.counters import STALE, Bucket, Look, grown
from branchline.core.decision import Judgement, Plan, error_rate
from branchline.core.evidence import Stratum
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.harm import Advice, advised
from branchline.core.ratios import MIN_UNITS
from branchline.core.service import Candidate, Method, Phase, Service
from branchline.core.slowness import Slowness
from branchline.core.spec import Guardrails, Metric, Rollout, Spec
from branchline.core.terms import Terms, asked, decided, incomparable, mismatches
from branchline.core.verdict import Cause, Side, Verdict
from branchline.core.waiting import replaced
from branchline.core.watched import Watched
from branchline.core.world import policy_of
from branchline.engine.observing import Observer
from branchline.engine.preparing import governed_spec
from branchline.engine.progress import Progress
from branchline.engine.recording import Recorder
from branchline.engine.replaying import splits_of, states
from branchline.engine.surveying import capped, glance, read_of
from branchline.errors import IllegalMove, NothingToDo
from branchline.ports import Ports, Seen, Shown, Tally

NOTHING = Metric("", window=0.0)  # where none is declared
SLOW = "slow requests"
BUCKETS_PER_TICK = 25  # a bucket is one request or one outcome: the planned restarts are spread over 1,500 of them


@dataclass(slots=True)
class Measurement:
    """What was seen of one candidate against one incumbent, and what follows from it; `far` is how far a canary is,
    `met` how many units have met it, `cost` what it has cost on a harm budget.
    """

    control: str
    challenger: str
    plan: Plan | None
    metric: Metric | None
    limits: Guardrails
    strata: dict[int, Arms] = field(default_factory=dict)
    exposed: dict[int, tuple[int, int]] = field(default_factory=dict)
    reported: dict[int, tuple[int, int]] = field(default_factory=dict)
    splits: dict[int, tuple[float, float]] = field(default_factory=dict)
    guards: dict[str, Guard] = field(default_factory=dict)
    judgement: Judgement | None = None
    verdict: Verdict | None = None
    seen: int = 0
    tallied: int = 0
    began: float | None = None
    tables: set[int] = field(default_factory=set)
    units: int = 0
    crossed: int = 0
    requests: int = 0
    stepped_in: int = 0
    met: int = 0
    cost: Advice | None = None
    far: str = ""
    slowness: Slowness | None = None
    looked: int = 0
    looks: dict[str, Look] = field(default_factory=dict)
    beside: dict[str, Watched] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rule = Guardrail(tolerated=self.limits.tolerated_ratio, tick=BUCKETS_PER_TICK)
        if self.limits.failed_requests:
            self.guards["failed requests"] = Guard(rule)
        if self.limits.bad_outcome_above is not None or self.limits.bad_outcome_below is not None:
            self.guards["bad outcomes"] = Guard(rule)
        if self.limits.slow_quantile or self.limits.slow_above is not None:
            self.guards[SLOW], self.slowness = Guard(rule), Slowness(self.limits.slow_quantile, self.limits.slow_above)
        for each in self.limits.prometheus:
            self.guards[each.name] = Guard(Guardrail(tolerated=self.limits.tolerated_ratio))

    def lasted(self, now: float) -> float:
        """Seconds since its first request."""
        return 0.0 if self.began is None else now - self.began

    def share(self, table: int) -> float | None:
        """The challenger's part of what both arms get under a table, if the table is known."""
        split = self.splits.get(table)
        return split[1] / (split[0] + split[1]) if split and all(split) else None

    def count(self, tally: Tally) -> None:
        """Take one request into the guardrails on failed and on slow requests."""
        self.tallied = tally.order
        self.tables.add(tally.table)
        self.began = tally.at if self.began is None else self.began
        if "failed requests" in self.guards:
            self._guard("failed requests", tally.arm, tally.bad, self.share(tally.table))
        if self.slowness and tally.seconds is not None and tally.arm in (self.control, self.challenger):
            slow = self.slowness.take(tally.unit, tally.seconds, mine=tally.arm == self.challenger)
            if slow is not None:
                self._guard(SLOW, tally.arm, slow, self.share(tally.table))

    def see(self, unit: Seen) -> bool:
        """Take one matured unit into the conclusion and into the guardrail on bad outcomes; says whether it counts."""
        self.seen = unit.order
        if unit.arm not in (self.control, self.challenger):
            return False
        mine = unit.arm == self.challenger
        n0, n1 = self.exposed.get(unit.stratum, (0, 0))
        self.exposed[unit.stratum] = (n0 + (not mine), n1 + mine)
        read = read_of(self.metric or NOTHING, unit)
        if read is None:
            return False
        r0, r1 = self.reported.get(unit.stratum, (0, 0))
        self.reported[unit.stratum] = (r0 + (not mine), r1 + mine)
        if "bad outcomes" in self.guards:
            self._guard("bad outcomes", unit.arm, self._is_bad(*read), self.share(unit.stratum))
        self.strata[unit.stratum] = added(self.strata.get(unit.stratum), self.plan, mine, *read)
        return True

    def look(self, look: Look) -> bool:
        """Take what others' counters stood at into their guardrail; says whether that says anything."""
        self.looked = look.order
        before, self.looks[look.guardrail] = self.looks.get(look.guardrail), look
        bucket = grown(before, look) if before and look.guardrail in self.guards else None
        if bucket:
            self._bucket(look.guardrail, bucket)
        return bucket is not None

    def _bucket(self, name: str, bucket: Bucket) -> None:
        self.guards[name] = self.guards[name].update(*bucket)

    def silent(self, now: float) -> str:
        """Which guardrails have no data, '' when all have: none since the test began, or none of late."""
        missing = [
            each.name for each in self.limits.prometheus
            if not self.guards[each.name].requests or now - self.looks[each.name].at > STALE * each.every
        ]  # fmt: skip
        return f"guardrail {', '.join(missing)} has no data" if missing else ""

    def total(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Take in what is counted of the whole experiment, by arm: units in both, and who stepped in how often."""
        self.crossed = counts.get("", {}).get("both", 0)
        self.units = sum(each["units"] for arm, each in counts.items() if arm)
        mine = counts.get(self.challenger, {})
        self.met = mine.get("units", 0) + self.crossed
        self.requests, self.stepped_in = mine.get("requests", 0), mine.get("stepped_in", 0)

    def _is_bad(self, value: float, other: float) -> bool:
        """Whether an outcome is a bad one; of a ratio each unit's own is meant, if it has one."""
        if self.metric is not None and self.metric.kind == "ratio":
            if not other:
                return False
            value /= other
        above, below = self.limits.bad_outcome_above, self.limits.bad_outcome_below
        return (above is not None and value > above) or (below is not None and value < below)

    def _guard(self, name: str, arm: str, bad: bool, share: float | None) -> None:
        if arm == self.challenger:
            self.guards[name] = self.guards[name].update(0, 0, 1, int(bad), share=share)
        elif arm == self.control:
            self.guards[name] = self.guards[name].update(1, int(bad), 0, 0, share=share)

    @property
    def breached(self) -> list[str]:
        """The guardrails that were."""
        return [name for name, guard in self.guards.items() if guard.breached]

    def invalid(self) -> str:
        """Why the arms cannot be compared, '' when they can.

        What was counted of all units is held against all units, not against those that have matured: a restart, which
        sees the same totals earlier, must not find more.
        """
        dropping = self.metric is not None and self.metric.unreported is None
        ratio, reporting = mismatches(self.exposed, self.reported, self.splits, dropping=dropping)
        return incomparable(
            ratio, reporting, units=self.units, crossed=self.crossed, tables=len(self.tables), requests=self.requests,
            stepped_in=self.stepped_in,
        )  # fmt: skip


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


def concluded(seen: Measurement, rollout: Rollout, candidate: Candidate, now: float, spent: str = "") -> Verdict:
    """The verdict on what was seen, as of a moment, perhaps because it may not go on; nothing is recorded."""
    terms = replace(terms_of(rollout, candidate), spent=spent)
    plan, strata = seen.plan or Plan(mde=1.0), list(seen.strata.values())
    seen.judgement, verdict = decided(
        terms, plan, strata, seen.guards, seen.invalid(), seen.lasted(now), seen.silent(now)
    )
    return verdict


def terms_of(rollout: Rollout, candidate: Candidate) -> Terms:
    """How long a candidate is to be measured."""
    return Terms(
        candidate.method is Method.AB_TEST, candidate.extended, rollout.min_seconds, rollout.max_seconds,
        rollout.canary_seconds, rollout.canary_requests,
    )  # fmt: skip


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


def plan_of(spec: Spec, tried: Candidate) -> Plan | None:
    """The plan of the test: the declared metric, and its part of the error rate among the slots of when it was seated,
    halved for each time that the same was tried before.

    Seated 0: it has not been, or before this was remembered; then the rate is undivided. Extended, it has no end.
    """
    metric = spec.metric
    if metric is None or not (metric.mde or metric.margin):
        return None
    alpha = error_rate(challengers=max(tried.seated, 1), repeats=tried.repeats)
    plan = Plan(
        metric.direction, metric.mde or 0.0, metric.margin or 0.0, alpha, bounds=metric.bounds, cap=metric.cap,
        form=metric.form, min_units=MIN_UNITS if metric.form == "ratio" else 100,
    )  # fmt: skip
    return plan if tried.extended else replace(plan, max_information=3 * plan.planned_information)


def shares_now(shown: Shown) -> Mapping[str, float]:
    """Buckets by revision under the table that is shown."""
    held: dict[str, float] = {}
    for revision, buckets in shown.segments:
        held[revision] = held.get(revision, 0.0) + buckets
    return held
