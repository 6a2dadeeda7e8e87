"""This file measures how runs are recorded and found, against MLflow on SQLite at equal durability, on the same disk.

Both keep a SQLite file in WAL with synchronous=FULL, so that a commit is on the disk when it returns, and what is
compared has a commit each on both sides: a run (MLflow: created, its metrics in a batch, ended, so three), a metric
told alone, a batch of 1,000. `branchline.log` itself, by which a step tells its metrics, writes lines to a file that is
taken into the ledger with the run: it is told apart, for a loss of power before that loses them. The two take turns in
one run; what counts is the median of each round's ratios. MLflow gets an environment of its own below .cache.
`--runs 500 --metrics 1000 --rounds 3` is a small one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _peers import ROOT, home

from branchline.adapters import sqlite_runs
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.core.reuse import Fact, Line
from branchline.core.revision import Measure, StepRun
from branchline.core.tracking import Query, bound

MLFLOW = "mlflow==3.17.2"
BATCH = 1000
OF_RUN = 10  # metrics of one run
LINES = tuple(Line(f"code module{n}:function", f"{n:064x}", f"module{n}.py:{n}", ("train:fit",)) for n in range(30))
FACTS = tuple(Fact("ran", f"module{n}:function", f"{n:064x}") for n in range(30))
# What is asked for, as both understand it.
SEARCHES = {
    "search 10k runs: newest 20": ("", (), ""),
    "search 10k runs: newest 1000": ("", (), ""),
    "search 10k runs: m3 < 0.5": ("metrics.m3 < 0.5", ("m3<0.5",), ""),
    "search 10k runs: m3 < 0.001": ("metrics.m3 < 0.001", ("m3<0.001",), ""),
    "search 10k runs: m3 < 0.01 and m7 > 0.5": ("metrics.m3 < 0.01 and metrics.m7 > 0.5", ("m3<0.01", "m7>0.5"), ""),
    "search 10k runs: failed": ("attributes.status = 'FAILED'", (), "failed"),
}


class Mlflow:
    """The peer, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        script = Path(__file__).with_name("_mlflow.py")
        env = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}
        env |= {"MLFLOW_DISABLE_TELEMETRY": "true", "GIT_PYTHON_REFRESH": "quiet"}
        self._process = subprocess.Popen(
            [home(MLFLOW) / "bin" / "python", "-W", "ignore", str(script)], env=env, cwd=folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "mlflow.log").open("w"),
        )  # fmt: skip
        self.told = self.ask("begin", folder=str(folder))

    def ask(self, what: str, **given: object) -> Any:
        """Have something done; its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([what, given]), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> float:
        """End it; its peak memory in MB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        self._process.communicate()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1000


class Branchline:
    """The ledger's catalog, as the daemon uses it."""

    def __init__(self, folder: Path) -> None:
        self.file = SqliteFile(folder / "ledger.sqlite3")
        self.catalog = SqliteCatalog(self.file)

    def fill(self, runs: int, metrics: int) -> None:
        """The runs that MLflow is filled with, in its order."""
        with self.file.writing() as connection:  # one commit for all: what is filled is not what is measured
            for n in range(runs):
                told = [Measure(f"m{m}", value(n, m)) for m in range(metrics)]
                step = trained(told, "failed" if n % 10 == 0 else "ran")
                sqlite_runs.keep(connection, "bench", "a" * 40, [step])

    def keep(self, metrics: Sequence[Measure]) -> None:
        """A run of one step."""
        self.catalog.keep_run("bench", "a" * 40, [trained(metrics)])

    def run(self, metrics: int) -> None:
        """A run with its metrics, and all that its key was made of."""
        self.keep([Measure(f"m{m}", value(0, m)) for m in range(metrics)])

    def batched(self, metrics: int, batch: int) -> None:
        """A commit for each batch."""
        for first in range(0, metrics, batch):
            self.keep([Measure("loss", 1 / (at + 1), at) for at in range(first, min(first + batch, metrics))])

    def search(self, bounds: Sequence[str], state: str, found: int, limit: int) -> None:
        """The newest runs that are so."""
        runs = self.catalog.runs(Query("bench", state=state, bounds=tuple(map(bound, bounds)), limit=limit))
        assert len(runs) == found, (len(runs), found)

    def get(self, run: int) -> None:
        """One run by its number."""
        assert self.catalog.numbered(run + 1).steps


def trained(metrics: Sequence[Measure], state: str = "ran") -> StepRun:
    """A step that ran, with all that is kept of it."""
    known: dict[str, Any] = {"at": 1.7e9, "lines": LINES, "facts": FACTS, "metrics": tuple(metrics)}
    return StepRun("train", state, "k", "art", 0.5, "ok", "first run", **known)


