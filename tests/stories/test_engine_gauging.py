"""This file tests how it is said what revisions were asked of late, and how their processes are (3.20)."""

from __future__ import annotations

from typing import Any

from branchline.core.rates import Total
from branchline.engine.gauging import EVERY, WATCHED, WINDOW
from branchline.ports import Vital
from tests.world import World


def look(world: World, seconds: float = EVERY) -> None:
    """Let time pass, and look."""
    world.clock.advance(seconds)
    world.controller.reader.gauging.totals()  # somebody watches
    assert world.controller.reader.gauging.look() is True


def row(world: World, version: str = "1.0.0") -> dict[str, Any]:
    rows = world.controller.reader.status("housing")["services"][0]["rows"]
    return next(each for each in rows if each["version"] == version)


def test_before_two_looks_nobody_knows_a_rate(world: World) -> None:
    world.released()
    assert world.controller.reader.gauging.totals() == {}
    assert (row(world)["rates"], row(world)["processes"]) == (None, None)
    world.gauges.served("housing", "1.0.0", count=50)
    look(world)
    assert row(world)["rates"] is None
    assert world.controller.reader.gauging.totals()["housing", "1.0.0"].requests == 50


def test_each_revision_has_its_own_rate(world: World) -> None:
    world.released()
    world.testing()
    look(world)
    world.gauges.served("housing", "1.0.0", count=99, milliseconds=2.0)
    world.gauges.served("housing", "1.0.0", 503, milliseconds=80.04)
    world.gauges.served("housing", "1.1.0", 404, count=4)
    look(world)
    assert row(world)["rates"] == {
        "seconds": 2.0, "requests": 100, "failed": 1, "per_second": 50.0, "failed_percent": 1.0,
        "p50_ms": 2.0, "p95_ms": 2.0, "p99_ms": 2.0, "active": 0,
    }  # fmt: skip
    other = row(world, "1.1.0")["rates"]
    assert (other["requests"], other["failed"], other["failed_percent"]) == (4, 0, 0.0)


def test_nothing_asked_is_told_without_numbers(world: World) -> None:
    world.released()
    look(world)
    look(world)
    found = row(world)["rates"]
    assert (found["requests"], found["per_second"], found["failed_percent"], found["p99_ms"]) == (0, 0.0, None, None)


def test_what_was_not_built_yet_has_no_rate(world: World) -> None:
    world.released()
    look(world)
    look(world)
    assert world.controller.reader.gauging.document("housing", "") == {"rates": None, "processes": None}


def test_a_rate_is_over_the_last_seconds_alone(world: World) -> None:
    """Killer: reckon from the first look, and an hour's calm hides a minute of failures."""
    world.released()
    look(world)
    world.gauges.served("housing", "1.0.0", count=1000)
    for _ in range(int(WINDOW / EVERY) + 1):
        look(world)
    assert (row(world)["rates"]["seconds"], row(world)["rates"]["requests"]) == (WINDOW, 0)


def test_a_look_is_not_made_before_its_time(world: World) -> None:
    """Whoever rings the bell: the gateway is asked every two seconds at most."""
    look(world)
    world.gauges.served("housing", "1.0.0")
    look(world, EVERY / 2)
    assert world.controller.reader.gauging.totals() == {}
    look(world, EVERY / 2)
    assert len(world.controller.reader.gauging.totals()) == 1


def test_while_nobody_watches_a_look_is_made_every_ten_seconds(world: World) -> None:
    """A daemon with nothing to do sleeps; who asks then is told of the last ten seconds that were looked at."""
    gauging = world.controller.reader.gauging
    times: list[float] = []
    world.gauges.meanwhile = lambda: times.append(world.clock.monotonic())
    gauging.totals()
    for _ in range(100):
        world.clock.advance(1.0)
        assert gauging.look() is (world.clock.monotonic() < WATCHED)
    assert times[:15] == [1 + 2 * each for each in range(15)]
    assert times[15:] == [39, 49, 59, 69, 79, 89, 99]
    world.gauges.served("housing", "1.0.0", count=30)
    world.clock.advance(9.0)
    gauging.look()
    rate = gauging.rate(("housing", "1.0.0"))
    assert rate is not None
    assert (rate.seconds, rate.requests) == (10.0, 30)


def test_a_look_that_takes_long_is_made_more_seldom(world: World) -> None:
    """Its time is the gateway's: a twentieth of it at most."""
    world.gauges.meanwhile = lambda: world.clock.advance(1.0)
    look(world)
    world.gauges.served("housing", "1.0.0")
    look(world, 19.0)
    assert world.controller.reader.gauging.totals() == {}
    look(world, 1.0)
    assert len(world.controller.reader.gauging.totals()) == 1


def test_what_was_seen_long_ago_is_not_told_as_of_now(world: World) -> None:
    world.released()
    look(world)
    look(world)
    world.clock.advance(EVERY + 2 * WINDOW)
    assert row(world)["rates"] is not None
    world.clock.advance(1.0)
    assert row(world)["rates"] is None


def test_warnings_exceptions_and_threads_stand_beside_3_20(world: World) -> None:
    world.released()
    world.vitals.vitals["housing", "1.0.0"] = Vital(threads=12, warnings=3, exceptions=1)
    look(world)
    assert row(world)["processes"] == {"threads": 12, "warnings": 3, "exceptions": 1}


def test_what_is_in_flight_is_told(world: World) -> None:
    world.released()
    look(world)
    world.gauges.totals["housing", "1.0.0"] = Total({"2xx": 1}, {}, 7)
    look(world)
    assert row(world)["rates"]["active"] == 7
