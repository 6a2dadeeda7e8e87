"""This file serves a service's `predict` over HTTP: `python -P -m branchline.sdk.serve`, in the service's environment.

It is told where to listen and what to serve: BRANCHLINE_SOCKET, BRANCHLINE_NONCE, and in BRANCHLINE_SERVICE_SPEC the
path of a JSON file

    {"predict": "module:function", "load": "module:function" or "", "sample": path or "", "results": {step: path},
     "parameters": {}, "modules": [module, ...]}

`load` asks for results of steps by parameter name, and what it returns is the `model` that `predict` may ask for; the
one other parameter of `predict` gets the request's JSON. What `modules` import, `nursery` has imported ahead. Rules:

- the socket appears once all is loaded and the sample, if any, was answered: who can connect finds it ready;
- `POST /` and `POST /predict` answer what `predict` returned as JSON, a single number (or a member `prediction`) also
  as the header x-branchline-prediction, from which a later outcome gets its error;
- `GET /-/health` answers with the nonce, so that nobody takes another server for this one;
- a plain `predict` is called by one thread, one request at a time; an `async def` one is awaited, any number at a time;
- what it raises is told in the log, never to the caller; but for an exception that says `refuses = 422` (400 to 499):
  that is the caller's mistake, and its text is the answer.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from branchline.sdk import binding, values

NONCE_HEADER = b"x-envoy-upstream-healthchecked-cluster"
PREDICTION_HEADER = b"x-branchline-prediction"
LONGEST_BODY = 32 << 20
KEEP_ALIVE = 3700  # seconds; more than the gateway's hour, so that it never sends into a connection we are closing
# What running uvicorn imports besides itself, as late as it can.
AHEAD = ("", ".lifespan.on", ".loops.auto", ".protocols.http.auto", ".protocols.websockets.auto", ".server")
CALLERS = (__file__, futures.thread.__file__)
NO_SERVER = "branchline: no ASGI server in this environment: add uvicorn to its requirements and lock them again"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Predict = Callable[[Any], Any]
Answer = tuple[int, bytes, list[tuple[bytes, bytes]]]


class TooLong(Exception):
    """The request's body is longer than is taken."""


class Gone(Exception):
    """The caller left before the request was there."""


class App:
    """The ASGI application around a bound `predict`."""

    def __init__(self, predict: Predict, nonce: str, sample: Any = None) -> None:
        self.predict, self.nonce, self.sample = predict, nonce, sample
        self.waits = inspect.iscoroutinefunction(predict)
        self.thread = ThreadPoolExecutor(1, "predict")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Get warm, or answer one request."""
        if scope["type"] == "lifespan":
            await self.live(receive, send)
            return
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        try:
            status, body, headers = await self.answer(scope["method"], scope["path"], receive)
        except Gone:
            return
        kind = b"application/problem+json" if status >= 400 else b"application/json"
        headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *headers]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def live(self, receive: Receive, send: Send) -> None:
        """Answer the sample before the server listens, so that no caller waits for what happens only the first time."""
        await receive()
        try:
            if self.sample is not None:
                encoded(await self.called(self.sample))
        except Exception as error:  # noqa: BLE001 - told, and nothing listens
            tell(error)
            await send({"type": "lifespan.startup.failed", "message": "branchline: the sample could not be answered"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if reporter := sys.modules.get("branchline.sdk.reporter"):
            reporter.flush_all()  # uvicorn ends by the signal that it got, after which nothing is called any more
        await send({"type": "lifespan.shutdown.complete"})

    async def answer(self, method: str, path: str, receive: Receive) -> Answer:
        """Status, body and headers for one request."""
        if path == "/-/health":
            return 200, b'{"ready": true}', [(NONCE_HEADER, self.nonce.encode())]
        if path not in ("/", "/predict"):
            return problem(404, f"there is nothing at {path}")
        if method != "POST":
            status, body, _ = problem(405, f"{method} is not answered here; POST the request as JSON")
            return status, body, [(b"allow", b"POST")]
        try:
            request = json.loads(await body_of(receive))
        except TooLong:
            return problem(413, f"a request has at most {LONGEST_BODY} bytes")
        except (ValueError, RecursionError) as error:
            return problem(400, f"the request is no JSON: {error}")
        try:
            answered = await self.called(request)
            body = encoded(answered)
        except Exception as error:  # noqa: BLE001 - what the service raises is one failed request; the server goes on
            if (status := getattr(error, "refuses", 0)) in range(400, 500):
                return problem(status, str(error))
            tell(error)
            return problem(500, "predict failed; its traceback is in the log of the revision")
        number = prediction(answered)
        return 200, body, [] if number is None else [(PREDICTION_HEADER, repr(number).encode())]

    async def called(self, request: Any) -> Any:
        """What predict returns."""
        if self.waits:
            return await self.predict(request)
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.predict, request)


def tell(error: BaseException) -> None:
    """Print what a service raised with its own frames only: those before them are of whoever called it."""
    trace = last = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename in CALLERS:
            last = trace.tb_next
        trace = trace.tb_next
    traceback.print_exception(type(error), error, last)


async def body_of(receive: Receive) -> bytes:
    """The whole body; raises TooLong, or Gone when the caller left."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LONGEST_BODY:
            raise TooLong
        if not message.get("more_body"):
            return b"".join(parts)


