"""This file says what every Gauges does: the fake and Envoy's statistics (3.20)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.adapters.envoy_gauges import EnvoyGauges
from branchline.core.rates import Total, percentile
from branchline.ports import Gauges, Key
from tests.fakes.gauges import FakeGauges
from tests.gateways import Gateway, gateway
from tests.upstreams import Upstream
from tests.waiting import wait_until

COMMITS = {"1.0.0": "a" * 40, "1.1.0": "b" * 40}


@dataclass
class World:
    """Gauges, and a way to let a version answer so many requests with a status, so slowly."""

    gauges: Gauges
    serve: Callable[[str, int, int, float], None]


class Served:
    """A real gateway with two revisions; each request is pinned, so that it is known whom it is for."""

    def __init__(self, real: Gateway) -> None:
        self.real, self.units = real, itertools.count()
        self.upstreams: dict[str, Upstream] = {
            version: real.backyard.add(commit, version, pins=(version,)) for version, commit in COMMITS.items()
        }
        real.serve(*((upstream, 50) for upstream in self.upstreams.values()))

    def serve(self, version: str, count: int, status: int, milliseconds: float) -> None:
        upstream = self.upstreams[version]
        upstream.status, upstream.delay = status, milliseconds / 1000
        for _ in range(count):
            assert self.real.ask(f"/housing@{version}/").status == status


@pytest.fixture(params=["fake", "envoy"])
def world(request: pytest.FixtureRequest, tmp_path: Path, runtime_dir: Path) -> Iterator[World]:
    if request.param == "fake":
        fake = FakeGauges()

        def serve(version: str, count: int, status: int, milliseconds: float) -> None:
            fake.served("housing", version, status, milliseconds=milliseconds, count=count)

        yield World(fake, serve)
        return
    with gateway(tmp_path, runtime_dir) as real:
        yield World(EnvoyGauges(real.writer.envoy), Served(real).serve)


def codes(found: Mapping[Key, Total], version: str) -> dict[str, int]:
    total = found.get(("housing", version), Total())
    return {code: count for code, count in total.codes.items() if count}


def test_requests_are_counted_exactly_by_revision_and_class(world: World) -> None:
    world.serve("1.0.0", 5, 200, 0)
    world.serve("1.1.0", 3, 200, 0)
    world.serve("1.1.0", 2, 404, 0)
    world.serve("1.1.0", 4, 500, 0)
    assert wait_until(lambda: not world.gauges.read()["housing", "1.1.0"].active)  # answered, and let go of
    found = world.gauges.read()
    assert codes(found, "1.0.0") == {"2xx": 5}
    assert codes(found, "1.1.0") == {"2xx": 3, "4xx": 2, "5xx": 4}
    assert (found["housing", "1.1.0"].requests, found["housing", "1.1.0"].active) == (9, 0)


def test_looking_again_counts_nothing_twice(world: World) -> None:
    world.serve("1.0.0", 2, 200, 0)
    assert codes(world.gauges.read(), "1.0.0") == codes(world.gauges.read(), "1.0.0") == {"2xx": 2}
    world.serve("1.0.0", 1, 200, 0)
    assert codes(world.gauges.read(), "1.0.0") == {"2xx": 3}


def test_who_was_never_asked_has_no_count(world: World) -> None:
    world.serve("1.0.0", 1, 200, 0)
    assert codes(world.gauges.read(), "1.1.0") == {}


def test_a_slow_answer_shows_in_the_last_percentile_alone(world: World) -> None:
    world.serve("1.0.0", 40, 200, 1)
    world.serve("1.0.0", 2, 200, 2000)

    def told() -> bool:
        return sum(world.gauges.read()["housing", "1.0.0"].times.values()) == 42

    assert wait_until(told)  # Envoy brings the times of its threads together every five seconds
    times = world.gauges.read()["housing", "1.0.0"].times
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    assert p50 is not None
    assert p99 is not None
    assert p50 < 1000 < 1950 < p99 < 20_000
