"""This file builds a commit: environment, steps as a DAG, artifacts; what is unchanged is reused and marked `=`.

A step begins as soon as what it needs is there and the machine has room for it. Before it runs, its key is made of all
that is known, and a result that was kept under it is taken when every fact beside it still holds (`core.reuse`). What a
step left is in the store before it is recorded, and recorded before the build ends, however it ends.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from branchline.core import graph, names
from branchline.core.closure import value_of
from branchline.core.reuse import Fact, Line, Trace, guarding, held, key, one_line
from branchline.core.revision import StepRun, digest
from branchline.core.spec import Step
from branchline.core.tracking import Query
from branchline.engine.budgeting import Budget, machine
from branchline.engine.fingerprinting import code_lines, given_lines, project_of
from branchline.engine.preparing import Prepared
from branchline.engine.progress import Progress
from branchline.engine.stepping import Job, Results, carried_out, compared, joined, nothing
from branchline.errors import BranchlineError, StepFailed
from branchline.ports import Ports

Stopped = Callable[[], bool]
THREADS = 16  # that wait for steps; how many run at once says the budget
MACHINE = machine()
Done = tuple[StepRun, Path | None, BranchlineError | None]
PLAIN = re.compile(r"[\w.+-]{1,40}")  # an item that may name a file and be read at a glance
UNCHANGED = "nothing it depends on changed"
UNFINISHED = {"failed": "it failed the last time", "stopped": "it was stopped the last time"}
AT_ONCE = 0.25  # seconds in which what has ended is recorded together
_under_way: dict[str, int] = {}  # keys that builds of this daemon run, and how many others wait for each (F28)
_ended = threading.Condition()


@dataclass(slots=True)
class Build:
    """One run of a service's DAG: what it is made of, and what became of its steps so far.

    `again` names the steps that are run although they may be reused, to compare what they leave.
    """

    ports: Ports
    prepared: Prepared
    progress: Progress
    topic: str
    stopped: Stopped
    budget: Budget
    again: Collection[str]
    results: Results
    needs: Mapping[str, tuple[str, ...]]
    before: Callable[[], Mapping[tuple[str, str], StepRun]]  # by step and item, what is compared with: why it runs
    runs: list[StepRun] = field(default_factory=list)
    items: dict[str, list[StepRun | None]] = field(default_factory=dict)  # of steps that run for each of a list
    errors: list[BranchlineError] = field(default_factory=list)
    number: int = 0  # of the run in the catalog, once some of it is kept
    unkept: list[StepRun] = field(default_factory=list)
    kept_at: float = 0.0  # when something was recorded last
    keeping: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, *runs: StepRun, now: bool = False) -> None:
        """Record what became of steps, with others that end in the same moment unless somebody waits for it `now`;
        what was reused can wait.
        """
        with self.keeping:
            self.unkept += runs
            at = self.ports.clock.monotonic()
            ran = any(run.state != "reused" for run in runs)
            if self.unkept and (now or (ran and at - self.kept_at >= AT_ONCE)):
                prepared, self.kept_at = self.prepared, at
                self.number = self.ports.catalog.keep_run(prepared.spec.name, prepared.commit, self.unkept, self.number)
                self.unkept.clear()

    def note(self, mark: str, name: str, text: str = "", seconds: float | None = None) -> None:
        """Tell whoever watches."""
        self.progress.note(self.prepared.spec.name, self.topic, mark, name, text, seconds)


def build(
    ports: Ports,
    prepared: Prepared,
    progress: Progress,
    topic: str,
    stopped: Stopped = lambda: False,
    *,
    keep_going: bool = False,
    again: Collection[str] = (),
    budget: Budget = MACHINE,
) -> tuple[StepRun, ...]:
    """Run what must run and reuse the rest; returns what became of every step, kept in the catalog as well.

    Raises StepFailed, StepTimedOut or InputChanged with the last lines of the first step that failed, after keeping
    what was finished; `keep_going` runs all that does not need it, too. Raises DoesNotFit and BadDag before anything.
    """
    this = opened(ports, prepared, progress, topic, stopped, budget, again)
    home = this.results.home
    home.mkdir(parents=True)
    note_environment(this)
    try:
        run_all(this, keep_going)
        if keep_going and this.errors and not stopped():
            tell_unrun(this)
    finally:
        this.keep(now=True)
        shutil.rmtree(home / "work", ignore_errors=True)
    if this.errors:
        raise this.errors[0]
    return tuple(run for run in this.runs if not run.item)


def opened(
    ports: Ports, prepared: Prepared, progress: Progress, topic: str, stopped: Stopped, budget: Budget,
    again: Collection[str],
) -> Build:  # fmt: skip
    """A build before its first step; raises BadDag, and DoesNotFit for what this machine cannot give at all."""
    needs = graph.needs(prepared.spec, modules(prepared.folder))
    for step in prepared.spec.steps:
        budget.holds(step)
    results = Results(ports, prepared, project_of(ports, prepared), ports.state / "runs" / uuid.uuid4().hex[:12])
    return Build(ports, prepared, progress, topic, stopped, budget, again, results, needs, released(ports, prepared))


@lru_cache(maxsize=16)
def modules(folder: Path) -> Mapping[str, str]:
    """The text of the Python modules in a service's folder of a commit, which never changes, by module name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8", errors="replace")
    return found


