"""This file fakes the Lookout port: a test says where something was written."""

from __future__ import annotations

from collections.abc import Collection


class FakeLookout:
    """The Lookout port; `wrote` is what happens beside it."""

    def __init__(self) -> None:
        self.places: frozenset[str] = frozenset()
        self.written: set[str] = set()

    def wrote(self, place: str) -> None:
        """Something was written at a place."""
        self.written.add(place)

    def watch(self, places: Collection[str]) -> None:
        """Hear of these."""
        self.written |= frozenset(places) - self.places
        self.places = frozenset(places)

    def heard(self) -> frozenset[str]:
        """What was written since."""
        heard, self.written = self.written, set()
        return frozenset(heard & self.places)

    def close(self) -> None:
        """Watch nothing."""
        self.places = frozenset()
