"""This file says what git and production should show for a service, and the only safe order to get there.

`desired` is the parity table as code, `plan` all steps from what is seen to what is wanted, `ready` those of them that
can be done now. Rules of the order: route what can be routed, and end the routes of ended lines, before anything is
started; never route to what does not run; never write to git what does not serve, and an older major's trunk before the
default branch; never stop what is routed, nor the last healthy copy of a line; delete only at the tip that was seen.
A step waits only for what `ready` names: lines do not wait for one another, and traffic never waits for git.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from branchline.core.service import ENDED, SERVING, Candidate, Method, Phase, Service

PRODUCTION = "production"
STAGING = "staging"
FOREIGN = "foreign"  # what an actual trunk shows when its tree is of no revision: it is never written over

Shares = tuple[tuple[str, int], ...]  # (revision, per cent), the holder of the trunk's arm first


class Running(NamedTuple):
    """One instance group, started and ready."""

    revision: str
    perimeter: str
    line: int


class Doomed(NamedTuple):
    """A branch that must be gone, unless it has moved on from that tip."""

    branch: str
    tip: str
    line: int


@dataclass(frozen=True, slots=True)
class World:
    """What git, the gateway and the machine show of a service, or should show."""

    trunks: tuple[tuple[str, str], ...] = ()  # (ref, the revision whose tree it has), sorted
    routes: tuple[tuple[int, Shares], ...] = ()  # by line, sorted; read back from the gateway
    running: frozenset[Running] = frozenset()
    absorbed: frozenset[tuple[str, str]] = frozenset()  # (challenger's branch, fix that it contains)
    branches: frozenset[tuple[str, str]] = frozenset()  # actual only: (branch, tip)
    doomed: frozenset[Doomed] = frozenset()  # wanted only


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance group and wait until it is warm."""

    line: int
    revision: str
    perimeter: str


@dataclass(frozen=True, slots=True)
class Route:
    """Give a line these shares, () to end its route; done when read back."""

    line: int
    shares: Shares


@dataclass(frozen=True, slots=True)
class Write:
    """Make a trunk show a revision, by compare-and-swap from what was seen (None: no such ref)."""

    line: int
    ref: str
    revision: str
    seen: str | None


@dataclass(frozen=True, slots=True)
class Absorb:
    """Merge a fix into the branch of its challenger."""

    line: int
    branch: str
    revision: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Drain an instance group and stop it."""

    line: int
    revision: str
    perimeter: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Archive a branch and delete it, by compare-and-swap from the tip that was seen."""

    line: int
    branch: str
    tip: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete the trunk of a line that has ended, or that has the default branch again."""

    ref: str


Step = Start | Route | Write | Absorb | Stop | Delete | Drop


# What is wanted


def desired(service: Service) -> World:
    """Say what git and production should show; the same for equal services."""
    heads = dict(_heads(service))
    routes = {major: _arms(service, major, head) for major, head in heads.items()}
    concluding_fixes = [each for each in service.candidates if each.phase is Phase.CONCLUDING and each.base is not None]
    running = {Running(revision, PRODUCTION, major) for major, shares in routes.items() for revision, _ in shares}
    for line in service.lines:  # the incumbent also while a winner concludes, the one before while it is warm
        running |= {Running(each, PRODUCTION, line.major) for each in line.history[-2 if line.warm else -1 :]}
    for fix in concluding_fixes:  # what it takes over is kept until git has it
        running.add(Running(service.on(fix.base or "").revision, PRODUCTION, fix.line))
    for each in service.candidates:
        if each.phase in (Phase.EVALUATING, Phase.QUEUED):  # queued too: who approves has something to look at
            running.add(Running(each.revision, perimeter_of(each), each.line))
    newest = max(heads, default=0)
    return World(
        trunks=tuple(sorted((trunk_of(service, major, newest), head) for major, head in heads.items())),
        routes=tuple(sorted(routes.items())),
        running=frozenset(running),
        absorbed=frozenset((fix.base or "", fix.revision) for fix in concluding_fixes),
        doomed=frozenset(Doomed(it.branch, it.tip, it.line) for it in service.candidates if it.phase in ENDED),
    )


def perimeter_of(candidate: Candidate) -> str:
    """Where a candidate runs: a second colour stands by in production; "" for who runs nowhere."""
    if candidate.phase in SERVING or candidate.stands_by:
        return PRODUCTION
    return STAGING if candidate.phase in (Phase.EVALUATING, Phase.QUEUED) else ""


def trunk_of(service: Service, major: int, newest: int) -> str:
    """The branch that must show a line's incumbent: the newest line has the default branch."""
    return service.default if major == newest else f"major--{service.name}--{major}"


