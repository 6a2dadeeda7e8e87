"""This file keeps what was seen of one candidate against one incumbent, and says what follows from it.

Rules. Nothing is looked up here: whoever goes through what was recorded, the judge or who judges again, gives it in
order, and finds the same. The terms and the plan of a test follow from what its revision declared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from branchline.core.arms import Arms, added
from branchline.core.counters import STALE, Bucket, Look, grown
from branchline.core.decision import Judgement, Plan, error_rate
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.harm import Advice
from branchline.core.ratios import MIN_UNITS
from branchline.core.service import Candidate, Method
from branchline.core.slowness import Slowness
from branchline.core.spec import Guardrails, Metric, Rollout, Spec
from branchline.core.terms import Terms, decided, incomparable, mismatches
from branchline.core.verdict import Verdict
from branchline.core.watched import Watched
from branchline.engine.surveying import read_of
from branchline.ports import Seen, Tally

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
