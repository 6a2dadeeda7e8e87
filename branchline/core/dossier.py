"""This file says what a dossier is: one document that holds an experiment's evidence, and how anybody checks it.

Rules. The document alone suffices: the sums of both arms per stratum, every bad request by its place, the split and the
counts. From them `recomputed` finds the verdict by the same rules as the judge, and `differences` says where what is
written disagrees; neither asks a daemon, a repository or a clock. The canonical text has sorted keys and no spaces, so
that the same record gives the same bytes. Numbers are compared to nine digits: another machine's logarithm may round
the last one differently.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from branchline.core import arms
from branchline.core.arms import Arms
from branchline.core.decision import Judgement, Plan
from branchline.core.dossier_words import sentence
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.revision import digest
from branchline.core.terms import Terms, decided, incomparable, mismatches
from branchline.core.verdict import Side, Verdict
from branchline.core.watched import Watched

Document = Mapping[str, Any]
SCHEMA = "branchline.dossier/1"
MOST_POINTS = 400  # of the picture: more than a screen shows
DIGITS = 1e-9
MILLISECONDS = 0.002  # to which moments are written
SIDES = {"Won": Side.CHALLENGER, "Lost": Side.INCUMBENT, "Breached": Side.INCUMBENT, "Undecided": Side.INCONCLUSIVE}
DATA = re.compile(r'<script type="application/json" id="dossier">(.*?)</script>', re.DOTALL)


# ---- the text


def text(document: Document) -> str:
    """The canonical text of a document: sorted keys, no spaces, one line."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False) + "\n"


def read(said: str) -> Document:
    """The document of a text, or the one that a page holds; raises ValueError for what is no dossier."""
    found = DATA.search(said)
    document = json.loads(found[1] if found else said)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise ValueError(f"it is no document of the schema {SCHEMA}")
    return document


def sealed(document: Document) -> dict[str, Any]:
    """The document with the digest of all the rest of it: what is spoilt, in whatever section, is found."""
    return {**document, "digest": digest({name: value for name, value in document.items() if name != "digest"})}


# ---- what was measured, as a document and back


def plan_document(plan: Plan) -> dict[str, Any]:
    """The plan, as it is written."""
    return {**asdict(plan), "bounds": list(plan.bounds) if plan.bounds else None}


def plan_of(measured: Document) -> Plan:
    """The plan that is written."""
    said = measured["plan"]
    return Plan(**{**said, "bounds": tuple(said["bounds"]) if said["bounds"] else None})


def sums_document(strata: Mapping[int, Arms]) -> dict[str, list[float]]:
    """By table, of the incumbent and then of the challenger: units, sum and sum of squares of a mean; of pairs units,
    and the sums of y, x, y², xy and x².
    """
    return {str(table): arms.row(each) for table, each in strata.items()}


def strata_of(sums: Mapping[str, Sequence[Any]]) -> list[Arms]:
    """The strata that are written, by the number of their table."""
    return [arms.read(numbers) for _, numbers in sorted(sums.items(), key=lambda each: int(each[0]))]


def guard_document(
    guard: Guard, seen: Sequence[int], bads: Sequence[Sequence[int]], looks: Sequence[Sequence[int]] | None = None
) -> dict[str, Any]:
    """A guardrail: `seen` and `bad` requests of incumbent and challenger, and of every bad one [place, arm, table]. Of
    one on others' counters every look that found some: [place, requests and bad ones of the incumbent, of the
    challenger].
    """
    mine = sum(arm for _, arm, _ in bads) + sum(look[4] for look in looks or ())
    theirs = sum(not arm for _, arm, _ in bads) + sum(look[2] for look in looks or ())
    return {
        "rule": asdict(guard.rule),
        "buckets": guard.buckets,
        "requests": list(seen),
        "bad": [theirs, mine],
        "bads": [list(each) for each in bads],
        **({"looks": [list(each) for each in looks]} if looks is not None else {}),
        "evidence": guard.evidence,
        "highest": guard.highest,
        "highest_good": guard.highest_good,
        "answer": str(guard.answer),
    }


