"""This file says what a data version holds where its format tells: rows, columns and the kind of each, repeated keys.

It is fed with lines and opens nothing. A kind is `number`, `text`, or `empty` where no row says anything (NaN is
nothing said). What is compared is kept per file, so that a month that is spoiled is seen among a hundred that are not.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest

from branchline.core.names import counted

NUMBER, TEXT, EMPTY = "number", "text", "empty"
NOTHING = frozenset({"", "nan", "null", "none", "na", "n/a"})  # how a cell says that it says nothing
BATCH = 2000  # rows that are looked at together
MOST_KEYS = 5_000_000  # some 400 MB of marks; of more rows it is not told whether their keys repeat
MOST_COLUMNS = 1000  # of a wider source the lock does not list them
SHOWN = 3

Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One file that is a table: `columns` are name and kind, in its own order."""

    path: str
    rows: int
    columns: Columns = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What a version holds: its tables, the files whose format does not tell, and how many rows repeat a key (None:
    no key is declared, or it was not counted).
    """

    tables: tuple[Table, ...] = ()
    unread: tuple[str, ...] = ()
    duplicates: int | None = None

    @property
    def rows(self) -> int:
        """The rows of all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def columns(self) -> dict[str, str]:
        """Every column of any table with its kind over all of them, by name."""
        kinds: dict[str, str] = {}
        for table in self.tables:
            for name, kind in table.columns:
                kinds[name] = wider(kinds.get(name, EMPTY), kind)
        return dict(sorted(kinds.items()))


class Keys:
    """Counts the rows whose key an earlier row had; `columns` are what tells rows apart."""

    def __init__(self, columns: Sequence[str], most: int = MOST_KEYS) -> None:
        self.columns, self._most = tuple(columns), most
        self._met: set[int] = set()
        self._repeated, self._whole = 0, bool(columns)

    def add(self, keys: Iterable[tuple[object, ...]]) -> None:
        """Take the keys of some more rows."""
        for key in keys:
            mark = hash(key)
            if mark in self._met:
                self._repeated += 1
            self._met.add(mark)
        if len(self._met) > self._most:
            self.give_up()

    def give_up(self) -> None:
        """Say nothing: they were not all counted."""
        self._whole = False
        self._met.clear()

    @property
    def duplicates(self) -> int | None:
        """How many rows repeat a key; None when that is not known."""
        return self._repeated if self._whole else None


def wider(one: str, other: str) -> str:
    """The kind of a column that is of both kinds."""
    return TEXT if TEXT in (one, other) else NUMBER if NUMBER in (one, other) else EMPTY


def kind_of(values: Sequence[str], before: str = EMPTY) -> str:
    """The kind of a column that was `before` and holds these cells, too."""
    if before == TEXT:
        return TEXT
    try:
        numbers = list(map(float, values))
    except ValueError:
        try:
            numbers = [float(value) for value in values if value.strip().lower() not in NOTHING]
        except ValueError:
            return TEXT
    return NUMBER if any(number == number for number in numbers) else before


def table(path: str, lines: Iterable[str], keys: Keys | None = None) -> Table | None:
    """What the lines (with their ends) of a CSV, TSV or JSON-lines file hold; None when it is none, or is broken."""
    form = path.lower().rpartition(".")[2]
    if form not in FORMS:
        return None
    try:
        return FORMS[form](path, lines, keys or Keys(()))
    except (csv.Error, ValueError, RecursionError):
        return None


def _separated(path: str, lines: Iterable[str], keys: Keys, delimiter: str = ",") -> Table:
    rows = (row for row in csv.reader(lines, delimiter=delimiter) if row)
    header = next(rows, [])
    places = [header.index(name) for name in keys.columns if name in header]
    if len(places) < len(keys.columns):
        keys.give_up()
    kinds, count = [EMPTY] * len(header), 0
    while batch := list(islice(rows, BATCH)):
        count += len(batch)
        for place, cells in enumerate(islice(zip_longest(*batch, fillvalue=""), len(header))):
            kinds[place] = kind_of(cells, kinds[place])
        if places:
            keys.add(tuple(row[place] if place < len(row) else "" for place in places) for row in batch)
    return Table(path, count, tuple(zip(header, kinds, strict=True)))


