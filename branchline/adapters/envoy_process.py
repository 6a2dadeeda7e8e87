"""This file says of a process what the kernel says, and ends it: known by its id with the ticks at which it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 when it is gone or a zombie.

    A zombie whose other threads still end is not gone: it has its port as long as one of them is there.
    """
    found = _stat(f"/proc/{pid}/stat")
    return 0 if found[0] == "X" or (found[0] == "Z" and int(found[17]) < 2) else int(found[19])


def runs(known: Mapping[str, Any]) -> bool:
    """Whether a process that was written down (`pid`, `ticks`) still runs, and not another one by its id."""
    return bool(known["ticks"]) and ticks(known["pid"]) == known["ticks"]


def worked(pid: int) -> int:
    """How long the first thread of a process has worked, in clock ticks; 0 when it is gone."""
    return sum(map(int, _stat(f"/proc/{pid}/task/{pid}/stat")[11:13]))


def computes(pid: int) -> bool:
    """Whether the first thread of a process computes at this moment, or waits for a processor."""
    return _stat(f"/proc/{pid}/task/{pid}/stat")[0] == "R"


def words(pid: int, name: str) -> list[str]:
    """What a process was started with (proc(5)): its `cmdline` or `environ`."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes().decode("utf-8", "replace").split("\0")
    return []


def peer(wire: socket.socket) -> int:
    """The process that listens at the other end of a connected Unix socket (unix(7))."""
    return int(struct.unpack("3i", wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def end(known: Mapping[str, Any], seconds: float) -> None:
    """End a process (`pid`, `ticks`), by force after so many seconds; returns once it is gone. Gone already is fine."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 10.0)):
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(known["pid"])
            try:
                if runs(known):
                    signal.pidfd_send_signal(handle, number)
                    over = select.poll()
                    over.register(handle, select.POLLIN)
                    over.poll(patience * 1000)
            finally:
                os.close(handle)


def _stat(path: str) -> list[str]:
    """What the kernel says of a process or a thread, from its state on (proc(5)); a dead one's when it is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return ["X"]
