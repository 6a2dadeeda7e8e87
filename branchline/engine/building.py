"""This file builds a commit: environment, steps as a DAG, artifacts; what is unchanged is reused and marked `=`.

A step's key holds everything its result may depend on: the tree of the service, the lock, parameters, pinned data,
the keys of the steps it reads. Python steps run in one worker of the service's own environment, a fresh fork each;
commands run one by one. Nothing of the service is imported here.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from branchline.core import graph, names
from branchline.core.revision import Revision, StepRun, step_key
from branchline.core.spec import Step
from branchline.engine.preparing import Prepared, closed_environment, laid, working_copy
from branchline.engine.progress import Progress
from branchline.errors import BranchlineError, InputChanged, StepFailed, StepTimedOut, UnsafeArtifact
from branchline.ports import Ports, Task

Stopped = Callable[[], bool]
SHOWN = 3  # changed files that are named


@dataclass(slots=True)
class Build:
    """One run of a service's DAG: where it works, what it needs, and the paths of results so far."""

    ports: Ports
    prepared: Prepared
    progress: Progress
    topic: str
    home: Path
    needs: dict[str, tuple[str, ...]]
    before: Revision | None  # what was released last: why a step runs is told by what changed since
    keys: dict[str, str] = field(default_factory=dict)
    results: dict[str, Path] = field(default_factory=dict)
    runs: list[StepRun] = field(default_factory=list)

    def note(self, mark: str, name: str, text: str = "", seconds: float | None = None) -> None:
        """Tell whoever watches."""
        self.progress.note(self.prepared.spec.name, self.topic, mark, name, text, seconds)


def build(
    ports: Ports, prepared: Prepared, progress: Progress, topic: str, stopped: Stopped = lambda: False
) -> tuple[StepRun, ...]:
    """Run what must run and reuse the rest; returns what became of every step, kept in the catalog as well.

    Raises StepFailed or StepTimedOut with the last lines of the step, after keeping what was finished before it.
    """
    home = ports.state / "runs" / uuid.uuid4().hex[:12]
    home.mkdir(parents=True)
    order = graph.needs(prepared.spec, modules(prepared.folder))
    this = Build(ports, prepared, progress, topic, home, order, released(ports, prepared))
    note_environment(this)
    try:
        for batch in batches(this):
            if batch[0].call:
                run_calls(this, batch, stopped)
            else:
                run_command(this, batch[0], stopped)
    finally:
        ports.catalog.keep_run(prepared.spec.name, prepared.commit, this.runs)
        shutil.rmtree(home / "work", ignore_errors=True)
    return tuple(this.runs)


