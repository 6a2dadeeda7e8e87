"""This file says what every Clock does (F56)."""

from __future__ import annotations

import pytest

from branchline.adapters.clock import SystemClock
from branchline.ports import Clock
from tests.fakes.clock import FakeClock


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()], ids=["fake", "system"])
def test_time_is_unix_seconds_and_durations_only_grow(clock: Clock) -> None:
    assert clock.now() > 1_600_000_000
    first = clock.monotonic()
    assert clock.monotonic() >= first


def test_a_jump_of_the_wall_clock_is_no_duration_F56() -> None:
    clock = FakeClock(start=100)
    clock.advance(5)
    clock.jump(-86400)
    assert (clock.now(), clock.monotonic()) == (105 - 86400, 5)
    with pytest.raises(ValueError, match="only grows"):
        clock.advance(-1)
