"""This file says what must hold whatever happens: of a service, of an event, of a step, and at rest.

Rules: an explorer checks only what it is told, so every protection of the law has a check here that misses it (the
killers of `tests/killers.py` prove it). Nothing here asks the law whether it is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from branchline.core.lifecycle import (
    ENDED,
    OPEN,
    PREPARING,
    SERVING,
    Aborted,
    Breached,
    Candidate,
    Event,
    Extended,
    GatesPassed,
    Method,
    Opened,
    Overrode,
    Phase,
    Recorded,
    Service,
    Withdrew,
    Won,
)
from branchline.core.world import (
    FOREIGN,
    PRODUCTION,
    STAGING,
    Absorb,
    Delete,
    Drop,
    Route,
    Running,
    Shares,
    Start,
    Step,
    Stop,
    World,
    Write,
)

K = TypeVar("K")
V = TypeVar("V")


class Broken(Exception):
    """An invariant does not hold."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise Broken(why)


# ── a service and what is wanted for it ────────────────────────────────────────────────────────────────────────────


def check_service(service: Service, wanted: World) -> None:
    routes = dict(wanted.routes)
    for line in service.lines:
        live = [each for each in service.candidates if each.phase is Phase.LIVE and each.line == line.major]
        need(len(live) <= 1, "two incumbents")
        need(Running(str(line.incumbent), PRODUCTION, line.major) in wanted.running, "the incumbent would be stopped")
        need(line.major in routes, "a line without a route")
    takers = Counter((each.line, each.base) for each in service.candidates if each.phase is Phase.CONCLUDING)
    need(max(takers.values(), default=0) <= 1, "two take one arm")
    for major, shares in wanted.routes:
        need(sum(share for _, share in shares) == 100, "shares do not sum to 100")
        need(all(type(share) is int and share > 0 for _, share in shares), "a share that is none")
        need(shares[0][0] in dict(wanted.trunks).values(), "the holder of the trunk has no share")
        serving = {each.revision for each in service.candidates if each.phase in SERVING and each.line == major}
        need(set(dict(shares)) <= serving | {service.line(major).incumbent}, "routed without being promoted")
        for revision, _ in shares:
            need(Running(revision, PRODUCTION, major) in wanted.running, "routed, but not wanted running")
    second = {it.revision for it in service.candidates if it.phase is Phase.QUEUED and it.method is Method.BLUE_GREEN}
    looked_at = {it.revision for it in service.candidates if it.phase in (Phase.EVALUATING, Phase.QUEUED)} - second
    need(second <= {it.revision for it in wanted.running if it.perimeter == PRODUCTION}, "no second colour stands by")
    staged = {it.revision for it in wanted.running if it.perimeter == STAGING}
    need(looked_at == staged, "staging does not run for who looks at it, or runs for nobody")
    for each in service.candidates:
        check_candidate(service, each, dict(routes.get(each.line, ())), wanted)


def check_candidate(service: Service, each: Candidate, shares: Mapping[str, int], wanted: World) -> None:
    forgiven = SERVING | {Phase.WITHDRAWN, Phase.SUPERSEDED}
    need(each.tip == each.revision or each.phase in forgiven, "an unjudged tip was forgotten")
    if each.phase in SERVING:
        fixed = any(it.base == each.branch and it.phase is Phase.CONCLUDING for it in service.candidates)
        need(each.revision in shares or fixed, "under test, but not routed")
    if each.method is Method.BLUE_GREEN:
        need(each.phase not in SERVING - {Phase.CONCLUDING}, "a part of the arm for a second colour")
    if each.phase is Phase.CONCLUDING and each.base is None:
        need(each.holds == service.line(each.line).incumbent, "concluding against what it was not compared with")
        mine = 100 - sum(it.share for it in service.under_test(each.line))
        need(shares[each.revision] == mine, "concluding without the whole arm")
    if each.phase in PREPARING | SERVING and each.base is not None:
        arm = service.on(each.base)
        need(arm.phase in SERVING, "a fix of nothing")


def check_refusal(service: Service, event: Event) -> None:
    """There is a way out, always: a person can close what is open, and abort what git does not have yet."""
    if isinstance(event, Withdrew | Aborted):
        phase = service.on(event.branch).phase
        need(phase not in (OPEN if isinstance(event, Withdrew) else PREPARING | SERVING), "there is no way out")


# ── an event ───────────────────────────────────────────────────────────────────────────────────────────────────────


