"""This file prints what our gateway costs beside a proxy in Python, and what serving behind it does beside Ray Serve.

As a proxy: ours, with split and log, beside raw Envoy and an aiohttp proxy on uvloop, before the same upstream. As a
whole: ours before a trivial ASGI application in granian, one worker, beside that granian alone and the same answer from
Ray Serve, one replica and its own proxy. They take turns in rounds of one run, in another order each round; ratios are
medians of each round's. Ray is started and asked when all others are done: it has both processors to itself, works on
for seconds on what nobody waits for any more, and whoever was asked next had a 99th percentile of four times its own.
Peers are installed by the bench; all others keep to `_gateway`'s rules.
Run: python bench/serving.py [--without-ray]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import A, Bench, Load, bench, beside, has_wrk, load, pin, pinned
from _peers import home

from branchline.adapters.envoy import is_free
from branchline.ports import Endpoint, Stamp

ROUNDS = 5
OURS, RAW, PROXY = "our gateway, split and log", "raw Envoy", "aiohttp proxy on uvloop"
SERVED, BARE, RAY = "our gateway before granian", "granian alone", "Ray Serve"
RATIOS = ((OURS, RAW, "0.88"), (OURS, PROXY, "2.5"), (SERVED, BARE, ""), (SERVED, RAY, "30"))
AIOHTTP = """
import sys, uvloop
from aiohttp import ClientSession, UnixConnector, web
OURS = ("connection", "host", "content-length", "transfer-encoding")
async def main():
    session = ClientSession(connector=UnixConnector(sys.argv[2], limit=0))
    async def forward(request):
        headers = {name: value for name, value in request.headers.items() if name.lower() not in OURS}
        url, body = "http://upstream" + request.path_qs, await request.read()
        async with session.request(request.method, url, headers=headers, data=body) as answer:
            return web.Response(status=answer.status, body=await answer.read(), content_type=answer.content_type)
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", forward)
    return application
web.run_app(main(), host="127.0.0.1", port=int(sys.argv[1]), loop=uvloop.new_event_loop(), access_log=None, print=None)
"""
ASGI = """
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"31")]
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b'{"price": 12345.678, "ok": 1}\\n '})
"""
REPLICA = """
import sys, time
from ray import serve
@serve.deployment(num_replicas=1)
class Trivial:
    async def __call__(self, request): return {"price": 12345.678, "ok": 1}
serve.start(http_options={"host": "0.0.0.0", "port": int(sys.argv[1])})
serve.run(Trivial.bind(), route_prefix="/")
time.sleep(3600)
"""


@contextlib.contextmanager
def running(argv: Sequence[str], folder: Path, answers: Callable[[], bool], seconds: float = 120) -> Iterator[int]:
    """A peer's process in a session of its own, once it answers."""
    log = folder / "peer.log"
    with log.open("ab") as told:
        process = subprocess.Popen(argv, cwd=folder, stdout=told, stderr=told, start_new_session=True)
    try:
        deadline = time.monotonic() + seconds
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{argv[0]} does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def answering(port: int) -> Callable[[], bool]:
    """Whether a port answers 200."""

    def ask() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/predict")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


def free(*taken: int) -> int:
    """A port that nobody uses."""
    return next(port for port in range(24000, 32000) if port not in taken and is_free("127.0.0.1", port))


@contextlib.contextmanager
def all_up(up: Bench) -> Iterator[dict[str, tuple[int, str]]]:
    """Put all but Ray up: port and path of each by its name."""
    folder = up.writer.envoy.folder.parent
    (folder / "trivial.py").write_text(ASGI)
    places = {OURS: (up.port, "/housing/predict"), RAW: (up.raw_port, "/predict")}
    granian = [*beside(0), str(home("granian") / "bin" / "granian"), "--interface", "asgi", "--workers", "1"]
    granian += ["--no-ws", "--log-level", "error"]
    with contextlib.ExitStack() as stack:
        port = free()
        proxy = [str(home("aiohttp", "uvloop") / "bin" / "python"), "-c", AIOHTTP, str(port), str(folder / "a.sock")]
        pin(stack.enter_context(running(proxy, folder, answering(port))), 1)
        places[PROXY] = port, "/predict"
        port = free(port)
        stack.enter_context(running([*granian, "--port", str(port), "trivial:app"], folder, answering(port)))
        places[BARE] = port, "/predict"
        socket = folder / "granian.sock"
        stack.enter_context(running([*granian, "--uds", str(socket), "trivial:app"], folder, socket.exists))
        end = Endpoint(A, "1.0.0", "ng", (str(socket),), health="/", nonce_aware=False)
        up.writer.offer("trivial", [end], Stamp(1, 1))
        up.writer.shift("trivial", 1, [(A, 100)], Stamp(1, 1))
        places[SERVED] = up.port, "/trivial/predict"
        yield places


@contextlib.contextmanager
def ray_up(folder: Path) -> Iterator[tuple[int, str]]:
    """Put Ray up: its port and path."""
    port, ray = free(), home("ray==2.60.0", "ray[serve]==2.60.0") / "bin" / "python"
    with running([str(ray), "-c", REPLICA, str(port)], folder, answering(port)):
        yield port, "/predict"


def main() -> None:
    """Print a row for each, and the ratios that have a goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without-ray", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    found: dict[str, list[Load]] = {}
    with bench() as up, all_up(up) as places:
        found.update({name: [] for name in places})
        for _ in range(given.rounds):
            for name in random.sample([*places], len(places)):
                found[name].append(load(*places[name]))
        if not given.without_ray:
            with ray_up(up.writer.envoy.folder.parent) as place:
                found[RAY] = [load(*place) for _ in range(given.rounds)]
    print(f"load by {'wrk, 64 connections' if has_wrk() else 'Python, 8 connections'}; {given.rounds} rounds of 2 s")
    print(f"{pinned()}; Ray on both")
    print(f"{'':28}{'req/s':>9}{'p99 ms':>9}{'failed':>8}")
    for name, rounds in found.items():
        rate = statistics.median(each.rate for each in rounds)
        tail = statistics.median(each.p99 for each in rounds)
        print(f"{name:28}{rate:>9.0f}{tail:>9.2f}{sum(each.failed for each in rounds):>8}")
    for name, other, goal in RATIOS:
        if other in found:
            pairs = zip(found[name], found[other], strict=True)
            ratio = statistics.median(ours.rate / max(1.0, theirs.rate) for ours, theirs in pairs)
            print(f"{name}, of {other}: {ratio:.2f}{f' (goal {goal})' if goal else ''}")


if __name__ == "__main__":
    main()
