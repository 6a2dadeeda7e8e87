"""This file judges a recorded A/B test again: by the same rule over the same outcomes, with other settings if wanted.

What was recorded is read and nothing is changed: no verdict, no evidence of the judge. Every state that the service was
in follows from its history by the law, so a test is judged with what was declared, seated and shared then. Outcomes
and requests are taken in the order of their moments, up to that of the recorded verdict. With the settings that it had
the recorded verdict is found again; with others, chosen by who has seen the outcomes, what is found proves nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from branchline.core.counters import Look
from branchline.core.harm import SPENT
from branchline.core.service import Candidate, Method, Phase, Service
from branchline.core.spec import Spec
from branchline.core.verdict import Verdict
from branchline.core.waiting import replaced
from branchline.engine.asking import Desk
from branchline.engine.measurement import NOTHING, Measurement, concluded, plan_of
from branchline.engine.preparing import governed_spec
from branchline.engine.reading import measurement_document, moment
from branchline.engine.replaying import splits_of, states
from branchline.engine.surveying import capped
from branchline.errors import NothingToDo, UsageError
from branchline.ports import Entry, Ports, Seen, Tally

Document = dict[str, Any]
SETTINGS = ("direction", "mde", "margin", "alpha", "beta")
EXPLORATORY = "exploratory: settings that are chosen with the outcomes known prove nothing; nothing is changed"


@dataclass(frozen=True, slots=True)
class Recorded:
    """An A/B test as it was recorded: who was tried against whom, as declared, until when, and what ended it."""

    service: str
    candidate: Candidate
    control: str
    experiment: str
    spec: Spec
    splits: Mapping[int, tuple[float, float]]
    until: float
    ended: Entry | None


def recorded(ports: Ports, desk: Desk, reference: str) -> Recorded:
    """The last A/B test of what a reference names; raises NothingToDo where there was none."""
    name, commit = desk.meant(reference)
    found = tested(ports, states(ports, name), name, commit)
    if found is None:
        why = "a first revision is not judged, a canary by its guardrails alone"
        raise NothingToDo(why, what=f"{reference} was in no A/B test", hint="branchline history")
    return found


def tested(ports: Ports, history: Sequence[tuple[Entry, Service]], name: str, commit: str) -> Recorded | None:
    """The last A/B test of a commit; None where there was none."""
    last: Service | None = None
    ended: Entry | None = None
    before = Service(name)
    for entry, state in history:
        if under_test(state, commit):
            last, ended = state, None
        elif under_test(before, commit):
            ended = entry
        before = state
    tried = under_test(last, commit) if last else None
    until = ended.at if ended else ports.clock.now()
    rows = [each for each in ports.observations.exposed(name) if each.began <= until]  # later it may be an incumbent
    experiment = next((each.experiment for each in reversed(rows) if each.arm == commit), "")
    if last is None or tried is None or not experiment:
        return None
    control = replaced(last, tried) or ""
    spec = governed_spec(ports, name, commit, control)
    mine = [each for each in rows if each.experiment == experiment]
    return Recorded(name, tried, control, experiment, spec, splits_of(history, mine, control, tried), until, ended)


def under_test(service: Service, commit: str) -> Candidate | None:
    """The candidate of a commit while it is in an A/B test, and nothing is decided."""
    tried = (each for each in service.candidates if each.revision == commit and each.method is Method.AB_TEST)
    return next((each for each in tried if each.phase is Phase.TESTING), None)


def again(ports: Ports, test: Recorded, settings: Mapping[str, Any]) -> tuple[Measurement, Verdict, float]:
    """Judge a recorded test with these settings in place of those it had: what was seen, the verdict, and its moment.

    Raises UsageError for settings that mean nothing.
    """
    metric, candidate = test.spec.metric, test.candidate
    had = plan_of(test.spec, candidate)
    if metric is None or had is None:
        raise NothingToDo(
            what=f"{candidate.branch} declares no metric with an mde or a margin: nothing was judged by it"
        )
    try:
        plan = replace(had, **asking(settings))
    except ValueError as error:
        raise UsageError(str(error), hint=f"branchline rejudge {candidate.branch}") from error
    if had.max_information is not None:
        plan = replace(plan, max_information=plan.planned_information * had.max_information / had.planned_information)
    cut = capped(ports, test.service, test.experiment, test.control, metric, plan)
    seen = Measurement(test.control, candidate.revision, cut, metric, test.spec.guardrails)
    seen.splits.update(test.splits)
    for at in news(ports, test, seen):
        verdict = concluded(seen, test.spec.rollout, candidate, at)
        if verdict.is_final:
            return seen, verdict, at
    seen.total(ports.observations.counts(test.service, test.experiment))
    return seen, concluded(seen, test.spec.rollout, candidate, test.until, spent=spent_of(test.ended)), test.until


def asking(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings with one effect at most: who asks for another in place of the one that was declared has that one alone.

    Raises ValueError for what no service file may declare.
    """
    effects = {name: settings[name] for name in ("mde", "margin") if name in settings}
    if len(effects) > 1:
        raise ValueError("mde asks for better, margin for no worse: give one of them")
    for name, effect in effects.items():
        if not effect > 0:
            raise ValueError(f"{name} {effect:g} is no effect: it has to be above 0")
    return {**settings, **({"mde": 0.0, "margin": 0.0} | effects if effects else {})}


