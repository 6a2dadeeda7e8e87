"""This file says what every Looks and Readings does: the fakes, SQLite, and a Prometheus (issue 7: a Prometheus query).

A server that speaks the query API stands in for a Prometheus; where the machine can have one, a real one is asked, too.
"""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from branchline.adapters.prometheus import PrometheusReadings
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_looks import SqliteLooks
from branchline.core.counters import Look
from branchline.errors import QueryFailed, QueryRefused
from branchline.ports import Looks, Readings
from tests.fakes.queries import FakeLooks, FakeReadings
from tests.prometheus import program
from tests.waiting import wait_until

ARMS = ("old", "new")


@pytest.fixture(params=["fake", "sqlite"])
def looks(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Looks]:
    if request.param == "fake":
        yield FakeLooks()
        return
    file = SqliteFile(tmp_path / "ledger.sqlite3")
    yield SqliteLooks(file)
    file.close()


def test_looks_are_given_back_in_order_after_a_cursor(looks: Looks) -> None:
    for number in range(3):
        looks.keep("shop", "e1", ARMS, Look(0, "cart", 10.5 + number, (number, 0.5), (number, 0.0)))
    first, *rest = looks.since("shop", "e1", ARMS, 0)
    assert (first.guardrail, first.at, first.control, first.challenger) == ("cart", 10.5, (0, 0.5), (0, 0.0))
    assert [each.at for each in rest] == [11.5, 12.5]
    assert looks.since("shop", "e1", ARMS, first.order) == tuple(rest)
    assert looks.since("shop", "e1", ARMS, rest[-1].order) == ()


@pytest.mark.parametrize("of", [("shop", "e2", ARMS), ("other", "e1", ARMS), ("shop", "e1", ("new", "newer"))])
def test_looks_at_others_are_left_out(looks: Looks, of: tuple[str, str, tuple[str, str]]) -> None:
    """Killer: with the arms not asked, a new incumbent would inherit what was counted of the one before."""
    looks.keep("shop", "e1", ARMS, Look(0, "cart", 1.0, (1, 0), (1, 0)))
    assert looks.since(*of, 0) == ()


# ── a Prometheus ───────────────────────────────────────────────────────────────────────────────────────────────────


class Spoken(http.server.BaseHTTPRequestHandler):
    """The query API, as far as it is asked here: a query is the name of an answer."""

    answers: ClassVar[dict[str, tuple[int, Any]]] = {
        "seven": (200, {"resultType": "vector", "result": [{"metric": {}, "value": [1, "7.5"]}]}),
        "nothing": (200, {"resultType": "vector", "result": []}),
        "scalar": (200, {"resultType": "scalar", "result": [1, "3"]}),
        "nan": (200, {"resultType": "scalar", "result": [1, "NaN"]}),
        "two": (200, {"resultType": "vector", "result": [{"metric": {}, "value": [1, "7"]}] * 2}),
        "matrix": (200, {"resultType": "matrix", "result": []}),
    }
    times: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer one question."""
        asked = urlsplit(self.path)
        query = parse_qs(asked.query).get("query", [""])[0]
        self.times.append(parse_qs(asked.query).get("time", [""])[0])
        status, data = self.answers.get(query, (400, None))
        body = {"status": "success", "data": data} if status == 200 else {"status": "error", "error": "parse error"}
        text = b"<html>" if query == "html" else json.dumps(body).encode()
        self.send_response(502 if query == "html" else status if asked.path == "/prom/api/v1/query" else 404)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def spoken() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Spoken) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/prom/"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["fake", "http"])
def read(request: pytest.FixtureRequest, spoken: str) -> Callable[[str], float | None]:
    port: Readings = PrometheusReadings()
    if request.param == "fake":
        port = fake = FakeReadings()
        fake.numbers = {"seven": 7.5, "scalar": 3.0}.get
    return lambda query: port.read(spoken, query, 1_700_000_000.25)


def test_a_number_is_read_and_no_data_are_none(read: Callable[[str], float | None]) -> None:
    assert [read(query) for query in ("seven", "scalar", "nothing")] == [7.5, 3.0, None]


def test_it_is_asked_as_of_a_moment(spoken: str) -> None:
    """Killer: asked as of now each, four queries would be of four moments, and more may be bad than there are."""
    Spoken.times.clear()
    PrometheusReadings().read(spoken, "seven", 1_700_000_000.25)
    assert Spoken.times == ["1700000000.250"]


@pytest.mark.parametrize(("query", "said"), [("two", "2 series; sum(...) makes them one"), ("matrix", "a matrix"),
                                             ("wrong(", "parse error")])  # fmt: skip
def test_what_gives_no_number_is_told_in_words(spoken: str, query: str, said: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        PrometheusReadings().read(spoken, query, 1.0)
    assert said in refused.value.message


def test_a_number_that_is_none_is_no_data(spoken: str) -> None:
    assert PrometheusReadings().read(spoken, "nan", 1.0) is None


def test_what_is_no_answer_may_pass(spoken: str) -> None:
    with pytest.raises(QueryFailed):
        PrometheusReadings().read(spoken, "html", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(QueryFailed):
        PrometheusReadings().read(url, "seven", 1.0)


class Counted(http.server.BaseHTTPRequestHandler):
    """What a real Prometheus scrapes: requests of two revisions."""

    def do_GET(self) -> None:
        """Tell the counters."""
        rows = [f'shop_requests_total{{revision="{name}",code="{code}"}} {value}'
                for name, code, value in (("1.0.0", 200, 40), ("1.1.0", 200, 30), ("1.1.0", 500, 2))]  # fmt: skip
        text = ("# TYPE shop_requests_total counter\n" + "\n".join(rows) + "\n").encode()
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def real(binary: str, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes `Counted`; its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counted) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        targets = [{"targets": [f"127.0.0.1:{server.server_address[1]}"]}]
        config = {"scrape_configs": [{"job_name": "shop", "scrape_interval": "1s", "static_configs": targets}]}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        argv = [binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series",
                f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
        with subprocess.Popen(argv) as prometheus:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                prometheus.terminate()
        server.shutdown()
        thread.join()


def test_a_real_prometheus_is_understood(tmp_path: Path) -> None:
    """Where a machine can have one; elsewhere what speaks like it has to do."""
    binary = program("prometheus")
    if not binary:
        return
    with real(binary, tmp_path) as url:

        def read(query: str) -> float | None:
            return PrometheusReadings().read(url, query, time.time())

        def scraped() -> bool:
            try:
                return read('sum(shop_requests_total{revision="1.1.0"})') == 32
            except QueryFailed:
                return False

        assert wait_until(scraped, most=0.5)
        assert read('sum(shop_requests_total{revision="1.1.0",code=~"5.."})') == 2
        assert read('sum(shop_requests_total{revision="1.0.0",code=~"5.."})') is None
        with pytest.raises(QueryRefused, match="2 series"):
            read('shop_requests_total{revision="1.1.0"}')
        with pytest.raises(QueryRefused, match="parse error"):
            read("sum(")
