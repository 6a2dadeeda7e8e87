"""This file gathers all that is recorded of one experiment into its dossier, one document that suffices by itself.

Only what is recorded is read: the history, the catalog, exposures and outcomes, the service file and the log of the
judged commit. No clock is told and nothing is counted that could still grow, so the same record gives the same bytes.
What the verdict rests on is what had matured when it was recorded: the first moment at which it follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from branchline.core import dossier
from branchline.core.arms import Arms, judged
from branchline.core.counters import Bucket
from branchline.core.decision import Judgement, Plan
from branchline.core.dossier_words import sentence
from branchline.core.revision import Revision, StepRun
from branchline.core.service import PREPARING, SERVING, Candidate, Phase, Service
from branchline.core.terms import Terms, decided
from branchline.core.tracking import MOST, Query, as_made
from branchline.core.verdict import Verdict
from branchline.core.waiting import replaced
from branchline.engine.asking import Desk
from branchline.engine.measurement import Measurement, plan_of, terms_of
from branchline.engine.preparing import governed_spec, spec_at
from branchline.engine.reading import moment
from branchline.engine.recalling import about, attributed, gate_documents, hypothesis_of
from branchline.engine.rejudging import Recorded, news, spent_of
from branchline.engine.replaying import History, splits_of, states
from branchline.engine.surveying import capped, glance
from branchline.engine.telling import override_of, reason_of
from branchline.ports import Entry, Ports, Seen, Tally

Document = dict[str, Any]
COMMITS = 50
JUDGED = tuple(dossier.SIDES)
BY_ITSELF = "branchline"
BY_HAND = ("Aborted", "Withdrew", "Overrode")
AGREED = ("Approved",)
OVERRODE = ("Aborted", "Withdrew", "Overrode", "Kept", "Ramped", "Extended", "RolledBack")
TERMS = ("min_seconds", "max_seconds", "canary_seconds", "canary_requests")
UNDER_TEST = (Phase.TESTING, Phase.CANARY, Phase.WON)


@dataclass(slots=True)
class Witness(Measurement):
    """A measurement that notes, too, what its guardrails have counted: so they can be reckoned again from the notes."""

    bads: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    counted: dict[str, list[int]] = field(default_factory=dict)
    buckets: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    table: int = 0

    def count(self, tally: Tally) -> None:
        """Take one request in."""
        self.table = tally.table
        Measurement.count(self, tally)

    def see(self, unit: Seen) -> bool:
        """Take one matured unit in."""
        self.table = unit.stratum
        return Measurement.see(self, unit)

    def _guard(self, name: str, arm: str, bad: bool, share: float | None) -> None:
        place = self.guards[name].buckets
        Measurement._guard(self, name, arm, bad, share)
        if self.guards[name].buckets > place:
            mine = int(arm == self.challenger)
            self.counted.setdefault(name, [0, 0])[mine] += 1
            if bad:
                self.bads.setdefault(name, []).append((place, mine, self.table))

    def _bucket(self, name: str, bucket: Bucket) -> None:
        place = self.guards[name].buckets
        Measurement._bucket(self, name, bucket)
        asked = self.counted.setdefault(name, [0, 0])
        asked[:] = asked[0] + bucket[0], asked[1] + bucket[2]
        noted = self.buckets.setdefault(name, [])
        if bucket[1] or bucket[3]:
            noted.append((place, *bucket))


@dataclass(slots=True)
class Dossiers:
    """Makes dossiers."""

    ports: Ports
    desk: Desk

    def dossier(self, reference: str) -> Document:
        """The dossier of an experiment, ended or not; raises UnknownReference for what was never built.

        Raises NothingToDo where the history cannot be followed any more.
        """
        revision = self.desk.revision(reference)
        return self.of(revision, states(self.ports, revision.service))

    def ended(self, history: History) -> Iterator[tuple[str, int]]:
        """Every commit whose experiment is concluded, with the number of the last entry that was about it; who is under
        test again is not over.
        """
        before = {entry.number: state for (_, state), (entry, _) in pairwise(history)}
        now = [each for _, state in history[-1:] for each in state.candidates]
        busy = {each.revision for each in now if each.phase in PREPARING | SERVING}
        mine: dict[str, list[Entry]] = {}
        for commit, entry in attributed(entry for entry, _ in history):
            mine.setdefault(commit, []).append(entry)
        last = dict(rolled_back(history))
        for commit, entries in mine.items():
            if commit and commit not in busy and verdict_of(entries, before):
                yield commit, max(entries[-1].number, last[commit].number if commit in last else 0)

    def of(self, revision: Revision, history: History) -> Document:
        """The dossier of a revision, by the history of its service."""
        told = [entry for entry, _ in history]
        mine = list(about(told, revision.commit))
        before = self._before(history, {entry.number for entry in mine})
        verdict = verdict_of(mine, before)
        state = self._state(history, revision, before, verdict)
        candidate = candidate_of(state, revision)
        control = replaced(state, candidate) if candidate else None
        control = None if control == revision.commit else control
        test = self._test(history, revision, candidate, control, verdict)
        measured = self._measured(test) if test else None
        taken_back = [entry for commit, entry in rolled_back(history) if commit == revision.commit]
        own = {entry.number for entry in (*mine, *taken_back)}
        # Whoever serves next changes no dossier of who is concluded: its state is what its own last entry left.
        after = next(left for entry, left in reversed(history) if not verdict or entry.number in own)
        document = {
            "schema": dossier.SCHEMA,
            **self._subject(revision, control, after, candidate),
            **self._made(revision),
            "commits": self._commits(revision, control),
            "hypothesis": hypothesis_of(self.ports, revision.service, revision.commit, control or ""),
            "declaration": self._declaration(test, revision),
            "measurement": measured,
            "segments": list(self._segments(test)) if test else [],
            "timeline": [event_document(entry) for entry in sorted((*mine, *taken_back), key=lambda e: e.number)],
            "verdict": verdict and {**event_document(verdict), "chain": verdict.chain},
        }
        document["cost"] = cost_of(document, verdict)
        return dossier.sealed({**document, "sentence": sentence(document)})

    def _before(self, history: History, numbers: set[int]) -> dict[int, Service]:
        """The state that each of these entries met."""
        return {entry.number: state for (_, state), (entry, _) in pairwise(history) if entry.number in numbers}

    def _state(
        self, history: History, revision: Revision, before: Mapping[int, Service], verdict: Entry | None
    ) -> Service:
        """The state in which it was judged: as its verdict met it; of who is under test as it is now; of any other as
        the last thing that happened to it met it.
        """
        now = history[-1][1]
        candidate = candidate_of(now, revision)
        if verdict is None and candidate is not None and candidate.phase in UNDER_TEST:
            return now
        return before[verdict.number if verdict else max(before)] if before else now

    def _subject(
        self, revision: Revision, control: str | None, after: Service, candidate: Candidate | None
    ) -> Document:
        """Who this is about, against whom, and what has become of it."""
        versions = {each.commit: each.version for each in self.ports.catalog.revisions(revision.service)}
        owner = candidate_of(after, revision)
        return {
            "service": revision.service,
            "branch": revision.branch,
            "version": revision.version,
            "author": revision.author,
            "method": candidate.method.value if candidate else "",
            "state": owner.phase.value if owner else "",
            "replaces": {"version": versions.get(control, ""), "commit": control} if control else None,
        }

    def _made(self, revision: Revision) -> Document:
        """What it was made of, what its gates found, what was run for it, which commits it brings."""
        ports, name, commit = self.ports, revision.service, revision.commit
        runs = ports.catalog.runs(Query(name, commit=commit, limit=MOST))
        steps = as_made(ports.catalog.run(name, commit), runs)
        hashes = {name: getattr(revision, name) for name in ("commit", "tree", "environment", "sdk", "trained")}
        return {
            "built": moment(revision.built),
            "hashes": {**hashes, "artifacts": dict(revision.artifacts)},
            "data": dict(revision.data),
            "gates": gate_documents(ports.catalog.gates(name, commit)),
            "steps": [step_document(each) for each in steps],
        }

    def _commits(self, revision: Revision, control: str | None) -> list[Document]:
        """The commits that it brings, the newest first."""
        closure = spec_at(self.ports, revision.service, revision.commit).closure
        log = self.ports.repository.log(control or "", revision.commit, closure, limit=COMMITS)
        return [{name: each[name] for name in ("commit", "author", "at", "subject")} for each in log]

    def _declaration(self, test: Recorded | None, revision: Revision) -> Document:
        """What was declared: of who was measured together with the policy that held, else as its file says."""
        spec = test.spec if test else spec_at(self.ports, revision.service, revision.commit)
        rollout = asdict(spec.rollout)
        return {
            "kind": spec.kind,
            "metric": asdict(spec.metric) if spec.metric else None,
            "guardrails": asdict(spec.guardrails),
            "rollout": {
                name: rollout[name] for name in (*TERMS, "slots", "share", "slice", "approval", "unit", "harm_budget")
            },
        }

    def _test(
        self,
        history: History,
        revision: Revision,
        candidate: Candidate | None,
        control: str | None,
        ended: Entry | None,
    ) -> Recorded | None:
        """What was measured of it as a candidate, None when nobody ever met it as such."""
        if candidate is None or control is None or not (ended or candidate.phase in UNDER_TEST):
            return None
        until = ended.at if ended else self.ports.clock.now()
        rows = [each for each in self.ports.observations.exposed(revision.service) if each.began <= until]
        experiment = next((each.experiment for each in reversed(rows) if each.arm == revision.commit), "")
        mine = [each for each in rows if each.experiment == experiment]
        if not experiment:
            return None
        spec = governed_spec(self.ports, revision.service, revision.commit, control)
        splits = splits_of(history, mine, control, candidate)
        return Recorded(revision.service, candidate, control, experiment, spec, splits, until, ended)

    def _measured(self, test: Recorded) -> Document:
        """All that the verdict rests on."""
        candidate, spec = test.candidate, test.spec
        declared = plan_of(spec, candidate)
        plan = capped(self.ports, test.service, test.experiment, test.control, spec.metric, declared) or Plan(mde=1.0)
        seen = Witness(test.control, candidate.revision, plan, spec.metric, spec.guardrails)
        seen.splits.update(test.splits)
        counted = self.ports.observations.counts(test.service, test.experiment, until=test.until)
        seen.total(counted)
        terms = terms_of(test.spec.rollout, test.candidate)
        series, at, found = played(self.ports, test, seen, terms)
        arms = (test.control, candidate.revision)
        glance(self.ports, test.service, test.experiment, arms, spec.metric, seen.beside, at)
        strata = dossier.sums_document(seen.strata)
        counts = {name: getattr(seen, name) for name in ("units", "crossed", "requests", "stepped_in")}
        versions = {each.commit: each.version for each in self.ports.catalog.revisions(test.service)}
        document: Document = {
            "experiment": test.experiment,
            "arms": [arm_document(test, each, versions, counted) for each in (test.control, candidate.revision)],
            "began": moment(seen.began) if seen.began is not None else "",
            "until": moment(at),
            "lasted": seen.lasted(at),
            "terms": asdict(replace(terms, spent=spent_of(test.ended))),
            "plan": dossier.plan_document(plan),
            "splits": {str(table): list(split) for table, split in test.splits.items()},
            "sums": strata,
            "exposed": {str(table): list(each) for table, each in seen.exposed.items()},
            "reported": {str(table): list(each) for table, each in seen.reported.items()},
            "dropping": spec.metric is not None and spec.metric.unreported is None,
            "counts": {**counts, "tables": len(seen.tables)},
            "series": series,
            "guards": {
                name: dossier.guard_document(
                    guard, seen.counted.get(name, (0, 0)), seen.bads.get(name, ()), seen.buckets.get(name)
                )
                for name, guard in seen.guards.items()
            },
            "watched": dossier.watched_document(seen.beside),
            "slow_above": seen.slowness.limit if seen.slowness else None,
            "answer": dossier.answer_document(*found),
        }
        if silent := seen.silent(at):
            document["silent"] = silent
        document["mismatch"] = list(dossier.mismatch_of(document))
        return document

    def _segments(self, test: Recorded) -> Iterator[Document]:
        """Every experiment in which it was tried; only the last one was judged, the others are to look at."""
        rows = [each for each in self.ports.observations.exposed(test.service) if each.began <= test.until]
        names = dict.fromkeys(each.experiment for each in rows if each.arm == test.candidate.revision)
        for name in names:
            mine = [each for each in rows if each.experiment == name]
            counted = self.ports.observations.counts(test.service, name, until=test.until)
            yield {
                "experiment": name,
                "began": moment(min(each.began for each in mine)),
                "units": sum(each["units"] for arm, each in counted.items() if arm),
                "tables": len({each.table for each in mine}),
                "exploratory": name != test.experiment,
            }


def verdict_of(mine: Sequence[Entry], before: Mapping[int, Service]) -> Entry | None:
    """What ended it: the judge's verdict, or a person's word while it was on its way; closing what rests is neither."""
    for entry in reversed(mine):
        if entry.event in JUDGED:
            return entry
        if entry.event in BY_HAND and phase_of(before.get(entry.number), entry) in PREPARING | SERVING:
            return entry
        if entry.event == "Extended":
            return None
    return None


def phase_of(state: Service | None, entry: Entry) -> Phase | None:
    """Where the candidate that an entry is about was."""
    branch = entry.detail.get("branch")
    return next((each.phase for each in state.candidates if each.branch == branch), None) if state else None


def candidate_of(state: Service, revision: Revision) -> Candidate | None:
    """The candidate that a revision is or was in a state: its owner."""
    return state.owner(revision.commit)


def rolled_back(history: History) -> Iterator[tuple[str, Entry]]:
    """Every incumbent that was taken back, with the entry that did it."""
    for (_, before), (entry, _) in pairwise(history):
        if entry.event == "RolledBack":
            yield before.line(int(entry.detail.get("line", 1))).incumbent or "", entry


def played(
    ports: Ports, test: Recorded, seen: Witness, terms: Terms
) -> tuple[list[Document], float, tuple[Judgement | None, Verdict]]:
    """Take in all that had matured until the recorded verdict follows: the picture, the moment, and what was found.

    Without one, or if it never follows, until the end.
    """
    plan = seen.plan or Plan(mde=1.0)
    side = dossier.SIDES.get(test.ended.event) if test.ended and test.candidate.phase is not Phase.WON else None
    points: list[tuple[float, dict[int, Arms]]] = []

    def found_at(at: float, terms: Terms) -> tuple[Judgement | None, Verdict]:
        strata = [each for _, each in sorted(seen.strata.items())]
        return decided(terms, plan, strata, seen.guards, seen.invalid(), seen.lasted(at), seen.silent(at))

    for at in news(ports, test, seen):
        if terms.effect and seen.strata:
            points.append((at, dict(seen.strata)))
        if side is not None:
            found = found_at(at, terms)
            if found[1].side is side:
                return series_of(points, plan), at, found
    return series_of(points, plan), test.until, found_at(test.until, replace(terms, spent=spent_of(test.ended)))


def series_of(points: Sequence[tuple[float, Mapping[int, Arms]]], plan: Plan) -> list[Document]:
    """The picture's points, thinned: of each the moment, the estimate with its interval, and the sums below it."""
    looks = [
        (at, strata, judged([each for _, each in sorted(strata.items())], plan))
        for at, strata in dossier.thinned(points)
    ]
    return [
        {**dossier.point_document(judgement), "sums": dossier.sums_document(strata), "at": moment(at)}
        for at, strata, judgement in looks
        if judgement.units
    ]


