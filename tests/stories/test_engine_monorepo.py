"""This file tests many services in one tree: who changed is built, and paths that two of them declare.

A shared path belongs to each service that declares it. Whoever concludes first brings it to the trunk; the other one
goes on serving what it was judged with, is told so with the command that releases it anew, and undoes nothing.
Requirements 1.30, 1.31; fault F33.
"""

from __future__ import annotations

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from tests.world import APP, World

SERVICES = 50
SHARED = "lib/prices.py"
SHARING = f'shared = ["{SHARED}"]\n{APP}'
SAM, KIM = "experiment--housing--sam", "experiment--listings--kim"
FIX = "fix--listings--anew"


@pytest.fixture
def both(world: World) -> World:
    """Two services that share a file, and a conclusion of one of them that changed it."""
    world.git.write("main", {SHARED: "1\n", "README.md": "all of us\n"})
    for name in ("housing", "listings"):
        world.push(f"experiment--{name}--first", SHARING)
        world.settle()
    world.push(SAM)
    world.git.write(SAM, {SHARED: "2\n"})
    world.settle()
    return world


def won(world: World, branch: str) -> None:
    world.record(law.Won(branch), branch.split("--")[1])
    world.settle()


def text(world: World, path: str = SHARED) -> str:
    """A file on the trunk."""
    return (world.git.read(world.git.tip("main"), path) or b"").decode()


def test_of_fifty_services_only_the_one_that_changed_is_built_1_30(world: World) -> None:
    names = [f"service-{n:02}" for n in range(SERVICES)]
    for name in names:
        world.push(f"experiment--{name}--first", APP)
    world.settle()
    assert all(world.service(name).line(1).incumbent for name in names)
    tasks, entries, merges = len(world.runner.tasks), len(world.ledger.entries), len(world.merges())
    one = "experiment--service-07--kim"
    world.push(one)
    world.settle()
    won(world, one)
    assert {entry.service for entry in world.ledger.entries[entries:]} == {"service-07"}
    assert all("/service-07/" in str(task.cwd) for task in world.runner.tasks[tasks:])
    assert (world.phase(one), len(world.merges())) == (Phase.LIVE, merges + 1)
    assert world.parity()


def test_a_shared_path_that_one_service_changed_is_named_for_the_other_F33(both: World) -> None:
    """Killer: without knowing whose change it is, the trunk would be foreign, and its repair would undo the other."""
    before = both.service("listings").line(1).incumbent
    won(both, SAM)
    assert (both.phase(SAM), text(both)) == (Phase.LIVE, "2\n")
    (drift,) = both.controller.parity.drifts(["housing", "listings"])
    assert (drift.service, drift.drift) == ("listings", "shared path moved")
    assert drift.what == f"main has {SHARED} as housing changed it; listings serves it as before"
    assert drift.repair == "branchline fix listings && branchline deploy"
    assert (both.shares("listings"), both.troubles()) == ({before: 100}, [])


def test_its_fix_is_what_the_trunk_has_already_and_undoes_nothing(both: World) -> None:
    """Killer: the trunk shows the fix's very tree, which nobody has judged yet; it is not put back."""
    won(both, SAM)
    both.git.reset(FIX, both.git.tip("main"))  # `branchline fix listings && branchline deploy`
    both.settle()
    assert (both.phase(FIX), text(both)) == (Phase.CANARY, "2\n")
    won(both, FIX)
    assert (both.phase(FIX), text(both), both.git.tip(FIX)) == (Phase.LIVE, "2\n", "")
    assert both.parity()


def test_a_fix_with_more_in_it_is_merged_over_what_it_was_begun_at(both: World) -> None:
    won(both, SAM)
    both.push(FIX)
    both.settle()
    won(both, FIX)
    assert (both.phase(FIX), text(both)) == (Phase.LIVE, "2\n")
    assert both.parity()


def test_who_was_judged_with_the_other_version_waits_by_the_name_of_foreign(both: World) -> None:
    """Merged as judged it would bring the shared file back to what it was before, for everybody."""
    both.push(KIM)
    both.settle()
    won(both, SAM)
    won(both, KIM)
    assert (both.phase(KIM), both.on(KIM).trouble, text(both)) == (Phase.CONCLUDING, "foreign", "2\n")
    assert any(told.startswith("BL206") for told in both.troubles())
    both.ask("abort", KIM)
    both.git.write("work", {}, start=both.git.tip("main"))
    both.git.reset(KIM, both.git.tip("work"))  # as `branchline sync` leaves it: with what the trunk has
    both.push(KIM)
    both.settle()
    won(both, KIM)
    assert (both.phase(KIM), text(both)) == (Phase.LIVE, "2\n")
    assert both.parity()


def test_a_rollback_of_who_changed_it_gives_it_back(both: World) -> None:
    won(both, SAM)
    both.ask("rollback", "housing")
    both.settle()
    assert text(both) == "1\n"
    assert both.parity()


def test_a_hand_in_a_shared_path_is_foreign_to_both_F33(both: World) -> None:
    both.git.write("main", {SHARED: "by hand\n"})
    both.settle()
    assert [drift.drift for drift in both.controller.parity.drifts(["housing", "listings"])] == [
        "trunk is not the incumbent"
    ] * 2
