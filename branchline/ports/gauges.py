"""This file says what can be looked at while revisions serve: counters of the gateway, and of their processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from branchline.core.rates import Total

Key = tuple[str, str]  # service and version


@dataclass(frozen=True, slots=True)
class Vital:
    """How the processes of a revision are: `threads` now; `warnings` and `exceptions` (tracebacks) that all of its
    incarnations have printed.
    """

    threads: int = 0
    warnings: int = 0
    exceptions: int = 0


class Gauges(Protocol):
    """What the gateway has counted; read-only."""

    def read(self) -> Mapping[Key, Total]:
        """The totals of each revision, over all of its incarnations; as long as this reader lives no count goes back,
        though an incarnation goes or the gateway is started anew. While the gateway is down: what was known last.
        """

    def gateway(self) -> Mapping[str, int]:
        """What the gateway itself had counted when it was read last: documents that it refused (`rejected cds`, `lds`,
        `rds`), `connections` and `memory` (bytes) now, its answers by class of status code.
        """


class Vitals(Protocol):
    """What can be seen of processes from outside; read-only."""

    def read(self) -> Mapping[Key, Vital]:
        """How the processes of each revision are. A line is counted once, across rotations and restarts of the reader;
        while this reader lives no count goes back, though the folder of an incarnation is cleared away.
        """
