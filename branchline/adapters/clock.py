"""This file tells the time: the Clock port on this machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """The Clock port."""

    def now(self) -> float:
        """Unix seconds, for records; may jump when somebody sets the clock."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that only grow, for durations."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let that much time pass."""
        time.sleep(seconds)
