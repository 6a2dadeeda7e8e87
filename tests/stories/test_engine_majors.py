"""This file tests majors side by side, the schema that asks for them, and benchmarks that are never promoted.

Seed 1: a changed request/response schema = major; a major lives beside the old one and is never tested against it.
Requirements: 1.10 (versions), 3.14 (a yardstick); the older trunk is `major--SERVICE--N` (settled).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from branchline.core.service import Method, Phase
from branchline.core.waiting import behind
from branchline.engine.recalling import Memory
from tests.world import ALEX, KIM, MODEL, SAM, World

SECOND = f"major = 2\n{MODEL}"
HINTED = "def predict(house: dict[str, float]) -> float: ...\n"
FIX, ON = "fix--housing--typo", "fix--housing--typo--sam"
OLD = "major--housing--1"
LIMIT = '{ unit = "gates:unit", holdout = { value = "train.loss", max_worse = 1, direction = "lower" } }'
GATED = MODEL.replace('{ unit = "gates:unit" }', LIMIT)


def house(*required: str, **fields: str) -> dict[str, Any]:
    """A schema document whose request has these fields of these types."""
    properties = {name: {"type": kind} for name, kind in fields.items()}
    request = {"type": "object", "properties": properties, "required": list(required)}
    return {"request": request, "response": {"type": "number"}}


def push(world: World, branch: str, said: dict[str, Any], toml: str = "", start: str = "") -> str:
    """Push a branch whose predict has hints that say this."""
    world.runner.calls["serving:predict"] = lambda order: world._said({**order, "call": "serving:predict"})
    says = {"predict": said}
    tip = world.push(
        branch, toml, says=says, start=start, files={"serving.py": f"# {len(world.git.commits)}\n{HINTED}"}
    )
    world.settle()
    return tip


@pytest.fixture
def two(world: World) -> World:
    """A world whose service has two majors, with incompatible schemas."""
    push(world, ALEX, house("sqm", sqm="number"))
    push(world, SAM, house("area", area="number"), SECOND)
    return world


def gate(world: World, branch: str, name: str = "schema") -> Any:
    found = [each for each in world.catalog.gates("housing", world.on(branch).revision) if each.gate == name]
    return found[0] if found else None


def test_a_changed_schema_is_refused_until_it_is_a_major(world: World) -> None:
    """Killer: without the gate, callers of the incumbent would break when the challenger gets traffic."""
    first = push(world, ALEX, house("sqm", sqm="number"))
    assert gate(world, ALEX) is None  # nothing to compare with
    push(world, SAM, house("area", area="number"))
    reason = "schema: request.sqm was removed; was it renamed to area?; request.area is new and has to be there: "
    assert world.phase(SAM) is Phase.FAILED
    assert world.last("GatesFailed").detail["reason"].startswith(reason)
    assert world.last("GatesFailed").detail["reason"].endswith("so set major = 2 in housing/branchline.toml")
    second = push(world, SAM, house("area", area="number"), SECOND)
    assert world.phase(SAM) is Phase.LIVE
    assert [(line.major, line.incumbent) for line in world.service().lines] == [(1, first), (2, second)]
    assert (world.shares(line=1), world.shares(line=2)) == ({first: 100}, {second: 100})
    assert [world.catalog.revision("housing", commit).version for commit in (first, second)] == ["1.0.0", "2.0.0"]
    shown = {ref: world.git.shows(ref, "housing", ("housing",), (first, second)) for ref in ("main", OLD)}
    assert shown == {"main": second, OLD: first}
    told = [note.text for note in world.controller.progress.since(0, SAM) if note.name == "address"]
    wanted = "http://127.0.0.1:20000/housing/ will be major 2; what serves now stays at "
    assert told == [wanted + "http://127.0.0.1:20000/housing@v1/"]


def test_a_compatible_change_passes_and_is_told(world: World) -> None:
    push(world, ALEX, house("sqm", sqm="number"))
    push(world, SAM, house("sqm", sqm="number", age="number"))
    assert (gate(world, SAM).result.value, gate(world, SAM).summary) == ("pass", "request.age is new")
    assert dict(gate(world, SAM).numbers) == {"breaking": 0, "compatible": 1}
    push(world, KIM, house("sqm", sqm="number"))
    assert gate(world, KIM).summary == "as the incumbent's"
    memory: Memory = world.controller.memory
    assert memory.revision(KIM)["interface"]["request"] == house("sqm", sqm="number")["request"]


def test_each_line_has_challengers_policy_and_addresses_of_its_own(two: World) -> None:
    """Killer: with the default branch as everybody's policy, line 1 would be judged by the rules of line 2."""
    first, second = (line.incumbent for line in two.service().lines)
    strict = SECOND.replace('"gates:unit"', '"gates:unit", data = "gates:data"')
    push(two, "experiment--housing--strict", house("area", area="number"), strict)
    assert two.phase("experiment--housing--strict") is Phase.FAILED  # nobody said what `data` returns
    push(two, KIM, house("sqm", sqm="number"), start=OLD)
    assert (two.on(KIM).line, two.phase(KIM), behind(two.service(), two.on(KIM))) == (1, Phase.TESTING, False)
    assert two.shares(line=1) == {first: 50, two.on(KIM).revision: 50}
    assert two.shares(line=2) == {second: 100}
    rows = {row["commit"]: row["address"] for row in two.controller.reader.service("housing")["rows"]}
    assert rows[first] == "http://127.0.0.1:20000/housing@v1/"
    assert rows[second] == "http://127.0.0.1:20000/housing/"


