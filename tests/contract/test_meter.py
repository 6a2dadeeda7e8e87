"""This file says what every Meter does: the fake and Envoy's log (1.33, I10)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.adapters.envoy_meter import GatewayLog
from branchline.ports import Behind, Meter, Served
from tests.fakes.meter import FakeMeter
from tests.gateways import gateway
from tests.waiting import wait_until

A = "a" * 40


@dataclass
class World:
    """A meter, and a way to let so many units be served."""

    meter: Meter
    serve: Callable[[int, int], object]


@pytest.fixture(params=["fake", "envoy"])
def world(request: pytest.FixtureRequest, tmp_path: Path, runtime_dir: Path) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeMeter()

        def lines(start: int, count: int) -> None:
            for number in range(start, start + count):
                fake.lines.append(Served("housing", f"user-{number}", f"r{number}", A, A, "", 1, 200, "", 0.001, 5.0))

        yield World(fake, lines)
        return
    with gateway(tmp_path, runtime_dir) as real:
        real.serve((real.backyard.add(A, "1.0.0"), 100))
        yield World(GatewayLog(real.writer.envoy), lambda start, count: real.units(count, start=start))


def read_all(meter: Meter, position: str, count: int, limit: int = 5000) -> tuple[list[Served], str]:
    """Read until there are so many."""
    found: list[Served] = []

    def enough() -> bool:
        nonlocal position
        more, position = meter.read(position, limit)
        assert len(more) <= limit
        found.extend(more)
        return len(found) >= count

    assert wait_until(enough)
    return found, position


def units(found: list[Served]) -> list[str]:
    return [served.unit for served in found]


def test_every_request_is_read_once_in_order(world: World) -> None:
    world.serve(0, 20)
    first, position = read_all(world.meter, "", 20, limit=7)
    world.serve(20, 10)
    second, position = read_all(world.meter, position, 10)
    assert units(first + second) == [f"user-{n}" for n in range(30)]
    assert world.meter.read(position) == ((), position)


def test_the_same_position_reads_the_same_again(world: World) -> None:
    """A reader that was killed before it kept anything begins where it stood."""
    world.serve(0, 10)
    _, position = read_all(world.meter, "", 10)
    world.serve(10, 5)
    again, _ = read_all(world.meter, position, 5)
    assert units(read_all(world.meter, position, 5)[0]) == units(again) == [f"user-{n}" for n in range(10, 15)]


def test_a_line_says_what_was_assigned_and_what_answered(world: World) -> None:
    world.serve(0, 1)
    ((served,), _) = read_all(world.meter, "", 1)
    assert (served.service, served.assigned, served.answered, served.status) == ("housing", A, A, 200)
    assert (served.bad, served.flags) == (False, "")
    assert served.request
    assert served.seconds > 0 < served.at


def test_nothing_is_lost_while_nothing_was_killed(world: World) -> None:
    world.serve(0, 3)
    read_all(world.meter, "", 3)
    assert world.meter.loss() == 0


def test_a_request_is_found_by_its_id_as_long_as_the_log_is_there(world: World) -> None:
    """3.30: whoever was answered can ask by whom, in a test or not."""
    world.serve(0, 3)
    found, _ = read_all(world.meter, "", 3)
    assert found[1].request
    assert world.meter.find(found[1].request) == found[1]
    assert world.meter.find("no-such-request") is None


def test_it_says_how_far_behind_a_reader_is(world: World) -> None:
    """Exposures exact: whoever cannot keep up says so."""
    world.serve(0, 10)
    _, position = read_all(world.meter, "", 10)
    assert world.meter.behind(position) == Behind(0, 0, 0.0)
    world.serve(10, 5)
    assert wait_until(lambda: world.meter.behind(position).lines == 5)
    behind = world.meter.behind(position)
    assert behind.bytes > 0 < behind.seconds
    assert world.meter.behind("").lines == 15
    _, position = read_all(world.meter, position, 5)
    assert (world.meter.behind(position).lines, world.meter.dropped()) == (0, 0)
