"""This file fakes the Gauges and Vitals ports: what a test says was counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from branchline.core.rates import Total
from branchline.ports import Key, Vital


class FakeGauges:
    """The Gauges port; a test says what was `served`."""

    def __init__(self) -> None:
        self.totals: dict[Key, Total] = {}
        self.counted: dict[str, int] = {}
        self.meanwhile: Callable[[], None] = lambda: None  # what passes while it is read

    def served(self, service: str, version: str, code: int = 200, *, milliseconds: float = 1, count: int = 1) -> None:
        """Count requests that were answered so."""
        before = self.totals.get((service, version), Total())
        word, place = f"{code // 100}xx", (milliseconds, 0.0)
        codes = {**before.codes, word: before.codes.get(word, 0) + count}
        times = {**before.times, place: before.times.get(place, 0) + count}
        self.totals[service, version] = Total(codes, times, before.active)

    def read(self) -> Mapping[Key, Total]:
        """The totals as they are."""
        self.meanwhile()
        return dict(self.totals)

    def gateway(self) -> Mapping[str, int]:
        """What the test says."""
        return self.counted


class FakeVitals:
    """The Vitals port; a test fills `vitals`."""

    def __init__(self) -> None:
        self.vitals: dict[Key, Vital] = {}

    def read(self) -> Mapping[Key, Vital]:
        """What the test says."""
        return dict(self.vitals)
