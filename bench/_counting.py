"""This file counts the instructions that an Envoy's thread needs for a request, under valgrind.

Rules. Envoy starts without being counted, which is faster, and is asked a while before it is: what happens once is not
of a request. It has one worker thread; the thread that worked most is that one.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

REQUESTS, BEFORE, CONNECTIONS = 600, 150, 8
PATIENCE = 300.0  # seconds until it serves


def counted(argv: Sequence[str], folder: Path, port: int, path: str, units: bool) -> float:
    """Start this Envoy and take it down; the instructions of one request of its worker."""
    told = folder / "counted"
    grind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=yes"]
    process = subprocess.Popen(
        [*grind, f"--callgrind-out-file={told}", *argv],
        env={**os.environ, "BRANCHLINE_BOOT": "1790000000000"},
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not served(port, path, units):
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{argv[0]} does not serve under valgrind")
            time.sleep(0.2)
        say(process.pid, "instrumentation", "on")
        ask(port, path, units, BEFORE)
        say(process.pid, "zero")
        ask(port, path, units, REQUESTS)
        say(process.pid, "dump")
        found = [each.read_text(errors="replace") for each in folder.glob("counted.1-*")]
    finally:
        process.terminate()
        process.wait()
    return max(int(total) for text in found for total in re.findall(r"^totals: (\d+)", text, re.M)) / REQUESTS


def say(pid: int, *words: str) -> None:
    """Tell valgrind what to do."""
    subprocess.run(["vgdb", f"--pid={pid}", *words], capture_output=True, check=True)


def served(port: int, path: str, units: bool) -> bool:
    """Whether a request is answered."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, path, units, 1)
    return False


def ask(port: int, path: str, units: bool, number: int) -> bool:
    """So many requests over a few connections; whether all were answered well."""
    wires = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(min(number, CONNECTIONS))]
    statuses = set()
    for each in range(number):
        wire = wires[each % len(wires)]
        wire.request("GET", path, headers={"x-branchline-unit": f"user-{each}"} if units else {})
        answer = wire.getresponse()
        answer.read()
        statuses.add(answer.status)
    for wire in wires:
        wire.close()
    return statuses == {200}
