"""This file measures a gateway of many services, two revisions each, one of them under test with a tenth.

What it prints for each number of services: bytes of routes and of clusters per service, the time to render all of it
anew, from nothing to serving, of one weight change until it is read back (the median of five), and of Envoy's processor
meanwhile, Envoy's memory, and the rate of requests by path and by host against a gateway of ten services that is asked
in turns. Every revision is the same fast upstream. Below stands the limit: an Envoy of as many services that says of
each only two clusters and one split, by host, without checks, pins, log or anybody who steps in.
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

from _gateway import A, B, envoy, listener, load, pin, pinned, processor, upstream

from branchline.adapters.envoy import Envoy
from branchline.adapters.envoy_documents import Document, Places, cluster_texts, typed
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.envoy_routes import encoded_routes
from branchline.adapters.envoy_table import Gateway, Routes, offered, shifted, to_json
from branchline.adapters.envoy_wire import in_file, resource
from branchline.errors import GatewayDown
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


def rate(writer: RouteWriter, service: str, by_host: bool) -> float:
    """Requests a second to one service."""
    port = int(writer.address(service).rsplit(":", 1)[1].partition("/")[0])
    if by_host:
        return load(port, "/predict", host=f"{service}.localhost", seconds=2, connections=32).rate
    return load(port, f"/{service}/predict", seconds=2, connections=32).rate


def memory(pid: int) -> float:
    """What a process holds, in MB."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def plain_routes(number: int, version: int) -> bytes:
    """The least that can be said of so many services, with another split in the middle one."""

    def one(n: int) -> Document:
        first = 9000 - (version if n == number // 2 else 0)
        clusters = [{"name": f"{n}-a", "weight": first}, {"name": f"{n}-b", "weight": 10_000 - first}]
        split = {"weighted_clusters": {"clusters": clusters, "use_hash_policy": True}}
        by_unit = {"hash_policy": [{"header": {"header_name": "x-branchline-unit"}}]}
        route = {"match": {"prefix": "/"}, "route": {**split, **by_unit}}
        return {"name": f"service-{n:04}", "domains": [f"service-{n:04}.*"], "routes": [route]}

    table = typed("config.route.v3.RouteConfiguration", name="branchline", virtual_hosts=list(map(one, range(number))))
    return in_file(str(version), resource(table))


def limit(number: int, folder: Path, socket: Path) -> str:
    """The same figures of plain Envoy."""
    folder.mkdir()
    rds, asked = folder / "rds.pb", Envoy(folder, folder, patience=60)
    rds.write_bytes(plain_routes(number, 0))
    host = {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}}]}
    ends = [
        {"name": name, "load_assignment": {"cluster_name": name, "endpoints": [host]}}
        for name in (f"{n}-{arm}" for n in range(number) for arm in "ab")
    ]
    public = listener("gateway", {"pipe": {"path": str(folder / "public.sock")}}, rds)
    more = {"admin": {"address": {"pipe": {"path": str(asked.admin)}}}, "node": {"id": "plain", "cluster": "plain"}}

    def wait(version: int) -> None:
        for _ in range(60_000):
            with contextlib.suppress(GatewayDown):
                if asked.version("rds") == str(version) and asked.ask("/ready").startswith("LIVE"):
                    return
            time.sleep(0.001)
        raise SystemExit("plain Envoy did not take its routes")

    start = time.perf_counter()
    with envoy(folder, "raw", {"listeners": [public], "clusters": ends}, **more) as pid:
        wait(0)
        took, times, worked = time.perf_counter() - start, [], processor(pid)
        for version in range(1, CHANGES + 1):
            (folder / "new").write_bytes(plain_routes(number, version))
            start = time.perf_counter()
            (folder / "new").replace(rds)
            wait(version)
            times.append((time.perf_counter() - start) * 1000)
        return line("plain", rds.stat().st_size / number, len(json.dumps(ends)) / number, 0.0, times,
                    (processor(pid) - worked) / CHANGES, took, memory(pid), [])  # fmt: skip


def line(
    name: str, rds: float, cds: float, rendered: float, changes: list[float], worked: float, took: float,
    held: float, rates: list[float],
) -> str:  # fmt: skip
    """One row of the table; times in seconds but for the changes, in ms."""
    return (
        f"{name:>8}{rds:10.0f}{cds:12.0f}{rendered * 1000:10.0f} ms{statistics.median(changes):10.0f} ms"
        f"{worked * 1000:10.0f} ms{took:10.1f} s{held:10.0f} MB" + "".join(f"{each:8.2f}" for each in rates)
    )


def row(number: int, folder: Path, socket: Path, few: RouteWriter) -> str:
    """The figures of one number of services."""
    gateway = table(number, socket)
    start = time.perf_counter()
    rds = encoded_routes(gateway)
    cds = "".join(cluster_texts(gateway, Places(folder, folder / "a", folder / "i")).values())
    rendered = time.perf_counter() - start
    middle = f"service-{number // 2:04}"
    with serving(gateway, folder) as (writer, took):
        pid = writer.envoy.pid
        worked = processor(pid)
        changes = [change(writer, middle, n) for n in range(CHANGES)]
        worked = (processor(pid) - worked) / CHANGES
        rates = [
            statistics.median(rate(writer, middle, how) / rate(few, "service-0005", how) for _ in range(ROUNDS))
            for how in (False, True)
        ]
        held = memory(pid)
    return line(str(number), len(rds) / number, len(cds) / number, rendered, changes, worked, took, held, rates)


def main() -> None:
    """Print a row for each number of services."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="many-", dir="/tmp")))
        socket = home / "u.sock"
        stack.enter_context(envoy(home, "upstream", {"listeners": [upstream(socket, "any")]}))
        few, _ = stack.enter_context(serving(table(10, socket), home / "few"))
        print(pinned())
        print("services  routes B  clusters B       render       change     of Envoy       start       memory", end="")
        print("    path    host")
        for number in map(int, sys.argv[1:] or NUMBERS):
            print(row(number, home / str(number), socket, few), flush=True)
            print(limit(number, home / f"plain-{number}", socket), flush=True)
            shutil.rmtree(home / str(number))
    print(GOALS)


if __name__ == "__main__":
    main()
