"""This file tests the list of dossiers: a row has its number with interval and count, the same rows the same bytes."""

from __future__ import annotations

import json

import pytest

from branchline.core import dossier, dossier_index
from branchline.core.dossier_index import files_of, found_words, listed, page, row_of, rows_of, together
from branchline.core.dossier_page import page as page_of
from tests.unit.test_dossier import document, entry


def test_a_row_has_the_number_its_interval_and_its_count() -> None:
    row = row_of(document())
    assert (row["version"], row["event"], row["what"]) == ("1.1.0", "Won", "basket")
    assert found_words(row) == f"basket +1 (+{row['low']:.3g} to +{row['high']:.3g}; n 240)"
    few = row_of(document(units=6))
    assert (few["low"], found_words(few)) == (None, "basket +1 (too few to judge; n 4)")


def test_a_canary_has_the_part_of_its_requests_that_were_bad() -> None:
    row = row_of(document(effect=False))
    assert (row["what"], row["part"]) == ("failed requests", True)
    assert 0 <= row["low"] < row["estimate"] < row["high"] <= 1
    assert found_words(row).startswith(f"failed requests {100 * row['estimate']:.3g} % (")


def test_what_did_harm_is_told_by_the_guardrail_that_said_so() -> None:
    """Killer: the effect, which nothing was decided by."""
    row = row_of(document() | {"verdict": entry("Breached") | {"chain": ""}})
    assert (row["what"], row["part"], row["badge"]) == ("failed requests", True, ["taken out", "bad"])
    page = page_of(document() | {"verdict": entry("Breached") | {"chain": ""}})
    assert page.index("failed requests, challenger") < page.index("basket, challenger")


@pytest.mark.parametrize("measured", [None, {"answer": {"cause": "continue"}, "guards": {}}])
def test_who_was_never_measured_has_no_number(measured: object) -> None:
    made = document() | {"measurement": measured}
    assert (row_of(made)["n"], found_words(row_of(made))) == (0, "")


def test_a_list_is_read_as_it_was_written_and_rubbish_is_none() -> None:
    row = row_of(document())
    assert rows_of(dossier.text(listed([row])).encode()) == [row]
    for rubbish in (None, b"", b"[", b"[1]", b'{"schema": "other/1", "dossiers": [1]}', b"{}",
                    b'{"schema": "branchline.dossiers/1", "dossiers": 3}'):  # fmt: skip
        assert rows_of(rubbish) == []


def test_one_of_the_same_version_takes_the_place_of_the_older_one() -> None:
    """Killer: append."""
    old, other = row_of(document()), {**row_of(document()), "version": "1.0.0", "at": "2026-05-01T10:00:00.000Z"}
    new = {**old, "entry": 99}
    assert listed(together([old, other], new))["dossiers"] == [new, other]


def test_the_page_links_each_one_and_escapes_what_somebody_wrote() -> None:
    row = {**row_of(document()), "sentence": "<b>bold</b>"}
    alone, apart = page(listed([row])), page(listed([row]), folder=True)
    assert '<a href="1.1.0.html">' in alone
    assert '<a href="shop/1.1.0.html">' in apart
    assert "<title>Dossiers of shop</title>" in alone
    assert "<title>Dossiers</title>" in apart
    assert "<title>Dossiers</title>" in page(listed([]))
    assert "<b>bold" not in alone


def test_what_git_keeps_is_the_document_its_page_and_the_list() -> None:
    made = document()
    files = files_of(made, page_of(made), [])
    assert list(files) == ["1.1.0.json", "1.1.0.html", "index.json", "index.html"]
    assert dossier.read(files["1.1.0.html"].decode()) == json.loads(files["1.1.0.json"])
    assert json.loads(files["index.json"])["schema"] == dossier_index.SCHEMA
    assert files == files_of(made, page_of(made), rows_of(files["index.json"]))
