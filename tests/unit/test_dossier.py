"""This file tests what a dossier says of itself: its words, its page, and that no number in it can be changed unseen.

Requirements: beyond 14 (the document alone suffices), 3.20 (a number has its interval and its count).
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from branchline.core import dossier, dossier_page, dossier_words
from branchline.core.decision import Plan
from branchline.core.dossier_picture import sequence, ticks
from branchline.core.dossier_words import brief, lasted, number, sentence, signed
from branchline.core.evidence import Stratum, judge
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.planning import proportion
from branchline.core.terms import Terms
from branchline.core.verdict import Cause

Document = dict[str, Any]
Change = Callable[[Document], object]
PLAN = Plan(mde=1.0, bounds=(0, 10))
SPLITS = {"1": [50, 50], "2": [20, 80]}


def measured(gain: float = 1.0, units: int = 240, effect: bool = True) -> Document:
    """What was measured, as read from its text."""
    made: Document = json.loads(written(gain, units, effect))
    return made


@cache
def written(gain: float, units: int, effect: bool) -> str:
    """An A/B test of two strata: values of 3, 4 and 5, those of the challenger larger by the gain; or a canary."""
    strata = {1: Stratum(), 2: Stratum()}
    rows = []
    for n in range(units if effect else 0):
        table, value = 1 + (n % 6 > 3), 4 + n // 2 % 3 - 1
        old = strata[table]
        strata[table] = (
            Stratum(old.control, old.challenger.add(value + gain))
            if n % 2
            else Stratum(old.control.add(value), old.challenger)
        )
        judgement = judge([strata[1], strata[2]], PLAN)
        at = f"2026-05-03T10:{n // 60 % 60:02}:{n % 60:02}.000Z"
        rows.append({**dossier.point_document(judgement), "sums": dossier.sums_document(strata), "at": at})
    guard, bads = Guard(Guardrail()), [(3, 1, 1), (4, 0, 2), (9, 1, 7)]
    for place in range(40):
        bad = next((each for each in bads if each[0] == place), None)
        split = SPLITS.get(str(bad[2])) if bad else None
        share = split[1] / sum(split) if split else None
        mine = bad[1] if bad else place % 2
        guard = guard.update(1 - mine, int(bool(bad) and not mine), mine, int(bool(bad) and mine), share=share)
    reported = {str(table): [each.control.n, each.challenger.n] for table, each in strata.items()}
    document: Document = {
        "arms": [arm("incumbent", "1.0.0", units), arm("challenger", "1.1.0", units)],
        "experiment": "shop-1-7", "began": "2026-05-03T09:59:00.000Z", "until": "2026-05-03T11:59:00.000Z",
        "lasted": 7200.0, "terms": asdict(Terms(effect, max_seconds=1e6, canary_seconds=60.0, canary_requests=5)),
        "plan": dossier.plan_document(PLAN), "splits": SPLITS, "sums": dossier.sums_document(strata),
        "exposed": reported, "reported": reported, "dropping": True, "series": dossier.thinned(rows),
        "counts": {"units": units, "crossed": 0, "requests": units, "stepped_in": 0, "tables": 2},
        "guards": {"failed requests": dossier.guard_document(guard, [40 - guard.requests, guard.requests], bads)},
        "answer": {},
    }  # fmt: skip
    document["mismatch"] = list(dossier.mismatch_of(document))
    found, _, verdict = dossier.recomputed(document)
    document["answer"] = dossier.answer_document(found, verdict)
    return json.dumps(document)


def arm(role: str, version: str, units: int) -> Document:
    return {"role": role, "version": version, "commit": "c" * 40, "units": units // 2, "requests": units, "bad": 1,
            "stepped_in": 0, "outcomes": units // 2}  # fmt: skip


def document(event: str = "Won", **test: Any) -> Document:
    """A dossier."""
    found: Document = {
        "schema": dossier.SCHEMA, "service": "shop", "version": "1.1.0", "branch": "experiment--shop--kim",
        "author": "Kim <kim@example.org>", "method": "A/B test", "state": "live", "built": "2026-05-03T09:00:00.000Z",
        "replaces": {"version": "1.0.0", "commit": "a" * 40}, "hypothesis": "More <b>pictures</b> sell.\n\nThey do.",
        "hashes": {**dict.fromkeys(dossier_page.HASHES, "c" * 40), "artifacts": {"train": "d" * 64}},
        "data": {"sales": "e" * 64}, "gates": [gate("unit", "pass"), gate("load", "inconclusive")], "commits": [],
        "steps": [{"name": "train", "state": "ran", "why": "new", "seconds": 2.0, "cpu": 3.0}],
        "declaration": {"metric": {"name": "basket", "kind": "value", "direction": "higher", "mde": 1.0,
                                   "window": 86400.0, "missing": "zero"},
                        "guardrails": {"failed_requests": True, "bad_outcome_above": 9.0, "bad_outcome_below": None,
                                       "tolerated_ratio": 1.0},
                        "rollout": {"max_seconds": 1e6, "approval": "after"}},
        "measurement": measured(**test), "timeline": [entry("Opened"), entry("Approved", "agreed"), entry(event)],
        "segments": [{"experiment": "shop-1-3", "began": "2026-05-02T10:00:00.000Z", "units": 30, "exploratory": True}],
        "verdict": entry(event) | {"chain": "f" * 64},
        "cost": {"build": {"steps": 1, "seconds": 2.0, "cpu": 3.0}, "gates": {"seconds": 1.0}, "losing": None},
    }  # fmt: skip
    return dossier.sealed({**found, "sentence": sentence(found)})


def gate(name: str, result: str) -> Document:
    return {"gate": name, "result": result, "summary": "as it should be", "numbers": {"rows": 3.0}, "seconds": 1.0}


def entry(event: str, kind: str = "") -> Document:
    reason = "challenger: it is better\n  240 outcomes" if event == "Won" else ""
    at = "2026-05-03T12:00:00.000Z"
    return {"number": 7, "event": event, "at": at, "actor": "kim <k@x>", "reason": reason, "share": None, "kind": kind}


def without(made: Document, **changed: Any) -> str:
    """The sentence of a dossier that is changed."""
    return sentence({**made, **changed})


# ── the check ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_alone_says_the_same() -> None:
    made = document()
    assert made["measurement"]["answer"]["cause"] == "promote"
    text = dossier.text(made)
    assert dossier.differences(dossier.read(text)) == []
    assert dossier.text(json.loads(text)) == text
    assert text.count("\n") == 1


def changed(made: Document, *path: str | int, to: Any) -> None:
    """Change one value."""
    *way, last = path
    place: Any = made
    for each in way:
        place = place[each]
    place[last] = to


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made: changed(made, "measurement", "sums", "1", 4, to=100.0), "answer, estimate: written"),
        (lambda made: changed(made, "measurement", "sums", "1", 0, to=3), "table 1 has sums of 3 and 80 units"),
        (lambda made: changed(made, "measurement", "answer", "high", to=9.0), "answer, high: written 9.0"),
        (lambda made: changed(made, "measurement", "plan", "mde", to=3.0), "answer, progress: written 33.8"),
        (lambda made: changed(made, "measurement", "series", 50, "low", to=0.5), "point 50 of the picture, low: "),
        (lambda made: made["measurement"]["series"].insert(0, made["measurement"]["series"][9]), "has fewer units"),
        (lambda made: made["measurement"]["series"].pop(), "the picture does not end at the sums of the verdict"),
        (lambda made: changed(made, "measurement", "exposed", "1", to=[80, 20]), "evidence of unequal ratio: written"),
        (lambda made: made["measurement"]["guards"]["failed requests"]["bads"].pop(), "guardrail failed requests, "),
        (lambda made: changed(made, "verdict", "event", to="Lost"), "recorded is Lost, recomputed challenger: the ch"),
        (lambda made: changed(made, "sentence", to="All is well."), "sentence: written 'All is well.'"),
        (lambda made: made["measurement"]["answer"].pop("p"), "answer, p: written None"),
    ],
)  # fmt: skip
def test_no_number_is_changed_unseen(change: Change, said: str) -> None:
    """Killer: compare the words of the verdict and not what they rest on."""
    made = document()
    change(made)
    assert any(said in each for each in dossier.differences(made)), dossier.differences(made)


def numbers(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """Every number of a document, with the way to it."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(each, (*way, key))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield way, value