def arm_document(
    test: Recorded, commit: str, versions: Mapping[str, str], counts: Mapping[str, Mapping[str, int]]
) -> Document:
    """One arm, and what was counted of it until the verdict."""
    counted = counts.get(commit, {})
    kinds = ("units", "requests", "bad", "stepped_in", "outcomes")
    return {
        "role": "challenger" if commit == test.candidate.revision else "incumbent",
        "commit": commit,
        "version": versions.get(commit, ""),
        **{kind: counted.get(kind, 0) for kind in kinds},
    }


def step_document(run: StepRun) -> Document:
    """What became of a step, in brief."""
    names = ("state", "why", "summary", "artifact", "at", "seconds", "cpu", "peak")
    return {"name": run.name, **{name: getattr(run, name) for name in names}}


def event_document(entry: Entry) -> Document:
    """An entry of the history: what happened, who did it and why, and whether a person agreed or overrode."""
    by_hand = entry.event != "Ramped" or entry.actor != BY_ITSELF
    kind = "agreed" if entry.event in AGREED else "overrode" if entry.event in OVERRODE and by_hand else ""
    return {
        "number": entry.number,
        "event": entry.event,
        "at": moment(entry.at),
        "actor": entry.actor,
        "reason": reason_of(entry),
        "share": entry.detail.get("share"),
        "side": entry.detail.get("side"),
        "kind": kind,
        **override_of(entry),
    }


def cost_of(document: Document, verdict: Entry | None) -> Document:
    """What it cost, as far as it is recorded: what was run for it, and who met the arm that did not stay."""
    ran = [step for step in document["steps"] if step["state"] == "ran"]
    found: Document = {
        "build": {"steps": len(ran), "seconds": sum(s["seconds"] for s in ran), "cpu": sum(s["cpu"] for s in ran)},
        "gates": {"seconds": sum(gate["seconds"] for gate in document["gates"])},
        "losing": None,
    }
    measured = document["measurement"]
    if measured and verdict:
        arm = measured["arms"][0 if verdict.event == "Won" or verdict.detail.get("side") == "challenger" else 1]
        answer = measured["answer"]
        sign = -1 if arm["role"] == "incumbent" else 1
        ends = [answer.get(name) for name in ("estimate", "low", "high")]
        told = None if None in ends or not answer["judged"] else [sign * each * arm["units"] for each in ends]
        found["losing"] = {
            **{name: arm[name] for name in ("role", "version", "units", "requests", "bad")},
            "seconds": measured["lasted"],
            "effect": told and [told[0], *sorted(told[1:])],
        }
    return found
