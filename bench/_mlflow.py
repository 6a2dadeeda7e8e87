"""This file is MLflow's side of `runs.py`: it runs in MLflow's own environment and answers a line of JSON with seconds.

Standard library and MLflow only. An order is `[what, {...}]`; the answer is seconds, or for `begin` what was opened.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from mlflow import MlflowClient  # type: ignore[import-not-found]
from mlflow.entities import Metric, Param  # type: ignore[import-not-found]
from mlflow.store.tracking.dbmodels import models  # type: ignore[import-not-found]


class Peer:
    """One tracking store in one SQLite file."""

    def begin(self, folder: str) -> dict[str, Any]:
        """Make the store, in WAL as the ledger is; say how it commits."""
        self.path = Path(folder) / "mlflow.sqlite3"
        self.client = MlflowClient(f"sqlite:///{self.path}")
        self.experiment = self.client.create_experiment("bench", artifact_location=f"file://{folder}/artifacts")
        store = self.client._tracking_client.store
        store.engine.dispose()  # the journal can change while nobody has the file open
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("pragma journal_mode=wal")
        with store.engine.connect() as opened:
            synchronous = opened.exec_driver_sql("pragma synchronous").scalar_one()
            mode = opened.exec_driver_sql("pragma journal_mode").scalar_one()
        return {"journal": mode, "synchronous": synchronous, "sqlite": sqlite3.sqlite_version}

    def fill(self, runs: int, metrics: int) -> None:
        """Runs as the store would have them, written straight into its tables: by its API they take a minute."""
        session = self.client._tracking_client.store.ManagedSessionMaker
        with session() as open_session:
            for n in range(runs):
                key, at = f"{n:032x}", 1_700_000_000_000 + n * 1000
                open_session.add(
                    models.SqlRun(
                        run_uuid=key, name=f"run-{n}", experiment_id=int(self.experiment), user_id="bench",
                        status="FAILED" if n % 10 == 0 else "FINISHED", start_time=at, end_time=at + 500,
                        lifecycle_stage="active", artifact_uri=f"file:///nowhere/{key}", source_type="LOCAL",
                    )
                )  # fmt: skip
                for m in range(metrics):
                    one = {"run_uuid": key, "key": f"m{m}", "value": value(n, m), "timestamp": at, "step": 0}
                    open_session.add(models.SqlMetric(**one, is_nan=False))
                    open_session.add(models.SqlLatestMetric(**one, is_nan=False))
                if n % 500 == 499:
                    open_session.flush()
                    open_session.expunge_all()

    def run(self, metrics: int) -> None:
        """One run from its beginning to its end, with its metrics in one batch."""
        made = self.client.create_run(self.experiment)
        told = [Metric(f"m{m}", value(0, m), 0, 0) for m in range(metrics)]
        self.client.log_batch(made.info.run_id, metrics=told, params=[Param("seed", "1")])
        self.client.set_terminated(made.info.run_id)

    def single(self, metrics: int) -> None:
        """Metrics one by one, in one run."""
        made = self.client.create_run(self.experiment)
        for step in range(metrics):
            self.client.log_metric(made.info.run_id, "loss", 1 / (step + 1), step=step)

    def batched(self, metrics: int, batch: int) -> None:
        """Metrics in batches, in one run; a batch has at most 1,000."""
        made = self.client.create_run(self.experiment)
        for first in range(0, metrics, batch):
            told = [Metric("loss", 1 / (step + 1), 0, step) for step in range(first, min(first + batch, metrics))]
            self.client.log_batch(made.info.run_id, metrics=told)

    def search(self, where: str, found: int, limit: int) -> None:
        """The newest runs that are so."""
        order = ["attributes.start_time DESC"]
        runs = self.client.search_runs([self.experiment], where, max_results=limit, order_by=order)
        assert len(runs) == found, (len(runs), found)

    def get(self, run: int) -> None:
        """One run by its name."""
        assert self.client.get_run(f"{run:032x}").data.metrics


def value(run: int, metric: int) -> float:
    """What metric number `metric` of run number `run` was; as in `runs.py`."""
    return ((run * 7919 + metric * 104729) % 10007) / 10007


def main() -> None:
    """Answer orders until there are no more."""
    peer = Peer()
    for line in sys.stdin:
        what, given = json.loads(line)
        work: Callable[..., object] = getattr(peer, what)
        begun = time.perf_counter()
        told = work(**given)
        took = time.perf_counter() - begun
        print(json.dumps(told if told is not None else took), flush=True)


if __name__ == "__main__":
    main()
