"""This file tests the parts of housing that need no trained model: what is read, what is fitted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import gates
import pandas as pd
import pytest
import serving
import steps
from listing import row

LISTING = json.loads((Path(__file__).parents[1] / "sample.json").read_text(encoding="utf-8"))


def sale(number: int, **changes: object) -> dict[str, object]:
    """One sale of 2006-01: the sample with an area and a price that belong together."""
    facts = LISTING | {"area": 1000 + 10 * number, "price": 100_000 + 1_000 * number}
    key = {"pid": number, "year_sold": 2006, "month_sold": 1, "sale_type": "WD", "sale_condition": "Normal"}
    return key | facts | changes


def write(folder: Path, month: str, sales: list[dict[str, object]]) -> None:
    """One month as the assessor sends it."""
    pd.DataFrame(sales, columns=gates.COLUMNS).to_csv(folder / f"{month}.csv", index=False)


def test_clean_drops_what_was_sent_twice(tmp_path: Path) -> None:
    write(tmp_path, "2006-02", [sale(2, month_sold=2), sale(1, month_sold=2)])
    write(tmp_path, "2006-01", [sale(1)])
    assert steps.clean(tmp_path)[["pid", "month_sold"]].values.tolist() == [[1, 1], [2, 2]]


def test_a_model_survives_its_file_and_answers() -> None:
    sold = pd.DataFrame([sale(number) for number in range(60)])
    model = serving.load(steps.train(sold))
    assert model.predict([row(LISTING | {"area": 1300})])[0] == pytest.approx(130_000, rel=0.1)
    assert serving.predict(model, LISTING)["prediction"] > 0


def test_evaluate_asks_for_the_last_twelve_months() -> None:
    sold = pd.DataFrame([sale(number, year_sold=2006 + number % 2) for number in range(80)])
    figures = steps.evaluate(steps.train(sold), sold)
    assert figures["sales"] == 40
    assert figures["mape"] < 10


@pytest.mark.parametrize(("fall", "followed"), [(0.8, 0.8), (0.95, 1.0)])
def test_what_was_sold_before_counts_at_the_prices_of_the_last_month_if_those_have_moved(
    fall: float, followed: float
) -> None:
    before = [sale(number) for number in range(60)]
    after = [sale(number, month_sold=2, price=fall * (100_000 + 1_000 * number)) for number in range(20, 40)]
    now = steps.current(pd.DataFrame(before + after))
    assert now["price"][:60].to_numpy() == pytest.approx([followed * one["price"] for one in before], rel=0.02)
    assert now["price"][60:].tolist() == [one["price"] for one in after]


def test_a_fact_that_nobody_recorded_is_not_a_number_and_one_left_out_is_an_error() -> None:
    assert sum(value != value for value in row(LISTING | {"lot_area": None})) == 1
    with pytest.raises(KeyError):
        row({name: value for name, value in LISTING.items() if name != "lot_area"})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"price": 1}, "price 1"),
        ({"area": None}, "has no area"),
        ({"month_sold": 2}, "sold in 2006-02"),
        ({"pid": 1}, "sold before"),
    ],
)
def test_the_data_gate_says_what_is_wrong(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    write(tmp_path, "2006-01", [sale(1), sale(2)])
    assert gates.data(tmp_path) == {"ok": True, "months": 1, "sales": 2}
    write(tmp_path, "2006-01", [sale(1), sale(2, **change)])
    with pytest.raises(AssertionError, match=complaint):
        gates.data(tmp_path)
