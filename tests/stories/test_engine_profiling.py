"""This file tests the gates `data SOURCE`: bad data stops there, and the incumbent serves on.

Requirements: 3.03, 3.04 (data is an input of the build), F47 (empty, NaN only, another schema), beyond 7.
"""

from __future__ import annotations

from branchline.adapters.servicefile import lock
from branchline.core.revision import GateResult, Result
from branchline.core.service import Phase
from branchline.engine.preparing import pinned, spec_at
from branchline.engine.profiling import data_gates
from tests.world import ALEX, MODEL, SAM, World

WHERE = "data/*.csv"
WITH_DATA = f'data = {{ sales = {{ path = "{WHERE}", key = ["id"] }} }}\n' + MODEL
JUNE = b"id,price,zone\n1,10,N\n2,20,S\n"


def pins(world: World, files: dict[str, bytes], where: str = WHERE) -> dict[str, str | None]:
    """The lock that pins these files."""
    world.sources.here[where] = files
    return {"data.lock": lock([world.sources.pin("sales", where)]).decode()}


def serving(world: World) -> str:
    """A first revision, made of June, at 100 %."""
    tip = world.push(ALEX, WITH_DATA, files=pins(world, {"6.csv": JUNE}))
    world.settle()
    assert world.service().line(1).incumbent == tip
    return tip


def judged(world: World, branch: str) -> GateResult:
    """What the gate says of a branch that was built, or was not."""
    tip = world.git.tip(branch)
    spec = spec_at(world.ports, "housing", tip)
    before = world.catalog.revision("housing", world.service().line(1).incumbent or "")
    (found,) = data_gates(world.ports, spec, pinned(world.ports, spec, tip), before)
    return found


def test_bad_data_stops_before_anything_is_trained_and_the_incumbent_serves_on_F47(world: World) -> None:
    """Killer: train first, and hear of the data from whatever a step raises."""
    first = serving(world)
    ran = len(world.runner.tasks)
    world.push(SAM, files=pins(world, {"6.csv": JUNE, "7.csv": b"id,price,zone\n3,,N\n3,nan,S\n"}))
    world.settle()
    assert world.phase(SAM) is Phase.FAILED
    told = "column price is empty or NaN in all 2 rows of 7.csv; 1 of 4 rows repeat the key id"
    assert world.last("BuildFailed").detail["reason"] == f"data sales: {told}"
    assert world.shares() == {first: 100}
    assert len(world.runner.tasks) == ran
    note = world.controller.progress.since(0, SAM)[-1]
    assert (note.mark, note.name, note.text) == ("no", "gate data sales", told)
    assert dict(judged(world, SAM).numbers) == {"rows": 4, "columns": 3, "rows before": 2, "duplicates": 1}


def test_good_data_passes_and_is_counted(world: World) -> None:
    serving(world)
    tip = world.push(SAM, files=pins(world, {"6.csv": JUNE, "7.csv": b"id,price,zone,new\n3,30,N,1\n"}))
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    kept = {each.gate: each for each in world.catalog.gates("housing", tip)}
    gate = kept["data sales"]
    assert (gate.result, gate.summary) == (Result.PASS, "3 rows, 4 columns; +1 rows; column new is new")


def test_the_first_version_must_only_hold_something(world: World) -> None:
    world.push(ALEX, WITH_DATA, files=pins(world, {"6.csv": b"id,price\n"}))
    world.settle()
    assert world.last("BuildFailed").detail["reason"] == "data sales: it is empty: no row in 1 file"
    tip = world.push(ALEX, files=pins(world, {"6.csv": JUNE}))
    world.settle()
    assert world.catalog.gates("housing", tip)[0].summary == "2 rows, 3 columns; the first version"


def test_who_changes_the_code_alone_is_not_held_to_the_data_that_serves(world: World) -> None:
    """Its keys repeat since long ago. Killer: judge what the incumbent was made of."""
    world.sources.here[WHERE] = {"6.csv": JUNE + JUNE}
    plain = WITH_DATA.replace(', key = ["id"]', "")
    world.push(ALEX, plain, files=pins(world, {"6.csv": JUNE + JUNE[14:]}))
    world.settle()
    world.push(SAM, WITH_DATA)
    assert judged(world, SAM).summary == "as the incumbent's"


def test_a_source_at_another_place_is_another_source(world: World) -> None:
    """So says who means what is different in it."""
    serving(world)
    other = "data/v2.csv"
    world.push(SAM, WITH_DATA.replace(WHERE, other), files=pins(world, {"v2.csv": b"id,cost\n1,2\n"}, other))
    found = judged(world, SAM)
    assert (found.result, found.summary) == (Result.PASS, "1 row, 2 columns; not a source of the incumbent's")


def test_what_is_not_known_is_said(world: World) -> None:
    """Of a format that does not tell, and of a version that is gone."""
    first = serving(world)
    world.push(SAM, files=pins(world, {"6.csv": JUNE, "7.csv": b"\0"}))
    assert "rows and columns of 1 file are not known" in judged(world, SAM).summary
    (digest,) = dict(world.catalog.revision("housing", first).data).values()
    del world.sources.kept[digest]
    assert judged(world, SAM).summary.endswith(f"the incumbent's version {digest[:8]} is not known here any more")
