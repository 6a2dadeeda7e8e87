"""This file tests the commands that bring a revision back, trace it and clear away: the real API over fakes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.cli.reproduce import size
from branchline.cli.work import laid_out
from tests.places import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made_place = Place(tmp_path)
    with made_place.answering():
        yield made_place


def test_verify_says_equal_or_different_per_step_with_the_artifacts(place: Place) -> None:
    """beyond 3: exit 0 when none differs, 1 when one does."""
    place.world.released()
    same = place.type("verify", "housing@1.0.0")
    artifact = dict(place.world.catalog.revisions("housing")[0].artifacts)["train"]
    assert same.exit_code == 0
    assert same.stdout.split() == ["=", "train", "equal", artifact[:12]]
    assert same.stderr.startswith("housing@1.0.0  ")
    place.world.runner.calls["steps:train"] = lambda order: {"loss": -1}
    other = place.type("verify", "housing@1.0.0", "train")
    assert (other.exit_code, other.stdout.split()[:3]) == (1, ["no", "train", "different"])
    told = json.loads(place.type("verify", "housing", "--json").stdout)
    assert (told["schema"], told["ok"], told["steps"][0]["artifact"]) == ("branchline.verify/1", False, artifact)
    place.world.environments.broken["housing"] = "no such package"
    gone = place.type("verify", "housing")
    assert (gone.exit_code, gone.stderr.splitlines()[1][:12]) == (1, "error[BL401]")


def test_what_a_checkout_lays_out_is_told_with_what_is_gone() -> None:
    laid = {
        "python": "/e/bin/python",
        "artifacts": {"train": "/laid/a", "clean": ""},
        "data": {"sales": "/data/d"},
        "missing": {"result clean": "BL324: it is gone"},
    }
    assert list(laid_out(laid)) == [
        "python   /e/bin/python",
        "result   train: /laid/a",
        "data     sales: /data/d",
        "missing  result clean: BL324: it is gone",
    ]
    assert list(laid_out({"python": "", "artifacts": {}, "data": {}, "missing": {"environment": "no"}})) == [
        "missing  environment: no"
    ]


def test_gc_says_what_goes_by_kind_and_removes_it(place: Place) -> None:
    world = place.world
    world.released()
    assert place.type("gc").stderr.strip() == "everything is needed, or young"
    folder = world.ports.state / "runs" / "abc"
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(b"x" * 5_000_000)
    os.utime(folder, (1, 1))
    assert place.type("gc", "--dry-run").stdout.split() == ["would", "go", "log", "folder", "1", "5.0", "MB"]
    assert folder.exists()
    assert place.type("gc").stdout.split()[0] == "gone"
    assert not folder.exists()
    world.controller.sweeper.busy = lambda: True
    assert "something is being built" in place.type("gc").stderr
    assert place.read("gc")["schema"] == "branchline.gc/1"
    assert (size(5), size(1500), size(2.5e9)) == ("5 B", "1.5 kB", "2.5 GB")


def test_lineage_is_an_outline_a_flowchart_or_a_document_3_30(place: Place) -> None:
    place.world.released()
    artifact = dict(place.world.catalog.revisions("housing")[0].artifacts)["train"]
    lines = place.type("lineage", "housing@1.0.0").stdout.splitlines()
    assert lines[0].startswith("housing@1.0.0  commit ")
    assert any(line.startswith("  result of   train  artifact " + artifact[:12]) for line in lines)
    assert any(line.startswith("  judged by   gate unit: pass") for line in lines)
    on = place.type("lineage", artifact[:10]).stdout.splitlines()
    assert (on[0].split()[0], on[1].split()[:3]) == ("train", ["went", "into", "housing@1.0.0"])
    chart = place.type("lineage", "housing@1.0.0", "--mermaid").stdout.splitlines()
    assert chart[:2] == ["flowchart LR", '  n0["housing@1.0.0"]']
    assert "  n0 -->|built from| n1" in chart
    assert place.read("lineage", "housing")["schema"] == "branchline.lineage/1"
    unknown = place.type("lineage", "nothing")
    assert (unknown.exit_code, unknown.stderr.splitlines()[0][:12]) == (2, "error[BL104]")
