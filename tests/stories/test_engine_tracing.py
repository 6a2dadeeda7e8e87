"""This file tests that an answer is followed back to its data, and data on to all that it went into (3.30)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from branchline.engine.preparing import LOCK_FILE
from branchline.engine.trying import Wanted
from branchline.errors import UnknownReference
from tests.world import ALEX, MODEL, World

WITH_DATA = MODEL.replace("steps = {", 'data = { sales = "data/*.csv" }\nsteps = {')


def lineage(world: World, reference: str) -> dict[str, Any]:
    return world.controller.tracing.lineage(reference)


def edges(found: dict[str, Any]) -> set[tuple[str, str, str]]:
    name = {node["id"]: node["name"].partition(" ")[0] for node in found["nodes"]}
    return {(name[edge["made"]], edge["how"], name[edge["of"]]) for edge in found["edges"]}


@pytest.fixture
def pinned(world: World) -> str:
    """The digest of the data of a revision that serves."""
    world.sources.here["data/*.csv"] = {"a.csv": b"x\n1\n"}
    version = world.sources.pin("sales", "data/*.csv")
    lock = world.ports.relock(None, "housing/data.lock", [version]).decode()
    files = {LOCK_FILE: lock, "steps.py": "def train(sales): ...\ndef clean(): ...\n"}
    world.push(ALEX, WITH_DATA, files=files)
    world.settle()
    return version.digest


def test_a_revision_leads_back_and_its_data_leads_on_3_30(world: World, pinned: str) -> None:
    back = edges(lineage(world, "housing@1.0.0"))
    assert {("housing@1.0.0", "result of", "train"), ("train", "reads", "sales")} <= back
    assert {how for _, how, _ in back} == {"built from", "result of", "made with", "reads", "runs in", "judged by"}
    on = lineage(world, pinned[:8])
    assert on["nodes"][0]["id"] == f"data {pinned}"
    assert edges(on) == {
        ("train", "reads", "sales"), ("housing@1.0.0", "result of", "train"), ("housing@1.0.0", "made with", "sales"),
    }  # fmt: skip
    artifact = dict(world.catalog.revisions("housing")[0].artifacts)["train"]
    assert ("housing@1.0.0", "result of", "train") in edges(lineage(world, artifact))


def test_a_run_that_was_verified_keeps_its_way_back(world: World, pinned: str) -> None:
    """Killer: of a step that was run again to compare it, no lines are kept; an older run knows them."""
    revision = world.catalog.revisions("housing")[0]
    world.try_out("housing", revision.commit, Wanted(gates=False, verify="*", of=revision))
    assert ("train", "reads", "sales") in edges(lineage(world, "housing"))
    world.try_out("housing", revision.commit, Wanted(gates=False))
    assert ("train", "reads", "sales") in edges(lineage(world, "housing"))


def test_a_request_of_a_test_leads_to_who_answered(world: World) -> None:
    world.released()
    world.testing()
    arms = world.visit(["u1", "u2"])
    world.controller.read_exposures()
    for number, unit in enumerate(("u1", "u2")):
        found = lineage(world, f"r{number}")
        assert found["nodes"][0]["name"] == f"request r{number}"
        assert dict(found["nodes"][0]["told"])["unit"] == unit
        assert found["nodes"][1]["id"] == f"revision housing {arms[unit]}"
        assert found["edges"][0]["how"] == "answered by"


def test_a_request_that_another_stepped_in_for_leads_to_that_one(world: World) -> None:
    """The log says who answered, the record only whom it was meant for; without the log that is all there is."""
    first = world.released()
    second = world.testing()
    arms = world.visit([f"u{n}" for n in range(20)], steps_in=[second])
    world.controller.read_exposures()
    number = next(n for n in range(20) if arms[f"u{n}"] == second)
    assert lineage(world, f"r{number}")["nodes"][1]["id"] == f"revision housing {first}"
    world.meter.lines.clear()
    found = lineage(world, f"r{number}")
    assert found["nodes"][1]["id"] == f"revision housing {second}"
    assert dict(found["nodes"][0]["told"])["failed"] == "yes"


def test_a_request_outside_a_test_is_found_in_the_log(world: World) -> None:
    first = world.released()
    world.testing()
    world.visit(["u1"])
    world.meter.lines = [replace(world.meter.lines[0], request="abc-1", experiment="", assigned=first, answered="")]
    assert lineage(world, "abc-1")["nodes"][1]["id"] == f"revision housing {first}"


def test_what_is_nothing_of_all_that_says_so(world: World, pinned: str) -> None:
    for reference in ("nothing", "0123456789", "r99", "housing@9.9.9", "a b"):
        with pytest.raises(UnknownReference) as caught:
            lineage(world, reference)
        assert "begins" in caught.value.cause


def test_a_digest_that_begins_two_is_refused(world: World, pinned: str) -> None:
    revision = world.catalog.revisions("housing")[0]
    other = pinned[:10] + "0" * 54
    world.catalog._revisions["housing", revision.commit] = replace(revision, data=(*revision.data, ("more", other)))
    with pytest.raises(UnknownReference) as caught:
        lineage(world, pinned[:8])
    assert pinned[:16] in caught.value.cause
    assert lineage(world, pinned)["nodes"][0]["name"].startswith("sales")
