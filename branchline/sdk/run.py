"""This file runs a Python step or gate inside the service's environment, in a fork that is as good as a fresh process.

An order says what to run:

    {"step", "call", "inputs": {step: path}, "data": {source: path}, "parameters": {}, "output", "log", "seconds",
     "cwd", "env": {}, "record": plan or null, "metrics": path or "", "memory": bytes or 0, "cpus": [number, ...]}

and is answered, whatever the function does, with

    {"step", "ok", "seconds", "timed_out", "left", "exit", "reason", "summary", "error", "value"?, "changed", "cpu",
     "peak", "facts": [[kind, name, detail?], ...], "transient"?}

`reason` is one of: ended, raised, timed out, out of memory, killed by N, left nothing, stopped, lost. What may pass by
itself is `transient`: a connection, a time-out, an exception that says so (`transient = True`), exit 75. An order with
`"gate": true` is a gate's: its function may also ask for `incumbent` (results of the incumbent by step, or None) and
`staging` (an address), and what it returned is the answer's `value`, judged elsewhere. With `"describe": true` besides,
the function is not called but described: the value is its schema. What `inputs` and `data` name may not be changed:
`changed` says what was (F23).

Rules: the process that forks imports the interpreter, the sdk and locked packages (`packages`), never the service's
code; the fork is made before its order is there (`Spare`) and pays ahead for the memory that it will write to; it sets
folder, variables and import path before anything of the service is imported. `worker` keeps such a process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from branchline.sdk import binding, describe, packages, record, shim, values

BASE = tuple(sys.path)  # where the interpreter, its packages and the sdk lie
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
REHEARSED = "branchline.sdk.nothing"
SDK = __file__.removesuffix("/branchline/sdk/run.py")


class Spare:
    """A fork that waits for its order, with the two files of memory that it answers into."""

    def __init__(self) -> None:
        self.told, self.met = os.memfd_create("answer"), os.memfd_create("facts")
        gc.freeze()  # what is here now is nobody's garbage: looking for some would copy every page of it
        reading, self.giving = os.pipe()
        self.root = shim.begin(lambda: wait_and_be(reading, self.told, self.met))
        os.close(reading)

    def __enter__(self) -> Spare:
        return self

    def __exit__(self, *_: object) -> None:
        for number in (self.told, self.met, self.giving):
            with suppress(OSError):
                os.close(number)

    def go(self, order: Mapping[str, Any], scratch: str) -> None:
        """Tell it what to do; if it was killed meanwhile, the silence will be noticed."""
        with suppress(BrokenPipeError):
            write_line(self.giving, {"order": order, "scratch": scratch})


def wait_and_be(orders: int, told: int, met: int) -> None:
    """Be a fork that waits for its order."""
    detach((orders, told, met))
    rehearse()
    line = read_line(orders)
    os.close(orders)
    if line:
        given = json.loads(line)
        forked(given["order"], told, met, given["scratch"])


def module_of(order: Mapping[str, Any]) -> str:
    """The module of the ordered function."""
    return str(order["call"]).partition(":")[0]


def roots_of(order: Mapping[str, Any]) -> list[str]:
    """The folders that the service's own modules are imported from."""
    path = str((order.get("env") or os.environ).get("PYTHONPATH", ""))
    return [root for root in path.split(os.pathsep) if root not in ("", SDK)]


def write_line(number: int, document: Mapping[str, Any]) -> None:
    """Write a line of JSON, all of it."""
    data = memoryview(json.dumps(document).encode() + b"\n")
    while data:
        data = data[os.write(number, data) :]


