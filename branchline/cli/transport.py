"""This file speaks to the daemon: HTTP over its Unix socket, and starting it when it is not there.

Only the standard library is used. The daemon's errors come as problem details and are passed on as they are; that it
does not answer is an error of our own. Who listens is asked of the kernel (SO_PEERCRED), never of a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from branchline.cli.show import Answered as Answered
from branchline.core.codes import exit_of, leaves, problem, status_of
from branchline.errors import DaemonDown, SecondDaemon
from branchline.settings import Settings, made

Document = dict[str, Any]
BUSY = exit_of(SecondDaemon.code)
START_SECONDS = 60.0
TAIL = 20


class Client:
    """The daemon behind one socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def answers(self) -> bool:
        """Whether a daemon answers there."""
        try:
            return bool(self.get("/healthz", seconds=5).get("ok"))
        except (DaemonDown, Answered):
            return False

    def listens(self) -> bool:
        """Whether somebody listens there."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def get(self, path: str, seconds: float = 60.0, **query: str | int | float) -> Document:
        """Ask something; raises DaemonDown, or Answered with the daemon's own error."""
        given = {name: value for name, value in query.items() if value != ""}
        return self._speak("GET", f"{path}?{urlencode(given)}" if given else path, None, seconds)

    def post(self, path: str, body: Document | None = None, seconds: float = 330.0) -> Document:
        """Have something done (a fetch from a far remote may take minutes); raises as `get` does."""
        return self._speak("POST", path, body or {}, seconds)

    def pid(self) -> int:
        """The process that listens; 0 when there is none or the system does not say."""
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError, AttributeError):
            probe.connect(str(self.path))
            told = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", told)[0])
        return 0

    def stopped(self) -> int:
        """The process that listens, where a signal has stopped it and only a signal lets it go on; else 0."""
        pid = self.pid()
        return pid if states(Path(f"/proc/{pid}")) & {"T", "t"} else 0

    def _speak(self, method: str, path: str, body: Document | None, seconds: float) -> Document:
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(seconds)
                line.connect(str(self.path))
                line.sendall(asked(method, path, body))
                status, content = answered(b"".join(iter(lambda: line.recv(1 << 16), b"")))
        except OSError as error:
            raise DaemonDown(f"{self.path}: {str(error) or type(error).__name__}") from error
        document = parsed(content)
        if status >= 400:
            raise Answered(as_problem(document, status))
        return document


def states(path: Path) -> set[str]:
    """The state of a process or a thread as the kernel says it (proc(5)); nothing when it is gone."""
    with contextlib.suppress(OSError):
        return {(path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]}
    return set()


def asked(method: str, path: str, body: Document | None) -> bytes:
    """A request after whose answer the line is closed; importing `http.client` would take as long as all else here."""
    text = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


def answered(whole: bytes) -> tuple[int, bytes]:
    """Status and content of an answer; raises ConnectionError when it is none, or not all of one."""
    head, _, content = whole.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3})\b", head)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if status is None or length is None or len(content) != int(length[1]):
        raise ConnectionError("it went away in the middle of an answer")
    return int(status[1]), content


def parsed(content: bytes) -> Document:
    """A JSON object; {} when it is none."""
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def as_problem(document: Document, status: int) -> Document:
    """Problem details that have a code, whatever the daemon answered."""
    if "code" in document:
        return document
    understood = status not in (400, 404, 405, 422)
    title = f"the daemon answered with {status}" if understood else "the daemon does not understand this command"
    hint = "branchline logs daemon" if understood else "branchline down --daemon-only; branchline up"
    code = "BL000" if understood else "BL100"
    return {"code": code, "title": title, "status": status, "detail": json.dumps(document), "hint": hint}


# ------------------------------------------------------------------------------------------------ starting and ending


def command(settings: Settings, port: int) -> list[str]:
    """What starts the daemon; -P keeps the folder it is started in off its path."""
    places = [str(settings.top), str(settings.common), str(settings.state)]
    return [sys.executable, "-P", "-m", "branchline.server.daemon", *places, str(port)]


def start(settings: Settings, port: int = 0) -> Client:
    """Start the daemon so that it outlives us and wait until it answers; raises what it ended with.

    Of two that are started at once one wins and answers for both.
    """
    made(settings)
    client = Client(settings.socket)
    log = settings.state / "daemon.log"
    with log.open("ab") as out:
        begun = out.seek(0, os.SEEK_END)
        child = subprocess.Popen(
            command(settings, port), cwd=settings.state, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while not client.answers():
        ended = child.poll()
        if ended not in (None, BUSY) or time.monotonic() > deadline:
            with log.open("rb") as file:
                file.seek(begun)
                told = file.read().decode("utf-8", "replace")
            raise Answered(why_it_ended(told, ended))
        time.sleep(0.02)
    return client


def why_it_ended(told: str, ended: int | None) -> Document:
    """What a daemon that did not come up said last, as problem details."""
    lines = told.rstrip().splitlines()
    for number in range(len(lines) - 1, -1, -1):
        found = re.match(r"error\[(BL\d{3})\]: (.*)", lines[number])
        if found and found[1] in leaves():
            log = [line.removeprefix("  | ") for line in lines[number + 1 :] if line.startswith("  | ")]
            rest = "\n".join(line for line in lines[number + 1 :] if not line.startswith("  | "))
            cause, _, hint = rest.partition("  hint: ")
            detail = cause.strip().removeprefix("cause:").strip()
            return {
                "code": found[1],
                "title": found[2],
                "detail": detail,
                "hint": hint.strip(),
                "status": status_of(found[1]),
                "log": "\n".join(log),
            }
    cause = f"it ended with {ended}" if ended is not None else f"it did not answer within {START_SECONDS:.0f} s"
    return {**problem(DaemonDown(cause, hint="branchline doctor")), "log": "\n".join(lines[-TAIL:])}


def end(pid: int, number: signal.Signals, seconds: float) -> bool:
    """Send a signal to the daemon and wait until it is gone; whether it is."""
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, FileNotFoundError):
        return True
    try:
        signal.pidfd_send_signal(handle, number)
        return bool(select.select([handle], [], [], seconds)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
