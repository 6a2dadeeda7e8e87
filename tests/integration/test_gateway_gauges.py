"""This file looks at a real gateway's counters while incarnations, arms and the gateway itself come and go (3.20)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from branchline.adapters.envoy_gauges import QUESTION, EnvoyGauges, key_of
from branchline.core.rates import Total
from branchline.ports import Key, Stamp
from tests.gateways import Gateway, gateway, nonsense
from tests.waiting import wait_until

A, B = "a" * 40, "b" * 40
FIRST, SECOND = ("housing", "1.0.0"), ("housing", "1.1.0")
TWO = Stamp(2, 1)


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


def requests(found: Mapping[Key, Total], key: Key) -> int:
    return found.get(key, Total()).requests


def test_a_request_of_a_split_counts_for_the_arm_it_was_meant_for(real: Gateway) -> None:
    """Once, though an arm is a cluster over clusters; and a pinned request counts, too."""
    first, second = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0", pins=("1.1.0",))
    real.serve((first, 50), (second, 50))
    real.units(60)
    for _ in range(5):
        real.ask("/housing@1.1.0/")
    found = EnvoyGauges(real.writer.envoy).read()
    assert (requests(found, FIRST), requests(found, SECOND)) == (first.requests, second.requests)
    assert first.requests + second.requests == 65


def test_what_nobody_answered_is_a_failure(real: Gateway) -> None:
    """5xx and no answer: the caller got 503, and it is the revision's."""
    only = real.backyard.add(A, "1.0.0")
    real.serve((only, 100))
    only.die()
    told = [real.ask("/housing/").status for _ in range(4)]
    assert set(told) == {503}
    assert EnvoyGauges(real.writer.envoy).read()[FIRST].codes["5xx"] == 4


def test_incarnations_are_summed_and_one_that_goes_takes_nothing_away(real: Gateway) -> None:
    """Killer: forget clusters that are gone, and the total goes back when a revision is started anew."""
    old = real.backyard.add(A, "1.0.0")
    real.serve((old, 100))
    gauges = EnvoyGauges(real.writer.envoy)
    real.units(7)
    assert requests(gauges.read(), FIRST) == 7
    new = real.backyard.add(A, "1.0.0")
    real.writer.offer("housing", [old.endpoint, new.endpoint], TWO)
    real.writer.shift("housing", 1, [(A, 100)], TWO)
    real.units(5)
    assert requests(gauges.read(), FIRST) == 12
    real.writer.offer("housing", [new.endpoint], TWO)
    assert wait_until(lambda: f"__{old.nonce}" not in real.writer.envoy.ask(QUESTION))
    assert requests(gauges.read(), FIRST) == 12
    real.units(3)
    assert requests(gauges.read(), FIRST) == 15


def test_one_that_goes_and_comes_back_between_two_looks_is_counted_on(real: Gateway) -> None:
    """Killer: hold what has the same name for the same counters, and what was counted before is lost."""
    holder, guest = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0", pins=("1.1.0",))
    real.serve((holder, 100), (guest, 0))
    gauges = EnvoyGauges(real.writer.envoy)
    for _ in range(7):
        real.ask("/housing@1.1.0/")
    assert requests(gauges.read(), SECOND) == 7
    real.writer.offer("housing", [holder.endpoint], TWO)
    assert wait_until(lambda: f"__{guest.nonce}" not in real.writer.envoy.ask(QUESTION))
    real.writer.offer("housing", [holder.endpoint, guest.endpoint], TWO)
    for _ in range(2):
        real.ask("/housing@1.1.0/")
    assert requests(gauges.read(), SECOND) == 9


@pytest.mark.parametrize("more", [2, 14])
def test_a_gateway_that_was_started_anew_goes_on_counting(real: Gateway, more: int) -> None:
    """Killer: take the new counters for the old ones; when they have overtaken them nothing but the start tells."""
    real.serve((real.backyard.add(A, "1.0.0"), 100))
    gauges = EnvoyGauges(real.writer.envoy)
    real.units(9)
    assert requests(gauges.read(), FIRST) == 9
    real.writer.stop()
    assert requests(gauges.read(), FIRST) == 9
    real.writer.ensure()
    real.settled()
    real.units(more)
    assert requests(gauges.read(), FIRST) == 9 + more
    assert requests(gauges.read(), FIRST) == 9 + more


def test_the_gateway_tells_what_it_refused(real: Gateway) -> None:
    """F63, F64: a document that it did not take."""
    real.serve((real.backyard.add(A, "1.0.0"), 100))
    gauges = EnvoyGauges(real.writer.envoy)
    gauges.read()
    assert gauges.gateway()["rejected rds"] == 0
    fresh = real.folder / "rds.pb.spoilt"
    fresh.write_bytes(nonsense())
    fresh.replace(real.folder / "rds.pb")

    def refused() -> bool:
        gauges.read()
        return gauges.gateway()["rejected rds"] > 0

    assert wait_until(refused)
    real.units(3)
    gauges.read()
    assert gauges.gateway()["2xx"] == 3
    assert gauges.gateway()["memory"] > 1 << 20


def test_before_there_is_a_gateway_nothing_is_counted(real: Gateway) -> None:
    gauges = EnvoyGauges(real.writer.envoy)
    assert gauges.read() == {}
    assert set(gauges.gateway().values()) == {0}


@pytest.mark.parametrize(
    ("cluster", "key"),
    [
        ("housing__1_0_0__n001", ("housing", "1.0.0")),
        ("a-b-2__12_0_3__arm-0f3e", ("a-b-2", "12.0.3")),
    ],
)
def test_a_cluster_is_named_after_service_and_version(cluster: str, key: Key) -> None:
    assert key_of(cluster) == key
