"""This file runs one step to its end, and says what became of it: a function in a warm worker, a command by itself.

What must be left is put into the store before anything is said of it. A step gets copies of nothing: its inputs are
looked at before and after, and put back when it changed them (F23). Nothing of the service is imported here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from branchline.core import tracking
from branchline.core.closure import Closure, Project
from branchline.core.reuse import Line, Notice
from branchline.core.revision import StepRun
from branchline.core.spec import Step
from branchline.engine.budgeting import Share
from branchline.engine.fingerprinting import escaped, met, recorder
from branchline.engine.preparing import Prepared, bench_of, closed_environment, laid, working_copy
from branchline.errors import BranchlineError, InputChanged, StepFailed, StepTimedOut, UnsafeArtifact
from branchline.ports import Finished, Ports, Task

Stopped = Callable[[], bool]
Answer = Mapping[str, Any]
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h


@dataclass(slots=True)
class Results:
    """What the steps of one run have left so far: artifact ids by step, and where those lie that this run made."""

    ports: Ports
    prepared: Prepared
    project: Project
    home: Path
    artifacts: dict[str, str] = field(default_factory=dict)
    made: dict[str, Path] = field(default_factory=dict)

    def path(self, step: str) -> Path:
        """Where a step's result lies: what this run made, or else laid out of the store."""
        return self.made[step] if step in self.made else laid(self.ports, self.artifacts[step])

    def inputs(self, needs: Sequence[str]) -> dict[str, Path]:
        """The paths of what a step is given to read, results and data, by name."""
        data = self.prepared.data
        return {name: self.path(name) if name in self.artifacts else data[name]
                for name in needs if name in self.artifacts or name in data}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to do: a step, or one item of it; what its key is made of, and what it is given."""

    step: Step
    needs: tuple[str, ...]
    lines: tuple[Line, ...]
    key: str
    closure: Closure
    notices: tuple[Notice, ...] = ()
    why: str = ""
    item: str = ""
    value: str = ""  # the item as JSON
    number: int = 0  # of the item, from 0

    @property
    def name(self) -> str:
        """How it is called where it is told: `train`, or `train[north]`."""
        return f"{self.step.name}[{self.item}]" if self.item else self.step.name


def carried_out(
    results: Results, job: Job, share: Share, stopped: Stopped
) -> tuple[StepRun, Path, BranchlineError | None]:
    """Run a job, again while its failure may pass and it has tries left: what became of it, where its result lies,
    and what is to be raised of it.
    """
    begun = results.ports.clock.now()
    output, tries = results.home / "results" / job.name, job.step.retries
    do = called if job.step.call else commanded
    answer = do(results, job, output, share, stopped)
    while answer.get("transient") and tries and not stopped():
        for left in (output, results.home / "work" / job.name):
            shutil.rmtree(left, ignore_errors=True)
        (results.home / f"{job.name}.metrics").unlink(missing_ok=True)
        answer, tries = do(results, job, output, share, stopped), tries - 1
    spoilt = put_back(results, job, [Path(str(path)) for path in answer.get("changed") or ()])
    output = Path(answer.get("output") or output)
    try:
        artifact = results.ports.artifacts.put(output) if answer.get("ok") else ""
    except UnsafeArtifact as unsafe:
        artifact, answer = (
            "",
            {**answer, "ok": False, "error": f"{unsafe.message}: results are plain files and folders"},
        )
    run = recorded(results, job, answer, artifact, begun)
    return run, output, None if answer.get("ok") else failure(results, job, answer, spoilt)


def recorded(results: Results, job: Job, answer: Answer, artifact: str, begun: float) -> StepRun:
    """What is kept of a run that has ended."""
    facts, notices = met(results.project, job.step, answer.get("facts") or ())
    log, measures = results.home / f"{job.name}.log", results.home / f"{job.name}.metrics"
    notices = escaped(job.step, (*job.notices, *notices))
    return StepRun(
        job.step.name,
        "ran" if artifact else "failed",
        job.key,
        artifact,
        float(answer.get("seconds") or 0),
        str(answer.get("summary") or "") if artifact else str(answer.get("error") or "it failed"),
        job.why,
        item=job.item,
        at=begun,
        cpu=float(answer.get("cpu") or 0),
        peak=int(answer.get("peak") or 0),
        exit=str(answer.get("reason") or answer.get("exit") or ""),
        log=results.ports.artifacts.put(log) if log.exists() and log.stat().st_size else "",
        lines=job.lines,
        facts=facts,
        notices=notices,
        metrics=tracking.told(measures.read_bytes()) if measures.exists() else (),
        reusable=job.step.reuse != "never" and not any(each.refuses for each in notices),
    )


def failure(results: Results, job: Job, answer: Answer, spoilt: str) -> BranchlineError:
    """What to raise of a step that has failed, with the last lines that it printed."""
    log = results.home / f"{job.name}.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else ""
    kind: type[BranchlineError] = StepTimedOut if answer.get("timed_out") else StepFailed
    kind = InputChanged if answer.get("changed") else kind
    error, seconds = str(answer.get("error") or "it failed"), job.step.seconds
    return kind(error, step=job.name, service=results.prepared.spec.name, seconds=seconds, input=spoilt, log=tail)


def environment_of(results: Results, job: Job, share: Share) -> dict[str, str]:
    """The whole environment of a step: the closed one, and what its service file declares."""
    own = results.prepared.environments[job.step.environment]
    devices = ",".join(map(str, share.gpus))
    return {
        **closed_environment(results.prepared, results.home, own),
        "CUDA_VISIBLE_DEVICES": devices,
        "BRANCHLINE_METRICS": str(results.home / f"{job.name}.metrics"),
        **dict(job.step.env),
    }


def called(results: Results, job: Job, output: Path, share: Share, stopped: Stopped) -> Answer:
    """Call a function in a fork of the environment's warm worker."""
    prepared, step = results.prepared, job.step
    environment = environment_of(results, job, share)
    inputs = results.inputs(job.needs)
    parameters = {name: value for name, value in prepared.spec.parameters if name in job.needs}
    own = prepared.environments[step.environment]
    allowed = (*inputs.values(), results.home, own.python.parent.parent.parent)
    order = {
        "step": job.name,
        "call": step.call,
        "inputs": {name: str(path) for name, path in inputs.items() if name not in prepared.data},
        "data": {name: str(path) for name, path in inputs.items() if name in prepared.data},
        "parameters": {**parameters, **({step.for_each[0]: job.value} if job.item else {})},
        "output": str(output),
        "log": str(results.home / f"{job.name}.log"),
        "seconds": step.seconds,
        "cwd": str(prepared.folder),
        "env": environment,
        "record": recorder(results.project, prepared, job.closure, allowed),
        "metrics": environment["BRANCHLINE_METRICS"],
        "memory": step.memory,
        "cpus": share.cpus,
        "save": step.save,
    }
    return results.ports.workers.do(bench_of(prepared, own), order, stopped)


