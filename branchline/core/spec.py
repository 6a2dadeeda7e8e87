"""This file holds what a service file says, as plain data.

An adapter reads the TOML and writes these; nothing here opens a file. Durations are seconds, shares are per cent.
From the trunk come slots, approval, slice, guardrails, required gates and durations (a branch cannot widen its own
policy, F10); from the judged commit come major, steps, serving, metric, wanted share and hypothesis: `governed` puts
the two together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

UNIT_HEADER = "x-branchline-unit"


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the build: a Python function `module:function`, or a command with declared outputs."""

    name: str
    call: str = ""
    command: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    output: str = ""
    seconds: float = 3600.0


@dataclass(frozen=True, slots=True)
class Gate:
    """One check of an evaluation: `kind` is call, pytest, command, compare or load."""

    name: str
    kind: str
    call: str = ""
    command: tuple[str, ...] = ()
    path: str = ""
    value: str = ""
    max: float | None = None
    min: float | None = None
    max_worse: float | None = None
    direction: str = "lower"
    rps: float = 0.0
    p99_ms: float = 0.0
    max_failed: int = 0
    seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Serving:
    """How a revision answers: a callable `predict` (with an optional `load`), or a command that listens where it is
    told. `schema` is a file with the schemas of request and response; without it they come from the hints of predict.
    """

    predict: str = ""
    load: str = ""
    command: tuple[str, ...] = ()
    health: str = "/"
    sample: str = ""
    instances: int = 1
    start_seconds: float = 60.0
    drain_seconds: float = 5.0
    env: tuple[tuple[str, str], ...] = ()
    schema: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """The primary metric: `kind` is value, binary or error (then outcomes carry the truth, and `name` says which
    error).

    `mde` is the smallest worthwhile effect in the metric's unit; `window` the seconds in which a unit's outcome
    counts.
    """

    name: str
    kind: str = "value"
    direction: str = "higher"
    mde: float | None = None
    bounds: tuple[float, float] | None = None
    window: float = 86400.0
    missing: str = "drop"


@dataclass(frozen=True, slots=True)
class Guardrails:
    """What can only stop: failed requests (bad = 5xx, time-out, stepped in for), and outcomes above or below a
    limit.
    """

    failed_requests: bool = True
    bad_outcome_above: float | None = None
    bad_outcome_below: float | None = None
    tolerated_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """How traffic is given: `approval` is '', before or after; `share` 0 means 100/(slots+1); `skip_ab` is a reason
    or ''.
    """

    slots: int = 1
    share: int = 0
    slice: int = 10
    approval: str = ""
    warm_seconds: float = 900.0
    min_seconds: float = 0.0
    max_seconds: float = 14 * 86400.0
    canary_seconds: float = 3600.0
    canary_requests: int = 100
    skip_ab: str = ""
    unit_header: str = UNIT_HEADER


@dataclass(frozen=True, slots=True)
class Project:
    """What the file at the root says: `default_branch` '' is what git says, `gateway_port` 0 any free one."""

    name: str
    default_branch: str = ""
    gateway_port: int = 0


@dataclass(frozen=True, slots=True)
class Spec:
    """One service as its file declares it; `folder` is its path in the repository, `shared` the other paths it is
    made of. `major` is the line it is for, and a `benchmark` is measured and never promoted.
    """

    name: str
    folder: str
    kind: str = "model"
    python: str = ""
    serving: Serving = field(default_factory=Serving)
    data: tuple[tuple[str, str], ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()
    gates: tuple[Gate, ...] = ()
    metric: Metric | None = None
    guardrails: Guardrails = field(default_factory=Guardrails)
    rollout: Rollout = field(default_factory=Rollout)
    shared: tuple[str, ...] = ()
    major: int = 1
    benchmark: bool = False

    @property
    def closure(self) -> tuple[str, ...]:
        """The paths whose tree a revision of the service is: its folder and what it shares."""
        return (self.folder, *self.shared)


def governed(own: Spec, trunk: Spec | None) -> Spec:
    """The spec of a candidate: what it may say itself, and what only the trunk may say (a first revision: itself).

    A gate that the trunk has stays required, with the trunk's limits; how it is run (function, path, command, which
    number) may change with the code it checks.
    """
    if trunk is None:
        return own
    mine = {gate.name: gate for gate in own.gates}
    required = {gate.name: _limited(mine.get(gate.name, gate), gate) for gate in trunk.gates}
    return replace(
        own,
        rollout=replace(trunk.rollout, share=own.rollout.share),
        guardrails=trunk.guardrails,
        gates=(*required.values(), *(gate for name, gate in mine.items() if name not in required)),
    )


def _limited(own: Gate, trunk: Gate) -> Gate:
    """A gate with the trunk's limits; one of another kind is another gate, and the trunk's stands."""
    if own.kind != trunk.kind:
        return trunk
    return replace(
        own,
        max=trunk.max,
        min=trunk.min,
        max_worse=trunk.max_worse,
        direction=trunk.direction,
        rps=trunk.rps,
        p99_ms=trunk.p99_ms,
        max_failed=trunk.max_failed,
        seconds=trunk.seconds if trunk.kind == "load" else own.seconds,
    )


def as_json(spec: Spec) -> str:
    """The spec as one line of JSON, as a revision keeps it frozen."""
    return json.dumps(asdict(spec), sort_keys=True)
