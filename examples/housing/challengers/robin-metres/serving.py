"""This file answers: it loads what `train` made, and predicts the price of one listing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import skops.io
from listing import row
from recipe import TRUSTED

SQUARE_METRES = 0.09290304  # in a square foot
AREAS = ("area", "lot_area", "total_bsmt_sf", "garage_area")


def load(train: Path) -> Any:
    """The fitted model. Raises UntrustedTypesFoundException for a file that holds what `recipe` does not name."""
    return skops.io.load(train, trusted=TRUSTED)


def predict(model: Any, request: Mapping[str, Any]) -> dict[str, float]:
    """The price of a listing in dollars; areas are square metres inside, as everywhere else in the company."""
    areas = {name: request[name] * SQUARE_METRES for name in AREAS if request[name] is not None}
    return {"prediction": round(float(model.predict([row({**request, **areas})])[0]), 2)}