def released(ports: Ports, prepared: Prepared) -> Callable[[], Mapping[tuple[str, str], StepRun]]:
    """What became of the steps of the newest release but this very commit; before there is one, of the newest run.

    Which one that is, is settled now; it is read when it is asked for.
    """
    service, catalog = prepared.spec.name, ports.catalog
    commits = [each.commit for each in catalog.revisions(service) if each.final and each.commit != prepared.commit]
    newest = [] if commits else [run.number for run in catalog.runs(Query(service=service, limit=1))]

    @cache
    def read() -> Mapping[tuple[str, str], StepRun]:
        runs = catalog.run(service, commits[0]) if commits else catalog.numbered(newest[0]).steps if newest else ()
        return {(run.step, run.item): run for run in runs}

    return read


def note_environment(this: Build) -> None:
    """The first line of a run: which locked environment it uses."""
    environment = this.prepared.environment
    text = f"lock {environment.digest[:4]}  {names.counted(environment.packages, 'package')}"
    this.note("=" if environment.reused else "ok", "env", text)


# ---- in which order


def run_all(this: Build, keep_going: bool) -> None:
    """Begin every step as soon as all that it comes after is there, until none is left that can begin."""
    steps = {step.name: step for step in this.prepared.spec.steps}
    order = TopologicalSorter(graph.after(this.prepared.spec, this.needs))
    order.prepare()
    waiting: dict[Future[Done], Job] = {}
    with ThreadPoolExecutor(THREADS, thread_name_prefix="step") as pool:
        while order.is_active():
            may = not this.errors or (keep_going and not this.stopped())
            ready = order.get_ready() if may else ()
            for job, trace in offered(this, [job for name in ready for job in begun(this, steps[name])]):
                if trace is None or job.step.name in this.again:
                    waiting[pool.submit(worked, this, job, trace)] = job
                else:
                    settle(this, job, (kept(this, reused(this, job, trace)), None, None))
            order.done(*(name for name in ready if name in this.results.artifacts))
            if not waiting and not (ready and may):
                break
            for future in next_ended(this, waiting) if waiting else ():
                job = waiting.pop(future)
                settle(this, job, future.result())
                if job.step.name in this.results.artifacts:
                    order.done(job.step.name)


def tell_unrun(this: Build) -> None:
    """Say which steps could not be run because of what failed."""
    failed = {run.step for run in this.runs if run.state == "failed"}
    for step in this.prepared.spec.steps:
        if step.name not in this.results.artifacts and step.name not in failed:
            this.note("..", step.name, "not run: it needs what failed")


def next_ended(this: Build, waiting: Collection[Future[Done]]) -> Collection[Future[Done]]:
    """Those that have ended, as soon as one has; what ended before is recorded meanwhile."""
    ended = wait(waiting, AT_ONCE, return_when=FIRST_COMPLETED).done
    if not ended:
        this.keep(now=True)
        ended = wait(waiting, return_when=FIRST_COMPLETED).done
    return ended


def begun(this: Build, step: Step) -> list[Job]:
    """What there is to do for a step whose needs are there."""
    try:
        wanted, items = asked(this, step)
    except ValueError as error:
        this.errors.append(StepFailed(str(error), step=step.name, service=this.prepared.spec.name))
        return []
    if not wanted:
        finish(this, step, nothing(this.results, step), "skipped", f"{step.when} is not true")
        return []
    if items is not None:
        this.items[step.name] = [None] * len(items)
    if items == []:
        finish(this, step, joined(this.results, step, ()), "ran", "no items")
    return jobs(this, step, items)


