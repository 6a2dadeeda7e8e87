"""This file holds the matrices of `decisions.py` to the shipped engine: same verdict, same look, and the cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from _decisions_guards import NEVER, Buckets
from _decisions_rules import WORDS, Array, Told

from branchline.core.evidence import make

Row = dict[str, float]
ROUNDS, LOOKS = 300, 20


class Agreement:
    """How many runs were put to the shipped engine, and of how many it said the same at the same look."""

    def __init__(self, sample: int) -> None:
        self.sample, self.runs, self.same, self.looks = sample, 0, 0, 0

    def judged(self, kind: str, spec: Mapping[str, Any], sums: Mapping[str, Array], told: Told) -> None:
        """Put runs of a mean or a ratio to the engine."""
        for run in range(min(self.sample, len(told.code))):
            last = int(told.look[run])
            rows = ({name: each[run, look].item() for name, each in sums.items()} for look in range(last + 1))
            self._compare(kind, spec, rows, WORDS[int(told.code[run])], last)

    def guarded(self, buckets: Buckets, tick: int, back: Array, passed: Array) -> None:
        """Put canaries to the engine, each until it says something for the first time."""
        for run in range(min(self.sample, len(back))):
            ends = min(int(back[run]), int(passed[run]))
            word = "continue" if ends == NEVER else "rollback" if back[run] <= passed[run] else "pass"
            last = min(ends, buckets.e_c.shape[1] - 1)
            named = dict(zip(("n_b", "e_b", "n_c", "e_c"), buckets, strict=True))
            rows = ({name: each[run, look].item() for name, each in named.items()} for look in range(last + 1))
            self._compare("guardrail", {"tick": tick}, rows, word, last)

    def split(self, n0: Array, n1: Array, flagged: Array) -> None:
        """Put splits to the engine: buckets of new units, and the look at which a mismatch is seen."""
        for run in range(min(self.sample, len(flagged))):
            last = min(int(flagged[run]), n0.shape[1] - 1)
            rows = ({"n0": n0[run, look].item(), "n1": n1[run, look].item()} for look in range(last + 1))
            self._compare("srm", {}, rows, "continue" if flagged[run] == NEVER else "mismatch", last)

    def _compare(self, kind: str, spec: Mapping[str, Any], rows: Iterator[Row], word: str, last: int) -> None:
        engine, said, look = make(kind, spec), "continue", -1
        for row in rows:
            said, look = str(engine.update(**row)), look + 1
            if said != "continue":
                break
        self.runs, self.looks = self.runs + 1, self.looks + look + 1
        self.same += (said, look) == (word, last)

    @property
    def share(self) -> float:
        """The part that agreed."""
        return self.same / max(self.runs, 1)


def costs() -> dict[str, float]:
    """Microseconds of one update of each kind: the fastest of some rounds, for the machine may be busy."""
    ratio = {"n": 5000, "y": 2500.0, "x": 25_000.0, "yy": 3000.0, "xy": 12_500.0, "xx": 125_000.0}
    asked: dict[str, tuple[dict[str, Any], Row]] = {
        "mean": ({"mde": 0.02}, {"n0": 5000, "s0": 500.0, "q0": 500.0, "n1": 5000, "s1": 560.0, "q1": 560.0}),
        "ratio": ({"mde": 0.02}, {f"{name}{arm}": value for arm in (0, 1) for name, value in ratio.items()}),
        "guardrail": ({}, {"n_b": 900, "e_b": 9, "n_c": 100, "e_c": 1}),
        "srm": ({}, {"n0": 50, "n1": 50}),
        "exact": ({"mde": 0.02}, {"n0": 50, "e0": 5, "n1": 50, "e1": 5}),
    }
    found = {}
    for kind, (spec, row) in asked.items():
        rounds = []
        for _ in range(ROUNDS):
            engine, begun = make(kind, spec), time.perf_counter()
            for _ in range(LOOKS):
                engine.update(**row)
            rounds.append((time.perf_counter() - begun) / LOOKS * 1e6)
        found[kind] = min(rounds)
    return found
