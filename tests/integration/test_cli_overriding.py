"""This file tests what a person is told who decides in the verdict's place: what waits, and what would undo it.

The real command line and API over a world of fakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.places import Place
from tests.world import MODEL, SAM

APPROVED = MODEL.replace('rollout = { warm = "60s" }', 'rollout = { warm = "60s", approval = "after" }')
WHY = "legal wants it gone"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.answering():
        yield made


def overridden(place: Place, side: str) -> str:
    """What the command said."""
    with place.living():
        done = place.type("conclude", SAM, "--override", WHY, "--for", side, "--yes")
    assert done.exit_code == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(("frozen", "waits", "then"), [
    (False, "approval", f"approve {SAM}"), (True, "frozen", "thaw housing"),
])  # fmt: skip
def test_an_override_that_waits_is_not_undone_by_rolling_production_back(
    place: Place, frozen: bool, waits: str, then: str
) -> None:
    """Killer: told to roll back, of what had changed nothing, a person rolls back the incumbent that serves."""
    world = place.world
    old, new = world.released(toml=APPROVED), world.testing()
    if frozen:
        world.ask("freeze", "housing")
    said = overridden(place, "challenger")
    assert "undo:" not in said
    assert said.splitlines()[-2:] == [f"waits    for: {waits}", f"next     branchline {then}"]
    assert world.shares() == {old: 50, new: 50}


@pytest.mark.parametrize(("side", "undo"), [
    ("challenger", "rollback housing"), ("nobody", f"extend {SAM}"), ("incumbent", ""),
])  # fmt: skip
def test_an_override_names_what_undoes_it_where_one_command_does(place: Place, side: str, undo: str) -> None:
    old, new = place.world.released(), place.world.testing()
    said = overridden(place, side)
    line = next(line for line in said.splitlines() if line.startswith("done"))
    assert line.partition("undo: branchline ")[2] == undo
    if undo:
        with place.living():
            assert place.type(*undo.split(), "--yes").exit_code == 0
        place.world.settle()
        assert place.world.shares() == ({old: 50, new: 50} if side == "nobody" else {old: 100})


def test_approving_what_is_only_tried_then_offers_no_rollback(place: Place) -> None:
    """Killer: with `approval = "before"` the word begins a test, and rolling back would take back who serves."""
    place.world.push(SAM, toml := MODEL.replace("rollout = {", 'rollout = { approval = "before",'))
    place.world.settle()
    place.world.ask("approve", SAM)
    place.world.settle()
    place.world.push("experiment--housing--next", toml + "# next\n")
    place.world.settle()
    with place.living():
        done = place.type("approve", "experiment--housing--next", "--yes")
    assert (done.exit_code, "undo:" in done.stderr) == (0, False), done.stderr


def test_a_second_reason_beside_an_override_is_refused_and_not_lost(place: Place) -> None:
    place.world.released()
    place.world.testing()
    told = place.type("conclude", SAM, "--override", WHY, "--for", "nobody", "--because", "another", "--yes")
    assert (told.exit_code, "--because would be lost" in told.stderr) == (2, True), told.stderr
    assert "Overrode" not in place.world.events()


@pytest.mark.parametrize(("side", "whom"), [("challenger", "the challenger"), ("nobody", "nobody")])
def test_every_place_tells_who_overrode_for_whom_why_and_on_what_evidence(place: Place, side: str, whom: str) -> None:
    """Killer: cut in mid-word in one place, and in the next neither a name nor a number."""
    world = place.world
    old, new = world.released(), world.testing()
    world.play(60, {old: lambda n: 3 + n % 3, new: lambda n: 3 + n % 3})
    world.settle()
    overridden(place, side)
    world.settle()
    said = world.last("Overrode").detail["said"].splitlines()[0]
    assert len(said) > 20
    line = next(line for line in place.type("history", "housing").stdout.splitlines() if " Overrode " in line)
    assert f"{SAM}  for {whom}: {WHY}; the evidence by then: {said}" in line
    who = world.last("Overrode").actor
    lines = place.type("why", SAM if side == "nobody" else "housing@1.1.0").stdout.splitlines()
    at = next(n for n, line in enumerate(lines) if " Overrode " in line)
    assert f"by {who.partition(' <')[0]} for {whom}: {WHY}" in lines[at]
    assert lines[at + 1].strip() == f"the evidence by then: {said}"
    if side == "challenger":
        notes = place.type("notes", "housing@1.1.0").stdout
        assert f"by {who.partition(' <')[0]} for {whom}: {WHY}" in notes
        assert f"- the evidence by then: {said}" in notes