def check_event(before: Service, event: Event, after: Service) -> None:
    need(after.generation == before.generation + 1, "an event without a generation")
    for line in (*before.lines, *after.lines):
        old, new = len(before.under_test(line.major)), len(after.under_test(line.major))
        need(new <= max(old, after.slots), "more under test than slots")
    if isinstance(event, Breached):
        need(serving_lines(before) <= serving_lines(after), "a guardrail left nothing that serves")
    if isinstance(event, Overrode):
        need(before.on(event.branch).method is Method.AB_TEST, "a person's word for who is not judged for effect")
    if isinstance(event, Opened) and event.outdated:
        now = after.on(event.branch)
        own = None if now.base is None else after.on(now.base).holds  # a fix holds what its challenger holds
        need(now.holds == own, "taken for made from what serves")
    known = {each.branch: each for each in before.candidates}
    for now in after.candidates:
        if now.branch in known and not isinstance(event, Opened):
            check_judgement(before, event, known[now.branch], now)
            check_entrance(before, event, after, known[now.branch], now)


def takes_trunk(candidate: Candidate, line: int) -> bool:
    return candidate.phase is Phase.CONCLUDING and candidate.line == line and candidate.base is None


def serving_lines(service: Service) -> set[int]:
    takers = {each.line for each in service.candidates if takes_trunk(each, each.line)}
    return takers | {line.major for line in service.lines}


def check_judgement(before: Service, event: Event, old: Candidate, now: Candidate) -> None:
    """The judged commit stays judged, and what was said of another is not said of it."""
    recorded = before.on(event.branch) if isinstance(event, Recorded) else None
    if old.phase in SERVING and now.phase in SERVING and now.revision != old.revision:
        need(recorded and recorded.base == now.branch, "judged commit changed under test")
    if old.phase is not Phase.BUILDING and now.phase is Phase.BUILDING:
        need(not now.approved and not now.segment, "what was said of a commit outlived it")
    if recorded and old.base == recorded.branch and old.phase in PREPARING | SERVING:
        need(now.phase is not Phase.SUPERSEDED, "a fix lost its challenger by its promotion")


def check_entrance(before: Service, event: Event, after: Service, old: Candidate, now: Candidate) -> None:
    """Who goes on has waited for all it must, and a verdict is against the incumbent of its day."""
    recorded = before.on(event.branch) if isinstance(event, Recorded) else None
    changed = before.line(now.line).incumbent != after.line(now.line).incumbent
    patched = recorded is not None and recorded.method is Method.PATCH
    if changed and not patched and now.method is Method.AB_TEST and old is not recorded:
        outlived = old.phase is Phase.WON and now.phase in (Phase.WON, Phase.CONCLUDING)
        need(not outlived, "a verdict outlived the incumbent it was against")
    if changed and old.has_slot and now.has_slot:
        need(now.segment > old.segment, "a segment against two incumbents")
    seated = old.phase not in SERVING and now.phase in SERVING
    concludes = old.phase is not Phase.CONCLUDING and now.phase is Phase.CONCLUDING
    won_now = isinstance(event, Won | Overrode) and event.branch == now.branch
    if seated or concludes:
        need(not (before.frozen and after.frozen), "went on while frozen")
    if seated:
        passed = isinstance(event, GatesPassed | Extended) and event.branch == now.branch
        need((passed or old.phase is Phase.QUEUED) and now.revision == old.revision, "went on without its gates")
        need(now.approved or after.approval != "before", "went on without approval")
        second = now.method is Method.BLUE_GREEN and before.line(now.line).incumbent is not None
        need(now.approved or not second, "a second colour took the arm without a word")
        takers = [{it.branch for it in each.candidates if takes_trunk(it, now.line)} for each in (before, after)]
        need(not (takers[0] & takers[1] and now.has_slot), "a test began against an incumbent that is leaving")
    if concludes and not seated:
        need((now.approved and not won_now) or after.approval != "after", "concluded without approval")


def leaves_traffic(before: Service, event: Event, after: Service) -> str:
    """The revision that an event takes out of traffic at once; "" when it is no such event."""
    if not isinstance(event, Aborted | Withdrew | Breached | Overrode):
        return ""
    old = before.on(event.branch)
    if isinstance(event, Overrode) and event.side == "challenger":
        return ""
    still = {each.revision for each in after.candidates if each.phase in SERVING}
    still |= {line.history[-1] for line in after.lines}  # the same commit may serve in another's name
    return old.revision if old.phase in SERVING and old.revision not in still else ""


# ── a step ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def act(world: World, step: Step, judged: Mapping[str, str]) -> World:
    """Do one step in the world; `judged` maps the branch of a fixed challenger to its judged commit."""
    match step:
        case Start(line, revision, perimeter):
            return replace(world, running=world.running | {Running(revision, perimeter, line)})
        case Stop(line, revision, perimeter):
            return replace(world, running=world.running - {Running(revision, perimeter, line)})
        case Route(line, shares):
            return replace(world, routes=without(world.routes, line, (line, shares) if shares else None))
        case Write(_, ref, revision, seen):
            swapped = dict(world.trunks).get(ref) == seen
            return replace(world, trunks=without(world.trunks, ref, (ref, revision))) if swapped else world
        case Drop(ref):
            return replace(world, trunks=without(world.trunks, ref, None))
        case Absorb(_, branch, fix):
            tips = {(b, merged(tip, judged[b], fix) if b == branch else tip) for b, tip in world.branches}
            return replace(world, absorbed=world.absorbed | {(branch, fix)}, branches=frozenset(tips))
        case Delete(_, branch, tip):
            return replace(world, branches=world.branches - {(branch, tip)})


