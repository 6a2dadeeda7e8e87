"""This file forecasts A/B tests from recorded outcomes: how long one would take, and what the judge finds in none.

Nothing is recorded here. Traffic and spread are those of the tests there were, as far as they were judged by the same
metric; without enough of them a person says how much comes in a day, and the bounds say how far values can spread. An
A/A test gives the outcomes of one revision to two arms by lot, again and again, so whatever the judge claims is false.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from branchline.core.evidence import Answer, Plan, Stratum, Sums, history_cap, judge
from branchline.core.planning import DAY, Outlook, fewest_units, lasting, number, proportion, told, widest
from branchline.core.service import Candidate
from branchline.core.spec import Metric, Rollout, Spec
from branchline.engine.measurement import plan_of
from branchline.engine.preparing import method_of
from branchline.engine.surveying import FEW, History, history_of, may_cap
from branchline.errors import NothingToDo
from branchline.ports import Ports

Document = dict[str, Any]
CONFIDENCE = 0.95
LOOKS = 200  # at each re-split, at most
MOST_SPLIT = 10_000  # outcomes that are split again and again


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
    wanted = metric
    if mde is not None:
        wanted = replace(metric, margin=mde) if metric.margin else replace(metric, mde=mde)
    plan = plan_of(replace(spec, metric=wanted), Candidate("", "", "", seated=spec.rollout.slots))
    if plan is None or not plan.effect:
        raise NothingToDo(what=f"metric {metric.name} has no mde: say which effect is worth a change",
                          hint=f"branchline plan-test {spec.name} --mde 0.05")  # fmt: skip
    return metric, plan


def incumbent_of(ports: Ports, service: str) -> str:
    """The commit that serves a service; '' where none does."""
    known = ports.ledger.service(service) if service in ports.ledger.services() else None
    return str(known.lines[-1].incumbent) if known and known.lines else ""


def with_cap(ports: Ports, service: str, metric: Metric, plan: Plan, seen: History) -> Plan:
    """The plan, with the cap that a test would have that began now."""
    if plan.cap is not None or not may_cap(metric):
        return plan
    return replace(plan, cap=history_cap(seen.values.get(incumbent_of(ports, service), ())))


def forecast(ports: Ports, spec: Spec, wish: Wish) -> Document:
    """How long a test of a service would take, as its file declares it; raises NothingToDo where that is unknown."""
    metric, plan = planned(spec, wish.mde)
    seen = history_of(ports, spec.name, metric)
    plan = with_cap(ports, spec.name, metric, plan, seen)
    seen = seen.cut(plan.cap)
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
    bounded = metric.form == "ratio" or metric.bounds is not None or plan.cap is not None
    fewest = fewest_units(plan.min_units, binary=binary, bounded=bounded, mean=sums.mean if known else None)
    both, share = parts_of(spec.rollout)
    per_day = (seen.per_day if wish.per_day is None else wish.per_day) * both
    limit = wish.days or spec.rollout.max_seconds / DAY
    outlook = Outlook(plan.effect, sigma, per_day or 1.0, plan.alpha, plan.beta, share, metric.window, fewest,
                      "a margin" if plan.margin else "an MDE")  # fmt: skip
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
        "asks": "margin" if plan.margin else "mde",
        "cap": plan.cap,
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
    incumbent = incumbent_of(ports, spec.name)
    seen = history_of(ports, spec.name, metric)
    plan = with_cap(ports, spec.name, metric, plan, seen)
    values = seen.cut(plan.cap).values.get(incumbent, ())[-MOST_SPLIT:]
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
