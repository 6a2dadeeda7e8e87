"""This file tests that nothing is planned before all who could act on an older plan have been told.

Requirements: 3.02 (who did what); I15 (event and state are one), I21 (a stale controller changes nothing), F52, F55.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.engine.recording import Recorder
from branchline.errors import DiskFull, IllegalMove, Stale
from branchline.ports import Stamp
from tests.fakes.clock import FakeClock
from tests.fakes.ledger import FakeLedger

ALEX = "experiment--housing--alex"


class Told:
    """A resource that remembers what it was told, and what was recorded when it was."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.ledger = ledger
        self.stamps: list[tuple[str, Stamp, int]] = []

    def tell(self, service: str, stamp: Stamp) -> None:
        self.stamps.append((service, stamp, len(self.ledger.entries)))


def recorder(ledger: FakeLedger, *resources: Told, changed: Callable[[str], None] = lambda name: None) -> Recorder:
    return Recorder(ledger, resources, FakeClock(), "main", changed)


def test_every_resource_is_told_what_was_just_recorded_before_anybody_plans_I21() -> None:
    ledger = FakeLedger()
    first, second = Told(ledger), Told(ledger)
    woken: list[int] = []
    one = recorder(ledger, first, second, changed=lambda name: woken.append(len(first.stamps) + len(second.stamps)))
    after = one.record("housing", law.Opened(ALEX, tip="a"), actor="alex", because="seen in git")
    assert first.stamps == second.stamps == [("housing", Stamp(1, 1), 1)]
    assert one.stamp(after) == Stamp(1, 1)
    assert woken == [2]  # whoever plans is woken last


def test_taking_over_tells_everybody_too_I21() -> None:
    ledger = FakeLedger()
    recorder(ledger).record("housing", law.Opened(ALEX, tip="a"))
    told = Told(ledger)
    assert recorder(ledger, told).epoch == 2
    assert told.stamps == [("housing", Stamp(1, 2), 1)]


def test_what_the_law_refuses_is_neither_recorded_nor_told() -> None:
    ledger = FakeLedger()
    told = Told(ledger)
    with pytest.raises(IllegalMove):
        recorder(ledger, told).record("housing", law.Thawed())
    assert (ledger.entries, told.stamps) == ([], [])


def test_what_cannot_be_written_is_not_told_F55() -> None:
    ledger = FakeLedger()
    told = Told(ledger)
    one = recorder(ledger, told)
    ledger.full = True
    with pytest.raises(DiskFull):
        one.record("housing", law.Opened(ALEX, tip="a"))
    assert told.stamps == []


def test_two_controllers_do_not_record_over_one_another_F52() -> None:
    ledger = FakeLedger()
    old, new = recorder(ledger), recorder(ledger)
    new.record("housing", law.Opened(ALEX, tip="a"))
    record = ledger.record
    ledger.record = lambda after, *a, **k: record(law.Service("housing", generation=1), *a, **k)  # type: ignore[method-assign]
    with pytest.raises(Stale):
        old.record("housing", law.Withdrew(ALEX))


def test_a_condition_is_asked_of_the_state_the_event_would_meet() -> None:
    ledger = FakeLedger()
    one = recorder(ledger)
    one.record("housing", law.Opened(ALEX, tip="a"))
    met: list[Phase] = []

    def never(service: law.Service) -> bool:
        met.append(service.on(ALEX).phase)
        return False

    with pytest.raises(IllegalMove) as caught:
        one.record("housing", law.Built(ALEX), only_if=never)
    assert caught.value.cause == "it was about a state that has been left"
    assert met == [Phase.BUILDING]
    assert len(ledger.entries) == 1


def test_a_preview_records_nothing() -> None:
    ledger = FakeLedger()
    one = recorder(ledger)
    one.record("housing", law.Opened(ALEX, tip="a"))
    before, after = one.preview("housing", law.Built(ALEX))
    assert (before.on(ALEX).phase, after.on(ALEX).phase) == (Phase.BUILDING, Phase.EVALUATING)
    assert len(ledger.entries) == 1
    assert one.service("nobody") == law.Service("nobody", default="main")


def test_the_audit_says_who_and_why_3_02() -> None:
    ledger = FakeLedger()
    recorder(ledger).record("housing", law.Opened(ALEX, tip="a"), actor="alex", because="a better idea")
    entry = ledger.entries[0]
    assert (entry.event, entry.actor, entry.because, entry.generation) == ("Opened", "alex", "a better idea", 1)
    assert entry.detail["tip"] == "a"
