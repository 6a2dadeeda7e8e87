"""This file says what may stand in `branchline.toml`, once: the models that check it and print its JSON Schema.

Rules: a table has no other keys than these, values are strict (no "3" for 3). A text in the place of a step's or gate's
table is its `call`. Durations are "250ms", "1s", "15m", "2h", "14d", or seconds as a number. What a rule over several
keys finds wrong is said as a sentence to the person who wrote the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from branchline.adapters.servicefile_metrics import BadOutcomeTable, GuardrailsTable, MetricTable, WatchedTable
from branchline.adapters.servicefile_values import (
    Command,
    Direction,
    Duration,
    Function,
    GateName,
    Inside,
    Name,
    Saver,
    Scalar,
    Size,
    Table,
    Variable,
    address,
    called,
    only_one,
    placed,
    schedule,
    trunk,
)
from branchline.core.spec import MOST_INSTANCES, UNIT, Requests, Rollout, Serving
from branchline.core.waiting import SMALLEST

SERVING, REQUESTS, ROLLOUT = Serving(), Requests(), Rollout()  # what holds when nothing is said


class LimitsTable(Table):
    """What an instance group may use at most."""

    cores: Annotated[float, Field(gt=0, le=1024)] | None = None
    memory: Size | None = None
    processes: Annotated[int, Field(ge=1)] | None = None
    files: Annotated[int, Field(ge=16)] | None = None
    gpus: Annotated[int, Field(ge=0, le=64)] = 0


class ServeTable(Table):
    """How a revision answers."""

    predict: Function | None = None
    load: Function | None = None
    command: Command | None = None
    health: Annotated[str, Field(pattern="^/")] = SERVING.health
    sample: Inside | None = None
    schema_: Annotated[Inside | None, Field(alias="schema")] = None  # `schema` is a method of every model
    instances: Annotated[int, Field(ge=1, le=MOST_INSTANCES)] = 1
    start: Duration = SERVING.start_seconds
    drain: Duration = SERVING.drain_seconds
    protocol: Literal["http1", "http2"] = "http1"
    timeout: Duration = REQUESTS.timeout
    try_timeout: Duration = REQUESTS.try_timeout
    idempotent: bool = REQUESTS.idempotent
    prewarm: bool = SERVING.prewarm
    limits: LimitsTable = LimitsTable()
    env: dict[str, str] = {}

    @model_validator(mode="after")
    def _one(self) -> ServeTable:
        only_one(self, "predict", "command")
        if self.command and self.load:
            raise ValueError("load goes with predict, not with a command")
        if self.command and self.prewarm:
            raise ValueError("prewarm goes with predict, not with a command")
        if self.predict and self.protocol != "http1":
            raise ValueError("protocol goes with a command; predict is served over HTTP/1.1")
        if self.try_timeout and not self.idempotent:
            raise ValueError(
                "try_timeout tries a request twice, which may do what it does twice: say idempotent = true"
            )
        return self


class StepTable(Table):
    """One node of the build."""

    call: Function | None = None
    command: Command | None = None
    inputs: list[Name] = []
    output: Inside | None = None
    seconds: Duration = 3600.0
    reads: list[Inside] = []
    env: dict[Variable, str] = {}
    reuse: Literal["", "never", "always"] = ""
    because: Annotated[str, Field(min_length=1)] | None = None
    for_each: Annotated[dict[Name, Name], Field(max_length=1)] = {}
    when: Name | None = None
    memory: Size | None = None
    cores: Annotated[float, Field(gt=0, le=1024)] = 1.0
    gpus: Annotated[int, Field(ge=0, le=64)] = 0
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    environment: Inside | None = None
    save: Saver | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _one(self) -> StepTable:
        only_one(self, "call", "command")
        if self.call and (self.inputs or self.output):
            raise ValueError("a function's parameters are its inputs and its result its output; leave both out")
        if self.command and not self.output:
            raise ValueError("a command must say which file or folder it writes: output")
        if self.command and self.save:
            raise ValueError("save is how a function's result is kept; a command writes its output itself")
        if self.reuse == "always" and not self.because:
            raise ValueError('reuse = "always" takes a result whatever it read: say why, because = "..."')
        return self


class SourceTable(Table):
    """Data that is not in git."""

    path: Annotated[str, AfterValidator(address)]
    key: list[str] = []
    store: bool = True
    watch: bool = False
    every: Annotated[str, AfterValidator(schedule)] = ""


# What says the kind of a gate, the kind, and which keys go with it.
GATES: Mapping[str, tuple[str, frozenset[str]]] = {
    "call": ("call", frozenset({"seconds"})),
    "pytest": ("pytest", frozenset({"seconds"})),
    "command": ("command", frozenset({"seconds"})),
    "value": ("compare", frozenset({"max", "min", "max_worse", "direction"})),
    "rps": ("load", frozenset({"seconds", "p99_ms", "max_failed"})),
}


class GateTable(Table):
    """One check of an evaluation."""

    call: Function | None = None
    pytest: Inside | None = None
    command: Command | None = None
    value: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*\.[A-Za-z0-9_.]+$")] | None = None
    rps: Annotated[float, Field(gt=0)] | None = None
    max: float | None = None
    min: float | None = None
    max_worse: Annotated[float, Field(ge=0)] | None = None
    direction: Direction | None = None
    p99_ms: Annotated[float, Field(gt=0)] | None = None
    max_failed: Annotated[int, Field(ge=0)] | None = None
    seconds: Duration | None = None

    @model_validator(mode="after")
    def _one(self) -> GateTable:
        only_one(self, *GATES)
        key = self.key
        wrong = sorted(self.model_fields_set - {key} - GATES[key][1])
        if wrong:
            known = ", ".join(sorted(GATES[key][1]))
            raise ValueError(f"{', '.join(wrong)} does not go with {key}; known are {known}")
        if key == "value" and self.max is None and self.min is None and self.max_worse is None:
            raise ValueError("a comparison needs max, min or max_worse")
        if self.max_worse is not None and not self.better:
            raise ValueError('max_worse needs direction = "higher" or "lower": which way is better?')
        return self

    @property
    def better(self) -> Direction | None:
        """Which way is better: what is said, or what the one limit says; None when nothing does."""
        if self.direction or (self.max is None) == (self.min is None):
            return self.direction
        return "lower" if self.min is None else "higher"

    @property
    def key(self) -> str:
        """The key that says its kind."""
        return next(key for key in GATES if getattr(self, key) is not None)


class UnitTable(Table):
    """Where a request says for whom it is."""

    header: Annotated[str, Field(pattern="^[a-z0-9-]+$")] | None = None
    cookie: Annotated[str, Field(pattern="^[A-Za-z0-9_.-]+$")] | None = None
    path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.~-]+)*/\{unit\}(/[A-Za-z0-9_.~-]+)*/?$")] | None = None
    claim: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]+$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> UnitTable:
        only_one(self, "header", "cookie", "path", "claim")
        return self


class CanaryTable(Table):
    """How long a canary is watched, and with how many requests at least."""

    duration: Duration = ROLLOUT.canary_seconds
    requests: Annotated[int, Field(ge=1)] = 100


class RolloutTable(Table):
    """How traffic is given."""

    slots: Annotated[int, Field(ge=1, le=20)] = 1
    share: Annotated[int, Field(ge=SMALLEST, le=100 - SMALLEST)] | None = None
    slice: Annotated[int, Field(ge=1, le=99)] = 10
    approval: Literal["", "before", "after"] = ""
    warm: Duration = 900.0
    min_duration: Duration = 0.0
    max_duration: Duration = 14 * 86400.0
    canary: CanaryTable = CanaryTable()
    skip_ab: Annotated[str, Field(min_length=1)] | None = None
    method: Literal["canary", "blue-green"] = "canary"
    unit: UnitTable = UnitTable(header=UNIT.name)
    harm_budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> RolloutTable:
        if self.harm_budget and self.share:
            raise ValueError("harm_budget says which share there is, as far as the evidence allows: leave share out")
        if self.min_duration > self.max_duration:
            raise ValueError("min_duration is longer than max_duration")
        if (self.share or 0) * self.slots > 100 - SMALLEST:
            told = f"{self.slots} challengers of {self.share} % leave the incumbent less than {SMALLEST} %"
            raise ValueError(told)
        return self


class ServiceFile(Table):
    """A service as its `branchline.toml` declares it; the folder's name is the service's name."""

    kind: Literal["model", "app"]
    major: Annotated[int, Field(ge=1, le=999)] = 1
    benchmark: bool = False
    python: Annotated[str, Field(pattern=r"^3\.[0-9]+(\.[0-9]+)?$")] = ""
    serve: ServeTable
    data: dict[Name, Annotated[SourceTable, BeforeValidator(placed, json_schema_input_type=SourceTable | str)]] = {}
    parameters: dict[Name, Scalar | list[Scalar]] = {}
    steps: dict[Name, Annotated[StepTable, BeforeValidator(called, json_schema_input_type=StepTable | str)]] = {}
    metric: MetricTable | None = None
    watched: dict[Name, WatchedTable] = {}
    shared: list[Inside] = []
    gates: dict[GateName, Annotated[GateTable, BeforeValidator(called, json_schema_input_type=GateTable | str)]] = {}
    guardrails: GuardrailsTable = GuardrailsTable()
    rollout: RolloutTable = RolloutTable()

    @model_validator(mode="after")
    def _sound(self) -> ServiceFile:
        given = [*self.steps, *self.data, *self.parameters]
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is used twice: steps, data and parameters share their names")
        for step, table in self.steps.items():
            for need in (*table.inputs, *table.for_each.values(), *filter(None, [table.when])):
                if need not in given:
                    raise ValueError(f"step {step} needs {need!r}, which is no step, data or parameter")
            for item in table.for_each:
                if item in given:
                    raise ValueError(f"step {step} is run for each {item}, which is the name of something else")
        for gate, check in self.gates.items():
            if check.value and check.value.partition(".")[0] not in self.steps:
                raise ValueError(f"gate {gate} compares {check.value}, but there is no such step")
        if self.watched and (self.metric is None or self.metric.name in self.watched):
            raise ValueError("what is watched is beside a [metric], and has a name of its own")
        if self.metric is None and self.guardrails.bad_outcome != BadOutcomeTable():
            raise ValueError("guardrails.bad_outcome needs a [metric]: outcomes are its values")
        if self.rollout.harm_budget:
            self._budgeted()
        if self.kind == "model" and self.rollout.method != ROLLOUT.method and not self.rollout.skip_ab:
            raise ValueError("a model is judged by an A/B test: rollout.method needs the reason why not, in skip_ab")
        return self

    def _budgeted(self) -> None:
        """Raise ValueError where nothing says what a unit may cost."""
        if self.kind == "app" or self.benchmark or self.rollout.skip_ab:
            raise ValueError("rollout.harm_budget is of an A/B test, and this is released without one")
        if self.metric is None or not (self.metric.mde or self.metric.margin):
            raise ValueError("rollout.harm_budget needs a [metric] with an mde or a margin: harm is what is lost on it")
        if self.metric.kind == "ratio":
            raise ValueError("rollout.harm_budget cannot hold for a ratio: nothing bounds what one unit can cost")
        if self.metric.bounds is None and self.metric.kind not in ("binary", "time-to"):
            raise ValueError("rollout.harm_budget needs metric.bounds: without them one unit can cost anything")


class PinTable(Table):
    """What `data.lock` says of a source."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    files: Annotated[int, Field(ge=1)]
    rows: Annotated[int, Field(ge=0)]
    size: Annotated[int, Field(ge=0)]
    columns: dict[str, Literal["number", "text", "empty"]] = {}


class ProjectTable(Table):
    """What holds for all services."""

    name: Annotated[str, Field(min_length=1)]
    default_branch: Annotated[str, AfterValidator(trunk)] = ""
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 0
    hosts: list[Annotated[str, Field(pattern=r"^[a-z0-9.:_-]+$")]] = []


class ProjectFile(Table):
    """The file at the root."""

    project: ProjectTable
