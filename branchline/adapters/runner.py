"""This file runs commands to their end (the port Runner), each under a supervisor of its own.

The supervisor (`sdk/shim.py`, run by path) hangs on a leash: when this process dies or lets go, it ends the command's
whole tree. Nothing here outlives the daemon, so a step is never running twice; what a killed supervisor leaves is found
by a mark in its environment and killed.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from branchline.ports import Finished, Task

SHIM = Path(__file__).parents[1] / "sdk" / "shim.py"
PYTHON = (sys.executable, "-S", "-I", str(SHIM))
MARK = "BRANCHLINE_RUN"
PLAIN = ("exit", "seconds", "timed_out", "left", "tail", "cpu", "peak", "starved")


class ProcessRunner:
    """Runs tasks as process trees; `stopped` is asked every so many seconds, a log keeps 1 to 2 times `cap` bytes."""

    def __init__(self, *, grace: float = 5.0, cap: int = 8 << 20, every: float = 0.1) -> None:
        self.grace, self.cap, self.every = grace, cap, every

    def run(self, task: Task, stopped: Callable[[], bool] = lambda: False) -> Finished:
        """Run it; see the port. An exception of `stopped` ends the tree first and is then passed on."""
        mark = uuid.uuid4().hex
        begun = time.monotonic()
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("ab") as errors:
            shim = subprocess.Popen(
                (*PYTHON, f"run-{mark[:8]}"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={},
                start_new_session=True,
            )
        with shim:
            assert shim.stdin is not None
            assert shim.stdout is not None
            try:
                send(shim.stdin.fileno(), order(task, mark, self.grace, self.cap))
                while not readable(shim.stdout.fileno(), self.every):
                    if stopped():
                        break
            finally:
                shim.stdin.close()
                told = shim.stdout.read()
        if not told:
            return orphaned(task, mark, time.monotonic() - begun)
        report = json.loads(told)
        changed = tuple(map(Path, report["changed"]))
        return Finished(**{name: report[name] for name in PLAIN}, changed=changed)


def order(task: Task, mark: str, grace: float, cap: int) -> bytes:
    """The supervisor's order: one line of JSON."""
    document = {
        "argv": task.argv,
        "cwd": str(task.cwd),
        "env": {**task.env, MARK: mark},
        "log": str(task.log),
        "seconds": task.seconds,
        "stdin": task.stdin,
        "grace": grace,
        "cap": cap,
        "inputs": [str(path) for path in task.inputs],
        "memory": task.memory,
    }
    return json.dumps(document).encode() + b"\n"


def send(number: int, data: bytes) -> None:
    """Write it all; a supervisor that has died already is noticed by its silence."""
    try:
        while data:
            data = data[os.write(number, data) :]
    except BrokenPipeError:
        return


def readable(number: int, seconds: float) -> bool:
    """Whether there is something to read (or the end) within so many seconds."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def orphaned(task: Task, mark: str, seconds: float) -> Finished:
    """What is left to say when the supervisor itself was killed: its tree is swept by the mark."""
    swept = subprocess.run((*PYTHON, "--sweep", f"{MARK}={mark}"), capture_output=True, env={}, check=False).stdout
    tail = "\n".join(task.log.read_text(errors="replace")[-16384:].splitlines()[-20:])
    # Nobody has watched the inputs: none is trusted any more.
    return Finished(137, round(seconds, 4), left=int(swept or 0), tail=tail, changed=task.inputs)
