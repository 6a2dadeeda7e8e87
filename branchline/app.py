"""This file introduces the parts to one another: real adapters into ports, the engine over them, threads around it.

It is the only composition root; the end-to-end tests use it too. The daemon holds a lock for its whole life, so
there is one controller for a state folder, and nothing that serves dies with it: instances and Envoy outlive it and
are re-adopted.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from branchline.adapters.clock import SystemClock
from branchline.adapters.cron import due
from branchline.adapters.envoy_gauges import EnvoyGauges
from branchline.adapters.envoy_meter import GatewayLog
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.git_conclusion import Conclusion
from branchline.adapters.git_mirror import Mirror
from branchline.adapters.git_worktree import WorkTree
from branchline.adapters.lookout import FolderLookout
from branchline.adapters.outcome_queries import SqlQueries
from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.processes_counts import ProcessVitals
from branchline.adapters.prometheus import PrometheusReadings
from branchline.adapters.runner import ProcessRunner
from branchline.adapters.servicefile import read_lock, read_service, relock
from branchline.adapters.sources import LocalSources
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.adapters.sqlite_looks import SqliteLooks
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.adapters.uv import UvEnvironments
from branchline.adapters.workers import WarmWorkers
from branchline.engine.budgeting import machine
from branchline.engine.controlling import Controller, Pass, surprise
from branchline.engine.gauging import EVERY
from branchline.engine.observing import Observer
from branchline.engine.parity import Parity
from branchline.engine.recording import Onlooker
from branchline.errors import SecondDaemon
from branchline.ports import Instance, Ports
from branchline.settings import Settings, default_branch, made, metrics_port, project_of


@dataclass(slots=True)
class Passed:
    """How often a pass was made, how long that took together, and how often it failed."""

    times: int = 0
    seconds: float = 0.0
    failures: int = 0


class Daemon:
    """One controller with its threads, the lock it lives under, and the file that says where it listens.

    `port` is the gateway's; 0 is what the project's file says, else the one it had.
    """

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.metrics_port = metrics_port()
        self.settings = made(settings)
        self._lock = held(settings.state / "daemon.lock")
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.passed: dict[str, Passed] = {}
        port = port or project_of(settings.top).gateway_port
        self.gateway = RouteWriter(settings.state / "gateway", settings.runtime, ingest=settings.ingest, port=port)
        self.meter = GatewayLog(self.gateway.envoy)
        self.ports = ports_of(settings, self.gateway, self.meter)
        self.gateway.ensure()
        self.controller = Controller(self.ports, default_branch(WorkTree(settings.top)))

    def start(self) -> None:
        """Start the threads and say where the daemon can be reached."""
        own = (
            Pass("gateway", self._keep_gateway, 0.2, 0.2),
            Pass("sample", self._sample, 0.1, 0.1),
            Pass("rotate", self._rotate, 1.0, 1.0),
            Pass("gauges", self.controller.reader.gauging.look, EVERY / 2, EVERY),
        )
        for each in (*self.controller.passes(), *own):
            thread = threading.Thread(target=self._repeat, args=(each,), name=each.name, daemon=True)
            thread.start()
            self._threads.append(thread)
        told = {"pid": os.getpid(), "socket": str(self.settings.socket), "epoch": self.controller.recorder.epoch}
        write_whole(self.settings.state / "daemon.json", json.dumps(told))

    def stop(self, everything: bool = False) -> None:
        """Stop the threads, and then, if `everything` is to end, what serves; else it goes on serving.

        In this order: the threads would start again what is missing.
        """
        self._stopping.set()
        self.controller.changed.ring()
        self.controller.workshop.close()
        self.ports.workers.close()
        self.ports.launcher.close()
        self.ports.lookout.close()
        for thread in self._threads:
            thread.join(timeout=60 if everything else 10)
        if everything:
            with ThreadPoolExecutor(8, thread_name_prefix="down") as pool:
                list(pool.map(self._end, self.ports.launcher.instances()))
            self.gateway.stop()
        self.ports.ledger.close()
        (self.settings.state / "daemon.json").unlink(missing_ok=True)
        self._lock.close()

    def _end(self, instance: Instance) -> None:
        service = self.controller.recorder.service(instance.service)
        self.ports.launcher.stop(instance.nonce, self.controller.recorder.stamp(service))

    def _keep_gateway(self) -> bool:
        """Start Envoy again when it is gone; everything is offered anew then."""
        if not self.gateway.ensure():
            return False
        self.controller.reconciler.forget()
        return True

    def _sample(self) -> bool:
        """Read the gateway's counters, so that what a killed gateway did not log is known."""
        self.meter.sample()
        return False

    def _rotate(self) -> bool:
        """Rotate a log of the gateway that was read."""
        self.meter.rotate(self.ports.observations.position())
        return False

    def _repeat(self, one: Pass) -> None:
        """Run a pass until the daemon stops: at once after something was recorded or done, else ever later."""
        pause, bell, heard, clock = one.least, self.controller.changed, 0, self.ports.clock
        passed = self.passed[one.name] = Passed()
        while not self._stopping.is_set():
            begun = clock.monotonic()
            try:
                pause = one.least if one.act() else min(one.most, pause * 2)
                self.controller.troubles.pop(("", one.name), None)
            except Exception as error:  # noqa: BLE001 - told, and tried again
                self.controller.troubles["", one.name] = surprise(error, one.name)
                passed.failures += 1
                pause = one.most
            passed.times, passed.seconds = passed.times + 1, passed.seconds + clock.monotonic() - begun
            rung = bell.wait(heard, pause)
            pause, heard = (one.least, rung) if rung > heard else (pause, heard)


