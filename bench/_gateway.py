"""This file puts up what the gateway's benches need: upstreams that cost little, a raw Envoy beside ours, and load.

Rules. The upstreams and the raw proxy are the same Envoy binary, so that no other product is compared by accident.
With two processors or more, load and upstreams have the first and the proxies the second to themselves: what is
measured then is the proxy, not who shares a processor with it.
Load comes from wrk where it is installed, else from a loop in Python, which is slower than what it measures: then the
gateway's own processor time a request is the figure to look at.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchline.adapters.envoy import binary, is_free
from branchline.adapters.envoy_documents import typed
from branchline.adapters.envoy_router import RouteWriter
from branchline.ports import Endpoint, Stamp

A, B = "a" * 40, "b" * 40
CPUS = sorted(os.sched_getaffinity(0))
SCRIPT = """
local n = 0
local ready = {}
init = function()
  for unit = 1, 10000 do
    if os.getenv("UNITS") == "yes" then wrk.headers["x-branchline-unit"] = "user-" .. unit end
    ready[unit] = wrk.format("GET", os.getenv("TARGET"))
  end
end
request = function()
  n = n % 10000 + 1
  return ready[n]
end
"""


@dataclass(frozen=True)
class Load:
    """What a run of load found: requests, how many a second, the 99th percentile in ms, and failed requests."""

    count: int
    rate: float
    p99: float
    failed: int


def listener(name: str, address: dict[str, Any], routes: list[dict[str, Any]] | Path) -> dict[str, Any]:
    """A listener with fixed routes, or with those of a file, and no log."""
    if isinstance(routes, Path):
        source = {"resource_api_version": "V3", "path_config_source": {"path": str(routes)}}
        routed: dict[str, Any] = {"rds": {"route_config_name": "branchline", "config_source": source}}
    else:
        routed = {"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]}}
    connection = typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        **routed,
        http_filters=[
            {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")}
        ],
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": connection}]
    return {"name": name, "address": address, "filter_chains": [{"filters": filters}]}


def upstream(socket: Path, nonce: str) -> dict[str, Any]:
    """A listener that answers 30 bytes, and its health checks with its nonce."""
    told = {"header": {"key": "x-envoy-upstream-healthchecked-cluster", "value": nonce}}
    body = {"status": 200, "body": {"inline_string": '{"price": 12345.678, "ok": 1}\n'}}
    return listener(
        nonce,
        {"pipe": {"path": str(socket)}},
        [
            {"match": {"path": "/health"}, "direct_response": body, "response_headers_to_add": [told]},
            {"match": {"prefix": "/"}, "direct_response": body},
        ],
    )


@contextlib.contextmanager
def envoy(folder: Path, name: str, resources: dict[str, Any], **more: Any) -> Iterator[int]:
    """An Envoy with fixed resources, and what else is to stand in its bootstrap, and one worker; its process id."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"static_resources": resources, **more}))
    argv = [str(binary()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    process = subprocess.Popen(argv, start_new_session=True)  # as ours: Linux deals processors out by sessions
    try:
        pin(process.pid, 1 if name == "raw" else 0)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


@dataclass
class Bench:
    """A raw Envoy and our gateway before the same two upstreams, each with one worker thread."""

    writer: RouteWriter
    raw_port: int
    raw_pid: int

    @property
    def port(self) -> int:
        """The gateway's."""
        return int(self.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Put everything up, and take it down."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sockets = {"na": folder / "a.sock", "nb": folder / "b.sock"}
        stack.enter_context(
            envoy(folder, "upstreams", {"listeners": [upstream(path, nonce) for nonce, path in sockets.items()]})
        )
        raw_port = next(port for port in range(23000, 32000) if is_free("127.0.0.1", port))
        at = {"socket_address": {"address": "127.0.0.1", "port_value": raw_port}}
        host = {"endpoint": {"address": {"pipe": {"path": str(sockets["na"])}}}}
        cluster = {
            "name": "upstream",
            "connect_timeout": "1s",
            "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [host]}]},
        }
        to = [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]
        raw = stack.enter_context(envoy(folder, "raw", {"listeners": [listener("raw", at, to)], "clusters": [cluster]}))
        writer = RouteWriter(folder / "gateway", folder, ingest=folder / "i.sock", concurrency=1)
        stack.callback(writer.stop)
        ends = [
            Endpoint(A, "1.0.0", "na", (str(sockets["na"]),), health="/health"),
            Endpoint(B, "1.1.0", "nb", (str(sockets["nb"]),), health="/health"),
        ]
        writer.offer("housing", ends, Stamp(1, 1))
        writer.shift("housing", 1, [(A, 90), (B, 10)], Stamp(1, 1))
        writer.offer("sole", ends, Stamp(1, 1))
        writer.shift("sole", 1, [(A, 100)], Stamp(1, 1))
        pin(writer.envoy.pid, 1)
        yield Bench(writer, raw_port, raw)


def processor(pid: int) -> float:
    """Seconds of processor time that a process and its threads have used (clock_getcpuclockid(3), Linux)."""
    return time.clock_gettime((~pid << 3) | 2)


def waited(pid: int) -> float:
    """Seconds that a process's threads have had work and no processor: others had it (proc(5), schedstat)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            total += int((thread / "schedstat").read_text().split()[1])
    return total / 1e9


def memory(pid: int) -> float:
    """MiB of memory that a process has resident."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.partition("VmRSS:")[2].split()[0]) / 1024


def pin(pid: int, number: int) -> None:
    """Keep a process, with the threads it has now, on one processor; those to come inherit it."""
    if len(CPUS) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(thread.name), {CPUS[number]})


def beside(number: int) -> list[str]:
    """The words before a command that keep it on one processor."""
    return ["taskset", "-c", str(CPUS[number])] if len(CPUS) > 1 and shutil.which("taskset") else []


def pinned() -> str:
    """Who runs where, in words."""
    shared = "everything shares one processor" if len(CPUS) < 2 else ""
    return shared or f"load and upstreams on processor {CPUS[0]}, the proxy on processor {CPUS[1]}"


def has_wrk() -> bool:
    """Whether the load comes from wrk."""
    return shutil.which("wrk") is not None


def load(
    port: int, path: str, *, host: str = "", units: bool = True, seconds: float = 2.0, connections: int = 64
) -> Load:
    """Ask as fast as it goes."""
    if not has_wrk():
        return python_load(port, path, host=host, units=units, seconds=seconds, connections=min(connections, 8))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT)
        script.flush()
        argv = [*beside(0), "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", "-s", script.name]
        argv += ["-H", f"Host: {host}"] if host else []
        environment = {**os.environ, "UNITS": "yes" if units else "no", "TARGET": path}
        told = subprocess.run(
            [*argv, f"http://127.0.0.1:{port}"], env=environment, capture_output=True, text=True, check=True
        ).stdout
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", told)
    failed = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", told)))
    failed += sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", told)))
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    count = re.search(r"(\d+) requests in", told)
    return Load(
        int(count[1]) if count else 0,
        float(rate[1]) if rate else 0.0,
        float(tail[1]) * scale[tail[2]] if tail else 0.0,
        failed,
    )


def python_load(port: int, path: str, *, host: str, units: bool, seconds: float, connections: int) -> Load:
    """The same from threads."""
    times: list[float] = []
    failed: list[int] = []
    end = time.perf_counter() + seconds

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        number = first
        while (start := time.perf_counter()) < end:
            number += connections
            headers = {"x-branchline-unit": f"user-{number % 10_000}"} if units else {}
            connection.request("GET", path, headers={**headers, **({"Host": host} if host else {})})
            answer = connection.getresponse()
            answer.read()
            times.append(time.perf_counter() - start)
            if answer.status != 200:
                failed.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=client, args=(first,)) for first in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(len(times), len(times) / seconds, sorted(times)[int(0.99 * len(times))] * 1000, len(failed))