def news(ports: Ports, test: Recorded, seen: Measurement) -> Iterator[float]:
    """Take in requests and matured units in the order of their moments; yield the moment of each that may decide."""
    observations = ports.observations
    tallies = observations.requests(test.service, test.experiment, after=0)
    metric = test.spec.metric or NOTHING
    window = metric.window
    units = observations.matured(
        test.service, test.experiment, after=0, until=test.until, window=window, pooled=metric.pooled
    )
    looks = ports.looks.since(test.service, test.experiment, (test.control, test.candidate.revision), 0)
    both: Iterator[tuple[float, Tally | Look | Seen]] = heapq.merge(
        ((each.at, each) for each in tallies), ((each.at, each) for each in looks),
        ((each.at + window, each) for each in units), key=lambda pair: pair[0],
    )  # fmt: skip
    for at, each in both:
        if at > test.until:
            return
        if isinstance(each, Seen):
            if seen.see(each):
                yield at
        elif isinstance(each, Look):
            if seen.look(each) and seen.breached:
                yield at
        else:
            seen.count(each)
            if seen.breached:
                yield at


def rejudged(ports: Ports, desk: Desk, reference: str, given: Mapping[str, Any]) -> Document:
    """A recorded test judged again, beside the verdict that it had; changes nothing."""
    test = recorded(ports, desk, reference)
    settings = {name: value for name, value in given.items() if name in SETTINGS and value is not None}
    seen, verdict, at = again(ports, test, settings)
    had = plan_of(test.spec, test.candidate)
    versions = {each.commit: each.version for each in ports.catalog.revisions(test.service)}
    was = reason_of(test.ended)
    return {
        "schema": "branchline.rejudge/1",
        "note": EXPLORATORY,
        "service": test.service,
        "branch": test.candidate.branch,
        "commit": test.candidate.revision,
        "version": versions.get(test.candidate.revision, ""),
        "against": versions.get(test.control, "") or test.control,
        "had": {name: value for name, value in asdict(had).items() if name in SETTINGS} if had else {},
        "settings": {name: value for name, value in asdict(seen.plan).items() if name in SETTINGS} if seen.plan else {},
        "recorded": {
            "event": test.ended.event if test.ended else "", "at": moment(test.ended.at) if test.ended else "",
            "text": was,
        },
        "measurement": measurement_document(seen),
        "verdict": {"side": str(verdict.side), "cause": str(verdict.cause), "reason": verdict.reason,
                    "text": verdict.text, "at": moment(at)},
        "same": was.splitlines()[:1] == verdict.text.splitlines()[:1],
        "identical": was == verdict.text,
    }  # fmt: skip


def spent_of(ended: Entry | None) -> str:
    """In which words a test was ended that had spent its harm budget; '' of any other."""
    first = reason_of(ended).partition("\n")[0].partition(";")[0].removeprefix("inconclusive: ")
    return first if first.startswith(SPENT) else ""


def reason_of(ended: Entry | None) -> str:
    """What a verdict was recorded with; '' while there is none."""
    return str(ended.detail.get("reason") or ended.because) if ended else ""
