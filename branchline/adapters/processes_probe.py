"""This file looks at processes from outside: whether a server answers, whose it is, and which ones were forgotten.

Rules: whoever listens on a socket is known by the kernel (SO_PEERCRED), and belongs to an incarnation when its
supervisor is among its ancestors (the supervisor adopts orphans, so all of its tree has it there). What cannot be told
counts as ours. A process of ours is known by the socket in its environment. Nothing is touched.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import AF_UNIX, SO_PEERCRED, SOCK_STREAM, SOL_SOCKET, socket

from branchline.core.codes import is_exhausted
from branchline.ports import Stray

NONCE_HEADER = "x-envoy-upstream-healthchecked-cluster"
STRANGER = "a stranger"
ENDED = -1  # in the place of a process id


class UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket(AF_UNIX, SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def probe(path: Path, health: str, nonce: str, seconds: float, supervisor: int, protocol: str = "http1") -> str:
    """Ask a server how it is; '' when it is ready, else what is wrong. With a nonce the answer has to carry it."""
    connection = UnixConnection(path, seconds)
    asked = f"POST {health} by HTTP/2" if protocol == "http2" else f"GET {health}"
    try:
        connection.connect()
        listener = listener_of(connection.sock)
        if not is_within(listener, supervisor):
            return f"{STRANGER} (pid {listener}) listens on its socket"
        if protocol == "http2":
            status = called(connection.sock, health)
            return "" if 200 <= status < 500 else f"{asked} answered {status or 'nothing'}"
        connection.request("GET", health)
        answer = connection.getresponse()
        answer.read()
    except FileNotFoundError:
        return "nothing listens on the socket that BRANCHLINE_SOCKET names"
    except (OSError, HTTPException) as error:
        if is_exhausted(error):
            raise
        return f"{asked} on its socket: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    if not 200 <= answer.status < 300:
        return f"{asked} answered {answer.status}"
    if nonce and answer.headers[NONCE_HEADER] != nonce:
        return f"{asked} was answered by a stranger: {NONCE_HEADER} is not {nonce}"
    return ""


def called(wire: socket, path: str) -> int:
    """The status of a gRPC call without a message, as the gateway makes it; 0 when it was refused before it had one.

    A gRPC server answers 200 even where it knows no such method, and refuses what is no call.
    """
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import ConnectionTerminated, ResponseReceived, StreamReset
    from h2.exceptions import ProtocolError

    asking = H2Connection(H2Configuration())
    asking.initiate_connection()
    words = {":method": "POST", ":scheme": "http", ":authority": "localhost", ":path": path}
    asking.send_headers(1, [*words.items(), ("content-type", "application/grpc"), ("te", "trailers")], end_stream=True)
    wire.sendall(asking.data_to_send())
    try:
        while data := wire.recv(1 << 16):
            for event in asking.receive_data(data):
                if isinstance(event, ResponseReceived):
                    return int(dict(event.headers)[b":status"])
                if isinstance(event, StreamReset | ConnectionTerminated):
                    return 0
            wire.sendall(asking.data_to_send())
    except ProtocolError:  # it speaks something else
        return 0
    return 0


def peer(path: Path, supervisor: int) -> tuple[int, bool]:
    """Who listens on a socket (0: nobody), and whether that is of the supervisor's tree, as far as can be told."""
    with socket(AF_UNIX, SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(str(path))
        except OSError:
            return 0, True
        pid = listener_of(asking)
    return pid, is_within(pid, supervisor)


def listener_of(connected: socket) -> int:
    """The process that began to listen; 0 when it is in another namespace (unix(7))."""
    pid: int = struct.unpack("3i", connected.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i")))[0]
    return pid


def parent(pid: int) -> int:
    """The parent of a process (proc(5), field 4); 0 when it has none here, ENDED when it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return ENDED


def is_within(pid: int, supervisor: int, parent_of: Callable[[int], int] = parent) -> bool:
    """Whether a process is a supervisor's or that one itself; who ends meanwhile, or is in another namespace (0),
    cannot be told, and counts.
    """
    if not pid:
        return True
    while pid > 1 and pid != supervisor:
        pid = parent_of(pid)
    return pid in (supervisor, ENDED)


def orphans(runtime: Path, known: Callable[[], Iterable[str]]) -> list[Stray]:
    """Process trees that serve on a socket below `runtime` for an incarnation that nobody knows, each by its top.

    Who is known is asked before and after all are looked at: one may be begun meanwhile, or cleared away.
    """
    mark = f"BRANCHLINE_SOCKET={runtime}/".encode()
    mine, found, tops = {*known()}, list[tuple[int, str]](), dict[int, str]()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        environ: list[bytes] = []
        with suppress(OSError):  # another person's, or it has just ended
            environ = Path(entry.path, "environ").read_bytes().split(b"\0")
        at = next((each for each in environ if each.startswith(mark)), b"")
        nonce = at.removeprefix(mark).partition(b".")[0].decode("ascii", "replace")
        if at and nonce not in mine:
            found.append((int(entry.name), nonce))
    for pid, nonce in found:
        if nonce not in {*known()}:
            top, name = top_of(pid, nonce)
            tops[top] = name
    return [Stray("orphan", pid, name.partition("@")[0], name) for pid, name in tops.items()]


def top_of(pid: int, nonce: str) -> tuple[int, str]:
    """The supervisor of a forgotten process and what it serves, as SERVICE@VERSION; the process itself without one."""
    at = pid
    while at > 1:
        with suppress(OSError):
            last = (
                Path(f"/proc/{at}/cmdline").read_bytes().rstrip(b"\0").rpartition(b"\0")[2].decode("utf-8", "replace")
            )
            if last.endswith(f"~{nonce}"):
                return at, last.rpartition("~")[0]
        at = parent(at)
    return pid, nonce