def guards_of(written: Document, splits: Mapping[str, Sequence[float]]) -> Iterator[Guard]:
    """The guardrail after each of its bad requests: between them only time passes, for a good one is no evidence."""
    guard = Guard(Guardrail(**written["rule"]))
    for place, arm, table in written["bads"]:
        split = splits.get(str(table))
        share = split[1] / (split[0] + split[1]) if split else None
        guard = passed(guard, place).update(*((0, 0, 1, 1) if arm else (1, 1, 0, 0)), share=share)
        yield guard
    for place, *bucket in written.get("looks", ()):
        guard = passed(guard, place).update(*bucket)
        yield guard


def guard_of(written: Document, splits: Mapping[str, Sequence[float]]) -> Guard:
    """The guardrail again, at its end."""
    fresh = Guard(Guardrail(**written["rule"]))
    *_, guard = (fresh, *guards_of(written, splits))
    return replace(passed(guard, written["buckets"]), requests=written["requests"][1])


def passed(guard: Guard, place: int) -> Guard:
    """The guardrail after nothing but good requests up to a place: once it has begun anew for the last time, they
    change nothing any more, however many there are.
    """
    last = guard.rule.tick * guard.rule.ticks
    while guard.buckets < min(place, last + 1):
        guard = guard.update(1, 0, 0, 0)
    return replace(guard, buckets=max(guard.buckets, place))


def invalid_of(measured: Document) -> str:
    """Why the arms cannot be compared, '' when they can: of units and reports the split, and how many were astray."""
    counts, ratio, reporting = measured["counts"], *mismatch_of(measured)
    return incomparable(ratio, reporting, **counts)


def mismatch_of(measured: Document) -> tuple[float, float]:
    """The evidence that the units, and that those who reported, do not follow the split."""
    counted = (measured[name] for name in ("exposed", "reported", "splits"))
    return mismatches(*counted, dropping=measured["dropping"])


def recomputed(measured: Document) -> tuple[Judgement | None, dict[str, Guard], Verdict]:
    """What follows from the numbers of a document: the judgement, the guardrails, the verdict."""
    guards = {name: guard_of(each, measured["splits"]) for name, each in measured["guards"].items()}
    terms, plan, strata = Terms(**measured["terms"]), plan_of(measured), strata_of(measured["sums"])
    judgement, verdict = decided(terms, plan, strata, guards, invalid_of(measured), measured["lasted"],
                                 measured.get("silent", ""))  # fmt: skip
    return judgement, guards, verdict


def answer_document(judgement: Judgement | None, verdict: Verdict) -> dict[str, Any]:
    """What was found: who stays, what decided, and the numbers with their interval."""
    found: dict[str, Any] = {"side": str(verdict.side), "cause": str(verdict.cause), "reason": verdict.reason}
    found["lines"] = list(verdict.evidence)
    if judgement is not None:
        found |= point_document(judgement)
        found |= {"for": judgement.e_for, "against": judgement.e_against, "p": judgement.p}
        found |= {"ratio": judgement.likelihood_ratio, "progress": judgement.progress}
    return found


def point_document(judgement: Judgement) -> dict[str, Any]:
    """One point of the picture: the estimate with its interval, and the units it rests on. An interval of what was not
    `judged`, for there were too few, holds nothing: a variance of few is a guess.
    """
    return {
        "judged": any((judgement.log_for, judgement.log_against, judgement.log_ratio)),
        "estimate": judgement.estimate,
        "low": judgement.low,
        "high": judgement.high,
        "units": [judgement.units_control, judgement.units_challenger],
    }


def watched_document(beside: Mapping[str, Watched]) -> dict[str, Any]:
    """What was watched and decided nothing: by name the plan of its interval, the sums, the estimate."""
    return {
        name: {
            "plan": plan_document(each.plan), "sums": sums_document(each.strata), **point_document(each.judgement),
        }
        for name, each in beside.items()
    }  # fmt: skip


