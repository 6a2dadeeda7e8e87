"""This file knows the processes below this one: who they are, what they hold, and how to end them all.

Rules: what a process is, is read from /proc each time and never remembered, for numbers are given away again; nothing
here waits for longer than it is told. Linux only (prctl, /proc); standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Sequence

SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
PATIENCE = 0.25  # what a tree gets to fold up by itself once its root has ended
_libc = ctypes.CDLL(None, use_errno=True)


class Used:
    """What processes have used that ended: each is counted as it is collected, with those that it collected itself."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.peak = 0  # bytes that one of them had resident at once

    def collect(self, pid: int = -1, options: int = os.WNOHANG) -> tuple[int, int]:
        """Collect a child that has ended, any by default: its number, 0 if none has, and how it ended."""
        found, status, used = os.wait4(pid, options)
        if found:
            self.cpu += used.ru_utime + used.ru_stime
            self.peak = max(self.peak, used.ru_maxrss << 10)
        return found, status


def sweep(used: Used, patience: float = PATIENCE) -> int:
    """Kill every descendant of this process; return how many had to be killed after a moment to end by themselves."""
    killed: set[int] = set()
    deadline = time.monotonic() + patience
    while True:
        try:
            while used.collect()[0]:
                pass
        except ChildProcessError:
            return len(killed)
        now = time.monotonic()
        if now >= deadline + 10:  # in an uninterruptible wait: nobody can end it
            return len(killed)
        if now >= deadline:
            for pid in descendants(os.getpid()):
                killed.add(pid)
                kill(pid)
        time.sleep(0.002)


def kill(pid: int) -> None:
    """Kill a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def parents() -> dict[int, int]:
    """Process -> parent, for every process that has not ended."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            found[int(name)] = int(parent)
            if state in b"ZX":
                del found[int(name)]
    return found


def descendants(pid: int) -> list[int]:
    """Every living process below one, parents before their children."""
    family, found = parents(), [pid]
    for one in found:
        found += [child for child, parent in family.items() if parent == one]
    return found[1:]


def resident(pids: Sequence[int], most: int) -> int:
    """The bytes of memory that processes hold; if it looks like more than `most`, shared pages are counted once."""
    held = shares = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", "rb") as file:
            held += int(file.read().split()[1]) * resource.getpagesize()
    if held <= most or len(pids) == 1:
        return held
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            shares += sum(int(line.split()[1]) << 10 for line in file if line.startswith(b"Pss:"))
    return shares


def adopt_orphans() -> None:
    """Become the parent of whoever below this process loses its own."""
    _libc.prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with(parent: int) -> None:
    """Be killed when the parent ends; end at once when it has."""
    _libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(137)


def confine(cgroups: Sequence[str], files: int) -> None:
    """Enter cgroups by their `cgroup.procs` and have no more than so many files open at once (0: as many as before).

    Ends this process when it cannot: without its limits it would take from others.
    """
    try:
        for path in cgroups:
            with open(path, "w", encoding="ascii") as file:
                file.write("0")
        if files:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            files = files if most == resource.RLIM_INFINITY else min(files, most)
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    except OSError as error:
        os.write(2, f"branchline: cannot set its limits: {error.strerror} {error.filename or ''}\n".encode())
        os._exit(125)


def relabel(old: bytes, new: bytes) -> None:
    """Show another word or variable in /proc than this process, or who forked it, was started with; zeros follow it.

    That is what a fork is found by that executes nothing. Raises ValueError when the old one is not there, or has no
    room for the new one.
    """
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[48])  # proc(5): fields 48, where the arguments begin, and 51
    at = ctypes.string_at(begin, end - begin).find(old)
    if at < 0 or len(new) > len(old):
        raise ValueError(f"no room to show {new!r}")
    ctypes.memmove(begin + at, new.ljust(len(old), b"\0"), len(old))


def marked(variable: str) -> list[int]:
    """Every process whose environment holds `NAME=VALUE`: what a killed supervisor left behind."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if variable.encode() in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
    return found


def sweep_marked(variable: str, seconds: float = 5.0) -> int:
    """Kill what is so marked until nothing is left, for so long at most: dying takes a moment, in which the mark is
    gone already, and what forks meanwhile is marked, too. How many there were.
    """
    found: set[int] = set()
    deadline = time.monotonic() + seconds
    while ((left := marked(variable)) or found & parents().keys()) and time.monotonic() < deadline:
        found.update(left)
        for pid in left:
            kill(pid)
        time.sleep(0.01)
    return len(found)


def ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid, its name for ever (proc(5), field 22)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])
