"""This file builds the model: clean, train, evaluate. A parameter names the data or the step whose result it needs."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd
import serving
import skops.io
from listing import FACTS, TARGET
from recipe import recipe
from sklearn.base import RegressorMixin, clone

NOISE = 0.1  # thirty sales, as a month in winter has, tell the level of prices to within about a tenth


def clean(sales: Path) -> pd.DataFrame:
    """All sales in the order of their months, none twice."""
    months = [pd.read_csv(month) for month in sorted(sales.rglob("*.csv"))]
    return pd.concat(months, ignore_index=True).drop_duplicates("pid")


def train(clean: pd.DataFrame) -> Path:
    """The model, fitted on every sale there is, at the prices of the last month."""
    path = Path(tempfile.mkdtemp()) / "model.skops"
    skops.io.dump(fit(recipe(), current(clean)), path)
    return path


def evaluate(train: Path, clean: pd.DataFrame) -> dict[str, float]:
    """How the trained model's recipe does on sales it has not seen: fitted without the last twelve months, then asked.

    `mape` and `bias` are per cent of the price.
    """
    month = clean["year_sold"] * 12 + clean["month_sold"]
    last = month > month.max() - 12
    model = fit(clone(serving.load(train)), current(clean[~last]))
    error = 100 * (model.predict(table(clean[last])) / clean.loc[last, TARGET] - 1)
    return {"mape": float(error.abs().mean()), "bias": float(error.mean()), "sales": int(last.sum())}


def current(sales: pd.DataFrame) -> pd.DataFrame:
    """The sales at the prices of the last month.

    All that came before is made dearer or cheaper by as much as that month's houses were sold for more or less than
    what came before lets expect; by nothing where that is noise.
    """
    month = sales["year_sold"] * 12 + sales["month_sold"]
    last = month == month.max()
    if last.all():
        return sales
    expected = fit(recipe(), sales[~last]).predict(table(sales[last]))
    level = float((sales.loc[last, TARGET] / expected).median())
    if abs(level - 1) < NOISE:
        return sales
    return sales.assign(**{TARGET: sales[TARGET].where(last, sales[TARGET] * level)})


def fit(model: RegressorMixin, sales: pd.DataFrame) -> RegressorMixin:
    """The model, fitted on these sales."""
    return model.fit(table(sales), sales[TARGET].to_numpy())


def table(sales: pd.DataFrame) -> object:
    """What the model sees of the sales, one `listing.row` each."""
    return sales[list(FACTS)].to_numpy(dtype=object)
