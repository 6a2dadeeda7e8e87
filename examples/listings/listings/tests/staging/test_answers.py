"""This file asks the staging address, given in BRANCHLINE_STAGING, what an application would ask."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest


def ask(path: str) -> Any:
    """The answer at a path."""
    with urlopen(os.environ["BRANCHLINE_STAGING"] + path, timeout=10) as response:
        return json.load(response)


def test_the_list_leads_to_every_house() -> None:
    assert {house["id"] for house in ask("")} == {1, 2, 3, 4}


def test_a_house_has_an_estimate_or_says_that_there_is_none() -> None:
    house = ask("1")
    assert house["price"] == 184000
    assert house["estimate"] is None or house["by"].startswith("housing@")


def test_a_house_that_is_not_for_sale_is_not_found() -> None:
    with pytest.raises(HTTPError, match="404"):
        ask("99")
