"""This file tests the data before anything is built on it."""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = [
    "pid", "year_sold", "month_sold", "sale_type", "sale_condition",
    "area", "lot_area", "lot_frontage", "total_bsmt_sf", "garage_area", "garage_cars", "year_built", "year_remod",
    "overall_qual", "overall_cond", "full_bath", "half_bath", "bedroom_abvgr", "fireplaces",
    "neighborhood", "zoning", "building_type", "house_style", "kitchen_qual", "exterior_qual",
    "price",
]  # fmt: skip
# A value outside of these, or none, is a mistake of whoever sent the file, not an unusual house.
LIMITS = {
    "area": (200, 10_000),
    "lot_area": (500, 500_000),
    "year_built": (1850, 2030),
    "overall_qual": (1, 10),
    "price": (5_000, 5_000_000),
}


def data(sales: Path) -> dict[str, object]:
    """Every sale has its columns, lies in its file's month and within the limits, and was sold once.

    Raises AssertionError that says where that is not so.
    """
    months = sorted(sales.rglob("*.csv"))
    assert months, "there is no month"
    sold: set[str] = set()
    for month in months:
        with month.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            rows = list(reader)
        assert reader.fieldnames == COLUMNS, f"{month.name}: columns {reader.fieldnames}"
        assert rows, f"{month.name}: no sales"
        for sale in rows:
            check(sale, month.stem)
            assert sale["pid"] not in sold, f"{month.name}: {sale['pid']} was sold before"
            sold.add(sale["pid"])
    return {"ok": True, "months": len(months), "sales": len(sold)}


def check(sale: dict[str, str], month: str) -> None:
    """One sale lies in its month and within the limits; raises AssertionError."""
    when = f"{sale['year_sold']}-{sale['month_sold']:>02}"
    assert when == month, f"{month}: {sale['pid']} was sold in {when}"
    for name, (low, high) in LIMITS.items():
        assert sale[name], f"{month}: {sale['pid']} has no {name}"
        assert low <= float(sale[name]) <= high, f"{month}: {sale['pid']} has {name} {sale[name]}"
