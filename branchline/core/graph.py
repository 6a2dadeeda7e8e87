"""This file says in which order the steps of a build run, and what each of them needs.

A Python step's needs are its parameters: names of other steps, of declared data, or of parameters of the service
file. They are read from the source text; user code is never imported here. A command step declares its inputs. What a
step is run for each of, and what it is run only if, it comes after, too; it need not be given them.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from branchline.core.spec import Spec, Step
from branchline.errors import BadDag


class Signature(NamedTuple):
    """A function's parameters by name, and whether it says anything of types."""

    parameters: tuple[str, ...]
    is_hinted: bool


def parameters_of(source: str, function: str) -> tuple[str, ...] | None:
    """The parameter names of a top-level function in a module's text; None when there is no such function.

    Raises SyntaxError for text that is no Python.
    """
    found = _functions(source).get(function)
    return found.parameters if found else None


@lru_cache(maxsize=1000)
def _functions(source: str) -> Mapping[str, Signature]:
    """What the functions of a module say of themselves, by name; the first of a name is meant."""
    found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: _signature(node) for node in reversed(found)}


def _signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    is_hinted = function.returns is not None or any(each.annotation for each in arguments)
    return Signature(tuple(each.arg for each in arguments), is_hinted)


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
        found = _functions(sources[module]).get(name) if module in sources else None
    except SyntaxError:
        return False
    return found is None or found.is_hinted


def needs(spec: Spec, sources: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What every step is given by name: `sources` is the text of the service's modules by module name.

    Raises BadDag naming each parameter that nothing gives, and each cycle.
    """
    steps = {step.name for step in spec.steps}
    known = steps | {source.name for source in spec.data} | {name for name, _ in spec.parameters}
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
        item, _ = step.for_each
        if item and step.call and item not in wanted:
            problems.append(f"step {step.name} is run for each {item}, but its function has no parameter of that name")
        wanted = tuple(name for name in wanted if name != item)
        problems += [
            f"step {step.name} needs {name!r}, which is no step, data source or parameter"
            for name in (*wanted, *listed(step))
            if name not in known
        ]
        found[step.name] = wanted
    if problems:
        raise BadDag("; ".join(problems), service=spec.name)
    order(spec, found)
    return found


def listed(step: Step) -> tuple[str, ...]:
    """What gives a step its items, and what has to be true of it."""
    return tuple(filter(None, (step.for_each[1], step.when)))


def after(spec: Spec, found: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The steps that each step comes after, each once."""
    steps = {step.name for step in spec.steps}
    wanted = {step.name: (*found.get(step.name, ()), *listed(step)) for step in spec.steps}
    return {name: tuple(dict.fromkeys(need for need in needs if need in steps)) for name, needs in wanted.items()}


def order(spec: Spec, found: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The steps in an order in which each stands after what it needs; raises BadDag with the cycle."""
    try:
        return tuple(TopologicalSorter(after(spec, found)).static_order())
    except CycleError as error:
        raise BadDag("a cycle: " + " > ".join(error.args[1]), service=spec.name) from None
