"""This file tests the verdict: the order in which causes win, and the text that goes into the merge commit.

Requirements: 1.37 to 1.39 (challenger, incumbent, or neither).
"""

from __future__ import annotations

import pytest

from branchline.core.evidence import Judgement, Plan, Stratum, Sums, judge
from branchline.core.guardrail import Guard
from branchline.core.verdict import Cause, Side, Verdict, decide, decide_canary, invalidity

PLAN = Plan(mde=0.02)


def look(control: int, challenger: int, n: int = 9000, ended: str = "") -> Judgement:
    return judge([Stratum(Sums(n, control, control), Sums(n, challenger, challenger))], PLAN, ended)


WINS, LOSES, TIES, OPEN = look(900, 1200), look(1200, 900), look(900, 900), look(100, 112, 1000)
ENDED = look(100, 112, 1000, "14 days are over")
QUIET = Guard().update(900, 9, 100, 1)
BREACHED = Guard().update(900, 1, 100, 30)
PASSED = Guard().update(90_000, 900, 10_000, 100)


@pytest.mark.parametrize(
    ("judgement", "side", "cause"),
    [
        (WINS, Side.CHALLENGER, Cause.PROMOTE),
        (LOSES, Side.INCUMBENT, Cause.HARMFUL),
        (TIES, Side.INCUMBENT, Cause.FUTILE),
        (ENDED, Side.INCONCLUSIVE, Cause.INCONCLUSIVE),
        (OPEN, Side.NONE, Cause.CONTINUE),
    ],
)
def test_an_answer_becomes_a_verdict_1_37(judgement: Judgement, side: Side, cause: Cause) -> None:
    verdict = decide(judgement, {"failed requests": QUIET})
    assert (verdict.side, verdict.cause, verdict.reason) == (side, cause, judgement.reason)
    assert verdict.is_final == (side is not Side.NONE)


def test_a_hard_failure_comes_first() -> None:
    verdict = decide(WINS, {"errors": BREACHED}, failure="the process died", invalid="mismatch", hold="one day")
    assert (verdict.side, verdict.cause, verdict.reason) == (Side.INCUMBENT, Cause.FAILURE, "the process died")


def test_an_invalid_test_comes_before_guardrails_and_winners() -> None:
    verdict = decide(WINS, {"errors": BREACHED}, invalid="mismatch", hold="one day")
    assert (verdict.side, verdict.cause, verdict.reason) == (Side.INCONCLUSIVE, Cause.INVALID, "invalid: mismatch")


@pytest.mark.parametrize("judgement", [WINS, LOSES, TIES, OPEN, ENDED])
def test_nothing_is_promoted_against_a_guardrail(judgement: Judgement) -> None:
    verdict = decide(judgement, {"errors": QUIET, "bad outcomes": BREACHED}, hold="one day")
    assert (verdict.side, verdict.cause) == (Side.INCUMBENT, Cause.ROLLBACK)
    assert verdict.reason == "guardrail breached: bad outcomes"


def test_harm_does_not_wait_but_all_else_does() -> None:
    assert decide(LOSES, {}, hold="one day").cause is Cause.HARMFUL
    for judgement in (WINS, TIES, OPEN):
        verdict = decide(judgement, {}, hold="one day at least")
        assert (verdict.side, verdict.reason) == (Side.NONE, "one day at least")


def test_the_text_carries_the_evidence_1_38() -> None:
    text = decide(WINS, {"failed requests": QUIET}).text
    assert text == (
        "challenger: the challenger is better\n"
        "  18000 outcomes: 9000 incumbent, 9000 challenger\n"
        "  challenger - incumbent +0.03333, 95% sequence [+0.01885, +0.04782]; wanted higher by 0.02\n"
        "  an estimate at an early stop is exaggerated\n"
        "  evidence for 2.02e+09, against 0.00268 (of 40); p 9.9e-10; likelihood ratio 7.48e+08 (futile at 0.1); "
        "information 167% of the plan\n"
        "  guardrail failed requests: 1 bad of 100 (0.177 to 5.45 %), evidence 1 (of 100), continue"
    )


def test_the_text_of_no_data_makes_no_numbers_up() -> None:
    verdict = decide(judge([], PLAN, "14 days are over"), {})
    assert verdict.evidence[0] == "0 outcomes: 0 incumbent, 0 challenger"
    assert "sequence" not in verdict.text
    assert verdict.reason == "14 days are over; 0 of 100 units in an arm"
    planless = judge([Stratum(Sums(500, 9, 9), Sums(500, 9, 9))], Plan(), "14 days are over")
    assert "sequence" not in decide(planless, {}).text
    assert decide(judge([], PLAN), {}).evidence == ()  # every outcome is looked at: words come with the verdict


def canary(*guards: Guard, requests: int = 500, waited: bool = False, failure: str = "") -> Verdict:
    named = {f"guard {n}": guard for n, guard in enumerate(guards)}
    return decide_canary(named, requests=requests, min_requests=100, waited=waited, failure=failure)


def test_a_canary_goes_back_at_a_breach_and_forward_when_all_passed() -> None:
    assert canary(PASSED, BREACHED, waited=True).cause is Cause.ROLLBACK
    assert (canary(PASSED).side, canary(PASSED).cause) == (Side.CHALLENGER, Cause.PASS)
    assert canary(PASSED, QUIET).side is Side.NONE
    assert canary(PASSED, failure="not ready").cause is Cause.FAILURE


def test_a_canary_at_its_wait_limit_is_unproven_or_holds() -> None:
    """No data is no pass: without the minimum of requests it holds, however long."""
    assert (canary(QUIET, waited=True).side, canary(QUIET, waited=True).cause) == (Side.CHALLENGER, Cause.UNPROVEN)
    held = canary(QUIET, requests=99, waited=True)
    assert (held.side, held.reason) == (Side.NONE, "holds: 99 of 100 requests")
    assert canary(waited=True).side is Side.NONE
    assert canary(PASSED, requests=99).side is Side.NONE


def test_arms_that_cannot_be_compared_make_the_test_invalid() -> None:
    assert invalidity(ratio=999, reporting=999, crossed=10, stepped_in=10, units=1000) == ""
    assert "sample-ratio" in invalidity(ratio=1000)
    assert "in both arms" in invalidity(crossed=11, units=1000)
    assert "stepped in" in invalidity(stepped_in=11, units=1000)
    assert "report equally" in invalidity(reporting=1000)
