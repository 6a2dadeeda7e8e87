"""This file says what becomes of a service when something happens: `move` is the only place where a phase changes.

Rules: `RULES` below is the law for one candidate; what it does not list is an `IllegalMove`. Every release is "take
over an arm", one at a time: an A/B winner or a canary takes the trunk's, a fix or a sync takes its challenger's. After
every event two consequences are drawn (`settle`), then whoever waits for nothing any more goes on (`advance`), the
longest waiting first. No git, no proxy, no clock in here; the records live in `core.service`, the events in
`core.events`, what somebody waits for in `core.waiting`, and all of them can be imported from here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from branchline.core.events import (
    Aborted,
    Approved,
    BranchEvent,
    Breached,
    BuildFailed,
    Built,
    Configured,
    Cooled,
    Event,
    Extended,
    Frozen,
    GatesFailed,
    GatesPassed,
    Kept,
    LineEvent,
    Lost,
    Opened,
    Overrode,
    Pushed,
    Ramped,
    Recorded,
    Refused,
    Retired,
    RolledBack,
    Scaled,
    Thawed,
    Undecided,
    Withdrew,
    Won,
)
from branchline.core.service import (
    ENDED,
    OPEN,
    PREPARING,
    RESTING,
    SERVING,
    Candidate,
    Line,
    Method,
    Phase,
    Service,
)
from branchline.core.spec import MOST_INSTANCES
from branchline.core.waiting import WAITING, arm_of, behind, concluding, fits, is_first, waits_for
from branchline.errors import IllegalMove

__all__ = [  # noqa: RUF022  in the order in which they are told
    "Service", "Candidate", "Line", "Phase", "Method", "PREPARING", "SERVING", "RESTING", "OPEN", "ENDED",
    "Event", "BranchEvent", "LineEvent", "Opened", "Pushed", "Built", "BuildFailed", "GatesPassed", "GatesFailed",
    "Won", "Lost", "Undecided", "Overrode", "Extended", "Breached", "Aborted", "Withdrew", "Approved", "Kept", "Ramped",
    "Recorded", "Refused", "RolledBack", "Cooled", "Retired", "Frozen", "Thawed", "Scaled", "Configured",
    "RULES", "move", "waits_for", "behind", "concluding", "is_first", "IllegalMove",
]  # fmt: skip

P = Phase


def _each(phases: Iterable[Phase], to: Phase | None = None) -> dict[Phase, Phase]:
    """Rows of the law from each of these phases to one, or each to itself."""
    return {phase: to or phase for phase in phases}


RULES: dict[type[BranchEvent], dict[Phase, Phase]] = {
    Built: {P.BUILDING: P.EVALUATING},
    BuildFailed: {P.BUILDING: P.FAILED},
    GatesPassed: {P.EVALUATING: P.QUEUED},  # a benchmark: measured
    GatesFailed: {P.EVALUATING: P.FAILED, P.QUEUED: P.FAILED},  # queued: only what stands by, and does not stay up
    Won: {P.TESTING: P.WON, P.CANARY: P.WON},
    Lost: {P.TESTING: P.DECLINED},
    Undecided: {P.TESTING: P.INCONCLUSIVE, P.CANARY: P.INCONCLUSIVE},
    Overrode: _each({P.TESTING, P.WON}),  # of an A/B test: to what the person says, see `SIDES`
    Extended: {P.INCONCLUSIVE: P.QUEUED},
    Breached: {**_each(SERVING, P.ROLLED_BACK), P.LIVE: P.RETIRED},  # live: only while the one before is warm
    Aborted: {**_each(PREPARING, P.FAILED), **_each(SERVING, P.ROLLED_BACK)},
    Withdrew: _each(OPEN, P.WITHDRAWN),
    Approved: _each(WAITING),
    Kept: _each(OPEN - {P.CONCLUDING}),  # only when behind
    Ramped: {P.TESTING: P.TESTING},
    Pushed: {**_each(PREPARING | RESTING, P.BUILDING), **_each(SERVING)},  # under test the judged commit stays judged
    Refused: {P.CONCLUDING: P.CONCLUDING},
    Recorded: {P.CONCLUDING: P.LIVE},  # a fix of a challenger: absorbed
}


SIDES = {"challenger": P.WON, "incumbent": P.DECLINED, "nobody": P.INCONCLUSIVE}  # for whom a person may decide


def move(service: Service, event: Event) -> Service:
    """Say what becomes of a service when something happened; raises IllegalMove when that cannot happen now."""
    match event:
        case Opened():
            after = opened(service, event)
        case BranchEvent():
            after = of_candidate(service, event)
        case LineEvent():
            after = of_line(service, event)
        case _:
            after = of_service(service, event)
    return replace(advance(settle(after)), generation=service.generation + 1)


# What an event does to its own subject


def of_service(service: Service, event: Event) -> Service:
    """A freeze is one flag that stops `advance` and nothing else."""
    match event:
        case Frozen() if not service.frozen:
            return replace(service, frozen=True)
        case Thawed() if service.frozen:
            return replace(service, frozen=False)
        case Configured(slots, part, approval) if _fair(slots, part, approval):
            return replace(service, slots=slots, slice=part, approval=approval)
        case Scaled(revision, instances) if 0 < instances <= MOST_INSTANCES and revision in there(service):
            others = (each for each in service.scales if each[0] in there(service) - {revision})
            return replace(service, scales=(*others, (revision, instances)))
        case Scaled(revision):
            raise illegal(service, event, f"{revision[:7]} does not run in production, or cannot have that many")
        case Frozen() | Thawed():
            raise illegal(service, event, "it is frozen already" if service.frozen else "it is not frozen")
    raise illegal(service, event)


def there(service: Service) -> set[str]:
    """The revisions that are to run in production."""
    known = {each for line in service.lines for each in line.history[-2 if line.warm else -1 :]}
    return known | {each.revision for each in service.candidates if each.phase in SERVING or each.stands_by}


def _fair(slots: int, part: int, approval: str) -> bool:
    return 0 < slots < 50 and 0 < part < 100 and approval in ("", "before", "after")


def of_line(service: Service, event: LineEvent) -> Service:
    """Cool, roll back or retire a line; the last two not while somebody takes it over (abort it first)."""
    line = service.line(event.line)
    match event:
        case Cooled() if line.warm:
            return service.with_line(replace(line, warm=False))
        case RolledBack() if len(line.history) > 1 and not concluding(service, line.major):
            return uncrown(service, line.major)
        case Retired() if line.history and len(service.lines) > 1 and not concluding(service, line.major):
            ended = [
                enter(each, P.RETIRED if each.phase is P.LIVE else P.SUPERSEDED)
                for each in service.candidates
                if each.line == line.major and each.phase in OPEN | {P.LIVE}
            ]
            return service.with_candidate(*ended).with_line(Line(line.major))
    if not line.history:
        raise illegal(service, event, "nothing of it serves")
    if concluding(service, line.major) and not isinstance(event, Cooled):
        raise illegal(service, event, "somebody is taking it over: abort that first")
    reasons = {Retired: "it is all that serves", RolledBack: "nothing served before", Cooled: "nothing is warm"}
    raise illegal(service, event, reasons[type(event)])


def opened(service: Service, event: Opened) -> Service:
    """Begin a candidate on a branch that has no open one; the youngest stands last."""
    if any(each.branch == event.branch and each.phase in OPEN for each in service.candidates):
        raise illegal(service, event, "the branch has an open candidate: push to it")
    if any(line.major > event.line for line in service.lines) and not service.line(event.line).history:
        raise illegal(service, event, f"line {event.line} has ended")
    share = 100 // (service.slots + 1)
    fresh = Candidate(event.branch, event.tip, event.tip, None, event.method, event.base, line=event.line, share=share)
    if event.base is not None:
        arm = arm_of(service, event.base)
        if arm is None or event.method is not Method.PATCH:
            raise illegal(service, event, "only a patch can take over an arm, and only while that arm is under test")
        fresh = replace(fresh, line=arm.line, holds=arm.holds)
    if event.synced or (event.base is None and not event.outdated):
        fresh = caught_up(service, fresh, event.outdated)
    others = (each for each in service.candidates if each.branch != event.branch)
    return replace(service, candidates=(*others, fresh))


def of_candidate(service: Service, event: BranchEvent) -> Service:
    """Follow the row of `RULES`, with the guard and the effect that the event has besides."""
    candidate = service.on(event.branch)
    to = RULES[type(event)].get(candidate.phase)
    if to is None:
        raise illegal(service, event, f"it is {candidate.phase.value}")
    after = enter(candidate, to)
    match event:
        case Built():
            after = declared(service, after, event)
        case GatesPassed(share=share, repeats=repeats):
            after = replace(after, share=share or 100 // (service.slots + 1), repeats=repeats)
            if candidate.method is Method.BENCHMARK:
                after = enter(after, P.MEASURED)
            elif not fits(replace(service, candidates=()), after, after.share):
                raise illegal(service, event, f"a share of {share} % leaves an arm too small")
        case GatesFailed() if candidate.phase is P.QUEUED and not candidate.stands_by:
            raise illegal(service, event, "its gates have passed, and it does not run in production")
        case Won():
            after = decided(service, after)
        case Overrode():
            after = overridden(service, candidate, event)
        case Breached() if candidate.phase is P.CONCLUDING and is_first(service, candidate):
            after = candidate  # an alarm only: there is nothing to go back to, and sick is better than none
        case Breached() if candidate.phase is P.LIVE:
            if not service.line(candidate.line).warm or concluding(service, candidate.line):
                raise illegal(service, event, "the one before is not warm: roll back instead")
            return uncrown(service, candidate.line)
        case Extended():
            after = replace(after, extended=True, overridden="")
        case Approved():
            if candidate.approved:
                raise illegal(service, event, "it is approved already")
            after = replace(after, approved=True)
        case Kept():
            if not behind(service, candidate):
                raise illegal(service, event, "it is not behind")
            after = caught_up(service, after)
        case Ramped(share=share):
            if share == candidate.share or not fits(service, candidate, share):
                raise illegal(service, event, f"a share of {share} % is what it has, or more than there is")
            after = replace(after, share=share, segment=candidate.segment + 1)
        case Pushed():
            after = pushed(service, candidate, event)
        case Refused(reason=reason):
            after = replace(after, trouble=reason)
        case Recorded(tip=tip):
            return crown(service, candidate) if candidate.base is None else absorb(service, candidate, tip)
    return service.with_candidate(after)


def decided(service: Service, candidate: Candidate) -> Candidate:
    """With a verdict, or a person's word in its place: approval is of that, not of what was there before."""
    return replace(candidate, approved=candidate.approved and service.approval != "after")


