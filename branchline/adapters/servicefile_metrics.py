"""This file says what may stand in the tables of a service file about judging: `[metric]` and `[guardrails]`.

Rules: what goes together is checked here, and a combination that means nothing is refused with the reason in words.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from branchline.adapters.servicefile_queries import SqlTable
from branchline.adapters.servicefile_values import Direction, Table, Window, nearest
from branchline.core.metrics import ERRORS


class MetricTable(Table):
    """What an A/B test is judged by."""

    name: str
    kind: Literal["value", "binary", "error"] = "value"
    direction: Direction | None = None
    mde: Annotated[float, Field(gt=0)] | None = None
    bounds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    window: Window = 86400.0
    missing: Literal["drop", "zero"] = "drop"
    margin: Annotated[float, Field(gt=0)] | None = None
    cap: float | None = None
    sql: SqlTable | None = None

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
        self._far()
        if self.cap is not None and (self.bounds or self.kind == "binary"):
            raise ValueError("its values have bounds already, so nothing is left to cap: leave cap out")
        return self

    def _far(self) -> None:
        """Refuse an effect that no two arms can have."""
        if not self.bounds and self.kind != "binary":
            return
        low, high = self.bounds or (0.0, 1.0)
        for key, effect in (("mde", self.mde), ("margin", self.margin)):
            if effect is not None and effect >= high - low:
                raise ValueError(f"{key} {effect:g} is too large: all values lie between {low:g} and {high:g}")


class BadOutcomeTable(Table):
    """When an outcome is a bad one."""

    above: float | None = None
    below: float | None = None


class GuardrailsTable(Table):
    """What can only stop."""

    failed_requests: bool = True
    bad_outcome: BadOutcomeTable = BadOutcomeTable()
    tolerated_ratio: Annotated[float, Field(ge=1)] = 1.0
