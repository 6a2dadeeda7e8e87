"""This file tests asking `housing`, with a small gateway in its place that answers, fails, or is not there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from valuation import estimate


@contextmanager
def gateway(monkeypatch: pytest.MonkeyPatch, status: int, answer: Any) -> Iterator[dict[str, Any]]:
    """A gateway whose `housing` always answers the same; yields what it was asked last."""
    asked: dict[str, Any] = {}

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.update(path=self.path, facts=json.loads(body), headers=dict(self.headers))
            self.send_response(status)
            self.send_header("x-branchline-revision", "housing@1.0.0")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Gateway) as server:
        monkeypatch.setenv("BRANCHLINE_GATEWAY", f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_housing_is_asked_for_the_same_unit_and_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"x-branchline-unit": "me", "traceparent": "00-1-2-01", "cookie": "secret"}
    with gateway(monkeypatch, 200, {"prediction": 1234.5}) as asked:
        assert estimate({"area": 1}, headers) == {"estimate": 1234, "by": "housing@1.0.0"}
    assert (asked["path"], asked["facts"]) == ("/housing/", {"area": 1})
    assert {name: asked["headers"].get(name) for name in headers} == {**headers, "cookie": None}


@pytest.mark.parametrize(("status", "answer"), [(503, {"title": "down"}), (200, {"prediction": None}), (200, [])])
def test_there_is_no_estimate_without_a_number(monkeypatch: pytest.MonkeyPatch, status: int, answer: Any) -> None:
    with gateway(monkeypatch, status, answer):
        assert estimate({}, {}) is None


def test_there_is_no_estimate_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRANCHLINE_GATEWAY", "http://127.0.0.1:1")
    assert estimate({}, {}) is None


def test_who_does_not_answer_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valuation.SECONDS", 0.05)
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as silent:  # connections wait in its backlog
        monkeypatch.setenv("BRANCHLINE_GATEWAY", f"http://127.0.0.1:{silent.server_port}")
        assert estimate({}, {}) is None
