"""This file reads what a gate's function returned: a gate is a function that looks, and says yes, no or how much.

True passes, False fails, an AssertionError fails with its message, a number is measured (the declared limits decide), a
mapping holds `ok` (True, False, or None for inconclusive), `summary` and numbers. None checked nothing, and fails.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WORDS = {True: "pass", False: "fail", None: "inconclusive"}


@dataclass(frozen=True)
class Finding:
    """`result` is pass, fail, inconclusive, or measured: then `numbers["value"]` has to meet the declared limits."""

    result: str
    summary: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def finding(value: Any) -> Finding:
    """What a returned value says."""
    if value is None:
        return Finding("fail", "it returned nothing: a gate says True, False, a number or {'ok': ...}")
    value = plain(value)
    if isinstance(value, bool):
        return Finding(WORDS[value], "it returned " + str(value))
    if isinstance(value, int | float):
        if not math.isfinite(value):
            return Finding("fail", f"it measured {value}", {})
        return Finding("measured", f"{value:g}", {"value": float(value)})
    if isinstance(value, Mapping):
        return mapped({str(name): plain(part) for name, part in value.items()})
    return Finding("fail", f"it returned a {type(value).__name__}: a gate says True, False, a number or {{'ok': ...}}")


def mapped(value: dict[str, Any]) -> Finding:
    """What a mapping says: `ok` decides, `value` alone is measured."""
    numbers = {
        name: float(part)
        for name, part in value.items()
        if isinstance(part, int | float) and not isinstance(part, bool) and math.isfinite(part)
    }
    summary = str(value.get("summary", "")) or ", ".join(f"{name} {number:g}" for name, number in numbers.items())
    if "ok" in value:
        if value["ok"] not in (True, False, None):
            return Finding("fail", f"'ok' is {value['ok']!r}, it should be True, False or None", numbers)
        return Finding(WORDS[value["ok"]], summary, numbers)
    if "value" in numbers:
        return Finding("measured", summary, numbers)
    return Finding("fail", "it returned neither 'ok' nor 'value'", numbers)


def plain(value: Any) -> Any:
    """A number of an array library as Python's own; anything else as it is."""
    return value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 else value
