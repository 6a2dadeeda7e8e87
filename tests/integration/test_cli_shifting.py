"""This file tests that who follows a branch is told of its traffic: what the gateway shows is noted a moment later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.cli import follow
from branchline.cli.transport import Client
from branchline.core.events import Won
from tests.places import Place
from tests.world import SAM


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.answering():
        yield made


class Late(Client):
    """A client of a daemon that notes a shift as late as it can: when somebody waits for its notes."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.settings.socket)
        self.progress = place.world.controller.progress

    def get(self, path: str, seconds: float = 60.0, **query: str | int | float) -> dict[str, object]:
        if path == "/v1/progress" and query.get("wait"):
            self.progress.note("housing", SAM, "ok", "traffic", "1.0.0 50%, 1.1.0 50%")
        return super().get(path, seconds, **query)


def test_a_name_that_was_used_before_tells_nothing_of_who_has_it_now(place: Place) -> None:
    """Killer: the newest thing that happened to the name, whichever commit it was, and a winner was "absorbed"."""
    place.world.released()
    won = place.world.testing()
    place.world.record(Won(SAM))
    place.world.settle()
    client, rows = Client(place.settings.socket), list[dict[str, object]]()
    found = follow.ended(client, rows, "housing", SAM, won)
    assert (found and found.code, follow.ended(client, rows, "housing", SAM, "0" * 40)) == (0, None)


def test_who_deploys_is_told_of_the_traffic_though_it_is_noted_late(place: Place) -> None:
    """Killer: wait for no note once the branch is seen to rest, and nothing is told of the shift."""
    place.world.released()
    tip, notes = place.world.testing(), list[str]()
    begun = place.world.controller.progress.number
    found = follow.to_the_rest(
        Late(place), "housing", SAM, tip, begun, lambda note: notes.append(note["name"]), 120, lambda row: None
    )
    assert (found.code, found.word, notes) == (0, "serves", ["traffic"])
