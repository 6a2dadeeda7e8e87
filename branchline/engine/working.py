"""This file sends candidates to be built and evaluated, a few at a time, and records what came of it.

What takes minutes may end after its candidate has moved on: a result is recorded only for the very commit and phase
it was begun for. Stopped work is begun again from what was finished. What is no fault of the candidate is told for as
long as it is so, and the work begun again after a while: a gate may take minutes and a ledger be full for hours.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from branchline.core import lifecycle as law
from branchline.core import names
from branchline.core.codes import understood
from branchline.core.harm import shares
from branchline.core.revision import Result, Revision, StepRun
from branchline.core.service import Candidate, Method, Phase, Service
from branchline.core.spec import Spec, as_json
from branchline.core.waiting import replaced
from branchline.core.world import policy_of
from branchline.engine.admitting import Attempts
from branchline.engine.checking import evaluate
from branchline.engine.describing import build_and_describe
from branchline.engine.observing import Observer
from branchline.engine.preparing import SERVICE_FILE, governed_spec, method_of, prepare, spec_at
from branchline.engine.profiling import spoiled
from branchline.engine.progress import Progress
from branchline.engine.recording import Recorder
from branchline.engine.repeating import repeats_of
from branchline.errors import BadServiceFile, BranchlineError, IllegalMove, LedgerError, UnknownReference
from branchline.ports import Ports

Key = tuple[str, str, str, str]  # service, branch, revision, phase: one piece of work


@dataclass(slots=True)
class Workshop:
    """Builds and evaluates candidates beside the loops."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    progress: Progress
    troubles: dict[tuple[str, str], str]
    staged: Callable[[str, str], bool]  # whether a service's revision can be reached in staging
    pool: Executor = field(default_factory=lambda: ThreadPoolExecutor(2, thread_name_prefix="work"))
    _busy: set[Key] = field(default_factory=set)
    _attempts: dict[Key, Attempts] = field(default_factory=dict)  # of work that has to be begun again
    _closed: threading.Event = field(default_factory=threading.Event)

    def look(self, name: str) -> bool:
        """Begin whatever work the service's candidates wait for; says whether any was begun."""
        service = self.recorder.service(name)
        begun = False
        self._forget(service)
        for candidate in service.candidates:
            if candidate.phase is Phase.BUILDING:
                begun |= self._begin(service, candidate, self._build)
            elif candidate.phase is Phase.EVALUATING and self.staged(name, candidate.revision):
                begun |= self._begin(service, candidate, self._evaluate)
        return begun

    def begin(self, act: Callable[[], None]) -> None:
        """Do something else beside the loops, as long as there is time for it."""
        if not self._closed.is_set():
            self.pool.submit(act)

    def busy(self) -> bool:
        """Whether a candidate is being built or evaluated."""
        return bool(self._busy)

    def closing(self) -> bool:
        """Whether what is under way is to stop."""
        return self._closed.is_set()

    def close(self) -> None:
        """Stop what is running; it is begun again by the next daemon."""
        self._closed.set()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, service: Service, candidate: Candidate, work: Callable[[Service, Candidate], None]) -> bool:
        key = key_of(service, candidate)
        waits = key in self._attempts and self.ports.clock.monotonic() < self._attempts[key].again
        if waits or key in self._busy or self._closed.is_set():
            return False
        self._busy.add(key)

        def run() -> None:
            try:
                work(service, candidate)
            except IllegalMove:
                pass  # it moved on while we worked: the next look begins what is wanted now
            except Exception as error:  # noqa: BLE001 - one candidate's surprise stops nobody else, and is told (I24)
                self._failed(service, candidate, understood(error))
            finally:
                self._busy.discard(key)

        self.pool.submit(run)
        return True

    def _failed(self, service: Service, candidate: Candidate, error: BranchlineError) -> None:
        if self._stopped(service, candidate)():
            return  # stopped work says nothing about the candidate
        if error.transient or isinstance(error, LedgerError):
            self._put_off(service, candidate, error)
            return
        reason = self.progress.failed(service.name, candidate.branch, candidate.phase.value, error)
        kind = law.BuildFailed if candidate.phase is Phase.BUILDING else law.GatesFailed
        try:
            self._record(service, candidate, kind(candidate.branch, reason=reason))
        except IllegalMove:
            return
        except BranchlineError as unkept:
            self._put_off(service, candidate, unkept)

    def _put_off(self, service: Service, candidate: Candidate, error: BranchlineError) -> None:
        """Tell what came between, and begin the work again after a while."""
        why = f"{error.code}: {error.message}"
        self._attempts.setdefault(key_of(service, candidate), Attempts()).fail(self.ports.clock.monotonic(), why)
        self.troubles[service.name, trouble(candidate.branch)] = why

    def _forget(self, service: Service) -> None:
        """Tell no more what came between when the work is done, or wanted no more."""
        wanted = {key_of(service, candidate) for candidate in service.candidates}
        for key in tuple(self._attempts):  # the pool's threads may add to it
            if key[0] == service.name and key not in wanted:
                del self._attempts[key]
                self.troubles.pop((service.name, trouble(key[1])), None)

    def _record(self, service: Service, candidate: Candidate, event: law.BranchEvent) -> None:
        self.recorder.record(service.name, event, only_if=lambda now: same_try(now, candidate))

    def _stopped(self, service: Service, candidate: Candidate) -> Callable[[], bool]:
        return lambda: self._closed.is_set() or not same_try(self.recorder.service(service.name), candidate)

    def _spec(self, service: Service, candidate: Candidate) -> Spec:
        """What the commit's own file says, under the policy of the line that it is for; raises BadServiceFile."""
        own = spec_at(self.ports, service.name, candidate.revision)
        line = line_for(service, candidate, own)
        trunk = self.observer.refs.get(policy_of(service, line), "")
        return governed_spec(self.ports, service.name, candidate.revision, trunk)

    def _build(self, service: Service, candidate: Candidate) -> None:
        ports, topic, stopped = self.ports, candidate.branch, self._stopped(service, candidate)
        spec = self._spec(service, candidate)
        line = spec.major
        prepared = prepare(ports, spec, candidate.revision)
        incumbent = self._incumbent(service, replace(candidate, line=line))
        if bad := spoiled(ports, spec, prepared.data_digests, incumbent):
            self.progress.refused(service.name, topic, bad)
            reason = "; ".join(f"{gate.gate}: {gate.summary}" for gate in bad)
            self._record(service, candidate, law.BuildFailed(candidate.branch, reason=reason))
            return
        runs, schema = build_and_describe(ports, prepared, self.progress, topic, stopped)
        made = Revision(
            service=service.name,
            commit=candidate.revision,
            version="",
            branch=candidate.branch,
            tree=prepared.tree,
            environment=prepared.environment.digest,
            sdk=prepared.sdk,
            spec=as_json(spec),
            artifacts=tuple((run.step, run.artifact) for run in runs),
            data=tuple(sorted(prepared.data_digests.items())),
            trained=self._trained(service.name, candidate.revision, runs),
            author=self._author(candidate.revision),
            built=ports.clock.now(),
            schema=schema,
        )
        fix = candidate.method is Method.PATCH
        revision = ports.catalog.add(made, "patch" if fix else "minor", line, incumbent.version if incumbent else "")
        self.progress.note(service.name, topic, "ok", "built", f"{revision.name}  {revision.short}")
        method = candidate.method if fix else method_of(spec)
        synced = incumbent is not None and ports.repository.base(incumbent.commit, made.commit) == incumbent.commit
        self._record(service, candidate, law.Built(candidate.branch, line=line, method=method, synced=synced))

    def _trained(self, service: str, commit: str, runs: tuple[StepRun, ...]) -> str:
        """The commit that the artifacts were trained at (1.09): an older one when every step was reused from it."""
        if not runs or any(run.state == "ran" for run in runs):
            return commit
        artifacts = tuple((run.step, run.artifact) for run in runs)
        older = [r for r in self.ports.catalog.revisions(service) if r.artifacts == artifacts]
        return older[-1].trained if older else commit

    def _author(self, commit: str) -> str:
        commits = self.ports.repository.log("", commit, limit=1)
        return f"{commits[0]['author']} <{commits[0]['email']}>" if commits else ""

    def _evaluate(self, service: Service, candidate: Candidate) -> None:
        ports, name = self.ports, service.name
        spec = self._spec(service, candidate)
        revision = ports.catalog.revision(name, candidate.revision)
        staging = ports.router.address(name, revision.version)
        prepared = prepare(ports, spec, candidate.revision)
        stopped = self._stopped(service, candidate)
        incumbent = self._incumbent(service, candidate)
        found = evaluate(
            ports, prepared, revision, incumbent, candidate.method, staging, self.progress, candidate.branch, stopped,
            self._benchmark(service, candidate),
        )  # fmt: skip
        bad = [f"{gate.gate}: {gate.summary}" for gate in found if gate.result is not Result.PASS]
        if stopped():
            return
        if bad:
            self._record(service, candidate, law.GatesFailed(candidate.branch, reason="; ".join(bad)))
            return
        yardstick = candidate.method is Method.BENCHMARK  # never promoted, so it takes no final version
        final = revision if yardstick else ports.catalog.finish(name, candidate.revision)
        ports.writer.hold(name, final.commit, final.version)
        self.progress.note(name, candidate.branch, "ok", "passed", f"{final.name}  {names.counted(len(found), 'gate')}")
        if candidate.line > 1 and service.lines and law.is_first(service, candidate):
            text = f"{ports.router.address(name)} will be major {candidate.line}; what serves now stays at "
            text += ", ".join(ports.router.address(name, f"v{line.major}") for line in service.lines)
            self.progress.note(name, candidate.branch, "..", "address", text)
        repeats = repeats_of(ports, revision, spec.closure) if candidate.method is Method.AB_TEST else 0
        if repeats:
            text = f"the same was tried {names.counted(repeats, 'time')} before: its part of the error rate is "
            self.progress.note(name, candidate.branch, "..", "repeated", text + f"1/{2**repeats}")
        share = shares(service.slots)[0] if spec.rollout.harm_budget else spec.rollout.share
        self._record(service, candidate, law.GatesPassed(candidate.branch, share=share, repeats=repeats))

    def _benchmark(self, service: Service, candidate: Candidate) -> Revision | None:
        """The newest benchmark of its line: its numbers are the yardstick while nothing serves."""
        measured = [each.revision for each in service.candidates if each.phase is Phase.MEASURED]
        line = [each.revision for each in service.candidates if each.line == candidate.line]
        built = self.ports.catalog.revisions(service.name)
        return next((each for each in built if each.commit in measured and each.commit in line), None)

    def _incumbent(self, service: Service, candidate: Candidate) -> Revision | None:
        """What it would replace: its gates are held against that, and a patch has the version after that one's."""
        commit = replaced(service, candidate)
        try:
            return self.ports.catalog.revision(service.name, commit) if commit else None
        except UnknownReference:
            return None


