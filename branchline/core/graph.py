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


def parameters_of(source: str, function: str) -> tuple[str, ...] | None:
    """The parameter names of a top-level function in a module's text; None when there is no such function.

    Raises SyntaxError for text that is no Python.
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function:
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            return tuple(argument.arg for argument in every)
    return None


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
            module, _, function = step.call.partition(":")
            named = parameters_of(sources[module], function) if module in sources else None
            if named is None:
                problems.append(f"step {step.name}: there is no function {step.call}")
                continue
            wanted = named
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
