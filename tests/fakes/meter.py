"""This file fakes the Meter port: a list of requests, and a position that is a place in it."""

from __future__ import annotations

from branchline.ports import Behind, Served


class FakeMeter:
    """The Meter port; a test appends to `lines`."""

    def __init__(self) -> None:
        self.lines: list[Served] = []
        self.lost = 0
        self.failed = 0
        self.waits = 1.0

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests."""
        start = int(position or 0)
        found = tuple(self.lines[start : start + limit])
        return found, str(start + len(found))

    def find(self, request: str) -> Served | None:
        """The newest request with this id."""
        return next((line for line in reversed(self.lines) if line.request == request), None)

    def loss(self) -> int:
        """What the test says."""
        return self.lost

    def behind(self, position: str) -> Behind:
        """What was not read; a line has a hundred bytes and waits for as long as the test says."""
        rest = len(self.lines) - int(position or 0)
        return Behind(rest, 100 * rest, self.waits * bool(rest))

    def dropped(self) -> int:
        """What the test says."""
        return self.failed
