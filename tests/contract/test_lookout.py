"""This file says what every Lookout does: the fake, and the system's own notices of files that are written (3.04)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.lookout import FolderLookout, fits
from branchline.ports import Lookout
from tests.fakes.lookout import FakeLookout
from tests.waiting import wait_until

PLACE, OTHER = "data/sales/*.csv", "other.csv"


@pytest.fixture(params=["fake", "folder"])
def lookout(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lookout]:
    (tmp_path / "data" / "sales").mkdir(parents=True)
    found: Lookout = FakeLookout() if request.param == "fake" else FolderLookout(tmp_path)
    yield found
    found.close()


def written(lookout: Lookout, root: Path, name: str, place: str) -> None:
    (root / "whole").write_text("x")
    (root / "whole").replace(root / name)  # one notice: of a file that is opened, written and closed there are three
    if isinstance(lookout, FakeLookout):
        lookout.wrote(place)


def hears(lookout: Lookout, place: str) -> bool:
    return wait_until(lambda: place in lookout.heard())


def test_what_was_written_before_is_named_and_then_what_is_written(lookout: Lookout, tmp_path: Path) -> None:
    """Killer: listen only to what comes after the first file was missed."""
    lookout.watch({PLACE})
    assert hears(lookout, PLACE)
    written(lookout, tmp_path, "data/sales/7.csv", PLACE)
    assert hears(lookout, PLACE)
    lookout.watch({PLACE})
    assert not lookout.heard()  # asking for the same again changes nothing


def test_other_places_are_not_named(lookout: Lookout, tmp_path: Path) -> None:
    lookout.watch({PLACE, OTHER})
    seen: set[str] = set()

    def both() -> bool:
        seen.update(lookout.heard())
        return seen == {PLACE, OTHER}

    assert wait_until(both)
    written(lookout, tmp_path, "data/sales/7.txt", "data/sales/7.txt")
    written(lookout, tmp_path, "other.csv", OTHER)
    assert hears(lookout, OTHER)
    lookout.watch({PLACE})
    written(lookout, tmp_path, "other.csv", OTHER)
    written(lookout, tmp_path, "data/sales/8.csv", PLACE)
    seen.clear()

    def heard() -> bool:
        seen.update(lookout.heard())
        return PLACE in seen

    assert wait_until(heard)
    assert OTHER not in seen


def test_a_folder_that_is_not_there_yet_is_looked_for_again(tmp_path: Path) -> None:
    lookout = FolderLookout(tmp_path)
    lookout.watch({"late/*.csv"})
    assert not lookout.heard()
    (tmp_path / "late").mkdir()
    lookout.watch({"late/*.csv"})
    assert hears(lookout, "late/*.csv")
    lookout.close()


def test_what_cannot_be_watched_is_named_once_in_a_while(tmp_path: Path) -> None:
    """A folder that goes between the look and the listening stands for a system that gives no notices."""
    lookout = FolderLookout(tmp_path)
    (tmp_path / "data").mkdir()
    lookout._places = frozenset({PLACE})
    lookout._listen((tmp_path / "gone",), lookout._stop)
    assert lookout.heard() == {PLACE}
    assert not lookout.heard()


@pytest.mark.parametrize(
    ("path", "place", "does"),
    [
        ("data/a.csv", "data/a.csv", True),
        ("data/a.csv", "data", True),
        ("data/deep/a.csv", "data/", True),
        ("data/deep/a.csv", "data/**/*.csv", True),
        ("data/a.csv", "data/**/*.csv", True),
        ("data/a.txt", "data/*.csv", False),
        ("database/a.csv", "data", False),
    ],
)
def test_a_path_fits_a_place(path: str, place: str, does: bool) -> None:
    assert fits(path, place) is does