def overridden(service: Service, candidate: Candidate, event: Overrode) -> Candidate:
    """As the person says; whatever a verdict would have to wait for, this waits for, too."""
    to = SIDES.get(event.side)
    if candidate.method is not Method.AB_TEST:
        raise illegal(service, event, "only an A/B test is concluded by a person: abort it, or let it pass")
    if to is None or to is candidate.phase or not event.reason.strip():
        raise illegal(service, event, "it has won already" if to is candidate.phase else "say for whom, and why")
    told = f"{event.by}: {event.reason}" if event.by else event.reason
    return replace(decided(service, enter(candidate, to)), overridden=told)


def declared(service: Service, candidate: Candidate, event: Built) -> Candidate:
    """What its own file says of the commit: how it is judged, and for which line, which a push may have changed."""
    judged = replace(candidate, method=event.method or candidate.method)
    line = event.line or candidate.line
    if line == candidate.line:
        return judged
    if candidate.base is not None or not service.may_have(line):
        raise illegal(service, event, f"it is for line {candidate.line}, and cannot be for line {line}")
    moved = replace(judged, line=line)
    return caught_up(service, moved) if event.synced or is_first(service, moved) else moved


def pushed(service: Service, candidate: Candidate, event: Pushed) -> Candidate:
    """A new tip: under test it waits, elsewhere it is the next candidate at once."""
    if event.tip == candidate.tip:
        raise illegal(service, event, "that tip is known")
    if candidate.phase in SERVING:
        return replace(candidate, tip=event.tip)
    if event.synced and candidate.base is not None and not in_traffic(service, candidate.base):
        candidate = replace(candidate, base=None, onto=None)  # its arm is gone: it becomes a fix of the trunk
    newest = max((line.major for line in service.lines), default=candidate.line)
    if candidate.line < newest and is_first(service, candidate):
        if not event.synced:  # its line has ended, and the code is still that line's
            return enter(judging(candidate, event.tip), P.SUPERSEDED)
        candidate = replace(candidate, line=newest)
    return judging(caught_up(service, candidate, event.outdated) if event.synced else candidate, event.tip)


