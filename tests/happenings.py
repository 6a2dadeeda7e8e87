"""This file says what may happen to a service and to the world around it, scenario by scenario.

Rules: an event is tried wherever the law's table has a row for it. Some events come with a change of the world (a push,
a branch deleted by hand), some can only be observed (git has it); a push may also be there before anybody tells us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from branchline.core import lifecycle
from branchline.core.lifecycle import (
    ENDED,
    OPEN,
    BranchEvent,
    Candidate,
    Event,
    Opened,
    Overrode,
    Phase,
    Pushed,
    Ramped,
    Recorded,
    Refused,
    Service,
    Withdrew,
)
from branchline.core.world import FOREIGN, World

Branches = frozenset[tuple[str, str]]
PLAIN = [kind for kind in lifecycle.RULES if kind not in (Pushed, Refused, Recorded, Ramped, Overrode)]


@dataclass(frozen=True)
class Scenario:
    """Where exploring begins, and what may happen besides the events of each open candidate."""

    name: str
    start: Service
    opens: tuple[Opened, ...] = ()  # once each
    pushes: tuple[str, ...] = ()  # branches that are pushed to, once each, with or without what their base is now
    also: tuple[Event, ...] = ()
    deaths: bool = True  # any process may die at any moment
    staging: bool = False  # staging groups start, stop and die too
    unread: bool = False  # a push may be in git before its event arrives
    foreign: bool = False  # once, somebody pushes the service's folder to a trunk


@dataclass(frozen=True)
class Around:
    """What a happening does to the world, or how it is observed there (then None: it is not)."""

    key: tuple[object, ...] = ()
    branches: Callable[[Branches], Branches | None] | None = None
    rest: Callable[[World], World | None] | None = None  # all but the branches


NOTHING = Around()


def projected(service: Service) -> Service:
    """The service without what no rule reads: generation, segments, seats, troubles, reasons, holds of the ended."""
    return replace(service, generation=0, scales=(), candidates=tuple(map(_projected, service.candidates)))


@lru_cache(maxsize=100_000)
def _projected(each: Candidate) -> Candidate:
    if each.phase in ENDED and each.share:
        return Candidate(each.branch, each.revision, each.tip, line=each.line, phase=each.phase, share=0)
    return replace(each, segment=0, trouble="", seated=0, extended=False, overridden="")


def events_of(scenario: Scenario, service: Service) -> Iterator[Event]:
    """Every event that the scenario knows and the law's table does not rule out."""
    for each in service.candidates:
        yield from (kind(each.branch) for kind in PLAIN if each.phase in lifecycle.RULES[kind])
        if each.phase in lifecycle.RULES[Overrode]:
            yield from (Overrode(each.branch, side, "because") for side in lifecycle.SIDES)
        tip = each.branch + "2"
        if each.branch in scenario.pushes and tip not in (each.tip, each.revision):
            yield from (Pushed(each.branch, tip), Pushed(each.branch, tip, synced=True))
        if each.phase is Phase.CONCLUDING:
            yield from (Recorded(each.branch, seen) for seen in tips(service, each))
    names = {each.branch for each in service.candidates}
    yield from (event for event in scenario.also if not isinstance(event, BranchEvent) or event.branch in names)
    for event in scenario.opens:  # once each: a later one of the same branch has a later tip
        if all(it.branch != event.branch or (it.phase not in OPEN and it.tip < event.tip) for it in service.candidates):
            yield event


def tips(service: Service, candidate: Candidate) -> list[str]:
    """Where the branch of a fixed challenger may be seen once its fix is in it."""
    if candidate.base is None:
        return [""]
    arm = service.on(candidate.base)
    unjudged = (f"{tip}+{candidate.revision}" for tip in (arm.tip, arm.branch + "2"))
    return list(dict.fromkeys((candidate.revision, *unjudged)))


def arounds(scenario: Scenario, service: Service, event: Event) -> Iterator[Around]:
    """Each way in which an event and the world go together."""
    match event:
        case Pushed(branch=branch, tip=tip) | Opened(branch=branch, tip=tip) if scenario.unread:
            yield Around(("seen", branch, tip), lambda them: them if (branch, tip) in them else None)
        case Pushed(branch=branch, tip=tip):
            yield pushed(branch, tip)
        case Opened(branch=branch, tip=tip):
            yield Around(("opened", branch, tip), lambda them: frozenset({**dict(them), branch: tip}.items()))
        case Withdrew(branch=branch):
            yield NOTHING
            yield Around(("deleted", branch), lambda them: frozenset(it for it in them if it[0] != branch))
        case Recorded(branch=branch, tip=tip):
            each = service.on(branch)
            fix, inside = (each.base or "", each.revision), (each.base or "", tip)
            if each.base is None:
                yield Around(("written", fix[1]), rest=lambda it: it if fix[1] in dict(it.trunks).values() else None)
            else:
                yield Around(
                    ("absorbed", fix, inside),
                    lambda them: them if inside in them else None,
                    lambda it: it if fix in it.absorbed else None,
                )
        case _:
            yield NOTHING


def unseen(scenario: Scenario, service: Service) -> Iterator[Around]:
    """What happens to the world and is in no event yet."""
    for each in service.candidates if scenario.unread else ():
        if each.branch in scenario.pushes and each.tip != each.branch + "2":
            yield pushed(each.branch, each.branch + "2")
    if scenario.foreign:
        yield Around(("foreign",), rest=lambda it: intruded(it, service.default))


def pushed(branch: str, tip: str) -> Around:
    def move(them: Branches) -> Branches | None:
        return frozenset((b, tip if b == branch else old) for b, old in them) if branch in dict(them) else None

    return Around(("pushed", branch, tip), move)


def intruded(around: World, ref: str) -> World | None:
    """The world after somebody pushed the service's folder to a trunk."""
    if ref not in dict(around.trunks):
        return None
    return replace(around, trunks=tuple((name, FOREIGN if name == ref else tree) for name, tree in around.trunks))