def read_line(number: int) -> bytes:
    """One line; b'' when the other side ended before its end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(number, 1 << 16)
        if not piece:
            return b""
        line += piece
    return line


def read_all(number: int) -> bytes:
    """Everything that lies in a file of memory."""
    os.lseek(number, 0, os.SEEK_SET)
    with os.fdopen(os.dup(number), "rb") as file:
        return file.read()


def blank(step: str) -> dict[str, Any]:
    """An answer that says nothing yet."""
    return {
        "step": step, "ok": False, "seconds": 0.0, "timed_out": False, "left": 0, "exit": 0, "reason": "",
        "summary": "", "error": "", "changed": [], "cpu": 0.0, "peak": 0, "facts": [],
    }  # fmt: skip


def done(order: Mapping[str, Any], spare: Spare, stops: Sequence[int] = ()) -> dict[str, Any]:
    """Carry out one order in a fork that waits for it, and return the answer; `stops` end it early."""
    home = Path(order["log"]).parent
    home.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="scratch-", dir=home)
    try:
        ended = shim.supervise(
            spare.root,
            order["log"],
            stops=stops,
            started=lambda pid: spare.go(order, scratch),
            **shim.options({"seconds": 3600.0, **order, "inputs": watched(order)}),
        )
        said, facts = read_all(spare.told), record.heard(read_all(spare.met))
    finally:
        try:
            os.rmdir(scratch)
        except OSError:
            rmtree(scratch, ignore_errors=True)
    return answered(order, ended, said) | {"facts": facts}


def watched(order: Mapping[str, Any]) -> list[str]:
    """What the step may read and not change."""
    return [*order.get("inputs", {}).values(), *order.get("data", {}).values()]


def answered(order: Mapping[str, Any], ended: shim.Ended, said: bytes) -> dict[str, Any]:
    """The answer, from how the tree ended and what its root has said; what was changed is worse than how it ended."""
    answer = ended_as(order, ended, said)
    return answer | {"ok": False, "error": f"{ended.changed[0]} was changed"} if ended.changed else answer


def ended_as(order: Mapping[str, Any], ended: shim.Ended, said: bytes) -> dict[str, Any]:
    """The answer as far as the end of the tree tells."""
    answer = blank(order["step"]) | {
        name: getattr(ended, name) for name in ("seconds", "timed_out", "left", "exit", "changed", "cpu", "peak")
    }
    if ended.starved:
        return answer | {"reason": "out of memory", "error": f"out of memory: more than {order['memory'] / 1e6:g} MB"}
    if ended.timed_out:
        return answer | {"reason": "timed out", "error": f"stopped after {order['seconds']:g} s"}
    if ended.asked:
        return answer | {"reason": "stopped", "error": "stopped"}
    if not said:
        reason = f"killed by {ended.exit - 128}" if ended.exit > 128 else "left nothing"
        return answer | {"reason": reason, "error": silence(ended.exit), "transient": ended.exit == TRY_AGAIN}
    answer |= json.loads(said)
    printed = [line for line in ended.tail.splitlines() if line.strip()]
    if answer["ok"] and printed and not order.get("gate"):
        answer["summary"] = printed[-1].strip()[:120]
    return answer


def silence(status: int) -> str:
    """What to say about a function that ended without returning or raising."""
    if status == 137:
        return "killed (exit 137); out of memory?"
    if status > 128:
        return f"killed by signal {status - 128} (exit {status})"
    return f"ended the process with exit {status} before it returned"


def forked(order: Mapping[str, Any], told: int, met: int, scratch: str) -> None:
    """Be the fork: call the function, keep what it returned, say how it went."""
    me = os.getpid()
    try:
        settle_in(order, scratch)
        if order.get("record"):
            record.begin(met, order["record"])
        answer = (looked(order) if order.get("gate") else kept(order)) | {"reason": "ended"}
    except binding.Unbound as error:
        answer = {"ok": False, "reason": "raised", "error": f"{order['call']}: {error}"}
    except Exception as error:  # noqa: BLE001 - whatever the service's code raises is what there is to tell
        traceback.print_exception(clipped(error))
        reason = "out of memory" if isinstance(error, MemoryError) else "raised"
        transient = isinstance(error, ConnectionError | TimeoutError) or getattr(error, "transient", False) is True
        answer = {"ok": False, "reason": reason, "error": last_words(error), "transient": transient}
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getpid() == me:  # else it is a fork that the function made and let return
        os.write(told, json.dumps(answer).encode())


def detach(kept: Sequence[int]) -> None:
    """Let go of what a step has no business with: descriptors, the supervisor's signals, seeds of the worker."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in packages.descriptors() - packages.opened - {0, 1, 2, *kept}:
        with suppress(OSError):
            os.close(number)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as the interpreter has it: writing to nobody raises
    signal.signal(signal.SIGINT, signal.default_int_handler)
    packages.seed()