def problem(status: int, detail: str) -> Answer:
    """An answer that says what is wrong (RFC 9457)."""
    titles = {400: "Bad request", 404: "Not found", 405: "Method not allowed", 413: "Too long", 500: "Predict failed"}
    return status, encoded({"title": titles.get(status, "Refused"), "status": status, "detail": detail}), []


def prediction(answer: Any) -> float | None:
    """The one number that an answer is about, if it is about one: itself, or its member `prediction`."""
    if isinstance(answer, dict):
        answer = answer.get("prediction")
    if hasattr(answer, "tolist"):
        answer = answer.tolist()
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    if isinstance(answer, int | float) and math.isfinite(answer):
        return float(answer)
    return None


def encoded(answer: Any) -> bytes:
    """The answer as JSON; raises TypeError or ValueError for what JSON has no form for."""
    return json.dumps(answer, default=values.plain, allow_nan=False).encode()


def loaded(spec: dict[str, Any]) -> Predict:
    """Load the model and bind `predict` to all but the request; raises binding.Unbound and what the code raises."""
    results = {name: Path(path) for name, path in spec.get("results", {}).items()}
    parameters = spec.get("parameters", {})
    predict = binding.function(spec["predict"])
    given = {}
    if spec.get("load"):
        load = binding.function(spec["load"])
        arguments, _ = binding.bind(load, results=results, parameters=parameters)
        given["model"] = load(**arguments)
        results.pop("model", None)  # what load made of it comes first
    arguments, free = binding.bind(predict, results=results, parameters=parameters, given=given, free="the request")

    if inspect.iscoroutinefunction(predict):

        async def awaited(request: Any) -> Any:
            return await predict(**arguments, **{free: request})

        return awaited
    return lambda request: predict(**arguments, **{free: request})


def main() -> None:
    """Load, warm, listen; a line in the log says why when it cannot."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import uvicorn  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        sys.exit(NO_SERVER)
    spec = json.loads(Path(os.environ["BRANCHLINE_SERVICE_SPEC"]).read_text(encoding="utf-8"))
    try:
        predict = loaded(spec)
    except binding.Unbound as error:
        sys.exit(f"branchline: {spec['predict']} cannot be served: {error}")
    sample = json.loads(Path(spec["sample"]).read_text(encoding="utf-8")) if spec.get("sample") else None
    app = App(predict, os.environ["BRANCHLINE_NONCE"], sample)
    uvicorn.run(
        app,
        uds=os.environ["BRANCHLINE_SOCKET"],
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
    )


if __name__ == "__main__":
    main()
