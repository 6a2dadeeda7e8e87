"""This file tests that new data opens an experiment of itself, once, and that from there on the ordinary law judges.

Requirements: 3.03, 3.04 (data arrival is a trigger), beyond 7; F47 (bad data stops), I24 (one service stops no other).
"""

from __future__ import annotations

import json
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from branchline.adapters.servicefile import lock, pins
from branchline.core.service import Phase
from branchline.engine.arriving import QUIET, made_of
from branchline.errors import DataUnreachable, NothingToDo, UnknownService
from tests.world import ALEX, MODEL, SAM, World

WHERE, URL = "data/*.csv", "https://example.org/rates.csv"
READS = {"steps.py": "def train(sales): ...\ndef clean(): ...\n"}
JUNE, JULY = b"id,price\n1,10\n2,20\n", b"id,price\n3,30\n"
WATCHED = f'data = {{ sales = {{ path = "{WHERE}", key = ["id"], watch = true }} }}\n' + MODEL


def timed(schedule: str) -> str:
    return WATCHED.replace("watch = true", f'every = "{schedule}"')


def of_its_data(order: dict[str, Any]) -> object:
    """A result that is another one for other data."""
    return {"of": sorted(order["data"].values())}


def serving(world: World, toml: str = WATCHED, rates: bytes = b"", result: Any = of_its_data) -> str:
    """A first revision, made of June, at 100 %."""
    world.sources.here[WHERE] = {"6.csv": JUNE}
    versions = [world.sources.pin("sales", WHERE)]
    if rates:
        world.sources.here[URL] = {"rates.csv": rates}
        versions.append(world.sources.pin("rates", URL))
    world.runner.calls["steps:train"] = result
    files: dict[str, str | None] = {"data.lock": lock(versions).decode(), **READS}
    tip = world.push(ALEX, toml, files=files)
    quiet(world)
    assert world.service().line(1).incumbent == tip
    return tip


def quiet(world: World) -> None:
    """Let it be quiet for long enough, and everything be done that follows."""
    world.settle()
    world.clock.advance(QUIET)
    world.settle()


def arrives(world: World, content: bytes = JULY, name: str = "7.csv") -> str:
    """A month more lies there, and was heard; returns the branch that is its own."""
    world.sources.here[WHERE] = {**world.sources.here[WHERE], name: content}
    world.lookout.wrote(WHERE)
    quiet(world)
    return f"experiment--housing--data-{world.sources.pin('sales', WHERE).digest[:8]}"


def opened(world: World) -> list[str]:
    return [entry.detail["branch"] for entry in world.ledger.entries if entry.event == "Opened"][1:]


def test_new_data_opens_an_experiment_whose_diff_is_the_lock_alone(world: World) -> None:
    """Beyond 7: zero human steps. Killers: write anything else; author it as a person."""
    first = serving(world)
    branch = arrives(world)
    assert opened(world) == [branch]
    assert world.phase(branch) is Phase.TESTING
    tip = world.git.tip(branch)
    assert world.git.changed(first, tip, ("housing",)) == ("housing/data.lock",)
    assert world.git.parents(tip) == (world.git.tip("main"),)
    assert world.last("Opened").actor == "branchline <branchline@localhost>"
    pinned = pins(world.git.read(tip, "housing/data.lock") or b"", "")["sales"]
    assert (pinned.digest[:8], pinned.rows) == (branch[-8:], 3)
    assert world.git.message(tip).splitlines()[2].startswith(f"sales: {branch[-8:]}, 2 files, 3 rows (was ")
    gates = [gate.gate for gate in world.catalog.gates("housing", tip)]
    assert gates == ["data sales", "test-plan", "unit"]
    assert made_of(world.ports, "housing")[pinned.digest] == [world.catalog.revision("housing", tip).name]
    assert world.troubles() == []


def test_who_changes_more_than_data_needs_a_log_of_its_own(world: World) -> None:
    """Killer: excuse everybody from it."""
    serving(world)
    world.push(SAM, files={"EXPERIMENT.md": None})
    world.settle()
    assert "log: there is no EXPERIMENT.md" in world.last("GatesFailed").detail["reason"]


def test_a_burst_is_one_arrival_and_nothing_new_is_none(world: World) -> None:
    """Killer: pin at every notice."""
    serving(world)
    pinned = world.sources.pins
    for part in range(3):
        world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY[: 9 + part]}
        world.lookout.wrote(WHERE)
        world.clock.advance(QUIET - 0.1)
        world.settle()
    assert opened(world) == []
    assert world.sources.pins == pinned
    arrives(world)
    assert len(opened(world)) == 1
    world.lookout.wrote(WHERE)
    quiet(world)
    assert len(opened(world)) == 1


def test_a_source_that_is_never_quiet_is_looked_at_all_the_same(world: World) -> None:
    serving(world)
    world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY}
    for _ in range(25):
        world.lookout.wrote(WHERE)
        world.settle()
        world.clock.advance(1.5)
    world.settle()
    assert len(opened(world)) == 1


