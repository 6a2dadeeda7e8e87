"""This file shows that every record of the law survives JSON, whatever is in it, and that a newer one is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest

from branchline.core.lifecycle import Built, Method, Opened, Service
from branchline.core.records import EVENTS, event_from_json, from_json


def test_an_older_record_takes_the_defaults_and_a_newer_one_is_refused() -> None:
    assert event_from_json({"type": "Opened", "branch": "a", "tip": "a1"}) == Opened("a", "a1")
    assert event_from_json({"type": "Built", "branch": "a", "method": None}) == Built("a")
    measured = Built("a", method=Method.BENCHMARK)
    assert event_from_json({"type": "Built", "branch": "a", "method": "benchmark"}) == measured
    assert from_json({"name": "s", "lines": [], "candidates": []}) == Service("s")
    with pytest.raises(TypeError):
        event_from_json({"type": "Built", "branch": "a", "colour": "red"})
    with pytest.raises(KeyError):
        event_from_json({"type": "Exploded", "branch": "a"})


def test_every_field_is_plain() -> None:
    """What JSON cannot say has no place in an event."""
    plain = {"str", "int", "bool", "str | None", "Method", "Method | None"}
    assert {str(field.type) for kind in EVENTS.values() for field in fields(kind)} <= plain
