"""This file asks the staging address, given in BRANCHLINE_STAGING, what an application would ask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

LISTING = json.loads((Path(__file__).parents[1] / "sample.json").read_text(encoding="utf-8"))


def ask(listing: dict[str, Any]) -> dict[str, Any]:
    """The answer for a listing."""
    body = json.dumps(listing).encode()
    request = Request(os.environ["BRANCHLINE_STAGING"], body, {"content-type": "application/json"})
    with urlopen(request, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def test_a_listing_has_a_price_that_a_house_can_have() -> None:
    assert 10_000 < ask(LISTING)["prediction"] < 1_000_000


def test_the_same_listing_has_the_same_price() -> None:
    assert ask(LISTING) == ask(LISTING)


def test_a_newer_house_costs_more() -> None:
    assert ask(LISTING | {"year_built": 2005})["prediction"] > ask(LISTING | {"year_built": 1905})["prediction"]


def test_a_fact_that_nobody_recorded_is_no_obstacle() -> None:
    assert ask(LISTING | {"lot_area": None, "garage_cars": None})["prediction"] > 10_000
