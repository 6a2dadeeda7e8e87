"""This file says which facts of a listing the model uses, and in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping

FACTS = ("area", "lot_area", "year_built", "full_bath", "bedroom_abvgr", "garage_cars")
TARGET = "price"


def row(listing: Mapping[str, object]) -> list[object]:
    """The facts in the model's order; what nobody recorded (null) is NaN. Raises KeyError for a fact left out."""
    return [math.nan if listing[name] is None else listing[name] for name in FACTS]
