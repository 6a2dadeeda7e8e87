"""This file is what a Prometheus scrapes: one address for the gateway's counters and the daemon's own.

It is plain text over HTTP on the loopback address, for a Prometheus takes neither Unix sockets nor files. What is told
was looked at a few seconds ago at most; scraping asks the gateway nothing. The port is kept in the state folder, so
that it stays over restarts.
"""

from __future__ import annotations

import json
import random
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

import branchline
from branchline.app import Daemon, write_whole
from branchline.errors import PortTaken
from branchline.server.exposition import Sample, exposition, histogram
from branchline.server.standing import of_tests

HOST = "127.0.0.1"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
WORDS = ("kept", "duplicate", "late", "unmeasured", "unknown", "conflict", "refused")
NOTHING: Mapping[tuple[str, str], int] = {}


# ------------------------------------------------------------------------------------------------ what is told


def samples(daemon: Daemon, outcomes: Mapping[tuple[str, str], int] = NOTHING) -> Iterator[Sample]:
    """Every value of this moment; `outcomes` is what became of them, by service and word."""
    yield "branchline_build_info", "", {"version": branchline.__version__}, 1
    yield from of_revisions(daemon)
    yield from of_gateway(daemon)
    for service in sorted({*daemon.controller.services(), *(name for name, _ in list(outcomes))}):
        for word in WORDS:
            yield "branchline_outcomes_total", "", {"service": service, "word": word}, outcomes.get((service, word), 0)
    yield from of_tests(daemon.controller)
    for name, passed in sorted(daemon.passed.items()):
        yield "branchline_pass_seconds", "_sum", {"pass": name}, passed.seconds
        yield "branchline_pass_seconds", "_count", {"pass": name}, passed.times
        yield "branchline_pass_failures_total", "", {"pass": name}, passed.failures
    troubles = Counter(owner for owner, _ in list(daemon.controller.troubles))
    for service in sorted({"", *daemon.controller.services(), *troubles}):
        yield "branchline_troubles", "", {"service": service}, troubles[service]
    ledger = daemon.settings.state / "ledger.sqlite3"
    yield "branchline_ledger_bytes", "", {}, sum(map(size, (ledger, ledger.with_name(ledger.name + "-wal"))))
    yield "branchline_disk_free_bytes", "", {}, shutil.disk_usage(daemon.settings.state).free


def of_revisions(daemon: Daemon) -> Iterator[Sample]:
    """What each revision was asked, and how its processes are."""
    gauging = daemon.controller.reader.gauging
    for (service, version), total in sorted(gauging.totals().items()):
        named = {"service": service, "revision": version}
        for word in CLASSES:  # also what never was: an alert is on a counter that grows, not on one that begins
            yield "branchline_requests_total", "", {**named, "code_class": word}, total.codes.get(word, 0)
        yield from histogram("branchline_request_seconds", named, total)
        yield "branchline_active_requests", "", named, total.active
    for (service, version), vital in sorted(gauging.vitals.items()):
        named = {"service": service, "revision": version}
        yield "branchline_process_threads", "", named, vital.threads
        yield "branchline_log_warnings_total", "", named, vital.warnings
        yield "branchline_log_exceptions_total", "", named, vital.exceptions


def of_gateway(daemon: Daemon) -> Iterator[Sample]:
    """The gateway's process, and the log that exposures are read from."""
    counted, meter = daemon.ports.gauges.gateway(), daemon.ports.meter
    yield "branchline_gateway_up", "", {}, int(bool(daemon.gateway.envoy.pid))
    for word in CLASSES:
        yield "branchline_gateway_requests_total", "", {"code_class": word}, counted[word]
    yield "branchline_gateway_connections", "", {}, counted["connections"]
    yield "branchline_gateway_memory_bytes", "", {}, counted["memory"]
    for kind in ("cds", "lds", "rds"):
        yield "branchline_gateway_rejected_documents_total", "", {"document": kind}, counted[f"rejected {kind}"]
    unread = meter.behind(daemon.ports.observations.position())
    yield "branchline_exposures_unread_lines", "", {}, unread.lines
    yield "branchline_exposures_unread_bytes", "", {}, unread.bytes
    yield "branchline_exposures_unread_seconds", "", {}, unread.seconds
    yield "branchline_exposures_lost", "", {}, meter.loss()
    yield "branchline_exposures_dropped", "", {}, meter.dropped()


def size(path: Path) -> int:
    """The size of a file; 0 when it is not there."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


# ------------------------------------------------------------------------------------------------ where it listens


def scraped(daemon: Daemon, outcomes: Mapping[tuple[str, str], int] = NOTHING) -> FastAPI:
    """The application behind the address; it answers to the names of this machine alone, not to a page's."""
    app = FastAPI(title="Branchline metrics", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])

    @app.get("/metrics")
    def metrics() -> PlainTextResponse:
        return PlainTextResponse(exposition(samples(daemon, outcomes)), media_type=PLAIN)

    return app


def address(state: Path) -> str:
    """Where the metrics were told last; '' when nowhere."""
    port = kept(state)
    return f"http://{HOST}:{port}/metrics" if port else ""


def listening(state: Path, wanted: int | None) -> socket.socket | None:
    """A socket at the port that is wanted, else at the one it was, else at a free one; None when it is to be off.

    Raises PortTaken: a Prometheus knows the port, so none is chosen in its place.
    """
    port = kept(state) if wanted is None else wanted
    if wanted == 0:
        (state / "metrics.json").unlink(missing_ok=True)
        return None
    choice = random.SystemRandom()
    tried = [port] if port else [choice.randrange(20000, 32000) for _ in range(200)]  # below those of outgoing lines
    for each in tried:
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, each))
            found.listen(16)
        except OSError:
            found.close()
            continue
        write_whole(state / "metrics.json", json.dumps({"port": each}))
        return found
    hint = "branchline down --daemon-only; BRANCHLINE_METRICS_PORT=N branchline up"
    raise PortTaken(f"nothing can be scraped; next: {hint}", address=f"{HOST}:{port}", hint=hint)


def kept(state: Path) -> int:
    """The port that was listened at last; 0 when there was none, or nobody can read it."""
    try:
        port = json.loads((state / "metrics.json").read_text(encoding="utf-8"))["port"]
    except (OSError, ValueError, LookupError, TypeError):
        return 0
    return port if isinstance(port, int) and 0 < port < 65536 else 0
