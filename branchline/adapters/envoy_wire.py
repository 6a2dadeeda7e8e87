"""This file writes the route table in Protocol Buffers' binary form; pure.

JSON takes Envoy as long to read as all that it makes of it, with the thread that looks after everybody's health. A
document is the same as it would be in JSON; a message or a list in it may stand as bytes, encoded already, so that of
many services only those are encoded that have changed. How fields are numbered stands in `envoy_fields`. Clusters stay
JSON: an empty file is a sound one in binary form, and would take them all away.
Source: protobuf.dev, Encoding; ProtoJSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any

from branchline.adapters.envoy_fields import COMMON, MESSAGES, NUMBERS

Writer = Callable[[Any], bytes]
_VARINT, _SIZED = 0, 2
_FIELD = re.compile(r"(\d+) (\w+) ?([\[{]?)(\w*)[\]}]?(?:, |$)")


def encoded(message: str, document: Mapping[str, Any]) -> bytes:
    """A message by its name in `envoy_fields`; raises KeyError for a field that is not there."""
    writers = _writers(message)
    return b"".join([writers[name](value) for name, value in document.items()])


def resource(document: Mapping[str, Any]) -> bytes:
    """A document by its `@type`, as it stands in a file."""
    return encoded("DiscoveryResponse", {"resources": [document]})


def in_file(version: str, resources: bytes) -> bytes:
    """A file as Envoy watches it."""
    return encoded("DiscoveryResponse", {"version_info": version, "resources": resources})


def version_of(file: bytes) -> str:
    """The version that a file says of itself; '' where it is none of ours."""
    size = file[1] if file[:1] == _tag(1, _SIZED) and len(file) > 1 else 0
    return file[2 : 2 + size].decode("utf-8", "replace") if size < len(_BYTES) else ""


@cache
def _writers(message: str) -> Mapping[str, Writer]:
    """What writes each field of a message."""
    found: dict[str, Writer] = {}
    for number, name, several, kind in _FIELD.findall((COMMON | MESSAGES)[message]):
        one = _writer(int(number), kind)
        found[name] = {"": one, "[": _each(one), "{": _by_name(int(number), kind)}[several]
    return found


def _writer(number: int, kind: str) -> Writer:
    if kind in _PLAIN:
        wire, content = _PLAIN[kind]
        tag = _tag(number, wire)
        return lambda value: tag + content(value)
    content, tag = _CONTENT.get(kind) or _message(kind), _tag(number, _SIZED)

    def sized(value: Any) -> bytes:
        inner = content(value)
        return tag + _varint(len(inner)) + inner

    return sized


def _message(name: str) -> Writer:
    return lambda value: value if isinstance(value, bytes) else encoded(name, value)


def _each(one: Writer) -> Writer:
    return lambda values: values if isinstance(values, bytes) else b"".join([one(value) for value in values])


def _by_name(number: int, kind: str) -> Writer:
    key, value, tag = _writer(1, ""), _writer(2, kind), _tag(number, _SIZED)

    def entry(name: str, of: Any) -> bytes:
        inner = key(name) + value(of)
        return tag + _varint(len(inner)) + inner

    return lambda values: b"".join([entry(*each) for each in values.items()])


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _BYTES[value]
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _any(document: Mapping[str, Any]) -> bytes:
    """Any of the messages; one that does not say of what type it is is empty."""
    if not document:
        return b""
    url = document["@type"]
    of = {name: value for name, value in document.items() if name != "@type"}
    return encoded("Any", {"type_url": url, "value": encoded(url.rpartition(".")[2], of)})


@lru_cache(maxsize=256)
def _duration(text: str) -> bytes:
    """A time as `15s` or `0.25s`."""
    seconds, rest = divmod(Decimal(text.removesuffix("s")), 1)
    return encoded("Duration", {"seconds": int(seconds), "nanos": int(rest * 10**9)})


def _struct(texts: Mapping[str, str]) -> bytes:
    """What is said by name; texts are all that ours ever holds."""
    return encoded("Struct", {"fields": {name: {"string_value": text} for name, text in texts.items()}})


_BYTES = tuple(bytes((each,)) for each in range(0x80))
_PLAIN: dict[str, tuple[int, Writer]] = {
    "int": (_VARINT, _varint),
    "enum": (_VARINT, lambda name: _varint(NUMBERS[name])),
}
_CONTENT: dict[str, Writer] = {
    "": str.encode,
    "bytes": bytes,
    "scalar": lambda value: encoded("Scalar", {"value": value}),
    "Duration": _duration,
    "Struct": _struct,
    "Any": _any,
}