def policy_of(service: Service, major: int) -> str:
    """The branch whose service file is the policy of a line: its trunk, or the default branch before it has one."""
    newest = max((line.major for line in service.lines), default=major)
    return trunk_of(service, major, newest) if service.line(major).history else service.default


def _heads(service: Service) -> Iterator[tuple[int, str]]:
    """Of each line, the revision that holds the trunk's arm: who is concluding there, else the incumbent."""
    takers = {each.line: each.revision for each in service.candidates if _takes_trunk(each)}
    incumbents = {line.major: line.history[-1] for line in service.lines}
    yield from sorted({**incumbents, **takers}.items())


def _takes_trunk(candidate: Candidate) -> bool:
    return candidate.phase is Phase.CONCLUDING and candidate.base is None


def _arms(service: Service, major: int, head: str) -> Shares:
    """Shares of one line: each arm is perhaps split by the canary that wants it, or taken over."""
    under_test = service.under_test(major)
    arms: list[tuple[str | None, str, int]] = [(None, head, 100 - sum(each.share for each in under_test))]
    arms += [(each.branch, each.revision, each.share) for each in under_test]
    shares = {head: 0}
    for base, holder, size in arms:
        for each in service.candidates:
            if each.base == base and each.line == major and each.revision != holder:
                part = _part(service, each, size)
                if part:  # one commit may hold two arms
                    shares[each.revision] = shares.get(each.revision, 0) + part
                    size -= part
        shares[holder] = shares.get(holder, 0) + size
    return tuple((revision, share) for revision, share in shares.items() if share)


