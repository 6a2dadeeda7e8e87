"""This file reads the tables of a data version: bytes into lines for `core.profile`, Parquet through pyarrow.

A file is streamed and never held whole. pyarrow is no requirement of ours: where it is not installed beside Branchline,
the rows and columns of a Parquet file are not known, and that is said.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from branchline.core.profile import EMPTY, FORMS, NUMBER, TEXT, Keys, Table, table

PARQUET = ".parquet"


class _Stream(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._rest = iter(chunks), b""

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        taken = self._rest[: len(buffer)]
        buffer[: len(taken)] = taken
        self._rest = self._rest[len(taken) :]
        return len(taken)


def is_table(path: str) -> bool:
    """Whether a file of this name may tell rows and columns."""
    return path.lower().endswith((PARQUET, *(f".{form}" for form in FORMS)))


def told(path: str, chunks: Iterable[bytes], keys: Keys | None = None) -> Table | None:
    """What a file of lines holds; None when its format does not tell, or it is broken."""
    with io.BufferedReader(_Stream(_text(chunks)), 1 << 20) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace", newline="")
        return table(path, lines, keys)


def _text(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks; raises ValueError at a zero byte, which no text has."""
    for chunk in chunks:
        if b"\0" in chunk:
            raise ValueError("no text")
        yield chunk


def parquet(path: str, file: Path, keys: Keys | None = None) -> Table | None:
    """What a Parquet file holds; None without pyarrow, or when it is broken. Only missing values count as empty."""
    try:
        arrow, files = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        return None
    try:
        with files.ParquetFile(file) as opened:
            rows = opened.metadata.num_rows
            columns = tuple(
                (field.name, _kind(arrow, opened.metadata, field, place))
                for place, field in enumerate(opened.schema_arrow)
            )
            if keys and keys.columns:
                known = {name for name, _ in columns}
                if not known.issuperset(keys.columns):
                    keys.give_up()
                else:
                    for batch in opened.iter_batches(columns=list(keys.columns)):
                        keys.add(zip(*(batch.column(name).to_pylist() for name in keys.columns), strict=True))
    except (arrow.ArrowException, OSError, ValueError):
        return None
    return Table(path, rows, columns)


def _kind(arrow: Any, metadata: Any, field: Any, place: int) -> str:
    """The kind of a column; that it is empty is what the statistics of every row group say."""
    if arrow.types.is_null(field.type):
        return EMPTY
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    flat = metadata.num_columns == len(metadata.schema.to_arrow_schema())
    if flat and groups:
        told = [(group.num_rows, group.column(place).statistics) for group in groups]
        if all(each is not None and each.has_null_count and each.null_count == rows for rows, each in told):
            return EMPTY
    number = any(
        getattr(arrow.types, f"is_{kind}")(field.type) for kind in ("integer", "floating", "decimal", "boolean")
    )
    return NUMBER if number else TEXT
