"""This file tests the command `dossier`: the document, the page, and the check that asks nobody.

Requirements: beyond 14; 3.20.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import Place
from tests.world import MODEL, SAM

CALM = MODEL.replace("guardrails = { bad_outcome = { below = 1 } }\n", "guardrails = { failed_requests = false }\n")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made_place = Place(tmp_path)
    with made_place.answering():
        yield made_place


def concluded(place: Place) -> None:
    """A challenger that won."""
    world = place.world
    old, new = world.released(toml=CALM), world.testing()
    world.play(230, {old: lambda n: 4.0 + n % 3, new: lambda n: 6.0 + n % 3})
    world.settle()


def alone(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder that is no repository, in a process of its own."""
    command = [sys.executable, "-m", "branchline.cli.main", "dossier", "verify", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_a_dossier_is_told_written_and_checked_by_who_has_nothing_else(place: Place, tmp_path: Path) -> None:
    concluded(place)
    told = place.type("dossier", SAM).stdout.splitlines()
    assert told[0].startswith("housing 1.1.0 is better than housing 1.0.0 and replaces it: its rating is 1.87 higher")
    assert told[-1] == "page     branchline dossier housing@1.1.0 --html FILE"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    page, document = elsewhere / "page.html", elsewhere / "dossier.json"
    written = place.type("dossier", "housing@1.1.0", "--html", str(page), "--json")
    assert (written.exit_code, written.stderr) == (0, f"written  {page}\n")
    document.write_text(written.stdout)
    assert written.stdout == place.type("dossier", SAM, "--json").stdout
    made = json.loads(written.stdout)
    assert (made["schema"], list(made)) == ("branchline.dossier/1", sorted(made))
    for file in (page, document):
        checked = alone(elsewhere, file.name)
        assert (checked.returncode, checked.stdout) == (
            0, "same     housing 1.1.0: challenger: the challenger is better\n",
        )  # fmt: skip
    first = page.read_bytes()
    assert place.type("dossier", SAM, "--html", str(page)).exit_code == 0
    nowhere = place.type("dossier", SAM, "--html", str(elsewhere / "nowhere" / "page.html"))
    assert (nowhere.exit_code, "cannot be written: No such file" in nowhere.stderr) == (2, True)
    assert page.read_bytes() == first


def test_a_dossier_that_was_changed_is_told_by_what_differs(place: Place, tmp_path: Path) -> None:
    concluded(place)
    made = place.read("dossier", SAM)
    made["measurement"]["answer"]["high"] = 9.5
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(made, indent=1))
    checked = place.type("dossier", "verify", str(file))
    assert checked.exit_code == 1
    assert checked.stdout.splitlines()[0].startswith("differs  answer, high: written 9.5, recomputed ")
    as_json = place.type("dossier", "verify", str(file), "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["same"]) == (1, False)


def test_what_is_no_dossier_and_what_has_no_numbers(place: Place, tmp_path: Path) -> None:
    place.world.released()
    file = tmp_path / "dossier.json"
    file.write_text(place.type("dossier", "housing", "--json").stdout)
    assert place.type("dossier", "verify", str(file)).stdout == (
        "same     housing 1.0.0: nothing was measured, so there is nothing to recompute\n"
    )
    file.write_text('{"schema": "branchline.dossier/1", "measurement": {"answer": 3}}')
    refused = place.type("dossier", "verify", str(file))
    assert (refused.exit_code, refused.stderr.splitlines()[0][:12]) == (2, "error[BL100]")
    assert place.type("dossier", "housing", str(file)).exit_code == 2
    for text, why in (
        (None, "No such file or directory"), (b"\xff\xfe", "it is no text"), (b"", "Expecting value: line 1"),
        (b"{}", "it is no document of the schema branchline.dossier/1"),
        (b'{"schema": "branchline.dossier/1"}', "it says nothing of "),
        (b'{"schema": "branchline.dossier/1", "measurement": {"answer": 3}}', "it says nothing of "),
    ):  # fmt: skip
        if text is not None:
            (tmp_path / "none").write_bytes(text)
        refused = place.type("dossier", "verify", str(tmp_path / "none"))
        assert refused.exit_code == 2
        assert f"none is no dossier: {why}" in refused.stderr
    unknown = place.type("dossier", "housing@9.9.9")
    assert (unknown.exit_code, unknown.stdout) == (2, "")


def test_all_that_is_concluded_is_listed_and_written_out(place: Place, tmp_path: Path) -> None:
    assert place.type("dossier").stdout == "nothing has been concluded yet\n"
    concluded(place)
    first, second = place.type("dossier").stdout.splitlines()
    assert "  housing 1.1.0 is better than housing 1.0.0 and replaces it: its rating is 1.87 higher" in first
    assert second.strip().startswith("rating +1.87 (+")
    assert "; n " in second
    (row,) = place.read("dossier")["dossiers"]
    assert (row["branch"], row["event"]) == (SAM, "Won")
    folder = tmp_path / "all"
    assert place.type("dossier", "--out", str(folder)).stderr == f"written  {folder / 'index.html'}\n"
    names = sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file())
    assert names == ["housing/1.1.0.html", "housing/1.1.0.json", "index.html"]
    assert '<a href="housing/1.1.0.html">' in (folder / "index.html").read_text()
    assert alone(folder, "housing/1.1.0.html").returncode == 0
    for words in (["--html", "x.html"], [SAM, "--out", str(folder)]):
        assert place.type("dossier", *words).exit_code == 2
    assert place.type("dossier", "--out", str(folder / "index.html" / "in")).exit_code == 2
