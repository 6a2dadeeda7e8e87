"""This file says which facts of a listing the model uses, and in which order."""

from __future__ import annotations

import math
from collections.abc import Mapping

NUMBERS = (
    "area", "lot_area", "lot_frontage", "total_bsmt_sf", "garage_area", "garage_cars", "year_built", "year_remod",
    "overall_qual", "overall_cond", "full_bath", "half_bath", "bedroom_abvgr", "fireplaces",
)  # fmt: skip
WORDS = ("neighborhood", "zoning", "building_type", "house_style", "kitchen_qual", "exterior_qual")
FACTS = NUMBERS + WORDS
TARGET = "price"


def row(listing: Mapping[str, object]) -> list[object]:
    """The facts in the model's order; what nobody recorded (null) is NaN. Raises KeyError for a fact left out."""
    return [math.nan if listing[name] is None else listing[name] for name in FACTS]
