"""This file draws what a request and a change of shares cost the gateway as connections and revisions grow.

Rules. A request costs the processor time of all of the gateway's threads but the first, which looks after health and
routes whether anybody asks or not, beside that of a raw Envoy before the same upstream, in turns; medians of the
rounds. What the first thread takes meanwhile is printed. Revisions are two a service, one of them under test with a
tenth, as in `many.py`. The load is wrk's: without it there are no thousand connections. Draws `docs/gateway.svg`.
Run small: python bench/costs.py --connections 1 64 --services 5 50 --rounds 1
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import many
from _gateway import bench, envoy, has_wrk, load, pinned, processor, upstream
from _peers import ROOT
from _plot import Curves, draw

PLOT = ROOT / "docs" / "gateway.svg"
SECONDS = 2.0
OURS, RAW, CHANGE = "ours, split and log", "raw Envoy", "a change of shares"


def cost(pid: int, port: int, path: str, connections: int) -> tuple[float, float]:
    """Microseconds of the time of a process's other threads for each request; the share of a processor of its first."""
    before, first = processor(pid), looking(pid)
    count = load(port, path, connections=connections, seconds=SECONDS).count
    looked = looking(pid) - first
    return (processor(pid) - before - looked) / max(1, count) * 1e6, looked / SECONDS


def looking(pid: int) -> float:
    """Seconds of processor time that the first thread of a process has used (proc(5), schedstat)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def by_connections(numbers: Sequence[int], rounds: int) -> Curves:
    """Microseconds a request, ours with split and log, and a raw Envoy's."""
    curves: Curves = {OURS: [], RAW: []}
    with bench() as up:
        sides = {OURS: (up.writer.envoy.pid, up.port, "/housing/predict"), RAW: (up.raw_pid, up.raw_port, "/predict")}
        for number in numbers:
            taken = [{name: cost(*side, number)[0] for name, side in sides.items()} for _ in range(rounds)]
            for name, points in curves.items():
                points.append((number, statistics.median(each[name] for each in taken)))
            print(
                f"{number} connections:",
                {name: f"{points[-1][1]:.1f} us" for name, points in curves.items()},
                flush=True,
            )
    return curves


def by_revisions(services: Sequence[int], rounds: int) -> tuple[Curves, Curves]:
    """Microseconds a request to one of many revisions; milliseconds of a change of shares until it is read back."""
    costs: Curves = {OURS: [], RAW: []}
    changes: Curves = {CHANGE: []}
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(bench())
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="costs-", dir="/tmp")))
        stack.enter_context(envoy(home, "upstream", {"listeners": [upstream(home / "u.sock", "any")]}))
        for number in services:
            service = f"service-{number // 2:04}"
            with many.serving(many.table(number, home / "u.sock"), home / str(number)) as (writer, _):
                took = statistics.median(many.change(writer, service, n) for n in range(many.CHANGES))
                port = int(writer.address(service).rsplit(":", 1)[1].partition("/")[0])
                sides = (writer.envoy.pid, port, f"/{service}/predict"), (raw.raw_pid, raw.raw_port, "/predict")
                asked = [(*cost(*sides[0], 64), cost(*sides[1], 64)[0]) for _ in range(rounds)]
            shutil.rmtree(home / str(number))
            spent, looked, beside = (statistics.median(each) for each in zip(*asked, strict=True))
            costs[OURS].append((2 * number, spent))
            costs[RAW].append((2 * number, beside))
            changes[CHANGE].append((2 * number, took))
            told = f"{spent:.1f} us, raw {beside:.1f} us, a change {took:.0f} ms"
            told += f"; the first thread: {looked:.0%} of a processor"
            print(f"{2 * number} revisions: {told}", flush=True)
    return costs, changes


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 4, 16, 64, 256, 1000])
    parser.add_argument("--services", type=int, nargs="*", default=[5, 50, 250, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=PLOT)
    chosen = parser.parse_args()
    if not has_wrk():
        raise SystemExit("wrk is not installed: apt-get install wrk, or the like")
    print(pinned())
    requests = by_connections(chosen.connections, chosen.rounds)
    costs, changes = by_revisions(chosen.services, chosen.rounds)
    pictures = [
        ("A request, by connections", "connections", "us of processor time", requests),
        ("A request, by revisions", "revisions on one gateway", "us of processor time", costs),
        ("A change of shares", "revisions on one gateway", "ms", changes),
    ]
    draw(pictures, chosen.plot)


if __name__ == "__main__":
    main()