def looked(settings: Settings) -> dict[str, Any]:
    """What parity says while no daemon lives; nothing is started and nothing healed. Raises SecondDaemon."""
    if not settings.state.is_dir():
        return {"schema": "branchline.parity/1", "ok": True, "services": [], "drifts": []}
    lock = held(made(settings).state / "daemon.lock")
    try:
        gateway = RouteWriter(settings.state / "gateway", settings.runtime, ingest=settings.ingest)
        ports = ports_of(settings, gateway, GatewayLog(gateway.envoy))
        try:
            onlooker = Onlooker(ports.ledger, default_branch(WorkTree(settings.top)))
            return Parity(ports, onlooker, Observer(ports)).document()
        finally:
            ports.ledger.close()
    finally:
        lock.close()


def ports_of(settings: Settings, gateway: RouteWriter, meter: GatewayLog) -> Ports:
    """The real adapters of a laptop: SQLite, folders, processes, git, uv, Envoy."""
    state = settings.state
    file = SqliteFile(state / "ledger.sqlite3")
    artifacts = FolderArtifacts(state / "store")
    mirror = Mirror(state / "mirror.git", settings.top)
    return Ports(
        ledger=SqliteLedger(file),
        catalog=SqliteCatalog(file),
        observations=SqliteObservations(file),
        queries=SqlQueries(settings.top),
        readings=PrometheusReadings(),
        looks=SqliteLooks(file),
        repository=mirror,
        writer=Conclusion(mirror),
        environments=UvEnvironments(state),
        artifacts=artifacts,
        sources=LocalSources(settings.top, state / "sources", artifacts, lambda: project_of(settings.top).hosts),
        lookout=FolderLookout(settings.top),
        runner=ProcessRunner(),
        workers=WarmWorkers(state / "workers"),
        launcher=ProcessLauncher(state, settings.runtime, gpus=machine().gpus),
        router=gateway,
        meter=meter,
        gauges=EnvoyGauges(gateway.envoy),
        vitals=ProcessVitals(state),
        clock=SystemClock(),
        read_spec=lru_cache(maxsize=2000)(read_service),  # the same text is the same service, whatever commit it is of
        read_lock=read_lock,
        relock=relock,
        due=due,
        state=state,
    )


def held(path: Path) -> IO[str]:
    """The daemon's lock, held as long as the file is open; raises SecondDaemon with the holder's pid."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        pid = file.read().strip() or "?"
        file.close()
        raise SecondDaemon(pid=pid) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees all of it or the one before."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
