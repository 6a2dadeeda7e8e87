"""This file reads schedules as cron writes them: when the next look is due. Only arithmetic, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from branchline.errors import BadSchedule


def due(schedule: str, after: float) -> float:
    """The first moment of a schedule (five fields, or six with seconds first) after a Unix second; raises BadSchedule
    for what is none, and for one that never comes.
    """
    try:
        return float(next(CronSim(schedule, datetime.fromtimestamp(after, UTC))).timestamp())
    except (CronSimError, StopIteration) as error:
        raise BadSchedule(str(error), schedule=schedule) from error