def _tabbed(path: str, lines: Iterable[str], keys: Keys) -> Table:
    return _separated(path, lines, keys, "\t")


def _objects(path: str, lines: Iterable[str], keys: Keys) -> Table:
    kinds: dict[str, str] = {}
    count = 0
    for line in lines:
        if not line.strip():
            continue
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError("no object")
        count += 1
        for name, value in row.items():
            kinds[name] = wider(kinds.get(name, EMPTY), _kind(value))
        if keys.columns:
            keys.add([tuple(str(row.get(name)) for name in keys.columns)])
    return Table(path, count, tuple(kinds.items()))


def _kind(value: object) -> str:
    if isinstance(value, int | float):
        return NUMBER if value == value else EMPTY
    said = value is not None and not (isinstance(value, str) and value.strip().lower() in NOTHING)
    return TEXT if said else EMPTY


FORMS: Mapping[str, Callable[[str, Iterable[str], Keys], Table]] = {
    "csv": _separated,
    "tsv": _tabbed,
    "jsonl": _objects,
    "ndjson": _objects,
}


# ------------------------------------------------------------------------------------------------ two versions


def changes(own: Mapping[str, str], before: Mapping[str, str]) -> tuple[str, ...]:
    """What became of the columns, one sentence each; () where the columns of either are not known."""
    if not own or not before:
        return ()
    found = [f"column {name} is new" for name in own if name not in before]
    found += [f"column {name} is gone" for name in before if name not in own]
    kinds = [(name, kind, before[name]) for name, kind in own.items() if name in before]
    return (*found, *(f"column {name} is {kind}, was {was}" for name, kind, was in kinds if kind != was))


def faults(own: Profile, before: Profile | None, key: Sequence[str] = ()) -> tuple[str, ...]:
    """Why a version is not to be trained with, one sentence each: it is empty, says nothing where the one `before`
    did, has lost a column, has one of another kind, or repeats keys. What it says more than that one is no fault.
    """
    found = []
    if own.tables and not own.rows and not own.unread:
        found.append(f"it is empty: no row in {counted(len(own.tables), 'file')}")
    elif before is not None:
        found += _spoiled(own, before)
    if lost := [name for name in key if own.tables and name not in own.columns]:
        found.append(f"there is no column {', '.join(lost)}, which is its key")
    if own.duplicates:
        found.append(f"{own.duplicates:,} of {own.rows:,} rows repeat the key {', '.join(key)}")
    return tuple(found)


def _spoiled(own: Profile, before: Profile) -> list[str]:
    known, was = own.columns, before.columns
    found = [f"column {name} is gone" for name in was if own.tables and name not in known]
    for name, kind in known.items():
        if EMPTY not in (kind, was.get(name, EMPTY)) and kind != was[name]:
            where = [each.path for each in own.tables if dict(each.columns).get(name) == kind]
            found.append(f"column {name} is {kind} in {_listed(where)}, was {was[name]}")
    hollow = {each.path for each in before.tables if not each.rows}
    if without := [each.path for each in own.tables if not each.rows and each.path not in hollow]:
        found.append(f"no row is in {_listed(without)}")
    always = [name for name in was if all(name in dict(each.columns) for each in before.tables if each.rows)]
    spoken = [name for name in was if all(dict(each.columns).get(name) != EMPTY for each in before.tables if each.rows)]
    filled = [each for each in own.tables if each.rows]
    for name in always:
        if name in known and (lacking := [each.path for each in filled if name not in dict(each.columns)]):
            found.append(f"column {name} is not in {_listed(lacking)}")
    for name in spoken:
        if mute := [each for each in filled if dict(each.columns).get(name) == EMPTY]:
            rows = counted(sum(each.rows for each in mute), "row")
            found.append(f"column {name} is empty or NaN in all {rows} of {_listed([each.path for each in mute])}")
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
