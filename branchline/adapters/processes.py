"""This file runs instance groups as processes that outlive the daemon (the port Launcher).

An incarnation is a folder `instances/NONCE`: `group.json` says what it is, and each of its processes has a folder with
its supervisor's `lock`, `state.json`, `exit.json` and `log` (`sdk/shim.py`). Whoever opens the state folder later finds
all of it again. Rules:

- a process is the one that was started when pid, start ticks and boot agree; signals go through a pidfd;
- ready means: a health answer came over its own socket, whose name carries the nonce, and (where the server knows how)
  the answer carries the nonce too, so that a stranger's answer is never taken for ours (F73); nor is the answer of a
  process that is not of the incarnation's tree;
- what was ready is never restarted or ended here; what did not become ready in time is ended, and stays failed;
- newest stamps lie in a file under a lock: a controller that was asleep is refused as well (F52).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import branchline
from branchline.adapters.processes_probe import STRANGER, orphans, peer, probe
from branchline.errors import Fenced, StartFailed
from branchline.ports import Group, Instance, Stamp, Stray

SHIM = Path(branchline.__file__).parent / "sdk" / "shim.py"
PYTHON = (sys.executable, "-S", "-I", str(SHIM))
LONGEST_SOCKET = 107  # sun_path, unix(7), less its zero
KEPT = 20


@dataclass(frozen=True, slots=True)
class Place:
    """One process of an incarnation: its folder and its socket."""

    folder: Path
    socket: Path

    def document(self, name: str) -> dict[str, Any]:
        """What the supervisor wrote under that name; {} when it has not."""
        return read(self.folder / name)

    def log(self, lines: int) -> list[str]:
        """The last lines that it printed, of the older half of its log too."""
        text = ""
        for name in ("log.1", "log"):
            with suppress(FileNotFoundError):
                text += (self.folder / name).read_text(encoding="utf-8", errors="replace")[-65536:]
        return text.splitlines()[-lines:]


class ProcessLauncher:
    """Runs groups below `state/instances`, with sockets in `runtime`.

    `probe_seconds` is how long a health answer may take, `silence` how long one that was ready may go without any.
    """

    def __init__(self, state: Path, runtime: Path, *, probe_seconds: float = 1.0, silence: float = 15.0) -> None:
        self.home, self.runtime = state / "instances", runtime
        self.probe_seconds, self.silence = probe_seconds, silence
        self.silent: dict[Path, float] = {}
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
                    if found.state in ("starting", "ready"):
                        return found
            self.forget_old()
            nonce = uuid.uuid4().hex[:16]
            (self.home / nonce).mkdir(mode=0o700)
            write(self.home / nonce / "group.json", {**described(group), "at": time.time()})
            for place in self.places(nonce, group.instances):
                place.folder.mkdir()
                try:
                    start(group, nonce, place)
                except StartFailed as error:
                    fail(self.home / nonce, error.cause)
                    raise
        return self.instance(nonce, self.group(nonce))

    def instances(self, service: str = "") -> tuple[Instance, ...]:
        """Every incarnation, oldest first; see the port."""
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
                sweep(place.document("state.json"), nonce)
            place.socket.unlink(missing_ok=True)

    def log(self, nonce: str, lines: int = 20) -> str:
        """The last lines that it printed."""
        places = self.places(nonce, self.group(nonce).get("instances", 0))
        return "\n".join([line for place in places for line in place.log(lines)][-lines:])

    def told(self) -> Mapping[str, Stamp]:
        """The marks of all services; see the port."""
        return {service: Stamp(*mark) for service, mark in read(self.home / "fence.json").items()}

    def strays(self) -> tuple[Stray, ...]:
        """Orphans and strangers; see the port."""
        found = orphans(self.runtime, {*self.nonces()})
        for nonce in self.nonces():
            group = self.group(nonce)
            for place in self.places(nonce, group.get("instances", 0)):
                pid, ours = peer(place.socket, place.document("state.json").get("pid", 0))
                if not ours:
                    found.append(Stray("stranger", pid, group["service"], f"{group['version']} at {place.socket}"))
        return tuple(sorted(found, key=lambda each: (each.service, each.pid)))

    # -------------------------------------------------------------------------------------------- what is there

    def nonces(self) -> list[str]:
        """Every incarnation that was begun."""
        return [folder.name for folder in self.home.iterdir() if (folder / "group.json").exists()]

    def group(self, nonce: str) -> dict[str, Any]:
        """What an incarnation is, without its environment; {} when there is none."""
        return read(self.home / nonce / "group.json")

    def places(self, nonce: str, instances: int) -> list[Place]:
        """Its processes."""
        return [
            Place(self.home / nonce / str(number), socket_path(self.runtime, nonce, number))
            for number in range(instances)
        ]

    def instance(self, nonce: str, group: Mapping[str, Any]) -> Instance:
        """One incarnation as it is now."""
        places = self.places(nonce, group["instances"])
        state, why = self.condition(nonce, group, places)
        pids = tuple(pid for place in places for pid in pids_of(place.document("state.json")))
        tail = "\n".join([*([why] if why else []), *self.log(nonce).splitlines()]) if state == "failed" else ""
        return Instance(
            service=group["service"],
            revision=group["revision"],
            version=group["version"],
            perimeter=group["perimeter"],
            nonce=nonce,
            sockets=tuple(str(place.socket) for place in places),
            state=state,
            pids=pids,
            since=group["at"],
            tail=tail,
            health=group["health"],
            nonce_aware=group["nonce_aware"],
        )

    def condition(self, nonce: str, group: Mapping[str, Any], places: list[Place]) -> tuple[str, str]:
        """The state of an incarnation, and why it is failed. What failed once stays failed."""
        home = self.home / nonce
        states = [place.document("state.json") for place in places]
        alive = [bool(pids_of(state)) for state in states]
        if (home / "stopped").exists():
            ask_to_end(places)  # whoever began to stop it may have died before it asked
            return "stopped", ""
        with suppress(FileNotFoundError):
            return "failed", (home / "failed").read_text()
        if not all(states):
            if self.is_locked():
                return "starting", ""  # somebody is starting it at this moment
            if all(place.document("state.json") for place in places):
                return self.condition(nonce, group, places)  # somebody was
            (home / "stopped").touch()  # who was starting it died over that: that is no failure of its own
            ask_to_end(places)
            return "stopped", ""
        if not all(alive):
            return "failed", fail(home, ended(places[alive.index(False)], nonce))
        answers = [
            probe(
                place.socket, group["health"], nonce if group["nonce_aware"] else "", self.probe_seconds, state["pid"]
            )
            for place, state in zip(places, states, strict=True)
        ]
        if not any(answers):
            (home / "ready").touch()
            self.silent.pop(home, None)
            return "ready", ""
        worst = next(answer for answer in answers if answer)
        if worst.startswith(STRANGER):  # whoever that is gets no more of our requests: the next one has another address
            return "failed", fail(home, worst)
        if (home / "ready").exists():
            if time.monotonic() - self.silent.setdefault(home, time.monotonic()) < self.silence:
                return "ready", ""
            return "failed", fail(home, f"it has not answered for {self.silence:g} s: {worst}")
        if time.time() - group["at"] < group["start_seconds"]:
            return "starting", ""
        ask_to_end(places)  # it never had a request, nobody will miss it
        return "failed", fail(home, f"not ready after {group['start_seconds']:g} s: {worst}")

    # -------------------------------------------------------------------------------------------- order

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the one lock of this folder, against other threads and other controllers."""
        with (self.home / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def is_locked(self) -> bool:
        """Whether somebody holds the lock at this moment."""
        with (self.home / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def refuse_late(self, service: str, stamp: Stamp) -> None:
        """Raise Fenced for a stamp older than the newest that was told."""
        mark = newest(read(self.home / "fence.json"), service)
        if stamp < mark:
            raise Fenced(f"planned at {tuple(stamp)}, told {tuple(mark)}", service=service)

    def forget_old(self) -> None:
        """Remove the folders of what ended long ago; the newest few keep their logs."""
        ends = [self.home / nonce for nonce in self.nonces()]
        ends = [home for home in ends if (home / "stopped").exists() or (home / "failed").exists()]
        for home in sorted(ends, key=lambda home: home.stat().st_mtime)[:-KEPT]:
            if not any(pids_of(read(state)) for state in home.glob("*/state.json")):
                shutil.rmtree(home, ignore_errors=True)
                self.silent.pop(home, None)


# ------------------------------------------------------------------------------------------------ documents


def socket_path(runtime: Path, nonce: str, number: int) -> Path:
    """Where a process has to listen; the nonce in the name makes a new incarnation a new address (M16)."""
    return runtime / f"{nonce}.{number}.sock"


def described(group: Group) -> dict[str, Any]:
    """A group as JSON, without its environment: that is handed over through a pipe and lies in no file."""
    names = [name for name in Group.__slots__ if name not in ("env", "argv", "cwd")]
    return {name: getattr(group, name) for name in names} | {"argv": list(group.argv), "cwd": str(group.cwd)}


def identity(group: Mapping[str, Any]) -> tuple[str, str, str]:
    """What there may be one incarnation of."""
    return group.get("service", ""), group.get("revision", ""), group.get("perimeter", "")


def newest(marks: Mapping[str, Any], service: str) -> Stamp:
    """The newest stamp told about a service."""
    return Stamp(*marks.get(service, (0, 0)))


def read(path: Path) -> dict[str, Any]:
    """A JSON document; {} when there is none yet."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return document


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document, there whole or not at all, even after a power cut."""
    new = path.with_suffix(".new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def fail(home: Path, why: str) -> str:
    """Make a failure last, and return its reason."""
    (home / "failed").write_text(why)
    return why


# ------------------------------------------------------------------------------------------------ processes


def start(group: Group, nonce: str, place: Place) -> None:
    """Start one supervised process; returns once its supervisor can be found again. `{socket}` in a word: its path."""
    words = {"{socket}": str(place.socket), "{nonce}": nonce}
    argv = list(group.argv)
    for word, value in words.items():
        argv = [part.replace(word, value) for part in argv]
    order = {
        "argv": argv,
        "cwd": str(group.cwd),
        "env": {**group.env, "BRANCHLINE_SOCKET": str(place.socket), "BRANCHLINE_NONCE": nonce},
        "log": str(place.folder / "log"),
        "folder": str(place.folder),
        "socket": str(place.socket),
        "grace": group.drain_seconds,
    }
    with (place.folder / "log").open("ab") as log:
        shim = subprocess.run(
            (*PYTHON, f"{group.service}@{group.version}~{nonce}"),
            input=json.dumps(order).encode() + b"\n",
            stdout=subprocess.PIPE,
            stderr=log,
            env={},
            start_new_session=True,
            check=False,
        )
    if shim.stdout != b"ok\n":
        tail = "\n".join(place.log(20))
        raise StartFailed("its supervisor did not start", revision=f"{group.service}@{group.version}", log=tail)


def pids_of(state: Mapping[str, Any]) -> tuple[int, ...]:
    """Supervisor and root of a process that still runs; () when it has ended or the machine was started anew."""
    pidfd = hold(state)
    if pidfd is None:
        return ()
    os.close(pidfd)
    return (state["pid"], state["child"])


def hold(state: Mapping[str, Any]) -> int | None:
    """A pidfd of the very supervisor that wrote the state; None when it has ended."""
    if not state or state["boot"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
        return None
    try:
        pidfd = os.pidfd_open(state["pid"])
    except (ProcessLookupError, FileNotFoundError):  # ENOENT: it ended while the kernel opened it
        return None
    with suppress(OSError, IndexError):
        fields = Path(f"/proc/{state['pid']}/stat").read_bytes().rpartition(b")")[2].split()
        if fields[0] not in (b"Z", b"X") and int(fields[19]) == state["ticks"]:
            return pidfd
    os.close(pidfd)
    return None


def ask_to_end(places: list[Place]) -> None:
    """Ask those that still run to drain and end; asked again they take no notice."""
    for place in places:
        pidfd = hold(place.document("state.json"))
        if pidfd is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)


def await_end(pidfd: int, deadline: float) -> None:
    """Wait for a supervisor to end; past the deadline it is killed, and its tree's root with it."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll.poll(5000)
    os.close(pidfd)


def sweep(state: Mapping[str, Any], nonce: str) -> None:
    """Kill what a supervisor left behind that was killed itself; its tree carries the nonce in its environment."""
    if state and state["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip():
        subprocess.run((*PYTHON, "--sweep", f"BRANCHLINE_NONCE={nonce}"), capture_output=True, env={}, check=False)


def ended(place: Place, nonce: str) -> str:
    """How a process ended that should not have."""
    exit = place.document("exit.json")
    if exit:
        return f"it ended by itself with exit {exit['exit']} after {exit['seconds']:.1f} s"
    sweep(place.document("state.json"), nonce)
    return "its supervisor was killed"
