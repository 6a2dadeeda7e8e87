"""This file tests a ledger that was put back to an older copy: it is noticed, nothing is done by it, a person decides.

Requirement 1.51; fault F54; invariants I21, I25.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from branchline.core import lifecycle as law
from branchline.core.parity import RESTORE, Drift
from branchline.engine.parity import later
from branchline.engine.recording import Onlooker
from branchline.errors import IllegalMove, LedgerOlder
from branchline.ports import Stamp
from tests.world import KIM, SAM, World


def found(world: World) -> list[Drift]:
    """What every status shows."""
    return world.controller.parity.drifts(world.ledger.services())


def sole(world: World) -> Drift:
    (one,) = found(world)
    return one


class Rewound(World):
    """A world whose ledger and catalog were put back to what they were."""

    def keep(self) -> tuple[dict[str, str], int, dict[tuple[str, str], object]]:
        return dict(self.ledger._states), self.ledger._epoch, dict(self.catalog._revisions)

    def put_back(self, kept: tuple[dict[str, str], int, dict[tuple[str, str], object]]) -> None:
        self.ledger._states, self.ledger._epoch = dict(kept[0]), kept[1]
        self.catalog._revisions = dict(kept[2])  # type: ignore[arg-type]
        self.restart()


@pytest.fixture
def rewound(tmp_path: Path) -> Rewound:
    return Rewound(tmp_path)


def test_an_older_ledger_is_named_and_nothing_is_done_by_it_F54(rewound: Rewound) -> None:
    """Killer: without the notice the old record's plan is carried out as soon as nobody fences it."""
    world, first = rewound, rewound.released()
    kept = world.keep()
    second = world.testing()
    world.record(law.Won(SAM))
    world.settle()
    assert world.shares() == {second: 100}
    world.put_back(kept)
    effects, entries = len(world.effects), len(world.ledger.entries)
    world.settle()
    one = sole(world)
    assert (one.drift, one.kind, one.repair) == ("older ledger", "ledger", RESTORE)
    assert "it knows housing up to event 4, start 2; event 9, start 1 has been acted upon" in one.what
    assert (world.effects[effects:], world.ledger.entries[entries:]) == ([], [])
    assert world.shares() == {second: 100}
    with pytest.raises(LedgerOlder):
        world.ask("freeze", "housing")
    world.push(KIM)
    world.settle()
    assert world.shares() == {second: 100}

    assert world.controller.restore("kim", "the disk is gone") == ("housing",)
    entry = world.ledger.entries[-1]
    assert (entry.event, entry.actor, entry.generation, entry.detail) == ("Restored", "kim", 10, {"generation": 4})
    world.settle()
    assert world.shares() == {first: 50, world.on(KIM).revision: 50}
    assert "older ledger" not in [each.drift for each in found(world)]
    versions = [each.version for each in world.catalog.revisions("housing")]
    assert "1.1.0" not in versions  # git has it for what is lost


def test_a_ledger_of_an_earlier_start_is_older_too(rewound: Rewound) -> None:
    """The same events, but the writers have been told of a later start: all would be fenced for ever."""
    world = rewound
    world.released()
    kept = world.keep()
    world.restart()
    world.restart()
    world.put_back(kept)
    assert "start 2; event 4, start 3 has been acted upon" in sole(world).what


def test_a_service_that_the_ledger_does_not_know_is_told_of_too(rewound: Rewound) -> None:
    world = rewound
    kept = world.keep()
    first = world.released()
    world.put_back(kept)
    assert [each["drift"] for each in world.controller.parity.document()["drifts"]] == ["older ledger"]
    world.controller.restore("kim", "")
    world.settle()
    assert first not in world.shares()
    assert world.launcher.running() == ()


def test_git_alone_can_tell_that_a_ledger_is_older(rewound: Rewound) -> None:
    """The whole state folder was put back: only the conclusions on the trunk know better."""
    world = rewound
    world.released()
    kept, tables, marks = world.keep(), dict(world.router.services), dict(world.launcher.marks)
    world.testing()
    world.record(law.Won(SAM))
    world.settle()
    world.router.services, world.launcher.marks = tables, marks
    world.put_back(kept)
    world.controller.watch()
    assert [each.drift for each in found(world)] == ["older ledger"]


def test_a_new_ledger_beside_an_old_repository_is_no_older_copy(world: World) -> None:
    world.released()
    fresh = World(world.ports.state)
    fresh.git.commits, fresh.git.heads = world.git.commits, dict(world.git.heads)
    fresh.controller.watch()
    assert fresh.controller.recorder.older == {}


def test_what_was_done_without_the_daemon_waits_while_the_ledger_is_older(rewound: Rewound) -> None:
    world = rewound
    world.released()
    kept = world.keep()
    world.testing()
    world.router.roll_back("housing", 1, actor="kim", because="now", at=1.0)
    world.put_back(kept)
    assert [each.drift for each in found(world)] == ["older ledger"]
    assert len(world.router.journal) == 1


def test_an_onlooker_takes_nothing_over(world: World) -> None:
    world.released()
    looking = Onlooker(world.ledger, "main")
    assert looking.stamp(looking.service("housing")) == Stamp(4, world.controller.recorder.epoch + 1)
    looking.notice(later(world.ports, looking))
    assert looking.older == {}
    assert world.ledger.epoch() == world.controller.recorder.epoch
    with pytest.raises(IllegalMove):
        looking.preview("housing", law.Won(SAM))
