"""This file holds what a service file says, as plain data.

An adapter reads the TOML and writes these; nothing here opens a file. Durations are seconds, shares are per cent.
From the trunk come slots, approval, slice, guardrails, required gates and durations (a branch cannot widen its own
policy, F10); from the judged commit come major, steps, serving, metric, wanted share and hypothesis: `governed` puts
the two together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace

from branchline.core.counters import PrometheusGuardrail
from branchline.core.outcome_query import SqlQuery

UNIT_HEADER = "x-branchline-unit"
MOST_INSTANCES = 64  # processes of a revision


@dataclass(frozen=True, slots=True)
class Unit:
    """Where a request says for whom it is: `kind` is header, cookie, path or claim (of a JSON web token), and `name`
    the name of that; for a path it is how the path begins, with `{unit}` in the unit's place.
    """

    kind: str = "header"
    name: str = UNIT_HEADER


UNIT = Unit()  # where a service says nothing else


@dataclass(frozen=True, slots=True)
class Step:
    """One node of the build: a Python function `module:function`, or a command with declared outputs.

    `reads` are globs of files of the service that its result depends on, `env` its variables, `reuse` is '', never or
    always (and `because` says why), `for_each` the parameter that gets one item and what gives the items ('' for none),
    `when` what has to be true, `memory` is in bytes, `environment` a folder of the service with a lock of its own,
    `save` a named saver, `tolerance` by how much a number may differ when the step is run again.
    """

    name: str
    call: str = ""
    command: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    output: str = ""
    seconds: float = 3600.0
    reads: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    reuse: str = ""
    because: str = ""
    for_each: tuple[str, str] = ("", "")
    when: str = ""
    memory: int = 0
    cores: float = 1.0
    gpus: int = 0
    retries: int = 0
    environment: str = ""
    save: str = ""
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True)
class Source:
    """Data that is not in git: `where` is a glob below the project's root or an HTTP(S) address, `key` the columns that
    tell its rows apart. An old version of one that is not in the store may be gone. New data opens an experiment of
    itself when the source is watched, or looked at `every` so often (a cron expression).
    """

    name: str
    where: str
    key: tuple[str, ...] = ()
    store: bool = True
    watch: bool = False
    every: str = ""


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
class Requests:
    """How requests reach a revision: `protocol` is http1 or http2 (gRPC); one may take `timeout` seconds, and be tried
    for `try_timeout` of them before it is tried elsewhere (0: no such limit). Only an `idempotent` one that was begun
    is ever tried again.
    """

    protocol: str = "http1"
    timeout: float = 15.0
    try_timeout: float = 0.0
    idempotent: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance group may use at most, 0 for no limit: processor cores and bytes of memory of all its processes
    together, how many processes and threads, open files of each; `gpus` are its own while it runs.
    """

    cores: float = 0.0
    memory: int = 0
    processes: int = 0
    files: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Serving:
    """How a revision answers: a callable `predict` (with an optional `load`), or a command that listens where it is
    told. `schema` is a file with the schemas of request and response; without it they come from the hints of predict.
    With `prewarm` its processes are forked from one that has imported what predict and load begin with.
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
    requests: Requests = field(default_factory=Requests)
    limits: Limits = field(default_factory=Limits)
    prewarm: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """The primary metric: `kind` is value, binary, error (then outcomes carry the truth, and `name` says which error),
    ratio (outcomes carry two numbers, and the sums of both are divided) or time-to (an outcome says that it happened).

    `mde` is the smallest worthwhile effect in the metric's unit; in its place `margin` says how much worse is let pass.
    `window` are the seconds in which a unit's outcome counts, `cap` is where values are cut that have no bounds, and
    `sql` is where outcomes lie that nobody reports. With `before` an outcome may bring what its unit was like before,
    and a unit without counts as being like this. `watched` are metrics beside it that are shown and decide nothing.
    """

    name: str
    kind: str = "value"
    direction: str = "higher"
    mde: float | None = None
    bounds: tuple[float, float] | None = None
    window: float = 86400.0
    missing: str = "drop"
    margin: float | None = None
    cap: float | None = None
    sql: SqlQuery | None = None
    before: float | None = None
    watched: tuple[Metric, ...] = ()

    def called(self, name: str) -> Metric | None:
        """The metric of a name: itself ('' is that, too), or one that is watched beside it; None for any other."""
        return self if name in ("", self.name) else next((each for each in self.watched if each.name == name), None)

    @property
    def form(self) -> str:
        """What of it is judged: a ratio of sums, a mean adjusted by what was before, or a mean."""
        return "ratio" if self.kind == "ratio" else "mean" if self.before is None else "adjusted"

    @property
    def pooled(self) -> str:
        """What several outcomes of a unit are together: their mean, their sum, or the first."""
        return {"ratio": "sum", "time-to": "first"}.get(self.kind, "mean")

    @property
    def unreported(self) -> float | None:
        """The value of a unit without an outcome in its window; None: it is left out."""
        return {"zero": 0.0, "window": self.window}.get(self.missing)


@dataclass(frozen=True, slots=True)
class Guardrails:
    """What can only stop: failed requests (bad = 5xx, time-out, stepped in for), outcomes above or below a limit, and
    requests slower than a quantile of the incumbent's, or than so many seconds, and counters
    that a Prometheus has.
    """

    failed_requests: bool = True
    bad_outcome_above: float | None = None
    bad_outcome_below: float | None = None
    tolerated_ratio: float = 1.0
    slow_quantile: float = 0.0
    slow_above: float | None = None
    prometheus: tuple[PrometheusGuardrail, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """How traffic is given: `approval` is '', before or after; `share` 0 means 100/(slots+1); `skip_ab` is a reason
    or ''. `method` is how what is not judged by an A/B test takes over: canary, or blue-green. `harm_budget` is the
    most that an experiment may cost, in units of its metric over all who meet it, and says the share; 0: there is none.
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
    unit: Unit = UNIT
    method: str = "canary"
    harm_budget: float = 0.0


@dataclass(frozen=True, slots=True)
class Project:
    """What the file at the root says: `default_branch` '' is what git says, `gateway_port` 0 any free one. `hosts` may
    be asked for data although their addresses are no public ones (F45).
    """

    name: str
    default_branch: str = ""
    gateway_port: int = 0
    hosts: tuple[str, ...] = ()


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
    data: tuple[Source, ...] = ()
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
        rollout=replace(trunk.rollout, share=own.rollout.share, harm_budget=own.rollout.harm_budget),
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
