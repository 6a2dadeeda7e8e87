"""This file says which requests are slow: those above a limit, or above a quantile of the incumbent's that is frozen.

Rules. The incumbent's first requests of the measurement fix the quantile, enough that 25 of them lie above it, and none
of that time counts, of either arm: what is measured against it comes later, so the limit cannot follow what it judges.
Only a unit's first slow request counts, and afterwards none of its requests. Both arms are held against the same limit:
what makes everything slow, the machine or the hour, is nobody's fault.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ABOVE = 25  # of the incumbent's requests that fix a quantile


@dataclass(slots=True)
class Slowness:
    """What is slow: above `limit` seconds, or above a quantile that becomes the limit when enough is known."""

    quantile: float = 0.0
    limit: float | None = None
    known: list[float] = field(default_factory=list)
    struck: set[str] = field(default_factory=set)

    @property
    def needed(self) -> int:
        """How many of the incumbent's requests fix the quantile."""
        return math.ceil(ABOVE / (1 - self.quantile))

    def take(self, unit: str, seconds: float, *, mine: bool) -> bool | None:
        """Take one request of the challenger (`mine`) or the incumbent; whether it is slow, None when it counts not."""
        if self.limit is None:
            if not mine:
                self.known.append(seconds)
            if len(self.known) >= self.needed:
                self.limit = sorted(self.known)[math.ceil(self.quantile * len(self.known)) - 1]
                self.known.clear()
            return None
        if unit in self.struck:
            return None
        if seconds > self.limit:
            self.struck.add(unit)
            return True
        return False
