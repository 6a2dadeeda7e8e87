"""This file evaluates: all gates of one promotion attempt, against a staging group that is the revision as it would
serve.

Staging is the same code, environment, command and Envoy shape as production (3.15). Every gate leaves one line, its
numbers and its log; one that ran nothing fails, one that raised fails with what it said.
"""

from __future__ import annotations

import json
import shutil
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from branchline.core import gates as judged
from branchline.core.graph import needed_by
from branchline.core.planning import lasting
from branchline.core.revision import GateResult, Result, Revision
from branchline.core.service import Method
from branchline.core.spec import Gate, Spec
from branchline.engine.building import modules
from branchline.engine.forecasting import Wish, forecast
from branchline.engine.preparing import (
    EXPERIMENT_LOG,
    SERVICE_FILE,
    Prepared,
    bench_of,
    closed_environment,
    laid,
    working_copy,
)
from branchline.engine.profiling import data_gates, only_data
from branchline.engine.progress import Progress
from branchline.errors import NothingToDo
from branchline.ports import Finished, Ports, Task

Stopped = Callable[[], bool]
TAIL = 20


@dataclass(slots=True)
class Evaluation:
    """One evaluation: what is judged, against whom, and where it runs. `staging` is the revision's own URL.

    `benchmark` is what its numbers are compared with while there is no incumbent.
    """

    ports: Ports
    prepared: Prepared
    revision: Revision
    incumbent: Revision | None
    staging: str
    progress: Progress
    topic: str
    home: Path
    stopped: Stopped = lambda: False
    benchmark: Revision | None = None

    @property
    def yardstick(self) -> Revision | None:
        """Whose numbers its own are compared with."""
        return self.incumbent or self.benchmark


def evaluate(
    ports: Ports,
    prepared: Prepared,
    revision: Revision,
    incumbent: Revision | None,
    method: Method,
    staging: str,
    progress: Progress,
    topic: str,
    stopped: Stopped = lambda: False,
    benchmark: Revision | None = None,
) -> tuple[GateResult, ...]:
    """Run every gate, the built-in ones first, and keep what they found; later gates run although an earlier one
    failed.
    """
    home = ports.state / "runs" / uuid.uuid4().hex[:12]
    home.mkdir(parents=True)
    this = Evaluation(ports, prepared, revision, incumbent, staging, progress, topic, home, stopped, benchmark)
    results: list[GateResult] = []

    def keep(result: GateResult) -> None:
        results.append(result)
        mark = {Result.PASS: "ok", Result.FAIL: "no", Result.INCONCLUSIVE: "??"}[result.result]
        text = "\n".join([result.summary, *said(home / f"{result.gate}.log")]) if mark == "no" else result.summary
        progress.note(prepared.spec.name, topic, mark, f"gate {result.gate}", text, result.seconds or None)

    for result in built_in(this, method):
        keep(result)
    for gate in prepared.spec.gates:
        if stopped():
            break
        keep(run_gate(this, gate))
    if not prepared.spec.gates:
        keep(GateResult("gates", Result.FAIL, "no gate is declared: nothing was checked"))
    ports.catalog.keep_gates(prepared.spec.name, prepared.commit, results)
    return tuple(results)


