"""This file says in which order the steps of a build run, and what each of them needs.

A Python step's needs are its parameters: names of other steps, of declared data, or of parameters of the service
file. They are read from the source text; user code is never imported here. A command step declares its inputs.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from branchline.core.spec import Spec
from branchline.errors import BadDag

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters_of(source: str, function: str) -> tuple[str, ...] | None:
    """The parameter names of a top-level function in a module's text; None when there is no such function.

    Raises SyntaxError for text that is no Python.
    """
    found = _function(source, function)
    return None if found is None else tuple(argument.arg for argument in _arguments(found))


def _function(source: str, name: str) -> Function | None:
    return next((node for node in ast.parse(source).body if isinstance(node, Function) and node.name == name), None)


def _arguments(function: Function) -> list[ast.arg]:
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def needed_by(call: str, sources: Mapping[str, str]) -> tuple[str, ...]:
    """What the function `module:function` needs by name; raises ValueError in words when there is none to be read."""
    module, _, function = call.partition(":")
    try:
        named = parameters_of(sources[module], function) if module in sources else None
    except SyntaxError as error:
        raise ValueError(f"{module} is no Python: {error.msg} in line {error.lineno}") from error
    if named is None:
        raise ValueError(f"there is no function {call}")
    return named


def hinted(call: str, sources: Mapping[str, str]) -> bool:
    """Whether the function `module:function` says anything of types; True where these sources do not tell."""
    module, _, name = call.partition(":")
    try:
        found = _function(sources[module], name) if module in sources else None
    except SyntaxError:
        return False
    return found is None or found.returns is not None or any(each.annotation for each in _arguments(found))


def needs(spec: Spec, sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What every step needs by name: `sources` is the text of the service's modules by module name.

    Raises BadDag naming each parameter that nothing gives, and each cycle.
    """
    steps = {step.name for step in spec.steps}
    known = steps | {name for name, _ in spec.data} | {name for name, _ in spec.parameters}
    problems: list[str] = []
    found: dict[str, tuple[str, ...]] = {}
    for step in spec.steps:
        wanted = step.inputs
        if step.call:
            try:
                wanted = needed_by(step.call, sources)
            except ValueError as error:
                problems.append(f"step {step.name}: {error}")
                continue
        problems += [
            f"step {step.name} needs {name!r}, which is no step, data source or parameter"
            for name in wanted
            if name not in known
        ]
        found[step.name] = wanted
    if problems:
        raise BadDag("; ".join(problems), service=spec.name)
    order(spec, found)
    return found


def order(spec: Spec, found: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The steps in an order in which each stands after what it needs; raises BadDag with the cycle."""
    steps = [step.name for step in spec.steps]
    graph = {name: [need for need in found.get(name, ()) if need in steps] for name in steps}
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise BadDag("a cycle: " + " > ".join(error.args[1]), service=spec.name) from None