def modules(folder: Path) -> dict[str, str]:
    """The text of the service's own Python modules, by module name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path.read_text(encoding="utf-8", errors="replace")
    return found


def note_environment(this: Build) -> None:
    """The first line of a run: which locked environment it uses."""
    environment = this.prepared.environment
    text = f"lock {environment.digest[:4]}  {names.counted(environment.packages, 'package')}"
    this.note("=" if environment.reused else "ok", "env", text)


def batches(this: Build) -> Iterator[list[Step]]:
    """What has to run, in order: neighbouring Python steps together, commands alone. Reused steps are settled on the
    way.
    """
    steps = {step.name: step for step in this.prepared.spec.steps}
    waiting: list[Step] = []
    for name in graph.order(this.prepared.spec, this.needs):
        step = steps[name]
        this.keys[name] = key_of(this, step)
        artifact = this.ports.catalog.artifact(this.keys[name])
        if artifact and this.ports.artifacts.has(artifact):
            this.results[name] = laid(this.ports, artifact)
            this.runs.append(StepRun(name, "reused", this.keys[name], artifact, why="nothing it depends on changed"))
            this.note("=", name, "unchanged")
        elif step.call:
            waiting.append(step)
        else:
            if waiting:
                yield waiting
                waiting = []
            yield [step]
    if waiting:
        yield waiting


def released(ports: Ports, prepared: Prepared) -> Revision | None:
    """The newest revision with a final version, but this very commit."""
    known = ports.catalog.revisions(prepared.spec.name)
    return next((each for each in known if "-" not in each.version and each.commit != prepared.commit), None)


def why_it_ran(this: Build, step: Step) -> str:
    """What has changed of all that its result depends on, in words."""
    before, prepared, needs = this.before, this.prepared, set(this.needs[step.name])
    if before is None:
        return "nothing of it has been released yet"
    changed = []
    if before.tree != prepared.tree:
        paths = this.ports.repository.changed(before.commit, prepared.commit, prepared.spec.closure)
        changed += [*paths[:SHOWN], *([f"{len(paths) - SHOWN} more files"] if len(paths) > SHOWN else [])]
    changed += ["its environment"] if before.environment != prepared.environment.digest else []
    changed += ["Branchline's sdk"] if before.sdk != prepared.sdk else []
    data = dict(before.data)
    changed += [f"data {name}" for name, digest in prepared.data_digests.items()
                if name in needs and data.get(name) != digest]  # fmt: skip
    changed += [f"the result of {run.step}" for run in this.runs if run.state == "ran" and run.step in needs]
    words = ", ".join(changed)
    return f"changed since {before.version}: {words}" if words else "its result is in the store no more"


def key_of(this: Build, step: Step) -> str:
    """The key of a step's result (3.03): code and data and everything between."""
    spec = this.prepared.spec
    needs = set(this.needs[step.name])
    text = step.call or json.dumps([step.command, step.output])
    return step_key(
        f"{step.name}={text}",
        this.prepared.tree,
        this.prepared.environment.digest,
        {name: value for name, value in spec.parameters if name in needs},
        {name: digest for name, digest in this.prepared.data_digests.items() if name in needs},
        {name: this.keys[name] for name in sorted(needs) if name in this.keys},
        this.prepared.sdk,
    )


def run_calls(this: Build, steps: list[Step], stopped: Stopped) -> None:
    """Run Python steps in one worker, results coming in as lines of a file while it works."""
    answers = this.home / "answers.jsonl"
    answers.unlink(missing_ok=True)
    orders = [order_of(this, step) for step in steps]
    told: list[dict[str, object]] = []

    def look() -> bool:
        for answer in read_lines(answers)[len(told) :]:
            told.append(answer)
            settle(this, steps[len(told) - 1], answer)
        return stopped()

    task = Task(
        argv=(str(this.prepared.environment.python), "-P", "-m", "branchline.sdk.run", str(answers)),
        cwd=this.prepared.folder,
        env=closed_environment(this.prepared, this.home),
        log=this.home / "worker.log",
        seconds=sum(step.seconds for step in steps) + 60,
        stdin="".join(json.dumps(order) + "\n" for order in orders),
        inputs=tuple(dict.fromkeys(path for step in steps for path in kept_inputs(this, step).values())),
    )
    finished = this.ports.runner.run(task, look)
    look()
    if len(told) < len(steps):
        step = steps[len(told)]
        put_back(this, step, finished.changed)
        this.runs[:] = [run for run in this.runs if run.state != "ran" or run.step not in this.needs[step.name]]
        raise StepFailed(
            f"the worker ended with exit {finished.exit}",
            step=step.name,
            service=this.prepared.spec.name,
            log=finished.tail,
        )


def order_of(this: Build, step: Step) -> dict[str, object]:
    """What the worker is asked to do for a step."""
    spec, needs = this.prepared.spec, this.needs[step.name]
    this.results.setdefault(step.name, this.home / "results" / step.name)
    return {
        "step": step.name,
        "call": step.call,
        "inputs": {name: str(this.results[name]) for name in needs if name in this.keys and name != step.name},
        "data": {name: str(path) for name, path in this.prepared.data.items() if name in needs},
        "parameters": {name: value for name, value in spec.parameters if name in needs},
        "output": str(this.results[step.name]),
        "log": str(this.home / f"{step.name}.log"),
        "seconds": step.seconds,
    }


