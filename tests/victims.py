"""This file starts processes that are to be killed: each is forked from one that has imported what all of them need.

An interpreter that imports SQLAlchemy takes a second of processor time, a fork hardly any. Who forks is run as
`python -m tests.victims MODULE FD`: over a socket it is given the words of a victim and where that prints to, answers
with its number, and ends when nobody is at the other end any more. It has no threads.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Victim:
    """A process that runs `main` of a module, and the lines that it has printed."""

    def __init__(self, pid: int, told: int) -> None:
        self.process = os.pidfd_open(pid)  # its number may soon be somebody else's
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen, args=(told,))
        self._thread.start()

    def _listen(self, told: int) -> None:
        with open(told, encoding="utf-8") as lines:
            self.lines.extend(lines)

    def kill(self) -> None:
        """Kill it (-9) and have all that it said to the end of a line: what the kill cut was not acknowledged."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.process, signal.SIGKILL)
        select.select([self.process], [], [])  # what it printed to is closed before its locks are
        self._thread.join()
        self.lines = [line for line in self.lines if line.endswith("\n")]

    @property
    def has_ended(self) -> bool:
        """Whether it is no more."""
        return bool(select.select([self.process], [], [], 0)[0])

    def has_told(self, enough: int) -> bool:
        """Whether it has printed as many lines, or ended."""
        return len(self.lines) >= enough or self.has_ended


class Breeder:
    """Begins victims."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self.begun: list[Victim] = []

    def __call__(self, *argv: str) -> Victim:
        """A new one."""
        told, out = os.pipe()
        socket.send_fds(self._ours, [json.dumps(argv).encode()], [out])
        os.close(out)
        self.begun.append(Victim(int(self._ours.recv(20)), told))
        return self.begun[-1]


@contextmanager
def victims_of(module: str) -> Iterator[Breeder]:
    """Who begins victims; none is left in the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    words = [sys.executable, "-m", "tests.victims", module, str(theirs.fileno())]
    with ours, subprocess.Popen(words, cwd=ROOT, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        breeder = Breeder(ours)
        try:
            yield breeder
        finally:
            for each in breeder.begun:
                each.kill()
                os.close(each.process)
            ours.close()
            process.wait()


def breed(module: str, theirs: socket.socket) -> None:
    """Fork a victim for each message."""
    main = import_module(module).main
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever is killed is gone at once
    while True:
        words, (*descriptors,), *_ = socket.recv_fds(theirs, 100_000, 1)
        if not words:
            return
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            theirs.close()
            os.dup2(descriptors[0], sys.stdout.fileno())
            os.close(descriptors[0])
            try:
                main(*json.loads(words))
            except BaseException:  # noqa: BLE001
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(descriptors[0])
        theirs.send(str(pid).encode())


if __name__ == "__main__":
    breed(sys.argv[1], socket.socket(fileno=int(sys.argv[2])))
