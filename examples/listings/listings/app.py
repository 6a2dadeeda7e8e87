"""This file is the microservice: houses for sale, each with what `housing` thinks that it is worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from details import details
from fastapi import FastAPI, HTTPException, Request
from prefix import BehindGateway
from valuation import estimate

HOUSES = {house["id"]: house for house in json.loads(Path(__file__).with_name("houses.json").read_text("utf-8"))}

app = FastAPI(title="listings")
app.add_middleware(BehindGateway)


@app.get("/healthz")
def healthz() -> str:
    """Ready as soon as it answers: `housing` may come and go."""
    return "ok"


@app.get("/")
def houses() -> list[dict[str, Any]]:
    """What is for sale."""
    return [{name: house[name] for name in ("id", "street", "price")} for house in HOUSES.values()]


@app.get("/{number}")
def house(number: int, request: Request) -> dict[str, Any]:
    """One house, with its estimate."""
    if number not in HOUSES:
        raise HTTPException(404, f"no house {number} is for sale")
    return details(HOUSES[number], estimate(HOUSES[number]["facts"], request.headers))
