"""This file says what the engine needs of counters that others keep: to read them, and to keep what was read."""

from __future__ import annotations

from typing import Protocol

from branchline.core.counters import Look


class Readings(Protocol):
    """Numbers of somebody else's Prometheus."""

    def read(self, url: str, query: str, at: float) -> float | None:
        """What a query gives at a moment (Unix seconds); None where there are no data. It blocks for at most 20 s.

        Raises QueryRefused for what has to be changed by a person, QueryFailed for what may pass.
        """


class Looks(Protocol):
    """What was read, kept durably, so that whoever judges again finds the same."""

    def keep(self, service: str, experiment: str, arms: tuple[str, str], look: Look) -> None:
        """Keep a look at the counters of incumbent and challenger (their commits); its order is given anew."""

    def since(self, service: str, experiment: str, arms: tuple[str, str], after: int) -> tuple[Look, ...]:
        """The looks at two arms of an experiment after a cursor, the oldest first."""
