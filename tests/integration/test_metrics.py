"""This file scrapes a real daemon with a real gateway as a Prometheus does (3.28), and holds the files for it to that.

The format is read by a strict reader of our own; where a machine can have promtool and Prometheus, by those as well.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn

from branchline.app import Daemon
from branchline.errors import PortTaken, UsageError
from branchline.ports import Group, Stamp
from branchline.server.exposition import FAMILIES, exposition
from branchline.server.metrics import address, kept, listening, samples, scraped
from branchline.settings import metrics_port
from tests import prometheus
from tests.exposition import Family, parsed, value
from tests.gateways import Gateway, living
from tests.places import Place
from tests.upstreams import Backyard, loop_in_thread
from tests.waiting import wait_until

ALERTS = Path(__file__).resolve().parents[2] / "docs" / "observability" / "alerts.yml"
A, B = "a" * 40, "b" * 40
ONE = Stamp(1, 1)
# Told of who is under test alone: tests/stories/test_standing.py has somebody.
OF_TESTS = {name for name in FAMILIES if name.startswith(("branchline_metric_", "branchline_guardrail_"))}


def checked(text: str) -> dict[str, Family]:
    """The families, once promtool found nothing wrong either."""
    if program := prometheus.program("promtool"):
        told = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, text=True)
        assert told.returncode == 0, told.stderr + told.stdout
    return parsed(text)


def ask(url: str, **headers: str) -> tuple[int, str, str]:
    """Status, content type and text of an answer."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=20)
    try:
        connection.request("GET", f"{where.path}?{where.query}", headers=headers)
        answer = connection.getresponse()
        return answer.status, str(answer.headers["content-type"]), answer.read().decode()
    finally:
        connection.close()


def test_what_was_sent_is_what_is_scraped(tmp_path: Path, runtime_dir: Path) -> None:
    with living(Place(tmp_path).settings, runtime_dir) as (daemon, real):
        first = real.backyard.add(A, "1.0.0")
        second = real.backyard.add(B, "1.1.0", pins=("1.1.0",), delay=0.15)
        real.serve((first, 100), (second, 0))
        real.units(20)
        begun = time.monotonic()
        for _ in range(3):
            real.ask("/housing@1.1.0/")
        second.status = 500
        real.ask("/housing@1.1.0/")
        took = time.monotonic() - begun

        def counted() -> dict[str, Family]:
            return checked(exposition(samples(daemon)))

        def whole() -> bool:
            found, named = counted(), {"service": "housing", "revision": "1.1.0"}
            return (
                "branchline_request_seconds" in found
                and value(found, "branchline_request_seconds", "_count", **named) == 4
            )

        assert wait_until(whole, most=0.5)
        found = counted()
        named = {"service": "housing", "revision": "1.1.0"}
        of = {code: value(found, "branchline_requests_total", **named, code_class=code) for code in ("2xx", "5xx")}
        assert of == {"2xx": 3, "5xx": 1}
        first_named = {"service": "housing", "revision": "1.0.0", "code_class": "2xx"}
        assert value(found, "branchline_requests_total", **first_named) == 20
        assert value(found, "branchline_request_seconds", "_bucket", **named, le="0.1") == 0
        assert value(found, "branchline_request_seconds", "_bucket", **named, le="+Inf") == 4
        assert 0.6 <= value(found, "branchline_request_seconds", "_sum", **named) < 1.1 * took, "bins have a width"
        assert value(found, "branchline_gateway_up") == 1
        assert value(found, "branchline_gateway_requests_total", code_class="2xx") == 23
        assert value(found, "branchline_gateway_rejected_documents_total", document="rds") == 0
        assert value(found, "branchline_pass_seconds", "_count", **{"pass": "judge"}) > 0
        assert value(found, "branchline_ledger_bytes") > 0
        assert value(found, "branchline_disk_free_bytes") > 0
        assert value(found, "branchline_troubles", service="") == 0


PRINTS = "import signal; print('WARNING: x\\nTraceback (most recent call last):', flush=True); signal.pause()"


def test_every_family_is_served_and_no_other(tmp_path: Path, runtime_dir: Path) -> None:
    """What dashboard and rules are about; and 3.20, from the log and the threads of a real process."""
    with living(Place(tmp_path).settings, runtime_dir) as (daemon, real):
        real.serve((real.backyard.add(A, "1.0.0"), 100))
        real.units(1)
        group = Group("housing", A, "1.0.0", "staging", (sys.executable, "-c", PRINTS), tmp_path, {}, "/")
        daemon.ports.launcher.launch(group, ONE)
        named = {"service": "housing", "revision": "1.0.0"}

        def outcomes(found: dict[str, Family]) -> list[float]:
            told = {"service": "housing"}
            return [value(found, "branchline_outcomes_total", **told, word=word) for word in ("kept", "unknown")]

        def served() -> bool:
            found = checked(exposition(samples(daemon, {("housing", "unknown"): 3})))
            return (
                found.keys() == FAMILIES.keys() - OF_TESTS
                and outcomes(found) == [0, 3]
                and all(
                    value(found, f"branchline_{what}", **named) == 1
                    for what in ("process_threads", "log_warnings_total", "log_exceptions_total")
                )
            )

        assert wait_until(served, most=0.5)


