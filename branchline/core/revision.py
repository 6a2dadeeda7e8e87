"""This file says what a revision is, what a gate found, and how a build is keyed.

A revision is one indivisible deliverable: code, data, artifacts, environment, serving and their evidence (1.16). Its
commit is its identity; its version is a name that the ledger allocates once and never again (I25).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


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


@dataclass(frozen=True, slots=True)
class StepRun:
    """What became of one step of one run: `state` is ran, reused or failed; `artifact` is the id of its result."""

    step: str
    state: str
    key: str
    artifact: str = ""
    seconds: float = 0.0
    summary: str = ""
    why: str = ""


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


def step_key(
    step: str,
    tree: str,
    environment: str,
    parameters: Mapping[str, str],
    data: Mapping[str, str],
    inputs: Mapping[str, str],
    sdk: str,
) -> str:
    """The key under which a step's result may be reused: everything that may change the result, hashed."""
    return digest(["step/1", step, tree, environment, dict(parameters), dict(data), dict(inputs), sdk])
