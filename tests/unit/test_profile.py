"""This file tests what is told of a data version's content, and which of it is not to be trained with (F47, 3.03)."""

from __future__ import annotations

import pytest

from branchline.core import profile
from branchline.core.profile import BATCH, EMPTY, NUMBER, TEXT, Keys, Profile, Table, changes, faults, table


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def of(*tables: tuple[str, int, dict[str, str]], duplicates: int | None = None) -> Profile:
    return Profile(tuple(Table(path, rows, tuple(columns.items())) for path, rows, columns in tables), (), duplicates)


GOOD = of(("6.csv", 9, {"id": NUMBER, "zone": TEXT}), ("7.csv", 9, {"id": NUMBER, "zone": TEXT, "note": EMPTY}))
JUNE = ("6.csv", 9, {"id": NUMBER, "zone": TEXT})


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2.5", "-3e9", "inf"], NUMBER),
        (["1", "", "NaN", " n/a "], NUMBER),
        (["", "nan", "NULL"], EMPTY),
        (["nan", "nan"], EMPTY),
        (["1", "x"], TEXT),
        (["2026-02-01"], TEXT),
        ([], EMPTY),
    ],
)
def test_a_column_is_of_a_kind(cells: list[str], kind: str) -> None:
    assert profile.kind_of(cells) == kind
    assert profile.kind_of(cells, TEXT) == TEXT
    assert profile.kind_of(cells, NUMBER) == profile.wider(NUMBER, kind)


def test_a_table_of_text_is_read_to_its_end() -> None:
    """Killer: look at the first rows only."""
    rows = "1,2\n" * BATCH + '"3\n4",x\n\n5\n'
    assert table("A.CSV", lines(f"a,b\n{rows}")) == Table("A.CSV", BATCH + 2, (("a", TEXT), ("b", TEXT)))
    assert table("a.tsv", lines("a\tb\n1,5\t2\n")) == Table("a.tsv", 1, (("a", TEXT), ("b", NUMBER)))
    assert table("a.csv", []) == Table("a.csv", 0)


def test_lines_of_json_are_a_table() -> None:
    text = '{"a": 1, "b": "x", "c": null}\n\n{"a": NaN, "b": 2, "c": "", "d": [1], "e": true}\n'
    kinds = {"a": NUMBER, "b": TEXT, "c": EMPTY, "d": TEXT, "e": NUMBER}
    assert table("a.jsonl", lines(text)) == Table("a.jsonl", 2, tuple(kinds.items()))
    keys = Keys(["a"])
    assert table("a.ndjson", lines('{"a": 1}\n{"b": 1}\n{"a": 1}\n{"b": 2}\n'), keys)
    assert keys.duplicates == 2
    assert table("a.jsonl", ['{"a": NaN}\n']) == Table("a.jsonl", 1, (("a", EMPTY),))


def test_what_is_broken_or_no_table_tells_nothing() -> None:
    assert table("a.txt", ["x"]) is None
    assert table("a.jsonl", ["{"]) is None
    assert table("a.jsonl", ["[1]"]) is None
    assert table("a.jsonl", ["[" * 200_000]) is None
    assert table("a.csv", ["a\n", "x" * 200_000]) is None


def test_keys_are_counted_until_there_are_too_many() -> None:
    keys = Keys(["id", "day"], most=3)
    table("a.csv", lines("day,id\n1,1\n1\n1,1\n"), keys)
    assert keys.duplicates == 1
    table("b.csv", lines("day,id\n2,1\n3,1\n"), keys)
    assert keys.duplicates is None
    assert Keys(()).duplicates is None


def test_columns_that_came_went_or_are_another_kind_are_named() -> None:
    assert changes({"a": TEXT, "b": NUMBER}, {"a": NUMBER, "c": TEXT}) == (
        "column b is new",
        "column c is gone",
        "column a is text, was number",
    )
    assert changes({"a": TEXT}, {}) == ()


@pytest.mark.parametrize(
    ("own", "before", "told"),
    [
        (GOOD, GOOD, []),
        (GOOD, None, []),
        (Profile((), ("a.parquet",)), GOOD, []),
        (of(JUNE, ("8.csv", 3, {"id": NUMBER, "zone": TEXT, "new": TEXT})), of(JUNE), []),
        (of(("6.csv", 0, {})), GOOD, ["it is empty: no row in 1 file"]),
        (of(("6.csv", 0, {})), None, ["it is empty: no row in 1 file"]),
        (of(JUNE, ("8.csv", 0, {"id": EMPTY})), of(JUNE), ["no row is in 8.csv"]),
        (of(JUNE, ("8.csv", 0, {})), of(JUNE, ("8.csv", 0, {})), []),
        (of(("6.csv", 9, {"id": NUMBER})), of(JUNE), ["column zone is gone"]),
        (of(JUNE, ("8.csv", 3, {"id": TEXT, "zone": TEXT})), of(JUNE), ["column id is text in 8.csv, was number"]),
        (of(("6.csv", 9, {"id": NUMBER, "zone": NUMBER})), of(JUNE), ["column zone is number in 6.csv, was text"]),
        (of(JUNE, ("8.csv", 3, {"id": NUMBER})), of(JUNE), ["column zone is not in 8.csv"]),
        (
            of(JUNE, ("8.csv", 1, {"id": NUMBER, "zone": EMPTY})),
            of(JUNE),
            ["column zone is empty or NaN in all 1 row of 8.csv"],
        ),
        (
            of(*((f"{n}.csv", 2, {"id": EMPTY}) for n in range(5))),
            of(("6.csv", 9, {"id": NUMBER})),
            ["column id is empty or NaN in all 10 rows of 0.csv, 1.csv, 2.csv and 2 more"],
        ),
        (of(("6.csv", 9, {"note": TEXT})), of(("6.csv", 9, {"note": EMPTY})), []),
        (of(JUNE, ("x.csv", 3, {"other": TEXT})), of(JUNE, ("x.csv", 3, {"other": TEXT})), []),
    ],
)
def test_a_version_that_is_not_to_be_trained_with_says_why_F47(
    own: Profile, before: Profile | None, told: list[str]
) -> None:
    """Killer: compare the whole version only; a spoiled month drowns in those before it."""
    assert list(faults(own, before)) == told


def test_rows_that_repeat_their_key_are_a_fault() -> None:
    assert faults(of(JUNE, duplicates=3), None, ("id",)) == ("3 of 9 rows repeat the key id",)
    assert faults(of(JUNE, duplicates=0), None, ("id",)) == ()
    assert faults(of(JUNE), None, ("id", "day")) == ("there is no column day, which is its key",)
