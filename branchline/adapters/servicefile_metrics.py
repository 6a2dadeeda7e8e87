"""This file says what may stand in the tables of a service file about judging: `[metric]` and `[guardrails]`.

Rules: what goes together is checked here, and a combination that means nothing is refused with the reason in words.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from branchline.adapters.servicefile_queries import PrometheusTable, SqlTable
from branchline.adapters.servicefile_values import Direction, Name, Table, Window, nearest, only_one
from branchline.core.metrics import ERRORS


def unfit(kind: str, given: set[str]) -> None:
    """Refuse keys that a kind of metric cannot have."""
    has_no = {
        "ratio": ("bounds", "cap", "before", "sql"),  # they are of single values, and a ratio is one of sums
        "time-to": ("bounds", "cap", "missing"),  # a time lies between 0 and the window, which is when none came
    }.get(kind, ())
    wrong = [key for key in has_no if key in given]
    if wrong:
        why = "is of sums, not of values" if kind == "ratio" else "lies between 0 and its window, if none came"
        raise ValueError(f"{', '.join(wrong)} does not go with kind {kind}: it {why}")


class MetricTable(Table):
    """What an A/B test is judged by."""

    name: str
    kind: Literal["value", "binary", "error", "ratio", "time-to"] = "value"
    direction: Direction | None = None
    mde: Annotated[float, Field(gt=0)] | None = None
    bounds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    window: Window = 86400.0
    missing: Literal["drop", "zero"] = "drop"
    margin: Annotated[float, Field(gt=0)] | None = None
    cap: float | None = None
    sql: SqlTable | None = None
    before: float | None = None

    @model_validator(mode="after")
    def _sound(self) -> MetricTable:
        if self.kind == "error" and self.name not in ERRORS:
            raise ValueError(f"{self.name!r} is no error; known are {', '.join(ERRORS)}{nearest(self.name, ERRORS)}")
        if self.kind == "error" and self.direction == "higher":
            raise ValueError("a larger error is never better: direction is lower")
        if self.bounds and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds {self.bounds} are empty; write the lower one first")
        if self.mde and self.margin:
            raise ValueError("mde asks for better, margin for no worse: declare one of them")
        self._alone()
        self._far()
        if self.cap is not None and (self.bounds or self.kind == "binary"):
            raise ValueError("its values have bounds already, so nothing is left to cap: leave cap out")
        return self

    def _alone(self) -> None:
        """Refuse what a ratio or a time cannot have."""
        unfit(self.kind, self.model_fields_set)
        if self.sql and self.before is not None:
            raise ValueError("a query gives one value and nothing of before: leave before out, or report outcomes")

    def _far(self) -> None:
        """Refuse an effect that no two arms can have."""
        low, high = self.bounds or {"binary": (0.0, 1.0), "time-to": (0.0, self.window)}.get(self.kind, (0.0, 0.0))
        if low == high:
            return
        for key, effect in (("mde", self.mde), ("margin", self.margin)):
            if effect is not None and effect >= high - low:
                raise ValueError(f"{key} {effect:g} is too large: all values lie between {low:g} and {high:g}")


class WatchedTable(Table):
    """What is shown beside the metric, and decides nothing."""

    kind: Literal["value", "binary", "ratio", "time-to"] = "value"
    direction: Direction | None = None
    bounds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    window: Window = 86400.0
    missing: Literal["drop", "zero"] = "drop"

    @model_validator(mode="after")
    def _sound(self) -> WatchedTable:
        if self.bounds and not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds {self.bounds} are empty; write the lower one first")
        unfit(self.kind, self.model_fields_set)
        return self


class BadOutcomeTable(Table):
    """When an outcome is a bad one."""

    above: float | None = None
    below: float | None = None


def _quantile(value: object) -> object:
    return {"quantile": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


Quantile = Annotated[float, Field(ge=0.5, le=0.999)]


class SlowRequestsTable(Table):
    """When a request is slow."""

    quantile: Quantile | None = None
    above_ms: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one(self) -> SlowRequestsTable:
        only_one(self, "quantile", "above_ms")
        return self


Slow = Annotated[SlowRequestsTable, BeforeValidator(_quantile, json_schema_input_type=SlowRequestsTable | Quantile)]


class GuardrailsTable(Table):
    """What can only stop."""

    failed_requests: bool = True
    bad_outcome: BadOutcomeTable = BadOutcomeTable()
    slow_requests: Slow | None = None
    tolerated_ratio: Annotated[float, Field(ge=1)] = 1.0
    prometheus: dict[Name, PrometheusTable] = {}
