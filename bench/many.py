"""This file measures a gateway of many services, two revisions each, one of them under test with a tenth.

What it prints for each number of services: bytes of routes and of clusters per service, the time to render all of it
anew, from nothing to serving, of one weight change until it is read back (the median of five), Envoy's memory, and the
rate of requests against a gateway of ten services that is asked in turns. Every revision is the same fast upstream.
Run small: python bench/many.py 10 100
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _gateway import A, B, envoy, load, pin, pinned, upstream

from branchline.adapters.envoy_documents import Places, clusters
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.envoy_routes import routes
from branchline.adapters.envoy_table import Gateway, Routes, offered, shifted, to_json
from branchline.ports import Endpoint, Stamp

NUMBERS = (10, 100, 300, 1000, 2500)
CHANGES = 5
ROUNDS = 3
GOALS = "goals for 2,500: a change in at most 10 ms, a start in at most 2 s, a rate of at least 0.95"


def table(number: int, socket: Path) -> Gateway:
    """What a gateway of so many services is to know."""

    def one(name: str) -> Routes:
        ends = [
            Endpoint(
                commit, version, f"{name}{version[2]}", (str(socket),), health="/health", nonce_aware=False,
                pins=(version, handle, f"experiment--{name}--{handle}", commit[:7], commit),
            )
            for commit, version, handle in ((A, "1.0.0", "ada"), (B, "1.1.0", "kim"))
        ]  # fmt: skip
        return shifted(offered(Routes(told=Stamp(1, 1)), ends), name, 1, [(A, 90), (B, 10)], 1)

    return Gateway(0, 1, {name: one(name) for name in (f"service-{n:04}" for n in range(number))})


@contextlib.contextmanager
def serving(gateway: Gateway, folder: Path) -> Iterator[tuple[RouteWriter, float]]:
    """A gateway that knows this, and the seconds until it served."""
    (folder / "gateway").mkdir(parents=True)
    (folder / "gateway" / "table.json").write_text(to_json(gateway))
    writer = RouteWriter(folder / "gateway", folder, ingest=folder / "i.sock", concurrency=1)
    try:
        start = time.perf_counter()
        writer.ensure()
        took = time.perf_counter() - start
        pin(writer.envoy.pid, 1)
        yield writer, took
    finally:
        writer.stop()


def change(writer: RouteWriter, service: str, number: int) -> float:
    """Milliseconds of one weight change."""
    shares = [(A, 89 - number), (B, 11 + number)]
    start = time.perf_counter()
    writer.shift(service, 1, shares, Stamp(2 + number, 1))
    return (time.perf_counter() - start) * 1000


def rate(writer: RouteWriter, service: str) -> float:
    """Requests a second to one service."""
    port = int(writer.address(service).rsplit(":", 1)[1].partition("/")[0])
    return load(port, f"/{service}/predict", seconds=2, connections=32).rate


def row(number: int, folder: Path, socket: Path, few: RouteWriter) -> str:
    """The figures of one number of services."""
    gateway = table(number, socket)
    start = time.perf_counter()
    rds = json.dumps(routes(gateway), separators=(",", ":"))
    cds = json.dumps(clusters(gateway, Places(folder, folder / "a", folder / "i")), separators=(",", ":"))
    rendered = time.perf_counter() - start
    middle = f"service-{number // 2:04}"
    with serving(gateway, folder) as (writer, took):
        changes = [change(writer, middle, n) for n in range(CHANGES)]
        ratios = [rate(writer, middle) / rate(few, "service-0005") for _ in range(ROUNDS)]
        status = Path(f"/proc/{writer.envoy.pid}/status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    return (
        f"{number:8}{len(rds) / number:10.0f}{len(cds) / number:12.0f}{rendered * 1000:10.0f} ms"
        f"{statistics.median(changes):10.0f} ms{took:10.1f} s{memory:10.0f} MB{statistics.median(ratios):9.2f}"
    )


def main() -> None:
    """Print a row for each number of services."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-", dir="/tmp")))
        socket = home / "u.sock"
        stack.enter_context(envoy(home, "upstream", {"listeners": [upstream(socket, "any")]}))
        few, _ = stack.enter_context(serving(table(10, socket), home / "few"))
        print(pinned())
        print("services    routes B  clusters B     render       change     start    memory     rate")
        for number in map(int, sys.argv[1:] or NUMBERS):
            print(row(number, home / str(number), socket, few), flush=True)
            shutil.rmtree(home / str(number))
    print(GOALS)


if __name__ == "__main__":
    main()
