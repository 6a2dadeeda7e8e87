"""This file prints what our gateway costs beside a raw Envoy before the same upstream, in rounds of one run.

Rules. Raw is one cluster, no split and no log; ours splits by unit and logs every request as JSON. Both have one
worker thread. The ratio is the median of the rounds' ratios: of requests a second, and of processor time a request,
which other work on the machine disturbs less. Run: python bench/gateway.py
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _gateway import Bench, Load, bench, has_wrk, load, pinned, processor

ROUNDS = 5
ROWS = ("raw Envoy", "split, by path", "split, by host", "one arm, by path", "split, unit minted")
GOAL = 0.88  # of raw, with split and log, for requests that bring their unit


def measured(up: Bench, row: str) -> tuple[Load, float]:
    """One round of one row: the load, and the proxy's processor time a request in microseconds."""
    pid = up.raw_pid if row == ROWS[0] else up.writer.envoy.pid
    before = processor(pid)
    if row == ROWS[0]:
        found = load(up.raw_port, "/predict")
    elif row == "split, by host":
        found = load(up.port, "/predict", host="housing.localhost")
    else:
        service = "sole" if row.startswith("one arm") else "housing"
        found = load(up.port, f"/{service}/predict", units=not row.endswith("minted"))
    return found, (processor(pid) - before) / max(1, found.count) * 1e6


def main() -> None:
    """Print a row for each way a request can take."""
    found: dict[str, list[tuple[Load, float]]] = {row: [] for row in ROWS}
    with bench() as up:
        for _ in range(ROUNDS):
            for row in ROWS:
                found[row].append(measured(up, row))
    print(
        f"load by {'wrk, 64 connections' if has_wrk() else 'Python, 8 connections'}; medians of {ROUNDS} rounds of 2 s"
    )
    print(pinned())
    print(f"{'':20}{'req/s':>9}{'p99 ms':>9}{'us/req':>9}{'of raw: req/s':>15}{'us/req':>9}{'failed':>8}")
    for row, rounds in found.items():
        rate = statistics.median(each.rate for each, _ in rounds)
        tail = statistics.median(each.p99 for each, _ in rounds)
        cost = statistics.median(cost for _, cost in rounds)
        pairs = list(zip(rounds, found[ROWS[0]], strict=True))
        rates = statistics.median(each.rate / raw.rate for (each, _), (raw, _) in pairs)
        costs = statistics.median(raw / each for (_, each), (_, raw) in pairs)
        failed = sum(each.failed for each, _ in rounds)
        print(f"{row:20}{rate:>9.0f}{tail:>9.2f}{cost:>9.1f}{rates:>15.2f}{costs:>9.2f}{failed:>8}")
    print(f"goal: split by path or host at least {GOAL} of raw")


if __name__ == "__main__":
    main()
