"""This file says what every Router does: the fake and Envoy (1.27, I5, I26, F16)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from branchline.core.traffic import assigned, shares_of
from branchline.errors import Fenced, IllegalMove, NotWarm, Unserved
from branchline.ports import Endpoint, Router, Stamp
from tests.fakes.router import FakeRouter
from tests.gateways import gateway

A, B, C = "a" * 40, "b" * 40, "c" * 40
ONE, TWO = Stamp(1, 1), Stamp(2, 1)


@dataclass
class World:
    """A router, and endpoints that live or do not."""

    router: Router
    living: Callable[[str, str], Endpoint]
    dead: Callable[[str, str], Endpoint]
    roll_back: Callable[[str], object]


@pytest.fixture(params=["fake", "envoy"])
def world(request: pytest.FixtureRequest, tmp_path: Path, runtime_dir: Path) -> Iterator[World]:
    told = {"actor": "alex", "because": "it is wrong", "at": 5.0}
    if request.param == "fake":
        yield fake_world()
        return
    with gateway(tmp_path, runtime_dir) as real:
        writer = real.another(warm_seconds=5.0)

        def dead(revision: str, version: str) -> Endpoint:
            upstream = real.backyard.add(revision, version)
            upstream.die()
            return upstream.endpoint

        yield World(
            writer,
            lambda revision, version: real.backyard.add(revision, version).endpoint,
            dead,
            lambda service: writer.roll_back(service, 1, **told),  # type: ignore[arg-type]
        )


def fake_world() -> World:
    fake = FakeRouter()
    count = iter(range(1000))

    def living(revision: str, version: str) -> Endpoint:
        nonce = f"n{next(count)}"
        return Endpoint(revision, version, nonce, (f"/{nonce}.sock",))

    def dead(revision: str, version: str) -> Endpoint:
        endpoint = living(revision, version)
        fake.cold.add(endpoint.nonce)
        return endpoint

    return World(fake, living, dead, lambda s: fake.roll_back(s, 1, actor="alex", because="it is wrong", at=5.0))


def test_a_sole_arm_holds_everything_and_is_no_experiment(world: World) -> None:
    world.router.offer("housing", [world.living(A, "1.0.0")], ONE)
    world.router.shift("housing", 1, [(A, 100)], ONE)
    shown = world.router.shown("housing")[1]
    assert (shown.shares, shown.segments, shown.experiment) == (((A, 100),), ((A, 10_000),), "")
    assert world.router.shown("nobody") == {}


def test_shares_are_shown_as_buckets_that_sum_to_10000(world: World) -> None:
    world.router.offer("housing", [world.living(A, "1.0.0"), world.living(B, "1.1.0")], ONE)
    world.router.shift("housing", 1, [(A, 50), (B, 50)], ONE)
    shown = world.router.shown("housing")[1]
    assert shares_of(shown.segments) == {A: 5000, B: 5000}
    assert shown.experiment.startswith("housing-1-")


def test_the_same_again_changes_nothing(world: World) -> None:
    ends = [world.living(A, "1.0.0"), world.living(B, "1.1.0")]
    for _ in range(2):
        world.router.offer("housing", ends, ONE)
        world.router.shift("housing", 1, [(A, 90), (B, 10)], ONE)
    shown = world.router.shown("housing")[1]
    world.router.shift("housing", 1, [(A, 90), (B, 10)], TWO)
    assert world.router.shown("housing")[1] == shown


def test_a_growing_share_moves_nobody_out_and_keeps_the_salt(world: World) -> None:
    """I26: with three arms, too."""
    ends = [world.living(A, "1.0.0"), world.living(B, "1.1.0"), world.living(C, "1.2.0")]
    world.router.offer("housing", ends, ONE)
    world.router.shift("housing", 1, [(A, 80), (B, 10), (C, 10)], ONE)
    before = world.router.shown("housing")[1]
    world.router.shift("housing", 1, [(A, 60), (B, 30), (C, 10)], TWO)
    after = world.router.shown("housing")[1]
    assert after.experiment == before.experiment
    assert after.table == before.table + 1
    for unit in map(str, range(500)):
        one, other = (assigned(s.segments, unit, s.experiment) for s in (before, after))
        assert other == one or (one, other) == (A, B)


def test_each_experiment_has_a_salt_of_its_own(world: World) -> None:
    world.router.offer("housing", [world.living(A, "1.0.0"), world.living(B, "1.1.0")], ONE)
    salts = set()
    for incumbent, challenger in ((A, B), (B, A), (A, B)):
        world.router.shift("housing", 1, [(incumbent, 90), (challenger, 10)], ONE)
        salts.add(world.router.shown("housing")[1].experiment)
        world.router.shift("housing", 1, [(challenger, 100)], ONE)
    assert len(salts) == 3


def test_what_never_answered_gets_no_share(world: World) -> None:
    """I5, F65: and what was shown before stays as it was."""
    good = world.living(A, "1.0.0")
    world.router.offer("housing", [good], ONE)
    world.router.shift("housing", 1, [(A, 100)], ONE)
    with pytest.raises(NotWarm):
        world.router.offer("housing", [good, world.dead(B, "1.1.0")], ONE)
    with pytest.raises(NotWarm):
        world.router.shift("housing", 1, [(A, 90), (B, 10)], ONE)
    assert world.router.shown("housing")[1].shares == ((A, 100),)


def test_an_endpoint_with_a_share_stays(world: World) -> None:
    world.router.offer("housing", [world.living(A, "1.0.0")], ONE)
    world.router.shift("housing", 1, [(A, 100)], ONE)
    world.router.offer("housing", [], ONE)
    assert world.router.shown("housing")[1].shares == ((A, 100),)
    world.router.shift("housing", 1, [], ONE)
    world.router.offer("housing", [], ONE)
    assert world.router.shown("housing") == {}
    with pytest.raises(NotWarm):
        world.router.shift("housing", 1, [(A, 100)], ONE)


def test_a_late_step_is_refused(world: World) -> None:
    """F16: told on record, at takeover, and by the effect itself; generation first, then epoch."""
    ends = [world.living(A, "1.0.0"), world.living(B, "1.1.0")]
    world.router.tell("housing", Stamp(2, 1))
    for stale in (Stamp(1, 1), Stamp(1, 9)):
        with pytest.raises(Fenced):
            world.router.offer("housing", ends, stale)
    world.router.offer("housing", ends, Stamp(2, 1))
    world.router.shift("housing", 1, [(A, 100)], Stamp(2, 1))
    world.router.tell("housing", Stamp(2, 2))
    with pytest.raises(Fenced):
        world.router.shift("housing", 1, [(B, 100)], Stamp(2, 1))
    world.router.tell("housing", Stamp(1, 1))  # an old controller's word lowers nothing
    with pytest.raises(Fenced):
        world.router.shift("housing", 1, [(B, 100)], Stamp(2, 1))
    assert world.router.shown("housing")[1].shares == ((A, 100),)
    world.router.offer("other", [], Stamp(1, 1))


def test_what_was_done_offline_is_read_before_anything_else(world: World) -> None:
    """1.52: until the journal is read and told, the daemon's plans about that service know nothing of it."""
    ends = [world.living(A, "1.0.0"), world.living(B, "1.1.0")]
    world.router.offer("housing", ends, ONE)
    world.router.shift("housing", 1, [(A, 90), (B, 10)], ONE)
    world.roll_back("housing")
    assert world.router.shown("housing")[1].shares == ((A, 100),)
    with pytest.raises(Fenced):
        world.router.shift("housing", 1, [(A, 90), (B, 10)], ONE)
    world.router.tell("housing", ONE)  # a takeover, before anybody read the journal
    (entry,) = world.router.offline()
    assert (entry["kind"], entry["service"], entry["line"], entry["actor"]) == ("abort", "housing", 1, "alex")
    assert (entry["before"], entry["after"]) == ([[A, 90], [B, 10]], [[A, 100]])
    world.router.tell("housing", TWO)
    assert world.router.offline() == ()
    world.router.shift("housing", 1, [(B, 100)], TWO)
    world.roll_back("housing")
    assert world.router.offline()[0]["kind"] == "rollback"
    assert world.router.shown("housing")[1].shares == ((A, 100),)