def test_an_older_major_is_fixed_from_its_own_trunk(two: World) -> None:
    tip = push(two, FIX, house("sqm", sqm="number"), start=OLD)
    assert (two.on(FIX).line, two.on(FIX).method, two.phase(FIX)) == (1, Method.PATCH, Phase.CANARY)
    assert two.catalog.revision("housing", tip).version == "1.0.1"


def test_the_newest_major_is_retired_and_the_older_has_its_place_again(two: World) -> None:
    first, second = (line.incumbent for line in two.service().lines)
    steps = [text for _, text in two.ask("retire", "housing", line=2)]
    assert f"make main show 1.0.0 ({str(first)[:7]})" in steps
    two.settle()
    assert [line.major for line in two.service().lines] == [1]
    assert (two.shares(line=1), two.shares(line=2)) == ({first: 100}, {})
    assert two.git.shows("main", "housing", ("housing",), (str(first), str(second))) == first
    assert not two.git.tip(OLD)
    two.clock.advance(60)
    two.settle()
    assert {each.revision for each in two.launcher.running()} == {first}
    again = push(two, KIM, house("area", area="string"), SECOND)
    assert two.catalog.revision("housing", again).version == "2.1.0"  # 2.0.0 is never given again


def test_the_older_major_is_retired(two: World) -> None:
    two.ask("retire", "housing", line=1)
    two.settle()
    assert [line.major for line in two.service().lines] == [2]
    assert not two.git.tip(OLD)
    push(two, KIM, house("sqm", sqm="number"), MODEL)
    assert "BL103" in two.last("BuildFailed").detail["reason"]
    assert "line 1 has ended; the newest is 2" in two.last("BuildFailed").detail["reason"]
    told = [note.text for note in two.controller.progress.since(0, KIM) if note.mark == "no"]
    assert "next: set major = 2 in housing/branchline.toml and push" in told[-1]


@pytest.mark.parametrize(
    ("branch", "major", "cause"),
    [
        (SAM, 3, "a new major is the newest one and 1; the newest is 1"),
        (FIX, 2, "a fix begins no major: that is an experiment"),
    ],
)
def test_a_major_that_cannot_be_is_refused_with_words(world: World, branch: str, major: int, cause: str) -> None:
    push(world, ALEX, house("sqm", sqm="number"))
    push(world, branch, house("sqm", sqm="number"), f"major = {major}\n{MODEL}")
    assert world.phase(branch) is Phase.FAILED
    assert cause in world.last("BuildFailed").detail["reason"]


def test_a_fix_of_a_challenger_is_for_its_line(world: World) -> None:
    push(world, ALEX, house("sqm", sqm="number"))
    push(world, SAM, house("sqm", sqm="number"))
    push(world, ON, house("area", area="number"), SECOND, start=SAM)
    assert f"a fix of {SAM} is for line 1, too" in world.last("BuildFailed").detail["reason"]
    push(world, ON, house("sqm", sqm="number"), MODEL)
    assert (world.phase(ON), world.on(ON).line) == (Phase.CANARY, 1)


def test_a_service_may_begin_with_any_major(world: World) -> None:
    tip = push(world, ALEX, house("sqm", sqm="number"), SECOND)
    assert (world.on(ALEX).line, world.catalog.revision("housing", tip).version) == (2, "2.0.0")
    assert not [note for note in world.controller.progress.since(0, ALEX) if note.name == "address"]


def test_a_run_of_the_work_tree_is_compared_in_its_own_line(two: World) -> None:
    told = two.try_out("housing", str(two.service().line(1).incumbent))
    assert told[-1].mark == "ok"


# ---- benchmarks


