"""This file tests what the hints of a service's predict say of its requests and answers, as JSON Schema."""

from __future__ import annotations

import enum
import json
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, Optional, Required, TypedDict

import pytest

from branchline.core import schema
from branchline.sdk import binding, run
from branchline.sdk.describe import described, schema_of


class Rooms(TypedDict, total=False):
    kitchen: Required[bool]
    bath: int


class House(TypedDict):
    sqm: float
    rooms: Rooms
    note: NotRequired[str]


@dataclass
class Price:
    prediction: float
    low: float | None = None
    parts: list[Price] = field(default_factory=list)


class Kind(enum.Enum):
    FLAT = "flat"
    HOUSE = "house"


class Model:
    """Like a pydantic model: it describes itself."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "title": "Model"}


NUMBER, WHOLE, TEXT, TRUTH, NULL = ({"type": t} for t in ("number", "integer", "string", "boolean", "null"))
ROOMS = {"type": "object", "properties": {"kitchen": TRUTH, "bath": WHOLE}, "required": ["kitchen"]}


@pytest.mark.parametrize(
    ("hint", "wanted"),
    [
        (int, WHOLE),
        (float, NUMBER),
        (str, TEXT),
        (bool, TRUTH),
        (None, NULL),
        (Any, {}),
        (object, {}),
        ("unknown", {}),
        ([], {}),
        (list, {"type": "array"}),
        (list[float], {"type": "array", "items": NUMBER}),
        (Sequence[Any], {"type": "array"}),
        (Sequence, {"type": "array"}),
        (tuple[int, ...], {"type": "array", "items": WHOLE}),
        (tuple[int, str], {"type": "array", "prefixItems": [WHOLE, TEXT], "minItems": 2, "maxItems": 2}),
        (dict, {"type": "object"}),
        (Mapping, {"type": "object"}),
        (dict[str, Any], {"type": "object"}),
        (Mapping[str, float], {"type": "object", "additionalProperties": NUMBER}),
        (int | None, {"anyOf": [WHOLE, NULL]}),
        (Optional[str], {"anyOf": [TEXT, NULL]}),  # noqa: UP045 - as people write it
        (int | Any, {}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Annotated[int, "of something"], WHOLE),
        (Kind, {"enum": ["flat", "house"]}),
        (Model, {"type": "object", "title": "Model"}),
        (Rooms, ROOMS),
        (House, {"type": "object", "properties": {"sqm": NUMBER, "rooms": ROOMS, "note": TEXT},
                 "required": ["rooms", "sqm"]}),
        (Price, {"type": "object", "required": ["prediction"], "properties": {
            "prediction": NUMBER, "low": {"anyOf": [NUMBER, NULL]}, "parts": {"type": "array"}}}),
    ],
)  # fmt: skip
def test_a_hint_is_a_schema(hint: Any, wanted: dict[str, Any]) -> None:
    assert schema_of(hint) == wanted


class Nested:
    """Like a pydantic model with another one in it."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}


def predict(model: Any, house: House, rate: float = 1.0) -> Price:
    raise NotImplementedError


def plain(request, *more):  # type: ignore[no-untyped-def]
    raise NotImplementedError


def modelled(request: list[Nested]) -> None:
    raise NotImplementedError


def unresolved(request: Nowhere) -> float:  # type: ignore[name-defined]  # noqa: F821
    raise NotImplementedError


@pytest.fixture
def service() -> Any:
    """The name of a module of a service that holds the functions above."""
    module = types.ModuleType("described_service")
    vars(module).update(predict=predict, plain=plain, modelled=modelled, unresolved=unresolved)
    sys.modules[module.__name__] = module
    yield module.__name__
    del sys.modules[module.__name__]


def test_the_one_free_parameter_is_the_request(service: str) -> None:
    """Seed: changed request/response schema = major; the hints are the schema unless a file is declared."""
    assert described(f"{service}:predict", ["model"]) == {"request": schema_of(House), "response": schema_of(Price)}
    assert described(f"{service}:predict", [])["request"] == {}  # two are left: serving it will say so
    assert described(f"{service}:plain", []) == {"request": {}, "response": {}}
    nested = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    request = {"type": "array", "items": nested, "$defs": {"A": {"type": "string"}}}
    assert described(f"{service}:modelled", []) == {"request": request, "response": NULL}
    assert described(f"{service}:unresolved", []) == {"request": {}, "response": {}}
    with pytest.raises(binding.Unbound):
        described(f"{service}:nothing", [])


def test_what_is_described_is_a_schema_document(service: str) -> None:
    assert schema.says_something(json.dumps(described(f"{service}:predict", ["model"])))


def test_the_worker_describes_as_it_looks(service: str) -> None:
    order = {"call": f"{service}:predict", "gate": True, "describe": True, "known": ["model"]}
    assert run.looked(order) == {"ok": True, "value": described(f"{service}:predict", ["model"])}
