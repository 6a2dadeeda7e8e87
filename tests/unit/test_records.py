"""This file shows that every record of the law survives JSON, whatever is in it, and that a newer one is refused."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchline.core.lifecycle import Candidate, Event, Line, Method, Opened, Service
from branchline.core.records import EVENTS, event_from_json, event_to_json, from_json, to_json

CANDIDATES = st.builds(Candidate, method=st.sampled_from(Method))
LINES = st.builds(Line, history=st.lists(st.text(max_size=5), max_size=3).map(tuple))
SERVICES = st.builds(
    Service,
    lines=st.lists(LINES, max_size=2).map(tuple),
    candidates=st.lists(CANDIDATES, max_size=2).map(tuple),
)


@settings(max_examples=25)
@given(SERVICES)
def test_a_service_survives(service: Service) -> None:
    assert from_json(json.loads(json.dumps(to_json(service)))) == service


@given(st.one_of([st.builds(kind) for kind in EVENTS.values()]))
def test_an_event_survives(event: Event) -> None:
    document = json.loads(json.dumps(event_to_json(event)))
    assert document["type"] == type(event).__name__
    assert event_from_json(document) == event


def test_an_older_record_takes_the_defaults_and_a_newer_one_is_refused() -> None:
    assert event_from_json({"type": "Opened", "branch": "a", "tip": "a1"}) == Opened("a", "a1")
    assert from_json({"name": "s", "lines": [], "candidates": []}) == Service("s")
    with pytest.raises(TypeError):
        event_from_json({"type": "Built", "branch": "a", "colour": "red"})
    with pytest.raises(KeyError):
        event_from_json({"type": "Exploded", "branch": "a"})


def test_every_field_is_plain() -> None:
    """What JSON cannot say has no place in an event."""
    plain = {"str", "int", "bool", "str | None", "Method"}
    assert {str(field.type) for kind in EVENTS.values() for field in fields(kind)} <= plain
