"""This file gives a function what its parameters name: results of steps, declared data, parameters, and no more.

The signature is the declaration: `def train(clean, sales: Path, seed: int = 0)` needs the result of the step `clean`,
the folder of the data source `sales` and the parameter `seed`. A parameter annotated `Path` gets the path of a result
instead of the loaded object; `int`, `float`, `str` and `bool` convert a declared parameter.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from branchline.sdk import values

WORDS: dict[Any, type] = {name: kind for kind in (int, float, str, bool) for name in (kind, kind.__name__)}


class Unbound(Exception):
    """A function cannot be called; the message says why, for a person."""


def function(call: str) -> Callable[..., Any]:
    """The callable that `module:function` names; raises Unbound when there is none, and what the module raises."""
    name, colon, attribute = call.partition(":")
    if not (name and colon and attribute):
        raise Unbound(f"{call!r} should read module:function")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise Unbound(f"there is no module {name} in the service's folder or environment") from None
        raise
    found: Any = module
    for word in attribute.split("."):
        if not hasattr(found, word):
            raise Unbound(f"module {name} has no {attribute}{suggestion(word, dir(found))}")
        found = getattr(found, word)
    if not callable(found):
        raise Unbound(f"{call} is no function")
    return found  # type: ignore[no-any-return]


def bind(
    called: Callable[..., Any],
    *,
    results: Mapping[str, Path] | None = None,
    data: Mapping[str, Path] | None = None,
    parameters: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    free: str = "",
) -> tuple[dict[str, Any], str]:
    """The arguments of a call by name, and the name of the one parameter that is left for `free` ('' without).

    `given` are objects that are handed over as they are. Raises Unbound for a name that means nothing or two things,
    and when `free` is asked for and not exactly one parameter is left.
    """
    kinds = {
        "a step": results or {},
        "a data source": data or {},
        "a parameter": parameters or {},
        "given": given or {},
    }
    bound: dict[str, Any] = {}
    left: list[str] = []
    for name, parameter in inspect.signature(called).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise Unbound(f"parameter {name!r} can only be given by position; remove the slash")
        meant = [kind for kind, names in kinds.items() if spelled(name, names)]
        if len(meant) > 1:
            raise Unbound(f"parameter {name!r} means two things: {' and '.join(meant)} of that name")
        if meant:
            names = kinds[meant[0]]
            bound[name] = argument(meant[0], names[spelled(name, names)], parameter)
        elif parameter.default is parameter.empty:
            left.append(name)
    if free and len(left) == 1:
        return bound, left[0]
    if free or left:
        raise Unbound(complaint(left, free, sorted(name for names in kinds.values() for name in names)))
    return bound, ""


def spelled(name: str, names: Mapping[str, Any]) -> str:
    """The declared name that a Python name stands for (a dash is written as an underscore); '' when there is none."""
    return next((known for known in names if known.replace("-", "_") == name), "")


def argument(kind: str, value: Any, parameter: inspect.Parameter) -> Any:
    """What a parameter gets, as its annotation wants it."""
    wanted = parameter.annotation
    as_path = wanted is Path or wanted in ("Path", "pathlib.Path")
    if kind == "a step":
        return values.where(Path(value)) if as_path else values.load(Path(value))
    if kind == "a data source":
        return Path(value)
    if kind == "a parameter":
        return converted(value, parameter)
    return value


def converted(value: Any, parameter: inspect.Parameter) -> Any:
    """A declared parameter as its annotation or default says, else as JSON reads it, else the text itself."""
    if not isinstance(value, str):
        return value
    wanted = WORDS.get(parameter.annotation)
    if wanted is None and type(parameter.default) in WORDS:
        wanted = type(parameter.default)
    try:
        read = json.loads(value)
    except ValueError:
        read = value
    if wanted is str:
        return read if isinstance(read, str) else value
    if wanted is None:
        return read
    if (wanted is bool) != isinstance(read, bool):
        raise Unbound(f"parameter {parameter.name!r} should be {wanted.__name__}, not {value}")
    try:
        return wanted(read)
    except (TypeError, ValueError):
        raise Unbound(f"parameter {parameter.name!r} should be {wanted.__name__}, not {value}") from None


def complaint(left: list[str], free: str, known: list[str]) -> str:
    """What to say about parameters that nothing was declared for."""
    may = ", ".join(known) or "nothing"
    if free and not left:
        return f"no parameter is left for {free}; names that mean something else: {may}"
    if free:
        return f"one parameter gets {free}, but {' and '.join(left)} are left; names that mean something: {may}"
    return f"nothing is called {left[0]!r}{suggestion(left[0], known)}; it may ask for: {may}"


def suggestion(word: str, known: list[str]) -> str:
    """A did-you-mean, or nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""
