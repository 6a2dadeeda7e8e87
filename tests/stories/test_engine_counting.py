"""This file tests guardrails on counters that a Prometheus has: they roll back, let pass, and hold without data.

Issue 7: a Prometheus query; statistics §7: no requests for a whole wait are no pass; I15: a restart finds the same.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from branchline.core import dossier
from branchline.core.service import Phase
from branchline.engine.documenting import Dossiers
from branchline.engine.rejudging import rejudged
from branchline.errors import QueryFailed
from tests.world import APP, MODEL, SAM, World

RULE = """
[guardrails]
failed_requests = false
[guardrails.prometheus.cart]
url = "http://127.0.0.1:9090"
all = 'sum(carts_total{revision="$revision",test="$experiment"})'
bad = 'sum(lost_total{revision="$revision"})'
every = "10s"
"""
BARE = "guardrails = { bad_outcome = { below = 1 } }\n"
CANARY = APP.replace(BARE, "").replace("rollout = {", 'rollout = { canary = { duration = "200s" },') + RULE
TEST = MODEL.replace(BARE, "").replace('window = "10s"', 'window = "5s"') + RULE


class Counters:
    """What a service counts of itself, by version."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.carts = {"1.0.0": 1000.0, "1.1.0": 0.0}
        self.lost = {"1.0.0": 10.0, "1.1.0": 0.0}
        world.readings.numbers = self.read

    def read(self, query: str) -> float | None:
        """What a query gives; of who has lost none yet there is no series."""
        version = next(version for version in self.carts if f'revision="{version}"' in query)
        return self.carts[version] if query.startswith("sum(carts") else self.lost[version] or None

    def pass_by(self, carts: int, lost: tuple[int, int], looks: int = 1) -> None:
        """So many carts of each revision at each of some looks, and so many that were lost, of old and new."""
        for _ in range(looks):
            for version, bad in zip(self.carts, lost, strict=True):
                self.carts[version] += carts
                self.lost[version] += bad
            self.world.clock.advance(10)
            self.world.controller.counting.look()
            self.world.controller.judge_all()


@pytest.fixture
def counters(world: World) -> Counters:
    return Counters(world)


def canary(world: World) -> str:
    """A canary in its slice, that was asked something."""
    world.released(toml=CANARY)
    new = world.testing()
    assert world.phase(SAM) is Phase.CANARY
    world.visit([f"u{n}" for n in range(40)])
    world.settle()
    return new


def test_a_revision_that_loses_more_is_rolled_back(world: World, counters: Counters) -> None:
    new = canary(world)
    counters.pass_by(100, (1, 1), looks=2)
    assert world.phase(SAM) is Phase.CANARY
    counters.pass_by(100, (1, 12), looks=3)
    world.settle()
    assert world.phase(SAM) is not Phase.CANARY
    assert "cart" in world.last("Breached").detail["reason"]
    assert new not in world.shares()


def test_one_that_is_no_worse_passes(world: World, counters: Counters) -> None:
    new = canary(world)
    counters.pass_by(100, (10, 9), looks=15)
    world.settle()
    assert world.shares() == {new: 100}


@pytest.mark.parametrize("silence", ["no data", "no answer", "no growth"])
def test_no_data_never_pass(world: World, counters: Counters, silence: str) -> None:
    """Killer: counted as no bad ones, a Prometheus that has never heard of the service would promote anybody."""
    canary(world)
    if silence == "no data":
        world.readings.numbers = lambda query: None
    elif silence == "no answer":
        world.readings.error = QueryFailed("127.0.0.1:9090: refused", table="guardrails.prometheus")
    for _ in range(60):
        world.clock.advance(10)
        world.settle()
    assert world.phase(SAM) is Phase.CANARY
    document = world.controller.reader.measured("housing", SAM)
    assert document is not None
    assert document["verdict"]["reason"] == "holds: guardrail cart has no data"
    troubles = world.controller.reader.service("housing")["troubles"]
    told = {"no data": ["BL332: The query in [guardrails.prometheus] was not answered: guardrail cart has no data of "
                        "housing@1.0.0; until then it holds"],
            "no answer": ["BL332: The query in [guardrails.prometheus] was not answered: 127.0.0.1:9090: refused"],
            "no growth": []}  # fmt: skip
    assert troubles == told[silence]
    world.readings.error, world.readings.numbers = None, counters.read
    counters.pass_by(100, (10, 9), looks=16)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert world.controller.reader.service("housing")["troubles"] == []


def test_data_that_stay_away_hold_what_was_passed(world: World, counters: Counters) -> None:
    """Killer: with the age of the last look not asked, what degrades unseen would be let through."""
    canary(world)
    counters.pass_by(100, (1, 1), looks=2)
    world.readings.error = QueryFailed("gone", table="guardrails.prometheus")
    for _ in range(40):
        world.clock.advance(10)
        world.settle()
    assert world.phase(SAM) is Phase.CANARY


def played(world: World, counters: Counters, restart: bool) -> tuple[str, float]:
    """A canary that degrades, with a restart between each two looks or none; the verdict, and when."""
    canary(world)
    for bad in (1, 1, 0, 8, 10, 12, 12):
        counters.pass_by(100, (1, bad))
        if restart:
            world.restart()
            world.controller.judge_all()
    world.settle()
    found = world.last("Breached")
    return str(found.detail["reason"]), found.at


