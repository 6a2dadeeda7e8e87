"""This file prints what our gateway costs beside a raw Envoy before the same upstream, in rounds of one run.

Rules. Raw is one cluster, no split and no log; ours splits by unit and logs every request as JSON. Both have one
worker thread. The ratio is the median of the rounds' ratios: of requests a second, of the 99th percentile, and of
processor time a request, which other work on the machine disturbs less. How long a proxy had work and no processor is
told besides: on a machine that others use that, and not the proxy, is its 99th percentile. What each part costs is
`filters.py`'s. Run: python bench/gateway.py [--rounds N]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import Bench, Load, bench, has_wrk, load, memory, pinned, processor, waited

ROUNDS = 10
SECONDS = 2.0
RAW = "raw Envoy"
ROWS = (RAW, "split, by path", "split, by host", "one arm, by path", "split, unit minted")
GOAL = 0.88  # of raw, with split and log, for requests that bring their unit


@dataclass(frozen=True)
class Round:
    """One round of one row: the load, the proxy's processor time a request in microseconds, and the share of the time
    that its threads waited for a processor.
    """

    load: Load
    cost: float
    waited: float


def measured(up: Bench, row: str) -> Round:
    """One round of one row."""
    pid = up.raw_pid if row == RAW else up.writer.envoy.pid
    before, idle = processor(pid), waited(pid)
    if row == RAW:
        found = load(up.raw_port, "/predict", seconds=SECONDS)
    elif row == "split, by host":
        found = load(up.port, "/predict", host="housing.localhost", seconds=SECONDS)
    else:
        service = "sole" if row.startswith("one arm") else "housing"
        found = load(up.port, f"/{service}/predict", units=not row.endswith("minted"), seconds=SECONDS)
    cost = (processor(pid) - before) / max(1, found.count) * 1e6
    return Round(found, cost, (waited(pid) - idle) / SECONDS)


def told(rounds: list[Round], raw: list[Round]) -> str:
    """The figures of a row, beside the same rounds of raw Envoy."""
    pairs = list(zip(rounds, raw, strict=True))
    figures = (
        (statistics.median(each.load.rate for each in rounds), 9, 0),
        (statistics.median(each.load.p99 for each in rounds), 9, 2),
        (statistics.median(each.cost for each in rounds), 9, 1),
        (100 * statistics.median(each.waited for each in rounds), 9, 0),
        (statistics.median(each.load.rate / max(1.0, other.load.rate) for each, other in pairs), 15, 2),
        (statistics.median(each.load.p99 / max(0.01, other.load.p99) for each, other in pairs), 9, 2),
        (statistics.median(other.cost / each.cost for each, other in pairs), 9, 2),
        (sum(each.load.failed for each in rounds), 8, 0),
    )
    return "".join(f"{figure:>{width}.{places}f}" for figure, width, places in figures)


def main() -> None:
    """Print a row for each way a request can take."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    number = parser.parse_args().rounds
    found: dict[str, list[Round]] = {row: [] for row in ROWS}
    with bench() as up:
        for _ in range(number):
            for row in random.sample(ROWS, len(ROWS)):
                found[row].append(measured(up, row))
        sizes = memory(up.raw_pid), memory(up.writer.envoy.pid)
    by = "wrk, 64 connections" if has_wrk() else "Python, 8 connections"
    print(f"load by {by}; medians of {number} rounds of 2 s\n{pinned()}")
    print(f"{'':20}{'req/s':>9}{'p99 ms':>9}{'us/req':>9}{'waited %':>9}{'of raw: req/s':>15}{'p99':>9}{'us/req':>9}"
          f"{'failed':>8}")  # fmt: skip
    for row, rounds in found.items():
        print(f"{row:20}{told(rounds, found[RAW])}")
    print(f"memory: raw Envoy {sizes[0]:.0f} MiB, ours {sizes[1]:.0f} MiB")
    print(f"goal: split by path or host at least {GOAL} of raw")


if __name__ == "__main__":
    main()