def settle(this: Build, step: Step, answer: dict[str, object]) -> None:
    """Keep one finished step, or raise what it failed with."""
    seconds = float(str(answer.get("seconds") or 0))
    service = this.prepared.spec.name
    changed = [Path(str(path)) for path in answer.get("changed") or ()]  # type: ignore[attr-defined]
    spoilt = put_back(this, step, changed)
    try:
        artifact = this.ports.artifacts.put(this.results[step.name]) if answer.get("ok") else ""
    except UnsafeArtifact as unsafe:
        answer = {"error": f"{unsafe.message}: results are plain files and folders"}
    why = why_it_ran(this, step)
    if not answer.get("ok"):
        error = str(answer.get("error") or "it failed")
        this.runs.append(StepRun(step.name, "failed", this.keys[step.name], "", seconds, error, why))
        this.note("no", step.name, error, seconds)
        kind: type[BranchlineError] = StepTimedOut if answer.get("timed_out") else StepFailed
        kind = InputChanged if changed else kind
        log = this.home / f"{step.name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
        raise kind(error, step=step.name, service=service, seconds=step.seconds, input=spoilt, log=tail)
    summary = str(answer.get("summary") or "")
    this.runs.append(StepRun(step.name, "ran", this.keys[step.name], artifact, seconds, summary, why))
    this.note("ok", step.name, summary, seconds)


def run_command(this: Build, step: Step, stopped: Stopped) -> None:
    """Run a command step in a copy of the service's files; what it must leave is its declared output."""
    work = working_copy(this.prepared, this.home / "work" / step.name)
    env = closed_environment(this.prepared, this.home)
    given = dict(this.prepared.spec.parameters) | dict(this.prepared.data) | this.results
    for name in step.inputs:
        env[f"BRANCHLINE_{name.upper().replace('-', '_')}"] = str(given[name])
    log = this.home / f"{step.name}.log"
    inputs = tuple(inputs_of(this, step).values())
    finished = this.ports.runner.run(Task(step.command, work, env, log, step.seconds, inputs=inputs), stopped)
    output = work / step.output
    if finished.changed:
        answer = {"ok": False, "changed": finished.changed, "error": f"{finished.changed[0]} was changed"}
    elif finished.timed_out:
        answer = {"ok": False, "timed_out": True, "error": f"stopped after {step.seconds:g} s"}
    elif finished.exit:
        answer = {
            "ok": False,
            "error": f"exit {finished.exit}" + (" (killed; out of memory?)" if finished.exit == 137 else ""),
        }
    elif not step.output or not output.exists():
        answer = {"ok": False, "error": f"it ended well but did not write {step.output or 'its output'}"}
    else:
        this.results[step.name] = output
        answer = {"ok": True, "summary": step.output}
    settle(this, step, {**answer, "seconds": finished.seconds})


def inputs_of(this: Build, step: Step) -> dict[str, Path]:
    """What a step is given to read: data and results of other steps, by name."""
    given = {**this.prepared.data, **{name: path for name, path in this.results.items() if name != step.name}}
    return {name: given[name] for name in this.needs[step.name] if name in given}


def kept_inputs(this: Build, step: Step) -> dict[str, Path]:
    """Those of them that are shared with other builds and with what serves, for they were laid out of the store."""
    return {name: path for name, path in inputs_of(this, step).items() if not path.is_relative_to(this.home)}


def put_back(this: Build, step: Step, changed: Sequence[Path]) -> str:
    """Undo what a step did to its inputs (F23), and say to which; the store never was within its reach.

    What was laid out is laid out anew; what it left of a result of this very run is kept for nobody.
    """
    spoilt = {n: p for n, p in inputs_of(this, step).items() if any(each.is_relative_to(p) for each in changed)}
    (this.home / "work").mkdir(exist_ok=True)
    this.runs[:] = [run for run in this.runs if run.step not in spoilt or run.state != "ran"]
    for name, path in spoilt.items():
        fresh, digest = this.home / "work" / f"{name}-again", this.prepared.data_digests.get(name)
        if path.is_relative_to(this.home):
            continue
        with suppress(BranchlineError):  # what cannot be laid out now is missed, and told, by whoever wants it next
            if digest:
                this.ports.sources.lay(name, digest, fresh)
            else:
                this.ports.artifacts.get(path.name, fresh)
        with suppress(FileNotFoundError):
            path.rename(this.home / "work" / f"{name}-spoilt")
        if fresh.exists():
            fresh.rename(path)
    return ", ".join(sorted(spoilt))


def read_lines(path: Path) -> list[dict[str, object]]:
    """The whole JSON lines of a file that is being written."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text.split("\n")[:-1] if line]
