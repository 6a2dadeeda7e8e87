"""This file tests outcomes that nobody reports: a query is put beside the loops, and its rows count like reports.

Issue 7: a SQL query giving unit, time, value; F74 to F79 hold for them, too, and exactly once over restarts.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from branchline.core.outcome_query import Row
from branchline.core.service import Phase
from branchline.engine.fetching import in_thread
from branchline.engine.under_test import metric_of
from branchline.errors import QueryFailed, QueryRefused
from branchline.ports import Stamp
from branchline.server.metrics import WORDS
from tests.world import MODEL, SAM, World

SQL = """
[metric.sql]
url = "sqlite:///sales.db"
query = "select unit, time, value from sales where time >= :since"
every = "5s"
overlap = "30s"
"""
LINE = 'metric = { name = "rating", bounds = [0, 10], mde = 1, window = "10s" }\n'
ASKED = MODEL.replace(LINE, "") + '[metric]\nname = "rating"\nbounds = [0, 10]\nmde = 1\nwindow = "10s"\n' + SQL
SALES = "sqlite:///sales.db"


def under_test(world: World, toml: str = "") -> tuple[str, str]:
    """A first revision and a challenger under test, and an empty table."""
    world.queries.tables[SALES] = []
    return world.released(toml=toml or ASKED), world.testing()


def sells(world: World, arms: dict[str, str], value: Callable[[str], float], after: float = 1.0) -> None:
    """Everybody's sale is written, so long after now."""
    at = world.clock.now() + after
    world.queries.tables[SALES] += [Row(unit, at, value(arm)) for unit, arm in arms.items()]


def looked(world: World, seconds: float = 5.0) -> None:
    """Let that much time pass, and look."""
    world.clock.advance(seconds)
    world.controller.gathering.look()


def test_rows_of_a_query_decide_a_test_as_reports_do(world: World) -> None:
    old, new = under_test(world)
    arms = world.visit([f"u{n}" for n in range(230)])
    sells(world, arms, lambda arm: 6.0 if arm == new else 3.0)
    values = iter((0.0, 1.0) * 230)
    table = world.queries.tables[SALES]
    table[:] = [Row(row.unit, row.time, row.value + next(values)) for row in table]
    looked(world)
    assert world.controller.gathering.words["housing", "kept"] == 230
    world.clock.advance(10)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert world.shares() == {new: 100}
    assert old not in world.shares()
    assert ("housing", "kept") in world.controller.gathering.words
    assert {word for _, word in world.controller.gathering.words} <= {*WORDS}


def test_each_row_counts_once_however_often_it_is_read(world: World) -> None:
    """Killer: with nothing but memory, a restart would count everything twice, or call it a conflict."""
    under_test(world)
    arms = world.visit([f"u{n}" for n in range(20)])
    sells(world, arms, lambda arm: 5.0)
    looked(world)
    looked(world)
    assert world.controller.gathering.words == {("housing", "kept"): 20}, "what was settled is not given again"
    world.restart()
    looked(world, 1)
    assert world.controller.gathering.words == {("housing", "duplicate"): 20}
    assert sum(arm["outcomes"] for name, arm in counted(world).items() if name) == 20


def counted(world: World) -> dict[str, dict[str, int]]:
    """What is counted of the test."""
    experiment = world.router.shown("housing")[1].experiment
    return {arm: dict(found) for arm, found in world.observations.counts("housing", experiment).items()}


def test_the_first_look_begins_a_window_ago_and_the_next_ones_with_the_newest_row(world: World) -> None:
    under_test(world, ASKED.replace('window = "10s"', 'window = "60s"'))
    arms = world.visit(["a", "b"])
    sells(world, {"a": arms["a"]}, lambda arm: 5.0)
    assert [since for _, since in world.queries.asked] == [world.clock.now() - 60 - 1]
    newest = world.queries.tables[SALES][0].time
    looked(world, 3)
    assert len(world.queries.asked) == 1, "it is put every five seconds"
    looked(world, 2)
    looked(world)
    looked(world, 60)
    assert [since for _, since in world.queries.asked[1:]] == [newest - 57, newest - 30, newest + 8]


def test_nothing_from_before_a_unit_was_in_the_test_counts(world: World) -> None:
    """Killer: what somebody bought before they met the challenger would be put down to it."""
    under_test(world)
    world.clock.advance(5)
    before = world.clock.now() - 4
    world.queries.tables[SALES] += [Row("u0", before, 9.0)]
    world.visit(["u0"])
    looked(world)
    assert sum(arm["outcomes"] for name, arm in counted(world).items() if name) == 0
    world.queries.tables[SALES] += [Row("u0", world.clock.now() - 2, 5.0)]
    looked(world)
    assert sum(arm["outcomes"] for name, arm in counted(world).items() if name) == 1


