"""This file forecasts A/B tests from recorded outcomes: how long one would take, and what the judge finds in none.

Nothing is recorded here. Traffic and spread are those of the tests there were, as far as they were judged by the same
metric; without enough of them a person says how much comes in a day, and the bounds say how far values can spread. An
A/A test gives the outcomes of one revision to two arms by lot, again and again, so whatever the judge claims is false.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from branchline.core.evidence import Answer, Plan, Stratum, Sums, judge
from branchline.core.planning import DAY, Outlook, fewest_units, lasting, number, proportion, told, widest
from branchline.core.service import Candidate
from branchline.core.spec import Metric, Rollout, Spec
from branchline.engine.judging import plan_of
from branchline.engine.preparing import method_of
from branchline.errors import NothingToDo, UnknownReference
from branchline.ports import Exposed, Ports

Document = dict[str, Any]
MOST_UNITS = 20_000  # the newest, and what is left of the test they are in
FEW = 30  # outcomes, of which fewer tell neither how many come nor how far they spread
SHORTEST = 60.0  # seconds of traffic, below which nothing is said of a day
CONFIDENCE = 0.95
LOOKS = 200  # at each re-split, at most
MOST_SPLIT = 10_000  # outcomes that are split again and again


@dataclass(frozen=True, slots=True)
class History:
    """What earlier tests saw: outcomes, the seconds they took, how many were of how many units, and their values by
    arm in the order of exposure.
    """

    tests: int
    units: int
    seconds: float
    values: Mapping[str, tuple[float, ...]]

    @property
    def sums(self) -> Sums:
        """All values together."""
        return Sums.of(value for values in self.values.values() for value in values)

    @property
    def sigma(self) -> float:
        """The standard deviation inside an arm; 0 where nothing can be said."""
        arms = [Sums.of(values) for values in self.values.values() if len(values) > 1]
        spare = sum(arm.n - 1 for arm in arms)
        return math.sqrt(sum(arm.spread for arm in arms) / spare) if spare else 0.0

    @property
    def per_day(self) -> float:
        """Outcomes in a day; 0 where nothing can be said."""
        return self.sums.n / self.seconds * DAY if self.seconds >= SHORTEST and self.sums.n >= FEW else 0.0


def history_of(ports: Ports, service: str, metric: Metric) -> History:
    """What the newest tests of a service saw that were judged by this metric."""
    found: dict[str, list[float]] = {}
    chosen = list(newest(ports, service, metric))
    units, missing = 0, 0.0 if metric.missing == "zero" else None
    for experiment, _ in reversed(chosen):
        for unit in ports.observations.matured(
            service, experiment, after=0, until=ports.clock.now(), window=metric.window
        ):
            value = missing if unit.value is None else unit.value
            units += 1
            if value is not None:
                found.setdefault(unit.arm, []).append(value)
    seconds = sum(max(row.ended for row in rows) - min(row.began for row in rows) for _, rows in chosen)
    return History(len(chosen), units, seconds, {arm: tuple(values) for arm, values in found.items()})


def newest(ports: Ports, service: str, metric: Metric) -> Iterator[tuple[str, list[Exposed]]]:
    """The newest experiments that were judged by a metric, and what each exposed, until there are enough units."""
    found: dict[str, list[Exposed]] = {}
    for row in ports.observations.exposed(service):
        found.setdefault(row.experiment, []).append(row)
    units = 0
    for experiment, rows in reversed(found.items()):
        if units < MOST_UNITS and all(judged_by(ports, service, row.arm, metric) for row in rows):
            units += sum(row.units for row in rows)
            yield experiment, rows


def judged_by(ports: Ports, service: str, commit: str, metric: Metric) -> bool:
    """Whether a revision declares a metric of this name and kind: another's values say nothing."""
    try:
        declared = json.loads(ports.catalog.revision(service, commit).spec).get("metric") or {}
    except (UnknownReference, ValueError):
        return False
    return (declared.get("name"), declared.get("kind")) == (metric.name, metric.kind)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants to know otherwise than declared: an MDE, the days there are, the outcomes of a day."""

    mde: float | None = None
    days: float | None = None
    per_day: float | None = None


def planned(spec: Spec, mde: float | None) -> tuple[Metric, Plan]:
    """The metric and plan of a service file, perhaps with another MDE; raises NothingToDo where there is none."""
    metric = spec.metric
    if metric is None:
        raise NothingToDo(what=f"{spec.name} declares no metric: there is nothing to judge by",
                          hint=f"write [metric] in {spec.folder}/branchline.toml")  # fmt: skip
    wanted = replace(metric, mde=metric.mde if mde is None else mde)
    plan = plan_of(replace(spec, metric=wanted), Candidate("", "", "", seated=spec.rollout.slots))
    if plan is None or not plan.effect:
        raise NothingToDo(what=f"metric {metric.name} has no mde: say which effect is worth a change",
                          hint=f"branchline plan-test {spec.name} --mde 0.05")  # fmt: skip
    return metric, plan


def forecast(ports: Ports, spec: Spec, wish: Wish) -> Document:
    """How long a test of a service would take, as its file declares it; raises NothingToDo where that is unknown."""
    metric, plan = planned(spec, wish.mde)
    seen = history_of(ports, spec.name, metric)
    sums = seen.sums
    known = sums.n >= FEW and seen.sigma > 0
    sigma = seen.sigma if known else widest(metric.bounds, metric.kind)
    if not sigma:
        raise NothingToDo(
            f"{sums.n} outcomes are recorded, and [metric] declares no bounds",
            hint=f"edit {spec.folder}/branchline.toml",
            what=f"how much the values of {metric.name} spread is not known",
        )  # fmt: skip
    binary = metric.kind == "binary" or (known and sums.squares == sums.total)
    fewest = fewest_units(plan.min_units, binary=binary, bounded=metric.bounds is not None,
                          mean=sums.mean if known else None)  # fmt: skip
    both, share = parts_of(spec.rollout)
    per_day = (seen.per_day if wish.per_day is None else wish.per_day) * both
    limit = wish.days or spec.rollout.max_seconds / DAY
    outlook = Outlook(plan.effect, sigma, per_day or 1.0, plan.alpha, plan.beta, share, metric.window, fewest)
    counts = {name: getattr(outlook, name) for name in ("fixed", "expected", "without_effect", "at_most")}
    takes = {name: outlook.days(outcomes) for name, outcomes in counts.items()} if per_day else {}
    text = told(outlook, limit) if per_day else unknown(outlook)
    if per_day and wish.per_day is None and seen.seconds < DAY:
        text += f", if it goes on as in the {lasting(seen.seconds / DAY)} that were measured"
    return {
        "schema": "branchline.plan-test/1",
        "service": spec.name,
        "method": method_of(spec).value,
        "metric": {"name": metric.name, "kind": metric.kind, "direction": metric.direction, "window": metric.window},
        "mde": plan.effect,
        "alpha": plan.alpha,
        "power": 1 - plan.beta,
        "share": share,
        "recorded": recorded_document(seen, known),
        "sigma": sigma,
        "sigma_from": "recorded" if known else "bounds",
        "per_day": per_day or None,
        "per_day_from": "said" if wish.per_day is not None else "recorded" if per_day else "",
        "outcomes": counts,
        "days": takes,
        "limit_days": limit,
        "fits": outlook.days(outlook.expected) <= limit if per_day else None,
        "mde_that_fits": outlook.fitting(limit) if per_day else None,
        "text": text,
    }


def unknown(outlook: Outlook) -> str:
    """What can be said while nobody knows how much comes in a day."""
    window = f", after a window of {lasting(outlook.window / DAY)}" if outlook.window else ""
    return (
        f"this takes about {number(outlook.expected)} outcomes{window}; how many come in a day is not recorded yet: "
        "say --per-day N"
    )


def recorded_document(seen: History, known: bool) -> Document:
    """What was recorded, in numbers: a mean with its interval and of how many."""
    sums = seen.sums
    document: Document = {"tests": seen.tests, "units": seen.units, "outcomes": sums.n, "days": seen.seconds / DAY}
    if not known:
        return document
    width = 1.96 * seen.sigma / math.sqrt(sums.n)
    return document | {"mean": sums.mean, "low": sums.mean - width, "high": sums.mean + width, "sigma": seen.sigma}


def parts_of(rollout: Rollout) -> tuple[float, float]:
    """The part of all traffic that one challenger and the incumbent get together, and the challenger's part of that."""
    share = rollout.share or 100 // (rollout.slots + 1)
    control = max(100 - rollout.slots * share, 1)
    return min(share + control, 100) / 100, share / (share + control)


