"""This file says what a change of a request or response schema means: is it a major, a minor or a patch.

A schema document is `{"request": JSON Schema, "response": JSON Schema}` (draft 2020-12); a side without a word is `{}`.
Rules: whoever called the old revision has to be able to call the new one. So a request may only grow wider (it accepts
all that it did), a response only narrower (it is nothing that it was not); a field that was taken away or means another
type breaks both. A new field breaks nobody, unless a request has to have it. What the old one said nothing of was no
promise, so a schema may grow more precise. What cannot be compared breaks if it was changed. Titles, descriptions,
defaults and examples mean nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

Schema = Mapping[str, Any]
SIDES = ("request", "response")


class Way(Enum):
    """How the set of what is valid has changed."""

    NARROWER = "narrower"
    WIDER = "wider"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `where` is a path as `request.rows[].sqm`, `text` says what became of it."""

    where: str
    text: str
    breaking: bool

    def __str__(self) -> str:
        return f"{self.where} {self.text}"


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two schemas at one place, each with the document that its references point into."""

    old: Schema
    new: Schema
    roots: tuple[Schema, Schema]
    side: str
    path: str
    met: frozenset[tuple[str, str]] = frozenset()

    def at(self, old: object, new: object, step: str) -> _Pair:
        return _Pair(_whole(old), _whole(new), self.roots, self.side, self.path + step, self.met)


Found = Iterator[tuple[Way, str, str]]

MEANINGLESS = frozenset(
    {"title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "discriminator"}
    | {"$schema", "$id", "$comment", "$defs", "definitions"}
)
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
FIELDS = ("properties", "required", "additionalProperties")
COMPARED = frozenset(("type", "enum", "const", "items", "prefixItems", *FIELDS, *LOWER, *UPPER))
ALTERNATIVES = ("anyOf", "oneOf")


def read(text: str) -> Mapping[str, Schema]:
    """The two sides of a schema document; raises ValueError in words when it is none."""
    document = json.loads(text or "{}")
    if not isinstance(document, Mapping) or set(document) - set(SIDES):
        raise ValueError('it should be {"request": JSON Schema, "response": JSON Schema}')
    for side, schema in document.items():
        if not isinstance(schema, Mapping | bool):
            raise ValueError(f"{side} is no JSON Schema")
    return {side: _whole(document.get(side, {})) for side in SIDES}


def says_something(text: str) -> bool:
    """Whether a schema document says anything of either side."""
    return any(read(text).values())


def changes(old: str, new: str) -> tuple[Change, ...]:
    """What has changed from one schema document to another, what breaks callers first."""
    before, after = read(old), read(new)
    found = []
    for side in SIDES:
        pair = _Pair(before[side], after[side], (before[side], after[side]), side, side)
        for way, where, text in _differences(pair):
            allowed = Way.WIDER if side == "request" else Way.NARROWER
            found.append(Change(where, text, way is not allowed))
    return tuple(sorted(dict.fromkeys(found), key=lambda each: not each.breaking))


def bump(found: Iterable[Change]) -> str:
    """The bump that changes ask for: `major` when one of them breaks callers, `minor` for others, else `patch`."""
    breaking = [change.breaking for change in found]
    return "major" if any(breaking) else "minor" if breaking else "patch"


def _differences(pair: _Pair) -> Found:
    """Every difference of two schemas, and of all that is inside them."""
    here = _said(pair.old), _said(pair.new)
    if here in pair.met:
        return  # a schema that holds itself was compared on the way here
    pair = replace(pair, met=pair.met | {here})
    old, new = _variants(pair.old, pair.roots[0]), _variants(pair.new, pair.roots[1])
    if {} in old:
        return  # nothing was said
    gone, come = _besides(old, new), _besides(new, old)
    if len(gone) == len(come) == 1:
        yield from _single(pair.at(gone[0], come[0], ""))
    elif gone or come:
        yield from _alternatives(pair, old, new)


def _said(schema: Schema) -> str:
    return json.dumps({name: value for name, value in schema.items() if name not in MEANINGLESS}, sort_keys=True)


def _besides(some: Sequence[Schema], others: Sequence[Schema]) -> list[Schema]:
    """The alternatives that are not among the others as they are; a reference in them may mean something else there."""
    return [each for each in some if each not in others or '"$ref"' in json.dumps(each)]


def _alternatives(pair: _Pair, old: Sequence[Schema], new: Sequence[Schema]) -> Found:
    """The differences of two sets of alternatives: which of one side fits none of the other."""
    for each in old:
        if not any(_fits(pair, each, other, Way.WIDER) for other in new):
            yield Way.NARROWER, pair.path, f"is never {_name(each)} any more"
    for each in new:
        if not any(_fits(pair, other, each, Way.NARROWER) for other in old):
            yield Way.WIDER, pair.path, f"may be {_name(each)}, too"


def _fits(pair: _Pair, old: Schema, new: Schema, allowed: Way) -> bool:
    return all(way is allowed for way, _, _ in _single(pair.at(old, new, "")))


def _single(pair: _Pair) -> Found:
    """The differences of two schemas without alternatives, of which the old one says something."""
    was, now = _type(pair.old), _type(pair.new)
    if was != now:
        ways = {(was, ""): Way.WIDER}
        ways |= {("integer", "number"): Way.WIDER, ("number", "integer"): Way.NARROWER}
        yield ways.get((was, now), Way.OTHER), pair.path, f"was {was or 'anything'} and is {now or 'anything'}"
        return
    yield from _values(pair)
    yield from _bounds(pair)
    yield from _items(pair)
    yield from _fields(pair)
    for key in sorted((set(pair.old) | set(pair.new)) - COMPARED - MEANINGLESS):
        old, new = pair.old.get(key), pair.new.get(key)
        if old != new:
            way = Way.NARROWER if old is None else Way.WIDER if new is None else Way.OTHER
            yield way, pair.path, f"has another {key}: {_short(old)} became {_short(new)}"


def _values(pair: _Pair) -> Found:
    old, new = _enumerated(pair.old), _enumerated(pair.new)
    gone = [] if new is None else ["every other value"] if old is None else [each for each in old if each not in new]
    come = [] if old is None else ["every other value"] if new is None else [each for each in new if each not in old]
    if gone:
        yield Way.NARROWER, pair.path, f"is not {_listed(gone)} any more"
    if come:
        yield Way.WIDER, pair.path, f"may be {_listed(come)}, too"


def _bounds(pair: _Pair) -> Found:
    for keys, sign in ((LOWER, 1), (UPPER, -1)):
        for key in keys:
            was, now = pair.old.get(key), pair.new.get(key)
            if was == now:
                continue
            narrower = was is None or (now is not None and sign * now > sign * was)
            text = f"has {key} {_short(now)}, had {_short(was)}"
            yield (Way.NARROWER if narrower else Way.WIDER), pair.path, text


def _items(pair: _Pair) -> Found:
    old, new = pair.old.get("prefixItems", []), pair.new.get("prefixItems", [])
    if len(old) != len(new):
        yield Way.OTHER, pair.path, f"has {len(new)} items with a meaning of their own, had {len(old)}"
    else:
        for number, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _differences(pair.at(was, now, f"[{number}]"))
    yield from _differences(pair.at(pair.old.get("items", {}), pair.new.get("items", {}), "[]"))


def _fields(pair: _Pair) -> Found:
    """The fields of an object: gone, new, changed, required, and what holds for those that are not named."""
    if not any(key in pair.old for key in FIELDS):
        return
    old, new = pair.old.get("properties", {}), pair.new.get("properties", {})
    must = set(pair.old.get("required", ())), set(pair.new.get("required", ()))
    others = pair.old.get("additionalProperties", True), pair.new.get("additionalProperties", True)
    for name in [name for name in old if name not in new]:
        if isinstance(others[1], Mapping) and others[1]:
            yield from _differences(pair.at(old[name], others[1], f".{name}"))
            continue
        same = [other for other in new if other not in old and new[other] == old[name]]
        yield Way.OTHER, f"{pair.path}.{name}", "was removed" + (f"; was it renamed to {same[0]}?" if same else "")
    for name in [name for name in new if name not in old]:
        if isinstance(others[0], Mapping) and others[0]:
            yield from _differences(pair.at(others[0], new[name], f".{name}"))
        elif name not in must[1] or pair.side == "response":
            closed = others[0] is False and pair.side == "response"
            fine = Way.WIDER if pair.side == "request" else Way.NARROWER
            yield (Way.WIDER if closed else fine), f"{pair.path}.{name}", "is new"
    for name in [name for name in old if name in new]:
        yield from _differences(pair.at(old[name], new[name], f".{name}"))
    for name in sorted(must[1] - must[0]):
        if name in old or pair.side == "request":
            text = "has to be there now" if name in old else "is new and has to be there"
            yield Way.NARROWER, f"{pair.path}.{name}", text
    for name in sorted(must[0] - must[1]):
        if name in new:
            yield Way.WIDER, f"{pair.path}.{name}", "may be missing now"
    if not (isinstance(others[0], Mapping) and new and others[1] is True):  # else each field was compared with it
        yield from _unnamed(pair, *others)


def _unnamed(pair: _Pair, was: object, now: object) -> Found:
    """What holds for fields that are not named: True (or nothing said) is anything, False is none."""
    if was is False or now is False:
        if (was is False) != (now is False):
            way, text = (
                (Way.WIDER, "may have other fields now") if was is False else (Way.NARROWER, "has no others now")
            )
            yield way, pair.path, text
        return
    yield from _differences(pair.at(was, now, ".*"))


# Reading a schema


def _whole(schema: object) -> Schema:
    """A schema as a mapping: True is anything, False is nothing."""
    return schema if isinstance(schema, Mapping) else {} if schema else {"not": {}}


def _variants(schema: Schema, root: Schema) -> list[Schema]:
    """The alternatives of a schema, each with one type, without a reference on top."""
    schema = _followed(schema, root)
    for key in ALTERNATIVES:
        if key in schema:
            rest = {name: value for name, value in schema.items() if name != key}
            return [
                variant for each in schema[key] for variant in _variants(_merged([rest, _followed(each, root)]), root)
            ]
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**_of_type(schema, kind), "type": kind} for kind in kinds]
    return [schema]


def _of_type(schema: Schema, kind: str) -> Schema:
    """A schema of many types for one of them: of its values only those that are of it."""
    values = _enumerated(schema)
    if values is None:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("enum", "const")}
    return {**rest, "enum": [each for each in values if _kind(each) == kind]}


def _followed(schema: object, root: Schema) -> Schema:
    """A schema with its references into its own document followed, and `allOf` made one."""
    whole = _whole(schema)
    for _ in range(100):
        reference = whole.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            rest = {name: value for name, value in whole.items() if name != "$ref"}
            whole = _merged([_pointed(root, reference), rest])
        elif "allOf" in whole:
            rest = {name: value for name, value in whole.items() if name != "allOf"}
            whole = _merged([*(_followed(each, root) for each in whole["allOf"]), rest])
        else:
            break
    return {name: value for name, value in whole.items() if name not in MEANINGLESS}


def _pointed(root: Schema, reference: str) -> Schema:
    """What a JSON pointer (RFC 6901) leads to; where that is no schema, a type that is like no other."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, Mapping) else None
    return _whole(found) if isinstance(found, Mapping | bool) else {"type": f"unknown ({reference})"}


