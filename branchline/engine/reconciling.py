"""This file takes the next steps: it observes a service, asks the law what is ready, and does that.

Production and git are two lanes that do not wait for one another: a dead remote never holds up a shift, and a
challenger that will not start never holds up a merge. Each step is idempotent and what it did is observed in the
next pass; there is no list of things to do that could be lost. Troubles are kept beside the service for people to
read, never acted upon.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from branchline.core import lifecycle as law
from branchline.core.service import Candidate, Phase, Service
from branchline.core.spec import UNIT_HEADER
from branchline.core.world import (
    FOREIGN,
    STAGING,
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
from branchline.engine.observing import Observer, Sight
from branchline.engine.preparing import group_of, prepare, spec_at
from branchline.engine.progress import Progress
from branchline.engine.recording import Recorder
from branchline.engine.telling import conclusion_message, was_kept
from branchline.errors import (
    BranchlineError,
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
TRIAL = "trial"  # the perimeter of a group that only a `run` wants
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
class Attempts:
    """How often something failed, why it did last, and when it may be tried again."""

    failed: int = 0
    again: float = 0.0
    why: str = ""

    def fail(self, now: float, why: str) -> None:
        """Note that it failed at this moment: it may be tried again after a while, twice as long each time."""
        self.failed += 1
        self.again = now + min(30.0, 0.25 * 2 ** min(self.failed, 8))
        self.why = why


@dataclass(slots=True)
class Reconciler:
    """Brings the world to what is recorded, one pass at a time."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    progress: Progress
    troubles: dict[tuple[str, str], str] = field(default_factory=dict)
    spawn: Callable[[Callable[[], None]], None] = lambda act: threading.Thread(target=act, name="stop").start()
    _attempts: dict[tuple[str, str, str], Attempts] = field(default_factory=dict)  # service, revision, perimeter
    _groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    _offered: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    _buried: set[str] = field(default_factory=set)
    _stopping: set[str] = field(default_factory=set)
    _concluded: set[tuple[str, str]] = field(default_factory=set)  # service, revision: wholly written by us
    _lock: threading.Lock = field(default_factory=threading.Lock)

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
        return done

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
        self._publish(service, tuple(i for i in sight.instances if i.state == "ready" and i not in gone), stamp)
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
        attempts = self._attempts.get((service.name, revision, perimeter), Attempts())
        mine = [i for i in sight.instances if (i.revision, i.perimeter) == (revision, perimeter)]
        if any(i.state == "starting" for i in mine) or self.ports.clock.monotonic() < attempts.again:
            return False
        self.ports.launcher.launch(self._group(service, revision, perimeter), stamp)
        return True

    def _group(self, service: Service, revision: str, perimeter: str) -> Group:
        key = (service.name, revision, perimeter)
        known = self._groups.get(key)
        built = self.ports.catalog.revision(service.name, revision)
        if known is None or known.version != built.version:
            prepared = prepare(self.ports, spec_at(self.ports, service.name, revision), revision)
            known = self._groups[key] = group_of(self.ports, built, prepared, perimeter)
        return known

    def _bury(self, service: Service, sight: Sight, stamp: Stamp) -> bool:
        """Clear failed incarnations away; who failed too often is given up where something else serves."""
        done = False
        for instance in sight.instances:
            key = (service.name, instance.revision, instance.perimeter)
            now, attempts = self.ports.clock.monotonic(), self._attempts.get(key)
            if attempts and instance.state == "ready" and now > attempts.again + HEALED:
                del self._attempts[key]
            if instance.state != "failed" or instance.nonce in self._buried or instance.perimeter == TRIAL:
                continue
            self._buried.add(instance.nonce)
            attempts = self._attempts.setdefault(key, Attempts())
            attempts.fail(now, f"{instance.version} did not stay up in {instance.perimeter}: {in_short(instance.tail)}")
            self.ports.launcher.stop(instance.nonce, stamp)
            if attempts.failed >= (1 if instance.perimeter == "staging" else PATIENCE):
                self._give_up(service, instance)
            done = True
        return done

    def _tell_failures(self, service: Service, sight: Sight, wanted: World) -> None:
        """Keep telling what does not stay up for as long as it is wanted and does not run."""
        missing = sorted(wanted.running - sight.world.running)
        failures = [
            self._attempts.get((service.name, group.revision, group.perimeter), Attempts()) for group in missing
        ]
        told = "; ".join(each.why for each in failures if each.why)
        if told:
            self.troubles[service.name, "up"] = told
        else:
            self.troubles.pop((service.name, "up"), None)

    def _give_up(self, service: Service, instance: Instance) -> None:
        """A hard failure is no statistics: out of evaluation, or out of traffic, at once."""
        for candidate in service.candidates:
            if candidate.revision != instance.revision:
                continue
            evaluated = candidate.phase is Phase.EVALUATING
            if not evaluated and (candidate.phase not in law.SERVING or instance.perimeter != "production"):
                continue
            name = f"{service.name}@{instance.version}"
            error = StartFailed(in_short(instance.tail), revision=name, log="\n".join(instance.tail.splitlines()[1:]))
            reason = self.progress.failed(service.name, candidate.branch, instance.perimeter, error)
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
        return self._try(service.name, "offer", lambda: self._publish(service, keep, stamp))

    def _publish(self, service: Service, instances: tuple[Instance, ...], stamp: Stamp) -> bool:
        versions = self._versions(service.name) if instances else {}
        endpoints = endpoints_of(service, instances, versions, self._unit_header(service) if instances else "")
        with self._lock:
            if self._offered.get(service.name) == endpoints:
                return False
        self.ports.router.offer(service.name, endpoints, stamp)
        with self._lock:
            self._offered[service.name] = endpoints
        return True

    def _versions(self, name: str) -> dict[str, str]:
        return {revision.commit: revision.version for revision in self.ports.catalog.revisions(name)}

    def _unit_header(self, service: Service) -> str:
        """The request header that carries the unit, as the trunk says; before there is a trunk, as a candidate does."""
        trunk = self.observer.refs.get(service.default)
        for commit in ([trunk] if trunk else []) + [c.revision for c in service.candidates]:
            try:
                return spec_at(self.ports, service.name, commit).rollout.unit_header
            except BranchlineError:
                continue  # neither a trunk without the service nor an unreadable file decides it
        return ""

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
        entry, message = conclusion_message(self.ports, service, step, revision)
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