def _part(service: Service, candidate: Candidate, size: int) -> int:
    """What of an arm goes to a candidate for it: all of it, a slice of at least one per cent, or nothing."""
    if candidate.method is Method.AB_TEST or candidate.method is Method.BENCHMARK:
        return 0
    if candidate.phase is Phase.CONCLUDING:
        return size
    return max(1, size * service.slice // 100) if candidate.phase in (Phase.CANARY, Phase.WON) else 0


# The order


def plan(actual: World, wanted: World) -> list[Step]:
    """All steps from one world to the other, in an order that is safe to do one by one."""
    routes, trunks, heads = dict(actual.routes), dict(actual.trunks), dict(wanted.trunks)
    line_of = {shares[0][0]: line for line, shares in wanted.routes}
    shifts = [(line, shares, reachable(shares, actual)) for line, shares in wanted.routes]
    steps: list[Step] = [Route(n, safe) for n, want, safe in shifts if safe and safe not in (want, routes.get(n))]
    steps += [Route(n, ()) for n in routes if n not in dict(wanted.routes)]
    missing = sorted(wanted.running - actual.running, key=lambda each: (_urgency(each, line_of), each))
    steps += [Start(line, revision, perimeter) for revision, perimeter, line in missing]
    steps += [Route(n, want) for n, want, _ in shifts if want != routes.get(n)]
    for ref, revision in sorted(heads.items(), key=lambda each: line_of[each[1]]):  # an older major's trunk first
        if trunks.get(ref) not in (revision, FOREIGN):
            steps.append(Write(line_of[revision], ref, revision, trunks.get(ref)))
    for branch, revision in sorted(wanted.absorbed - actual.absorbed):
        steps.append(Absorb(next(n for n, shares in wanted.routes if revision in dict(shares)), branch, revision))
    steps += [Drop(ref) for ref, revision in actual.trunks if ref not in heads and revision != FOREIGN]
    surplus = sorted(actual.running - wanted.running)
    steps += [Stop(line, revision, perimeter) for revision, perimeter, line in surplus]
    doomed = sorted(each for each in wanted.doomed if (each.branch, each.tip) in actual.branches)
    steps += [Delete(line, branch, tip) for branch, tip, line in doomed]
    return steps


def _urgency(group: Running, line_of: dict[str, int]) -> tuple[bool, bool]:
    """Holders of trunk arms are started first, staging last."""
    return group.revision not in line_of, group.perimeter != PRODUCTION


def reachable(want: Shares, actual: World) -> Shares:
    """The wanted shares, with those of the absent given to the trunk's holder; () while that one is absent."""
    up = _up(actual)
    if not want or want[0][0] not in up:
        return ()
    lost = sum(share for revision, share in want if revision not in up)
    holder, rest = want[0], want[1:]
    return ((holder[0], holder[1] + lost), *((revision, share) for revision, share in rest if revision in up))


def ready(actual: World, wanted: World) -> list[Step]:
    """The steps of the plan that can be done now, in any order or at once: what each waits for is true already."""
    return [step for step in plan(actual, wanted) if not blocked(step, actual, wanted)]


def blocked(step: Step, actual: World, wanted: World) -> str:
    """Name what a step of the plan still waits for: "start", "route" or "trunk"; "" when it can be done."""
    match step:
        case Route(shares=shares):
            up = _up(actual)
            return "" if all(revision in up for revision, _ in shares) else "start"
        case Write(line=line, revision=revision, seen=seen):
            trunks, missing = dict(actual.trunks), set(wanted.trunks) - set(actual.trunks)
            unborn = any(ref not in trunks for ref in _older(line, wanted))
            if unborn or any(head == seen for _, head in missing):
                return "trunk"  # else the code of an older line would be nowhere for a while
            moves = revision in trunks.values()  # recorded already, only under another name
            return "" if moves or _shifted(line, revision, actual, wanted) else "route"
        case Absorb(line=line, revision=revision):
            return "" if _shifted(line, revision, actual, wanted) else "route"
        case Drop():
            return "" if set(wanted.trunks) <= set(actual.trunks) else "trunk"
        case Stop(line=line, revision=revision, perimeter=perimeter) if perimeter == PRODUCTION:
            if any(revision in dict(shares) for _, shares in actual.routes):
                return "route"
            heads = {shares[0][0] for major, shares in wanted.routes if major == line}
            return "" if heads <= _up(actual) else "start"  # the last healthy copy of its line
        case Delete(tip=tip):
            return "trunk" if any(head == tip for _, head in set(wanted.trunks) - set(actual.trunks)) else ""
    return ""


def _up(actual: World) -> set[str]:
    return {group.revision for group in actual.running if group.perimeter == PRODUCTION}


def _older(line: int, wanted: World) -> list[str]:
    """The trunks of the lines below one."""
    older = {shares[0][0] for major, shares in wanted.routes if major < line}
    return [ref for ref, head in wanted.trunks if head in older]


def _shifted(line: int, revision: str, actual: World, wanted: World) -> bool:
    """Whether the route, read back, gives a revision its whole arm, and nobody but the trunk's holder more than wanted.

    A share that waits for an unrelated process lies with the trunk's holder: git does not wait for that one.
    """
    now, want = dict(dict(actual.routes).get(line, ())), dict(dict(wanted.routes)[line])
    head = next(iter(want))
    surplus = any(share > want.get(each, 0) for each, share in now.items() if each != head)
    return revision in _up(actual) and now.get(revision, 0) >= want[revision] and not surplus
