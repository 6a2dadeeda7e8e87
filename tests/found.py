"""This file knows what exploring the law finds: exact, so that no change of the law goes unnoticed.

`tests/found.json` holds, for each scenario, the number of states and the longest repair; and every edge (phase, event,
phase). After a change that is meant, `python bench/explorer.py --write` writes it again, and `make docs` the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.explorer import Edge, Found

PATH = Path(__file__).with_suffix(".json")
KNOWN = json.loads(PATH.read_text(encoding="utf-8"))
FIGURES: dict[str, tuple[int, int]] = {name: (states, repair) for name, (states, repair) in KNOWN["figures"].items()}
EDGES: frozenset[Edge] = frozenset((old, event, new) for old, event, new in KNOWN["edges"])
# Scenarios that take every edge between them, and are quick.
ALL_EDGES = (
    "two slots, ramps",
    "hotfix on a challenger",
    "sync of a winner under a hotfix",
    "approval after, freeze, git refuses",
    "a major beside the old one",
    "benchmark beside a test",
    "slots, slice and approval change",
)


def write(found: Mapping[str, Found]) -> None:
    """Remember what was found, one line a row."""
    figures = [f"{json.dumps(name)}: [{each.states}, {each.repair}]" for name, each in found.items()]
    edges = sorted(frozenset[Edge]().union(*(each.edges for each in found.values())))
    PATH.write_text(
        f'{{"figures": {{\n{_rows(figures)}\n}}, "edges": [\n{_rows(map(json.dumps, edges))}\n]}}\n', "utf-8"
    )


def _rows(rows: Iterable[str]) -> str:
    return ",\n".join(f"  {row}" for row in rows)