def commanded(results: Results, job: Job, output: Path, share: Share, stopped: Stopped) -> Answer:
    """Run a command in a copy of the service's files; what it must leave is its declared output."""
    prepared, step = results.prepared, job.step
    work = working_copy(prepared, results.home / "work" / job.name)
    inputs = results.inputs(job.needs)
    given = {**dict(prepared.spec.parameters), **inputs, **({step.for_each[0]: job.value} if job.item else {})}
    env = environment_of(results, job, share)
    env |= {f"BRANCHLINE_{name.upper()}": str(given[name]) for name in (*job.needs, *filter(None, [step.for_each[0]]))}
    task = Task(
        step.command, work, env, results.home / f"{job.name}.log", step.seconds,
        inputs=tuple(inputs.values()), memory=step.memory,
    )  # fmt: skip
    ended = results.ports.runner.run(task, stopped)
    answer: dict[str, Any] = {"seconds": ended.seconds, "cpu": ended.cpu, "peak": ended.peak, "reason": reason(ended)}
    answer |= {"exit": ended.exit, "timed_out": ended.timed_out, "changed": ended.changed}
    written = work / step.output
    if ended.changed:
        return answer | {"error": f"{ended.changed[0]} was changed"}
    if ended.timed_out:
        return answer | {"error": f"stopped after {step.seconds:g} s"}
    if ended.starved:
        return answer | {"error": f"out of memory: more than {step.memory / 1e6:g} MB"}
    if ended.exit:
        killed = " (killed; out of memory?)" if ended.exit == 137 else ""
        return answer | {"transient": ended.exit == TRY_AGAIN, "error": f"exit {ended.exit}{killed}"}
    if not step.output or not written.exists():
        return answer | {"error": f"it ended well but did not write {step.output or 'its output'}"}
    return answer | {"ok": True, "summary": step.output, "output": str(written)}


