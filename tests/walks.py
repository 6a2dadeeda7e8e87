"""This file walks at random through what cannot be exhausted: up to ten branches, two majors, fixes, syncs, deaths.

Rules: nothing is projected away, and every state is compared with its projection, which is what lets the explorer
project. At each state all invariants are checked; from every fifth one the plan is done step by step until it rests.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from branchline.core.lifecycle import (
    BranchEvent,
    Cooled,
    Event,
    Frozen,
    IllegalMove,
    Method,
    Opened,
    Ramped,
    Refused,
    Retired,
    RolledBack,
    Scaled,
    Thawed,
    move,
)
from branchline.core.records import from_json, to_json
from branchline.core.world import Delete, Step, World, desired, plan, ready
from tests.happenings import Scenario, arounds, events_of, projected
from tests.invariants import act, check_delete, check_event, check_refusal, check_rest, check_service, check_step, need
from tests.scenarios import PATCH, candidate, service

GOOD = {"Built", "GatesPassed", "Won", "Recorded", "Opened", "Pushed", "Kept", "Approved"}


@dataclass
class Walker:
    """One walk: a scenario of its own, the service, and the world around it."""

    rng: random.Random

    def __post_init__(self) -> None:
        rng = self.rng
        second = rng.choice((Method.CANARY, Method.BLUE_GREEN))
        start = replace(
            service(*map(candidate, "ab"), candidate("c", method=second), candidate("m", line=2, holds=None)),
            slots=rng.choice((1, 2)),
            approval=rng.choice(("", "before", "after")),
        )
        opens = (
            Opened("f", "f1", PATCH, rng.choice("ab")),
            Opened("g", "g1", PATCH),
            Opened("d", "d1", outdated=True),
            Opened("e", "e1", PATCH, "a", synced=True),
            Opened("h", "h1", PATCH, "b", synced=True, outdated=True),
            Opened("n", "n1", line=2),
        )
        also: tuple[Event, ...] = (Frozen(), Thawed(), Refused("a"), Ramped("a", 50), Scaled("r0", 2))
        also += tuple(kind(line) for kind in (RolledBack, Cooled, Retired) for line in (1, 2))
        self.scenario = Scenario("walk", start, opens, tuple("abcdefghmn"), also)
        self.service = start
        names = frozenset((each.branch, each.tip) for each in start.candidates)
        self.world = replace(desired(start), doomed=frozenset(), branches=names)
        self.longest = 0

    def walk(self, length: int) -> int:
        """Walk that many steps; the longest repair on the way. Raises Broken."""
        for number in range(length):
            wanted = desired(self.service)
            check_service(self.service, wanted)
            if number % 5 == 0:
                self.longest = max(self.longest, self.repair())
                need(from_json(to_json(self.service)) == self.service, "a record does not survive JSON")
            steps, dice = ready(self.world, wanted), self.rng.random()
            need(bool(steps) == bool(plan(self.world, wanted)), "something is planned and nothing is ready")
            if steps and dice < 0.5:
                step = self.rng.choice(steps)
                check_step(self.world, step, wanted)
                self.world = self.after(self.world, step)
            elif dice < 0.6 and self.world.running:
                dead = self.rng.choice(sorted(self.world.running))
                self.world = replace(self.world, running=self.world.running - {dead})
            else:
                self.happen()
        return self.longest

    def happen(self) -> None:
        """Let one of the events happen that can, a good one more likely."""
        options = [event for event in events_of(self.scenario, self.service) if self.legal(event)]
        weights = [4 if type(event).__name__ in GOOD else 1 for event in options]
        while options:
            event = self.rng.choices(options, weights)[0]
            after = move(self.service, event)
            for around in self.rng.sample(ways := list(arounds(self.scenario, self.service, event)), len(ways)):
                rest = around.rest(self.world) if around.rest else self.world
                branches = around.branches(self.world.branches) if around.branches else self.world.branches
                if rest is None or branches is None:
                    continue
                check_event(self.service, event, after)
                self.world = replace(rest, branches=branches)
                self.service = after
                return
            place = options.index(event)
            del options[place], weights[place]

    def legal(self, event: Event) -> bool:
        """Whether the law accepts an event, and the same of what the explorer keeps of a service."""
        try:
            after = move(self.service, event)
        except IllegalMove:
            check_refusal(self.service, event)
            return False
        small = move(projected(self.service), event)
        need(projected(small) == projected(after), "a rule reads what the explorer projects away")
        return not isinstance(event, BranchEvent) or bool(event.branch)

    def after(self, world: World, step: Step) -> World:
        judged = {each.branch: each.revision for each in self.service.candidates}
        return act(world, step, judged)

    def repair(self) -> int:
        """Do the plan, one step after the other, planning again after each, until it rests; the number of steps."""
        world, wanted, number = self.world, desired(self.service), 0
        while todo := plan(world, wanted):
            check_step(world, todo[0], wanted)
            if isinstance(todo[0], Delete):
                check_delete(self.service, todo[0], world, wanted)
            world, number = self.after(world, todo[0]), number + 1
            need(number < 60, "does not converge")
        check_rest(self.service, world, wanted)
        return number


def walks(count: int, length: int, seed: int) -> int:
    """Walk so often and so far; the longest repair. The same seed walks the same way."""
    return max(Walker(random.Random(f"{seed}/{number}")).walk(length) for number in range(count))