# Arms changing hands


def crown(service: Service, candidate: Candidate) -> Service:
    """The trunk has it: it is the incumbent, and whoever was compared with the one before is compared anew."""
    line = service.line(candidate.line)
    changed = [enter(candidate, P.LIVE)]
    for other in service.candidates:
        if other.phase is P.LIVE and other.line == line.major:
            changed.append(enter(other, P.RETIRED))
        elif other.base == candidate.branch and other.phase in OPEN:  # a fix made for it is now a fix of the trunk
            changed.append(replace(other, base=None, holds=other.onto, onto=None))
    crowned = service.with_candidate(*changed).with_line(
        Line(line.major, (*line.history, candidate.revision), warm=bool(line.history))
    )
    return compare_anew(crowned, line.major, void=candidate.method is not Method.PATCH)


def absorb(service: Service, fix: Candidate, tip: str) -> Service:
    """The challenger's branch has its fix: the two are one candidate now, judged from a new segment on."""
    arm = service.on(fix.base or "")
    whole = replace(arm, revision=fix.revision, tip=tip or fix.revision, holds=fix.holds, segment=arm.segment + 1)
    return service.with_candidate(enter(fix, P.ABSORBED), whole)


def uncrown(service: Service, major: int) -> Service:
    """Back to the incumbent before, warm or not; git follows by a commit that restores its tree."""
    line = service.line(major)
    back = service.with_line(replace(line, history=line.history[:-1], warm=False))
    live = [enter(each, P.RETIRED) for each in service.candidates if each.phase is P.LIVE and each.line == major]
    return compare_anew(back.with_candidate(*live), major, void=True)


