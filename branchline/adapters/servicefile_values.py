"""This file says how single values are written in a service file: durations, sizes, names, paths, functions.

Rules: values are strict (no "3" for 3). Durations are "250ms", "1s", "15m", "2h", "14d", or seconds as a number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from branchline.core import names

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {"kB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(kB|MB|GB|TB)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*")
_CALL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*")


def nearest(word: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known word was meant; '' when none is near."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _seconds(value: object) -> object:
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        if not found:
            raise ValueError(f'{value!r} is no duration; write it as "250ms", "1s", "15m", "2h" or "14d"')
        return float(found[1]) * _UNITS[found[2]]
    return value


def called(value: object) -> object:
    """A text in the place of a table is its `call`."""
    return {"call": value} if isinstance(value, str) else value


def _bytes(value: object) -> object:
    if isinstance(value, str):
        found = _SIZE.fullmatch(value)
        if not found:
            raise ValueError(f'{value!r} is no size; write it as "512MB", "2GB" or "1.5TB"')
        return int(float(found[1]) * _SIZES[found[2]])
    return value


def address(value: str) -> str:
    """An HTTP(S) address, or a path below the project."""
    return value if value.startswith(("http://", "https://")) else inside(value)


def schedule(value: str) -> str:
    """A cron expression; '' for none."""
    if value and len(value.split()) not in (5, 6):
        raise ValueError(f'{value!r} is no schedule; write it as cron does: "0 6 * * 1" is Mondays at six')
    return value


def placed(value: object) -> object:
    """A text in the place of a table is its `path`."""
    return {"path": value} if isinstance(value, str) else value


def _function(value: str) -> str:
    if not _CALL.fullmatch(value):
        raise ValueError(f"{value!r} is no function; write it as module:function")
    return value


def inside(value: str) -> str:
    """A path below the project; raises ValueError."""
    parts = PurePosixPath(value).parts
    if not parts or value.startswith("/") or ".." in parts or "\0" in value:
        raise ValueError(f"{value!r} leads out of the project; write a path below it")
    return value


def trunk(value: str) -> str:
    """A branch that may be the default one; '' is what git says."""
    if value and (not _REF.fullmatch(value) or ".." in value or value.endswith((".", ".lock"))):
        raise ValueError(f"{value!r} is no branch's name")
    if names.branch(value):
        raise ValueError(f"{value!r} is tried itself; the default branch shows what serves")
    return value


_DurationText = Annotated[str, Field(pattern=f"^{_DURATION.pattern}$")]
# The bound stands before the validator: behind it, it would not be the number's, and no keyword of a JSON Schema.
Duration = Annotated[
    float,
    Field(ge=0),
    BeforeValidator(_seconds, json_schema_input_type=Annotated[float, Field(ge=0)] | _DurationText),
]
Window = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(_seconds, json_schema_input_type=Annotated[float, Field(gt=0)] | _DurationText),
]
Size = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(
        _bytes,
        json_schema_input_type=Annotated[int, Field(gt=0)] | Annotated[str, Field(pattern=f"^{_SIZE.pattern}$")],
    ),
]
Function = Annotated[str, AfterValidator(_function)]
Inside = Annotated[str, AfterValidator(inside)]
Command = Annotated[list[str], Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
GateName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)]
Scalar = str | int | float | bool
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Saver = Literal["json", "text", "bytes", "pickle", "joblib", "skops", "safetensors", "parquet", "folder", "figure"]
Direction = Literal["higher", "lower"]


class Table(BaseModel):
    """A table of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def only_one(table: Table, *keys: str) -> None:
    """Refuse a table that has none of these keys, or several."""
    given = [key for key in keys if getattr(table, key) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of {', '.join(keys)} says what it is, not {' and '.join(given) or 'none'}")