def test_a_restart_finds_the_same_evidence(
    world: World, counters: Counters, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Killer: with the last look in memory alone, each restart would lose what came since."""
    other = World(tmp_path_factory.mktemp("other"))
    assert played(world, counters, restart=True) == played(other, Counters(other), restart=False)


def under_test(world: World, counters: Counters, lost: int, silent: float = 0.0) -> tuple[str, str]:
    """An A/B test with outcomes that speak for the challenger, after some seconds without an answer."""
    old, new = world.released(toml=TEST), world.testing()
    counters.pass_by(100, (1, 1))
    counters.pass_by(100, (1, lost))
    world.readings.error = QueryFailed("gone", table="guardrails.prometheus") if silent else None
    world.clock.advance(silent)
    values: dict[str, Callable[[int], float]] = {old: lambda n: 4 + n % 3 - 1, new: lambda n: 6 + n % 3 - 1}
    world.play(230, values)
    return old, new


def test_an_ab_test_is_won_with_data_and_waits_without(world: World, counters: Counters) -> None:
    _, new = under_test(world, counters, lost=1, silent=31)
    world.settle()
    assert world.phase(SAM) is Phase.TESTING
    document = world.controller.reader.measured("housing", SAM)
    assert document is not None
    assert document["verdict"]["reason"] == "guardrail cart has no data"
    world.readings.error = None
    counters.pass_by(100, (1, 1), looks=2)
    world.settle()
    assert world.phase(SAM) is Phase.LIVE
    assert world.shares() == {new: 100}


def test_a_breach_goes_before_a_win_and_its_dossier_proves_it(world: World, counters: Counters) -> None:
    """What the dossier tells is enough to find the breach again, by its numbers alone; and `rejudge` finds it, too."""
    under_test(world, counters, lost=40)
    world.settle()
    assert "cart" in world.last("Breached").detail["reason"]
    document = Dossiers(world.ports, world.controller.desk).dossier(SAM)
    cart = document["measurement"]["guards"]["cart"]
    assert (cart["bad"], cart["requests"]) == ([2, 41], [200, 200])
    assert cart["looks"] == [[0, 100, 1, 100, 1], [1, 100, 1, 100, 40]]
    assert list(dossier.differences(document)) == []
    assert rejudged(world.ports, world.controller.desk, SAM, {})["same"]
    cart["buckets"] = 201
    assert any("buckets: written 201" in each for each in dossier.differences(document))
    cart["buckets"], cart["looks"][1][4] = 2, 1
    assert list(dossier.differences(document)) != []


def test_an_older_ledger_is_not_looked_at_for(world: World, counters: Counters) -> None:
    canary(world)
    world.controller.recorder.older["housing"] = world.controller.recorder.stamp(world.service())
    world.readings.asked.clear()
    counters.pass_by(1, (0, 0))
    assert world.readings.asked == []


def test_a_prometheus_that_hangs_holds_up_nobody(world: World, counters: Counters) -> None:
    canary(world)
    held: list[Callable[[], None]] = []
    world.controller.counting.fetching.spawn = held.append
    for _ in range(4):
        world.clock.advance(10)
        world.controller.counting.look()
    assert len(held) == 1
    (told,) = world.controller.reader.service("housing")["troubles"]
    late = "it was asked 30 s ago; nothing else waits for it"
    assert told == f"BL332: The query in [guardrails.prometheus] was not answered: {late}"


def test_a_dossier_of_who_never_had_data_says_what_it_waits_for(world: World, counters: Counters) -> None:
    under_test(world, counters, lost=1, silent=31)
    world.settle()
    document = Dossiers(world.ports, world.controller.desk).dossier(SAM)
    assert document["measurement"]["silent"] == "guardrail cart has no data"
    assert document["measurement"]["guards"]["cart"]["looks"] == [[0, 100, 1, 100, 1], [1, 100, 1, 100, 1]]
    assert dossier.differences(document) == []


def test_a_gateway_that_is_down_is_told_and_holds_up_no_other_service(world: World, counters: Counters) -> None:
    """Killer: the pass would fail as a whole, and no guardrail of any service be asked (I24)."""
    canary(world)
    world.router.down = True
    world.clock.advance(10)
    assert not world.controller.counting.look()
    assert any("BL506" in each for each in world.controller.troubles.values())
    world.router.down = False
    assert world.controller.counting.look()
    assert not any("BL506" in each for each in world.controller.troubles.values())


def test_a_look_without_bad_ones_is_counted_and_not_listed(world: World, counters: Counters) -> None:
    """Killer: listed, a quiet month of looks would be the larger part of a dossier."""
    under_test(world, counters, lost=1, silent=31)
    world.readings.error = None
    counters.pass_by(100, (0, 0))
    document = Dossiers(world.ports, world.controller.desk).dossier(SAM)
    cart = document["measurement"]["guards"]["cart"]
    assert (cart["buckets"], cart["requests"], len(cart["looks"])) == (3, [300, 300], 2)
    assert dossier.differences(document) == []
