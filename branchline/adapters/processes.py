"""This file runs instance groups as processes that outlive the daemon (the port Launcher).

An incarnation is a folder `instances/NONCE`: `group.json` says what it is, and each of its processes has a folder with
its supervisor's `lock`, `state.json`, `exit.json` and `log` (`sdk/shim.py`). Whoever opens the state folder later finds
all of it again. Rules:

- ready means: a health answer came over its own socket, whose name carries the nonce, and (where the server knows how)
  the answer carries the nonce too, so that a stranger's answer is never taken for ours (F73); nor is the answer of a
  process that is not of the incarnation's tree;
- what was ready is never restarted or ended here; what did not become ready in time is ended, and stays failed;
- newest stamps lie in a file under a lock: a controller that was asleep is refused as well (F52).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from branchline.adapters import processes_cgroups as cgroups
from branchline.adapters.processes_cgroups import Level
from branchline.adapters.processes_nurseries import Nurseries
from branchline.adapters.processes_probe import orphans, peer
from branchline.adapters.processes_state import (
    PYTHON,
    Incarnations,
    Place,
    ask_to_end,
    fail,
    hold,
    moment,
    pids_of,
    read,
    socket_path,
    sweep,
    write,
)
from branchline.errors import Fenced, StartFailed
from branchline.ports import Group, Instance, Stamp, Stray

LONGEST_SOCKET = 107  # sun_path, unix(7), less its zero
KEPT = 20


class ProcessLauncher(Incarnations):
    """Runs groups below `state/instances`, with sockets in `runtime`.

    `probe_seconds` is how long a health answer may take, `silence` how long one that was ready may go without any,
    `level` how limits are kept (else in the best way that there is), `gpus` the numbers of the GPUs that there are.
    """

    def __init__(
        self,
        state: Path,
        runtime: Path,
        *,
        probe_seconds: float = 1.0,
        silence: float = 15.0,
        level: Level | None = None,
        gpus: Sequence[int] = (),
    ) -> None:
        super().__init__(state / "instances", runtime, probe_seconds, silence)
        self.level, self.gpus = level, tuple(gpus)
        self.nurseries = Nurseries(state / "nurseries")
        for folder in (self.home, runtime):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(os.fsencode(socket_path(runtime, "0" * 16, 999))) > LONGEST_SOCKET:
            raise StartFailed(f"the folder for sockets has too long a path: {runtime}", revision="every revision")

    # -------------------------------------------------------------------------------------------- the port

    def tell(self, service: str, stamp: Stamp) -> None:
        """Refuse what was planned before the stamp; see the port."""
        with self.locked():
            marks = read(self.home / "fence.json")
            if stamp > newest(marks, service):
                write(self.home / "fence.json", {**marks, service: list(stamp)})

    def launch(self, group: Group, stamp: Stamp) -> Instance:
        """Start the group unless it runs already; see the port."""
        with self.locked():
            self.refuse_late(group.service, stamp)
            for nonce in self.nonces():
                known = self.group(nonce)
                if identity(known) == (group.service, group.revision, group.perimeter):
                    found = self.instance(nonce, known)
                    whole = not found.lost and len(found.sockets) == group.instances
                    if found.state == "starting" or (found.state == "ready" and whole):
                        return found
            self.forget_old()
            nonce = uuid.uuid4().hex[:16]
            (self.home / nonce).mkdir(mode=0o700)
            document = {**described(group), **self.kept(group, nonce), "at": time.time(), **moment()}
            write(self.home / nonce / "group.json", document)
            try:
                confine(document, group)
                for place in self.places(nonce, group.instances):
                    place.folder.mkdir()
                    start(group, nonce, place, document, self.nurseries)
            except StartFailed as error:
                fail(self.home / nonce, error.cause)
                raise
        return self.instance(nonce, self.group(nonce))

    def instances(self, service: str = "") -> tuple[Instance, ...]:
        """Every incarnation, oldest first; see the port."""
        self.nurseries.reap()
        groups = [(nonce, self.group(nonce)) for nonce in self.nonces()]
        groups = [(nonce, group) for nonce, group in groups if group and service in ("", group["service"])]
        with ThreadPoolExecutor(max_workers=8) as pool:  # one that hangs must not hold up the others
            found = list(pool.map(self.instance, *zip(*groups, strict=True))) if groups else []
        return tuple(sorted(found, key=lambda instance: instance.since))

    def stop(self, nonce: str, stamp: Stamp) -> None:
        """Drain and stop one incarnation; see the port."""
        with self.locked():
            group = self.group(nonce)
            if not group:
                return
            self.refuse_late(group["service"], stamp)
            (self.home / nonce / "stopped").touch()
        places = self.places(nonce, group["instances"])
        held = [(place, hold(place.document("state.json"))) for place in places]
        ask_to_end(places)
        deadline = time.monotonic() + group["drain_seconds"] + 5
        for place, pidfd in held:
            if pidfd is not None:
                await_end(pidfd, deadline)
            if not place.document("exit.json"):
                sweep(place)
            place.socket.unlink(missing_ok=True)
        cgroups.remove(group.get("cgroups", {}))

    def told(self) -> Mapping[str, Stamp]:
        """The marks of all services; see the port."""
        return {service: Stamp(*mark) for service, mark in read(self.home / "fence.json").items()}

    def strays(self) -> tuple[Stray, ...]:
        """Orphans and strangers; see the port."""
        found = orphans(self.runtime, self.nonces)
        for nonce in self.nonces():
            group = self.group(nonce)
            for place in self.places(nonce, group.get("instances", 0)):
                pid, ours = peer(place.socket, place.document("state.json").get("pid", 0))
                if not ours:
                    found.append(Stray("stranger", pid, group["service"], f"{group['version']} at {place.socket}"))
        return tuple(sorted(found, key=lambda each: (each.service, each.pid)))

    def close(self) -> None:
        """End what servers are forked from; see the port."""
        self.nurseries.close()

    # -------------------------------------------------------------------------------------------- order

    def refuse_late(self, service: str, stamp: Stamp) -> None:
        """Raise Fenced for a stamp older than the newest that was told."""
        mark = newest(read(self.home / "fence.json"), service)
        if stamp < mark:
            raise Fenced(f"planned at {tuple(stamp)}, told {tuple(mark)}", service=service)

    def kept(self, group: Group, nonce: str) -> dict[str, Any]:
        """How the limits of an incarnation will be kept: noted before anything is begun, so that it is found again."""
        limits, level = group.limits, self.level or cgroups.levels()[0]
        folders = cgroups.planned(level, nonce, limits)
        has_any = folders or limits.memory or limits.files or limits.cores or limits.processes
        watched = 0 if "memory" in folders else limits.memory // group.instances
        name = level.name if folders else "limits" if has_any else ""
        return {"level": name, "cgroups": folders, "watched": watched, "gpus": self.free_gpus(group)[: limits.gpus]}

    def free_gpus(self, group: Group) -> list[int]:
        """The GPUs that nobody else has who runs or drains; last those that this group has already: it is replaced."""
        mine: set[int] = set()
        others: set[int] = set()
        for nonce in self.nonces() if group.limits.gpus else ():
            known = self.group(nonce)
            if any(pids_of(read(state)) for state in (self.home / nonce).glob("*/state.json")):
                same = identity(known) == (group.service, group.revision, group.perimeter)
                (mine if same else others).update(known.get("gpus", ()))
        return sorted({*self.gpus} - others, key=lambda number: (number in mine, number))

    def forget_old(self) -> None:
        """Remove the folders of what ended long ago; the newest few keep their logs."""
        ends = [self.home / nonce for nonce in self.nonces()]
        ends = [home for home in ends if (home / "stopped").exists() or (home / "failed").exists()]
        over = [home for home in ends if not any(pids_of(read(state)) for state in home.glob("*/state.json"))]
        for home in over:
            cgroups.remove(read(home / "group.json").get("cgroups", {}))  # of whoever died over its stop
        for home in sorted(over, key=lambda home: home.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(home, ignore_errors=True)
            for folder in [each for each in self.silent if each.parent == home]:
                self.silent.pop(folder, None)


# ------------------------------------------------------------------------------------------------ documents


def described(group: Group) -> dict[str, Any]:
    """A group as JSON, without its environment: that is handed over through a pipe and lies in no file."""
    names = [name for name in Group.__slots__ if name not in ("env", "argv", "cwd", "bench")]
    parts = {"requests": asdict(group.requests), "limits": asdict(group.limits)}
    return {name: getattr(group, name) for name in names} | {"argv": list(group.argv), "cwd": str(group.cwd)} | parts


def identity(group: Mapping[str, Any]) -> tuple[str, str, str]:
    """What there may be one incarnation of."""
    return group.get("service", ""), group.get("revision", ""), group.get("perimeter", "")


def newest(marks: Mapping[str, Any], service: str) -> Stamp:
    """The newest stamp told about a service."""
    return Stamp(*marks.get(service, (0, 0)))


# ------------------------------------------------------------------------------------------------ processes


def confine(document: Mapping[str, Any], group: Group) -> None:
    """Make the cgroups of an incarnation; raises StartFailed, also when it did not get its GPUs."""
    name, missing = f"{group.service}@{group.version}", group.limits.gpus - len(document["gpus"])
    if missing:
        raise StartFailed(f"{missing} of its {group.limits.gpus} GPUs are not free", revision=name)
    try:
        cgroups.make(document["level"], document["cgroups"], group.limits, group.instances)
    except OSError as error:
        cgroups.remove(document["cgroups"])
        raise StartFailed(f"its limits cannot be set: {error}", revision=name) from error


def start(group: Group, nonce: str, place: Place, document: Mapping[str, Any], nurseries: Nurseries) -> None:
    """Start one supervised process; returns once its supervisor can be found again. `{socket}` in a word: its path."""
    name = f"{group.service}@{group.version}"
    words = {"{socket}": str(place.socket), "{nonce}": nonce}
    argv = list(group.argv)
    for word, value in words.items():
        argv = [part.replace(word, value) for part in argv]
    own = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, document["gpus"]))} if document["gpus"] else {}
    order = {
        "name": f"{name}~{nonce}",
        "argv": argv,
        "cwd": str(group.cwd),
        "env": {**group.env, "BRANCHLINE_SOCKET": str(place.socket), "BRANCHLINE_NONCE": nonce, **own},
        "log": str(place.folder / "log"),
        "folder": str(place.folder),
        "socket": str(place.socket),
        "grace": group.drain_seconds,
        "cgroups": cgroups.entries(document["cgroups"], int(place.folder.name)),
        "files": group.limits.files,
        "memory": document["watched"],
    }
    with (place.folder / "log").open("ab", buffering=0) as log:
        if group.bench is not None:
            why = nurseries.begin(group.bench, order)
            if not why:
                return
            log.write(f"branchline: started cold: {why}\n".encode())
        shim = subprocess.run(
            (*PYTHON, order["name"]),
            input=json.dumps(order).encode() + b"\n",
            stdout=subprocess.PIPE,
            stderr=log,
            env={},
            start_new_session=True,
            check=False,
        )
    if shim.stdout != b"ok\n":
        tail = "\n".join(place.log(20))
        raise StartFailed("its supervisor did not start", revision=name, log=tail)


def await_end(pidfd: int, deadline: float) -> None:
    """Wait for a supervisor to end; past the deadline it is killed, and its tree's root with it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll(5000)
    os.close(pidfd)
