"""This file says what every Ledger does: the fake and SQLite (1.38, I2, I15)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.core.events import BranchEvent, Built, Configured, Opened
from branchline.core.lifecycle import move
from branchline.core.records import event_to_json
from branchline.core.service import Service
from branchline.errors import Stale, UnknownService
from branchline.ports import Entry, Ledger
from tests.fakes.ledger import FakeLedger

BRANCH = "experiment--housing--alex"


@pytest.fixture(params=["fake", "sqlite"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    made: Ledger = FakeLedger() if request.param == "fake" else SqliteLedger(SqliteFile(tmp_path / "ledger.sqlite3"))
    yield made
    made.close()


def opened(name: str = "housing") -> tuple[Service, BranchEvent]:
    event = Opened(branch=f"experiment--{name}--alex", tip="a1" * 20)
    return move(Service(name), event), event


def record(ledger: Ledger, name: str = "housing", at: float = 5.5) -> Entry:
    service, event = opened(name)
    return ledger.record(service, event_to_json(event), actor="alex", because="a try", at=at)


def test_each_takeover_begins_a_larger_epoch(ledger: Ledger) -> None:
    epochs = [ledger.take_over() for _ in range(5)]
    assert epochs == sorted(set(epochs))
    assert epochs[0] >= 1


def test_a_service_is_what_was_recorded_last(ledger: Ledger) -> None:
    service, _ = opened()
    record(ledger)
    event = Built(branch=BRANCH)
    after = move(service, event)
    ledger.record(after, event_to_json(event), actor="b", because="", at=6)
    assert ledger.service("housing") == after


def test_an_unknown_service_is_said_to_be_unknown(ledger: Ledger) -> None:
    with pytest.raises(UnknownService):
        ledger.service("nobody")
    assert ledger.services() == ()
    assert ledger.history("nobody") == ()


def test_what_nobody_holds_is_ready_and_stays_so(ledger: Ledger) -> None:
    ledger.ready(0.1)
    record(ledger)
    ledger.ready(0.1)
    assert ledger.services() == ("housing",)


def test_services_are_sorted(ledger: Ledger) -> None:
    for name in ("listings", "housing", "zoo"):
        record(ledger, name)
    assert ledger.services() == ("housing", "listings", "zoo")


def test_an_entry_says_who_what_when_and_why(ledger: Ledger) -> None:
    entry = record(ledger)
    assert (entry.service, entry.generation, entry.event) == ("housing", 1, "Opened")
    assert (entry.actor, entry.because, entry.at) == ("alex", "a try", 5.5)
    assert entry.detail["branch"] == BRANCH
    assert "type" not in entry.detail
    assert len(entry.chain) == 64
    assert ledger.history("housing") == (entry,)


@pytest.mark.parametrize("generation", [0, 2, 5])
def test_a_generation_that_does_not_follow_is_stale_and_writes_nothing_I2(ledger: Ledger, generation: int) -> None:
    event = Configured(slots=2)
    with pytest.raises(Stale):
        ledger.record(Service("housing", generation=generation), event_to_json(event), actor="x", because="", at=1)
    assert ledger.services() == ()
    assert ledger.history() == ()


def test_two_writers_of_one_generation_only_one_wins_I2(ledger: Ledger) -> None:
    record(ledger)
    service, _ = opened()
    first, second = move(service, Built(branch=BRANCH)), move(service, Configured(slots=2))
    ledger.record(first, {"type": "Built", "branch": BRANCH}, actor="a", because="", at=1)
    with pytest.raises(Stale):
        ledger.record(second, event_to_json(Configured(slots=2)), actor="b", because="", at=1)
    assert ledger.service("housing") == first
    assert [entry.event for entry in ledger.history()] == ["Built", "Opened"]


def test_history_is_newest_first_and_paged(ledger: Ledger) -> None:
    for generation in range(1, 8):
        event = event_to_json(Configured(slots=generation))
        ledger.record(Service("housing", generation=generation), event, actor="a", because="", at=generation)
        ledger.record(Service("other", generation=generation), event, actor="a", because="", at=generation)
    page = ledger.history("housing", limit=3)
    assert [entry.generation for entry in page] == [7, 6, 5]
    page = ledger.history("housing", limit=3, before=page[-1].number)
    assert [entry.generation for entry in page] == [4, 3, 2]
    assert [entry.number for entry in ledger.history(limit=100)] == list(range(14, 0, -1))


def test_text_of_any_kind_survives(ledger: Ledger) -> None:
    service, event = opened()
    because = 'weil\'s "besser" ist; DROP TABLE event; -- \n\u202e\u00e9\U0001f600'
    ledger.record(service, event_to_json(event), actor="é", because=because, at=1)
    assert ledger.history()[0].because == because


@pytest.mark.parametrize("ledger", ["sqlite"], indirect=True)  # the fake is for one thread
def test_threads_may_record_at_once(ledger: Ledger) -> None:
    def write(name: str) -> None:
        for generation in range(1, 11):
            event = event_to_json(Configured(slots=generation))
            ledger.record(Service(name, generation=generation), event, actor=name, because="", at=1)
            ledger.service(name)

    threads = [threading.Thread(target=write, args=(f"service-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.history(limit=100)) == 40
    assert all(ledger.service(name).generation == 10 for name in ledger.services())


def test_an_older_copy_goes_on_beyond_what_was_told(ledger: Ledger) -> None:
    """F54: the generation jumps, the state stays, and the audit says so."""
    assert ledger.epoch() == 0
    assert ledger.take_over() == ledger.epoch()
    record(ledger)
    before = ledger.service("housing")
    entry = ledger.restore("housing", "main", 9, actor="kim", because="the disk is gone", at=7.0)
    assert (entry.event, entry.generation, entry.detail, entry.actor) == ("Restored", 9, {"generation": 1}, "kim")
    assert ledger.service("housing") == replace(before, generation=9)
    assert ledger.history("housing")[0] == entry
    with pytest.raises(Stale):
        ledger.restore("housing", "main", 9, actor="kim", because="", at=8.0)
    ledger.restore("cars", "trunk", 3, actor="kim", because="", at=8.0)
    assert ledger.service("cars") == Service("cars", default="trunk", generation=3)
