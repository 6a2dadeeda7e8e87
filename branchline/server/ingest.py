"""This file takes outcomes from the gateway.

One rule: a body that can be read is answered with 200 and a word for each outcome, whatever became of it, so that no
client breaks when a test begins or ends; what was to be kept is durable by then. A body that cannot be read is a
problem (422, or 413 when it is too long) and nothing of it is kept; so is a service that there is not (404). Values are
strict: no text, no NaN, no infinity, no bool (F78). One outcome or a list may be sent: a batch is in one transaction,
which it shares with others that came at the time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from branchline.core.spec import Metric
from branchline.engine.controlling import Controller
from branchline.engine.under_test import metric_of, running
from branchline.errors import BranchlineError, OutcomeRefused, TooLarge, UnknownService
from branchline.ports import Outcome, Receipt
from branchline.server.wire import problem

LARGEST = 1 << 20  # bytes of a body (F74)
MOST = 10_000  # outcomes in a batch
LOG_SECONDS = 0.03  # the gateway writes its log every 20 ms: a report may be here before the request that it is about
LOOKS = 10
TOGETHER = 2000  # outcomes of several bodies in one transaction: other writers wait meanwhile
Words = Counter[tuple[str, str]]  # service, word


class Report(BaseModel):
    """One outcome, by unit or by request: `value` is the metric's or, for a metric of kind error, the truth; of a ratio
    it is a part of `of`. `before` is what the unit was like before its first request.

    `metric` may name it: who measures several things reports each by its name, and those that nobody declared are not
    counted.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    value: Annotated[float, Field(allow_inf_nan=False)]
    unit: Annotated[str, Field(max_length=512)] = ""
    request_id: Annotated[str, Field(max_length=128)] = ""
    id: Annotated[str, Field(max_length=128)] = ""
    metric: Annotated[str, Field(max_length=128)] = ""
    of: Annotated[float, Field(allow_inf_nan=False)] | None = None
    before: Annotated[float, Field(allow_inf_nan=False)] | None = None


ONE: TypeAdapter[Report] = TypeAdapter(Report)
MANY: TypeAdapter[list[Report]] = TypeAdapter(Annotated[list[Report], Field(max_length=MOST)])


def ingest(controller: Controller, words: Words | None = None) -> FastAPI:
    """The application behind `/SERVICE/-/` on the gateway; `words` counts what became of outcomes."""
    app = FastAPI(title="Branchline outcomes", docs_url=None, redoc_url=None, openapi_url=None)
    intake, counted = Intake(controller), Counter() if words is None else words

    @app.post("/{service}/-/outcomes")
    async def outcomes(service: str, request: Request) -> JSONResponse:
        try:
            reports = parsed(await whole(request))
            receipts = await intake.keep(service, [outcome_of(service, report) for report in reports])
        except BranchlineError as error:
            return problem(error)
        told, reasons = [each.word for each in receipts], [each.reason for each in receipts]
        counted.update((service, word) for word in told)
        return JSONResponse({"schema": "branchline.outcomes/1", "outcomes": told, "reasons": reasons})

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> JSONResponse:
        return problem(OutcomeRefused(str(error), reason="it is not understood"))

    return app


async def whole(request: Request) -> bytes:
    """The body; raises TooLarge, keeping no more than is taken.

    What is too long is read to its end, which the gateway sets: who writes on when the answer comes is cut off, and
    never reads it.
    """
    found, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= LARGEST:
            found += chunk
    if size > LARGEST:
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


@dataclass(slots=True, eq=False)
class Sent:
    """What one body reports and what became of it so far; `left` are the places still unknown, `since` when it came,
    or was looked at last.
    """

    service: str
    outcomes: list[Outcome]
    since: float
    ended: asyncio.Future[None]
    receipts: list[Receipt]
    left: list[int]
    looks: int = 0
    error: Exception | None = None


