"""This file says what a buyer is told of a house; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def details(house: Mapping[str, Any], estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    """The page of one house: prices in dollars, `above` the estimate in per cent and in dollars; without an estimate
    (None) it says so, and is a page all the same.
    """
    page = {name: house[name] for name in ("id", "street", "price")}
    if estimate is None:
        return {**page, "estimate": None, "by": None, "above": None}
    above = house["price"] - estimate["estimate"]
    return {**page, **estimate, "above": round(above / estimate["estimate"], 3), "dollars_above": round(above)}
