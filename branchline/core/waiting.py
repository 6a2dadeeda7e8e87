"""This file says what keeps a candidate where it is, in one word that a person can act on.

Rules, in the order in which they are named: `frozen` -> thaw; `behind` (shown as `conflict` when the trial merge needs
a person) -> sync or `sync --keep`; `approval`, of a policy or of a second colour -> approve or withdraw; `arm`: the
challenger that it fixes is not under test; `arm busy`: somebody is taking over this arm, or its own; `slot`. Who
concludes waits for nothing but git: its `trouble`. Whether it is behind is always compared and never stored.
"""

from __future__ import annotations

from branchline.core.service import Candidate, Method, Phase, Service

WAITING = frozenset({Phase.QUEUED, Phase.WON})
SMALLEST = 2  # per cent: an arm of one cannot give a canary its slice


def waits_for(service: Service, candidate: Candidate) -> str:
    """Name what keeps a candidate in its phase; "" when nothing does, or when it waits for no one."""
    if candidate.phase is Phase.CONCLUDING:
        return candidate.trouble
    if candidate.phase not in WAITING:
        return ""
    if service.frozen:
        return "frozen"
    if behind(service, candidate):
        return "behind"
    if needs_word(service, candidate) and not candidate.approved:
        return "approval"
    if candidate.base is not None and not arm_of(service, candidate.base):
        return "arm"
    tests = candidate.phase is Phase.QUEUED and candidate.method is Method.AB_TEST and not is_first(service, candidate)
    if not tests:
        return "arm busy" if changing_hands(service, candidate) else ""
    full = len(service.under_test(candidate.line)) >= service.slots or not fits(service, candidate, candidate.share)
    return "slot" if full or concluding(service, candidate.line) else ""


def needs_word(service: Service, candidate: Candidate) -> bool:
    """Whether a person has to agree: the service asks for it, or it is a second colour beside an incumbent."""
    if candidate.stands_by and not is_first(service, candidate):
        return True
    return service.approval == ("before" if candidate.phase is Phase.QUEUED else "after")


def behind(service: Service, candidate: Candidate) -> bool:
    """Whether what it would replace is no longer what it was made from."""
    made_from = candidate.holds if candidate.base is None else candidate.onto
    return made_from != replaced(service, candidate)


def replaced(service: Service, candidate: Candidate) -> str | None:
    """The revision whose arm it wants and with which it is compared: the incumbent, or that of its challenger."""
    if candidate.base is None:
        return service.line(candidate.line).incumbent
    return service.on(candidate.base).revision


def is_first(service: Service, candidate: Candidate) -> bool:
    """Whether its line has no incumbent yet, so that there is nothing to compare it with."""
    return candidate.base is None and service.line(candidate.line).incumbent is None


def concluding(service: Service, major: int) -> bool:
    """Whether somebody is taking over the trunk's arm of a line."""
    return any(
        other.phase is Phase.CONCLUDING and other.line == major and other.base is None for other in service.candidates
    )


def arm_of(service: Service, branch: str) -> Candidate | None:
    """The challenger whose arm a fix made for that branch would take: it is under test, on a share of its own."""
    return next((each for each in service.candidates if each.branch == branch and each.has_slot), None)


def fits(service: Service, candidate: Candidate, share: int) -> bool:
    """Whether its line can give it that share and keep an arm for the incumbent."""
    others = sum(other.share for other in service.under_test(candidate.line) if other.branch != candidate.branch)
    return share >= SMALLEST and others + share <= 100 - SMALLEST


def changing_hands(service: Service, candidate: Candidate) -> bool:
    """Whether somebody else is taking over the arm it wants, or its own: an arm changes hands one at a time."""
    return any(
        other.branch != candidate.branch
        and other.line == candidate.line
        and other.base in (candidate.base, candidate.branch)
        and _takes_over(other)
        for other in service.candidates
    )


def _takes_over(candidate: Candidate) -> bool:
    in_a_slice = candidate.phase is Phase.WON and candidate.method is not Method.AB_TEST
    return in_a_slice or candidate.phase in (Phase.CANARY, Phase.CONCLUDING)
