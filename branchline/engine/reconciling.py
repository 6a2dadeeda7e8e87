"""This file takes the next steps: it observes a service, asks the law what is ready, and does that.

Production and git are two lanes that do not wait for one another: a dead remote never holds up a shift, and a
challenger that will not start never holds up a merge. Each step is idempotent and what it did is observed in the
next pass; there is no list of things to do that could be lost. Troubles are kept beside the service for people to
read, never acted upon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from branchline.core import lifecycle as law
from branchline.core.service import Candidate, Phase, Service
from branchline.core.spec import UNIT, Unit
from branchline.core.world import (
    FOREIGN,
    Absorb,
    Delete,
    Drop,
    Route,
    Start,
    Step,
    Stop,
    World,
    Write,
    desired,
    ready,
)
from branchline.engine.addressing import TRIAL, count_of, endpoints_of, superseded, worn
from branchline.engine.admitting import Attempts, Refusal, refusal, serves
from branchline.engine.budgeting import Budget, machine
from branchline.engine.observing import Observer, Sight
from branchline.engine.preparing import group_of, prepare, spec_at
from branchline.engine.progress import Progress
from branchline.engine.recording import Recorder
from branchline.engine.telling import conclusion_message, was_kept
from branchline.errors import (
    BranchlineError,
    DoesNotFit,
    Fenced,
    ForeignCommit,
    IllegalMove,
    MergeConflict,
    PushRefused,
    RefMoved,
    RemoteUnreachable,
    StartFailed,
    TrunkCheckedOut,
)
from branchline.ports import Change, Endpoint, Group, Instance, Ports, Stamp

S = TypeVar("S", bound=Step)
PATIENCE = 3  # failures of one revision in one perimeter before it is given up
HEALED = 60.0  # seconds without one until they are forgotten: what comes up and dies again and again is given up too
TROUBLES: tuple[tuple[type[BranchlineError], str], ...] = (
    (RemoteUnreachable, "remote"),
    (PushRefused, "permission"),
    (ForeignCommit, "foreign"),
    (MergeConflict, "conflict"),
    (TrunkCheckedOut, "checked out"),
)


@dataclass(slots=True)
class Reconciler:
    """Brings the world to what is recorded, one pass at a time."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    progress: Progress
    troubles: dict[tuple[str, str], str] = field(default_factory=dict)
    spawn: Callable[[Callable[[], None]], None] = lambda act: threading.Thread(target=act, name="stop").start()
    there: Budget = field(default_factory=machine)  # what all groups together may use
    _attempts: dict[tuple[str, str, str], Attempts] = field(default_factory=dict)  # service, revision, perimeter
    _groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    _offered: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    _admitted: set[tuple[str, str, str]] = field(default_factory=set)  # who had room, and lost processes
    _buried: set[tuple[str, bool]] = field(default_factory=set)  # nonce, whether it has failed as a whole
    _stopping: set[str] = field(default_factory=set)
    _concluded: set[tuple[str, str]] = field(default_factory=set)  # service, revision: wholly written by us
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _admitting: threading.Lock = field(default_factory=threading.Lock)

    # ------------------------------------------------------------------------------------------ production

    def production(self, name: str) -> bool:
        """One pass over the processes and routes of a service; says whether anything was done."""
        service = self.recorder.service(name)
        stamp, wanted = self.recorder.stamp(service), desired(service)
        sight = self.observer.production(service)
        done = self._bury(service, sight, stamp)
        self._tell_failures(service, sight, wanted)
        done |= self._offer(service, sight, wanted, stamp)
        for step in self._due(name, sight.world, wanted, (Start, Route, Stop)):
            done |= self._try(name, step, lambda step=step: self._produce(service, sight, step, stamp))  # type: ignore[misc]
        return self._try(name, "renew", lambda: self._renew(service, sight, wanted, stamp)) or done

    def _produce(self, service: Service, sight: Sight, step: Start | Route | Stop, stamp: Stamp) -> bool:
        match step:
            case Start(revision=revision, perimeter=perimeter):
                return self._start(service, sight, revision, perimeter, stamp)
            case Route(line=line, shares=shares):
                if not {revision for revision, _ in shares} <= self._offered_revisions(service.name):
                    return False
                self.ports.router.shift(service.name, line, shares, stamp)
                self._tell_shares(service, line, shares)
                return True
        gone = [i for i in sight.instances if (i.revision, i.perimeter) == (step.revision, step.perimeter)]
        rest = tuple(i for i in sight.instances if i.state == "ready" and i not in gone)
        old = superseded(rest, self._offered.get(service.name, ()))
        self._publish(service, tuple(i for i in rest if i not in old), stamp)
        begun = [self._stop(service.name, instance, stamp) for instance in gone]
        return any(begun)

    def _stop(self, name: str, instance: Instance, stamp: Stamp) -> bool:
        """Drain and stop beside the loop: a slow goodbye holds up nobody's shift."""
        with self._lock:
            if instance.nonce in self._stopping:
                return False
            self._stopping.add(instance.nonce)

        def stop() -> bool:
            self.ports.launcher.stop(instance.nonce, stamp)
            return True

        def act() -> None:
            try:
                self._try(name, "stop", stop)
            finally:
                with self._lock:
                    self._stopping.discard(instance.nonce)

        self.spawn(act)
        return True

    def _tell_shares(self, service: Service, line: int, shares: tuple[tuple[str, int], ...]) -> None:
        names = self._versions(service.name)
        text = ", ".join(f"{names.get(revision, revision[:7])} {share}%" for revision, share in shares) or "ended"
        for candidate in service.candidates:
            if candidate.revision in dict(shares) and candidate.line == line:
                self.progress.note(service.name, candidate.branch, "ok", "traffic", text)

    def _start(self, service: Service, sight: Sight, revision: str, perimeter: str, stamp: Stamp) -> bool:
        key = (service.name, revision, perimeter)
        attempts = self._attempts.get(key, Attempts())
        mine = [i for i in sight.instances if (i.revision, i.perimeter) == (revision, perimeter)]
        if any(i.state == "starting" for i in mine) or self.ports.clock.monotonic() < attempts.again:
            return False
        group = self._group(service, revision, perimeter)
        with self._admitting:  # two that fit alone, and not together, are not begun at once
            known = key in self._admitted or serves(service, sight, revision)
            refused = None if known else refusal(self.ports, group, desired(service).running, self.there)
            if refused is None:
                self.ports.launcher.launch(group, stamp)
                return True
        return self._refuse_start(service, group, refused)

    def _refuse_start(self, service: Service, group: Group, refused: Refusal) -> bool:
        """Treat what does not fit like what does not come up, unless it only has to wait; says what was done."""
        attempts = self._attempts.setdefault((service.name, group.revision, group.perimeter), Attempts())
        note = attempts.wait if refused.passes else attempts.fail
        note(self.ports.clock.monotonic(), f"{group.version} is not started in {group.perimeter}: {refused.why}")
        if not refused.passes and too_often(attempts, group.perimeter == "staging"):
            name = f"{service.name}@{group.version}"
            error = StartFailed(refused.why, revision=name, hint=DoesNotFit.hint)
            self._give_up(service, group.revision, group.perimeter, error)
        return not refused.passes

    def _renew(self, service: Service, sight: Sight, wanted: World, stamp: Stamp) -> bool:
        """Start a new incarnation beside each that has lost processes, or is to have another number (I8)."""
        groups = worn(wanted.running, sight.instances, service)
        begun = [self._start(service, sight, group.revision, group.perimeter, stamp) for group in groups]
        return any(begun)

    def _group(self, service: Service, revision: str, perimeter: str) -> Group:
        key = (service.name, revision, perimeter)
        known = self._groups.get(key)
        built = self.ports.catalog.revision(service.name, revision)
        if known is None or known.version != built.version:
            prepared = prepare(self.ports, spec_at(self.ports, service.name, revision), revision)
            known = self._groups[key] = group_of(self.ports, built, prepared, perimeter)
        return replace(known, instances=count_of(service, revision, perimeter, known.instances))

    def _bury(self, service: Service, sight: Sight, stamp: Stamp) -> bool:
        """Clear failed incarnations away, and count those that have lost processes; who failed too often is given up
        where something else serves.
        """
        done = False
        for instance in sight.instances:
            key = (service.name, instance.revision, instance.perimeter)
            now, attempts = self.ports.clock.monotonic(), self._attempts.get(key)
            failed, lost = instance.state == "failed", instance.lost
            if attempts and instance.state == "ready" and not lost and now > attempts.again + HEALED:
                del self._attempts[key]
            if not (failed or lost) or (instance.nonce, failed) in self._buried or instance.perimeter == TRIAL:
                continue
            self._buried.add((instance.nonce, failed))
            self._admitted.add(key)
            attempts = self._attempts.setdefault(key, Attempts())
            what = "did not stay up" if failed else f"lost {lost} of {len(instance.sockets)} processes"
            attempts.fail(now, f"{instance.version} {what} in {instance.perimeter}: {in_short(instance.tail)}")
            if failed:
                self.ports.launcher.stop(instance.nonce, stamp)
            if too_often(attempts, failed and instance.perimeter == "staging"):
                name, log = f"{service.name}@{instance.version}", "\n".join(instance.tail.splitlines()[1:])
                error = StartFailed(in_short(instance.tail), revision=name, log=log)
                self._give_up(service, instance.revision, instance.perimeter, error)
            done = True
        return done

    def _tell_failures(self, service: Service, sight: Sight, wanted: World) -> None:
        """Keep telling what does not stay up for as long as it is wanted and does not run, or not whole."""
        missing = sorted((wanted.running - sight.world.running).union(worn(wanted.running, sight.instances, service)))
        failures = [
            self._attempts.get((service.name, group.revision, group.perimeter), Attempts()) for group in missing
        ]
        told = "; ".join(each.why for each in failures if each.why)
        if told:
            self.troubles[service.name, "up"] = told
        else:
            self.troubles.pop((service.name, "up"), None)

    def _give_up(self, service: Service, revision: str, perimeter: str, error: BranchlineError) -> None:
        """A hard failure is no statistics: out of evaluation, or out of traffic, at once."""
        self._admitted.discard((service.name, revision, perimeter))
        for candidate in service.candidates:
            if candidate.revision != revision:
                continue
            evaluated = candidate.phase is Phase.EVALUATING or candidate.stands_by
            if not evaluated and (candidate.phase not in law.SERVING or perimeter != "production"):
                continue
            reason = self.progress.failed(service.name, candidate.branch, perimeter, error)
            event = law.GatesFailed if evaluated else law.Breached
            self._record(service.name, event(candidate.branch, reason=reason))

    def _offer(self, service: Service, sight: Sight, wanted: World, stamp: Stamp) -> bool:
        """Make every ready incarnation that is wanted addressable, before any route names it."""
        groups = {(g.revision, g.perimeter) for g in wanted.running}
        routed = {revision for _, shares in sight.world.routes for revision, _ in shares}
        keep = tuple(
            i
            for i in sight.instances
            if i.state == "ready"
            and ((i.revision, i.perimeter) in groups or i.revision in routed or i.perimeter == TRIAL)
        )
        return self._try(service.name, "offer", lambda: self._take_over(service, keep, stamp))

    def _take_over(self, service: Service, keep: tuple[Instance, ...], stamp: Stamp) -> bool:
        """Offer what is kept; whose successor was offered before is offered no more, and only then stopped (I8)."""
        old = superseded(keep, self._offered.get(service.name, ()))
        done = self._publish(service, tuple(i for i in keep if i not in old), stamp)
        stopped = [self._stop(service.name, instance, stamp) for instance in old]
        return any([done, *stopped])

    def _publish(self, service: Service, instances: tuple[Instance, ...], stamp: Stamp) -> bool:
        versions = self._versions(service.name) if instances else {}
        endpoints = endpoints_of(service, instances, versions, self._unit(service) if instances else UNIT)
        with self._lock:
            if self._offered.get(service.name) == endpoints:
                return False
        self.ports.router.offer(service.name, endpoints, stamp)
        with self._lock:
            self._offered[service.name] = endpoints
        return True

    def _versions(self, name: str) -> dict[str, str]:
        return {revision.commit: revision.version for revision in self.ports.catalog.revisions(name)}

    def _unit(self, service: Service) -> Unit:
        """Where requests say for whom they are, as the trunk says; before there is a trunk, as a candidate does."""
        trunk = self.observer.refs.get(service.default)
        for commit in ([trunk] if trunk else []) + [c.revision for c in service.candidates]:
            try:
                return spec_at(self.ports, service.name, commit).rollout.unit
            except BranchlineError:
                continue  # neither a trunk without the service nor an unreadable file decides it
        return UNIT

    def _offered_revisions(self, name: str) -> set[str]:
        return {endpoint.revision for endpoint in self._offered.get(name, ()) if endpoint.split}

    def staged(self, name: str, revision: str) -> bool:
        """Whether a revision's staging group was offered, so that its address leads to it."""
        return any(not endpoint.split and endpoint.revision == revision for endpoint in self._offered.get(name, ()))

    def forget(self) -> None:
        """Offer everything again: the gateway was started anew."""
        with self._lock:
            self._offered.clear()

    # ------------------------------------------------------------------------------------------------- git

    def git(self, name: str) -> bool:
        """One pass over the trunks and branches of a service; says whether anything was done."""
        if not self.observer.fetched:
            return False  # nothing of git has been seen yet
        service = self.recorder.service(name)
        stamp, wanted = self.recorder.stamp(service), desired(service)
        world = self.observer.whole(service).world
        done = self._try(name, "foreign", lambda: self._look_for_strangers(service, world, wanted))
        for step in self._due(name, world, wanted, (Write, Absorb, Delete, Drop)):
            done |= self._try(name, step, lambda step=step: self._write(service, step, stamp))  # type: ignore[misc]
        if done:
            world = self.observer.whole(service).world
        for candidate in service.candidates:
            if candidate.phase is Phase.CONCLUDING and self._has(candidate, world, wanted):
                if not self._named(service, candidate, wanted, stamp):
                    continue
                tip = self.observer.refs.get(candidate.base or "", "")  # of the challenger that now has its fix
                done |= self._record(name, law.Recorded(candidate.branch, tip=tip))
        return done

    def _look_for_strangers(self, service: Service, world: World, wanted: World) -> bool:
        """Raise ForeignCommit where a trunk holds what nothing knows: it is never written over, and who concludes
        there waits.
        """
        for ref, revision in wanted.trunks:
            if dict(world.trunks).get(ref) == FOREIGN:
                error = ForeignCommit(ref=ref, service=service.name)
                if candidate := taker(service, revision):
                    self._refuse(service.name, candidate, error)
                raise error
        return False

    def _named(self, service: Service, candidate: Candidate, wanted: World, stamp: Stamp) -> bool:
        """Whether what follows a merge is written, too: who merged it may have died before its tag, or be a forge."""
        key, before = (service.name, candidate.revision), service.line(candidate.line).incumbent
        for ref, revision in wanted.trunks:
            if candidate.base is None and revision == candidate.revision and key not in self._concluded:
                step = Write(candidate.line, ref, revision, before)
                self._try(service.name, "tag", lambda step=step: self._write(service, step, stamp))  # type: ignore[misc]
        return candidate.base is not None or key in self._concluded

    def _has(self, candidate: Candidate, world: World, wanted: World) -> bool:
        if candidate.base is not None:
            return (candidate.base, candidate.revision) in world.absorbed
        refs = [ref for ref, revision in wanted.trunks if revision == candidate.revision]
        return bool(refs) and all(dict(world.trunks).get(ref) == candidate.revision for ref in refs)

    def _write(self, service: Service, step: Write | Absorb | Delete | Drop, stamp: Stamp) -> bool:
        """Do one step in git; who concludes by it is told why git does not take it."""
        try:
            self._written(service, step, stamp)
        except tuple(kind for kind, _ in TROUBLES) as error:
            candidate = taker(service, step.revision) if isinstance(step, Write | Absorb) else None
            if candidate:
                self._refuse(service.name, candidate, error)
            raise
        self.observer.fetch()
        return True

    def _written(self, service: Service, step: Write | Absorb | Delete | Drop, stamp: Stamp) -> None:
        writer = self.ports.writer
        match step:
            case Write():
                writer.conclude(self._change(service, step, stamp))
                self._concluded.add((service.name, step.revision))
                for each in service.candidates:
                    if each.revision == step.revision:
                        text = f"{step.ref} shows {step.revision[:7]}"
                        self.progress.note(service.name, each.branch, "ok", "git", text)
            case Absorb():
                base = service.on(step.branch)
                writer.absorb(service.name, step.branch, base.tip, step.revision, stamp)
            case Delete():
                writer.delete(service.name, step.branch, step.tip, stamp)
                self.progress.note(service.name, step.branch, "ok", "git", f"deleted {step.branch} (archived)")
            case _:
                writer.drop(service.name, step.ref, stamp)

    def _change(self, service: Service, step: Write, stamp: Stamp) -> Change:
        revision = self.ports.catalog.revision(service.name, step.revision)
        entry, message, dossier = conclusion_message(self.ports, service, step, revision)
        self.ports.writer.hold(service.name, revision.commit, revision.version)
        kept = taker(service, step.revision)
        return Change(
            service=service.name,
            closure=self.observer.closure(service.name, (step.revision,)),
            ref=step.ref,
            revision=step.revision,
            seen=step.seen,
            version=revision.version,
            message=message,
            actor=entry.actor,
            at=entry.at,
            stamp=stamp,
            event=entry.generation,
            dossier=dossier,
            keep=kept is not None
            and kept.holds == service.line(kept.line).incumbent
            and was_kept(self.ports, service, kept),
        )

    def _refuse(self, name: str, candidate: Candidate, error: BranchlineError) -> None:
        reason = next(word for kind, word in TROUBLES if isinstance(error, kind))
        if candidate.trouble != reason:
            self._record(name, law.Refused(candidate.branch, reason=reason))

    # -------------------------------------------------------------------------------------------- together

    def _due(self, name: str, world: World, wanted: World, kinds: tuple[type[S], ...]) -> list[S]:
        """The steps of these kinds that can be done now; what came between one that is due no more is told no more."""
        due: list[S] = [step for step in ready(world, wanted) if isinstance(step, kinds)]
        for kind in set(kinds) - {type(step) for step in due}:
            self.troubles.pop((name, kind.__name__.lower()), None)
        return due

    def _try(self, name: str, step: object, act: Callable[[], bool]) -> bool:
        """Do one step; a trouble is kept for people and met again in the next pass, and stops no other step."""
        what = step if isinstance(step, str) else type(step).__name__.lower()
        try:
            done = act()
        except Fenced:
            return True  # something newer is recorded: observe and plan again
        except RefMoved:
            self.observer.fetch()
            return True
        except BranchlineError as error:
            self.troubles[name, what] = f"{error.code}: {error.message}" + (f" ({error.cause})" if error.cause else "")
            return False
        self.troubles.pop((name, what), None)
        return done

    def _record(self, name: str, event: law.Event) -> bool:
        try:
            self.recorder.record(name, event)
        except IllegalMove:
            return False  # it was true of a state that has been left meanwhile
        return True


def taker(service: Service, revision: str) -> Candidate | None:
    """The candidate that is taking over an arm with this revision."""
    return next((c for c in service.candidates if c.phase is Phase.CONCLUDING and c.revision == revision), None)


def too_often(attempts: Attempts, once: bool) -> bool:
    """Whether something has failed too often to be tried again; once is enough where nobody is served."""
    return attempts.failed >= (1 if once else PATIENCE)


def in_short(tail: str) -> str:
    """What is told first of a failure, which is why, and the last that it printed itself."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[:1] + lines[-1:])) or "no output"