def asked(this: Build, step: Step) -> tuple[bool, list[Any] | None]:
    """Whether a step is to run, and the items that it runs for (None: it has no such); raises ValueError in words."""
    try:
        if step.when and not given(this, step.when):
            return False, None
        return True, listed(given(this, step.for_each[1])) if step.for_each[0] else None
    except ValueError as error:
        raise ValueError(f"{step.for_each[1] or step.when}: {error}") from error


def jobs(this: Build, step: Step, items: Sequence[Any] | None) -> list[Job]:
    """The jobs of a step, one for each item if it has such."""
    code, notices, closure = code_lines(this.results.project, this.prepared, step)
    needs = this.needs[step.name]
    lines = (*code, *given_lines(this.prepared, step, needs, this.results.artifacts))
    if items is None:
        return [Job(step, needs, lines, key(lines), closure, notices)]
    each = [(*lines, Line("item", digest(item))) for item in items]
    return [
        Job(step, needs, own, key(own), closure, notices, "", name, json.dumps(item), number)
        for number, (own, name, item) in enumerate(zip(each, labels(items), items, strict=True))
    ]


def given(this: Build, name: str) -> Any:
    """The JSON of a step's result or of a parameter; raises ValueError where it is none."""
    if name not in this.results.artifacts:
        return json.loads(dict(this.prepared.spec.parameters)[name])
    path = this.results.path(name) / "value.json"
    if not path.is_file():
        raise ValueError("it left no JSON")
    return json.loads(path.read_text(encoding="utf-8"))


def listed(value: Any) -> list[Any]:
    """A value that is a list; raises ValueError in words when it is none."""
    if not isinstance(value, list):
        raise ValueError(f"it is no list but {json.dumps(value)[:40]}")
    return value


def labels(items: Sequence[Any]) -> list[str]:
    """How items are called: by themselves where that is short, plain and said once, else by their numbers."""
    texts = [str(item) if isinstance(item, str | int | float) else "" for item in items]
    return [text if PLAIN.fullmatch(text) and texts.count(text) == 1 else f"#{number}"
            for number, text in enumerate(texts)]  # fmt: skip


def offered(this: Build, wanted: Sequence[Job]) -> Iterator[tuple[Job, Trace | None]]:
    """Jobs, each with the trace that may be reused instead, or with why there is none."""
    known = this.ports.catalog.traces([job.key for job in wanted if job.step.reuse != "never"])
    for job in wanted:
        trace, broken = usable(this, known.get(job.key, ()))
        yield replace(job, why=UNCHANGED if trace else reason(this, job, broken)), trace


def reason(this: Build, job: Job, broken: Fact | None) -> str:
    """Why a job runs, against its run before, in one line."""
    if job.step.reuse == "never":
        return 'its service file says: reuse = "never"'
    before = this.before().get((job.step.name, job.item))
    if before is not None and before.key == job.key and before.state in UNFINISHED:
        return UNFINISHED[before.state]
    if before is None or before.key != job.key or broken:
        return one_line(before.lines if before else None, job.lines, broken)
    refusing = next((each for each in before.notices if each.refuses), None)
    return f"{refusing.code}: {refusing.text}" if refusing else "its result is in the store no more"


def found(this: Build, name: str) -> Trace | None:
    """What may be reused under a key now."""
    return usable(this, this.ports.catalog.traces([name]).get(name, ()))[0]


def usable(this: Build, traces: Sequence[Trace]) -> tuple[Trace | None, Fact | None]:
    """The first trace that still holds and whose artifact is there, else a fact that has changed."""
    broken = None
    for trace in traces:
        changed = held(trace, lambda kind, of: value_of(this.results.project, kind, of))
        if changed is None and this.ports.artifacts.has(trace.artifact):
            return trace, None
        broken = broken or changed
    return None, broken


# ---- one job


def worked(this: Build, job: Job, trace: Trace | None) -> Done:
    """Run a job, unless another build has just left what it would leave."""
    with alone(job.key, this.stopped), this.budget.given(job.step, this.stopped) as share:
        if this.stopped():
            ended = StepFailed("stopped", step=job.name, service=this.prepared.spec.name)
            return StepRun(job.step.name, "stopped", job.key), None, ended  # before it began: nothing to tell
        fresh = None if trace or job.step.reuse == "never" else found(this, job.key)
        if fresh:
            return kept(this, reused(this, job, fresh)), None, None
        run, path, error = carried_out(this.results, job, share, this.stopped)
        if error and this.stopped():  # which says nothing of the step
            return kept(this, replace(run, state="stopped", summary="stopped", exit="stopped")), None, error
        if trace and error is None:
            return kept(this, compared(this.results, job, trace.artifact, run)), None, None
        return kept(this, run), path, error


