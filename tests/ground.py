"""This file is the real place of a sequence: a bare remote, SQLite, real processes without packages, and one Envoy.

The controller lives in the test's own process and dies between two calls to its ports; whoever takes over opens every
adapter anew, as a daemon does that starts. Time can be set on: the log's lines move with it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache, lru_cache
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from branchline.adapters.clock import SystemClock
from branchline.adapters.envoy_meter import GatewayLog
from branchline.adapters.envoy_router import RouteWriter
from branchline.app import ports_of
from branchline.core.traffic import assigned
from branchline.engine.controlling import Controller
from branchline.errors import BranchlineError
from branchline.ports import Instance, Ports, Served, Stamp
from branchline.settings import made, settings_of
from tests.deeds import Stage
from tests.repositories import RealGit
from tests.subject import SERVICE
from tests.waiting import wait_until
from tests.world import Inline


class Shifted(SystemClock):
    """This machine's clock, set on (or the wall clock back) by a test."""

    def __init__(self) -> None:
        self.wall = self.grown = 0.0

    def now(self) -> float:
        """Unix seconds."""
        return super().now() + self.wall

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return super().monotonic() + self.grown

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.grown += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall += seconds


class ShiftedLog(GatewayLog):
    """The gateway's log, in the time that the test has set."""

    clock: Shifted

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests."""
        served, end = super().read(position, limit)
        return tuple(replace(line, at=line.at + self.clock.wall) for line in served), end


class RealPeople:
    """What people do in the bare remote."""

    def __init__(self, git: RealGit) -> None:
        self._git = git
        self.write, self.reset, self.remove, self.tip = git.write, git.reset, git.remove, git.tip
        self.parents = lru_cache(maxsize=None)(git.parents)
        self.message = lru_cache(maxsize=None)(git.message)
        self.texts = lru_cache(maxsize=None)(self._texts)
        self._ancestry = lru_cache(maxsize=None)(lambda commit: self._rows("rev-list", "--date-order", commit))

    @property
    def refusing(self) -> bool:
        """Whether the remote refuses pushes."""
        return self._git.refusing

    @refusing.setter
    def refusing(self, no: bool) -> None:
        self._git.refusing = no

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nobody reaches the remote meanwhile."""
        self._git.reachable = False
        try:
            yield
        finally:
            self._git.reachable = True

    def _rows(self, *words: str) -> list[str]:
        return self._git.git(*words, at=self._git.truth).splitlines()

    def heads(self) -> Mapping[str, str]:
        """All branches."""
        rows = self._rows("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads/")
        return dict(row.split(" ") for row in rows)

    def _texts(self, commit: str) -> Mapping[str, str]:
        paths = self._rows("ls-tree", "-r", "--format=%(objectname) %(path)", commit)
        return {path: self._blob(oid) for oid, _, path in (row.partition(" ") for row in paths)}

    @cache  # noqa: B019  one test's
    def _blob(self, oid: str) -> str:
        return self._git.git("cat-file", "blob", oid, at=self._git.truth) + "\n"  # all our texts end so

    def join(self, branch: str, texts: Mapping[str, str], parents: Sequence[str], message: str) -> str:
        """Commit these texts upon these parents, and let the branch be there."""
        self._git._clock += 1
        rows = [f"commit refs/heads/{branch}", f"committer Kim <kim@example.invalid> {self._git._clock} +0000"]
        rows += [data(message), f"from {parents[0]}", *(f"merge {each}" for each in parents[1:]), "deleteall"]
        rows += [f'M 100644 inline "{path}"\n{data(text)}' for path, text in sorted(texts.items())]
        self._git.git("fast-import", "--quiet", "--force", at=self._git.truth, stdin="\n".join(rows) + "\n\n")
        return self.tip(branch)

    def ancestry(self, commit: str) -> Collection[str]:
        """A commit and all that it comes from, newest first."""
        return self._ancestry(commit)


def data(text: str) -> str:
    """A text as fast-import takes it."""
    return f"data {len(text.encode())}\n{text}"


