"""This file tests what a buyer is told of a house."""

from __future__ import annotations

from details import details

HOUSE = {"id": 1, "street": "12 Elm Court", "price": 184000, "facts": {"lot_frontage": 92}}


def test_a_house_has_its_price_and_an_estimate() -> None:
    page = details(HOUSE, {"estimate": 160000, "by": "housing@1.0.0"})
    assert (page["price"], page["estimate"], page["by"]) == (184000, 160000, "housing@1.0.0")


def test_a_house_without_an_estimate_is_shown_all_the_same() -> None:
    page = details(HOUSE, None)
    assert (page["street"], page["estimate"]) == ("12 Elm Court", None)