def kept(this: Build, run: StepRun) -> StepRun:
    """The run, recorded."""
    this.keep(run, now=_under_way.get(run.key, 0) > 0)
    return run


@contextmanager
def alone(name: str, stopped: Stopped) -> Iterator[None]:
    """Be the only one of this daemon who runs what has this key; who is stopped waits no longer, and runs nothing."""
    with _ended:
        while name in _under_way and not stopped():
            _under_way[name] += 1
            _ended.wait(AT_ONCE)
        mine = name not in _under_way
        if mine:
            _under_way[name] = 0
    try:
        yield
    finally:
        with _ended:
            if mine:
                del _under_way[name]
            _ended.notify_all()


def reused(this: Build, job: Job, trace: Trace) -> StepRun:
    """What is recorded of a step that did not have to run."""
    step, now = job.step.name, this.ports.clock.now()
    return StepRun(step, "reused", job.key, trace.artifact, why=UNCHANGED, item=job.item, at=now, notices=job.notices)


def settle(this: Build, job: Job, done: Done) -> None:
    """Take in what became of a job."""
    run, path, error = done
    if error is not None and this.stopped():
        this.errors.append(error)
        return  # stopped work says nothing of the step
    this.runs.append(run)
    tell(this, job, run)
    if error is not None:
        this.errors.append(error)
        return
    if not job.item:
        this.results.artifacts[job.step.name] = run.artifact
        if path:
            this.results.made[job.step.name] = path
        return
    mine = this.items[job.step.name]
    mine[job.number] = run
    ended = [each for each in mine if each is not None]
    if len(ended) == len(mine):
        join(this, job.step, ended)


def tell(this: Build, job: Job, run: StepRun) -> None:
    """Say what became of a job, and what a person should know of its reuse."""
    if run.state == "reused":
        this.note("=", job.name, "unchanged")
        return
    this.note("no" if run.state in ("failed", "differs") else "ok", job.name, run.summary, run.seconds)
    for notice in run.notices:
        always = ", so it runs every time" if notice.refuses else ""
        this.note("..", job.name, f"{notice.code}: {notice.text}{always}")
    if run.state == "ran" and run.reusable:
        before = this.before().get((job.step.name, job.item))
        facts = [fact for fact in run.facts if fact.kind != "module" or fact.name not in job.closure.imported]
        if met := guarding(job.step.name, facts, before.facts if before else ()):
            this.note("..", job.name, f"{met.code}: {met.text}")


def joint_key(artifacts: Sequence[str]) -> str:
    """The key of what joins the results of a step's items."""
    return key([Line(f"item {number}", each) for number, each in enumerate(artifacts)])


def join(this: Build, step: Step, items: Sequence[StepRun]) -> None:
    """Make one result of those of a step's items; the same ones make the same result, and are not joined again."""
    name = joint_key([each.artifact for each in items])
    trace = found(this, name)
    differs = [each.item for each in items if each.state == "differs"]
    if trace:
        why = f"{', '.join(differs)} left something else" if differs else "none of its items changed"
        run = StepRun(step.name, "differs" if differs else "reused", name, trace.artifact, why=why)
        this.runs.append(kept(this, run))
        this.results.artifacts[step.name] = run.artifact
        this.note("=", step.name, f"{len(items)} items")
        return
    finish(
        this, step, joined(this.results, step, [each.artifact for each in items]), "ran", f"{len(items)} items", name
    )


def finish(this: Build, step: Step, path: Path, state: str, summary: str, name: str = "") -> None:
    """Keep a result that no code of the service made: what joins others, or nothing."""
    run = StepRun(step.name, state, name, this.ports.artifacts.put(path), summary=summary, at=this.ports.clock.now())
    this.runs.append(kept(this, run))
    this.results.artifacts[step.name], this.results.made[step.name] = run.artifact, path
    this.note("=" if state == "skipped" else "ok", step.name, f"{state}: {summary}" if state == "skipped" else summary)
