"""This file knows what exploring the law finds: exact, so that no change of the law goes unnoticed.

`tests/found.json` holds, for each scenario, the number of states and the longest repair; and every edge (phase, event,
phase) with the first scenario that takes it, so that none is printed that was not seen. After a change that is meant,
`python bench/explorer.py --write` writes it again, and `make docs` the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.explorer import Edge, Found

PATH = Path(__file__).with_suffix(".json")
KNOWN = json.loads(PATH.read_text(encoding="utf-8"))
FIGURES: dict[str, tuple[int, int]] = {name: (states, repair) for name, (states, repair) in KNOWN["figures"].items()}
EDGES: dict[Edge, str] = {(old, event, new): scenario for old, event, new, scenario in KNOWN["edges"]}


def is_as_known(name: str, found: Found) -> bool:
    """Whether a scenario had as many states as ever, no edge that is unknown, and every one that it is known for."""
    its = {edge for edge, scenario in EDGES.items() if scenario == name}
    return (found.states, found.repair) == FIGURES[name] and its <= found.edges <= EDGES.keys()


def write(found: Mapping[str, Found]) -> None:
    """Remember what was found, one line a row."""
    figures = [f"{json.dumps(name)}: [{each.states}, {each.repair}]" for name, each in found.items()]
    first = {edge: name for name, each in reversed([*found.items()]) for edge in each.edges}
    edges = sorted((*edge, name) for edge, name in first.items())
    PATH.write_text(
        f'{{"figures": {{\n{_rows(figures)}\n}}, "edges": [\n{_rows(map(json.dumps, edges))}\n]}}\n', "utf-8"
    )


def _rows(rows: Iterable[str]) -> str:
    return ",\n".join(f"  {row}" for row in rows)