# ------------------------------------------------------------------------------------------------ the judge and nothing


def split_again(ports: Ports, spec: Spec, mde: float | None, splits: int, seed: int) -> Document:
    """Give the outcomes of the incumbent to two arms by lot, so many times, and count what the judge claims of them.

    Raises NothingToDo where too few are recorded to be judged at all.
    """
    metric, plan = planned(spec, mde)
    service = ports.ledger.service(spec.name) if spec.name in ports.ledger.services() else None
    incumbent = str(service.lines[-1].incumbent) if service and service.lines else ""
    values = history_of(ports, spec.name, metric).values.get(incumbent, ())[-MOST_SPLIT:]
    if len(values) < 2 * plan.min_units:
        cause = f"{len(values)} outcomes of the incumbent are recorded, {2 * plan.min_units} are the fewest to judge"
        raise NothingToDo(cause, what=f"an A/A test of {spec.name} has too little to split",
                          hint=f"branchline plan-test {spec.name}")  # fmt: skip
    chance = random.Random(seed)
    answers = Counter(alike(values, plan, chance) for _ in range(splits))
    false = answers[Answer.PROMOTE] + answers[Answer.HARMFUL]
    low, high = proportion(false, splits, CONFIDENCE)
    return {
        "schema": "branchline.aa/1",
        "service": spec.name,
        "metric": metric.name,
        "mde": plan.effect,
        "alpha": plan.alpha,
        "revision": incumbent,
        "outcomes": len(values),
        "splits": splits,
        "seed": seed,
        "looks": len(range(0, len(values), step_of(values))),
        "answers": {str(answer): answers[answer] for answer in Answer},
        "false": false,
        "rate": false / splits,
        "low": low,
        "high": high,
        "as_promised": low <= plan.alpha,
    }


def step_of(values: tuple[float, ...]) -> int:
    """How many outcomes come between two looks."""
    return max(1, math.ceil(len(values) / LOOKS))


def alike(values: tuple[float, ...], plan: Plan, chance: random.Random) -> Answer:
    """What the judge says first of two arms that are alike, looking again and again; continue where it says nothing."""
    arms = [Sums(), Sums()]
    step = step_of(values)
    for start in range(0, len(values), step):
        for value in values[start : start + step]:
            arm = chance.getrandbits(1)
            arms[arm] = arms[arm].add(value)
        answer = judge([Stratum(*arms)], plan).answer
        if answer is not Answer.CONTINUE:
            return answer
    return Answer.CONTINUE
