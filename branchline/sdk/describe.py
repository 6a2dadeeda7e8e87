"""This file says as JSON Schema what a service's `predict` accepts and answers, from the hints of its signature.

`sdk.run` calls it for an order with `"describe": true`, in the service's own environment: nothing else imports the code
of a service. Rules: what a hint does not say, or what JSON has no form for, is `{}`, anything. A model that describes
itself (`model_json_schema`, as pydantic's do) is asked. A class that is met again inside itself is anything there.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections import abc
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from branchline.sdk import binding

Schema = dict[str, Any]
PLAIN: dict[Any, Schema] = {
    bool: {"type": "boolean"}, int: {"type": "integer"}, float: {"type": "number"}, str: {"type": "string"},
    None: {"type": "null"}, type(None): {"type": "null"}, list: {"type": "array"}, tuple: {"type": "array"},
    dict: {"type": "object"},
}  # fmt: skip
LISTS = (list, set, frozenset, abc.Sequence, abc.Iterable, abc.Collection)
TABLES = (dict, abc.Mapping, abc.MutableMapping)


def described(call: str, known: Collection[str]) -> dict[str, Schema]:
    """The schema of the request and of the response of `module:function`.

    `known` are the names that mean something else than the request. Raises binding.Unbound when there is no such
    function.
    """
    called = binding.function(call)
    hints = hints_of(called)
    parameters = inspect.signature(called).parameters.values()
    left = [
        each.name
        for each in parameters
        if each.default is each.empty
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        and not binding.spelled(each.name, dict.fromkeys(known))
    ]
    request = schema_of(hints[left[0]]) if len(left) == 1 and left[0] in hints else {}
    response = schema_of(hints["return"]) if "return" in hints else {}
    return {"request": lifted(request), "response": lifted(response)}


def hints_of(thing: Callable[..., Any]) -> Mapping[str, Any]:
    """The hints of a function or class, resolved; none when a name in them is not there at run time."""
    try:
        return typing.get_type_hints(thing, include_extras=True)
    except Exception:  # noqa: BLE001 - a hint may name anything, and what it does not say is no error
        return {}


def schema_of(hint: Any, inside: tuple[Any, ...] = ()) -> Schema:
    """The JSON Schema of a type hint; {} for what cannot be said."""
    if inspect.isclass(hint) and hint in inside:
        return {}
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is typing.Annotated or getattr(origin, "__name__", "") in ("Required", "NotRequired", "ReadOnly"):
        return schema_of(arguments[0], inside)
    if hint in PLAIN if isinstance(hint, abc.Hashable) else False:
        return dict(PLAIN[hint])
    if origin in (Union, types.UnionType):
        options = [schema_of(each, inside) for each in arguments]
        return {} if {} in options else {"anyOf": options}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in LISTS:
        return _with({"type": "array"}, "items", schema_of(arguments[0], inside))
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is ...:
            return _with({"type": "array"}, "items", schema_of(arguments[0], inside))
        items = [schema_of(each, inside) for each in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in TABLES:
        return _with({"type": "object"}, "additionalProperties", schema_of(arguments[1], inside))
    return class_schema(hint, inside) if inspect.isclass(hint) else {}


def class_schema(kind: type, inside: tuple[Any, ...]) -> Schema:
    """The JSON Schema of a class: an enumeration, a model that describes itself, a TypedDict or a dataclass."""
    if issubclass(kind, enum.Enum):
        return {"enum": [each.value for each in kind]}
    if callable(itself := getattr(kind, "model_json_schema", None)):
        return dict(itself())
    if kind in TABLES or kind in LISTS:
        return {"type": "object" if kind in TABLES else "array"}
    required = getattr(kind, "__required_keys__", None)
    if required is None and dataclasses.is_dataclass(kind):
        missing = dataclasses.MISSING
        required = {f.name for f in dataclasses.fields(kind) if f.default is missing and f.default_factory is missing}
    if required is None:
        return {}
    hints = hints_of(kind)
    # A TypedDict below `from __future__ import annotations` takes every key as required: the hint itself knows better.
    said = {name: getattr(get_origin(hint), "__name__", "") for name, hint in hints.items()}
    must = [name for name in hints if said[name] == "Required" or (name in required and said[name] != "NotRequired")]
    fields = {name: schema_of(hint, (*inside, kind)) for name, hint in hints.items()}
    return {"type": "object", "properties": fields, "required": sorted(must)}


def lifted(schema: Schema) -> Schema:
    """The schema with the definitions of all models inside it at its top, where their references look for them."""
    found: Schema = {}

    def without(part: Any) -> Any:
        if isinstance(part, list):
            return [without(each) for each in part]
        if not isinstance(part, dict):
            return part
        rest = {name: without(value) for name, value in part.items()}
        found.update(rest.pop("$defs", {}))
        return rest

    whole: Schema = without(schema)
    return {**whole, "$defs": found} if found else whole


def _with(schema: Schema, key: str, inner: Schema) -> Schema:
    """The schema with one more word, if that says anything."""
    return {**schema, key: inner} if inner else schema
