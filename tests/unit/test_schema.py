"""This file holds changes of request and response schemas to the version that they ask for (1.10, beyond row 13)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from branchline.core import schema

NUMBER, WHOLE, TEXT, TRUTH = ({"type": kind} for kind in ("number", "integer", "string", "boolean"))


def document(request: Any = None, response: Any = None) -> str:
    return json.dumps({"request": {} if request is None else request, "response": {} if response is None else response})


def fields(*required: str, closed: bool = False, **properties: Any) -> dict[str, Any]:
    """An object with these fields."""
    shut = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": properties, "required": list(required), **shut}


def a_list(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def either(*options: Any) -> dict[str, Any]:
    return {"anyOf": list(options)}


HOUSE = fields("sqm", sqm=NUMBER, rooms=WHOLE)
NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": NUMBER}}
LONG = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "value": TEXT}}
MORE = fields("sqm", sqm=NUMBER, rooms=WHOLE, age=WHOLE)
SOME = fields("sqm", sqm=NUMBER)
SHUT = {"additionalProperties": False}
LIKE_A = {**TEXT, "pattern": "^a"}
NULL = {"type": "null"}
# before, after, the bump that it asks for, what is said of it first
REQUEST: list[tuple[Any, Any, str, str]] = [
    (HOUSE, HOUSE, "patch", ""),
    (HOUSE, {**HOUSE, "title": "House", "description": "One."}, "patch", ""),
    (HOUSE, SOME, "major", ".rooms was removed"),
    (HOUSE, fields("sqm", sqm=NUMBER, floors=WHOLE), "major", ".rooms was removed; was it renamed to floors?"),
    (HOUSE, fields("sqm", sqm=TEXT, rooms=WHOLE), "major", ".sqm was number and is string"),
    (HOUSE, {**MORE, "required": ["sqm", "age"]}, "major", ".age is new and has to be there"),
    (HOUSE, {**HOUSE, "required": ["sqm", "rooms"]}, "major", ".rooms has to be there now"),
    (HOUSE, MORE, "minor", ".age is new"),
    (HOUSE, {**HOUSE, "required": []}, "minor", ".sqm may be missing now"),
    (HOUSE, fields("sqm", sqm=NUMBER, rooms=NUMBER), "minor", ".rooms was integer and is number"),
    (HOUSE, fields("sqm", sqm=WHOLE, rooms=WHOLE), "major", ".sqm was number and is integer"),
    (HOUSE, HOUSE | SHUT, "major", " has no others now"),
    (HOUSE | SHUT, HOUSE, "minor", " may have other fields now"),
    (HOUSE, a_list(HOUSE), "major", " was object and is array"),
    (a_list(HOUSE), a_list(SOME), "major", "[].rooms was removed"),
    ({}, HOUSE, "patch", ""),
    ({"type": "object"}, HOUSE, "patch", ""),
    ({"title": "House"}, a_list(NUMBER), "patch", ""),
    (a_list({}), a_list(HOUSE), "patch", ""),
    (fields("sqm", sqm={}), SOME, "patch", ""),
    (HOUSE, {}, "minor", " was object and is anything"),
    ({"enum": ["a", "b"]}, {"enum": ["a"]}, "major", ' is not "b" any more'),
    ({"enum": ["a"]}, {"enum": ["a", "b"]}, "minor", ' may be "b", too'),
    (TEXT, {**TEXT, "enum": ["a"]}, "major", " is not every other value any more"),
    ({**TEXT, "const": "a"}, TEXT, "minor", " may be every other value, too"),
    ({**NUMBER, "minimum": 0}, {**NUMBER, "minimum": 1}, "major", " has minimum 1, had 0"),
    ({**NUMBER, "maximum": 1}, {**NUMBER, "maximum": 2}, "minor", " has maximum 2, had 1"),
    ({**NUMBER, "maximum": 2}, NUMBER, "minor", " has maximum nothing, had 2"),
    (TEXT, {**TEXT, "maxLength": 9}, "major", " has maxLength 9, had nothing"),
    (TEXT, LIKE_A, "major", ' has another pattern: nothing became "^a"'),
    (LIKE_A, TEXT, "minor", ' has another pattern: "^a" became nothing'),
    (LIKE_A, {**TEXT, "pattern": "^b"}, "major", ' has another pattern: "^a" became "^b"'),
    (NUMBER, either(NUMBER, TEXT), "minor", " may be string, too"),
    (either(NUMBER, TEXT), NUMBER, "major", " is never string any more"),
    ({"type": ["number", "null"]}, NUMBER, "major", " is never null any more"),
    (
        {"type": ["string", "null"], "enum": ["a", None]},
        {**TEXT, "enum": ["a", "b"]},
        "major",
        " is never null any more",
    ),
    (either(HOUSE, NULL), either(SOME, NULL), "major", ".rooms was removed"),
    (either({"const": 1}, {"const": "a"}), {"const": 1}, "major", ' is never "a" any more'),
    (a_list({}, prefixItems=[NUMBER]), {"type": "array"}, "major", " has 0 items with a meaning of their own, had 1"),
    ({"prefixItems": [NUMBER]}, {"prefixItems": [TEXT]}, "major", "[0] was number and is string"),
    ({"additionalProperties": NUMBER}, fields(sqm=NUMBER), "patch", ""),
    ({"additionalProperties": NUMBER}, SOME, "major", ".sqm is new and has to be there"),
    ({"additionalProperties": NUMBER}, fields(sqm=TEXT), "major", ".sqm was number and is string"),
    ({"additionalProperties": NUMBER}, {"type": "object"}, "minor", ".* was number and is anything"),
    (fields(sqm=TEXT), {"additionalProperties": NUMBER}, "major", ".sqm was string and is number"),
    (LIKE_A, {**LIKE_A, "maxLength": 9}, "major", " has maxLength 9, had nothing"),
    (HOUSE, fields(rooms=WHOLE), "major", ".sqm was removed"),
    (fields(sqm=WHOLE) | SHUT, {"additionalProperties": NUMBER}, "minor", ".sqm was integer and is number"),
]
RESPONSE: list[tuple[Any, Any, str, str]] = [
    ({"additionalProperties": NUMBER}, {"additionalProperties": TEXT}, "major", ".* was number and is string"),
    (HOUSE, SOME, "major", ".rooms was removed"),
    ({"additionalProperties": NUMBER}, fields("sqm", sqm=NUMBER), "patch", ""),
    (HOUSE, {**MORE, "required": ["sqm", "age"]}, "minor", ".age is new"),
    (HOUSE, MORE, "minor", ".age is new"),
    (HOUSE | SHUT, MORE | SHUT, "major", ".age is new"),
    (HOUSE, {**HOUSE, "required": []}, "major", ".sqm may be missing now"),
    (HOUSE, {**HOUSE, "required": ["sqm", "rooms"]}, "minor", ".rooms has to be there now"),
    (HOUSE, fields("sqm", sqm=NUMBER, rooms=NUMBER), "major", ".rooms was integer and is number"),
    (HOUSE, fields("sqm", sqm=WHOLE, rooms=WHOLE), "minor", ".sqm was number and is integer"),
    (HOUSE, {}, "major", " was object and is anything"),
    ({}, HOUSE, "patch", ""),
    (NUMBER, either(NUMBER, NULL), "major", " may be null, too"),
    (either(NUMBER, NULL), NUMBER, "minor", " is never null any more"),
    ({"enum": ["a"]}, {"enum": ["a", "b"]}, "major", ' may be "b", too'),
    (NUMBER, False, "major", " was number and is nothing"),
    ({"not": NUMBER}, {"not": TEXT}, "major", ' has another not: {"type": "number"} became {"type": "string"}'),
]
TABLE = [("request", *row) for row in REQUEST] + [("response", *row) for row in RESPONSE]


@pytest.mark.parametrize(("side", "before", "after", "bump", "text"), TABLE)
def test_every_change_asks_for_the_right_version(side: str, before: Any, after: Any, bump: str, text: str) -> None:
    """Beyond row 13: a breaking change is a major, another one a minor, none at all a patch."""
    found = schema.changes(document(**{side: before}), document(**{side: after}))
    assert schema.bump(found) == bump
    assert str(found[0]) == side + text if text else not found


def test_the_table_has_at_least_twenty_changes() -> None:
    assert len(TABLE) >= 20


def test_what_breaks_is_told_first_and_both_sides_count() -> None:
    found = schema.changes(document(HOUSE, NUMBER), document(fields("sqm", sqm=NUMBER, rooms=WHOLE, age=WHOLE), TEXT))
    assert [(each.where, each.breaking) for each in found] == [("response", True), ("request.age", False)]


def test_a_reference_is_followed_also_in_a_schema_that_holds_itself() -> None:
    node = {"$ref": "#/$defs/node", "$defs": {"node": NODE}}
    assert schema.changes(document(node), document(node)) == ()
    assert schema.changes(document(node), document({**node, "$defs": {"node": {**NODE, "title": "Node"}}})) == ()
    found = schema.changes(document(node), document({**node, "$defs": {"node": LONG}}))
    assert [str(each) for each in found] == ["request.value was number and is string"]
    inside = {"$defs": {"house~": HOUSE}, "allOf": [{"$ref": "#/$defs/house~0"}, fields("age", age=WHOLE)]}
    whole = fields("sqm", "age", sqm=NUMBER, rooms=WHOLE, age=WHOLE)
    assert schema.changes(document(inside), document(whole)) == ()


def test_a_reference_that_leads_nowhere_is_like_no_other() -> None:
    known = {"$ref": "#/$defs/house", "$defs": {"house": HOUSE}}
    assert schema.bump(schema.changes(document(known), document({"$ref": "#/$defs/house"}))) == "major"
    assert schema.bump(schema.changes(document(known), document({"$ref": "#/type/house"}))) == "major"
    itself = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
    assert schema.changes(document(itself), document(itself)) == ()


@pytest.mark.parametrize("text", ["[]", '{"question": {}}', '{"request": 1}', "{"])
def test_what_is_no_schema_document_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"should be|no JSON Schema|Expecting"):
        schema.read(text)


def test_nothing_said_is_nothing() -> None:
    assert not schema.says_something("")
    assert not schema.says_something(document())
    assert schema.says_something(document(NUMBER))
    assert schema.changes("", document()) == ()