def endpoints_of(
    service: Service, instances: tuple[Instance, ...], versions: Mapping[str, str], header: str = ""
) -> tuple[Endpoint, ...]:
    """How incarnations are addressed: a branch's name leads to its staging group, later to its production group.

    A staging group was started under a pre-release version; by its final one it is found as soon as there is one.
    """
    in_production = {i.revision for i in instances if i.perimeter == "production"}
    found = []
    for i in sorted(instances, key=lambda i: (i.version, i.perimeter, i.nonce)):
        words = [i.version]  # all that a group of a run is called, which nobody else may be sent to
        if i.perimeter != TRIAL:
            owner = service.owner(i.revision)
            branch = owner.branch if owner else ""
            handle = "" if branch.startswith("fix--") else branch.rpartition("--")[2]
            words += [versions.get(i.revision, ""), branch, handle, i.revision[:7], i.revision]
        split = i.perimeter == "production"
        hidden = i.perimeter == STAGING and i.revision in in_production
        pins = () if hidden else tuple(dict.fromkeys(word for word in words if word))
        found.append(
            Endpoint(
                i.revision, i.version, i.nonce, i.sockets, pins, split, i.health, i.nonce_aware, header or UNIT_HEADER
            )
        )
    return tuple(found)


def taker(service: Service, revision: str) -> Candidate | None:
    """The candidate that is taking over an arm with this revision."""
    return next((c for c in service.candidates if c.phase is Phase.CONCLUDING and c.revision == revision), None)


def in_short(tail: str) -> str:
    """What is told first of a failure, which is why, and the last that it printed itself."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[:1] + lines[-1:])) or "no output"
