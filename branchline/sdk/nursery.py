"""This file keeps one process of an environment that has imported what servers begin with, and forks them from it.

`python -P -m branchline.sdk.nursery SOCKET WORD`, with the variable ROOM, is told over the socket SOCKET (a number)
what is to be served, `{"spec": path, "roots": [folder, ...], "fork": bool}`, with a socket of that server's own. What
its modules import of the environment's packages is imported first. Then `ok` is the answer; or a fork takes the socket,
reads its order there (one of `shim`), and becomes a supervisor and its server (`serve`) as if both had been started:

- this process only imports, and never the service's code; it opens no result, and reads nobody's order: no fork finds
  variables, names, sockets or models of another;
- who has a second thread or a socket after an import is no good to fork from: it says why and ends, with exit 1;
- a server is found by what /proc shows of it, so a fork writes its own marks there: WORD and ROOM leave the room;
- it ends when whoever holds its standard input lets go, however that comes, and what was forked from it serves on.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import select
import socket
import stat
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from branchline.sdk import packages, run, serve, shim, trees

ROOM = "BRANCHLINE_ROOM"
UVICORN: list[packages.Import] = [(f"uvicorn{name}", ()) for name in serve.AHEAD]


def main(arguments: list[str]) -> None:
    """Import and fork until nobody wants any more."""
    end_with_input()
    control = socket.socket(fileno=int(arguments[0]))
    room = arguments[1].encode(), f"{ROOM}={os.environ[ROOM]}".encode()
    while True:
        packages.opened &= packages.descriptors()  # a number that a package closed may come to be another's
        said, numbers, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not numbers:
            return
        asked = json.loads(said)
        wanted = [each for module in modules_of(asked["spec"]) for each in packages.wanted(module, asked["roots"])]
        if why := packages.preload([*UVICORN, *wanted]) or unfit({0, 1, 2, control.fileno(), numbers[0]}):
            sys.exit(f"{why} cannot be had ahead")
        if asked["fork"]:
            fork(numbers[0], room)
        else:
            os.write(numbers[0], b"ok\n")
        os.close(numbers[0])


def end_with_input() -> None:
    """Be ended by the signal SIGIO when the pipe of standard input loses its last writer, even amid an import."""
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if poll.poll(0):  # that was before
        sys.exit()


def modules_of(spec: str) -> list[str]:
    """The modules whose packages are to be had ahead; of all else that the file says nothing is kept."""
    return [str(module) for module in json.loads(Path(spec).read_text(encoding="utf-8"))["modules"]]


def unfit(ours: set[int]) -> str:
    """What importing has left in this process that a fork must not have; '' for nothing."""
    if len(os.listdir("/proc/self/task")) > 1:
        return "a package that starts threads"
    others = packages.descriptors() - ours
    return "a package that opens a socket" if any(stat.S_ISSOCK(os.fstat(each).st_mode) for each in others) else ""


def fork(number: int, room: tuple[bytes, bytes]) -> None:
    """Fork who will take the order on a socket; returns when its supervisor is a process of its own."""
    gc.freeze()  # what is here now is nobody's garbage: looking for some would copy every page of it
    pid = os.fork()
    if pid == 0:
        begin(number, room)
    os.waitpid(pid, 0)


def begin(number: int, room: tuple[bytes, bytes]) -> NoReturn:
    """Be the fork: become the supervisor of an order, and never return."""
    status = 70
    try:
        order = json.loads(run.read_line(number))
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(number, 1)
        os.dup2(log, 2)
        run.detach(())
        word, variable = room
        name = str(order["name"]).encode()
        trees.relabel(word, name)

        def body() -> None:
            trees.relabel(name, b"")
            trees.relabel(variable, f"BRANCHLINE_SOCKET={order['socket']}".encode())
            become(order)

        shim.detached(order, body)
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


def become(order: Mapping[str, Any]) -> None:
    """Be the server: its limits, nothing of the supervisor's, its own variables; it ends as an interpreter would."""
    trees.confine(order.get("cgroups", ()), order.get("files", 0))
    run.detach(())
    run.renew(order, modules_of(order["env"]["BRANCHLINE_SERVICE_SPEC"]))
    try:
        serve.main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        raise
    except Exception:  # noqa: BLE001 - as an interpreter does it
        traceback.print_exc()
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