def thinned(rows: Sequence[Any], most: int = MOST_POINTS) -> list[Any]:
    """At most so many of the rows, evenly, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(at * (len(rows) - 1) / (most - 1))] for at in range(most)]


# ---- the check


def differences(document: Document) -> list[str]:
    """Where a document disagrees with what follows from its own numbers; [] when all of it does."""
    measured = document["measurement"]
    try:
        found = [*_differences(document, measured), *_unlike_counts(measured)] if measured else []
    except (ValueError, ArithmeticError) as error:
        found = [f"nothing can be recomputed: {error}"]
    found += unlike("sentence", document["sentence"], sentence(document))
    return [*found, *unlike("digest of the document", document.get("digest"), sealed(document)["digest"])]


def _differences(document: Document, measured: Document) -> Iterator[str]:
    judgement, guards, verdict = recomputed(measured)
    yield from unlike("answer", measured["answer"], answer_document(judgement, verdict))
    for name, guard in guards.items():
        said = measured["guards"][name]
        yield from unlike(
            f"guardrail {name}", said, guard_document(guard, said["requests"], said["bads"], said.get("looks"))
        )
    for kind, said, evidence in zip(("ratio", "reporting"), measured["mismatch"], mismatch_of(measured), strict=True):
        yield from unlike(f"evidence of unequal {kind}", said, evidence)
    yield from _unlike_series(measured)
    for name, said in measured.get("watched", {}).items():
        again = point_document(arms.judged(strata_of(said["sums"]), plan_of(said)))
        yield from unlike(f"watched {name}", {key: said[key] for key in again}, again)
    for table, row in measured["sums"].items():
        mine = row[len(row) // 2]
        if [row[0], mine] != measured["reported"].get(table):
            yield f"table {table} has sums of {row[0]} and {mine} units, but others reported"
    recorded = document["verdict"]
    if recorded and recorded["event"] in SIDES and SIDES[recorded["event"]] is not verdict.side:
        yield f"recorded is {recorded['event']}, recomputed {verdict.side}: {verdict.reason}"


def _unlike_counts(measured: Document) -> Iterator[str]:
    """Where what was counted in two ways disagrees: arms and the whole, the time and its two ends, each guardrail."""
    arms, counts = measured["arms"], measured["counts"]
    both = sum(arm["units"] for arm in arms)
    if counts["units"] < both:  # other challengers have units, too
        yield f"units of the test: written {counts['units']}, but the arms had {both}"
    for name in ("requests", "stepped_in"):
        yield from unlike(f"{name} of the challenger", counts[name], arms[1][name])
    if measured["began"]:
        began, until = (datetime.fromisoformat(measured[each]).timestamp() for each in ("began", "until"))
        if abs(until - began - measured["lasted"]) > MILLISECONDS:
            yield f"measured for: written {measured['lasted']!r}, but it began and ended {until - began!r} apart"
    for name, guard in measured["guards"].items():
        if "looks" not in guard:
            yield from unlike(f"guardrail {name}, buckets", guard["buckets"], sum(guard["requests"]))
        elif guard["buckets"] > min(guard["requests"]):  # a look that says anything has some of each arm
            yield f"guardrail {name}, buckets: written {guard['buckets']}, but requests {guard['requests']}"


def _unlike_series(measured: Document) -> Iterator[str]:
    """Where the picture is not drawn from its own sums, goes back, or does not end where the verdict was."""
    plan, before = plan_of(measured), -1
    for number, point in enumerate(measured["series"]):
        judgement = arms.judged(strata_of(point["sums"]), plan)
        said = {name: value for name, value in point.items() if name not in ("at", "sums")}
        yield from unlike(f"point {number} of the picture", said, point_document(judgement))
        if judgement.units < before:
            yield f"point {number} of the picture has fewer units than the one before"
        before = judgement.units
    if measured["series"] and measured["series"][-1]["sums"] != measured["sums"]:
        yield "the picture does not end at the sums of the verdict"


def unlike(name: str, said: Any, found: Any) -> Iterator[str]:
    """Where two values differ, by name."""
    if isinstance(said, Mapping) and isinstance(found, Mapping):
        for key in sorted(said.keys() | found.keys()):
            yield from unlike(f"{name}, {key}", said.get(key), found.get(key))
    elif not alike(said, found):
        yield f"{name}: written {said!r}, recomputed {found!r}"


def alike(said: Any, found: Any) -> bool:
    """Whether two values are the same, numbers to nine digits; words may hold numbers of fewer."""
    if isinstance(said, float) or isinstance(found, float):
        numbers = isinstance(said, int | float) and isinstance(found, int | float)
        return numbers and math.isclose(said, found, rel_tol=DIGITS, abs_tol=DIGITS * DIGITS)
    return bool(said == found)
