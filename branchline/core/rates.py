"""This file reckons what was served between two looks at counters that only grow: requests, failures, percentiles.

Times are milliseconds, kept as a histogram: (lower edge, width) of a bin -> how many requests. A width of 0 is one
value. A count that is smaller than before counts as none: a rate is never negative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Bins = Mapping[tuple[float, float], int]
FAILED = "5xx"


@dataclass(frozen=True, slots=True)
class Total:
    """What became of a revision's requests since the gateway was first looked at: by class of status code (`2xx`), the
    times of their answers, and `active`: those in flight now.

    A request that nobody answered is one of `5xx`: the gateway answered in the revision's place.
    """

    codes: Mapping[str, int] = field(default_factory=dict)
    times: Bins = field(default_factory=dict)
    active: int = 0

    @property
    def requests(self) -> int:
        """How many were answered."""
        return sum(self.codes.values())


@dataclass(frozen=True, slots=True)
class Rate:
    """What a revision was asked over `seconds`; percentiles in milliseconds, None when no time is known yet."""

    seconds: float
    requests: int
    failed: int
    p50: float | None
    p95: float | None
    p99: float | None
    active: int = 0


def joined(totals: Iterable[Total]) -> Total:
    """All of them as one: of the incarnations of one revision, say."""
    codes: dict[str, int] = {}
    times: dict[tuple[float, float], int] = {}
    active = 0
    for total in totals:
        for code, count in total.codes.items():
            codes[code] = codes.get(code, 0) + count
        for place, count in total.times.items():
            times[place] = times.get(place, 0) + count
        active += total.active
    return Total(codes, times, active)


def is_less(now: Total, before: Total) -> bool:
    """Whether any count went back, so that these are not the same counters any more."""
    return any(now.codes.get(code, 0) < count for code, count in before.codes.items()) or any(
        now.times.get(place, 0) < count for place, count in before.times.items()
    )


def rate(now: Total, before: Total, seconds: float) -> Rate:
    """What was asked between two looks that lie so many seconds apart."""
    codes = {code: max(0, count - before.codes.get(code, 0)) for code, count in now.codes.items()}
    times = {place: max(0, count - before.times.get(place, 0)) for place, count in now.times.items()}
    p50, p95, p99 = (percentile(times, share) for share in (0.50, 0.95, 0.99))
    return Rate(seconds, sum(codes.values()), codes.get(FAILED, 0), p50, p95, p99, now.active)


def percentile(times: Bins, share: float) -> float | None:
    """The time within which that share of the requests was answered; None of none."""
    left = share * sum(times.values())
    found = None
    for (lower, width), count in sorted(times.items()):
        if count:
            found = lower + width * min(left / count, 1.0)
            if left <= count:
                break
            left -= count
    return found


def below(times: Bins, limit: float) -> int:
    """How many took at most so many milliseconds, as far as whole bins tell."""
    return sum(count for (lower, width), count in times.items() if lower + width <= limit)


def spent(times: Bins) -> float:
    """All milliseconds together, each request in the middle of its bin."""
    return sum((lower + width / 2) * count for (lower, width), count in times.items())
