"""This file shows what holds of the evidence for any data: the judgement of an A/B test, and the guardrail.

Requirements: 1.37 (which revision to retain), 1.38, 1.39.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchline.core.evidence import Answer, Plan, Sums, decision
from branchline.core.guardrail import Guard, Guardrail

EFFECTS = st.floats(0.01, 10)
ESTIMATES = st.floats(-20, 20)
VARIANCES = st.floats(1e-4, 100)


@given(ESTIMATES, VARIANCES, EFFECTS)
def test_the_interval_contains_the_estimate_and_agrees_with_the_decision(d: float, v: float, effect: float) -> None:
    seen = decision(d, v, Plan(mde=effect))
    assert seen.low is not None
    assert seen.high is not None
    assert seen.low < d < seen.high
    rounding = 1e-9 * (1 + abs(d))
    if seen.e_for >= 40:
        assert seen.low > -rounding
    elif seen.e_against >= 40:
        assert seen.high < rounding
    else:
        assert seen.low < rounding
        assert seen.high > -rounding
    assert (seen.answer is Answer.HARMFUL) == (seen.log_against >= math.log(40))
    assert (seen.answer is Answer.PROMOTE) == (seen.log_for >= math.log(40))


@given(ESTIMATES, VARIANCES, EFFECTS)
def test_directions_and_arms_are_mirror_images(d: float, v: float, effect: float) -> None:
    higher, lower = decision(d, v, Plan("higher", effect)), decision(-d, v, Plan("lower", effect))
    assert (higher.answer, higher.log_for, higher.log_against) == (lower.answer, lower.log_for, lower.log_against)
    other = decision(-d, v, Plan("higher", effect))
    assert (other.log_for, other.log_against) == (higher.log_against, higher.log_for)


@given(ESTIMATES, VARIANCES, EFFECTS, st.sampled_from([0.001, 0.5, 3.0, 1000.0]))
def test_the_unit_of_measurement_is_nothing(d: float, v: float, effect: float, scale: float) -> None:
    one = decision(d, v, Plan(mde=effect))
    two = decision(d * scale, v * scale * scale, Plan(mde=effect * scale))
    for name in ("log_for", "log_against", "log_ratio", "progress"):
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-9, abs=1e-9)


@given(ESTIMATES, st.floats(0, 5), VARIANCES, EFFECTS)
def test_better_data_is_never_worse_evidence(d: float, gain: float, v: float, effect: float) -> None:
    rank = {Answer.HARMFUL: 0, Answer.FUTILE: 1, Answer.CONTINUE: 2, Answer.PROMOTE: 3}
    worse, better = decision(d, v, Plan(mde=effect)), decision(d + gain, v, Plan(mde=effect))
    assert better.log_for >= worse.log_for or better.log_for == pytest.approx(worse.log_for, rel=1e-12)
    assert better.log_against <= worse.log_against or better.log_against == pytest.approx(worse.log_against, rel=1e-12)
    assert rank[better.answer] >= rank[worse.answer]


@settings(max_examples=25)
@given(st.lists(st.integers(-50, 50), min_size=2), st.lists(st.integers(-50, 50), min_size=2))
def test_sums_are_the_mean_and_the_variance(control: list[int], challenger: list[int]) -> None:
    arms = [Sums.of(control), Sums.of(challenger)]
    for arm, values in zip(arms, (control, challenger), strict=True):
        assert arm.mean == pytest.approx(math.fsum(values) / len(values))
        spread = math.fsum((value - arm.mean) ** 2 for value in values)
        assert arm.spread == pytest.approx(spread, abs=1e-6)


@given(
    st.floats(0.001, 0.3),
    st.floats(0.01, 0.99),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([None, 0.0005, 0.01]),
)
def test_a_tolerated_challenger_expects_no_evidence(
    rate: float, share: float, tolerated: float, limit: float | None
) -> None:
    """Exact, not only for rare requests: over one request the expectation of the evidence is at most 1."""
    start = Guard(Guardrail(tolerated=tolerated, limit=limit))
    own = limit if limit is not None else min(rate * tolerated, 1.0)
    cases = [
        (share * own, (0, 0, 1, 1)),
        (share * (1 - own), (0, 0, 1, 0)),
        ((1 - share) * rate, (1, 1, 0, 0)),
        ((1 - share) * (1 - rate), (1, 0, 0, 0)),
    ]
    expected = sum(chance * start.update(*counts, share=share).evidence for chance, counts in cases)
    assert expected <= 1 + 1e-12


@given(st.integers(1, 500), st.integers(1, 500), st.data())
def test_more_bad_requests_are_more_evidence(control: int, challenger: int, data: st.DataObject) -> None:
    control_bad = data.draw(st.integers(0, control))
    bad = data.draw(st.integers(0, challenger - 1))
    fewer, more = (Guard().update(control, control_bad, challenger, count) for count in (bad, bad + 1))
    assert more.evidence >= fewer.evidence
    assert more.evidence_good <= fewer.evidence_good