def check_step(world: World, step: Step, wanted: World) -> None:
    """What must hold at the moment of a step, whoever asked for it."""
    match step:
        case Stop(line, revision, perimeter) if perimeter == PRODUCTION:
            need(all(revision not in dict(shares) for _, shares in world.routes), "stopped what is routed")
            need(not wanting(line, world, wanted), "stopped the last healthy copy")
        case Route(line, shares):
            need(not shares or sum(share for _, share in shares) == 100, "shares do not sum to 100")
            up = {(each.revision, each.line) for each in world.running if each.perimeter == PRODUCTION}
            need(all((revision, line) in up for revision, _ in shares), "routed what does not run")
        case Write(line, _, revision, seen):
            need(seen != FOREIGN, "wrote over a tree that nobody knows")
            there = revision in dict(world.trunks).values()
            need(there or holds_trunk_arm(line, revision, world, wanted), "recorded what does not serve")
            check_kept(world, act(world, step, {}), wanted)
        case Drop():
            check_kept(world, act(world, step, {}), wanted)
        case Absorb(line, _, revision):
            need(revision in dict(dict(world.routes).get(line, ())), "absorbed what does not serve")
        case Delete(_, branch, tip):
            need((branch, tip) in world.branches, "deleted a tip nobody saw")


def wanting(line: int, world: World, wanted: World) -> bool:
    """Whether the holder of a line's trunk arm is wanted and does not run."""
    head = next((shares[0][0] for major, shares in wanted.routes if major == line), None)
    return head is not None and Running(head, PRODUCTION, line) not in world.running


def holds_trunk_arm(line: int, revision: str, world: World, wanted: World) -> bool:
    shares: Shares = dict(world.routes).get(line, ())
    only = bool(shares) and set(dict(shares)) <= set(dict(dict(wanted.routes)[line]))
    return only and shares[0][0] == revision and Running(revision, PRODUCTION, line) in world.running


def check_kept(before: World, after: World, wanted: World) -> None:
    lost = set(dict(before.trunks).values()) - set(dict(after.trunks).values())
    need(not lost & set(dict(wanted.trunks).values()), "the code of a line is on no trunk")


def without(pairs: tuple[tuple[K, V], ...], key: K, new: tuple[K, V] | None) -> tuple[tuple[K, V], ...]:
    """Sorted pairs with one of them replaced or taken away."""
    others = [pair for pair in pairs if pair[0] != key]
    return tuple(sorted([*others, new] if new else others, key=lambda pair: str(pair[0])))


def merged(tip: str, judged: str, fix: str) -> str:
    """The tip of a branch with its fix in it: what nobody judged stays visible in it."""
    return fix if tip == judged else f"{tip}+{fix}"


def check_delete(service: Service, step: Step, world: World, wanted: World) -> None:
    assert isinstance(step, Delete)
    each = service.on(step.branch)
    need(each.phase in ENDED, "deleted an open branch")
    need(each.phase is Phase.WITHDRAWN or step.tip == each.revision, "deleted a commit nobody judged")
    if each.revision in dict(wanted.trunks).values():
        need(each.revision in dict(world.trunks).values(), "deleted what the trunk does not have")


# ── at rest ────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_rest(service: Service, world: World, wanted: World) -> None:
    """At rest the two mirrors agree: parity. A foreign tree on a trunk is the one exception, and shown."""
    trunks = dict(world.trunks)
    foreign = {ref for ref, tree in world.trunks if tree == FOREIGN}
    need(world.routes == wanted.routes and world.running == wanted.running, "at rest, but production is not as wanted")
    for ref, revision in wanted.trunks:
        need(ref in foreign or trunks.get(ref) == revision, "at rest, but the trunk is not as wanted")
    need(set(trunks) <= set(dict(wanted.trunks)) | foreign, "at rest, but a trunk of no line is there")
    need(wanted.absorbed <= world.absorbed, "at rest, but a fix is not absorbed")
    tips = dict(world.branches)
    for each in service.candidates:
        if each.phase in ENDED:
            need(foreign or tips.get(each.branch) != each.tip, "concluded, but the branch is there")
        else:
            need(each.branch in tips, "open, but the branch is gone")
    for line in service.lines:
        taken = any(it.phase is Phase.CONCLUDING and it.line == line.major for it in service.candidates)
        need(foreign or taken or line.incumbent in trunks.values(), "the trunk is not what serves")
    need(all(each.phase in OPEN | ENDED for each in service.candidates), "a phase of no kind")