def reason(ended: Finished) -> str:
    """How a command ended, in the words of a worker's answer."""
    if ended.timed_out or ended.starved:
        return "timed out" if ended.timed_out else "out of memory"
    return f"killed by {ended.exit - 128}" if ended.exit > 128 else "ended"


def put_back(results: Results, job: Job, changed: Sequence[Path]) -> str:
    """Undo what a step did to its inputs (F23), and say to which; the store never was within its reach.

    What was laid out is laid out anew; what it left of a result of this very run is laid out of the store from now on.
    """
    spoilt = {name: path for name, path in results.inputs(job.needs).items()
              if any(each.is_relative_to(path) for each in changed)}  # fmt: skip
    (results.home / "work").mkdir(exist_ok=True)
    for name, path in spoilt.items():
        if results.made.pop(name, None):
            continue
        fresh = results.home / "work" / f"{name}-again"
        with suppress(BranchlineError):  # what cannot be laid out now is missed, and told, by whoever wants it next
            if name in results.artifacts:
                results.ports.artifacts.get(results.artifacts[name], fresh)
            else:
                results.ports.sources.lay(name, results.prepared.data_digests[name], fresh)
        with suppress(FileNotFoundError):
            path.rename(results.home / "work" / f"{name}-spoilt")
        if fresh.exists():
            fresh.rename(path)
    return ", ".join(sorted(spoilt))


def joined(results: Results, step: Step, artifacts: Sequence[str]) -> Path:
    """The results of a step's items as one result, which reads as a list of them."""
    folder = results.home / "results" / step.name
    (folder / "items").mkdir(parents=True)
    for number, artifact in enumerate(artifacts):
        shutil.copytree(laid(results.ports, artifact), folder / "items" / f"{number:06}")
    return folder


def nothing(results: Results, step: Step) -> Path:
    """The result of a step that is skipped."""
    folder = results.home / "results" / step.name
    folder.mkdir(parents=True)
    (folder / "value.json").write_text("null", encoding="utf-8")
    return folder


def compared(results: Results, job: Job, kept: str, fresh: StepRun) -> StepRun:
    """What a reused step's second run says of the first (F22): the same, close within its tolerance, or different.
    The first result stays.
    """
    if fresh.artifact == kept:
        return replace(fresh, state="same", summary="the same again")
    fractions = apart(value_in(results.ports, kept), value_in(results.ports, fresh.artifact))
    if fractions is not None and fractions <= job.step.tolerance:
        return replace(fresh, state="close", summary=f"numbers differ by {fractions:.2g} at most", artifact=kept)
    by = "" if fractions is None else f": numbers differ by {fractions:.2g}"
    return replace(fresh, state="differs", summary=f"another result than before{by}", artifact=kept)


def value_in(ports: Ports, artifact: str) -> object:
    """The JSON value of a result; the artifact's id where it has none."""
    path = laid(ports, artifact) / "value.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else artifact


def apart(one: object, other: object) -> float | None:
    """By how much the numbers of two values differ at most, relative to the larger; None where more does."""
    if isinstance(one, bool | str | None) or isinstance(other, bool | str | None):
        return 0.0 if one == other and type(one) is type(other) else None
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) / max(abs(one), abs(other), 1e-300) if one != other else 0.0
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = list(zip(one, other, strict=True))
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        pairs = [(one[key], other[key]) for key in one]
    else:
        return None
    found = [apart(*pair) for pair in pairs]
    return None if None in found else max((each for each in found if each is not None), default=0.0)