def test_a_real_prometheus_scrapes_it_and_takes_the_rules(tmp_path: Path, runtime_dir: Path) -> None:
    """Where a machine has one; elsewhere the strict reader has to do."""
    program = prometheus.program("prometheus")
    if not program:
        return
    with living(Place(tmp_path).settings, runtime_dir) as (daemon, real):
        real.serve((real.backyard.add(A, "1.0.0"), 100))
        real.units(5)
        with scraping(daemon) as url, socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
            free.close()
            config = {
                "global": {"evaluation_interval": "1s"},
                "rule_files": [str(ALERTS)],
                "scrape_configs": [
                    {
                        "job_name": "branchline", "scrape_interval": "1s",
                        "static_configs": [{"targets": [urlsplit(url).netloc]}],
                    }
                ],
            }  # fmt: skip
            (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
            argv = [program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/series",
                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
            with subprocess.Popen(argv) as server:
                try:
                    query = f"http://127.0.0.1:{port}/api/v1/query?query=sum(branchline_requests_total)"
                    assert wait_until(lambda: '"5"]' in told(query), most=0.5)
                    rules = f"http://127.0.0.1:{port}/api/v1/rules"
                    wanted = ALERTS.read_text().count("- alert:")
                    assert wait_until(lambda: told(rules).count('"health":"ok"') == wanted, most=0.5)
                    assert told(rules).count('"type":"alerting"') == wanted
                finally:
                    server.terminate()


def told(url: str) -> str:
    """What a server answers; '' before it listens."""
    try:
        return ask(url)[2]
    except OSError:
        return ""


@contextmanager
def scraping(daemon: Daemon) -> Iterator[str]:
    """The address of a daemon's metrics, which answers meanwhile."""
    found = listening(daemon.settings.state, None)
    assert found is not None
    server = uvicorn.Server(uvicorn.Config(scraped(daemon), log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[found])))
    thread.start()
    try:
        yield address(daemon.settings.state)
    finally:
        server.should_exit = True
        thread.join()
        found.close()


def test_a_reader_that_is_behind_says_how_far(tmp_path: Path, runtime_dir: Path) -> None:
    """I10: the alert is on it; what is pinned is no exposure, and is read like all else."""
    daemon = Daemon(Place(tmp_path).settings)  # whose threads are not started: nobody reads
    try:
        with loop_in_thread() as loop:
            made = Gateway(daemon.gateway.envoy.folder, runtime_dir, Backyard(runtime_dir, loop))
            made.writer = daemon.gateway
            made.serve((made.backyard.add(A, "1.0.0", pins=("1.0.0",)), 100))
            made.ask("/housing@1.0.0/")

            def unread(what: str) -> float:
                return value(checked(exposition(samples(daemon))), f"branchline_exposures_unread_{what}")

            assert wait_until(lambda: unread("lines") == 1)
            assert daemon.controller.read_exposures() == 0
            assert (unread("lines"), unread("seconds")) == (0, 0)
            made.units(7)
            assert wait_until(lambda: unread("lines") >= 7)
            assert wait_until(lambda: unread("seconds") > 0.5)
            assert unread("bytes") > 700
            daemon.controller.read_exposures()
            assert (unread("lines"), unread("seconds")) == (0, 0)
            made.backyard.close()
    finally:
        daemon.stop(everything=True)


def test_a_daemon_is_scraped_at_the_same_address_after_a_restart(
    tmp_path: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRANCHLINE_METRICS_PORT", raising=False)
    place = Place(tmp_path)
    try:
        assert place.run("up").returncode == 0
        url = place.read("status")["metrics"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        status, kind, text = ask(url)
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert "branchline_build_info" in checked(text)
        assert ask(url, host="evil.example.org")[0] == 400
        assert ask(url.removesuffix("metrics"))[0] == 404
        assert place.run("down").returncode == 0
        assert place.run("up").returncode == 0
        assert place.read("status")["metrics"] == url
        assert ask(url)[0] == 200
        assert place.run("down").returncode == 0
        monkeypatch.setenv("BRANCHLINE_METRICS_PORT", "off")
        assert place.run("up").returncode == 0
        assert place.read("status")["metrics"] == ""
    finally:
        place.run("down")


def test_a_port_that_somebody_else_has_stops_nothing_and_is_told(
    tmp_path: Path, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("BRANCHLINE_METRICS_PORT", str(port))
        try:
            assert place.run("up").returncode == 0
            found = place.read("status")
            assert found["metrics"] == ""
            assert any(
                text.startswith(f"BL504: The address 127.0.0.1:{port} is taken") and "BRANCHLINE_METRICS_PORT=N" in text
                for text in found["troubles"]
            )
        finally:
            place.run("down")


def test_a_port_that_is_none_is_said_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRANCHLINE_METRICS_PORT", "many")
    told = Place(tmp_path).type("up")
    assert told.exit_code == 2
    assert "BRANCHLINE_METRICS_PORT is neither a port nor off: 'many'" in told.stderr
    assert "BRANCHLINE_METRICS_PORT=9187 branchline up" in told.stderr


@pytest.mark.parametrize("text", ["0", "65536", "-1", "9.5", "９", "on"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        metrics_port({"BRANCHLINE_METRICS_PORT": text})


@pytest.mark.parametrize(("text", "port"), [("", None), ("off", 0), ("9187", 9187)])
def test_a_port_is_read_from_the_environment(text: str, port: int | None) -> None:
    assert metrics_port({"BRANCHLINE_METRICS_PORT": text}) == port


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"port": "x"}', '{"port": 0}', '{"port": 70000}'])
def test_a_spoilt_memory_of_the_port_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    assert (kept(tmp_path), address(tmp_path)) == (0, "")


def test_a_port_is_kept_until_it_is_wanted_off(tmp_path: Path) -> None:
    found = listening(tmp_path, None)
    assert found is not None
    with found:
        port = found.getsockname()[1]
        assert json.loads((tmp_path / "metrics.json").read_text()) == {"port": port}
        with pytest.raises(PortTaken):
            listening(tmp_path, None)
    again = listening(tmp_path, None)
    assert again is not None
    with again:
        assert again.getsockname()[1] == port
    assert listening(tmp_path, 0) is None
    assert kept(tmp_path) == 0