def test_a_number_that_is_spoilt_in_any_section_is_found() -> None:
    """Killer: check the measurement alone."""
    made = document()
    for way, value in numbers(made):
        if len(way) < 3 or way[1] != "series" or way[2] in (0, 50, 239):  # of the picture three points are enough
            spoilt = copy.deepcopy(made)
            changed(spoilt, *way, to=value * 2 + 1)
            assert dossier.differences(spoilt), way


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (("arms", 0, "units"), "units of the test: written 240, but the arms had 241"),
        (("counts", "requests"), "requests of the challenger: written 241, recomputed 240"),
        (("counts", "stepped_in"), "stepped_in of the challenger: written 1, recomputed 0"),
        (("lasted",), "measured for: written 7201.0, but it began and ended 7200.0 apart"),
        (("guards", "failed requests", "requests", 0), "guardrail failed requests, buckets: written 40, recomputed 41"),
    ],
)  # fmt: skip
def test_who_seals_a_spoilt_document_again_is_found_by_what_was_counted_twice(
    way: tuple[str | int, ...], said: str
) -> None:
    made = document()
    value = next(value for each, value in numbers(made["measurement"]) if each == way)
    changed(made, "measurement", *way, to=value + 1)
    assert dossier.differences(dossier.sealed(made)) == [said]


