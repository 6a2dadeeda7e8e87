"""This file looks at what serves again and again, and says how it went over the last seconds.

Whoever asks is told the same: a look is made every two seconds while anybody watches, else every ten, and reckoned
against the one that lies about ten seconds back, since the gateway tells the times of its answers every five. Looking
costs the gateway time, so it is done more seldom where it takes long.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from branchline.core.rates import Rate, Total, rate
from branchline.ports import Key, Ports, Vital

EVERY = 2.0  # seconds between two looks
WATCHED = 30.0  # seconds that somebody who asked is taken for somebody who watches
WINDOW = 10.0  # seconds that a rate is over
COST = 20  # a look that took a second is followed by so many seconds without

Document = dict[str, Any]


@dataclass(slots=True)
class Gauging:
    """The looks of one controller."""

    ports: Ports
    vitals: Mapping[Key, Vital] = field(default_factory=dict)
    _looks: deque[tuple[float, Mapping[Key, Total]]] = field(default_factory=deque)
    _next: float = 0.0
    _asked: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> bool:
        """Look, unless it is too early; says whether somebody watches, so that the next look should not wait."""
        clock = self.ports.clock
        begun = clock.monotonic()
        watched = begun - self._asked < WATCHED
        if begun < self._next + (0.0 if watched else WINDOW - EVERY):
            return watched
        totals, self.vitals = self.ports.gauges.read(), self.ports.vitals.read()
        ended = clock.monotonic()
        self._next = max(begun + EVERY, ended + COST * (ended - begun))
        with self._lock:
            self._looks.append((ended, totals))
            while len(self._looks) > 2 and self._looks[1][0] <= ended - WINDOW:
                self._looks.popleft()
        return watched

    def totals(self) -> Mapping[Key, Total]:
        """What the last look found."""
        self._asked = self.ports.clock.monotonic()
        with self._lock:
            return self._looks[-1][1] if self._looks else {}

    def rate(self, key: Key) -> Rate | None:
        """What a revision was asked of late; None before there are two looks, or when the last is too long ago."""
        self._asked = at = self.ports.clock.monotonic()
        with self._lock:
            if len(self._looks) < 2 or at > self._next + 2 * WINDOW:
                return None
            (first, before), (last, now) = self._looks[0], self._looks[-1]
        return rate(now.get(key, Total()), before.get(key, Total()), last - first)

    def document(self, service: str, version: str) -> Document:
        """What `status` shows of a revision beside its share: `rates`, and `processes` where it ever had any."""
        found = self.rate((service, version)) if version else None  # what was not built yet cannot be asked
        vital = self.vitals.get((service, version))
        return {
            "rates": rate_document(found) if found is not None else None,
            "processes": vital_document(vital) if vital is not None else None,
        }


def rate_document(found: Rate) -> Document:
    """A rate in numbers: a percentile is None where nothing was asked."""
    return {
        "seconds": round(found.seconds, 1),
        "requests": found.requests,
        "failed": found.failed,
        "per_second": round(found.requests / found.seconds, 2),
        "failed_percent": round(100 * found.failed / found.requests, 2) if found.requests else None,
        **{f"{name}_ms": told(getattr(found, name)) for name in ("p50", "p95", "p99")},
        "active": found.active,
    }


def told(milliseconds: float | None) -> float | None:
    """A time with as many digits as its histogram has."""
    return None if milliseconds is None else round(milliseconds, 1)


def vital_document(vital: Vital) -> Document:
    """How a revision's processes are."""
    return {"threads": vital.threads, "warnings": vital.warnings, "exceptions": vital.exceptions}
