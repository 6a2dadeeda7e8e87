"""This file reads TOML into a model, and tells a person everything that is wrong with it at once.

Rules: every problem is a sentence, with its line where TOML lets us know it; an unknown key comes with the nearest
known one. Nothing of the errors of pydantic and tomllib leaves this file but their words.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from branchline.adapters.servicefile_metrics import (
    BadOutcomeTable,
    GuardrailsTable,
    MetricTable,
    SlowRequestsTable,
    WatchedTable,
)
from branchline.adapters.servicefile_tables import (
    CanaryTable,
    GateTable,
    ProjectTable,
    RolloutTable,
    ServeTable,
    StepTable,
)
from branchline.adapters.servicefile_values import Table, nearest
from branchline.errors import BadServiceFile

LARGEST = 128 * 1024  # bytes of a file that people write
_Model = TypeVar("_Model", bound=Table)

Place = tuple[str | int, ...]


def read(model: type[_Model], text: bytes, path: str, problems: Sequence[str] = ()) -> _Model:
    """Read a file into a model; raises BadServiceFile with these problems and all that are found."""
    problems = list(problems)
    if len(text) > LARGEST:
        raise refused(path, [*problems, f"it has {len(text):,} bytes; a file of at most {LARGEST:,} is read"])
    if text.startswith(codecs.BOM_UTF8):
        raise refused(path, [*problems, "it begins with a byte order mark; save it as UTF-8 without one"])
    try:
        content = text.decode()
        document = tomllib.loads(content)
    except RecursionError:
        raise refused(path, [*problems, "its tables or lists are nested too deeply"]) from None
    except UnicodeDecodeError as error:
        raise refused(path, [*problems, f"it is not UTF-8: {error.reason} at byte {error.start}"]) from error
    except tomllib.TOMLDecodeError as error:
        raise refused(path, [*problems, f"it is not TOML: {error}"]) from error
    try:
        found = model.model_validate(document)
    except ValidationError as error:
        problems += [_problem(model, content, each) for each in error.errors()]
        raise refused(path, problems) from error
    if problems:
        raise refused(path, problems)
    return found


def refused(path: str, problems: Sequence[str]) -> BadServiceFile:
    """The error that tells these problems, one a line; `fields["problems"]` has them apart."""
    return BadServiceFile("\n".join(problems), path=path, problems=tuple(problems))


def _problem(model: type[Table], content: str, error: Mapping[str, Any]) -> str:
    place: Place = tuple(part for part in error["loc"] if part != "[key]")
    key = ".".join(str(part) for part in place)
    if error["type"] == "extra_forbidden":
        words = f"unknown key {key}{nearest(str(place[-1]), _keys(model, place[:-1]))}"
    elif error["type"] == "missing":
        words, place = f"{key} is missing", place[:-1]
    else:
        said = str(error["ctx"]["error"]) if error["type"] == "value_error" else error["msg"]
        words = f"{key}: {said}" if key else said
    line = _line(content, place)
    return f"line {line}: {words}" if line else words


def _keys(model: type[Table], place: Place) -> Iterable[str]:
    """The keys that a table may have: steps and gates are found by any name of theirs."""
    tables: Mapping[Place, type[Table]] = {
        ("serve",): ServeTable, ("steps", "*"): StepTable, ("gates", "*"): GateTable, ("metric",): MetricTable,
        ("watched", "*"): WatchedTable,
        ("guardrails",): GuardrailsTable, ("guardrails", "bad_outcome"): BadOutcomeTable,
        ("guardrails", "slow_requests"): SlowRequestsTable, ("rollout",): RolloutTable,
        ("rollout", "canary"): CanaryTable, ("project",): ProjectTable, (): model,
    }  # fmt: skip
    if place and place[0] in ("steps", "gates", "watched"):
        place = (place[0], "*")
    fields = tables[place].model_fields if place in tables else {}
    return [field.alias or name for name, field in fields.items()]


def _line(content: str, place: Place) -> int:
    """The line of the deepest part of `place` that is written as a key or a table of its own; 0 when there is none."""
    table: tuple[str, ...] = ()
    best, deepest = 0, 0
    wanted = tuple(str(part) for part in place)
    for number, line in enumerate(content.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        key = re.match(r"\s*([\w\-.\"']+(?:\s*\.\s*[\w\-\"']+)*)\s*=", line)
        if header:
            table = at = _dotted(header[1])
        elif key:
            at = (*table, *_dotted(key[1]))
        else:
            continue
        if at == wanted[: len(at)] and len(at) > deepest:
            best, deepest = number, len(at)
    return best


def _dotted(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))
