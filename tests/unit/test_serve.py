"""This file tests the server around a predict function without a socket: requests go in as messages (1.16, 3.13)."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from branchline.sdk.serve import LONGEST_BODY, App, Predict, prediction


class Number:
    """What an array library's number looks like from here."""

    def __init__(self, value: float) -> None:
        self.value = value

    def tolist(self) -> float:
        return self.value


def ask(app: App, body: bytes | None = b"{}", path: str = "/", method: str = "POST", times: int = 1) -> Any:
    """Status, headers and JSON of one answer; None when nothing was answered."""
    incoming: list[dict[str, Any]] = [{"type": "http.disconnect"}]
    if body is not None:
        incoming = [{"type": "http.request", "body": body, "more_body": n < times - 1} for n in range(times)]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "method": method, "path": path}, receive, send))
    if not sent:
        return None
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(sent[1]["body"])


def app(predict: Predict) -> App:
    return App(predict, "f00d")


def refuse(request: Any) -> Any:
    raise RuntimeError("secret of the service")


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_the_request_goes_in_and_the_answer_comes_out(path: str) -> None:
    status, headers, document = ask(app(lambda request: {"twice": request["x"] * 2}), b'{"x": 4}', path)
    assert (status, document) == (200, {"twice": 8})
    assert headers[b"content-type"] == b"application/json"
    assert b"x-branchline-prediction" not in headers


@pytest.mark.parametrize("answer", [184000.5, Number(184000.5), {"prediction": 184000.5}, {"prediction": [184000.5]}])
def test_the_one_number_of_an_answer_is_a_header_too(answer: Any) -> None:
    """An outcome that tells the truth later gets its error from it."""
    _, headers, _ = ask(app(lambda request: answer))
    assert headers[b"x-branchline-prediction"] == b"184000.5"


@pytest.mark.parametrize("answer", ["a", None, [1, 2], {"other": 1}, {"prediction": "a"}, math.inf])
def test_an_answer_about_no_one_number_has_no_header(answer: Any) -> None:
    assert prediction(answer) is None


def test_an_async_predict_is_awaited() -> None:
    async def predict(request: Any) -> Any:
        return request

    assert ask(app(predict), b"[1]")[2] == [1]


def test_a_body_in_pieces_is_one_body() -> None:
    assert ask(app(lambda request: request), b"12", times=2)[2] == 1212


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"x": 1} trailing'])
def test_a_body_that_is_no_json_is_the_callers_mistake(body: bytes) -> None:
    status, headers, document = ask(app(lambda request: request), body)
    assert (status, document["status"], headers[b"content-type"]) == (400, 400, b"application/problem+json")


def test_a_body_that_is_too_long_is_not_read_to_its_end() -> None:
    assert ask(app(lambda request: request), b"1" * (LONGEST_BODY // 2 + 1), times=4)[0] == 413


def test_what_predict_raises_is_for_the_log_and_not_for_the_caller(capfd: pytest.CaptureFixture[str]) -> None:
    status, _, document = ask(app(refuse))
    assert status == 500
    assert "secret" not in json.dumps(document)
    assert "secret of the service" in capfd.readouterr().err


@pytest.mark.parametrize(("refuses", "status"), [(422, 422), (404, 404), (500, 500), (200, 500), ("422", 500)])
def test_predict_says_no_with_a_status_of_the_callers_and_nothing_else(refuses: Any, status: int) -> None:
    """Newcomer: bad input is the caller's mistake; a failure cannot be dressed up as one by chance."""

    def predict(request: Any) -> Any:
        raise type("Unreadable", (ValueError,), {"refuses": refuses})("text has to be a text")

    found, _, document = ask(app(predict))
    assert (found, document["status"]) == (status, status)
    assert (document["detail"] == "text has to be a text") is (status < 500)


def test_an_answer_that_is_no_json_is_a_failed_request(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(app(lambda request: object()))[0] == 500
    assert ask(app(lambda request: math.nan))[0] == 500
    assert "JSON has no form for a object" in capfd.readouterr().err


def test_health_carries_the_nonce() -> None:
    """F73."""
    status, headers, _ = ask(app(refuse), b"", "/-/health", "GET")
    assert (status, headers[b"x-envoy-upstream-healthchecked-cluster"]) == (200, b"f00d")


def test_other_paths_and_methods_are_told() -> None:
    assert ask(app(refuse), path="/else")[0] == 404
    status, headers, _ = ask(app(refuse), method="GET")
    assert (status, headers[b"allow"]) == (405, b"POST")


def test_a_caller_that_left_gets_nothing() -> None:
    assert ask(app(refuse), None) is None


def test_the_sample_is_answered_before_the_server_listens() -> None:
    asked: list[Any] = []
    made = App(lambda request: asked.append(request), "f00d", {"x": 1})
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    asyncio.run(made({"type": "lifespan"}, receive, send))
    assert (asked, sent) == ([{"x": 1}], ["lifespan.startup.complete", "lifespan.shutdown.complete"])


@pytest.mark.parametrize("waits", [False, True])
def test_a_sample_that_cannot_be_answered_keeps_the_server_from_listening(
    capsys: pytest.CaptureFixture[str], waits: bool
) -> None:
    """And the log begins with the service's own frames. Killer: let the server print all that led there."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def later(request: Any) -> Any:
        return refuse(request)

    asyncio.run(App(later if waits else refuse, "f00d", {"x": 1})({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.failed"]
    told = capsys.readouterr().err.splitlines()
    assert (told[0], told[-1]) == ("Traceback (most recent call last):", "RuntimeError: secret of the service")
    frames = [line for line in told if line.startswith("  File ")]
    assert len(frames) == (2 if waits else 1)
    assert all("test_serve.py" in frame for frame in frames)


def test_an_answer_without_a_form_in_json_is_told_as_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(app(lambda request: object()))[0] == 500
    told = capsys.readouterr().err
    assert "TypeError" in told
    assert "serve.py" not in told


def test_nothing_but_http_is_spoken() -> None:
    with pytest.raises(NotImplementedError):
        asyncio.run(app(refuse)({"type": "websocket"}, None, None))  # type: ignore[arg-type]
