"""This file runs a work tree: steps and gates on a tree object, for a person who is still at work.

What comes out may be reused by a later build of the same content and is never deployable: nothing is recorded of a
candidate, and the staging group that the gates need is gone afterwards.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass

from branchline.core.codes import problem
from branchline.core.revision import GateResult, Result, Revision
from branchline.core.service import Service
from branchline.core.spec import Gate, Spec, as_json
from branchline.core.world import policy_of
from branchline.engine.building import build
from branchline.engine.checking import evaluate
from branchline.engine.describing import build_and_describe
from branchline.engine.observing import Observer
from branchline.engine.preparing import Prepared, governed_spec, group_of, method_of, prepare, spec_at
from branchline.engine.progress import Progress
from branchline.engine.reconciling import TRIAL, Reconciler, in_short
from branchline.engine.recording import Recorder
from branchline.errors import BranchlineError, Fenced, StartFailed, UnknownReference
from branchline.ports import Instance, Ports, Stamp


@dataclass(slots=True)
class Trials:
    """Runs work trees, each in a thread of its own."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    reconciler: Reconciler
    progress: Progress

    def begin(self, service: str, commit: str, gates: bool = True) -> str:
        """Begin a run of a commit that the repository has; returns its topic, whose last note is named `end`."""
        topic = f"run-{uuid.uuid4().hex[:8]}"
        threading.Thread(target=self._run, args=(service, commit, topic, gates), name=topic, daemon=True).start()
        return topic

    def sweep(self) -> None:
        """End the groups of runs whose daemon has gone (I22)."""
        for instance in self.ports.launcher.instances():
            if instance.perimeter == TRIAL and instance.state in ("starting", "ready"):
                self._stop(instance.service, instance.nonce)

    def _run(self, service: str, commit: str, topic: str, gates: bool) -> None:
        try:
            found = self._steps_and_gates(service, commit, topic, gates)
        except BranchlineError as error:
            told = problem(error)
            if error.next.startswith("branchline logs"):  # of a run nothing is kept that could be asked for
                told |= {"hint": f"mend it, then: branchline run {service}"}
            self.progress.note(service, topic, "no", "end", error.message, problem=told)
            return
        except Exception as error:  # noqa: BLE001 - whoever waits for the end must hear of it
            bug = BranchlineError(f"{type(error).__name__}: {error}")
            self.progress.note(service, topic, "no", "end", bug.cause, problem=problem(bug))
            return
        bad = [each.gate for each in found if each.result is not Result.PASS]
        self.progress.note(service, topic, "no" if bad else "ok", "end", ", ".join(bad), failed=bad)

    def _steps_and_gates(self, service: str, commit: str, topic: str, gates: bool) -> tuple[GateResult, ...]:
        ports = self.ports
        state = self.recorder.service(service)
        ports.repository.borrow(commit)
        major = spec_at(ports, service, commit).major
        spec = governed_spec(ports, service, commit, self.observer.refs.get(policy_of(state, major), ""))
        prepared = prepare(ports, spec, commit)
        if not gates:
            build(ports, prepared, self.progress, topic)
            return ()
        runs, schema = build_and_describe(ports, prepared, self.progress, topic)
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
            incumbent = self._incumbent(state, spec.major)
            return evaluate(ports, prepared, revision, incumbent, method_of(spec), staging, self.progress, topic)
        finally:
            if instance:
                self._unstage(service, instance.nonce)

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
