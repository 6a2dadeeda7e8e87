"""This file watches a service that really serves, by the commands a person has: rates, processes, log (3.20)."""

from __future__ import annotations

import http.client
import signal
from urllib.parse import urlsplit

from tests.exposition import parsed, value
from tests.servers import SERVER
from tests.typed import PATIENCE, Document, Shell, app

BAD = """\
status = 200
        if self.path == "/bad":
            status = 500
            print("WARNING: that was bad\\nTraceback (most recent call last):", flush=True)
"""
NAMED = {"service": "shop", "revision": "1.0.0"}


def server() -> str:
    """One that complains of what is bad."""
    found = SERVER.replace('status = 500 if mode == "fails" else 200\n', BAD)
    assert found != SERVER
    return found


def scraped(shell: Shell) -> str:
    """What a Prometheus would get."""
    where = urlsplit(shell.ask("status")["metrics"])
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=PATIENCE)
    try:
        connection.request("GET", where.path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def test_what_was_sent_is_seen_by_every_command(own: Shell) -> None:
    own.type("up")
    own.first("shop", {**app("shop"), "shop/server.py": server()})

    def row() -> Document:
        found: Document = own.ask("status", "shop")["services"][0]["rows"][0]
        return found

    batches, seen = 0, False

    def send() -> None:
        nonlocal batches
        statuses = [own.call(f"/shop/{path}").status for path in ["good"] * 15 + ["bad"] * 5]
        assert statuses == [200] * 15 + [500] * 5
        batches += 1

    def told(rates: Document) -> bool:
        return bool(rates) and (rates["requests"], rates["failed"]) == (20, 5) and rates["p99_ms"] is not None

    def counted() -> bool:  # whoever was too slow to see the ten seconds in which it is so sends again
        nonlocal seen
        rates = own.row("shop@incumbent").get("rates") or {}
        if seen and rates.get("requests") == 0:
            send()
            seen = False
        seen = seen or bool(rates.get("requests"))
        return told(rates) and told(row()["rates"] or {})

    (daemon,) = [each["text"] for each in own.ask("doctor")["findings"] if each["name"] == "daemon"]
    assert daemon.endswith(f", metrics at {own.ask('status')['metrics']}")
    own.until("somebody has looked", lambda: row()["rates"])
    assert "branchline_requests_total" not in parsed(scraped(own))
    with own.begin("logs", "-f", "shop@1.0.0", "-n", "1") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "well starts\n"
        send()
        lines = [following.stdout.readline() for _ in range(10)]
        assert lines == ["WARNING: that was bad\n", "Traceback (most recent call last):\n"] * 5
        following.send_signal(signal.SIGINT)
        assert following.wait(PATIENCE) == 130
    own.until("the requests of the last ten seconds are told", counted)

    def logged() -> bool:
        processes = row()["processes"]
        return bool(processes["warnings"] == processes["exceptions"] == 5 * batches)

    own.until("its log is counted", logged)
    assert row()["processes"]["threads"] >= 1
    lines = own.type("status", "shop").out.splitlines()
    assert any(line.split()[:1] == ["LAST"] for line in lines), lines
    found = parsed(scraped(own))
    assert value(found, "branchline_requests_total", **NAMED, code_class="2xx") == 15 * batches
    assert value(found, "branchline_requests_total", **NAMED, code_class="5xx") == 5 * batches
    assert value(found, "branchline_log_warnings_total", **NAMED) == 5 * batches