def test_who_is_not_known_yet_is_asked_about_again(world: World) -> None:
    """The log of a request may be read after the row that is about it; a row of this second waits for the next look."""
    under_test(world)
    now = world.clock.now()
    world.queries.tables[SALES] += [Row("u0", now + 1.5, 5.0), Row("stranger", now, 5.0)]
    looked(world, 2)
    assert not world.controller.gathering.words
    world.visit(["u0"])
    looked(world)
    assert world.controller.gathering.words == {("housing", "kept"): 1}
    assert counted(world)[""]["unknown"] == 0, "a database knows everybody: that is nothing to be told"


def test_a_test_that_the_gateway_does_not_show_yet_loses_no_row(world: World) -> None:
    under_test(world)
    arms = world.visit(["a"])
    sells(world, arms, lambda arm: 5.0)
    shown = world.router.shown
    world.clock.advance(5)
    world.router.shown = lambda service: {}  # type: ignore[method-assign]
    world.controller.gathering.look()
    assert not world.controller.gathering.words
    world.router.shown = shown  # type: ignore[method-assign]
    looked(world)
    assert world.controller.gathering.words == {("housing", "kept"): 1}


def test_a_database_that_says_no_is_told_until_it_answers(world: World) -> None:
    under_test(world)
    world.queries.error = QueryFailed("the file is locked", table="metric.sql")
    looked(world)
    (told,) = world.controller.reader.service("housing")["troubles"]
    assert told == "BL332: The query in [metric.sql] was not answered: the file is locked"
    world.queries.error = QueryRefused(table="metric.sql", reason="there is no table sales")
    looked(world)
    (told,) = world.controller.reader.service("housing")["troubles"]
    assert told == "BL331: The query in [metric.sql] gives nothing that counts: there is no table sales"
    world.queries.error = None
    looked(world)
    assert world.controller.reader.service("housing")["troubles"] == []


def test_times_in_another_zone_are_told(world: World) -> None:
    under_test(world)
    arms = world.visit(["a"])
    sells(world, arms, lambda arm: 5.0, after=3600)
    looked(world)
    (told,) = world.controller.reader.service("housing")["troubles"]
    assert "1 rows lie in the future: is their time in UTC?" in told


def test_a_database_that_hangs_holds_up_nobody_and_is_told(world: World) -> None:
    """Killer: put by the judge's own thread, it would hold up every guardrail of every service."""
    under_test(world)
    held: list[Callable[[], None]] = []
    world.controller.gathering.fetching.spawn = held.append
    looked(world)
    looked(world)
    world.settle()
    assert len(held) == 1, "it is not put twice at once"
    assert world.controller.reader.service("housing")["troubles"] == []
    looked(world, 30)
    (told,) = world.controller.reader.service("housing")["troubles"]
    assert told == "BL332: The query in [metric.sql] was not answered: it was put 35 s ago; nothing else waits for it"
    arms = world.visit([f"f{n}" for n in range(60)], fails=[world.service().on(SAM).revision or ""])
    assert arms
    world.settle()
    assert world.phase(SAM) is not Phase.TESTING, "the guardrail went on"
    world.controller.gathering.look()
    assert len(world.controller.reader.service("housing")["troubles"]) == 1, "it is still under way"
    held[0]()
    world.controller.gathering.look()
    assert world.controller.reader.service("housing")["troubles"] == []


def test_a_ledger_that_is_older_is_not_asked_for(world: World) -> None:
    under_test(world)
    world.controller.recorder.older["housing"] = Stamp(9, 9)
    world.queries.asked.clear()
    looked(world)
    assert world.queries.asked == []


def test_a_query_is_put_in_a_thread_of_its_own_that_nobody_waits_for() -> None:
    """Killer: a thread that the interpreter waits for, and a daemon with a database that hangs would not end."""
    met: queue.Queue[threading.Thread] = queue.Queue()
    in_thread(lambda: met.put(threading.current_thread()))
    thread = met.get(timeout=60)
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_the_metric_is_that_of_who_is_under_test_else_of_who_serves(world: World) -> None:
    def measured() -> str:
        found = metric_of(world.ports, world.controller.recorder, "housing")
        return found.name if found else ""

    plain = MODEL.replace(LINE, "").replace("guardrails = { bad_outcome = { below = 1 } }\n", "")
    world.released(toml=plain.replace('"model"', '"app"'))
    assert measured() == ""
    world.testing(toml=MODEL.replace('"model"', '"app"'))
    assert measured() == "rating"
    world.ask("abort", SAM)
    world.settle()
    assert measured() == ""
