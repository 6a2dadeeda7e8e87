"""This file runs Python steps and gates inside the service's environment: one process, a fresh fork for each.

`python -P -m branchline.sdk.run ANSWERS < ORDERS`: an order is a line of JSON

    {"step", "call", "inputs": {step: path}, "data": {source: path}, "parameters": {}, "output", "log", "seconds"}

and gets a line of JSON in the file ANSWERS (or, without it, on standard output) as soon as it is done

    {"step", "ok", "seconds", "timed_out", "left", "exit", "summary", "error", "value"?, "changed"}

An order with `"gate": true` is a gate's: its function may also ask for `incumbent` (results of the incumbent by step,
or None) and `staging` (an address), and what it returned is the answer's `value`, judged elsewhere. With
`"describe": true` besides, the function is not called but described: the value is its schema. The worker stops
after the first step that failed, never after a gate. What `inputs` and `data` name may not be changed: `changed` says
what was (F23). Rules: the worker itself imports only locked packages (those that the function's module and its
neighbours import at their top), never the service's code, so each fork starts clean; it is `shim.supervise` that ends a
fork's whole tree at its time limit.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any

from branchline.sdk import binding, describe, shim, values

LAST_LINES = 6


def main(arguments: list[str]) -> None:
    """Answer orders one at a time until there are no more, or a step has failed."""
    if arguments:
        answers = os.open(arguments[0], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    else:
        answers = os.dup(1)
        os.dup2(2, 1)  # what a package prints as it is imported is no answer
    for line in sys.stdin:
        if not line.strip():
            continue
        order = json.loads(line)
        answer = done(order)
        os.write(answers, json.dumps(answer).encode() + b"\n")
        if not answer["ok"] and not order.get("gate"):
            return


def done(order: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one order in a fork of its own and return the answer."""
    with suppress(Exception, SystemExit):  # the fork meets the same error, and tells it where it belongs
        preload(order["call"].partition(":")[0])
    told = os.memfd_create("answer")
    home = Path(order["log"]).parent
    home.mkdir(parents=True, exist_ok=True)
    scratch = tempfile.mkdtemp(prefix="scratch-", dir=home)
    try:
        ended = shim.supervise(
            lambda: forked(order, told, scratch),
            order["log"],
            seconds=float(order.get("seconds", 3600)),
            inputs=[*order.get("inputs", {}).values(), *order.get("data", {}).values()],
        )
        os.lseek(told, 0, os.SEEK_SET)
        with os.fdopen(os.dup(told), "rb") as file:
            said = file.read()
    finally:
        os.close(told)
        rmtree(scratch, ignore_errors=True)
    answer = {
        "step": order["step"],
        "ok": False,
        "seconds": ended.seconds,
        "timed_out": ended.timed_out,
        "left": ended.left,
        "exit": ended.exit,
        "summary": "",
        "error": "",
        "changed": ended.changed,
    }
    if ended.changed:
        return answer | {"error": f"{ended.changed[0]} was changed"}
    if ended.timed_out:
        return answer | {"error": f"stopped after {order['seconds']:g} s"}
    if not said:
        return answer | {"error": silence(ended.exit)}
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


def forked(order: Mapping[str, Any], told: int, scratch: str) -> None:
    """Be the fork: call the function, keep what it returned, say how it went."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.environ["TMPDIR"] = tempfile.tempdir = scratch
    try:
        answer = looked(order) if order.get("gate") else kept(order)
    except binding.Unbound as error:
        answer = {"ok": False, "error": f"{order['call']}: {error}"}
    except Exception as error:  # noqa: BLE001 - whatever the service's code raises is what there is to tell
        traceback.print_exception(clipped(error))
        answer = {"ok": False, "error": last_words(error)}
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(told, json.dumps(answer).encode())


def kept(order: Mapping[str, Any]) -> dict[str, Any]:
    """Call a step and keep its result; a small one is in the answer, too."""
    value = call(order, {})
    summary = values.save(value, Path(order["output"]))
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


def preload(module: str) -> None:
    """Import the packages that a module of the service, and its own modules below it, import at their top.

    Raises what they raise. The service's own modules are only read: each fork imports them anew.
    """
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        path = own_module(name)
        if path is None:
            if name.partition(".")[0] not in sys.stdlib_module_names:
                importlib.import_module(name)
            continue
        todo += [*imported(path, name), *parents(name)]


def own_module(name: str) -> Path | None:
    """The file of a module that lies in the service's folders (PYTHONPATH), found without importing anything."""
    for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        for path in (Path(folder, *name.split(".")).with_suffix(".py"), Path(folder, *name.split("."), "__init__.py")):
            if folder and path.is_file():
                return path
    return None


def imported(path: Path, name: str) -> Iterator[str]:
    """The modules that a file imports at its top level, as far as their names tell."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else node.module
            )
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if own_module(f"{base}.{alias.name}"))


def parents(name: str) -> Iterator[str]:
    """The packages that are imported before a module of theirs."""
    while name := name.rpartition(".")[0]:
        yield name


if __name__ == "__main__":
    main(sys.argv[1:])
