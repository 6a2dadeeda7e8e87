"""This file answers: it loads what `train` made, and predicts the price of one listing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import skops.io
from listing import row
from recipe import TRUSTED


def load(train: Path) -> Any:
    """The fitted model. Raises UntrustedTypesFoundException for a file that holds what `recipe` does not name."""
    return skops.io.load(train, trusted=TRUSTED)


def predict(model: Any, request: Mapping[str, Any]) -> dict[str, float]:
    """The price of a listing in dollars."""
    return {"prediction": round(float(model.predict([row(request)])[0]), 2)}
