"""This file keeps one warm process for an environment, which gives each order to a supervisor with a fork at hand.

`python -P -m branchline.sdk.worker SOCKET IDLE [PACKAGE ...]` serves orders (see `run`) that come as sockets of their
own over the socket SOCKET (a number), until that is closed or nothing came for IDLE seconds. The packages named are not
imported ahead. On an order's socket comes the order, a line of JSON, and back go lines of JSON: `{"begun"}`, before
anything of it is done, or `{"again": PACKAGE}` when this process cannot have that package ahead and another one without
it is to be asked; then the answer. Whoever closes an order's socket ends the step.

Rules: this process imports the interpreter, the sdk and locked packages, never the service's code, and its forks are
clean because it is; a supervisor is a process of its own, since `shim.supervise` takes every child of its process for a
part of the tree, and serves one order after another; whoever dies takes all below with him, and what a killed
supervisor leaves comes to this process, which ends it and answers in its place.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from branchline.sdk import packages, run, shim, trees

MOST_FREE = max(4, os.cpu_count() or 1)  # supervisors that wait for orders
RECORDER: list[packages.Import] = [("branchline.sdk.record", ())]


def main(arguments: list[str]) -> None:
    """Serve."""
    Server(socket.socket(fileno=int(arguments[0])), float(arguments[1]), arguments[2:]).serve()


@dataclass(slots=True, eq=False)
class Attendant:
    """A supervisor that serves one order after another: its process, what it is spoken to through, and its order."""

    pid: int
    channel: socket.socket
    packages: int  # imports that were had ahead as it was forked
    number: int = -1  # the order's socket; -1 while it has none
    step: str = ""
    lost: bool = False  # it cannot be spoken to any more


class Server:
    """The warm process: it gives each order to a supervisor of its own, and sweeps up after one that was killed."""

    def __init__(self, control: socket.socket, idle: float, unwanted: Sequence[str] = ()) -> None:
        self.control, self.idle, self.unwanted = control, idle, unwanted
        self.serving = True
        self.attendants: list[Attendant] = []
        self.leaving: list[int] = []

    def serve(self) -> None:
        """Take orders until nobody wants any; those that were begun are finished."""
        trees.adopt_orphans()
        while self.serving or any(each.number >= 0 for each in self.attendants):
            self.leaving = [pid for pid in self.leaving if not os.waitpid(pid, os.WNOHANG)[0]]
            waiting = select.poll()
            for number in (*self.speakers(), *([self.control.fileno()] if self.serving else [])):
                waiting.register(number, select.POLLIN)
            busy = any(each.number >= 0 for each in self.attendants)
            wait = 0.1 if self.leaving else None if busy else self.idle
            ready = [number for number, _ in waiting.poll(None if wait is None else wait * 1000)]
            if not (ready or busy or self.leaving):
                return
            speakers = self.speakers()
            for number in ready:
                one = speakers.get(number)
                if one is None:
                    self.take()
                elif one in self.attendants:  # still: an order that was taken may have dismissed it
                    self.hear(one)

    def speakers(self) -> dict[int, Attendant]:
        """The attendants by what is listened to."""
        return {each.channel.fileno(): each for each in self.attendants}

    def take(self) -> None:
        """Take one order; a package that cannot be had ahead is named, and then this process takes no more."""
        said, numbers, _, _ = socket.recv_fds(self.control, 1, 1)
        line = run.read_line(numbers[0]) if numbers else b""
        if not said or not line:
            self.serving = bool(said)
            for number in numbers:
                os.close(number)
            return
        if has_hung_up(numbers[0]):  # nobody wants it any more
            os.close(numbers[0])
            return
        order = json.loads(line)
        wanted = packages.wanted(run.module_of(order), run.roots_of(order))
        spoilt = packages.preload(wanted + RECORDER if order.get("record") else wanted, self.unwanted)
        with suppress(BrokenPipeError):  # who asked has ended: the step will be, too
            run.write_line(numbers[0], {"again": spoilt} if spoilt else {"begun": os.getpid()})
        if spoilt:
            os.close(numbers[0])
            self.refuse()
        else:
            self.give(line, numbers[0], order["step"])

    def refuse(self) -> None:
        """Take no more orders, and none of those that wait to be taken."""
        self.serving = False
        self.control.shutdown(socket.SHUT_RDWR)
        while numbers := socket.recv_fds(self.control, 1, 1)[1]:
            os.close(numbers[0])

    def give(self, line: bytes, number: int, step: str) -> None:
        """Give an order to a supervisor that has none; one that knows fewer packages by now has to leave."""
        for each in [each for each in self.attendants if each.number < 0]:
            if each.packages != len(packages.had):
                self.dismiss(each)
        while True:
            each = next((each for each in self.attendants if each.number < 0 and not each.lost), None) or self.hire()
            try:
                sent = socket.send_fds(each.channel, [line], [number])
                each.channel.sendall(line[sent:])
            except OSError:  # it was killed while it had nothing to do: that will be heard
                each.lost = True
                continue
            each.number, each.step = number, step
            return

    def hire(self) -> Attendant:
        """Fork one more supervisor."""
        gc.freeze()  # as for a step's fork
        ours, theirs = socket.socketpair()
        me, pid = os.getpid(), os.fork()
        if pid == 0:
            for other in (self.control, ours, *(each.channel for each in self.attendants)):
                other.close()
            for each in self.attendants:
                if each.number >= 0:
                    os.close(each.number)
            attend(theirs, me)
        theirs.close()
        self.attendants.append(Attendant(pid, ours, len(packages.had)))
        return self.attendants[-1]

    def dismiss(self, one: Attendant) -> None:
        """Let a supervisor that has no order end."""
        self.attendants.remove(one)
        one.channel.close()
        self.leaving.append(one.pid)

    def hear(self, one: Attendant) -> None:
        """A supervisor is done; or it was killed: then end what it watched, and answer in its place."""
        try:
            done = bool(one.channel.recv(1))
        except ConnectionError:
            done = False
        if not done:
            code = os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1])
            self.attendants.remove(one)
            one.channel.close()
            self.end_strays()
            if one.number >= 0:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit {code}"
                lost = {"reason": "lost", "error": f"its supervisor {how}", "exit": 137}
                with suppress(OSError):
                    run.write_line(one.number, run.blank(one.step) | lost)
        if one.number >= 0:
            os.close(one.number)
            one.number = -1
        if done and sum(each.number < 0 for each in self.attendants) > MOST_FREE:
            self.dismiss(one)

    def end_strays(self) -> None:
        """End what a killed supervisor has left: its step's processes have become children of this one."""
        known = {each.pid for each in self.attendants}.union(self.leaving)
        while strays := {pid for pid, parent in trees.parents().items() if parent == os.getpid()} - known:
            for stray in strays:
                trees.kill(stray)
                os.waitpid(stray, 0)


def has_hung_up(number: int) -> bool:
    """Whether the other side of a socket has closed it, or said that nothing more will come."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))


def attend(channel: socket.socket, parent: int) -> NoReturn:
    """Be a supervisor: serve one order after another, the next step's fork waiting ahead, and never return."""
    status = 70
    try:
        trees.die_with(parent)
        stop = shim.termination()
        while True:
            with run.Spare() as spare:
                waiting = select.poll()
                waiting.register(channel, select.POLLIN)
                waiting.register(stop, select.POLLIN)
                if any(number == stop for number, _ in waiting.poll()):
                    break
                line, numbers, _, _ = socket.recv_fds(channel, 1 << 16, 1)
                if not numbers:
                    break
                line += b"" if line.endswith(b"\n") else run.read_line(channel.fileno())
                order = json.loads(line)
                try:
                    answer = run.done(order, spare, (numbers[0], stop))
                except OSError as error:  # no room for its log, say
                    answer = run.blank(order["step"]) | {"reason": "lost", "error": f"it cannot be run: {error}"}
                with suppress(BrokenPipeError):  # nobody wants to know any more
                    run.write_line(numbers[0], answer)
                os.close(numbers[0])
            channel.send(b".")
        status = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