def test_who_was_never_asked_has_no_time_to_compare() -> None:
    made = document()
    made["measurement"] |= {"began": "", "lasted": 0.0}
    assert dossier.differences(dossier.sealed(made)) == []


def test_a_guardrail_is_found_again_from_its_bad_requests_alone() -> None:
    """Killer: jump over the restarts, too."""
    guard, seen = Guard(Guardrail(tick=25)), [0, 0]
    bads = [(10, 1, 1), (700, 0, 2), (1500, 1, 1), (1501, 0, 1), (1990, 1, 2)]
    for place in range(2000):
        bad = next((each for each in bads if each[0] == place), None)
        mine, table = (bad[1], str(bad[2])) if bad else (place % 2, "1")
        seen[mine] += 1
        share = SPLITS[table][1] / sum(SPLITS[table])
        guard = guard.update(
            *((0, 0, 1, int(bad is not None)) if mine else (1, int(bad is not None), 0, 0)), share=share
        )
    again = dossier.guard_document(guard, seen, bads)
    assert dossier.guard_of(again, SPLITS) == guard
    assert dossier.guard_of({**again, "buckets": 10**9}, SPLITS).highest == guard.highest


def test_a_last_digit_is_no_difference() -> None:
    made = document()
    made["measurement"]["answer"]["estimate"] *= 1 + 1e-12
    assert dossier.differences(dossier.sealed(made)) == []


def test_who_is_taken_out_by_hand_is_not_held_against_the_data() -> None:
    made = document("Aborted")
    assert dossier.differences(made) == []
    assert made["sentence"] == "shop 1.1.0 was taken out by kim before the data had decided."


def test_what_cannot_be_compared_is_found_from_the_counts() -> None:
    counts = {"units": 240, "crossed": 30, "requests": 40, "stepped_in": 0, "tables": 1}
    assert "30 of 240 units were in both arms" in dossier.invalid_of({**measured(), "counts": counts})
    assert dossier.invalid_of({**measured(), "counts": {**counts, "tables": 2}}) == ""
    assert dossier.invalid_of({**measured(), "counts": {**counts, "units": 99}}) == ""
    assert "stepped in" in dossier.invalid_of({**measured(), "counts": {**counts, "crossed": 0, "stepped_in": 9}})
    assert dossier.mismatch_of({**measured(), "dropping": False})[1] == 1.0


def test_a_picture_is_thinned_to_what_a_screen_shows_and_keeps_both_ends() -> None:
    assert dossier.thinned(range(1000), 5) == [0, 250, 500, 749, 999]
    assert dossier.thinned([1, 2], 5) == [1, 2]


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema": "branchline.why/1"}', "a word", ""])
def test_what_is_no_dossier_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is no document|Expecting value"):
        dossier.read(text)


