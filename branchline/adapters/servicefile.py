"""This file reads `branchline.toml`: a service's file into `core.spec.Spec`, the project's into `core.spec.Project`.

What may stand there is said in `servicefile_tables` and `servicefile_metrics`; the JSON Schema for editors
(`branchline.schema.json`, shipped beside this file) is printed from it. `data.lock`, which pins the data beside the
service file, is JSON in one form.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from branchline.adapters.servicefile_metrics import GuardrailsTable, MetricTable, SlowRequestsTable, WatchedTable
from branchline.adapters.servicefile_problems import read, refused
from branchline.adapters.servicefile_queries import SqlTable
from branchline.adapters.servicefile_tables import (
    GATES,
    GateTable,
    LimitsTable,
    PinTable,
    ProjectFile,
    ServiceFile,
    StepTable,
    UnitTable,
)
from branchline.core import names
from branchline.core.counters import PrometheusGuardrail
from branchline.core.outcome_query import SqlQuery
from branchline.core.profile import MOST_COLUMNS
from branchline.core.spec import (
    Gate,
    Guardrails,
    Limits,
    Metric,
    Project,
    Requests,
    Rollout,
    Serving,
    Source,
    Spec,
    Step,
    Unit,
)
from branchline.ports import DataVersion

MOST_STEPS = 1000
_GATE = Gate("", "")
_LOCK = TypeAdapter(dict[str, PinTable])


def read_service(text: bytes, path: str) -> Spec:
    """Read a service file; `path` is where it lies in the repository. Raises BadServiceFile with every problem."""
    folder = PurePosixPath(path).parent
    if folder == PurePosixPath("."):
        raise refused(path, ["the file at the root holds [project] only; a service lies in a folder of its name"])
    name = folder.name
    own = [] if names.is_word(name) else [f"the folder's name {name!r} cannot name a service"]
    file = read(ServiceFile, text, path, own)
    if len(file.steps) > MOST_STEPS:
        raise refused(path, [f"it has {len(file.steps):,} steps; at most {MOST_STEPS:,} are run"])
    return _spec(file, name, str(folder))


def read_project(text: bytes, path: str = "branchline.toml") -> Project:
    """Read the project's file at the root; raises BadServiceFile with every problem."""
    project = read(ProjectFile, text, path).project
    return Project(project.name, project.default_branch, project.gateway_port, tuple(project.hosts))


def read_lock(text: bytes, path: str) -> dict[str, str]:
    """The digest that a `data.lock` pins for each source; raises BadServiceFile."""
    return {source: version.digest for source, version in pins(text, path).items()}


def pins(text: bytes, path: str) -> dict[str, DataVersion]:
    """What a `data.lock` says of each source; raises BadServiceFile."""
    try:
        tables = _LOCK.validate_json(text)
    except ValidationError as error:
        found = [f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()]
        raise refused(path, [*found, "write it again: branchline data update"]) from error
    return {
        name: DataVersion(name, pin.digest, pin.files, pin.rows, pin.size, tuple(sorted(pin.columns.items())))
        for name, pin in tables.items()
    }


def relock(text: bytes | None, path: str, versions: Iterable[DataVersion]) -> bytes:
    """The `data.lock` that pins these versions besides what it pinned; raises BadServiceFile."""
    before = pins(text, path) if text is not None else {}
    return lock({**before, **{each.source: each for each in versions}}.values())


