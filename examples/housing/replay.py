"""This file plays the years 2008 to 2010 to a running service: each sale is asked for before its price is known.

`python replay.py http://127.0.0.1:PORT [SERVICE]` asks for one listing after the other, as fast as they are answered,
on one connection, and reports the price that the house was then sold for. The unit is the sale's PID, so the same sale
meets the same arm each time. Standard library only; nothing here knows which revision answers.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

SALES = Path(__file__).parent / "data" / "sales"
NUMBERS = frozenset({
    "area", "lot_area", "lot_frontage", "total_bsmt_sf", "garage_area", "garage_cars", "year_built", "year_remod",
    "overall_qual", "overall_cond", "full_bath", "half_bath", "bedroom_abvgr", "fireplaces",
})  # fmt: skip
WORDS = frozenset({"neighborhood", "zoning", "building_type", "house_style", "kitchen_qual", "exterior_qual"})


class Sale(NamedTuple):
    """One sale: who asks, the listing that is asked about, the price in dollars that it was sold for later."""

    unit: str
    features: dict[str, int | str | None]
    truth: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for a sale: `prediction` is None where the service had none."""

    sale: Sale
    status: int
    revision: str
    prediction: float | None


def sales(folder: Path = SALES, since: str = "2008-01", until: str = "9999-12", level: float = 1.0) -> Iterator[Sale]:
    """The sales of some months, oldest first, at `level` times what was paid; a fact that nobody recorded is None."""
    for month in sorted(folder.glob("*.csv")):
        if since <= month.stem <= until:
            with month.open(newline="", encoding="utf-8") as lines:
                for row in csv.DictReader(lines):
                    yield Sale(row["pid"], features(row), round(int(row["price"]) * level))


def features(row: dict[str, str]) -> dict[str, int | str | None]:
    """What a listing states of a row: neither its price, nor when and how it was sold."""
    return {
        name: None if not value else int(value) if name in NUMBERS else value
        for name, value in row.items()
        if name in NUMBERS | WORDS
    }


def replay(
    base_url: str,
    service: str,
    rows: Iterable[Sale],
    on_answer: Callable[[Answer], bool | None] = lambda answer: None,
    batch: int = 10,
) -> int:
    """Ask for each sale in turn and report what it was sold for; returns how many were asked for.

    `on_answer` sees every answer and ends the replay by returning False. Prices are reported `batch` at a time, soon
    enough after their requests to lie in the metric's window. Raises HTTPException for reports that are not understood,
    OSError when no gateway listens.
    """
    asked = 0
    told: list[Sale] = []
    connection = HTTPConnection(urlsplit(base_url).netloc, timeout=30)
    try:
        for sale in rows:
            go_on = on_answer(ask(connection, service, sale)) is not False
            asked += 1
            told.append(sale)
            if len(told) >= batch and report(connection, service, told):
                told = []
            if not go_on:
                break
        report(connection, service, told)
    finally:
        connection.close()
    return asked


def ask(connection: HTTPConnection, service: str, sale: Sale) -> Answer:
    """The service's answer for one listing."""
    status, headers, body = post(connection, f"/{service}/", sale.features, {"x-branchline-unit": sale.unit})
    prediction = body.get("prediction") if isinstance(body, dict) else None
    return Answer(sale, status, headers.get("x-branchline-revision", ""), prediction)


def report(connection: HTTPConnection, service: str, told: list[Sale]) -> bool:
    """Tell what houses were sold for, the truths of earlier predictions (what a metric of kind error takes as value).

    False when nobody takes it just now. Telling twice counts once, and after a test's end it is no error.
    """
    truths = [{"unit": sale.unit, "value": sale.truth} for sale in told]
    if not truths:
        return True
    status, _, body = post(connection, f"/{service}/-/outcomes", truths, {})
    if status >= 500:
        return False
    if status != 200:
        raise HTTPException(f"outcomes were answered with {status}: {body}")
    return True


def post(
    connection: HTTPConnection, path: str, body: object, headers: dict[str, str]
) -> tuple[int, dict[str, str], Any]:
    """One request on a connection that stays open; an answer that is not JSON is None."""
    connection.request("POST", path, json.dumps(body), headers | {"content-type": "application/json"})
    response = connection.getresponse()
    raw = response.read()
    try:
        read = json.loads(raw)
    except ValueError:
        read = None
    return response.status, {name.lower(): value for name, value in response.getheaders()}, read


def main(arguments: list[str]) -> None:
    """Play all sales, print what each revision answered and how far off it was."""
    errors: dict[str, list[float]] = {}

    def note(answer: Answer) -> None:
        name = answer.revision if answer.status == 200 else f"failed ({answer.status})"
        off = 100.0 if answer.prediction is None else 100 * abs(answer.prediction / answer.sale.truth - 1)
        errors.setdefault(name, []).append(off)

    base_url, service = (*arguments, "housing")[:2]
    replay(base_url, service, sales(), note)
    for name, off in errors.items():
        print(f"{name}: {len(off)} answers, {sum(off) / len(off):.1f} % off")


if __name__ == "__main__":
    main(sys.argv[1:])