def test_what_came_while_no_daemon_lived_is_found(world: World) -> None:
    serving(world)
    world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY}
    world.lookout.close()
    world.restart()
    quiet(world)
    assert len(opened(world)) == 1


def test_while_one_is_under_way_the_newest_waits_and_what_came_between_is_never_tried(world: World) -> None:
    serving(world)
    first = arrives(world)
    arrives(world, b"id,price\n3,31\n")
    last = arrives(world, b"id,price\n3,32\n")
    assert opened(world) == [first]
    world.ask("close", first)
    quiet(world)
    assert opened(world) == [first, last]


def test_nothing_is_opened_twice_for_the_same_data(world: World) -> None:
    """Not after its branch was closed, nor by a new daemon, nor when an older month comes back."""
    serving(world)
    branch = arrives(world)
    world.ask("close", branch)
    world.settle()
    assert not world.git.tip(branch)
    for _ in range(2):
        world.lookout.wrote(WHERE)
        quiet(world)
        world.restart()
    world.sources.here[WHERE] = {"6.csv": JUNE}
    world.lookout.wrote(WHERE)
    quiet(world)
    assert opened(world) == [branch]


def test_what_a_branch_pins_already_is_not_opened_besides(world: World) -> None:
    """Somebody was faster by hand; a lock that cannot be read pins nothing."""
    serving(world)
    world.push("experiment--housing--kim", files={"data.lock": "broken"})
    world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY}
    text = lock([world.sources.pin("sales", WHERE)]).decode()
    world.push(SAM, WATCHED + "x", files={"data.lock": text})  # it will not even build
    world.lookout.wrote(WHERE)
    quiet(world)
    assert [branch for branch in opened(world) if "data-" in branch] == []


def test_data_that_changes_no_result_is_not_tried(world: World) -> None:
    """Issue 5: if an artifact changed. Killers: open it all the same; build it again at every notice."""
    serving(world, result=lambda order: {"of": "nothing"})
    branch = arrives(world)
    assert (opened(world), world.git.tip(branch)) == ([], "")
    told = [note.text for note in world.controller.progress.since(0, branch)]
    assert told[-1] == "every result is the incumbent's: nothing to try"
    world.lookout.wrote(WHERE)
    quiet(world)
    assert len(world.controller.progress.since(0, branch)) == len(told)


def test_bad_data_that_was_closed_is_not_opened_again(world: World) -> None:
    """No revision was built of it, and the daemon is another one: the archive knows. Killer: ask the catalog alone."""
    serving(world)
    bad = arrives(world, b"id,price\n3,\n")
    world.ask("close", bad)
    world.settle()
    for _ in range(2):
        world.restart()
        world.lookout.wrote(WHERE)
        quiet(world)
    assert opened(world) == [bad]


def test_bad_data_stops_at_its_gate_and_the_next_is_tried_F47(world: World) -> None:
    """The incumbent serves on; the branch that failed blocks nobody."""
    first = serving(world)
    bad = arrives(world, b"id,price\n3,\n")
    assert world.phase(bad) is Phase.FAILED
    reason = world.last("BuildFailed").detail["reason"]
    assert reason == "data sales: column price is empty or NaN in all 1 row of 7.csv"
    assert world.shares() == {first: 100}
    assert world.phase(arrives(world)) is Phase.TESTING


def test_a_run_on_bad_data_trains_nothing_either_F47(world: World) -> None:
    """Killer: ask the gate with the others, when all of it was trained."""
    world.sources.here[WHERE] = {"6.csv": b"id,price\n"}
    pinned = lock([world.sources.pin("sales", WHERE)]).decode()
    notes = world.try_out("housing", world.push(ALEX, WATCHED, files={"data.lock": pinned, **READS}))
    assert [(note.mark, note.name) for note in notes] == [("no", "gate data sales"), ("no", "end")]
    assert dict(notes[-1].more) == {"failed": ["data sales"]}
    assert world.workers.orders == []


def test_a_build_that_fails_is_told_on_the_branch(world: World) -> None:
    serving(world)
    world.runner.calls["steps:train"] = lambda order: json.loads("{")
    assert world.phase(arrives(world)) is Phase.FAILED


def test_a_schedule_looks_when_it_is_due(world: World) -> None:
    """UTC, as cron writes it; nothing is heard of a source that is not watched."""
    serving(world, timed("0 6 * * *"))
    world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY}
    world.lookout.wrote(WHERE)
    quiet(world)
    assert opened(world) == []
    world.clock.advance(86400)
    quiet(world)
    assert len(opened(world)) == 1


def test_a_schedule_that_is_none_is_told(world: World) -> None:
    serving(world, timed("0 6 31 2 *"))
    assert world.troubles() == ["BL329: '0 6 31 2 *' is no schedule that ever comes"]