def lock(versions: Iterable[DataVersion]) -> bytes:
    """The `data.lock` that pins these versions, one text for one content. Columns are listed where they are known and
    not too many, so that a change of them is seen where the lock is reviewed.
    """
    tables = {
        each.source: {"digest": each.digest, "files": each.files, "rows": each.rows, "size": each.size}
        | ({"columns": dict(each.columns)} if 0 < len(each.columns) <= MOST_COLUMNS else {})
        for each in versions
    }
    return (json.dumps(tables, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a service file, for editors."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **ServiceFile.model_json_schema(), "title": "branchline.toml of a service"}


def _spec(file: ServiceFile, name: str, folder: str) -> Spec:
    serve, rollout, rails = file.serve, file.rollout, file.guardrails
    return Spec(
        name=name,
        folder=folder,
        kind=file.kind,
        python=file.python,
        serving=Serving(
            serve.predict or "", serve.load or "", tuple(serve.command or ()), serve.health, serve.sample or "",
            serve.instances, serve.start, serve.drain, tuple(sorted(serve.env.items())), serve.schema_ or "",
            Requests(serve.protocol, serve.timeout, serve.try_timeout, serve.idempotent), _limits(serve.limits),
            serve.prewarm,
        ),
        data=tuple(
            Source(key, each.path, tuple(each.key), each.store, each.watch, each.every)
            for key, each in file.data.items()
        ),
        parameters=tuple((key, _text(value)) for key, value in file.parameters.items()),
        steps=tuple(_step(key, each) for key, each in file.steps.items()),
        gates=tuple(_gate(key, each) for key, each in file.gates.items()),
        metric=_metric(file.metric, file.watched) if file.metric else None,
        guardrails=_guardrails(rails),
        rollout=Rollout(
            rollout.slots, rollout.share or 0, rollout.slice, rollout.approval, rollout.warm, rollout.min_duration,
            rollout.max_duration, rollout.canary.duration, rollout.canary.requests, rollout.skip_ab or "",
            _unit(rollout.unit), rollout.method, rollout.harm_budget or 0.0,
        ),
        shared=tuple(str(PurePosixPath(each)) for each in file.shared),
        major=file.major,
        benchmark=file.benchmark,
    )  # fmt: skip


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _step(name: str, step: StepTable) -> Step:
    return Step(
        name, step.call or "", tuple(step.command or ()), tuple(step.inputs), step.output or "", step.seconds,
        tuple(step.reads), tuple(sorted(step.env.items())), step.reuse, step.because or "",
        next(iter(step.for_each.items()), ("", "")), step.when or "", step.memory or 0, step.cores, step.gpus,
        step.retries, step.environment or "", step.save or "", step.tolerance,
    )  # fmt: skip


def _gate(name: str, gate: GateTable) -> Gate:
    kind = GATES[gate.key][0]
    seconds = gate.seconds if gate.seconds is not None else (5.0 if kind == "load" else _GATE.seconds)
    return Gate(
        name, kind, gate.call or "", tuple(gate.command or ()), gate.pytest or "", gate.value or "", gate.max, gate.min,
        gate.max_worse, gate.better or "lower", gate.rps or 0.0, gate.p99_ms or 0.0, gate.max_failed or 0, seconds,
    )  # fmt: skip


def _limits(limits: LimitsTable) -> Limits:
    return Limits(limits.cores or 0.0, limits.memory or 0, limits.processes or 0, limits.files or 0, limits.gpus)


def _unit(table: UnitTable) -> Unit:
    return next(Unit(kind, name) for kind, name in table if name)


def _guardrails(rails: GuardrailsTable) -> Guardrails:
    slow = rails.slow_requests or SlowRequestsTable.model_construct()
    return Guardrails(
        rails.failed_requests, rails.bad_outcome.above, rails.bad_outcome.below, rails.tolerated_ratio,
        slow.quantile or 0.0, slow.above_ms / 1000 if slow.above_ms else None,
        tuple(
            PrometheusGuardrail(name, each.url, each.all, each.bad, each.every)
            for name, each in rails.prometheus.items()
        ),
    )  # fmt: skip


def _metric(metric: MetricTable, watched: Mapping[str, WatchedTable]) -> Metric:
    beside = tuple(Metric(name, *_plain(each)) for name, each in sorted(watched.items()))
    kind, direction, mde, bounds, window, missing = _plain(metric)
    return Metric(
        metric.name, kind, direction, mde, bounds, window, missing, metric.margin, metric.cap,
        _sql(metric.sql) if metric.sql else None, metric.before, beside,
    )  # fmt: skip


def _plain(
    table: MetricTable | WatchedTable,
) -> tuple[str, str, float | None, tuple[float, float] | None, float, str]:
    """Kind, direction, mde, bounds, window and missing of a metric."""
    timed = table.kind == "time-to"
    bounds = (table.bounds[0], table.bounds[1]) if table.bounds else (0.0, table.window) if timed else None
    direction = table.direction or ("lower" if table.kind in ("error", "time-to") else "higher")
    mde = table.mde if isinstance(table, MetricTable) else None
    return table.kind, direction, mde, bounds, table.window, "window" if timed else table.missing


def _sql(table: SqlTable) -> SqlQuery:
    return SqlQuery(table.query, table.url or "", table.variable or "", table.every, table.overlap)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