def line_for(service: Service, candidate: Candidate, spec: Spec) -> int:
    """The line that a candidate is for, as its file says; raises BadServiceFile when it cannot be for that one."""
    newest = max((line.major for line in service.lines), default=spec.major)
    serves = spec.major in [line.major for line in service.lines]
    cause, allowed = "", candidate.line
    if candidate.base is not None:
        cause = "" if spec.major == candidate.line else f"a fix of {candidate.base} is for line {candidate.line}, too"
    elif not service.may_have(spec.major):
        ended = f"line {spec.major} has ended" if spec.major < newest else "a new major is the newest one and 1"
        cause, allowed = f"{ended}; the newest is {newest}", newest if spec.major < newest else newest + 1
    elif candidate.method is Method.PATCH and service.lines and not serves:
        cause, allowed = "a fix begins no major: that is an experiment", newest
    if cause:
        hint = f"set major = {allowed} in {{path}} and push"
        raise BadServiceFile(f"major {spec.major}: {cause}", hint=hint, path=f"{spec.folder}/{SERVICE_FILE}")
    return spec.major


def key_of(service: Service, candidate: Candidate) -> Key:
    """Which piece of work a candidate waits for."""
    return service.name, candidate.branch, candidate.revision, candidate.phase.value


def trouble(branch: str) -> str:
    """By which name what came between a branch and its work is kept among the troubles."""
    return f"work on {branch}"


def same_try(service: Service, candidate: Candidate) -> bool:
    """Whether the candidate still is the commit and phase that the work was begun for."""
    return any(
        (now.branch, now.revision, now.phase) == (candidate.branch, candidate.revision, candidate.phase)
        for now in service.candidates
    )