def compare_anew(service: Service, major: int, void: bool) -> Service:
    """The incumbent changed: who is under test begins a new segment, and unless by a patch no verdict outlives it."""
    return service.with_candidate(
        *(
            replace(
                each,
                segment=each.segment + 1,
                phase=P.TESTING if void else each.phase,
                overridden="" if void else each.overridden,
            )
            for each in service.under_test(major)
        )
    )


# After every event


OVER = (ENDED | RESTING) - {P.WITHDRAWN, P.SUPERSEDED}  # withdrawn: nobody wants the tip; superseded: it has no arm


def settle(service: Service) -> Service:
    """Draw two consequences: who lost its arm is superseded, and a tip that nobody judged is the next candidate."""
    for each in service.candidates:
        if each.base is not None and each.phase in PREPARING | SERVING and not in_traffic(service, each.base):
            service = service.with_candidate(enter(each, P.SUPERSEDED))
        elif each.tip != each.revision and each.phase in OVER:
            holds = each.revision if each.phase is P.LIVE else each.holds
            onto = each.revision if each.phase is P.ABSORBED else each.onto
            service = service.with_candidate(judging(replace(each, holds=holds, onto=onto), each.tip))
    return service


def advance(service: Service) -> Service:
    """Let whoever waits for nothing any more go on, the longest waiting first, until nobody can."""
    for each in service.candidates:
        if each.phase in WAITING and not waits_for(service, each):
            if each.phase is P.WON or is_first(service, each) or each.method is Method.BLUE_GREEN:
                gone_on = enter(each, P.CONCLUDING)
            elif each.method is Method.AB_TEST:  # its part of the error rate stays what it was when it was first seated
                gone_on = replace(enter(each, P.TESTING), seated=each.seated or service.slots)
            else:
                gone_on = enter(each, P.CANARY)
            return advance(service.with_candidate(gone_on))
    return service


# Words of the law


def enter(candidate: Candidate, phase: Phase) -> Candidate:
    """The candidate in a phase; the trouble of the one before is over."""
    return replace(candidate, phase=phase, trouble="")


def judging(candidate: Candidate, tip: str) -> Candidate:
    """A new commit is a new candidate: nothing that was said of the old one counts; its age stays."""
    fresh = replace(enter(candidate, P.BUILDING), seated=0, repeats=0, extended=False, overridden="")
    return replace(fresh, revision=tip, tip=tip, approved=False, segment=0)


def caught_up(service: Service, candidate: Candidate, outdated: bool = False) -> Candidate:
    """The candidate, holding what it would replace; an outdated fix holds no more of the trunk than its challenger."""
    incumbent = service.line(candidate.line).incumbent
    if candidate.base is None:
        return replace(candidate, holds=incumbent, onto=None)
    arm = service.on(candidate.base)
    return replace(candidate, holds=arm.holds if outdated else incumbent, onto=arm.revision)


def in_traffic(service: Service, branch: str) -> bool:
    """Whether the candidate of a branch has traffic that is not yet its line's."""
    return any(each.branch == branch and each.phase in SERVING for each in service.candidates)


def illegal(service: Service, event: Event, cause: str = "") -> IllegalMove:
    """The refusal of an event, in the words of its subject."""
    match event:
        case BranchEvent(branch=branch):
            subject = branch
        case LineEvent(line=major):
            subject = f"{service.name} {major}.x"
        case _:
            subject = service.name
    return IllegalMove(cause, hint=f"branchline status {service.name}", event=type(event).__name__, subject=subject)
