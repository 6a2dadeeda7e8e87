"""This file reads the text format of Prometheus, version 0.0.4, as strictly as Prometheus and promtool together do."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([-+]?[0-9.eE+-]+|[+-]Inf|NaN)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
Labels = frozenset[tuple[str, str]]


class Family(NamedTuple):
    """One metric: its type, its meaning, and its samples by name and labels."""

    kind: str
    meaning: str
    samples: dict[tuple[str, Labels], float]


def parsed(text: str) -> dict[str, Family]:
    """The families of a text; raises AssertionError where it is not as it has to be."""
    assert text.endswith("\n"), "the last line has no end"
    found: dict[str, Family] = {}
    meaning, current = "", ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            current, _, meaning = line.removeprefix("# HELP ").partition(" ")
            assert re.fullmatch(NAME, current), line
            assert meaning, f"{line}: says nothing"
            assert current not in found, f"{line}: told twice"
        elif line.startswith("# TYPE "):
            name, kind = line.removeprefix("# TYPE ").split(" ")
            assert name == current, f"{line}: no HELP before it"
            assert kind in ("counter", "gauge", "histogram", "summary"), line
            assert name.endswith("_total") == (kind == "counter"), f"{line}: its name says something else"
            found[name] = Family(kind, meaning, {})
        else:
            told = SAMPLE.fullmatch(line)
            assert told, f"no sample: {line!r}"
            family = found[current]
            assert told[1] in [current + suffix for suffix in SUFFIXES.get(family.kind, ("",))], line
            labels = frozenset((each[1], unescaped(each[2])) for each in re.finditer(LABEL, told[2] or ""))
            assert (told[1], labels) not in family.samples, f"{line}: twice"
            family.samples[told[1], labels] = float(told[7])
    for name, family in found.items():
        check(name, family)
    return found


def unescaped(text: str) -> str:
    """A label's value."""
    return re.sub(r"\\(.)", lambda each: {"n": "\n"}.get(each[1], each[1]), text)


def check(name: str, family: Family) -> None:
    """A counter is not negative; a histogram's buckets grow to the count of all."""
    if family.kind in ("counter", "histogram", "summary"):
        assert all(value >= 0 for value in family.samples.values()), name
    if family.kind != "histogram":
        return
    series: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for (sample, labels), value in family.samples.items():
        if sample.endswith("_bucket"):
            rest = frozenset(each for each in labels if each[0] != "le")
            series[rest].append((float(dict(labels)["le"]), value))
    for rest, buckets in series.items():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts), f"{name}: buckets do not grow"
        assert sorted(buckets)[-1] == (float("inf"), family.samples[f"{name}_count", rest]), f"{name}: no bucket of all"


def value(found: dict[str, Family], family: str, suffix: str = "", **labels: str) -> float:
    """The value of one sample."""
    return found[family].samples[family + suffix, frozenset(labels.items())]
