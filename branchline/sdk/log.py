"""This file tells numbers from inside a step: `branchline.log(mape=9.5)`, and for curves `branchline.log(step=3, ...)`.

They go to the file that BRANCHLINE_METRICS names, a line of JSON `[name, value, step or null]` each, with one write a
call: any thread or child may tell, and what was told outlives a kill. A call that is wrong in itself (a text, a truth
value, a name with spaces) raises, as every wrong call does. What only this run brings about (a value that is not
finite, a full disk, no run at all) is said once on standard error, and the step goes on.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from typing import SupportsFloat

METRICS = "BRANCHLINE_METRICS"
NAME = re.compile(r"[^\s<>=!]+")
_opened: dict[str, int] = {}
_said: set[str] = set()


def log(*, step: SupportsFloat | None = None, **values: SupportsFloat) -> None:
    """Tell metrics by name; `step` is where on their curves (a training step, an hour, a tree).

    Takes what `float` does, numbers of array libraries included. Raises TypeError for what is no number, ValueError
    for a name that nobody could ask for.
    """
    position = None if step is None else number("step", step)
    lines = "".join(told(name, number(name, value), position) for name, value in values.items())
    path = os.environ.get(METRICS, "")
    if not path:
        say("no run records what is logged here; the same call inside a step of `branchline run` is kept")
    elif lines:
        try:
            append(path, lines.encode())
        except OSError as error:
            say(f"what is logged cannot be kept: {error}")


def number(name: str, value: SupportsFloat) -> float:
    """The value as a float; raises TypeError for texts, truth values, and whatever else is no number."""
    if type(value) is float or type(value) is int:
        return float(value)
    kind = type(value).__name__
    if isinstance(value, str | bytes) or kind in ("bool", "bool_"):
        raise TypeError(f"branchline.log({name}=...) takes a number, not a {kind}: {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"branchline.log({name}=...) takes a number, not a {kind}") from None


def told(name: str, value: float, position: float | None) -> str:
    """One line; '' for a value that is not finite, which is said."""
    if not NAME.fullmatch(name):
        raise ValueError(f"a metric's name has no spaces and none of < > = !: {name!r}")
    if not (math.isfinite(value) and math.isfinite(position or 0.0)):
        say(f"{name} was not finite and is not kept", name)
        return ""
    return json.dumps([name, value, position]) + "\n"


def append(path: str, lines: bytes) -> None:
    """Add whole lines at the end, in one write."""
    if path not in _opened:
        _opened[path] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if os.write(_opened[path], lines) != len(lines):
        raise OSError("the disk is full")


def say(text: str, once: str = "") -> None:
    """Say something on standard error, once in a process."""
    if (once or text) not in _said:
        _said.add(once or text)
        print(f"branchline.log: {text}", file=sys.stderr)