def settle_in(order: Mapping[str, Any], scratch: str) -> None:
    """Make a fork what a process of its own would be: folder, variables, import path, processors."""
    if "env" in order:
        renew(order, [module_of(order)])
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    if order.get("metrics"):
        os.environ["BRANCHLINE_METRICS"] = order["metrics"]
    if order.get("cpus"):
        with suppress(OSError):  # none of them is left to us
            os.sched_setaffinity(0, order["cpus"])


def renew(order: Mapping[str, Any], modules: Sequence[str]) -> None:
    """Take variables, folder and import path from an order, for these modules of the service."""
    roots = roots_of(order)
    os.environ.clear()
    os.environ.update(order["env"])
    if packages.changes:
        packages.redo([each for module in modules for each in packages.wanted(module, roots)])
    packages.forget(roots)
    sys.path[:] = [SDK, *roots, *(folder for folder in BASE if folder != SDK)]
    sys.argv[:] = sys.argv[:1]
    time.tzset()
    os.chdir(order["cwd"])


def rehearse() -> None:
    """Do what an order will bring, for nothing, while nobody waits: who writes to a page that a fork shares pays for a
    copy of it, and this pays ahead.
    """
    sample = {"call": f"{REHEARSED}:nothing", "env": dict(os.environ), "cwd": os.getcwd(), "inputs": {}}
    settle_in(json.loads(json.dumps(sample)), tempfile.gettempdir())
    sys.modules.pop(REHEARSED, None)
    call(sample, {})
    del sys.modules[REHEARSED]


def kept(order: Mapping[str, Any]) -> dict[str, Any]:
    """Call a step and keep its result; a small one is in the answer, too."""
    value = call(order, {})
    summary = values.save(value, Path(order["output"]), order.get("save", ""))
    text = values.as_json(value)
    return {"ok": True, "summary": summary, **({"value": value} if text is not None and len(text) < 4096 else {})}


def looked(order: Mapping[str, Any]) -> dict[str, Any]:
    """Call a gate and tell what it returned; raises TypeError or ValueError when JSON has no form for it."""
    if order.get("describe"):
        return {"ok": True, "value": describe.described(order["call"], order.get("known", ()))}
    incumbent = order.get("incumbent")
    found = None if incumbent is None else values.Results(incumbent)
    value = call(order, {"incumbent": found, "staging": order.get("staging", "")})
    return {"ok": True, "value": json.loads(json.dumps(value, default=values.plain))}


def call(order: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Call the ordered function with what its parameters name."""
    called = binding.function(order["call"])
    arguments, _ = binding.bind(
        called,
        results={name: Path(path) for name, path in order.get("inputs", {}).items()},
        data={name: Path(path) for name, path in order.get("data", {}).items()},
        parameters=order.get("parameters", {}),
        given=given,
    )
    return called(**arguments)


def clipped(error: Exception) -> Exception:
    """The exception with our own frames left out of its traceback: people look for theirs."""
    here, trace = os.path.dirname(__file__), error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(here):
        trace = trace.tb_next
    return error.with_traceback(trace or error.__traceback__)


def last_words(error: Exception) -> str:
    """An exception in one line with the place in the service's code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and not frame.filename.startswith("<")]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    return (traceback.format_exception_only(error)[-1].strip()[:500] + place).replace("\n", " ")