class Intake:
    """Keeps outcomes: all bodies that came while one transaction was written are the next one (group commit).

    None is joined before the log tells of every request before it: without that wait a report by unit would be joined
    with what the unit saw in an experiment before. Who is unknown all the same is asked about again, in later
    transactions, and holds up nobody else.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._waiting: deque[Sent] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def keep(self, service: str, outcomes: list[Outcome]) -> list[Receipt]:
        """Keep the outcomes of one body durably; a receipt for each, in order."""
        since, ended = self._controller.ports.clock.monotonic(), asyncio.get_running_loop().create_future()
        nobody = [Receipt("unknown")] * len(outcomes)
        sent = Sent(service, outcomes, since, ended, nobody, list(range(len(outcomes))))
        self._waiting.append(sent)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        await ended
        if sent.error is not None:
            raise sent.error
        return sent.receipts

    async def _run(self) -> None:
        while self._waiting:
            for sent in await run_in_threadpool(self._look):
                if not sent.ended.done():  # else nobody waits for it any more
                    sent.ended.set_result(None)

    def _look(self) -> list[Sent]:
        """Look once for all whose time has come; those that need no other look."""
        together = self._due()
        try:
            self._controller.read_exposures()
            self._join(together)
        except Exception as error:  # noqa: BLE001 - whoever waits is told, and those after them are looked at
            for sent in together:
                sent.error = error
        again = [sent for sent in together if sent.left and sent.error is None]
        for sent in again:
            sent.since = self._controller.ports.clock.monotonic()
        self._waiting += again
        return [sent for sent in together if sent not in again]

    def _due(self) -> list[Sent]:
        """Those whose requests the log tells of by now; waits for the first."""
        clock, first = self._controller.ports.clock, self._waiting[0].since
        if (early := first + LOG_SECONDS - clock.monotonic()) > 0:
            clock.wait(early)
        until = max(clock.monotonic() - LOG_SECONDS, first)
        found = [self._waiting.popleft()]
        count = len(found[0].left)
        while self._waiting and self._waiting[0].since <= until:
            count += len(self._waiting[0].left)
            if count > TOGETHER:
                break
            found.append(self._waiting.popleft())
        return found

    def _join(self, together: list[Sent]) -> None:
        """Join what is left of these bodies with what the log told of, and keep it."""
        metrics: dict[str, Metric] = {}
        runs: dict[str, Mapping[str, Metric]] = {}
        ports, recorder = self._controller.ports, self._controller.recorder
        for service in dict.fromkeys(each.service for each in together):
            mine = [each for each in together if each.service == service]
            try:
                metric = measured(self._controller, service)
                found = None if metric is None else running(ports, recorder, service, metric)
            except BranchlineError as error:
                for sent in mine:
                    sent.error = error
                continue
            if metric is None:
                for sent in mine:
                    sent.receipts = [Receipt("unmeasured", f"{service} declares no metric")] * len(sent.outcomes)
                    sent.left = []
                continue
            metrics[service] = metric
            runs |= {} if found is None else {service: found}
        for sent in together:
            sent.looks += 1
        for again in (False, True):
            asked = [(sent, place) for sent in together if sent.service in metrics and (sent.looks < LOOKS) is again
                     for place in sent.left]  # fmt: skip
            self._report(asked, metrics, runs, again)

    def _report(
        self, asked: list[tuple[Sent, int]], metrics: Mapping[str, Metric], runs: Mapping[str, Mapping[str, Metric]],
        again: bool,
    ) -> None:  # fmt: skip
        """One transaction; of each body those are left that are unknown, if they are asked about again."""
        if not asked:
            return
        ports = self._controller.ports
        outcomes = [sent.outcomes[place] for sent, place in asked]
        found = ports.observations.report(outcomes, metrics, at=ports.clock.now(), running=runs, again=again)
        for sent, _ in asked:
            sent.left = []
        for (sent, place), receipt in zip(asked, found, strict=True):
            sent.receipts[place] = receipt
            if again and receipt.word == "unknown":
                sent.left.append(place)


def outcome_of(service: str, report: Report) -> Outcome:
    """One report as the ledger takes it; raises OutcomeRefused when it names nobody."""
    if not report.unit and not report.request_id:
        raise OutcomeRefused(reason="it names neither unit nor request_id")
    return Outcome(
        service,
        report.value,
        report.unit,
        report.request_id,
        report.id,
        report.metric,
        of=report.of,
        before=report.before,
    )


def measured(controller: Controller, service: str) -> Metric | None:
    """The metric that is measured now, None when nobody declares one; raises UnknownService."""
    if service not in controller.services():
        raise UnknownService(name=service)
    return metric_of(controller.ports, controller.recorder, service)
