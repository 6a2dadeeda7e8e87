"""This file knows what lies of each incarnation in the state folder, and says how it is now.

Whoever looks changes nothing of what serves: it is asked over its own sockets, and by its supervisors' marks. Rules:

- a process is the one that was started when pid, start ticks and boot agree; signals go through a pidfd;
- what failed once stays failed, and what was told to stop is told again by whoever looks;
- an incarnation that was ready is, for as long as one of its processes answers: the others are lost (I8).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from branchline.adapters import processes_cgroups as cgroups
from branchline.adapters.processes_probe import STRANGER, probe
from branchline.core.spec import Requests
from branchline.ports import Instance

SHIM = Path(__file__).parents[1] / "sdk" / "shim.py"
PYTHON = (sys.executable, "-S", "-I", str(SHIM))


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


class Condition(NamedTuple):
    """How an incarnation is: its state, why it failed or the first was lost, and the numbers of those that are lost."""

    state: str
    why: str = ""
    lost: tuple[int, ...] = ()


class Incarnations:
    """What was begun below `home`, with sockets in `runtime`, and how it is.

    `probe_seconds` is how long a health answer may take, `silence` how long one that was ready may go without any.
    """

    def __init__(self, home: Path, runtime: Path, probe_seconds: float, silence: float) -> None:
        self.home, self.runtime = home, runtime
        self.probe_seconds, self.silence = probe_seconds, silence
        self.silent: dict[Path, float] = {}

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

    def log(self, nonce: str, lines: int = 20) -> str:
        """The last lines that it printed."""
        places = self.places(nonce, self.group(nonce).get("instances", 0))
        return "\n".join([line for place in places for line in place.log(lines)][-lines:])

    def instance(self, nonce: str, group: Mapping[str, Any]) -> Instance:
        """One incarnation as it is now."""
        places = self.places(nonce, group["instances"])
        try:
            now = self.condition(nonce, group, places)
        except FileNotFoundError:
            if (self.home / nonce).exists():
                raise
            now = Condition("stopped")  # and forgotten, while it was looked at
        pids = tuple(pid for place in places for pid in pids_of(place.document("state.json")))
        told = [places[number] for number in now.lost] or (places if now.state == "failed" else [])
        tail = "\n".join([*([now.why] if now.why else []), *[line for place in told for line in place.log(20)][-20:]])
        return Instance(
            service=group["service"],
            revision=group["revision"],
            version=group["version"],
            perimeter=group["perimeter"],
            nonce=nonce,
            sockets=tuple(str(place.socket) for place in places),
            state=now.state,
            pids=pids,
            since=group["at"],
            tail=tail,
            health=group["health"],
            nonce_aware=group["nonce_aware"],
            requests=Requests(**group.get("requests", {})),
            lost=len(now.lost),
            level=group.get("level", ""),
        )

    def condition(self, nonce: str, group: Mapping[str, Any], places: list[Place]) -> Condition:
        """How an incarnation is. What failed once stays failed."""
        home = self.home / nonce
        if (home / "stopped").exists():
            ask_to_end(places)  # whoever began to stop it may have died before it asked
            return Condition("stopped")
        with suppress(FileNotFoundError):
            return Condition("failed", (home / "failed").read_text())
        if not all(place.document("state.json") for place in places):
            if self.is_locked():
                return Condition("starting")  # somebody is starting it at this moment
            if all(place.document("state.json") for place in places):
                return self.condition(nonce, group, places)  # somebody was
            (home / "stopped").touch()  # who was starting it died over that: that is no failure of its own
            ask_to_end(places)
            return Condition("stopped")
        answers = self.answers(nonce, group, places)
        # Whether they live is looked at last: what a dead supervisor left behind looks like a stranger.
        gone = [self.gone(group, place, answer) for place, answer in zip(places, answers, strict=True)]
        if any(gone) and (home / "stopped").exists():
            return Condition("stopped")  # since it was looked at
        return self.readiness(home, group, places, gone, answers)

    def gone(self, group: Mapping[str, Any], place: Place, answer: str) -> str:
        """Why a process will never answer again, '' for one that may: whoever listens in its place is a stranger."""
        if not lives(place):
            return ended(place, group)
        return answer if answer.startswith(STRANGER) else ""

    def readiness(
        self, home: Path, group: Mapping[str, Any], places: list[Place], gone: list[str], answers: list[str]
    ) -> Condition:
        """The state of an incarnation that runs, by who of its processes is gone and what is wrong with the others."""
        if (home / "ready").exists():
            silent = [self.long_silent(place, answer) for place, answer in zip(places, answers, strict=True)]
            lost = {n: why for n, whys in enumerate(zip(gone, silent, strict=True)) if (why := whys[0] or whys[1])}
            why = next(iter(lost.values()), "")
            if len(lost) < len(places):  # whoever still answers goes on: I8
                return Condition("ready", why, tuple(lost))
            return Condition("failed", fail(home, why))
        if not any(gone) and not any(answers):
            (home / "ready").touch()
            return Condition("ready")
        if any(gone):
            return Condition("failed", fail(home, next(filter(None, gone))))
        if age(group) < group["start_seconds"]:
            return Condition("starting")
        ask_to_end(places)  # it never had a request, nobody will miss it
        worst = next(filter(None, answers))
        return Condition("failed", fail(home, f"not ready after {group['start_seconds']:g} s: {worst}"))

    def long_silent(self, place: Place, answer: str) -> str:
        """What is wrong with a process for longer than it may go without an answer."""
        if not answer:
            self.silent.pop(place.folder, None)
            return ""
        self.silent.setdefault(place.folder, time.monotonic())
        over = self.silence_of(place) >= self.silence
        return f"it has not answered for {self.silence:g} s: {answer}" if over else ""

    def silence_of(self, place: Place) -> float:
        """For how long a process that was ready has not answered."""
        now = time.monotonic()
        return now - self.silent.get(place.folder, now)

    def answers(self, nonce: str, group: Mapping[str, Any], places: list[Place]) -> list[str]:
        """What is wrong with each process of an incarnation, '' for one that is ready."""
        told = nonce if group["nonce_aware"] else ""

        def ask(place: Place) -> str:
            # Who is lost already is asked only shortly: it must not hold up whoever looks, again and again.
            seconds = self.probe_seconds / (10 if self.silence_of(place) >= self.silence else 1)
            supervisor = place.document("state.json").get("pid", 0)
            protocol = group.get("requests", {}).get("protocol", "http1")
            return probe(place.socket, group["health"], told, seconds, supervisor, protocol)

        if len(places) == 1:
            return [ask(places[0])]
        with ThreadPoolExecutor(max_workers=8) as pool:  # one that hangs must not hold up the others
            return list(pool.map(ask, places))

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


# ------------------------------------------------------------------------------------------------ documents


def socket_path(runtime: Path, nonce: str, number: int) -> Path:
    """Where a process has to listen; the nonce in the name makes a new incarnation a new address (M16)."""
    return runtime / f"{nonce}.{number}.sock"


def boot() -> str:
    """What this start of the machine is called."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def moment() -> dict[str, Any]:
    """Now by the machine's own clock, which nobody sets and which goes on while the machine sleeps (proc(5))."""
    return {"boot": boot(), "begun": time.clock_gettime(time.CLOCK_BOOTTIME)}


