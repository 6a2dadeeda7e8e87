"""This file fakes the Clock port: time stands still until a test moves it."""

from __future__ import annotations


class FakeClock:
    """A clock that a test advances."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.wall = start
        self.grown = 0.0

    def now(self) -> float:
        """Unix seconds, as set."""
        return self.wall

    def monotonic(self) -> float:
        """Seconds that only grow."""
        return self.grown

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("time only grows")
        self.wall += seconds
        self.grown += seconds

    def wait(self, seconds: float) -> None:
        """Let that much time pass at once."""
        self.advance(seconds)

    def jump(self, seconds: float) -> None:
        """Set the wall clock, as NTP or a person does; durations do not notice (F56)."""
        self.wall += seconds
