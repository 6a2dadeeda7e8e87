"""This file says how the records of the law are written down as JSON, and read again.

Rules: every field by its own name, enums by their printed value, an event by the name of its type. A missing key takes
the record's default (a ledger may be older than this code); an unknown one is an error (it is newer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Any

from branchline.core import events
from branchline.core.events import Event
from branchline.core.service import Candidate, Line, Method, Phase, Service

EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, Event) and not kind.__subclasses__()
}


def to_json(service: Service) -> dict[str, Any]:
    """The service as a JSON document."""
    return asdict(service, dict_factory=_plain)


def from_json(document: Mapping[str, Any]) -> Service:
    """The service of a JSON document; raises TypeError or ValueError when it is none."""
    lines = (Line(**{**line, "history": tuple(line["history"])}) for line in document["lines"])
    candidates = (
        Candidate(**{**each, "method": Method(each["method"]), "phase": Phase(each["phase"])})
        for each in document["candidates"]
    )
    scales = tuple((revision, instances) for revision, instances in document.get("scales", ()))
    return Service(**{**document, "lines": tuple(lines), "candidates": tuple(candidates), "scales": scales})


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON document: its type under "type", and its fields."""
    return {"type": type(event).__name__, **asdict(event, dict_factory=_plain)}


def event_from_json(document: Mapping[str, Any]) -> Event:
    """The event of a JSON document; raises KeyError, TypeError or ValueError when it is none."""
    fields = {key: value for key, value in document.items() if key != "type"}
    if fields.get("method") is not None:
        fields["method"] = Method(fields["method"])
    return EVENTS[document["type"]](**fields)


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in pairs}
