"""This file says what the engine needs to know of live traffic: requests, exposures, outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from branchline.core.spec import Metric


@dataclass(frozen=True, slots=True)
class Served:
    """One line of the gateway's log that matters: a request of a split route.

    `assigned` and `answered` are commits (assigned: the arm's, answered: the host's; they differ when the incumbent
    stepped in). `table` is the number of the bucket table, `experiment` the salt. `bad` says 5xx, time-out or
    stepped in for.
    """

    service: str
    unit: str
    request: str
    assigned: str
    answered: str
    experiment: str
    table: int
    status: int
    flags: str
    seconds: float
    at: float
    prediction: float | None = None

    @property
    def bad(self) -> bool:
        """Whether the arm failed this request: a client that left (`DC`) is no failure."""
        return "DC" not in self.flags and (self.status >= 500 or self.status == 0 or self.answered != self.assigned)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a caller reports: by unit or by request id; `value` is the metric's value or, for kind error, the truth.

    `metric` is what it was measured by; '': by the one that is declared. `happened` is when it came to be, where that
    is known: nothing from before a unit was in the test counts, nor from after its window. `of` is what the value is a
    part of, for kind ratio; `before` what the unit was like before its first request.
    """

    service: str
    value: float
    unit: str = ""
    request: str = ""
    id: str = ""
    metric: str = ""
    happened: float | None = None
    of: float | None = None
    before: float | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a reported outcome: one of seven words, and why where it does not count.

    kept; duplicate: it was said before; conflict: another value was; late: its window or its test is over (stored,
    never counted); unknown: no request of it was in the test; unmeasured: nothing is under test, or not by this metric;
    refused: such a value the metric cannot have.
    """

    word: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """One unit's first exposure in an experiment, with its matured value (None: no outcome in its window).

    `order` is the exposure's number: a cursor. `stratum` is (segment's table number): what statistics keeps apart.
    `other` is the second number of what was reported, if any.
    """

    order: int
    unit: str
    arm: str
    stratum: int
    value: float | None
    at: float
    other: float | None = None


@dataclass(frozen=True, slots=True)
class Tally:
    """One request, as the guardrails count it: units whose first bad request was counted have left (one row each).
    `seconds` is how long it took, None where that is not known.
    """

    order: int
    arm: str
    table: int
    bad: bool
    at: float
    unit: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a test that is on record: its unit, and the commit it was meant for; `bad` says that it failed, or
    that the incumbent stepped in.
    """

    service: str
    unit: str
    request: str
    commit: str
    bad: bool
    at: float


@dataclass(frozen=True, slots=True)
class Exposed:
    """Units that an experiment exposed to an arm under one bucket table, and when the first and the last of them."""

    experiment: str
    table: int
    arm: str
    units: int
    began: float
    ended: float


class Observations(Protocol):
    """Exposures and outcomes. Times are Unix seconds of the gateway's log."""

    def position(self) -> str:
        """Where the reader of the gateway's log stands ('' at the very start)."""

    def take(self, served: Iterable[Served], position: str) -> int:
        """Keep requests and the reader's new position in one transaction (exactly once); return how many were kept."""

    def report(
        self, outcomes: Sequence[Outcome], metrics: Mapping[str, Metric], *, at: float,
        running: Mapping[str, Mapping[str, Metric]] | None = None, again: bool = False,
    ) -> tuple[Receipt, ...]:  # fmt: skip
        """Keep outcomes durably; a receipt for each.

        Idempotent by (service, id or unit/request); `metrics` has the metric of each service, `running` the experiments
        that have not ended with theirs (of a service that it leaves out, any may run). Joined by request, or by unit
        with the last experiment it was exposed in: take what the gateway has logged first. A unit's value is the mean
        of what was reported of it within its window. With `again`, who is unknown is asked about once more soon, and is
        not counted for it.
        """

    def matured(
        self, service: str, experiment: str, *, after: int, until: float, window: float, pooled: str = "mean",
        metric: str = "",
    ) -> tuple[Seen, ...]:  # fmt: skip
        """Units whose window closed by `until`, in order of exposure, after the cursor; stops at the first unit not
        matured. What is reported later of a unit that was handed out is late, whatever the clock says: nobody looks at
        it again, but who begins anew from the ledger, and must find the same. So a unit that was seen in another arm
        is left out when that was known before its window had closed, and stays in when it was not. `pooled` says what
        several reports of a unit are together: their mean, their sum, or the first (the least); `metric` names one
        that is only watched.
        """

    def requests(self, service: str, experiment: str, *, after: int) -> tuple[Tally, ...]:
        """Requests after the cursor for the guardrail: only a unit's first bad request counts, later ones of it are
        left out.
        """

    def request(self, service: str, request: str) -> Request | None:
        """The newest request with this id; None when no test of the service had one."""

    def exposed(self, service: str) -> tuple[Exposed, ...]:
        """What every experiment of a service has exposed, the oldest first; it reads all exposures."""

    def counts(self, service: str, experiment: str, *, until: float = math.inf) -> Mapping[str, Mapping[str, int]]:
        """Per arm: units, requests, bad, stepped_in, outcomes (units with one), late; see below for ''.

        Under '': `both` (units seen in more than one arm), `refused`, `conflict`, and `unknown` of the whole service.
        With `until`, units, requests, bad and both are those of that moment, counted from the rows; the rest is of now.
        """
