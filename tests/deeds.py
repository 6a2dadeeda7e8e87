"""This file plays what people and machines do to one service, deed by deed, against a whole controller.

A deed is a name and plain arguments, so that a sequence is data: `tests.machine` draws it, a place of fakes or of real
parts plays it. Every call of the controller to a port passes a guard: there it may die (before the call or after it),
meet a fault, and there the witness checks each effect against what really is. What breaks is collected, and told when
the deed is over, for the engine survives what a port raises. People's deeds that the law refuses are no error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any, Protocol, cast

from branchline.core import names
from branchline.core.lifecycle import SERVING
from branchline.core.records import event_from_json
from branchline.core.service import Candidate, Service
from branchline.engine.controlling import Controller
from branchline.errors import (
    BranchlineError,
    DiskFull,
    EnvoyRejected,
    GatewayDown,
    IllegalMove,
    LedgerBusy,
    NothingToDo,
    RemoteUnreachable,
    UnknownReference,
    UnknownService,
)
from branchline.ports import Instance, Outcome, Ports
from tests.invariants import leaves_traffic
from tests.subject import SERVICE, changed
from tests.witness import EFFECTS, Witness

MOST_ROUNDS, MOST_REPAIRS = 80, 12
REFUSALS = (IllegalMove, NothingToDo, UnknownReference, UnknownService, DiskFull, LedgerBusy, GatewayDown)
WROTE = {("writer", word) for word in ("conclude", "absorb", "delete", "drop")}

Deed = tuple[str, tuple[Any, ...]]


class Killed(BaseException):
    """The controller died at a call to a port; nothing of it may catch this."""


class People(Protocol):
    """Those who work in git beside us, and what they see there."""

    @property
    def refusing(self) -> bool: ...
    @refusing.setter
    def refusing(self, no: bool) -> None: ...
    def away(self) -> AbstractContextManager[None]: ...
    def write(self, branch: str, files: Mapping[str, str | None], *, start: str = "", message: str = "Work") -> str: ...
    def reset(self, branch: str, commit: str) -> None: ...
    def remove(self, branch: str) -> None: ...
    def tip(self, branch: str) -> str: ...
    def parents(self, commit: str) -> tuple[str, ...]: ...
    def message(self, commit: str) -> str: ...
    def heads(self) -> Mapping[str, str]: ...
    def texts(self, commit: str) -> Mapping[str, str]: ...
    def join(self, branch: str, texts: Mapping[str, str], parents: Sequence[str], message: str) -> str: ...
    def ancestry(self, commit: str) -> Collection[str]: ...


class Time(Protocol):
    """A clock that can be set."""

    def now(self) -> float: ...
    def advance(self, seconds: float) -> None: ...
    def jump(self, seconds: float) -> None: ...


class Place(Protocol):
    """Where a sequence is played: all parts, and what happens to them from outside."""

    ports: Ports

    @property
    def git(self) -> People: ...
    @property
    def clock(self) -> Time: ...

    def begin(self, ports: Ports, *, again: bool) -> Controller: ...
    def visit(self, units: Sequence[str], line: int, failing: Collection[str]) -> Mapping[str, str]: ...
    def die(self, instance: Instance) -> None: ...
    def back(self, line: int) -> str: ...
    def busy(self) -> bool: ...


class Guard:
    """A port as the controller sees it."""

    def __init__(self, name: str, stage: Stage) -> None:
        self._name, self._stage = name, stage

    def __getattr__(self, word: str) -> Any:
        found = getattr(getattr(self._stage.place.ports, self._name), word)
        if not callable(found):
            return found
        return lambda *args, **kwargs: self._stage.called(self._name, word, found, args, kwargs)


class Stage:
    """One controller in a place, and the deeds."""

    def __init__(self, place: Place, slots: int = 1, approval: str = "") -> None:
        self.place, self.git, self.clock = place, place.git, place.clock
        self.slots, self.approval = slots, approval
        self.witness = Witness(place)
        self.faults: dict[str, str] = {}
        self.fuse, self.late = 0, False
        self.numbers = 0
        self.deeds: list[Deed] = []
        guarded = {name: cast(Any, Guard(name, self)) for name in (
            "ledger", "catalog", "observations", "repository", "writer", "launcher", "router", "meter", "artifacts",
        )}  # fmt: skip
        self.ports = replace(place.ports, **guarded)
        self.controller = self.place.begin(self.ports, again=False)

    # ------------------------------------------------------------------------------------------ the guard

    def called(
        self, port: str, word: str, act: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Let a call of the controller through, or not."""
        burnt = self._burn()
        if burnt and not self.late:
            raise Killed
        self._fail(port, word)
        effect = (port, word) in EFFECTS
        before = self.witness.look() if effect else None
        dead = port in ("repository", "writer") and self.faults.get("remote") == "dead"
        with self.git.away() if dead else nullcontext():
            result = act(*args, **kwargs)
        if before:
            self.witness.check(word, args, before)
        if (port, word) in WROTE and self.faults.get("remote") == "lost":
            raise RemoteUnreachable(remote="origin")
        if burnt:
            raise Killed
        return result

    def _burn(self) -> bool:
        self.fuse = max(0, (left := self.fuse) - 1)
        return left == 1

    def _fail(self, port: str, word: str) -> None:
        fault = self.faults.get(port, "")
        if port == "router" and fault == "down" and word in ("offer", "shift", "shown"):
            raise GatewayDown()
        if port == "router" and fault == "rejects" and word in ("offer", "shift"):
            raise EnvoyRejected()
        if port == "ledger" and fault and word == "record":
            raise LedgerBusy() if fault == "busy" else DiskFull(what="the event")

    # ------------------------------------------------------------------------------------------ playing

    def play(self, deed: str, *args: Any) -> None:
        """Do one deed, and check what must hold always; raises Broken."""
        self.deeds.append((deed, args))
        DEEDS[deed](self, *args)
        self.witness.always(self.controller.troubles)

    def then(self, what: str) -> None:
        """Let the controller go on: for one round, until it rests, or not at all."""
        if what == "settle":
            self.settle()
        elif what:
            self.round()

    def round(self) -> bool:
        """Run every pass once; says whether any did something."""
        return any([each.act() for each in self.controller.passes()])  # noqa: C419 - all of them

    def settle(self) -> None:
        """Run all passes until none does anything and nothing is under way."""
        quiet = 0
        for _ in range(MOST_ROUNDS):
            quiet = 0 if self.round() else quiet + 1
            if quiet and not self.place.busy():
                return
        if not quiet:
            self.witness.need(False, "it never settles")

    def passes(self, *chosen: str) -> None:
        """Run some passes, in some order."""
        every = {each.name: each for each in self.controller.passes()}
        for name in chosen:
            every[name].act()

    def restart(self) -> None:
        """Begin a new controller: what was only in memory is gone. Who cannot record does not start (BL707, BL708)."""
        try:
            self.controller = self.place.begin(self.ports, again=True)
        except (LedgerBusy, DiskFull):
            self.fault("ledger", "well")
            self.controller = self.place.begin(self.ports, again=True)

    def kill(self, fuse: int, late: bool, starting: bool) -> None:
        """The controller dies at its so-manyth call from now on, while it starts or works; a new one takes over."""
        self.fuse, self.late = fuse, late
        try:
            if starting:
                self.restart()
            for _ in range(3):
                self.round()
        except Killed:
            pass
        self.fuse = 0
        self.restart()

    # ------------------------------------------------------------------------------------------ looking

    @property
    def service(self) -> Service:
        """The recorded state."""
        return self.witness.service()

    def on(self, branch: str) -> Candidate | None:
        """The candidate of a branch."""
        return next((each for each in self.service.candidates if each.branch == branch), None)

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    # ------------------------------------------------------------------------------------------ people in git

    def push(self, branch: str, how: str) -> None:
        """Commit something of the service on a branch, which begins where it should."""
        named = names.branch(branch)
        start = self.git.tip(branch) or (named and named.on and self.git.tip(named.on)) or self.git.tip("main")
        if how == "old":
            start = self.git.tip(branch) or self.git.tip(f"major--{SERVICE}--1") or start
        files = changed(
            self.git.texts(start), branch, how, self._number(), {"slots": self.slots, "approval": self.approval}
        )
        self.git.write(branch, {f"{SERVICE}/{path}": text for path, text in files.items()}, start=start)

    def force(self, branch: str, to: str) -> None:
        """Force-push a branch: to its parent, to another's tip, or rewritten."""
        tip = self.git.tip(branch)
        if not tip:
            return
        other = self.git.tip(to) if to not in ("parent", "rewritten") else (*self.git.parents(tip), "")[0]
        if not other:
            return
        if to == "rewritten":
            self.git.join(branch, self.git.texts(tip), (other,), f"Reworded {self._number()}")
        else:
            self.git.reset(branch, other)

    def delete(self, branch: str) -> None:
        """Delete a branch by hand."""
        if self.git.tip(branch):
            self.git.remove(branch)

    def rename(self, branch: str, to: str) -> None:
        """Rename a branch on the remote."""
        if (tip := self.git.tip(branch)) and not self.git.tip(to):
            self.git.reset(to, tip)
            self.git.remove(branch)

    def merge(self, branch: str, into: str, how: str) -> None:
        """Merge a branch by hand as a forge does, with a merge commit or squashed, and delete it at once or not."""
        ours, theirs = self.git.tip(into), self.git.tip(branch)
        if not ours or not theirs or branch == into:
            return
        parents = (ours,) if "squash" in how else (ours, theirs)
        self.git.join(into, self._merged(ours, theirs), parents, f"Merge {branch}")
        if "delete" in how:
            self.git.remove(branch)

    def _merged(self, ours: str, theirs: str) -> dict[str, str]:
        """Path by path; where both changed, theirs."""
        a, b = self.git.texts(ours), self.git.texts(theirs)
        mine = self.git.ancestry(ours)
        base = next((each for each in self.git.ancestry(theirs) if each in mine), "")
        o = self.git.texts(base) if base else {}
        merged = {}
        for path in {*a, *b}:
            one, other, then = a.get(path), b.get(path), o.get(path)
            text = one if other == then else other
            if text is not None:
                merged[path] = text
        return merged

    def foreign(self, what: str) -> None:
        """Somebody writes on the trunk by hand: the service's folder, elsewhere, or the folder goes away."""
        number = self._number()
        texts: dict[str, dict[str, str | None]] = {
            "inside": {f"{SERVICE}/foreign": f"{number}\n"},
            "elsewhere": {"README.md": f"{number}\n"},
            "dropped": {SERVICE: None},
        }
        tip = self.git.tip("main")
        if what == "rewound":
            if parents := self.git.parents(tip):
                self.git.reset("main", parents[0])
        elif what != "dropped" or f"{SERVICE}/server.py" in self.git.texts(tip):
            self.git.write("main", texts[what])

    def sync(self, branch: str) -> None:
        """Bring a branch up to date as the command does: under test by a fix of its own arm, else on the branch."""
        candidate, trunk = self.on(branch), self.git.tip("main")
        if candidate is None or not self.git.tip(branch):
            return
        if candidate.phase in SERVING and candidate.base is None and branch.startswith("experiment--"):
            handle = branch.rpartition("--")[2]
            mine = f"fix--{SERVICE}--sync-{self._number()}--{handle}"
            self.git.join(mine, self._merged(trunk, candidate.revision), (candidate.revision, trunk), "Sync")
        else:
            tip = self.git.tip(branch)
            self.git.join(branch, self._merged(trunk, tip), (tip, trunk), "Merge main")

    # ------------------------------------------------------------------------------------------ people who ask

    def ask(self, command: str, reference: str, args: Mapping[str, Any], fuse: int = 0) -> None:
        """Ask as a person does; the daemon may die meanwhile. Who is aborted leaves traffic with git away (I11)."""
        before, desk = self.service, self.controller.desk
        self.fuse, self.late = fuse, bool(fuse % 2)
        try:
            desk.ask(command, reference, dict(args), actor="kim", because="kim says so", dry_run=False)
        except Killed:
            self.restart()
        except REFUSALS:
            return
        finally:
            self.fuse = 0
        entries = self.place.ports.ledger.history(SERVICE, limit=1)
        if entries and entries[0].generation > before.generation and not self.faults.get("router"):
            detail = {key: value for key, value in entries[0].detail.items() if key != "left_behind"}
            event = event_from_json({"type": entries[0].event, **detail})
            self.out_of_traffic(leaves_traffic(before, event, self.service))

    def out_of_traffic(self, revision: str) -> None:
        """An abort needs neither git nor the challenger (I11)."""
        if not revision:
            return
        before, self.faults["remote"] = self.faults.get("remote", ""), "dead"
        for _ in range(8):
            self.passes("produce")
            self.place.busy()
        self.faults["remote"] = before
        self.witness.check_gone(revision)

    def offline(self, line: int) -> None:
        """Somebody rolls a line back with no daemon there; the next one takes it for what it is (I11)."""
        known = self.place.back(line)
        self.restart()
        if known:
            self.settle()
            self.witness.check_gone(known)

    # ------------------------------------------------------------------------------------------ the world

    def traffic(self, line: int, how: str, number: int) -> None:
        """People come, and what they think of it is reported: challengers are good, bad, as the rest, or they fail."""
        shown = self.place.ports.router.survey().routes.get(SERVICE, {}).get(line)
        if not shown or not shown.shares:
            return
        holder, others = shown.shares[0][0], {revision for revision, _ in shown.shares[1:]}
        failing = others if how == "breach" else set()
        first = self._number()
        units = [f"u{first}-{n}" for n in range(number)]
        try:
            arms = self.place.visit(units, line, failing)
        except GatewayDown:
            return
        self.controller.read_exposures()
        mean = {"good": 8.0, "bad": 2.0, "harm": 0.5}.get(how, 4.0)
        told = {
            unit: max(0.0, (4.0 if arm == holder else mean) + n % 3 - 1) for n, (unit, arm) in enumerate(arms.items())
        }
        metric = self._metric()
        if metric is not None:
            outcomes = [Outcome(SERVICE, value, unit) for unit, value in told.items()]
            self.place.ports.observations.report(outcomes, {SERVICE: metric}, at=self.clock.now())
        self.clock.advance(11)

    def _metric(self) -> Any:
        for candidate in reversed(self.service.candidates):
            with suppress(BranchlineError):
                text = self.git.texts(candidate.revision).get(f"{SERVICE}/branchline.toml", "")
                return self.place.ports.read_spec(text.encode(), f"{SERVICE}/branchline.toml").metric
        return None

    def die(self, number: int) -> None:
        """One of the processes dies."""
        alive = [each for each in self.place.ports.launcher.instances(SERVICE) if each.state == "ready"]
        if alive:
            self.place.die(sorted(alive, key=lambda each: (each.perimeter, each.version))[number % len(alive)])

    def fault(self, what: str, state: str) -> None:
        """Git, the gateway or the ledger fails from now on, or is well again."""
        if what == "remote":
            self.git.refusing = state == "refusing"
        self.faults[what] = "" if state == "well" else state

    def wait(self, seconds: int) -> None:
        """Time passes, or somebody sets the clock back."""
        (self.clock.jump if seconds < 0 else self.clock.advance)(seconds)

    # ------------------------------------------------------------------------------------------ at rest

    def rest(self) -> None:
        """Make everything well again, let the controller settle, and check all that must hold at rest."""
        for what in ("remote", "router", "ledger"):
            self.fault(what, "well")
        for _ in range(MOST_REPAIRS):
            self.settle()
            if not self._tidied() and not self.witness.unwell(self.controller):
                break
            self.clock.advance(31)  # who failed is started again after a while
        self.witness.rest(self.controller)
        before = self.witness.effects
        self.restart()
        self.settle()
        told = self.witness.effects - before
        self.witness.need(told == 0, f"a restart at rest did something: {self.witness.last[-3:]}")
        self.witness.rest(self.controller)

    def _tidied(self) -> bool:
        """Put right by hand what only a person may: a trunk that somebody wrote on, a merge that conflicts."""
        done = False
        for ref, revision in self.witness.strange():
            texts = {p: t for p, t in self.git.texts(self.git.tip(ref)).items() if not p.startswith(f"{SERVICE}/")}
            texts |= {p: t for p, t in self.git.texts(revision).items() if p.startswith(f"{SERVICE}/")}
            self.git.join(ref, texts, (self.git.tip(ref),), "Revert what was written by hand")
            done = True
        for each in self.service.candidates:
            if each.trouble == "conflict":
                self.ask("abort", each.branch, {})
                done = True
        return done


DEEDS: dict[str, Callable[..., None]] = {
    each.__name__: each
    for each in (
        Stage.push, Stage.force, Stage.delete, Stage.rename, Stage.merge, Stage.foreign, Stage.sync, Stage.ask,
        Stage.traffic, Stage.die, Stage.fault, Stage.wait, Stage.kill, Stage.offline, Stage.passes, Stage.rest,
        Stage.restart, Stage.then,
    )
}  # fmt: skip
