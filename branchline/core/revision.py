"""This file says what a revision is, what a gate found, and how a build is keyed.

A revision is one indivisible deliverable: code, data, artifacts, environment, serving and their evidence (1.16). Its
commit is its identity; its version is a name that the ledger allocates once and never again (I25).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from branchline.core.reuse import Fact, Line, Notice


class Result(Enum):
    """What a gate found."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate of one evaluation found: `summary` is one line, `numbers` the evidence, `log` the artifact id of
    its log.
    """

    gate: str
    result: Result
    summary: str
    numbers: tuple[tuple[str, float], ...] = ()
    seconds: float = 0.0
    log: str = ""


class Measure(NamedTuple):
    """One number that a step told of itself; `position` is where on its curve (a training step, say), None for none."""

    name: str
    value: float
    position: float | None = None


@dataclass(frozen=True, slots=True)
class StepRun:
    """What became of one step of one run: `state` is ran, reused, skipped, failed or stopped; `artifact` is
    the id of its result.

    `item` is what it was run for by `for_each`, `at` when it began (Unix seconds), `seconds` and `cpu` how long it took
    by the clock and in processors, `peak` its memory in bytes, `exit` how it ended, `log` the artifact id of what it
    printed. `lines` is what its key was made of, `facts` guard its reuse. One that is not `reusable` runs every time.
    """

    step: str
    state: str
    key: str
    artifact: str = ""
    seconds: float = 0.0
    summary: str = ""
    why: str = ""
    item: str = ""
    at: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    exit: str = ""
    log: str = ""
    lines: tuple[Line, ...] = ()
    facts: tuple[Fact, ...] = ()
    notices: tuple[Notice, ...] = ()
    metrics: tuple[Measure, ...] = ()
    reusable: bool = True

    @property
    def name(self) -> str:
        """How it is called where it is told: `train`, or `train[north]`."""
        return f"{self.step}[{self.item}]" if self.item else self.step


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable deliverable of a service.

    `commit` is the judged commit, `tree` the digest of the service's closure in it, `spec` the JSON of the frozen
    spec, `artifacts` step -> artifact id, `data` source -> manifest digest, `trained` the commit its artifacts were
    trained at, `environment` the digest of lock, Python and platform, `sdk` the digest of the `core` + `sdk` it was
    built with, `schema` the document of `core.schema` that says what it accepts and answers ('': nothing is said).
    """

    service: str
    commit: str
    version: str
    branch: str
    tree: str
    environment: str
    sdk: str
    spec: str
    artifacts: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    trained: str = ""
    author: str = ""
    built: float = 0.0
    final: bool = False
    schema: str = ""

    @property
    def name(self) -> str:
        """`service@version`, the name people use."""
        return f"{self.service}@{self.version}"

    @property
    def short(self) -> str:
        """The commit as people read it."""
        return self.commit[:7]


def digest(document: object) -> str:
    """The SHA-256 of a JSON document in one canonical form (sorted keys, no spaces; after RFC 8785)."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