def _merged(schemas: Sequence[Schema]) -> Schema:
    """Schemas that hold at once, as one: fields and what is required are united, of all else the last one counts."""
    whole: dict[str, Any] = {}
    for schema in schemas:
        fields = {**whole.get("properties", {}), **schema.get("properties", {})}
        required = [*whole.get("required", ()), *schema.get("required", ())]
        whole |= schema
        whole |= {"properties": fields} if fields else {}
        whole |= {"required": list(dict.fromkeys(required))} if required else {}
    return whole


def _type(schema: Schema) -> str:
    """The one type of a schema, said or shown; '' for any."""
    if schema == _whole(False):
        return "nothing"
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    values = _enumerated(schema)
    kinds = {_kind(each) for each in values or ()}
    if len(kinds) == 1:
        return kinds.pop()
    if any(key in schema for key in FIELDS):
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else ""


def _kind(value: object) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _enumerated(schema: Schema) -> list[Any] | None:
    """The values that a schema lists; None when it lists none."""
    if "const" in schema:
        return [schema["const"]]
    return list(schema["enum"]) if "enum" in schema else None


def _name(schema: Schema) -> str:
    values = _enumerated(schema)
    return _listed(values) if values and values != [None] else _type(schema) or "anything"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(each if isinstance(each, str) and " " in each else _short(each) for each in values)


def _short(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, sort_keys=True)[:60]
