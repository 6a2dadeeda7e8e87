"""This file fakes the Meter port: a list of requests, and a position that is a place in it."""

from __future__ import annotations

from branchline.ports import Served


class FakeMeter:
    """The Meter port; a test appends to `lines`."""

    def __init__(self) -> None:
        self.lines: list[Served] = []
        self.lost = 0

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests."""
        start = int(position or 0)
        found = tuple(self.lines[start : start + limit])
        return found, str(start + len(found))

    def loss(self) -> int:
        """What the test says."""
        return self.lost