def age(group: Mapping[str, Any]) -> float:
    """Seconds since an incarnation was begun; without end when that was in another boot, or before this was noted."""
    same = group.get("boot") == boot()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - float(group["begun"]) if same else float("inf")


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


def pids_of(state: Mapping[str, Any]) -> tuple[int, ...]:
    """Supervisor and root of a process that still runs; () when it has ended or the machine was started anew."""
    pidfd = hold(state)
    if pidfd is None:
        return ()
    os.close(pidfd)
    return (state["pid"], state["child"])


def lives(place: Place) -> bool:
    """Whether its supervisor runs, and with it the process."""
    return bool(pids_of(place.document("state.json")))


def hold(state: Mapping[str, Any]) -> int | None:
    """A pidfd of the very supervisor that wrote the state; None when it has ended."""
    if not state or state["boot"] != boot():
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


def sweep(place: Place) -> None:
    """Kill what a supervisor left behind that was killed itself; its tree carries the socket in its environment, and
    nobody else does: the processes beside it go on.
    """
    state = place.document("state.json")
    if state and state["boot"] == boot():
        marked = f"BRANCHLINE_SOCKET={place.socket}"
        subprocess.run((*PYTHON, "--sweep", marked), capture_output=True, env={}, check=False)


def ended(place: Place, group: Mapping[str, Any]) -> str:
    """How a process ended that should not have."""
    exit = place.document("exit.json")
    if exit:
        if exit.get("starved") or (exit["exit"] and cgroups.killed(group.get("cgroups", {}), int(place.folder.name))):
            return f"out of memory: more than {group['limits']['memory'] // group['instances'] / 1e6:g} MB"
        return f"it ended by itself with exit {exit['exit']} after {exit['seconds']:.1f} s"
    swept = place.folder / "swept"
    if not swept.exists():  # it is looked at again and again for as long as others of its incarnation serve
        sweep(place)
        swept.touch()
    return "its supervisor was killed"
