"""This file tests when a schedule is due: in UTC, as cron says it (3.04)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from branchline.adapters.cron import due
from branchline.errors import BadSchedule


@pytest.mark.parametrize(
    ("schedule", "after", "then"),
    [
        ("0 6 * * 1", "2026-03-04 05:00", "2026-03-09 06:00"),
        ("0 6 * * *", "2026-03-04 06:00", "2026-03-05 06:00"),
        ("*/10 * * * * *", "2026-03-04 06:00", "2026-03-04 06:00:10"),
        ("30 2 29 2 *", "2026-03-04 06:00", "2028-02-29 02:30"),
    ],
)
def test_a_schedule_is_due(schedule: str, after: str, then: str) -> None:
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp()
    assert datetime.fromtimestamp(due(schedule, moment), UTC) == datetime.fromisoformat(then).replace(tzinfo=UTC)


@pytest.mark.parametrize("schedule", ["", "soon", "0 25 * * *", "0 0 31 2 *", "1 2 3 4"])
def test_what_never_comes_is_no_schedule(schedule: str) -> None:
    with pytest.raises(BadSchedule) as told:
        due(schedule, 0)
    assert told.value.fields["schedule"] == schedule
