"""This file says on which terms a test ends: how long is measured, how much, and what forbids to compare its arms.

The judge, who judges again, and who checks a dossier decide by the one function in here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from branchline.core.arms import Arms, judged
from branchline.core.decision import Answer, Judgement, Plan
from branchline.core.guardrail import Guard
from branchline.core.ratio_check import mismatch_over
from branchline.core.verdict import Verdict, decide, decide_canary, invalidity

ENOUGH_UNITS = 100  # below, one stray unit would be more than one per cent


@dataclass(frozen=True, slots=True)
class Terms:
    """How long is measured, and how much: of an A/B test (`effect`) its shortest and longest time, of a canary its time
    and least requests. `extended`: a person wants it measured for as long as it takes. `spent`: why it may not go on.
    """

    effect: bool = True
    extended: bool = False
    min_seconds: float = 0.0
    max_seconds: float = math.inf
    canary_seconds: float = 0.0
    canary_requests: int = 0
    spent: str = ""


def decided(
    terms: Terms,
    plan: Plan,
    strata: Sequence[Arms],
    guards: Mapping[str, Guard],
    invalid: str,
    lasted: float,
    silent: str = "",
) -> tuple[Judgement | None, Verdict]:
    """The judgement of an A/B test (None of a canary) and the verdict, after so many seconds. What is `silent`, a
    guardrail without data, holds whatever would be given or kept for lack of an effect: no data never pass.
    """
    guards = dict(sorted(guards.items()))
    if not terms.effect:
        waited = lasted >= terms.canary_seconds
        return None, decide_canary(guards, requests=asked(guards), min_requests=terms.canary_requests, waited=waited,
                                   hold=silent)  # fmt: skip
    over = "max_duration is over" if lasted >= terms.max_seconds and not terms.extended else ""
    ended = terms.spent or over
    judgement = judged(strata, plan, ended)
    hold = (
        f"min_duration: {terms.min_seconds - lasted:.0f} s left"
        if lasted < terms.min_seconds and not terms.spent
        else ""
    )
    if terms.spent:
        invalid = invalid or silent  # it may not go on to wait for data
    elif not hold and judgement.answer is not Answer.INCONCLUSIVE:
        hold = silent
    return judgement, decide(judgement, guards, invalid=invalid, hold=hold)


def asked(guards: Mapping[str, Guard]) -> int:
    """How many requests of a canary were counted, by the guardrail that counts most."""
    return max((guard.requests for guard in guards.values()), default=0)


def mismatches(
    exposed: Mapping[Any, Sequence[int]],
    reported: Mapping[Any, Sequence[int]],
    splits: Mapping[Any, Sequence[float]],
    *,
    dropping: bool,
) -> tuple[float, float]:
    """The evidence that the units, and that those who reported, do not follow the split, each by bucket table; of
    reports only where units without one are dropped.
    """
    known = [table for table in exposed if table in splits]
    ratio = mismatch_over([(exposed[table], splits[table]) for table in known])
    if not dropping:
        return ratio, 1.0
    return ratio, mismatch_over([(reported.get(table, (0, 0)), splits[table]) for table in known])


def incomparable(
    ratio: float, reporting: float, *, units: int, crossed: int, tables: int, requests: int, stepped_in: int
) -> str:
    """Why the arms cannot be compared, '' when they can: by the evidence that units, and that reports, are not as the
    split is, and by how many of all were astray. Who changed arms with the table was moved by a ramp.
    """
    if units < ENOUGH_UNITS:
        return invalidity(ratio=ratio, reporting=reporting)
    strays = crossed if tables == 1 else 0
    return invalidity(ratio=ratio, reporting=reporting, crossed=strays, units=units) or invalidity(
        stepped_in=stepped_in, units=requests
    )