def said(log: Path) -> list[str]:
    """The last lines that a gate printed, for whoever watches it fail."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return [f"| {line}" for line in lines[-TAIL:]]


def built_in(this: Evaluation, method: Method) -> list[GateResult]:
    """The gates that nobody declares: data and schema against the incumbent's; of an A/B test its plan and its log.

    What changes nothing but the data needs no log: its lock says all that is tried.
    """
    spec = this.prepared.spec
    found = data_gates(this.ports, spec, this.prepared.data_digests, this.incumbent)
    if this.incumbent is not None and this.incumbent.schema:
        path = f"{spec.folder}/{SERVICE_FILE}"
        found.append(judged.compatible(this.revision.schema, this.incumbent.schema, spec.major, path))
    if method is not Method.AB_TEST:
        return found
    if this.incumbent is not None and only_data(this.ports, spec, this.incumbent.commit, this.revision.commit):
        return [*found, in_time(this.ports, spec)]
    log = this.prepared.folder / EXPERIMENT_LOG
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else None
    return [*found, in_time(this.ports, spec), judged.logged(text)]


def in_time(ports: Ports, spec: Spec) -> GateResult:
    """The gate `test-plan`: what is judged is declared, and with the traffic there was it would be over in time."""
    found = judged.planned(spec.metric, None)
    if found.result is not Result.PASS:
        return found
    try:
        told = forecast(ports, spec, Wish())
    except NothingToDo:  # nothing is known of how much the values spread
        return found
    if not told["per_day"]:
        return found
    if told["fits"]:
        return replace(found, summary=f"{found.summary}; {told['text']}")
    limit = lasting(told["limit_days"])
    return replace(found, result=Result.FAIL, summary=f"{told['text']}, and max_duration is {limit}")


def run_gate(this: Evaluation, gate: Gate) -> GateResult:
    """Run one gate and say what it found."""
    begun = this.ports.clock.monotonic()
    run = {"call": run_call, "pytest": run_pytest, "command": run_command, "compare": run_compare, "load": run_load}[
        gate.kind
    ]
    result = run(this, gate)
    log = this.home / f"{gate.name}.log"
    kept = this.ports.artifacts.put(log) if log.exists() and log.stat().st_size else ""
    return replace(result, seconds=round(this.ports.clock.monotonic() - begun, 3), log=kept)


def results_of(ports: Ports, revision: Revision | None) -> dict[str, str]:
    """Step -> the folder with its result, laid out."""
    return {step: str(laid(ports, artifact)) for step, artifact in revision.artifacts} if revision else {}


def run_call(this: Evaluation, gate: Gate) -> GateResult:
    """A function of the service: its parameters name results, data, parameters, `incumbent` or `staging`."""
    try:
        needs = needed_by(gate.call, modules(this.prepared.folder))
    except ValueError as error:
        return GateResult(gate.name, Result.FAIL, str(error))
    mine = results_of(this.ports, this.revision)
    order = {
        "step": gate.name,
        "call": gate.call,
        "gate": True,
        "inputs": {name: path for name, path in mine.items() if name in needs},
        "incumbent": results_of(this.ports, this.yardstick) if this.yardstick else None,
        "staging": this.staging,
        "data": {name: str(path) for name, path in this.prepared.data.items() if name in needs},
        "parameters": {name: value for name, value in this.prepared.spec.parameters if name in needs},
        "output": str(this.home / "results" / gate.name),
        "log": str(this.home / f"{gate.name}.log"),
        "seconds": gate.seconds,
        "cwd": str(this.prepared.folder),
        "env": environment_of(this),
    }
    answer = this.ports.workers.do(bench_of(this.prepared, this.prepared.environment), order, this.stopped)
    if not answer.get("ok"):
        return GateResult(gate.name, Result.FAIL, str(answer.get("error") or "it failed"))
    return judged.answered(gate, answer.get("value"))


def run_pytest(this: Evaluation, gate: Gate) -> GateResult:
    """The service's own tests, in its own environment, from a copy of its files; counted from pytest's JUnit file."""
    work, report = this.home / "work" / gate.name, this.home / f"{gate.name}.xml"
    folder = working_copy(this.prepared, work)
    (work / "pytest.ini").touch()  # where pytest ends to look for settings and conftests: above are a person's files
    python = str(this.prepared.environment.python)
    argv = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", gate.path)
    finished = run_task(this, gate, argv, folder)
    shutil.rmtree(work, ignore_errors=True)
    if finished.timed_out:
        return GateResult(gate.name, Result.FAIL, f"stopped after {gate.seconds:g} s")
    counts = counted(report)
    if counts is None:
        return GateResult(gate.name, Result.FAIL, f"pytest did not run (exit {finished.exit}): {last(finished)}")
    return judged.tested(gate, counts, finished.exit)


def counted(report: Path) -> dict[str, int] | None:
    """The counts of a JUnit file: tests, failures, errors, skipped; None when there is none that was finished."""
    try:
        root = ElementTree.parse(report).getroot()
    except (FileNotFoundError, ElementTree.ParseError):
        return None
    suites = [root] if root.tag == "testsuite" else list(root)
    return {
        name: sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    }


def run_command(this: Evaluation, gate: Gate) -> GateResult:
    """Any command: 0 passes, 75 is inconclusive (try again), everything else fails."""
    work = this.home / "work" / gate.name
    finished = run_task(this, gate, gate.command, working_copy(this.prepared, work))
    shutil.rmtree(work, ignore_errors=True)
    if finished.timed_out:
        return GateResult(gate.name, Result.FAIL, f"stopped after {gate.seconds:g} s")
    result = {0: Result.PASS, 75: Result.INCONCLUSIVE}.get(finished.exit, Result.FAIL)
    return GateResult(
        gate.name, result, last(finished) if finished.exit else "exit 0", (("exit", float(finished.exit)),)
    )


def run_compare(this: Evaluation, gate: Gate) -> GateResult:
    """A number of a step's result against its limits and the incumbent's, or else the benchmark's."""
    own = number_at(results_of(this.ports, this.revision), gate.value)
    other = number_at(results_of(this.ports, this.yardstick), gate.value)
    return judged.compared(gate, own, other, "incumbent" if this.incumbent else "benchmark")


def number_at(results: Mapping[str, str], path: str) -> float | None:
    """The number at `STEP.KEY.KEY` in the JSON results; None when there is none."""
    step, *keys = path.split(".")
    file = Path(results[step]) / "value.json" if step in results else None
    try:
        found: object = json.loads(file.read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError):
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def run_load(this: Evaluation, gate: Gate) -> GateResult:
    """An open-loop load test against the staging address (1.17g, 1.17h)."""
    sample = this.prepared.spec.serving.sample
    argv = [str(this.prepared.environment.python), "-P", "-m", "branchline.sdk.load", "--url", this.staging]
    argv += ["--rps", f"{gate.rps:g}", "--seconds", f"{gate.seconds:g}"]
    argv += ["--sample", str(this.prepared.folder / sample)] if sample else []
    finished = run_task(this, replace(gate, seconds=gate.seconds * 3 + 60), tuple(argv), this.home)
    try:
        measured = json.loads(finished.tail.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return GateResult(gate.name, Result.FAIL, f"the load test did not run (exit {finished.exit}): {last(finished)}")
    return judged.loaded(gate, measured)


def run_task(this: Evaluation, gate: Gate, argv: tuple[str, ...], cwd: Path) -> Finished:
    """Run a gate's command in the closed environment, told where staging is."""
    log = this.home / f"{gate.name}.log"
    return this.ports.runner.run(Task(argv, cwd, environment_of(this), log, gate.seconds), this.stopped)


def environment_of(this: Evaluation) -> dict[str, str]:
    """The closed environment of a gate."""
    return closed_environment(this.prepared, this.home) | {
        "BRANCHLINE_STAGING": this.staging,
        "BRANCHLINE_REVISION": this.revision.name,
    }


def last(finished: Finished) -> str:
    """The last line that the command printed."""
    lines = [line.strip() for line in finished.tail.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"