def value(run: int, metric: int) -> float:
    """What metric number `metric` of run number `run` was; as in `_mlflow.py`."""
    return ((run * 7919 + metric * 104729) % 10007) / 10007


def seconds(work: Callable[..., object], **given: object) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work(**given)
    return time.perf_counter() - begun


def logged(metrics: int, folder: Path) -> float:
    """Seconds of `branchline.log` for that many metrics, one a call, in a process of its own."""
    script = (
        "import branchline, time\nbranchline.log(warm=1)\nbegun = time.perf_counter()\n"
        f"for step in range({metrics}): branchline.log(step=step, loss=1 / (step + 1))\n"
        "print(time.perf_counter() - begun)"
    )
    env = os.environ | {"BRANCHLINE_METRICS": str(folder / f"metrics-{time.monotonic_ns()}"), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return float(ended.stdout)


def counted(bounds: Sequence[str], state: str, runs: int, limit: int) -> int:
    """How many of the filled runs a search has to find."""
    wanted = [bound(text) for text in bounds]
    signs: dict[str, Callable[[float, float], bool]] = {"<": float.__lt__, ">": float.__gt__}
    good = (
        n for n in range(runs)
        if (not state or n % 10 == 0) and all(signs[b.sign](value(n, int(b.metric[1:])), b.value) for b in wanted)
    )  # fmt: skip
    return min(limit, sum(1 for _ in good))


def measured(own: Branchline, peer: Mlflow, args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Seconds by round, ours and theirs."""
    taken: dict[str, list[tuple[float, float]]] = {}
    singles = min(args.metrics, 200)  # MLflow's take 20 ms each
    for turn in range(args.rounds + 1):
        round_: dict[str, tuple[float, float]] = {}
        for name, (where, bounds, state) in SEARCHES.items():
            limit = 1000 if name.endswith("1000") else 20
            found = counted(bounds, state, args.runs, limit)
            ours = seconds(own.search, bounds=bounds, state=state, found=found, limit=limit)
            round_[name] = ours, peer.ask("search", where=where, found=found, limit=limit)
        round_["get one run"] = seconds(own.get, run=turn), peer.ask("get", run=turn)
        if turn == args.rounds:  # what writes comes last, so that searches are of what was filled
            break
        for name, both in round_.items():
            if turn:
                taken.setdefault(name, []).append(both)
    for _ in range(args.rounds):
        pairs = {
            f"a run with {OF_RUN} metrics": (seconds(own.run, metrics=OF_RUN), peer.ask("run", metrics=OF_RUN)),
            f"{singles} metrics, a commit each": (
                seconds(own.batched, metrics=singles, batch=1), peer.ask("single", metrics=singles),
            ),
            f"{args.metrics} metrics, a commit for {BATCH}": (
                seconds(own.batched, metrics=args.metrics, batch=BATCH),
                peer.ask("batched", metrics=args.metrics, batch=BATCH),
            ),
        }  # fmt: skip
        for name, both in pairs.items():
            taken.setdefault(name, []).append(both)
    return taken


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--metrics", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runs-", dir=ROOT / ".cache") as scratch:
        folder = Path(scratch)
        own, peer = Branchline(folder), Mlflow(folder)
        print(f"{MLFLOW}: {peer.told}; ledger: journal {'wal' if own.file.wal else 'delete'}, synchronous 2")
        own.fill(args.runs, OF_RUN)
        peer.ask("fill", runs=args.runs, metrics=OF_RUN)
        size = (folder / "ledger.sqlite3").stat().st_size / 1e6, (folder / "mlflow.sqlite3").stat().st_size / 1e6
        print(f"{'':<44} {'ours ms':>10} {'MLflow ms':>11} {'ratio':>8}")
        for name, pairs in measured(own, peer, args).items():
            ours, theirs = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
            ratio = statistics.median(mine / his for mine, his in pairs)
            print(
                f"{name.replace('10k', f'{args.runs:,}'):<44} {ours:>10.2f} {theirs:>11.2f} {f'1/{1 / ratio:.0f}':>8}"
            )
        told = statistics.median(logged(args.metrics, folder) for _ in range(3)) * 1000
        print(f"{f'{args.metrics} calls of branchline.log (no commit)':<44} {told:>10.2f}")
        print(f"{'file, MB (with lines and facts)':<44} {size[0]:>10.1f} {size[1]:>11.1f}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(f"{'peak memory, MB':<44} {peak:>10.0f} {peer.close():>11.0f}")
        own.file.close()


if __name__ == "__main__":
    main()
