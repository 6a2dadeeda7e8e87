"""This file shows that every record of the law survives JSON, whatever is in it.

Text is whatever UTF-8 can hold. Asked for that by its name, Hypothesis first encodes every character there is, for
seconds in each new checkout; to leave the surrogates out is the same.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from branchline.core.lifecycle import Candidate, Event, Line, Method, Service
from branchline.core.records import EVENTS, event_from_json, event_to_json, from_json, to_json

ANY = st.characters(codec=None, exclude_categories=["Cs"])
st.register_type_strategy(str, st.text(ANY))
CANDIDATES = st.builds(Candidate, method=st.sampled_from(Method))
LINES = st.builds(Line, history=st.lists(st.text(ANY, max_size=5), max_size=3).map(tuple))
SERVICES = st.builds(
    Service,
    lines=st.lists(LINES, max_size=2).map(tuple),
    candidates=st.lists(CANDIDATES, max_size=2).map(tuple),
    scales=st.lists(st.tuples(st.text(ANY, max_size=5), st.integers(1, 64)), max_size=2).map(tuple),
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


def test_a_record_of_before_anybody_could_scale_is_read() -> None:
    document = to_json(Service("housing"))
    del document["scales"]
    assert from_json(document) == Service("housing")