def test_somebody_may_say_that_data_came(world: World) -> None:
    """The HTTP call and the command: also of a source that nobody watches."""
    toml = WATCHED.replace(", watch = true", "").replace("} }\n", f'}}, rates = "{URL}" }}\n', 1)
    serving(world, toml, rates=b"day,rate\n1,2\n")
    arrivals = world.controller.arrivals
    world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY}
    world.sources.here[URL] = {"rates.csv": b"day,rate\n1,3\n"}
    quiet(world)
    assert opened(world) == []
    assert arrivals.arrived("housing") == (("housing", "sales"), ("housing", "rates"))
    assert arrivals.arrived(source="rates") == (("housing", "rates"),)
    quiet(world)
    (branch,) = opened(world)
    pinned = pins(world.git.read(world.git.tip(branch), "housing/data.lock") or b"", "")
    assert {name: each.rows for name, each in pinned.items()} == {"sales": 3, "rates": 1}
    with pytest.raises(UnknownService):
        arrivals.arrived("hosing")
    with pytest.raises(NothingToDo):
        arrivals.arrived("housing", "sails")
    with pytest.raises(NothingToDo):
        arrivals.arrived(source="sails")


def test_what_is_in_the_way_is_told_and_tried_again(world: World) -> None:
    """What passes by itself is tried again; what does not waits for news (I24)."""
    serving(world)
    pin, why = world.sources.pin, [DataUnreachable(where=URL), DataUnreachable(where=URL)]

    def failing(*args: Any) -> Any:
        if why:
            raise why.pop()
        return pin(*args)

    world.sources.pin = failing  # type: ignore[method-assign,assignment]
    world.sources.here[WHERE] = {"6.csv": JUNE, "7.csv": JULY}
    world.lookout.wrote(WHERE)
    quiet(world)
    assert world.troubles() == [f"BL328: {URL} cannot be read as data"]
    for _ in range(4):
        quiet(world)
    assert world.troubles() == []
    assert len(opened(world)) == 1


def test_data_that_is_gone_waits_for_news(world: World) -> None:
    serving(world)
    here = world.sources.here.pop(WHERE)
    world.lookout.wrote(WHERE)
    quiet(world)
    assert world.troubles() == ["BL323: The data source 'sales' matches no file"]
    world.sources.here[WHERE] = {**here, "7.csv": JULY}
    quiet(world)
    assert opened(world) == []
    world.lookout.wrote(WHERE)
    quiet(world)
    assert len(opened(world)) == 1


def test_a_remote_that_is_away_is_waited_for(world: World) -> None:
    """What was tried meanwhile is not tried anew. Killer: draft another commit for the same data a moment later."""
    serving(world)
    world.git.refusing = True
    arrives(world)
    assert opened(world) == []
    world.git.refusing = False
    for _ in range(3):
        quiet(world)
    (opening,) = opened(world)
    steps = world.controller.memory.why(opening)["steps"]
    assert {step["state"] for step in steps} == {"ran"}


def test_a_trunk_that_does_not_show_what_serves_is_waited_for(world: World) -> None:
    """A commit on top of what nobody judged would bring that along. Killer: ask for the trunk's tip only."""
    serving(world)
    shown = world.git.tip("main")
    world.git.write("main", {"housing/steps.py": "foreign\n"})
    arrives(world)
    assert opened(world) == []
    world.git.reset("main", shown)
    quiet(world)
    assert len(opened(world)) == 1


def test_only_what_is_live_and_can_be_read_is_listened_to(world: World) -> None:
    serving(world)
    world.push("experiment--prices--kim", WATCHED.replace(WHERE, "other/*.csv"), files={"data.lock": "{}"})
    world.settle()
    assert world.lookout.places == {WHERE}
    heard = world.git.tip("main")
    world.lookout.wrote(WHERE)
    world.settle()
    world.git.write("main", {"housing/branchline.toml": MODEL})  # it reads no data any more
    quiet(world)
    assert world.lookout.places == set()
    world.git.write("main", {"housing/branchline.toml": "broken"})
    quiet(world)
    world.git.reset("main", heard)
    quiet(world)
    assert world.lookout.places == {WHERE}


class Later(Executor):
    """Keeps what is to be done until it is asked to do it."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.waiting.append(fn)
        return Future()


def test_one_at_a_time_and_a_daemon_that_stops_tells_nothing(world: World) -> None:
    """F24. Killer: begin again what is under way."""
    serving(world)
    later = world.controller.workshop.pool = Later()
    arrives(world)
    arrives(world, b"id,price\n3,31\n")
    assert len(later.waiting) == 1
    world.controller.workshop.close()
    world.runner.calls["steps:train"] = lambda order: json.loads("{")
    later.waiting[0]()
    assert (opened(world), world.troubles()) == ([], [])
    world.controller.workshop.begin(lambda: None)
    assert len(later.waiting) == 1


def test_several_new_versions_have_one_name(world: World) -> None:
    toml = WATCHED.replace("} }\n", f'}}, rates = {{ path = "{URL}", every = "0 * * * *" }} }}\n', 1)
    serving(world, toml, rates=b"day,rate\n1,2\n")
    world.sources.here[URL] = {"rates.csv": b"day,rate\n1,3\n"}
    world.clock.advance(3600)
    branch = arrives(world)
    (found,) = opened(world)
    assert found != branch
    assert found.startswith("experiment--housing--data-")
