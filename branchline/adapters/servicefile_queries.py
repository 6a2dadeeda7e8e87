"""This file says what may stand in the tables of a service file that name somebody else's numbers: `[metric.sql]`.

Rules: an address in a file is read by everybody, so it holds no password, and names a file of the project or a server.
What is a secret, or differs from machine to machine, is a variable of the daemon whose name says that it is for this.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from branchline.adapters.servicefile_values import Duration, Table, Window, inside, only_one
from branchline.core.counters import REVISION
from branchline.core.outcome_query import DATABASES, SINCE, VARIABLES, SqlQuery

SQL = SqlQuery("")  # what holds when nothing is said


def _query(value: str) -> str:
    if SINCE not in value:
        told = f"at every look all there is would be read: compare the time with {SINCE}, which is Unix seconds"
        raise ValueError(f"{SINCE} does not stand in it; {told}")
    return value


def _database(value: str) -> str:
    try:
        found = urlsplit(value)
        password = found.password
    except ValueError as error:
        raise ValueError(f"{value!r} is no address: {error}") from None
    if found.scheme not in DATABASES:
        raise ValueError(f"{value!r} is no address of {', '.join(DATABASES)}; sqlite:///folder/file.db is one")
    if password or "password=" in found.query:
        raise ValueError(f"a password stands in it, where everybody reads it: name a variable, {VARIABLES}...")
    if found.scheme != "postgresql":
        if found.netloc:
            raise ValueError(f"{value!r} names a server; a file has three strokes: {found.scheme}:///folder/file.db")
        inside(found.path.removeprefix("/"))
    return value


def _server(value: str) -> str:
    found = urlsplit(value)
    if found.scheme not in ("http", "https") or not found.hostname or found.query or found.fragment:
        raise ValueError(f"{value!r} is no address of a Prometheus; http://127.0.0.1:9090 is one")
    if found.username or found.password:
        raise ValueError("a user or a password stands in it, where everybody reads it: ask an address that needs none")
    return value


def _of_revision(value: str) -> str:
    if REVISION not in value:
        raise ValueError(f"{REVISION} does not stand in it: of both arms it would give the same number")
    return value


Counted = Annotated[str, AfterValidator(_of_revision)]


class PrometheusTable(Table):
    """Counters of whatever can be bad, which a Prometheus has."""

    url: Annotated[str, AfterValidator(_server)]
    all: Counted
    bad: Counted
    every: Window = 15.0


class SqlTable(Table):
    """Where outcomes lie that nobody reports."""

    query: Annotated[str, AfterValidator(_query)]
    url: Annotated[str, AfterValidator(_database)] | None = None
    variable: Annotated[str, Field(pattern=f"^{VARIABLES}[A-Z0-9_]+$")] | None = None
    every: Window = SQL.every
    overlap: Duration = SQL.overlap

    @model_validator(mode="after")
    def _one(self) -> SqlTable:
        only_one(self, "url", "variable")
        return self
