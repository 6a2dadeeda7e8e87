"""This file says what a buyer is told of a house; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def details(house: Mapping[str, Any], estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    """The page of one house: prices in dollars; without an estimate (None) it says so, and is a page all the same."""
    page = {name: house[name] for name in ("id", "street", "price")}
    return page | (dict(estimate) if estimate else {"estimate": None, "by": None})
