"""This file runs a work tree: steps and gates on a tree object, for a person who is still at work.

What comes out may be reused by a later build of the same content and is never deployable: nothing is recorded of a
candidate, and the staging group that the gates need is gone afterwards.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from branchline.core.codes import problem
from branchline.core.revision import Result, Revision
from branchline.core.service import Service
from branchline.core.spec import Gate, Spec, as_json
from branchline.core.world import policy_of
from branchline.engine.addressing import TRIAL
from branchline.engine.asking import did_you_mean
from branchline.engine.building import build
from branchline.engine.checking import evaluate
from branchline.engine.describing import build_and_describe
from branchline.engine.foreseeing import foresee
from branchline.engine.observing import Observer
from branchline.engine.preparing import Prepared, governed_spec, group_of, method_of, prepare, spec_at
from branchline.engine.profiling import spoiled
from branchline.engine.progress import Progress
from branchline.engine.reconciling import Reconciler, in_short
from branchline.engine.recording import Recorder
from branchline.engine.verifying import DIFFERENT, verified
from branchline.errors import BranchlineError, Fenced, NothingToDo, StartFailed, UnknownReference
from branchline.ports import Instance, Ports, Stamp

Stopped = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a run: the gates, too; to go on after a failure; steps that are run although they could be
    reused, to compare (`verify`: one, or `*`); or only to be told what would be done. `of` is the revision whose
    results they are held against.
    """

    gates: bool = True
    keep_going: bool = False
    verify: str = ""
    dry_run: bool = False
    of: Revision | None = None


ALL = Wanted()


