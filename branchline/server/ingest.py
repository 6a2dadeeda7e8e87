"""This file takes outcomes from the gateway.

One rule: a body that can be read is answered with 200 and a word for each outcome, whatever became of it, so that no
client breaks when a test begins or ends; what was to be kept is durable by then. A body that cannot be read is a
problem (422, or 413 when it is too long) and nothing of it is kept; so is a service that there is not (404). Values are
strict: no text, no NaN, no infinity, no bool (F78). One outcome or a list may be sent: a batch is one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from branchline.core.service import SERVING, Phase
from branchline.core.spec import Metric
from branchline.engine.controlling import Controller
from branchline.engine.preparing import spec_at
from branchline.errors import BranchlineError, OutcomeRefused, TooLarge, UnknownService
from branchline.ports import Outcome, Receipt
from branchline.server.wire import problem

LARGEST = 1 << 20  # bytes of a body (F74)
MOST = 10_000  # outcomes in a batch
MEASURED = {Phase.TESTING, Phase.CANARY, Phase.WON}
LOG_SECONDS = 0.03  # the gateway writes its log every 20 ms: a report may be here before the request that it is about
LOOKS = 10


class Report(BaseModel):
    """One outcome, by unit or by request: `value` is the metric's or, for a metric of kind error, the truth."""

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: Annotated[str, Field(max_length=512)] = ""
    request_id: Annotated[str, Field(max_length=128)] = ""
    id: Annotated[str, Field(max_length=128)] = ""


ONE: TypeAdapter[Report] = TypeAdapter(Report)
MANY: TypeAdapter[list[Report]] = TypeAdapter(Annotated[list[Report], Field(max_length=MOST)])


def ingest(controller: Controller) -> FastAPI:
    """The application behind `/SERVICE/-/` on the gateway."""
    app = FastAPI(title="Branchline outcomes", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/{service}/-/outcomes")
    async def outcomes(service: str, request: Request) -> JSONResponse:
        try:
            body = await whole(request)
            reports = parsed(body)
            return await in_thread(keep, controller, service, reports)
        except BranchlineError as error:
            return problem(error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> JSONResponse:
        return problem(OutcomeRefused(str(error), reason="it is not understood"))

    return app


async def in_thread(act: Any, *arguments: Any) -> JSONResponse:
    """Run blocking work beside the event loop."""
    answer: JSONResponse = await run_in_threadpool(act, *arguments)
    return answer


async def whole(request: Request) -> bytes:
    """The body, refused as soon as it is too long."""
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > LARGEST:
            raise TooLarge(f"more than {LARGEST} bytes")
    return bytes(found)


def parsed(body: bytes) -> list[Report]:
    """One outcome or a list of them, strictly read; raises OutcomeRefused."""
    try:
        return MANY.validate_json(body) if body.lstrip()[:1] == b"[" else [ONE.validate_json(body)]
    except ValidationError as error:
        if any(each["type"] == "too_long" for each in error.errors(include_url=False)):
            raise TooLarge(f"more than {MOST} outcomes") from None
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise OutcomeRefused(f"{where}: {first['msg']}", reason="it is not understood") from None


def keep(controller: Controller, service: str, reports: list[Report]) -> JSONResponse:
    """Keep outcomes durably and say of each what became of it."""
    metric = metric_of(controller, service)
    outcomes = [outcome_of(service, report) for report in reports]
    if metric is None:
        receipts = [Receipt("unmeasured", f"{service} declares no metric")] * len(outcomes)
    else:
        receipts = receipts_for(controller, metric, outcomes)
    words, reasons = [each.word for each in receipts], [each.reason for each in receipts]
    return JSONResponse({"schema": "branchline.outcomes/1", "outcomes": words, "reasons": reasons})


def receipts_for(controller: Controller, metric: Metric, outcomes: list[Outcome]) -> list[Receipt]:
    """What became of each, once the log tells of every request before it; who is unknown is asked about again.

    Without the first wait a report by unit would be joined with what the unit saw in an experiment before.
    """
    ports, receipts = controller.ports, [Receipt("unknown")] * len(outcomes)
    at = ports.clock.now()
    for _ in range(LOOKS):
        left = [place for place, receipt in enumerate(receipts) if receipt.word == "unknown"]
        if not left:
            break
        ports.clock.wait(LOG_SECONDS)
        controller.read_exposures()
        service = outcomes[0].service
        runs = running(controller, service, metric)
        found = ports.observations.report(
            [outcomes[place] for place in left], {service: metric}, at=at,
            running=None if runs is None else {service: runs},
        )  # fmt: skip
        for place, receipt in zip(left, found, strict=True):
            receipts[place] = receipt
    return receipts


def running(controller: Controller, service: str, metric: Metric) -> Mapping[str, Metric] | None:
    """The experiments of a service that have not ended, each with its metric (`metric` where its revision declares
    none); None while the gateway does not show one for each line.

    An arm whose processes are down for a moment comes back to its experiment: what is reported meanwhile counts.
    """
    candidates = reversed(controller.recorder.service(service).candidates)  # of a line the longest under test counts
    under_test = {each.line: each for each in candidates if each.phase in MEASURED}
    shown, found = controller.ports.router.shown(service), {}
    for line, candidate in under_test.items():
        if line not in shown or not shown[line].experiment:
            return None
        found[shown[line].experiment] = spec_at(controller.ports, service, candidate.revision).metric or metric
    return found


def outcome_of(service: str, report: Report) -> Outcome:
    """One report as the ledger takes it; raises OutcomeRefused when it names nobody."""
    if not report.unit and not report.request_id:
        raise OutcomeRefused(reason="it names neither unit nor request_id")
    return Outcome(service, report.value, report.unit, report.request_id, report.id)


def metric_of(controller: Controller, service: str) -> Metric | None:
    """The metric that is measured now: of who is under test, else of the incumbent; None when nobody declares one."""
    if service not in controller.services():
        raise UnknownService(name=service)
    state = controller.recorder.service(service)
    commits = [c.revision for c in state.candidates if c.phase in SERVING]
    commits += [line.incumbent for line in reversed(state.lines) if line.incumbent]
    for commit in commits:
        metric = spec_at(controller.ports, service, commit).metric
        if metric is not None:
            return metric
    return None