# ── words ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_verdict_is_a_sentence() -> None:
    won = document()
    assert won["sentence"].startswith("shop 1.1.0 is better than shop 1.0.0 and replaces it: its basket is 1 higher (")
    assert won["sentence"].endswith(", which is better, on 240 outcomes.")
    same = document("Lost", gain=0.0)
    assert "is not better than shop 1.0.0 by the 1 that was asked for" in same["sentence"]
    assert "its basket is the same (between −" in same["sentence"]
    assert without(same, verdict=entry("Undecided")).startswith("Nobody won, so shop 1.0.0 stays: an effect of 1 is ")
    assert without(won, verdict=entry("Withdrew") | {"reason": "dear"}).endswith("before the data had decided: dear.")
    assert without(won, measurement=None) == "shop 1.1.0 was decided (Won), but what it rested on is not recorded."
    assert without(won, measurement=None, verdict=None).startswith("shop 1.1.0 met nobody: its gate load said inconc")
    assert without(won, measurement=None, verdict=None, gates=[], state="").endswith("it is not known any more.")
    assert without(won, replaces=None, measurement=None, verdict=None).startswith("shop 1.1.0 is the first revision")
    few = document("Undecided", units=60)
    assert few["sentence"].endswith("its basket is 1 higher, on 60 outcomes, too few to judge.")
    assert without(won, verdict=None).startswith("shop 1.1.0 is still under test: its basket is 1 higher (between +")


def test_a_canary_is_told_by_what_failed() -> None:
    canary = document(effect=False)
    assert canary["sentence"] == (
        "shop 1.1.0 replaces shop 1.0.0: no harm was seen in the time given, "
        "with 2 of 20 requests bad, between 2.79 and 30.1 % (1 of 20 of the incumbent's)."
    )
    proven = copy.deepcopy(canary)
    proven["measurement"]["answer"]["cause"] = "pass"
    assert "being twice as bad is ruled out, with 2 of 20 requests bad" in sentence(proven)
    nothing = {**canary, "measurement": {**canary["measurement"], "guards": {}}}
    assert sentence(nothing).endswith("with no requests to speak of.")
    assert without(nothing, verdict=None) == "shop 1.1.0 is still under test: nothing can be said yet."
    assert without(nothing, verdict=entry("Breached")).endswith("because it does harm: a guardrail was breached.")


def test_numbers_are_said_as_people_read_them() -> None:
    assert [number(each) for each in (0, 1234.5, 0.0123456, 0.000012, -3.14159, math.inf)] == [
        "0", "1,234", "0.0123", "1.2e-05", "-3.14", "any",
    ]  # fmt: skip
    assert [signed(each) for each in (2, -2, 0)] == ["+2", "−2", "0"]
    assert [lasted(each) for each in (5, 119, 600, 7200, 8 * 86400)] == [
        "5 seconds", "119 seconds", "10 minutes", "2 hours", "8 days",
    ]  # fmt: skip
    assert [brief(each) for each in (5, 600, 7200)] == ["5 s", "10 min", "2 h"]


def test_a_part_has_wilsons_interval() -> None:
    """Golden: 3 of 100 is 1.03 to 8.45 %."""
    low, high = proportion(3, 100)
    assert (round(low, 4), round(high, 4)) == (0.0103, 0.0845)
    assert (proportion(0, 0), proportion(0, 9)[0], proportion(9, 9)[1]) == ((0.0, 1.0), 0.0, 1.0)


# ── the page ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_page_needs_nothing_else_and_holds_its_document() -> None:
    made = document()
    page = dossier_page.page(made)
    assert dossier.differences(dossier.read(page)) == []
    for foreign in ("http://", "https://", "src=", "@import", "url(http", "<link", "onload"):
        assert foreign not in page
    assert page.count("<script") == 1  # its own document, which no browser runs
    assert "More &lt;b&gt;pictures&lt;/b&gt; sell." in page
    assert "<b>pictures" not in page
    assert "prefers-color-scheme:dark" in page
    assert page.count("<svg") == 3  # for a desk, for a phone, and of the guardrail
    assert "Exploratory segments" in page
    assert "Approvals: 1; overrides: none." in page


