"""This file makes one verdict of everything that is seen at a look.

Rules. The order is fixed: hard failure, then an invalid test, then a guardrail's rollback, then harmful, promote,
futile and inconclusive. So nothing is promoted against a guardrail, and nothing is concluded from arms that are not
comparable. A verdict carries its evidence as lines of text, the same in the merge commit and in `status`. Time is the
caller's: it says what ended or what still holds a conclusion back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from branchline.core.evidence import Answer, Judgement
from branchline.core.guardrail import Guard
from branchline.core.planning import proportion
from branchline.core.ratio_check import MOST_CROSSED, is_crossed, is_mismatch


class Side(StrEnum):
    """Who stays; nobody yet while the test goes on."""

    CHALLENGER = "challenger"
    INCUMBENT = "incumbent"
    INCONCLUSIVE = "inconclusive"
    NONE = "none yet"


class Cause(StrEnum):
    """What decided."""

    FAILURE = "hard failure"
    INVALID = "invalid"
    ROLLBACK = "rollback"
    HARMFUL = "harmful"
    PROMOTE = "promote"
    FUTILE = "futile"
    INCONCLUSIVE = "inconclusive"
    PASS = "pass"
    UNPROVEN = "unproven"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who stays, what decided, why in one line, and the numbers it rests on, a line each: of a final one alone, for
    every outcome is looked at and the words take longer than the judgement.
    """

    side: Side
    cause: Cause
    reason: str
    evidence: tuple[str, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether it concludes."""
        return self.side is not Side.NONE

    @property
    def text(self) -> str:
        """The whole verdict as the body of a commit message has it."""
        return "\n".join((f"{self.side}: {self.reason}", *(f"  {line}" for line in self.evidence)))


_OF_ANSWER = {
    Answer.HARMFUL: (Side.INCUMBENT, Cause.HARMFUL),
    Answer.PROMOTE: (Side.CHALLENGER, Cause.PROMOTE),
    Answer.FUTILE: (Side.INCUMBENT, Cause.FUTILE),
    Answer.INCONCLUSIVE: (Side.INCONCLUSIVE, Cause.INCONCLUSIVE),
    Answer.CONTINUE: (Side.NONE, Cause.CONTINUE),
}


def decide(
    judgement: Judgement,
    guards: Mapping[str, Guard],
    *,
    failure: str = "",
    invalid: str = "",
    hold: str = "",
) -> Verdict:
    """Conclude an A/B test, or say why it goes on.

    `failure` names a hard failure of the challenger, `invalid` why the arms cannot be compared (see `invalidity`),
    `hold` what still forbids a conclusion in the challenger's favour or for futility (its shortest duration); harm
    does not wait.
    """
    if failure:
        side, cause, reason = Side.INCUMBENT, Cause.FAILURE, failure
    elif invalid:
        side, cause, reason = Side.INCONCLUSIVE, Cause.INVALID, f"invalid: {invalid}"
    elif breached := _breached(guards):
        side, cause, reason = Side.INCUMBENT, Cause.ROLLBACK, breached
    elif hold and judgement.answer is not Answer.HARMFUL:
        side, cause, reason = Side.NONE, Cause.CONTINUE, hold
    else:
        side, cause = _OF_ANSWER[judgement.answer]
        reason = judgement.reason
    return Verdict(side, cause, reason, evidence(judgement, guards) if side is not Side.NONE else ())


def decide_canary(
    guards: Mapping[str, Guard],
    *,
    requests: int,
    min_requests: int,
    failure: str = "",
    waited: bool = False,
    hold: str = "",
) -> Verdict:
    """Conclude a canary: back at a breach, forward when every guardrail has passed, or unproven when it has `waited`.

    Without guardrails, or with fewer than `min_requests` of its own requests, it never goes forward: it holds. So it
    does where `hold` says why.
    """
    lines = tuple(_guard_line(name, guard) for name, guard in guards.items())
    if failure:
        return Verdict(Side.INCUMBENT, Cause.FAILURE, failure, lines)
    if breached := _breached(guards):
        return Verdict(Side.INCUMBENT, Cause.ROLLBACK, breached, lines)
    if hold:
        return Verdict(Side.NONE, Cause.CONTINUE, f"holds: {hold}", lines)
    if not guards or requests < min_requests:
        return Verdict(Side.NONE, Cause.CONTINUE, f"holds: {requests} of {min_requests} requests", lines)
    if all(guard.passed for guard in guards.values()):
        return Verdict(Side.CHALLENGER, Cause.PASS, "every guardrail passed", lines)
    if waited:
        return Verdict(Side.CHALLENGER, Cause.UNPROVEN, "no guardrail was breached in the time given", lines)
    return Verdict(Side.NONE, Cause.CONTINUE, "undecided so far", lines)


def invalidity(
    *, ratio: float = 1.0, reporting: float = 1.0, crossed: int = 0, stepped_in: int = 0, units: int = 0
) -> str:
    """Why the arms cannot be compared; empty if they can.

    `ratio` and `reporting` are the evidence of a sample-ratio mismatch and of unequal reporting (give the latter only
    for metrics that drop units without a report); `crossed` units were seen in both arms, for `stepped_in` units the
    incumbent answered in the challenger's place.
    """
    if is_mismatch(ratio):
        return f"sample-ratio mismatch (evidence {ratio:.3g})"
    if is_crossed(crossed, units):
        return f"{crossed} of {units} units were in both arms (more than {MOST_CROSSED:.0%})"
    if is_crossed(stepped_in, units):
        return f"the incumbent stepped in for {stepped_in} of {units} units (more than {MOST_CROSSED:.0%})"
    if is_mismatch(reporting):
        return f"the arms do not report equally (evidence {reporting:.3g})"
    return ""


def evidence(judgement: Judgement, guards: Mapping[str, Guard]) -> tuple[str, ...]:
    """The numbers of a look in words, a line each: the primary metric first, then every guardrail."""
    arms = f"{judgement.units_control} incumbent, {judgement.units_challenger} challenger"
    lines = [f"{judgement.units} outcomes: {arms}"]
    if judgement.estimate is not None:
        line = f"challenger - incumbent {judgement.estimate:+.4g}"
        if judgement.low is not None and judgement.high is not None:
            line += f", {100 - 100 * judgement.plan.alpha:.3g}% sequence [{judgement.low:+.4g}, {judgement.high:+.4g}]"
        plan = judgement.plan
        asked = f"or no worse by {plan.margin:.4g}" if plan.margin else f"by {plan.effect:.4g}"
        lines.append(f"{line}; wanted {plan.direction} {asked}")
        if judgement.answer in (Answer.PROMOTE, Answer.HARMFUL):
            lines.append("an estimate at an early stop is exaggerated")
    bar = 2 / judgement.plan.alpha
    lines.append(
        f"evidence for {judgement.e_for:.3g}, against {judgement.e_against:.3g} (of {bar:.3g}); p {judgement.p:.2g}; "
        f"likelihood ratio {judgement.likelihood_ratio:.3g} (futile at {judgement.plan.beta:.3g}); "
        f"information {judgement.progress:.0%} of the plan"
    )
    return (*lines, *(_guard_line(name, guard) for name, guard in guards.items()))


def _breached(guards: Mapping[str, Guard]) -> str:
    """The breached guardrails in one line; empty if there is none."""
    names = [name for name, guard in guards.items() if guard.breached]
    return f"guardrail breached: {', '.join(names)}" if names else ""


def bad_of(bad: int, requests: int) -> str:
    """How many were bad of how many, with the interval of the rate at one look."""
    low, high = proportion(bad, requests)
    return f"{bad} bad of {requests}" + (f" ({100 * low:.3g} to {100 * high:.3g} %)" if requests else "")


def _guard_line(name: str, guard: Guard) -> str:
    return (
        f"guardrail {name}: {bad_of(guard.bad, guard.requests)}, evidence {guard.highest:.3g} "
        f"(of {1 / guard.rule.alpha:.3g}), {guard.answer}"
    )
