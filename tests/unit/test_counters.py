"""This file tests what two looks at others' counters say, and which guardrails have no data (statistics §7)."""

from __future__ import annotations

import pytest

from branchline.core.counters import Bucket, Look, PrometheusGuardrail, filled, grown
from branchline.core.evidence import Plan, Stratum, Sums
from branchline.core.spec import Guardrails
from branchline.core.terms import Terms, decided
from branchline.core.verdict import Cause, Side
from branchline.engine.measurement import Measurement

RULE = PrometheusGuardrail("cart", "http://there", "all $revision", "bad $revision", every=10.0)


def look(at: float, control: tuple[float, float], challenger: tuple[float, float], name: str = "cart") -> Look:
    return Look(int(at), name, at, control, challenger)


@pytest.mark.parametrize(
    ("after", "bucket"),
    [
        ((110, 1, 60, 4), (10, 1, 10, 4)),
        ((110, 0, 60, 0), (10, 0, 10, 0)),
        ((100, 0, 60, 0), None),  # the incumbent was asked nothing
        ((110, 0, 50, 0), None),  # nor the challenger
        ((110, 0, 20, 0), None),  # its counter was begun anew
        ((110, -1, 60, 0), None),
        ((110, 11, 60, 0), None),  # more were bad than there were
        ((110, 0, 60, 11), None),
        ((110.4, 0, 59.6, 0.6), (10, 0, 10, 1)),
    ],
)
def test_what_came_between_two_looks(after: tuple[float, float, float, float], bucket: Bucket | None) -> None:
    """Killer: a counter that was begun anew, taken as it is, would say that thousands were good or bad."""
    assert grown(look(0, (100, 0), (50, 0)), look(9, after[:2], after[2:])) == bucket


def test_a_query_is_filled_in() -> None:
    assert filled('x{r="$revision",e="$experiment"}', "1.1.0", "e1") == 'x{r="1.1.0",e="e1"}'


def test_a_guardrail_without_data_is_named() -> None:
    """Killer: with the last look's age not asked, a Prometheus that is gone would let pass what nobody watches."""
    seen = Measurement("old", "new", None, None, Guardrails(prometheus=(RULE,)))
    assert seen.silent(100) == "guardrail cart has no data"
    assert not seen.look(look(100, (5, 0), (5, 0)))
    assert seen.silent(100) == "guardrail cart has no data", "a first look says nothing of what came"
    assert seen.look(look(110, (9, 0), (9, 0)))
    assert seen.silent(110) == seen.silent(140) == ""
    assert seen.silent(140.1) == "guardrail cart has no data"
    assert not seen.look(look(120, (9, 0), (9, 0), "other")), "one that is not declared any more"


def test_who_may_not_go_on_is_not_kept_waiting_for_data_and_not_promoted() -> None:
    """Killer: held, an experiment whose budget is spent would go on to cost; promoted, no data would have passed."""
    plan = Plan(mde=0.5, bounds=(0, 10))
    strata = [Stratum(Sums(1000, 4000, 17_000), Sums(1000, 6000, 37_000))]
    _, promoted = decided(Terms(), plan, strata, {}, "", 10.0)
    assert promoted.side is Side.CHALLENGER
    _, waits = decided(Terms(), plan, strata, {}, "", 10.0, "guardrail cart has no data")
    assert (waits.side, waits.reason) == (Side.NONE, "guardrail cart has no data")
    _, ended = decided(Terms(spent="its budget is spent"), plan, strata, {}, "", 10.0, "guardrail cart has no data")
    assert (ended.side, ended.cause) == (Side.INCONCLUSIVE, Cause.INVALID)
    few = [Stratum(Sums(10, 40, 170), Sums(10, 60, 370))]
    _, over = decided(Terms(max_seconds=5.0), plan, few, {}, "", 10.0, "guardrail cart has no data")
    assert over.side is Side.INCONCLUSIVE
