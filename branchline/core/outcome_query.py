"""This file says where outcomes lie that nobody reports: a query, and what its rows are.

A row says of a unit what it was worth, and when that came to be. It is known by its metric, its unit and its id, or
without an id by its time. So it counts once, however often it is read; a changed value under one id is a conflict.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256

SINCE = ":since"  # the parameter that keeps a query from reading everything at every look; Unix seconds
DATABASES = ("sqlite", "duckdb", "postgresql")
VARIABLES = "BRANCHLINE_SQL_"  # no other of the daemon's variables may be named: what is in them is not the branch's
CLOCKS = 1.0  # seconds by which the clocks of a database and of the gateway, or times in whole seconds, may differ


@dataclass(frozen=True, slots=True)
class SqlQuery:
    """A query, and the database that it is put to: its address, or the variable of the daemon that holds the address.

    It is put every so many seconds. Rows that come into the database later than `overlap` seconds after their own time
    may be missed.
    """

    text: str
    url: str = ""
    variable: str = ""
    every: float = 60.0
    overlap: float = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """What a query says of one unit, or of one request: the value, and when (Unix seconds) it came to be."""

    unit: str
    time: float
    value: float
    id: str = ""
    request: str = ""


def key_of(metric: str, row: Row) -> str:
    """By what a row is known, whoever reads it and when."""
    what = [metric, row.unit, row.request, row.id or repr(row.time)]
    return "sql:" + sha256(json.dumps(what).encode()).hexdigest()[:32]
