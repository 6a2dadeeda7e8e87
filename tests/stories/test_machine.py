"""This file plays drawn sequences of people's and machines' deeds over fakes, and shows that they find planted bugs.

No invariant of I1 to I12 that fakes can show is violated; a thousand and more are played by `make soak`, some of the
very same on real parts. Each killer takes one protection of the engine (or of git) away.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import cycle, islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from branchline.engine import reconciling, watching, working
from branchline.engine.controlling import Controller
from branchline.ports import Change, Ports, Stamp
from tests.deeds import Stage
from tests.invariants import Broken
from tests.machine import FakePlace, run
from tests.subject import SERVICE
from tests.world import ALEX, World

SEEDS, EACH = range(6), 25  # 150 sequences
BUDGET = 150  # sequences within which a planted bug is found
# The seed whose sequences find it soonest; else 7.
SOONEST = {"gates say nothing": 0, "a sick group is never given up": 8, "the tip is merged": 5}
PASSES = ("watch", "work", "produce", "judge", "git", "cool")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_sequence_violates_an_invariant(shared_state: Path, seed: int) -> None:
    assert len(run(shared_state, EACH, seed=seed)) >= EACH


def test_a_few_sequences_in_seconds(shared_state: Path) -> None:
    assert run(shared_state, 3, seed=100)


# ── what the sequences have found ──────────────────────────────────────────────────────────────────────────────────


def test_a_name_used_again_without_anything_new_is_no_drift(world: World) -> None:
    """Found: a branch was renamed to the name of one that had ended, at the trunk's tip; parity told it for ever."""
    world.released()
    world.git.reset(ALEX, world.git.tip("main"))
    world.settle()
    assert world.drifts() == []


# ── planted bugs ───────────────────────────────────────────────────────────────────────────────────────────────────


def edited(module: ModuleType, old: str, new: str) -> dict[str, Any]:
    """The names of a module whose text is another; an edit that does not fit is an error."""
    text = inspect.getsource(module)
    assert text.count(old) == 1, old
    names = {"__name__": module.__name__}
    exec(compile(text.replace(old, new), str(module.__file__), "exec"), names)  # noqa: S102  the project's own text
    return names


def part(module: ModuleType, name: str, old: str, new: str) -> Callable[[Controller, FakePlace], None]:
    """Put a part with an edited text into a controller."""
    names = edited(module, old, new)

    def spoil(controller: Controller, place: FakePlace) -> None:
        good = getattr(controller, name)
        kept = {each.name: getattr(good, each.name) for each in fields(good) if each.init and each.name[0] != "_"}
        bad = names[type(good).__name__](**kept)
        setattr(controller, name, bad)
        if name == "reconciler":
            controller.workshop.staged = bad.staged

    return spoil


def forgetful(controller: Controller, place: FakePlace) -> None:
    """Git does not look whether a conclusion is there already."""
    vars(place.world.git)["_recorded"] = lambda change, tip: ""


def hurried(controller: Controller, place: FakePlace) -> None:
    """What is merged is where the branch is now."""
    git = place.world.git
    write = type(git).conclude

    def conclude(change: Change) -> str:
        tips = {each.revision: each.tip for each in place.world.ledger.service(SERVICE).candidates}
        return write(git, replace(change, revision=tips.get(change.revision, change.revision)))

    vars(git)["conclude"] = conclude


def careless(controller: Controller, place: FakePlace) -> None:
    """A branch is deleted wherever it is."""

    def delete(service: str, branch: str, tip: str, stamp: Stamp) -> None:
        place.world.git.remove(branch)

    vars(place.world.git)["delete"] = delete


def deaf(controller: Controller, place: FakePlace) -> None:
    """What was done without a daemon is not read."""
    vars(place.world.router)["offline"] = tuple


KILLERS: dict[str, Callable[[Controller, FakePlace], None]] = {
    "steps in any order": part(reconciling, "reconciler", "    ready,\n)", "    plan as ready,\n)"),
    "a sick group is never given up": part(reconciling, "reconciler", ">= (1 if", "< (0 if"),
    "pushes are not read": part(watching, "watcher", "elif tip != candidate.tip:", "elif not tip:"),
    "deletions are not read": part(watching, "watcher", "and candidate.branch not in refs and", "and not refs and"),
    "gates say nothing": part(working, "workshop", "law.GatesFailed(candidate.branch, reason=\"; \".join(bad))",
                              "law.GatesPassed(candidate.branch)"),
    "the tip is merged": hurried,
    "offline deeds are not adopted": deaf,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KILLERS)
def test_a_planted_bug_is_found(shared_state: Path, name: str) -> None:
    with pytest.raises(Broken):
        run(shared_state, BUDGET, seed=SOONEST.get(name, 7), smallest=False, place=spoilt(KILLERS[name]))


def spoilt(spoil: Callable[[Controller, FakePlace], None]) -> type[FakePlace]:
    """A place of fakes whose controllers have the bug."""

    class Spoilt(FakePlace):
        def begin(self, ports: Ports, *, again: bool) -> Controller:
            controller = super().begin(ports, again=again)
            spoil(controller, self)
            return controller

    return Spoilt


# ── one deed at every moment: what drawn sequences meet too seldom ─────────────────────────────────────────────────


def moments(state: Path, place: type[FakePlace]) -> Iterator[tuple[Stage, Iterator[str]]]:
    """A release after no pass, after one, and so on: its stage, and the passes that follow."""
    for moment in range(30):
        stage, passes = Stage(place(state)), cycle(PASSES)
        stage.play("push", ALEX, "well")
        for each in islice(passes, moment):
            stage.play("passes", each)
        yield stage, passes
        stage.play("rest")


def pushes(state: Path, place: type[FakePlace]) -> None:
    """Push to a branch before each pass of its release."""
    for stage, _ in moments(state, place):
        stage.play("push", ALEX, "well")
        stage.play("passes", "git")


def losses(state: Path, place: type[FakePlace]) -> None:
    """From each pass of a release on, let every answer of the remote to a push be lost for a while."""
    for stage, passes in moments(state, place):
        stage.play("fault", "remote", "lost")
        for each in islice(passes, len(PASSES)):
            stage.play("passes", each)


@pytest.mark.slow
@pytest.mark.parametrize("deed", [pushes, losses])
def test_at_no_moment_a_deed_violates_an_invariant(
    shared_state: Path, deed: Callable[[Path, type[FakePlace]], None]
) -> None:
    deed(shared_state, FakePlace)


@pytest.mark.slow
@pytest.mark.parametrize(("deed", "spoil"), [(pushes, careless), (losses, forgetful)])
def test_at_some_moment_a_deed_finds_the_planted_bug(
    shared_state: Path,
    deed: Callable[[Path, type[FakePlace]], None],
    spoil: Callable[[Controller, FakePlace], None],
) -> None:
    """Killers: no compare-and-swap, no look whether it is merged."""
    with pytest.raises(Broken):
        deed(shared_state, spoilt(spoil))
