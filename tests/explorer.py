"""This file tries every event the law accepts, at every moment, and checks all of `tests.invariants` on the way.

A state is a service and the world around it. From each, one of these happens: any event, any step that is ready, any
process dying, a push or a foreign commit that nobody has told us of. A controller that crashes between two steps is the
same as planning again, so it is in every run; stale controllers are in `tests.fencing`.

Rules that make it fast, and where each is checked:
- what no rule of the law reads is projected away (`tests/properties/test_explore_small.py` walks with and without);
- services, and worlds in two parts (the branches; all the rest), are numbered; what depends on a part or on what is
  wanted is worked out once: of the steps only deletions look at the branches (checked wherever a branch must go);
- staging groups, for which nothing waits and which wait for nothing, are left out of the larger scenarios;
- worlds travel in sets, the bits of one large number: an event that leaves the world alone moves a set at once.
Ready steps may be done in any order or at once: doing one keeps the others ready, except that a Route may have become a
better Route of its line, and then the old one is still harmless (checked for every pair).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Generic, TypeVar

from branchline.core import lifecycle, world
from branchline.core.lifecycle import (
    BranchEvent,
    Event,
    IllegalMove,
    Opened,
    Service,
)
from branchline.core.world import PRODUCTION, Absorb, Delete, Route, Start, Step, World
from tests.happenings import Around, Branches, Scenario, arounds, events_of, projected, unseen
from tests.invariants import (
    act,
    check_delete,
    check_event,
    check_refusal,
    check_rest,
    check_service,
    check_step,
    leaves_traffic,
    need,
)

Edge = tuple[str, str, str]  # (phase, event, phase)
T = TypeVar("T")


class Numbers(Generic[T]):
    """Things by number, numbers by thing."""

    def __init__(self) -> None:
        self.things: list[T] = []
        self._numbers: dict[T, int] = {}

    def of(self, thing: T) -> int:
        number = self._numbers.setdefault(thing, len(self.things))
        if number == len(self.things):
            self.things.append(thing)
        return number


@dataclass(frozen=True)
class Law:
    """The functions under test; the killers put broken ones in their place."""

    move: Callable[[Service, Event], Service] = lifecycle.move
    desired: Callable[[Service], World] = world.desired
    plan: Callable[[World, World], list[Step]] = world.plan
    ready: Callable[[World, World], list[Step]] = world.ready


@dataclass(frozen=True)
class Found:
    """What exploring a scenario found."""

    states: int
    services: int
    repair: int  # the longest way from any state to rest, nothing else happening
    edges: frozenset[Edge]
    seconds: float
    whole: bool


@dataclass(frozen=True)
class Happening:
    """One event of one service: what it leads to, and what it does to the world around."""

    after: int
    around: Around
    leaving: str  # the revision that must leave traffic at once


def bits(rests: int) -> Iterator[int]:
    """The numbers in a set that is kept as the bits of one."""
    while rests:
        lowest = rests & -rests
        yield lowest.bit_length() - 1
        rests ^= lowest


class Near:
    """What is worked out once for all services of which the same is wanted but for deletions."""

    def __init__(self, wanted: World, judged: dict[str, str]) -> None:
        self.world = wanted
        self.judged = judged
        self.steps: dict[int, dict[int, int]] = {}  # of the rest of a world: each ready step and where it leads
        self.next: dict[int, int] = {}  # where these and the deaths lead, as a set of bits
        self.merges: dict[int, set[int]] = {}  # the ready steps that change branches too
        self.merging = 0  # rests with some of these
        self.still = 0  # rests with no step at all
        self.gone: dict[str, int] = {}  # by revision: whence it was seen to leave traffic


class Wanted:
    """What is wanted for some services, deletions too."""

    def __init__(self, world: World, near: Near) -> None:
        self.world = world
        self.near = near
        self.names = frozenset(each.branch for each in world.doomed)
        self.deletes: dict[tuple[int, int], dict[int, int]] = {}  # by trunks and branches: where each leads


class Explorer:
    """Explores one scenario under one law; a state is a service, some branches and the rest of a world, by number."""

    def __init__(self, scenario: Scenario, law: Law | None = None) -> None:
        self.scenario = scenario
        self.law = law or Law()
        self.edges: set[Edge] = set()
        self.services = Numbers[Service]()
        self.branches = Numbers[Branches]()
        self.rests = Numbers[World]()
        self.trunks = Numbers[object]()
        self.steps = Numbers[Step]()
        self.wanted: list[Wanted] = []  # by service
        self.shown: dict[int, int] = {}  # by trunks: the rests that show them
        self._wanted: dict[object, Wanted] = {}
        self._near: dict[object, Near] = {}
        self._acted: dict[tuple[int, int], int] = {}
        self._deaths: dict[int, int] = {}
        self._moved: dict[tuple[object, ...], dict[int, int]] = {}

    def explore(self, limit: int = 0) -> Found:
        """Explore until nothing is new, or until `limit` states; raises Broken."""
        began, states = time.process_time(), 0
        start = self.scenario.start
        names = frozenset((each.branch, each.tip) for each in start.candidates)
        first = self.number(start), self.branches.of(names)
        fresh = {first: 1 << self.rest(replace(self.desired(start), doomed=frozenset()))}
        reached: dict[tuple[int, int], int] = {}
        happenings: dict[int, list[Happening]] = {}
        while fresh and not (limit and states >= limit):
            place = next(iter(fresh))
            known = reached.get(place, 0)
            if place[0] not in happenings:
                happenings[place[0]] = list(self.happenings(place[0]))
            rests = self.closed(self.wanted[place[0]].near, fresh.pop(place), known)
            reached[place] = known | rests
            states += rests.bit_count()
            for number, low, those in self.followers(*place, rests, happenings[place[0]]):
                if new := those & ~reached.get((number, low), 0):
                    fresh[number, low] = fresh.get((number, low), 0) | new
        self.check_concurrency()
        repair = self.longest_repair()
        seconds = time.process_time() - began
        return Found(states, len(self.services.things), repair, frozenset(self.edges), seconds, not fresh)

    def closed(self, near: Near, rests: int, known: int) -> int:
        """The rests that are not known, with all that steps and deaths lead to from there."""
        todo = rests = rests & ~known
        while todo:
            then = 0
            for rest in bits(todo):
                if rest not in near.next:
                    self.work_out(near, rest)
                then |= near.next[rest]
            todo = then & ~(rests | known)
            rests |= todo
        return rests

    def followers(
        self, number: int, low: int, rests: int, happenings: Iterable[Happening]
    ) -> Iterator[tuple[int, int, int]]:
        """Where the worlds around one service go: by a merge, a deletion, something unseen, or an event."""
        service, wanted = self.services.things[number], self.wanted[number]
        near = wanted.near
        for rest in bits(rests & near.merging):
            for step in near.merges[rest]:
                now = act(self.world(rest, low), self.steps.things[step], near.judged)
                yield number, self.branches.of(now.branches), 1 << self.rest(now)
        still = rests & near.still
        if any(branch in wanted.names for branch, _ in self.branches.things[low]):
            for trunks, shown in self.shown.items():
                those = rests & shown
                for step, then in self.deletes(wanted, trunks, low, those).items() if those else ():
                    check_delete(
                        service, self.steps.things[step], self.world(those.bit_length() - 1, low), wanted.world
                    )
                    yield number, then, those
                    still &= ~those
        for rest in bits(still):
            check_rest(service, self.world(rest, low), wanted.world)
        for around in unseen(self.scenario, service):
            yield number, *self.moved(around, low, rests)
        for it in happenings:
            then, those = self.moved(it.around, low, rests)
            if it.leaving:
                self.check_leaving(it, those)
            yield it.after, then, those

    def happenings(self, number: int) -> Iterator[Happening]:
        """Every event that the law accepts for a service, with all that does not depend on the world checked."""
        service = self.services.things[number]
        check_service(service, self.law.desired(service))
        for event in events_of(self.scenario, service):
            try:
                result = self.law.move(service, event)
            except IllegalMove:
                check_refusal(service, event)
                continue
            check_event(service, event, result)
            self.note(service, event, result)
            for around in arounds(self.scenario, service, event):
                yield Happening(self.number(result), around, leaves_traffic(service, event, result))

    def check_leaving(self, it: Happening, rests: int) -> None:
        """After an abort no route is left, by shifts alone and at most the start of the trunk's holder of that line."""
        near = self.wanted[it.after].near
        good = near.gone.get(it.leaving, 0)
        near.gone[it.leaving] = good | rests
        for rest in bits(rests & ~good):
            while lines := [major for major, shares in self.rests.things[rest].routes if it.leaving in dict(shares)]:
                heads = {shares[0][0] for major, shares in near.world.routes if major in lines}
                if rest not in near.next:
                    self.work_out(near, rest)
                steps = {self.steps.things[step]: then for step, then in near.steps[rest].items()}
                shifts = [then for step, then in steps.items() if isinstance(step, Route) and step.line in lines]
                starts = [then for step, then in steps.items() if isinstance(step, Start) and step.revision in heads]
                need(shifts or starts, "an abort waits for a process, or for git")
                rest = (shifts or starts)[0]

    # what is worked out once

    def number(self, service: Service) -> int:
        number = self.services.of(projected(service))
        if number == len(self.wanted):
            service = self.services.things[number]
            wanted = self.desired(service)
            judged = tuple((branch, service.on(branch).revision) for branch, _ in sorted(wanted.absorbed))
            if (wanted, judged) not in self._wanted:
                key = replace(wanted, doomed=frozenset()), judged
                near = self._near.setdefault(key, Near(key[0], dict(judged)))
                self._wanted[wanted, judged] = Wanted(wanted, near)
            self.wanted.append(self._wanted[wanted, judged])
        return number

    def desired(self, service: Service) -> World:
        wanted = self.law.desired(service)
        if self.scenario.staging:
            return wanted
        return replace(wanted, running=frozenset(each for each in wanted.running if each.perimeter == PRODUCTION))

    def rest(self, now: World) -> int:
        return self.rests.of(replace(now, branches=frozenset()) if now.branches else now)

    def world(self, rest: int, low: int) -> World:
        return replace(self.rests.things[rest], branches=self.branches.things[low])

    def work_out(self, near: Near, rest: int) -> None:
        """The ready steps that do not look at branches, and the deaths, with the rest that each leads to."""
        now = self.rests.things[rest]
        steps: dict[int, int] = {}
        for step in self.law.ready(now, near.world):
            check_step(now, step, near.world)
            number = self.steps.of(step)
            if isinstance(step, Absorb):
                near.merges.setdefault(rest, set()).add(number)
                near.merging |= 1 << rest
            else:
                steps[number] = self.acted(rest, number)
        if not steps and rest not in near.merges:
            near.still |= 1 << rest
        near.steps[rest] = steps
        near.next[rest] = self.deaths(rest)
        for then in steps.values():
            near.next[rest] |= 1 << then

    def acted(self, rest: int, step: int) -> int:
        then = self._acted.get((rest, step))
        if then is None:
            then = self._acted[rest, step] = self.rest(act(self.rests.things[rest], self.steps.things[step], {}))
        return then

    def deaths(self, rest: int) -> int:
        if rest not in self._deaths:
            now, dead = self.rests.things[rest], 0
            trunks = self.trunks.of(now.trunks)
            self.shown[trunks] = self.shown.get(trunks, 0) | 1 << rest
            for each in now.running if self.scenario.deaths else ():
                dead |= 1 << self.rests.of(replace(now, running=now.running - {each}))
            self._deaths[rest] = dead
        return self._deaths[rest]

    def deletes(self, wanted: Wanted, trunks: int, low: int, those: int) -> dict[int, int]:
        """The deletions that are ready while the trunks show this, and a proof that no other step looks at branches."""
        found = wanted.deletes.get((trunks, low))
        if found is None:
            found = wanted.deletes[trunks, low] = {}
            for rest in {next(bits(those)), those.bit_length() - 1}:
                now, steps = self.world(rest, low), set[int]()
                for step in self.law.ready(now, wanted.world):
                    steps.add(number := self.steps.of(step))
                    if isinstance(step, Delete):
                        check_step(now, step, wanted.world)
                        found[number] = self.branches.of(act(now, step, {}).branches)
                known = {*found, *wanted.near.steps[rest], *wanted.near.merges.get(rest, ())}
                need(steps == known, "a deletion looks at more than trunks, or another step at branches")
        return found

    def moved(self, around: Around, low: int, rests: int) -> tuple[int, int]:
        """The worlds after a happening, without those in which it cannot be observed."""
        if around.branches:
            table = self._moved.setdefault((*around.key, "branches"), {})
            if low not in table:
                branches = around.branches(self.branches.things[low])
                table[low] = -1 if branches is None else self.branches.of(branches)
            low = table[low]
        if low >= 0 and around.rest:
            table = self._moved.setdefault((*around.key, "rest"), {})
            then = 0
            for rest in bits(rests):
                if rest not in table:
                    now = around.rest(self.rests.things[rest])
                    table[rest] = 0 if now is None else 1 << self.rest(now)
                then |= table[rest]
            rests = then
        return (low, rests) if low >= 0 else (0, 0)

    def note(self, before: Service, event: Event, after: Service) -> None:
        """Remember the edges that this event took, for the table of `docs/lifecycle.md`."""
        known = {each.branch: each for each in before.candidates}
        for now in after.candidates:
            old = known.get(now.branch)
            own = isinstance(event, BranchEvent) and event.branch == now.branch
            if isinstance(event, Opened) and own:
                self.edges.add(("", "Opened", now.phase.value))
            elif old and (own or old.phase is not now.phase):
                anothers = " of another" if isinstance(event, BranchEvent) and not own else ""
                self.edges.add((old.phase.value, type(event).__name__ + anothers, now.phase.value))

    # what is checked when everything is known

    def check_concurrency(self) -> None:
        """Doing one ready step leaves the others ready, or harmless and replaced by a better Route."""
        for near in self._near.values():
            for rest in list(near.next):
                both = near.steps[rest].keys() | near.merges.get(rest, set())
                for first, then in near.steps[rest].items() if len(both) > 1 else ():
                    if then not in near.next:
                        self.work_out(near, then)
                    for number in both - near.steps[then].keys() - near.merges.get(then, set()) - {first}:
                        second = self.steps.things[number]
                        need(isinstance(second, Route), f"{self.steps.things[first]} makes {second} wait")
                        check_step(self.rests.things[then], second, near.world)
        shown = [self.trunks.of(rest.trunks) for rest in self.rests.things]
        turns = {
            near: {(shown[rest], shown[then]) for rest in near.next for then in near.steps[rest].values()}
            for near in self._near.values()
        }
        for wanted in self._wanted.values():
            for (trunks, low), deletes in wanted.deletes.items():
                for before, later in turns[wanted.near] if deletes else ():
                    left = wanted.deletes.get((later, low), deletes)
                    need(before != trunks or deletes.keys() <= left.keys(), "a step makes a deletion wait")

    def longest_repair(self) -> int:
        """The longest way to rest when nothing else happens; raises Broken when one of them never ends."""
        length: dict[tuple[Near, int], int] = {}
        for near in self._near.values():
            for rest in list(near.next):
                self.repair(near, rest, length)
        return max(
            length[wanted.near, rest] + len(wanted.near.merges.get(rest, ())) + len(wanted.names)
            for wanted in self._wanted.values()
            for rest in wanted.near.next
        )

    def repair(self, near: Near, rest: int, length: dict[tuple[Near, int], int]) -> int:
        if (near, rest) not in length:
            length[near, rest] = -1  # on the way
            if rest not in near.next:
                self.work_out(near, rest)
            ways = (self.repair(near, then, length) for then in near.steps[rest].values())
            length[near, rest] = 1 + max(ways, default=-1)
        need(length[near, rest] >= 0, "does not converge")
        return length[near, rest]


def explore(scenario: Scenario, law: Law | None = None, limit: int = 0) -> Found:
    """Explore a scenario; raises Broken with the name of what does not hold."""
    return Explorer(scenario, law).explore(limit)


explored = cache(explore)  # for tests that look at the same small scenario
