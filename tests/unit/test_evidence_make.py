"""This file tests the engine as it is asked from outside: `make`, by what the judge itself would say."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from branchline.core.decision import combined, error_rate
from branchline.core.evidence import Plan, Stratum, Sums, history_cap, judge, make
from branchline.core.guardrail import Guard, Guardrail
from branchline.core.ratio_check import mismatch
from branchline.core.ratios import Pairs, PairStratum, judge_ratio

MEAN = {"n0": 5000, "s0": 500, "q0": 500, "n1": 5000, "s1": 650, "q1": 650}
RATIO = {"n0": 900, "y0": 900, "x0": 4500, "yy0": 1800, "xy0": 4500, "xx0": 22_500}
RATIO |= {"n1": 900, "y1": 1350, "x1": 4500, "yy1": 2700, "xy1": 6750, "xx1": 22_500}
BUCKET = {"n_b": 900, "e_b": 9, "n_c": 100, "e_c": 1}


def swapped(data: dict[str, int]) -> dict[str, int]:
    return {name[:-1] + ("1" if name[-1] == "0" else "0"): value for name, value in data.items()}


@pytest.mark.parametrize(
    ("kind", "spec", "data", "word"),
    [
        ("mean", {"mde": 0.02}, MEAN, "promote"),
        ("mean", {"mde": 0.02}, swapped(MEAN), "harmful"),
        ("mean", {"mde": 0.02}, MEAN | {"s1": 550, "q1": 550}, "continue"),
        ("mean", {"mde": 0.02, "max_information": 1.0}, MEAN | {"s1": 550, "q1": 550}, "inconclusive"),
        ("mean", {"mde": 0.04}, MEAN | {"s1": 500, "q1": 500}, "futile"),
        ("mean", {"margin": 0.04}, MEAN | {"s1": 500, "q1": 500}, "promote"),
        ("mean", {"mde": 0.02, "direction": "lower"}, swapped(MEAN), "promote"),
        ("mean", {"mde": 0.02, "min_units": 5001}, MEAN, "continue"),
        ("mean", {"mde": 0.02, "margin": None, "max_information": None}, MEAN, "promote"),
        ("ratio", {"mde": 0.05}, RATIO, "promote"),
        ("ratio", {"mde": 0.05}, swapped(RATIO), "harmful"),
        ("ratio", {"mde": 0.05, "alpha": 1e-30, "beta": 1e-30}, RATIO, "continue"),
        ("exact", {"mde": 0.3}, {"n0": 90, "e0": 9, "n1": 90, "e1": 70}, "promote"),
        ("guardrail", {}, BUCKET, "continue"),
        ("guardrail", {}, BUCKET | {"e_c": 20}, "rollback"),
        ("guardrail", {"ratio": 30.0, "bad_ratio": 3.0}, BUCKET | {"e_c": 20}, "pass"),
        ("guardrail", {"limit": 0.05, "ticks": 10, "tick": 2}, BUCKET | {"e_c": 30}, "rollback"),
        ("srm", {}, {"n0": 10_400, "n1": 9600}, "mismatch"),
        ("srm", {"weights": [52, 48]}, {"n0": 10_400, "n1": 9600}, "continue"),
        ("srm", {"alpha": 1e-9}, {"n0": 10_400, "n1": 9600}, "continue"),
    ],
)
def test_every_kind_tells_its_verdict(kind: str, spec: dict[str, Any], data: dict[str, float], word: str) -> None:
    told = make(kind, spec).update(**data)
    assert told == word
    assert told.reason


def test_it_is_what_the_judge_calls() -> None:
    engine, plan = make("mean", {"mde": 0.02, "alpha": 0.02}), Plan(mde=0.02, alpha=0.02)
    told = engine.update(**MEAN)
    assert engine.state == judge([Stratum(Sums(5000, 500, 500), Sums(5000, 650, 650))], plan)
    assert told.reason == "the challenger is better"
    ratio = make("ratio", {"mde": 0.05})
    ratio.update(**RATIO)
    arms = [Pairs(*list(RATIO.values())[:6]), Pairs(*list(RATIO.values())[6:])]
    assert ratio.state == judge_ratio([PairStratum(*arms)], Plan(mde=0.05, min_units=50))
    guardrail, guard = make("guardrail", {"ratio": 2.0}), Guard(Guardrail(tolerated=2.0))
    for bad in (1, 5, 0):
        guardrail.update(**BUCKET | {"e_c": bad})
        guard = guard.update(900, 9, 100, bad)
    assert guardrail.state == guard


def test_buckets_of_units_add_up_and_a_mismatch_stays_one() -> None:
    engine = make("srm", {"weights": [1, 1]})
    assert [engine.update(n0=5200, n1=4800), engine.update(n0=5200, n1=4800)] == ["continue", "mismatch"]
    assert engine.state == (10_400, 9600, mismatch([10_400, 9600], [1, 1]))
    assert engine.update(n0=0, n1=800) == "mismatch"


def test_what_is_refused_goes_on_and_says_why() -> None:
    told = make("mean", {"mde": 0.02}).update(**MEAN | {"n1": 99, "s1": 9, "q1": 9})
    assert (told, told.reason) == ("continue", "99 of 100 units in an arm")
    told = make("ratio", {"mde": 0.02}).update(**RATIO | {"n0": 49})
    assert (told, told.reason) == ("continue", "49 of 50 units in an arm")
    told = make("mean", {}).update(**MEAN)
    assert (told, told.reason) == ("continue", "neither an mde nor a margin is declared")


@pytest.mark.parametrize(
    ("kind", "spec", "data"),
    [
        ("median", {}, {}),
        ("mean", {"mdee": 0.02}, {}),
        ("guardrail", {"mde": 0.02}, {}),
        ("srm", {"mde": 0.02}, {}),
        ("mean", {"alpha": 2}, {}),
        ("mean", {}, MEAN | {"n2": 0}),
        ("ratio", {}, RATIO | {"n2": 0}),
        ("guardrail", {}, BUCKET | {"n2": 0}),
        ("srm", {}, {"n0": 1, "n1": 1, "n2": 0}),
    ],
)
def test_what_it_does_not_know_is_an_error(kind: str, spec: dict[str, Any], data: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"kind is one of|there is no|must lie"):
        make(kind, spec).update(**data)


def test_the_same_outcomes_make_the_same_row_byte_for_byte() -> None:
    """Requirement: what is kept can be thrown away and made again from the outcomes."""
    chance = random.Random(3)
    values = [chance.lognormvariate(0, 1.5) for _ in range(2000)]
    kept = Sums()
    for value in values:
        kept = kept.add(value)
    assert repr(kept) == repr(Sums.of(values))
    buckets = [(90, chance.randrange(3), 10, chance.randrange(2)) for _ in range(200)]
    guards = [Guard(), Guard()]
    for turn in range(2):
        for bucket in buckets:
            guards[turn] = guards[turn].update(*bucket)
    assert repr(guards[0]) == repr(guards[1])


def test_strata_are_weighted_by_their_harmonic_sizes() -> None:
    assert combined([(60, 40, 1.0, 0.5), (30, 30, 3.0, 0.2)]) == pytest.approx(
        ((24 * 1.0 + 15 * 3.0) / 39, (24**2 * 0.5 + 15**2 * 0.2) / 39**2)
    )


def test_one_experiment_has_one_error_rate() -> None:
    assert error_rate() == 0.05
    assert error_rate(0.06, challengers=3) == pytest.approx(0.02)
    assert [error_rate(repeats=n) for n in (0, 1, 2)] == [0.05, 0.025, 0.0125]
    assert math.fsum(error_rate(repeats=n) for n in range(60)) <= 2 * 0.05
    for wrong in ({"challengers": 0}, {"repeats": -1}):
        with pytest.raises(ValueError, match="challenger"):
            error_rate(0.05, **wrong)


def test_a_cap_comes_from_the_incumbents_history() -> None:
    assert history_cap(range(999)) is None
    assert history_cap([*range(1, 1001)][::-1]) == 999
    assert history_cap(range(1, 10_001)) == 9990