def test_a_benchmark_is_measured_and_never_promoted(world: World) -> None:
    """Seed 1: V0 is a yardstick. It takes no version and no traffic, and its numbers are shown."""
    tip = world.push(ALEX, f"benchmark = true\n{GATED}", says={"train": {"loss": 4.0}})
    world.settle()
    assert (world.phase(ALEX), world.on(ALEX).method) == (Phase.MEASURED, Method.BENCHMARK)
    assert world.catalog.revision("housing", tip).version == "1.0.0-alex.1"
    assert (world.shares(), world.launcher.running(), world.service().lines) == ({}, (), ())
    (row,) = world.controller.reader.service("housing")["rows"]
    assert row["detail"] == "holdout: train.loss 4 (nothing to compare with: the first revision)"


@pytest.mark.parametrize(("loss", "phase"), [(4.5, Phase.LIVE), (5.5, Phase.FAILED)])
def test_before_there_is_an_incumbent_the_benchmark_is_the_yardstick(world: World, loss: float, phase: Phase) -> None:
    world.push(ALEX, f"benchmark = true\n{GATED}", says={"train": {"loss": 4.0}})
    world.settle()
    world.push(SAM, GATED, says={"train": {"loss": loss}})
    world.settle()
    assert world.phase(SAM) is phase
    assert f"train.loss {loss:g} (benchmark 4, limit +1)" in gate(world, SAM, "holdout").summary


def test_a_benchmark_that_is_meant_in_earnest_goes_on(world: World) -> None:
    world.push(ALEX, f"benchmark = true\n{MODEL}")
    world.settle()
    tip = world.push(ALEX, MODEL)
    world.settle()
    assert (world.phase(ALEX), world.catalog.revision("housing", tip).version) == (Phase.LIVE, "1.0.0")


# ---- where a schema comes from


def test_a_declared_file_says_the_schema(world: World) -> None:
    toml = MODEL.replace('"serving:predict"', '"serving:predict", schema = "schema.json"')
    tip = world.push(ALEX, toml, files={"schema.json": json.dumps(house("sqm", sqm="number"))})
    world.settle()
    assert json.loads(world.catalog.revision("housing", tip).schema) == house("sqm", sqm="number")
    for text, cause in ((None, "there is no such file"), ('{"question": {}}', "it should be"), ("{", "Expecting")):
        world.push(SAM, toml, files={"schema.json": text})
        world.settle()
        assert world.phase(SAM) is Phase.FAILED
        assert "BL103" in world.last("BuildFailed").detail["reason"]
        assert cause in world.last("BuildFailed").detail["reason"]


def test_hints_that_cannot_be_read_are_told_and_say_nothing(world: World) -> None:
    world.runner.calls["serving:predict"] = raising
    tip = world.push(ALEX, files={"serving.py": HINTED})
    world.settle()
    assert (world.phase(ALEX), world.catalog.revision("housing", tip).schema) == (Phase.LIVE, "")
    told = [note.text for note in world.controller.progress.since(0, ALEX) if note.name == "schema"]
    assert told == ["the hints cannot be read: ValueError: no such table"]


def raising(order: dict[str, Any]) -> Any:
    raise ValueError("no such table")


def test_a_worker_that_says_nothing_is_told(world: World) -> None:
    def silent(order: dict[str, Any]) -> None:
        raise ConnectionError

    world.runner.calls["serving:predict"] = silent
    world.push(ALEX, files={"serving.py": HINTED})
    world.settle()
    told = [note.text for note in world.controller.progress.since(0, ALEX) if note.name == "schema"]
    assert told == ["the hints cannot be read: its worker ended: it was killed"]


def test_the_hints_are_read_beside_the_build_and_no_longer_than_it_takes_to_fail(world: World) -> None:
    """Killer: let the reader of the hints be; a build that failed would then wait for it."""
    world.runner.endless.add("serving:predict")
    world.runner.calls["steps:train"] = raising
    world.push(ALEX, files={"serving.py": HINTED})
    world.settle()
    assert (world.phase(ALEX), world.runner.ended) == (Phase.FAILED, ["serving:predict"])
    assert "no such table" in world.last("BuildFailed").detail["reason"]


def test_a_parameter_of_predict_is_no_request(world: World) -> None:
    """`predict` may ask for parameters of the service file, and for what `load` made."""
    known: list[str] = []

    def told(order: dict[str, Any]) -> Any:
        known.extend(order["known"])
        return {}

    world.runner.calls["serving:predict"] = told
    toml = MODEL.replace('"serving:predict"', '"serving:predict", load = "serving:load"') + "[parameters]\nrate = 3\n"
    world.push(ALEX, toml, files={"serving.py": HINTED})
    world.settle()
    assert known == ["model", "rate", "train"]
    order = json.loads((world.ports.state / "revisions/housing" / world.on(ALEX).revision / "serving.json").read_text())
    assert order["parameters"] == {"rate": "3"}
