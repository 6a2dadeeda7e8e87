"""This file runs two controllers that act late, while aborts and verdicts race a conclusion, and counts the harm.

Each effect carries the (generation, epoch) that it was planned from. The question is who hears of a newer pair, and
when. A controller reads the state and the world, keeps the steps that were ready, does them one by one in any order,
and may die between two; a second one takes over while the first still acts. Telling is atomic with recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache

from branchline.core.lifecycle import (
    Aborted,
    Cooled,
    Event,
    Lost,
    Phase,
    Recorded,
    RolledBack,
    Service,
    Withdrew,
    Won,
    move,
)
from branchline.core.world import Delete, Route, Start, Step, Stop, World, Write, desired, ready
from branchline.errors import IllegalMove
from tests.invariants import Broken, act, check_delete, check_step
from tests.scenarios import candidate, service

Stamp = tuple[int, int]  # generation, epoch
wanted_of = cache(desired)
ready_in = cache(ready)


class Mode(Enum):
    """Who compares what, and who is told of a newer pair."""

    NONE = "no numbers"
    EPOCH = "the epoch alone, where a step acts"
    CHECKED = "both numbers, where a step acts"
    RAISED = "whoever plans first tells every writer"
    TOLD = "every writer is told as an event is recorded"
    TOLD_TWICE = "told as an event is recorded, and at a takeover"


HARM = {  # how many late steps of all that were tried do harm
    Mode.NONE: 2009,
    Mode.EPOCH: 1817,
    Mode.CHECKED: 2222,
    Mode.RAISED: 18,
    Mode.TOLD: 563,
    Mode.TOLD_TWICE: 0,
}


EVENTS: tuple[Event, ...] = (Won("a"), Lost("a"), Aborted("a"), Withdrew("a"), RolledBack(), Cooled())


@dataclass(frozen=True)
class Controller:
    """One controller: its epoch (0: not there yet), what it read last, and the steps it still means to do."""

    epoch: int
    generation: int = 0
    steps: frozenset[Step] = frozenset()


@dataclass(frozen=True)
class State:
    """The recorded service, the world, and what router, processes and git have heard of."""

    service: Service
    world: World
    heard: tuple[Stamp, Stamp, Stamp]
    controllers: tuple[Controller, Controller]


def writer(step: Step) -> int:
    """Which local writer does a step: the processes' shim, the router, git."""
    return 0 if isinstance(step, Start | Stop) else 1 if isinstance(step, Route) else 2


def stamp(mode: Mode, generation: int, epoch: int) -> Stamp:
    return (0, 0) if mode is Mode.NONE else (0, epoch) if mode is Mode.EPOCH else (generation, epoch)


def told(state: State, pair: Stamp) -> State:
    first, second, third = (max(heard, pair) for heard in state.heard)
    return replace(state, heard=(first, second, third))


def with_controller(state: State, number: int, controller: Controller) -> State:
    old = state.controllers
    return replace(state, controllers=(controller, old[1]) if number == 0 else (old[0], controller))


def harmful(state: State, read: int, step: Step) -> bool:
    """Whether a step breaks what must hold, or records what was wanted of an older state only."""
    wanted = wanted_of(state.service)
    try:
        check_step(state.world, step, wanted)
        if isinstance(step, Delete):
            check_delete(state.service, step, state.world, wanted)
    except Broken:
        return True
    unwanted = isinstance(step, Write) and (step.ref, step.revision) not in wanted.trunks
    return unwanted and read != state.service.generation


def acting(state: State, mode: Mode) -> Iterator[tuple[State, bool]]:
    """What each controller may do next, and whether it does harm."""
    for number, it in enumerate(state.controllers):
        if it.epoch and not it.steps:
            steps = frozenset(ready_in(state.world, wanted_of(state.service)))
            planned = with_controller(state, number, Controller(it.epoch, state.service.generation, steps))
            if steps:
                pair = stamp(mode, state.service.generation, it.epoch)
                yield (told(planned, pair) if mode is Mode.RAISED else planned), False
        for step in it.steps:
            pair, where = stamp(mode, it.generation, it.epoch), writer(step)
            if pair < state.heard[where]:
                yield with_controller(state, number, Controller(it.epoch)), False  # refused: read again
                continue
            heard = tuple(pair if place == where else old for place, old in enumerate(state.heard))
            after = with_controller(state, number, replace(it, steps=it.steps - {step}))
            after = replace(after, heard=heard)  # type: ignore[arg-type]
            if harmful(state, it.generation, step):
                yield after, True
            else:
                yield replace(after, world=act(state.world, step, {})), False
            yield with_controller(state, number, Controller(it.epoch)), False  # it died before the step


def happening(state: State, mode: Mode, events: tuple[Event, ...]) -> Iterator[State]:
    """A takeover, or an event that somebody records."""
    first, second = state.controllers
    if not second.epoch:
        taken = with_controller(state, 1, Controller(2))
        yield told(taken, stamp(mode, state.service.generation, 2)) if mode is Mode.TOLD_TWICE else taken
    recorded = (Recorded("a"),) if "a1" in dict(state.world.trunks).values() else ()
    for event in (*events, *recorded):
        try:
            after = replace(state, service=move(state.service, event))
        except IllegalMove:
            continue
        pair = stamp(mode, after.service.generation, max(first.epoch, second.epoch))
        yield told(after, pair) if mode in (Mode.TOLD, Mode.TOLD_TWICE) else after


def fence(mode: Mode, enough: int = 0, events: tuple[Event, ...] = EVENTS) -> tuple[int, int]:
    """Try everything in one mode, or until there was `enough` harm: the number of states, and of harmful late steps."""
    start = service(candidate("a", phase=Phase.TESTING), generation=1)
    wanted = desired(start)
    world = replace(wanted, branches=frozenset({("a", "a1")}))
    first = State(start, world, ((0, 0), (0, 0), (0, 0)), (Controller(1), Controller(0)))
    todo, seen, harm = [first], {first}, 0
    while todo and not (enough and harm >= enough):
        state = todo.pop()
        for after, bad in (*acting(state, mode), *((then, False) for then in happening(state, mode, events))):
            harm += bad
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return len(seen), harm