def test_what_was_done_offline_is_recorded_one_after_the_other(world: World) -> None:
    """1.52: who read it may find no room to record it; until then nobody changes these routes."""
    world.router.offer("housing", [world.living(A, "1.0.0"), world.living(B, "1.1.0")], ONE)
    world.router.shift("housing", 1, [(A, 100)], ONE)
    world.router.shift("housing", 1, [(B, 100)], ONE)
    world.router.shift("housing", 1, [(B, 90), (A, 10)], ONE)
    world.roll_back("housing")
    world.roll_back("housing")
    for kind, stamp in (("abort", TWO), ("rollback", Stamp(3, 1))):
        (entry,) = world.router.offline()
        assert entry["kind"] == kind
        with pytest.raises(Fenced):
            world.router.shift("housing", 1, [(B, 100)], stamp)
        world.router.tell("housing", stamp)
    assert world.router.offline() == ()
    assert world.router.shown("housing")[1].shares == ((A, 100),)
    world.router.shift("housing", 1, [(B, 100)], Stamp(3, 1))


def test_who_was_rolled_back_is_no_way_back(world: World) -> None:
    """1.52: twice serves the sick one no second time, before the daemon knows of it and after. Killer: swap the two."""
    world.router.offer("housing", [world.living(A, "1.0.0"), world.living(B, "1.1.0")], ONE)
    world.router.shift("housing", 1, [(A, 100)], ONE)
    with pytest.raises(Unserved):
        world.roll_back("housing")
    world.router.shift("housing", 1, [(B, 100)], ONE)
    world.roll_back("housing")
    with pytest.raises(IllegalMove):
        world.roll_back("housing")
    (entry,) = world.router.offline()
    assert entry["after"] == [[A, 100]]
    world.router.tell("housing", TWO)
    assert world.router.offline() == ()
    with pytest.raises(Unserved):
        world.roll_back("housing")
    assert world.router.shown("housing")[1].shares == ((A, 100),)
    world.router.shift("housing", 1, [(B, 100)], TWO)  # by the daemon's plan it may serve again, and be left again
    world.roll_back("housing")
    assert world.router.shown("housing")[1].shares == ((A, 100),)


def test_lines_are_split_apart(world: World) -> None:
    world.router.offer("housing", [world.living(A, "1.0.0"), world.living(B, "2.0.0")], ONE)
    world.router.shift("housing", 1, [(A, 100)], ONE)
    world.router.shift("housing", 2, [(B, 100)], ONE)
    shown = world.router.shown("housing")
    assert {line: s.shares[0][0] for line, s in shown.items()} == {1: A, 2: B}
    assert shown[1].table != shown[2].table


def test_an_address_names_service_and_pin(world: World) -> None:
    assert world.router.address("housing").endswith("/housing/")
    assert world.router.address("housing", "1.1.0").endswith("/housing@1.1.0/")


def test_a_survey_says_what_is_shown_and_who_is_known(world: World) -> None:
    one = world.living(A, "1.0.0")
    world.router.offer("housing", [one], TWO)
    world.router.shift("housing", 1, [(A, 100)], TWO)
    found = world.router.survey()
    assert (found.running, found.taken, found.edited) == (True, "", ())
    assert found.routes["housing"] == world.router.shown("housing")
    assert found.known == {"housing": frozenset({one.nonce})}
    assert world.router.told() == {"housing": TWO}
    assert world.router.vacant() > 0
