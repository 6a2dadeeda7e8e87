"""This file shows that every record of the law survives JSON, whatever is in it."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from branchline.core.lifecycle import Candidate, Event, Line, Method, Service
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
