"""This file keeps a group of processes within its limits by control groups, version 2 or 1, where this machine lets us.

A group has a cgroup of its own below the one that this process is in: what was given to us is never left. Rules:

- what can be kept is found out by looking; nothing is changed before a group with limits is begun;
- of version 2 a cgroup holds either processes or others: there ours is made beside our own, unless that is the top;
- each process of a group has one of its own within the group's, with an equal part of the memory: where several share
  what runs out, the kernel now and then kills another one, too, before the first has given back what it had;
- whoever removes a cgroup kills who is left in it: nobody else can be.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from branchline.core.spec import Limits

CONTROLLERS = ("memory", "cpu", "pids")
PERIOD = 100_000  # microseconds in which the processors' time is counted


@dataclass(frozen=True, slots=True)
class Level:
    """How limits are kept: by cgroups `v2` or `v1`, or `limits` of each process; controller -> below which folder."""

    name: str = "limits"
    below: Mapping[str, Path] = field(default_factory=dict)


def levels() -> tuple[Level, ...]:
    """Every way that this machine allows, the best first; the last needs no cgroup."""
    mounts, mine = (Path(f"/proc/self/{name}").read_text(encoding="utf-8") for name in ("mountinfo", "cgroup"))
    found = (Level(name, writable(name, own_folders(mounts, mine, name))) for name in ("v2", "v1"))
    return (*(level for level in found if level.below), Level())


def own_folders(mounts: str, mine: str, version: str) -> dict[str, Path]:
    """Controller ('' of version 2) -> the folder of the cgroup that this process is in (cgroups(7), proc(5))."""
    paths = {}
    for line in mine.splitlines():
        number, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(",") if number != "0" else [""], path))
    found = {}
    for line in mounts.splitlines():
        place, _, kind = line.partition(" - ")
        root, folder = place.split()[3:5]
        options = kind.split()[2].split(",")
        if kind.startswith("cgroup2 ") and version == "v2":
            names = [""]
        elif kind.startswith("cgroup ") and version == "v1":
            names = [name for name in CONTROLLERS if name in options]
        else:
            continue
        for name in names:
            if name in paths and ".." not in (inside := os.path.relpath(paths[name], root)).split("/"):
                found[name] = Path(folder, inside)
    return found


def writable(version: str, own: Mapping[str, Path]) -> dict[str, Path]:
    """Controller -> the folder below which a cgroup can be made, of those that can."""
    if version == "v1":
        return {name: folder for name, folder in own.items() if may_hold(folder)}
    for folder in own.values():
        top = not (folder / "cgroup.events").exists()
        below = folder if top else folder.parent
        with suppress(OSError):
            given = (below / ("cgroup.controllers" if top else "cgroup.subtree_control")).read_text().split()
            if "memory" in given and may_hold(below):
                return {name: below for name in CONTROLLERS if name in given}
    return {}


def may_hold(folder: Path) -> bool:
    """Whether this process may make a cgroup in a folder and put processes there."""
    return os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def planned(level: Level, name: str, limits: Limits) -> dict[str, str]:
    """Controller -> the folder of the cgroup that a group of this name gets, for each limit that it has."""
    wanted = {"memory": limits.memory, "cpu": limits.cores, "pids": limits.processes}
    return {kind: str(below / f"branchline-{name}") for kind, below in level.below.items() if wanted[kind]}


def make(version: str, folders: Mapping[str, str], limits: Limits, instances: int) -> None:
    """Make the planned cgroups, one within for each process, and set their limits; raises OSError."""
    for kind, folder in folders.items():
        home = Path(folder)
        homes = [home / str(number) for number in range(instances)]
        if version == "v2":
            enable(home.parent, kind)
        for each in (home, *homes):
            each.mkdir(exist_ok=True)
        if version == "v2" and kind == "memory":
            enable(home, kind)
        for each in homes if kind == "memory" else [home]:
            for file, value in settings(version, kind, limits, instances):
                put(each / file, value)


def enable(folder: Path, kind: str) -> None:
    """Let the cgroups within one of version 2 have a controller."""
    if kind not in (folder / "cgroup.subtree_control").read_text().split():
        (folder / "cgroup.subtree_control").write_text(f"+{kind}")


def put(file: Path, value: str) -> None:
    """Set a limit, unless it is of swap and none is counted here, or what was given to us is less: that holds."""
    try:
        file.write_text(value)
    except OSError as error:
        if not (
            ("sw" in file.name and not file.exists()) or (file.name.startswith("cpu") and error.errno == errno.EINVAL)
        ):
            raise


def settings(version: str, kind: str, limits: Limits, instances: int) -> tuple[tuple[str, str], ...]:
    """What is written into which file of a cgroup, in order: memory without swap, for that only puts off the end."""
    quota, memory = str(max(1000, int(limits.cores * PERIOD))), str(limits.memory // instances)
    files = {
        "v2 memory": (("memory.max", memory), ("memory.swap.max", "0")),
        "v1 memory": (("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory)),
        "v2 cpu": (("cpu.max", f"{quota} {PERIOD}"),),
        "v1 cpu": (("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", quota)),
    }
    return files.get(f"{version} {kind}", (("pids.max", str(limits.processes)),))


def entries(folders: Mapping[str, str], number: int) -> list[str]:
    """The files that the process of a group with this number writes itself into, to be in its cgroups."""
    return sorted({f"{folder}/{number}/cgroup.procs" for folder in folders.values()})


def killed(folders: Mapping[str, str], number: int) -> int:
    """How many processes were killed for the memory of the one with this number."""
    for file in ("memory.events", "memory.oom_control"):
        with suppress(KeyError, OSError):
            for line in Path(folders["memory"], str(number), file).read_text().splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def remove(folders: Mapping[str, str], seconds: float = 5.0) -> None:
    """Remove the cgroups of a group that has ended; dying takes a moment."""
    deadline = time.monotonic() + seconds
    groups = {Path(folder) for folder in folders.values()}
    for home in sorted(groups | {each for group in groups for each in group.glob("[0-9]*")}, reverse=True):
        while home.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                home.rmdir()
                break
            with suppress(OSError):
                for pid in (home / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)


def told(level: Level) -> str:
    """What this machine keeps of limits and what not, in plain words."""
    kept = {"memory": "memory", "cpu": "cores", "pids": "processes"}
    by_cgroup = ", ".join(word for name, word in kept.items() if name in level.below)
    rest = [word for name, word in kept.items() if name not in level.below]
    words = [f"by cgroups {level.name}: {by_cgroup}"] if by_cgroup else []
    words.append("by limits of each process: files")
    if "memory" in rest:
        words.append("memory by looking at it 20 times a second")
    lacking = " and ".join(word for word in rest if word != "memory")
    words += [f"not kept here: {lacking} (no cgroup that may be written)"] if lacking else []
    return "; ".join(words)
