"""This file is the part of the API that looks ahead of a test and back at one: planned, played with nothing, rejudged.

Nothing that is asked here changes anything.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from branchline.engine.backtesting import backtest
from branchline.engine.controlling import Controller
from branchline.engine.forecasting import Wish, forecast, split_again
from branchline.engine.rejudging import rejudged

Document = dict[str, Any]
MOST_SPLITS = 5000


class Planned(BaseModel):
    """A service file as it lies in somebody's work tree, and what is wanted otherwise than it says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    text: str
    mde: float | None = Field(default=None, gt=0)
    days: float | None = Field(default=None, gt=0)
    per_day: float | None = Field(default=None, gt=0)


class Alike(BaseModel):
    """A service file, and how often the incumbent is to be split into two arms."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str
    text: str
    mde: float | None = Field(default=None, gt=0)
    splits: int = Field(default=400, ge=1, le=MOST_SPLITS)
    seed: int = 1


class Rejudge(BaseModel):
    """A recorded test, and the settings to judge it with in place of its own."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reference: str
    mde: float | None = None
    margin: float | None = None
    alpha: float | None = None
    beta: float | None = None
    direction: Literal["higher", "lower"] | None = None


def planning(app: FastAPI, controller: Controller) -> None:
    """What is said of a test before it begins, and after it has ended."""
    ports = controller.ports

    @app.post("/v1/plan-test")
    def plan_test(body: Planned) -> Document:
        """How long an A/B test would take as this service file declares it, from the outcomes there were."""
        spec = ports.read_spec(body.text.encode(), body.path)
        return forecast(ports, spec, Wish(body.mde, body.days, body.per_day))

    @app.get("/v1/backtest")
    def backtested(service: str, metric: str, direction: Literal["higher", "lower"]) -> Document:
        """An offline metric beside the verdicts of all ended tests: how often what looked better by it won."""
        return backtest(ports, controller.desk, service, metric, direction)

    @app.post("/v1/aa")
    def aa(body: Alike) -> Document:
        """What the judge claims of the incumbent against itself: its outcomes given to two arms by lot."""
        return split_again(ports, ports.read_spec(body.text.encode(), body.path), body.mde, body.splits, body.seed)

    @app.post("/v1/rejudge")
    def rejudge(body: Rejudge) -> Document:
        """A recorded test judged again, with other settings if any are given."""
        return rejudged(ports, controller.desk, body.reference, body.model_dump(exclude={"reference"}))
