"""This file says what is read of a service's own counters, and how much they have grown from one look to the next.

A guardrail's query counts all requests, or whatever it counts, and the bad ones; for a revision its name stands in the
place of `$revision`. A counter that has fallen was begun anew: what came between is not known, and the look counts as a
first one. Without growth on both sides a look says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

REVISION, EXPERIMENT = "$revision", "$experiment"  # what a query is filled in with
STALE = 3.0  # looks that may be missing before a guardrail has no data


@dataclass(frozen=True, slots=True)
class PrometheusGuardrail:
    """A guardrail on counters that a Prometheus has: its address, the two queries, and how often they are put."""

    name: str
    url: str
    all: str
    bad: str
    every: float = 15.0


@dataclass(frozen=True, slots=True)
class Look:
    """What the counters of both arms stood at, at a moment (Unix seconds): all, and bad, of incumbent and challenger.

    `order` is its number: a cursor.
    """

    order: int
    guardrail: str
    at: float
    control: tuple[float, float]
    challenger: tuple[float, float]


Bucket = tuple[int, int, int, int]  # requests and bad requests of the incumbent, then of the challenger


def grown(before: Look, after: Look) -> Bucket | None:
    """What came between two looks; None where a counter has fallen, an arm has none, or more are bad than there are."""
    found = [
        round(now - then)
        for now, then in zip((*after.control, *after.challenger), (*before.control, *before.challenger), strict=True)
    ]
    n_b, e_b, n_c, e_c = found
    return (n_b, e_b, n_c, e_c) if 0 <= e_b <= n_b and 0 <= e_c <= n_c and n_b and n_c else None


def filled(query: str, revision: str, experiment: str) -> str:
    """A query about one revision in one experiment."""
    return query.replace(REVISION, revision).replace(EXPERIMENT, experiment)