class RealPlace:
    """Real parts, in folders of their own."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        git = RealGit(folder)
        self.git, self.clock = RealPeople(git), Shifted()
        self.settings = made(settings_of(git.work, git.work / ".git", environ={"XDG_RUNTIME_DIR": str(runtime)}))
        self.failed = 0
        self.open()

    def open(self) -> None:
        """Open every adapter, as a daemon does that starts."""
        self.gateway = RouteWriter(self.settings.state / "gateway", self.settings.runtime, ingest=self.settings.ingest)
        self.meter = ShiftedLog(self.gateway.envoy)
        self.meter.clock = self.clock
        self.ports: Ports = replace(ports_of(self.settings, self.gateway, self.meter), clock=self.clock)
        self.gateway.ensure()

    def begin(self, ports: Ports, *, again: bool) -> Controller:
        """A controller over these ports that does everything at once."""
        if again:
            self.ports.ledger.close()
            self.open()
        controller = Controller(ports, "main")
        controller.workshop.pool = Inline()
        controller.reconciler.spawn = lambda act: act()
        return controller

    def visit(self, units: Sequence[str], line: int, failing: Collection[str]) -> Mapping[str, str]:
        """Requests of these units, each logged before this returns."""
        routes = self.gateway.survey().routes[SERVICE]
        shown, position = routes[line], self.ports.observations.position()
        arms = {unit: assigned(shown.segments, unit, shown.experiment) for unit in units}
        where = urlsplit(self.gateway.address(SERVICE, f"v{line}" if line < max(routes) else ""))
        connection = HTTPConnection(str(where.hostname), where.port, timeout=30)
        try:
            for unit, arm in arms.items():
                headers = {"x-branchline-unit": unit} | ({"x-fails": "1"} if arm in failing else {})
                connection.request("GET", where.path, headers=headers)
                answer = connection.getresponse()
                answer.read()
                self.failed += answer.status != 200 and arm not in failing
        finally:
            connection.close()

        def logged() -> bool:
            return {*arms} <= {each.unit for each in self._read(position)}

        assert not shown.experiment or wait_until(logged), "the gateway has not logged its requests"
        return arms

    def _read(self, position: str) -> Iterator[Served]:
        while True:
            served, position = self.meter.read(position)
            if not served:
                return
            yield from served

    def die(self, instance: Instance) -> None:
        """Its processes are killed."""
        for pid in instance.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        def noticed() -> bool:
            states = {each.nonce: each.state for each in self.ports.launcher.instances(SERVICE)}
            return states.get(instance.nonce) != "ready"

        assert wait_until(noticed), "a killed process is taken for a living one"

    def back(self, line: int) -> str:
        """Roll a line back without a daemon; returns who lost its traffic by an abort, if anybody."""
        shown = self.gateway.survey().routes.get(SERVICE, {}).get(line)
        told: dict[str, Any] = {"actor": "kim", "because": "it is sick", "at": self.clock.now()}
        try:
            self.gateway.roll_back(SERVICE, line, **told)
        except BranchlineError:
            return ""
        return shown.shares[-1][0] if shown and len(shown.shares) > 1 else ""

    def busy(self) -> bool:
        """Whether something is under way; if so, until it is not."""

        def starting() -> bool:
            return any(each.state == "starting" for each in self.ports.launcher.instances(SERVICE))

        if not starting():
            return False
        wait_until(lambda: not starting())
        return True

    def end(self) -> None:
        """Stop all that runs."""
        for instance in self.ports.launcher.instances():
            self.ports.launcher.stop(instance.nonce, Stamp(10**9, 10**9))
        self.gateway.stop()
        self.ports.ledger.close()


def played_really(stage: Stage, folder: Path, runtime: Path) -> Stage:
    """Play what was played before, deed by deed, on real parts; raises Broken. Everything is stopped at the end."""
    place = RealPlace(folder, runtime)
    try:
        real = Stage(place, stage.slots, stage.approval)
        for deed, args in stage.deeds:
            real.play(deed, *args)
        return real
    finally:
        place.end()