def test_a_page_of_who_met_nobody_has_no_numbers() -> None:
    bare: Document = {"measurement": None, "verdict": None, "segments": [], "gates": [], "hypothesis": "", "author": ""}
    made = {**document(), **bare, "replaces": None, "commits": [{"subject": "Begin", "commit": "c" * 40}]}
    made["declaration"] = {**made["declaration"], "metric": None}
    made["sentence"] = sentence(made)
    page = dossier_page.page(made)
    assert "<svg" not in page
    assert "Begin <code>ccccccc</code>" in page
    assert "None of its own is written in its log." in page


def test_a_page_says_what_is_not_known_yet() -> None:
    made = document(units=2)
    made["measurement"]["splits"] = {}
    made["measurement"]["guards"] = {}
    made["declaration"]["metric"] = {**made["declaration"]["metric"], "missing": "drop"}
    made["measurement"]["answer"] |= {"estimate": 1.0, "low": None, "high": None}
    page = dossier_page.page(made)
    assert "not recorded" in page
    assert "too few to judge, so no interval" in page
    assert "left out" in page


def test_a_page_of_a_canary_shows_what_was_counted() -> None:
    page = dossier_page.page(document(effect=False))
    assert "<b>2 of 20</b><span>failed requests, challenger</span><small>2.79 % to 30.1 %; incumbent 1 of 20" in page
    assert "takes over" in page
    assert "and at least" in page
    assert "worth having from" not in page


def test_a_page_says_what_the_losing_arm_cost() -> None:
    losing: Document = {"role": "incumbent", "version": "1.0.0", "units": 9, "requests": 0, "bad": 0, "seconds": 60.0}
    made = document()
    made["cost"] = {**made["cost"], "losing": {**losing, "effect": [-9.0, -18.0, -1.0]}}
    assert "−9 <small>−18 to −1</small>" in dossier_page.page(made)
    made["cost"] = {**made["cost"], "losing": {**losing, "effect": None}}
    assert "met the arm that left, incumbent 1.0.0" in dossier_page.page(made)
    made["measurement"] |= {"began": "2026-05-03T09:59:00.000Z", "until": "2026-05-03T10:04:00.000Z"}
    assert "2026-05-03 09:59:00 to 10:04:00" in dossier_page.page(made)


def test_a_picture_ends_at_the_verdict_and_is_drawn_again_alike() -> None:
    seen = measured()
    drawn = sequence(seen, "basket", 900, 360, "cut")
    assert sequence(copy.deepcopy(seen), "basket", 900, 360, "cut") == drawn
    assert "verdict: better" in drawn
    assert "asked for: +1" in drawn
    assert "n 240" in drawn
    assert [drawn.count(f'class="band {kind}"') for kind in ("early", "sure")] == [1, 1]
    few = sequence(measured(units=60), "basket", 900, 360, "cut")
    assert few.count('class="value') == 1
    assert [few.count(f'class="band {kind}"') for kind in ("early", "sure")] == [1, 0]
    for point in seen["series"]:
        point["at"] = seen["until"]  # all came at once: drawn by outcomes
    assert " min<" not in sequence(seen, "basket", 900, 360, "cut")
    assert "asked for: −1" in sequence(
        {**seen, "plan": {**seen["plan"], "direction": "lower"}}, "basket", 360, 320, "cut"
    )
    assert sequence({**seen, "series": []}, "basket", 900, 360, "cut") == ""


def test_ticks_are_round() -> None:
    assert ticks(-3.4, 3.4) == [-2.0, 0.0, 2.0]
    assert [round(each, 3) for each in ticks(0.01, 0.052)] == [0.01, 0.02, 0.03, 0.04, 0.05]


def test_every_event_and_cause_has_a_word() -> None:
    """What the page looks up must be there."""
    assert {str(cause) for cause in Cause} - {"hard failure"} == dossier_words.CAUSES.keys()
    assert dossier_page.BADGES.keys() <= dossier_words.EVENTS.keys()
