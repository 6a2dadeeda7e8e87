"""This file asks a service at a fixed rate and measures it: `python -P -m branchline.sdk.load --url URL --rps 50 ...`.

The load is open: request number i is due at i/rps whatever became of those before, and its latency counts from the
moment it was due, so that a server that stalls cannot hide the requests it kept from being sent (coordinated omission;
Tene, "How NOT to measure latency"). Prints one line of JSON: sent, failed, p50_ms, p99_ms, max_ms, rps, seconds. A
request has failed without an answer, or with a status of 400 and above. `--url unix:/path/of.sock:/predict` asks a
Unix socket.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MOST_SENDERS = 64


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass
class Load:
    """What is sent where, how often and for how long; senders share `due` and `taken`."""

    url: str
    rps: float
    seconds: float
    bodies: Sequence[bytes]
    headers: dict[str, str]
    timeout: float = 10.0
    taken: int = 0
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def connection(self) -> tuple[HTTPConnection, str]:
        """A connection that is not open yet, and the path to ask for."""
        if self.url.startswith("unix:"):
            path, _, target = self.url.removeprefix("unix:").partition(":")
            return UnixConnection(path, self.timeout), target or "/"
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return kind(parts.hostname or "127.0.0.1", parts.port, timeout=self.timeout), target


def measured(load: Load) -> dict[str, float]:
    """Send everything and return the figures."""
    total = max(1, round(load.rps * load.seconds))
    begun = time.monotonic() + 0.05
    count = min(MOST_SENDERS, total, max(4, math.ceil(load.rps / 4)))
    senders = [threading.Thread(target=send, args=(load, begun, total), daemon=True) for _ in range(count)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    took = time.monotonic() - begun
    times = sorted(load.latencies)
    return {
        "sent": len(times),
        "failed": load.failed,
        "p50_ms": round(quantile(times, 0.50) * 1000, 3),
        "p99_ms": round(quantile(times, 0.99) * 1000, 3),
        "max_ms": round(times[-1] * 1000, 3),
        "rps": round(len(times) / took, 2),
        "seconds": round(took, 3),
    }


def send(load: Load, begun: float, total: int) -> None:
    """Be one sender: take the next request that is due, wait for its time, send it, measure from its time."""
    connection, target = load.connection()
    while True:
        with load.lock:
            number = load.taken
            load.taken += 1
        if number >= total:
            break
        due = begun + number / load.rps
        time.sleep(max(0.0, due - time.monotonic()))
        good = False
        with suppress(OSError, HTTPException):
            headers = {"x-branchline-unit": f"load-{number}", "content-type": "application/json", **load.headers}
            connection.request("POST", target, load.bodies[number % len(load.bodies)], headers)
            answer = connection.getresponse()
            answer.read()
            good = answer.status < 400
        took = time.monotonic() - due
        if not good:
            connection.close()
        with load.lock:
            load.latencies.append(took)
            load.failed += not good
    connection.close()


def quantile(times: Sequence[float], share: float) -> float:
    """The smallest time that at least this share of the sorted times does not exceed (nearest rank)."""
    return times[max(0, math.ceil(share * len(times)) - 1)]


def bodies_of(sample: Path | None) -> list[bytes]:
    """Request bodies: each line of a `.jsonl` file, else the whole file; `{}` without one."""
    if sample is None:
        return [b"{}"]
    if sample.suffix == ".jsonl":
        return [line for line in sample.read_bytes().splitlines() if line.strip()] or [b"{}"]
    return [sample.read_bytes()]


def main(arguments: Sequence[str]) -> None:
    """Read the command line, send, print the figures."""
    parser = argparse.ArgumentParser(prog="branchline.sdk.load", description="Ask a service at a fixed rate.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--rps", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--sample", type=Path)
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    parser.add_argument("--timeout", type=float, default=10.0)
    given: Any = parser.parse_args(arguments)
    if not (given.rps > 0 and given.seconds > 0):
        parser.error("--rps and --seconds are more than 0")
    headers = {name.strip(): value.strip() for name, _, value in (header.partition(":") for header in given.header)}
    load = Load(given.url, given.rps, given.seconds, bodies_of(given.sample), headers, given.timeout)
    print(json.dumps(measured(load)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
