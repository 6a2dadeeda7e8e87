"""This file keeps warm Python processes (the port Workers): one for an environment, in which every order is a fork.

The process (`sdk/worker.py`) runs below `sdk/shim.py` on a leash: when this process dies or lets go, its whole
tree is ended. An order travels as a socket of its own, handed over through the worker's; whoever closes it ends the
step, and its end without an answer says that the worker was killed. Rules: an idle worker ends itself, the one used
longest ago makes room for one too many; a package that cannot be had ahead is left out of the next worker's; an order
that was not begun is given to another worker once, one that was begun never.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from branchline.ports import Bench

SHIM = Path(__file__).parents[1] / "sdk" / "shim.py"
PYTHON = (sys.executable, "-S", "-I", str(SHIM))
MARK = "BRANCHLINE_RUN"
TRIES = 20  # workers for one order, each but the first two without one more package
SLACK = 60.0  # seconds that an answer may be late
Stopped = Callable[[], bool]


class WarmWorkers:
    """Workers by bench; at most `most` that have nothing to do, each for at most `idle` seconds.

    An order has to be begun within `begins` seconds, which is what importing packages may take, or within `patience`
    once nobody wants it any more.
    """

    def __init__(
        self, home: Path, *, idle: float = 300.0, most: int = 4, grace: float = 5.0, cap: int = 8 << 20,
        every: float = 0.1, begins: float = 600.0, patience: float = 5.0,
    ) -> None:  # fmt: skip
        self.home, self.idle, self.most, self.every = home, idle, most, every
        self.limits = {"seconds": 3600.0, "grace": grace, "cap": cap}
        self.begins, self.patience = begins, patience
        self._lock = threading.Lock()
        self._workers: dict[str, Worker] = {}
        self._living: set[Worker] = set()  # with those that get no more orders, but have some
        self._unwanted: dict[str, tuple[str, ...]] = {}  # packages that cannot be had ahead
        self._closed = False

    def do(self, bench: Bench, order: Mapping[str, Any], stopped: Stopped = lambda: False) -> Mapping[str, Any]:
        """Do it; see the port."""
        key = named(bench)
        why, tries = "no worker can have its packages ahead", 0
        for _ in range(TRIES):
            with self._hired(bench, key) as worker:
                if worker is None:
                    return blank(order, "lost", "the workers were closed")
                wait = Waiting({**self.limits, **order}, stopped, self.begins, self.patience)
                answer = worker.ask(wait, self.every)
            if answer is not None and "again" not in answer:
                if wait.late:
                    self._drop(key, worker)
                return answer
            if answer is None and wait.asked and not wait.begun:
                return blank(order, "stopped", "stopped")
            self._drop(key, worker, answer["again"] if answer else "")
            if answer is None:
                why, tries = f"its worker ended: {worker.tail() or 'it was killed'}", tries + 1
                if wait.begun:
                    return lost(order, why)
                if tries > 1:
                    break
        return blank(order, "lost", why)

    def close(self) -> None:
        """End every worker; see the port."""
        with self._lock:
            self._closed = True
            self._workers.clear()
            living = list(self._living)
        for worker in living:
            self._end(worker)

    @contextmanager
    def _hired(self, bench: Bench, key: str) -> Iterator[Worker | None]:
        """The worker of a bench, busy meanwhile, started if there is none; one that was dropped ends with its last."""
        with self._lock:
            worker = self._workers.get(key)
            over = [each for each, one in self._workers.items() if one.has_ended()]
            if worker is None or key in over:
                worker = None if self._closed else Worker(bench, self.home, self.idle, self._unwanted.get(key, ()))
                idle = sorted((one.used, each) for each, one in self._workers.items() if not one.busy)
                over += [each for _, each in idle if each not in over][: max(0, len(self._workers) - self.most + 1)]
            ended = [self._workers.pop(each) for each in over]
            if worker is not None:
                self._workers[key] = worker
                self._living.add(worker)
                worker.busy += 1
        for each in ended:
            self._end(each)
        try:
            yield worker
        finally:
            if worker is not None:
                with self._lock:
                    worker.busy -= 1
                    worker.used = time.monotonic()
                    left = not worker.busy and self._workers.get(key) is not worker
                if left:
                    self._end(worker)

    def _drop(self, key: str, worker: Worker, package: str = "") -> None:
        """Give a worker no more orders; with a package, the next one leaves that to those that need it."""
        with self._lock:
            if package:
                self._unwanted[key] = tuple(sorted({*self._unwanted.get(key, ()), package}))
            if self._workers.get(key) is worker:
                del self._workers[key]
            alone = not worker.busy
        if alone:
            self._end(worker)

    def _end(self, worker: Worker) -> None:
        """End a worker, and forget it then."""
        worker.end()
        with self._lock:
            self._living.discard(worker)


class Worker:
    """One warm process under its supervisor, and the socket that orders are handed over through."""

    def __init__(self, bench: Bench, home: Path, idle: float, unwanted: tuple[str, ...]) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.mark = uuid.uuid4().hex
        self.log = home / f"{self.mark[:12]}.log"
        self.busy, self.used = 0, time.monotonic()
        self._ending = threading.Lock()
        self._last: str | None = None
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = ("branchline.sdk.worker", str(theirs.fileno()), f"{idle:g}", *unwanted)
        order = {
            "argv": (str(bench.python), "-P", "-m", *command),
            "cwd": str(home),
            "env": {**bench.env, "PYTHONPATH": str(bench.sdk), MARK: self.mark},
            "log": str(self.log),
            "grace": 1.0,
        }
        with theirs, self.log.open("ab") as errors:
            self.shim = subprocess.Popen(
                (*PYTHON, f"worker-{self.mark[:8]}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={},
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        assert self.shim.stdin is not None
        with suppress(BrokenPipeError):  # it died already: the first order will tell
            self.shim.stdin.write(json.dumps(order).encode() + b"\n")
            self.shim.stdin.flush()

    def has_ended(self) -> bool:
        """Whether its supervisor is gone, and with it everything below."""
        return self.shim.poll() is not None

    def ask(self, wait: Waiting, every: float) -> dict[str, Any] | None:
        """Have an order done, and return the answer; None when the worker ended before there was one.

        If the order was begun, nothing of the worker is left then. Raises what `stopped` raises, after it has ended.
        """
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    socket.send_fds(self.control, [b"+"], [theirs.fileno()])
                ours.settimeout(wait.begins)
                ours.sendall(wait.line(self.mark))
            except OSError:  # it takes no more
                return None
            answer = wait.answer(ours, every)
        if answer is None and wait.begun:
            self.end()
        if wait.raised is not None:
            raise wait.raised
        return answer

    def end(self) -> None:
        """Let go of the leash and wait until nothing is left; what its killed supervisor left is found by its mark."""
        with self._ending:
            if self._last is not None:
                return
            self.control.close()
            assert self.shim.stdin is not None
            assert self.shim.stdout is not None
            with suppress(BrokenPipeError):
                self.shim.stdin.close()
            told = self.shim.stdout.read()
            self.shim.stdout.close()
            self.shim.wait()
            if not told:
                sweep = (*PYTHON, "--sweep", f"{MARK}={self.mark}")
                subprocess.run(sweep, capture_output=True, env={}, check=False)
            self._last = last_line(self.log)
            self.log.unlink(missing_ok=True)
            self.log.with_name(self.log.name + ".1").unlink(missing_ok=True)

    def tail(self) -> str:
        """The last line that it printed, once it has ended."""
        return self._last or ""


class Waiting:
    """Waits for what comes back on an order's socket."""

    def __init__(self, order: Mapping[str, Any], stopped: Stopped, begins: float, patience: float) -> None:
        self.order, self.stopped, self.begins, self.patience = order, stopped, begins, patience
        self.begun = self.asked = self.late = False
        self.raised: BaseException | None = None
        self.deadline = 0.0

    def line(self, mark: str) -> bytes:
        """The order as it is sent; what the step starts will bear the worker's mark."""
        env = {**self.order.get("env", {}), MARK: mark}
        return json.dumps({**self.order, "env": env}).encode() + b"\n"

    def answer(self, ours: socket.socket, every: float) -> dict[str, Any] | None:
        """The answer; None when the other side ended without one, or is too late after it began."""
        self.deadline = time.monotonic() + self.begins
        poll, kept = select.poll(), b""
        poll.register(ours, select.POLLIN)
        while True:
            if poll.poll(every * 1000):
                piece = received(ours)
                if not piece:
                    return None
                *lines, kept = (kept + piece).split(b"\n")
                for document in map(json.loads, lines):
                    if "begun" not in document:
                        return dict(document)
                    seconds = float(self.order["seconds"]) + float(self.order["grace"]) + SLACK
                    self.begun, self.deadline = True, time.monotonic() + seconds
            elif time.monotonic() > self.deadline:
                return None if self.begun else self.unbegun()
            if not self.asked and self.is_unwanted():
                self.asked = True
                with suppress(OSError):
                    ours.shutdown(socket.SHUT_WR)
                if not self.begun:
                    self.deadline = time.monotonic() + self.patience

    def is_unwanted(self) -> bool:
        """Whether nobody wants it any more, or asking fails: that is raised when nothing of it runs."""
        try:
            return self.stopped()
        except BaseException as error:  # noqa: BLE001 - see above
            self.raised = error
            return True

    def unbegun(self) -> dict[str, Any]:
        """The answer to an order that was not begun in time: its worker still imports packages."""
        if self.asked:  # and sees that, should it ever come to this order
            return blank(self.order, "stopped", "stopped")
        self.late = True
        return blank(self.order, "lost", f"its packages were not imported within {self.begins:g} s")


def received(ours: socket.socket) -> bytes:
    """A piece of what has come; b'' at the end, however that came."""
    with suppress(ConnectionError):
        return ours.recv(1 << 20)
    return b""


def named(bench: Bench) -> str:
    """What two benches that are one have in common."""
    return json.dumps([str(bench.python), str(bench.sdk), sorted(bench.env.items())])


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""
    return ""


def lost(order: Mapping[str, Any], error: str) -> dict[str, Any]:
    """The answer to an order that was begun and not answered. Nobody has watched its inputs: none is trusted."""
    return blank(order, "lost", error) | {
        "changed": [*order.get("inputs", {}).values(), *order.get("data", {}).values()]
    }


def blank(order: Mapping[str, Any], reason: str, error: str) -> dict[str, Any]:
    """An answer from here."""
    return {
        "step": order["step"], "ok": False, "seconds": 0.0, "timed_out": False, "left": 0, "exit": 137,
        "reason": reason, "summary": "", "error": error, "changed": [], "cpu": 0.0, "peak": 0, "facts": [],
    }  # fmt: skip
