"""This file keeps the processes that servers are forked from, each with the packages of its environment imported ahead.

Such a process (`sdk/nursery.py`) is a child of this one on the leash of its standard input. A server that is forked
from it is nobody's child here and serves on without either. Rules: it is made as the first server of an environment is
wanted, which has to be started cold, and used once it has imported; whatever is wrong with it means a cold start, and
never that a server is started twice; the one used longest ago makes room for one too many.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from branchline.ports import Bench

WORD, ROOM = "-" * 256, "-" * 256  # the longest name of a server, and the longest path of its socket with its variable
NOT_YET = "its packages are being imported for the next one"


class Nurseries:
    """At most `most` of them, in the folder `home`; a server has to be begun within `patience` seconds."""

    def __init__(self, home: Path, *, most: int = 4, patience: float = 10.0) -> None:
        self.home, self.most, self.patience = home, most, patience
        self._lock = threading.Lock()
        self._kept: dict[str, Nursery] = {}  # the one used longest ago first
        self._unfit: dict[str, str] = {}  # why no server of an environment can be forked

    def begin(self, bench: Bench, order: Mapping[str, Any]) -> str:
        """Begin a supervised server; '' once its supervisor can be found, else why it has to be started cold."""
        key = json.dumps([str(bench.python), str(bench.sdk), sorted(bench.env.items())])
        with self._lock:
            self._reap()
            if key in self._unfit:
                return self._unfit[key]
            one = self._kept.pop(key, None)  # and put back as the one used last
            begun = False
            if one is not None and one.is_warm() and not (begun := one.begin(order, self.patience)):
                self._end(key, one)
                one = None
            try:
                self._kept[key] = one or self._hired(bench, order)
            except OSError as error:
                return f"there is no process to fork it from: {error}"
            return "" if begun else NOT_YET

    def reap(self) -> None:
        """Collect those that have ended; who uses them at this moment does so, too."""
        if self._lock.acquire(blocking=False):
            try:
                self._reap()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End all of them; the servers serve on."""
        with self._lock:
            while self._kept:
                self._kept.popitem()[1].end()

    def _hired(self, bench: Bench, order: Mapping[str, Any]) -> Nursery:
        """A new one that begins to import; raises OSError."""
        for key in [*self._kept][: max(0, len(self._kept) - self.most + 1)]:
            self._kept.pop(key).end()
        one = Nursery(bench, self.home)
        one.warm(order)
        return one

    def _reap(self) -> None:
        for key in [key for key, one in self._kept.items() if one.process.poll() is not None]:
            self._end(key, self._kept.pop(key))

    def _end(self, key: str, one: Nursery) -> None:
        """End one; if it ended by itself, the next would, too."""
        said = one.end()
        if one.process.returncode > 0:
            self._unfit[key] = said or f"the process to fork it from ended with exit {one.process.returncode}"


class Nursery:
    """One such process, the socket that it is told over, and the one that it answers on once it has imported."""

    def __init__(self, bench: Bench, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log: IO[bytes] = TemporaryFile()  # noqa: SIM115 - open as long as this is
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.answers: socket.socket | None = None
        self.warmed = False
        with theirs, closed_on_error(self.control, self.log):
            self.process = subprocess.Popen(
                (str(bench.python), "-P", "-m", "branchline.sdk.nursery", str(theirs.fileno()), WORD),
                cwd=home,
                env={**bench.env, "HOME": str(home), "PYTHONPATH": str(bench.sdk), "BRANCHLINE_ROOM": ROOM},
                stdin=subprocess.PIPE,
                stdout=self.log,
                stderr=self.log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def warm(self, order: Mapping[str, Any]) -> None:
        """Tell it to import what this server begins with."""
        self.answers = self.told(order, fork=False)

    def is_warm(self) -> bool:
        """Whether it has."""
        if self.answers is not None:
            with suppress(BlockingIOError):
                self.answers.setblocking(False)
                self.warmed = received(self.answers) == b"ok\n"
                self.answers.close()
                self.answers = None
        return self.warmed

    def begin(self, order: Mapping[str, Any], patience: float) -> bool:
        """Have a server forked, and say whether there is one; who takes too long is killed, so that there is none."""
        ours = self.told(order, fork=True)
        if ours is None:
            return False
        deadline = time.monotonic() + patience
        with ours:
            ours.settimeout(patience)
            with suppress(OSError):  # it has ended: there will be no answer
                ours.sendall(json.dumps(order).encode() + b"\n")
            try:
                ours.settimeout(max(0.01, deadline - time.monotonic()))
                return received(ours) == b"ok\n"
            except TimeoutError:
                self.process.kill()
                ours.settimeout(patience)
                with suppress(TimeoutError):  # who was forked meanwhile holds the socket until it has said `ok`
                    return received(ours) == b"ok\n"
        return False

    def told(self, order: Mapping[str, Any], fork: bool) -> socket.socket | None:
        """Tell it of a server; our end of the socket that it is to answer on, None when it has ended."""
        env, sdk = order["env"], str(order["env"]["PYTHONPATH"]).split(os.pathsep)
        said = {"spec": env["BRANCHLINE_SERVICE_SPEC"], "roots": sdk[1:], "fork": fork}
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.control, [json.dumps(said).encode()], [theirs.fileno()])
            except OSError:
                ours.close()
                return None
        return ours

    def end(self) -> str:
        """Let go of the leash, wait for its end, and return the last line that it printed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        for each in (self.control, self.answers):
            if each is not None:
                each.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with self.log:
            self.log.seek(0)
            lines = [line.strip() for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""


@contextmanager
def closed_on_error(*opened: socket.socket | IO[bytes]) -> Iterator[None]:
    """Close these when what they are for cannot be had."""
    try:
        yield
    except OSError:
        for each in opened:
            each.close()
        raise


def received(ours: socket.socket) -> bytes:
    """A piece of what has come; b'' at the end, however that came. Raises TimeoutError, BlockingIOError."""
    with suppress(ConnectionError):
        return ours.recv(1 << 10)
    return b""