@dataclass(slots=True)
class Trials:
    """Runs work trees, each in a thread of its own."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    reconciler: Reconciler
    progress: Progress

    _stopping: dict[str, threading.Event] = field(default_factory=dict)

    def begin(self, service: str, commit: str, wanted: Wanted = ALL) -> str:
        """Begin a run of a commit that the repository has; returns its topic, whose last note is named `end`."""
        topic = f"run-{uuid.uuid4().hex[:8]}"
        self._stopping[topic] = threading.Event()
        threading.Thread(target=self._run, args=(service, commit, topic, wanted), name=topic, daemon=True).start()
        return topic

    def stop(self, topic: str) -> bool:
        """End a run where it is; what its steps have finished is kept. Whether there was one under way."""
        stopping = self._stopping.get(topic)
        if stopping:
            stopping.set()
        return stopping is not None

    def busy(self) -> bool:
        """Whether any run is under way."""
        return bool(self._stopping)

    def sweep(self) -> None:
        """End the groups of runs whose daemon has gone (I22)."""
        for instance in self.ports.launcher.instances():
            if instance.perimeter == TRIAL and instance.state in ("starting", "ready"):
                self._stop(instance.service, instance.nonce)

    def _run(self, service: str, commit: str, topic: str, wanted: Wanted) -> None:
        try:
            self._told(service, commit, topic, wanted, self._stopping[topic].is_set)
        finally:
            del self._stopping[topic]

    def _told(self, service: str, commit: str, topic: str, wanted: Wanted, stopped: Stopped) -> None:
        try:
            bad = self._tried(service, commit, topic, wanted, stopped)
        except BranchlineError as error:
            if stopped():
                self.progress.note(service, topic, "..", "end", "stopped", stopped=True)
                return
            told = problem(error)
            if error.next.startswith("branchline logs"):  # of a run nothing is kept that could be asked for
                told |= {"hint": f"mend it, then: branchline run {service}"}
            self.progress.note(service, topic, "no", "end", error.message, problem=told)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits for the end must hear of it
            bug = BranchlineError(f"{type(error).__name__}: {error}")
            self.progress.note(service, topic, "no", "end", bug.cause, problem=problem(bug))
            return
        self.progress.note(service, topic, "no" if bad else "ok", "end", ", ".join(bad), failed=bad)

    def _tried(self, service: str, commit: str, topic: str, wanted: Wanted, stopped: Stopped) -> list[str]:
        """Do what is wanted; the names of the gates that said no, or of the steps that left something else."""
        ports = self.ports
        state = self.recorder.service(service)
        ports.repository.borrow(commit)
        major = spec_at(ports, service, commit).major
        spec = governed_spec(ports, service, commit, self.observer.refs.get(policy_of(state, major), ""))
        prepared = prepare(ports, spec, commit)
        if wanted.dry_run:
            foresee(ports, prepared, self.progress, topic)
            return []
        again = {step.name for step in spec.steps if wanted.verify in ("*", step.name)}
        if wanted.verify and not again:
            raise NothingToDo(did_you_mean(wanted.verify, [step.name for step in spec.steps]),
                              what=f"{service} has no step {wanted.verify!r}")  # fmt: skip
        if again or not wanted.gates:
            runs = build(ports, prepared, self.progress, topic, stopped, keep_going=wanted.keep_going, again=again)
            if wanted.of:
                return self._verified(wanted.of, spec, topic, wanted.verify)
            return [run.step for run in runs if run.state == "differs"]
        incumbent = self._incumbent(state, spec.major)
        if bad := spoiled(ports, spec, prepared.data_digests, incumbent):  # before anything is trained with it
            self.progress.refused(service, topic, bad)
            return [gate.gate for gate in bad]
        runs, schema = build_and_describe(ports, prepared, self.progress, topic, stopped, wanted.keep_going)
        revision = Revision(
            service,
            commit,
            f"0.0.0-run.{commit[:7]}",
            "",
            prepared.tree,
            prepared.environment.digest,
            prepared.sdk,
            as_json(spec),
            tuple((run.step, run.artifact) for run in runs),
            schema=schema,
        )
        instance = self._stage(prepared, revision) if needs_staging(spec) else None
        try:
            staging = ports.router.address(service, revision.version)
            found = evaluate(
                ports, prepared, revision, incumbent, method_of(spec), staging, self.progress, topic, stopped
            )
            return [each.gate for each in found if each.result is not Result.PASS]
        finally:
            if instance:
                self._unstage(service, instance.nonce)

    def _verified(self, revision: Revision, spec: Spec, topic: str, step: str) -> list[str]:
        """Tell what running a revision's steps again has left; the names of those that differ."""
        runs = self.ports.catalog.run(revision.service, revision.commit)  # with each item that a step ran for
        steps = verified(self.ports, revision, spec, runs, "" if step == "*" else step)
        self.progress.note(revision.service, topic, "..", "verified", revision.name, steps=steps)
        return list(dict.fromkeys(each["step"] for each in steps if each["verdict"] == DIFFERENT))

    def _stamp(self, service: str) -> Stamp:
        return self.recorder.stamp(self.recorder.service(service))

    def _stage(self, prepared: Prepared, revision: Revision) -> Instance:
        group = group_of(self.ports, revision, prepared, TRIAL)
        instance = self.ports.launcher.launch(group, self._stamp(revision.service))
        deadline = self.ports.clock.monotonic() + group.start_seconds + 10
        tail = ""
        while self.ports.clock.monotonic() < deadline:
            now = next((i for i in self.ports.launcher.instances() if i.nonce == instance.nonce), None)
            if now is None or now.state in ("failed", "stopped"):
                tail = now.tail if now else ""
                break
            if now.state == "ready":
                self.reconciler.production(revision.service)
                return now
            self.ports.clock.wait(0.05)
        log = self.ports.launcher.log(instance.nonce)
        self._unstage(revision.service, instance.nonce)
        raise StartFailed(in_short(tail or log), revision=f"{revision.service}@{revision.short}", log=log)

    def _unstage(self, service: str, nonce: str) -> None:
        self._stop(service, nonce)
        self.reconciler.production(service)

    def _stop(self, service: str, nonce: str) -> None:
        try:
            self.ports.launcher.stop(nonce, self._stamp(service))
        except Fenced:  # something was recorded just now, which says nothing of a run
            self._stop(service, nonce)

    def _incumbent(self, service: Service, major: int) -> Revision | None:
        try:
            return self.ports.catalog.revision(service.name, service.line(major).incumbent or "")
        except UnknownReference:
            return None


def needs_staging(spec: Spec) -> bool:
    """Whether any gate asks for a running revision; everything but comparisons may."""
    return any(_asks(gate) for gate in spec.gates)


def _asks(gate: Gate) -> bool:
    return gate.kind in ("load", "pytest", "call", "command")
