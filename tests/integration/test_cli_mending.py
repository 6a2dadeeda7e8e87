"""This file tests the commands that mend: a fix at its base, and a branch that is brought up to date or kept as it is.

The real API over a world of fakes, on a real socket; what is merged is real git.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.cli import follow
from branchline.core import lifecycle as law
from tests.places import Place
from tests.world import ALEX, APP, KIM, SAM


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made_place = Place(tmp_path)
    with made_place.answering():
        yield made_place


def test_sync_inside_anothers_arm_is_refused_and_offers_what_is_left(place: Place) -> None:
    """What is judged stays what it is: keep it and merge nothing, or abort it first."""
    place.world.released(toml=APP)
    place.world.testing(toml=APP)
    place.git.write(SAM, {"housing/branchline.toml": APP})
    told = place.type("sync", SAM)
    assert told.exit_code == 3
    assert f"branchline sync --keep {SAM}" in told.stderr
    assert f"branchline abort {SAM}" in told.stderr


def test_keep_says_what_it_throws_away_before_it_asks(place: Place) -> None:
    """1.57: the commits of the trunk that get lost, in the plan, in JSON, and before anything is done."""
    world = place.world
    world.released()
    world.testing()
    for name in (SAM, "housing@sam"):
        assert place.type("sync", name).stderr.splitlines() == ["it was up to date"]
    assert "only what is under test needs a fix" not in place.type("fix", "housing", "--on", "sam").stderr
    world.git.write("fix--housing--ada", {"housing/note.md": "mended\n"}, start="main", message="Mend the note")
    world.settle()
    world.record(law.Won("fix--housing--ada"))
    world.settle()
    planned = place.type("sync", "--keep", SAM, "--dry-run")
    assert next(line for line in planned.stdout.splitlines() if "Mend the note" in line).startswith("loses")
    assert "Mend the note" in str(json.loads(place.type("sync", "--keep", SAM, "--dry-run", "--json").stdout)["loses"])
    asked = place.type("sync", "--keep", SAM)
    assert (asked.exit_code, "Mend the note" in asked.stderr) == (2, True)
    assert world.events()[-1] != "Kept"
    with place.living():
        assert place.type("sync", "--keep", SAM, "--yes", "--because", "it is better").exit_code == 0
    assert "Kept" in world.events()


def test_a_fix_of_nobody_names_where_the_names_are(place: Place) -> None:
    """Killer: the hint for a repository that has no commit yet."""
    place.git.write("main", {"housing/branchline.toml": APP})
    place.git.git("pull", "--quiet")
    told = place.type("fix", "housing", "--on", "nobody")
    assert (told.exit_code, "error[BL104]: 'experiment--housing--nobody' names no" in told.stderr) == (2, True)
    assert told.stderr.splitlines()[-1].split() == ["hint:", "branchline", "status"]


def test_a_fix_of_who_is_not_under_test_is_a_push(place: Place) -> None:
    """1.54: the base is resolved by the live role, by every way to write a revision."""
    world = place.world
    world.released()
    world.push(SAM, says={"unit": False})
    world.settle()
    place.git.write("main", {"housing/branchline.toml": APP})
    place.git.git("pull", "--quiet")
    told = place.type("fix", "housing@sam", "--handle", "typo", "--dry-run")
    assert (told.exit_code, f"git switch {SAM}" in told.stderr) == (3, True)
    for reference in ("housing", "housing@incumbent", "housing@1.0.0"):
        told = place.type("fix", reference, "--handle", "typo", "--dry-run")
        assert "git switch --no-track -c fix--housing--typo origin/main" in told.stdout, told.stderr
    place.git.write(KIM, {"housing/branchline.toml": APP})
    place.git.git("fetch", "--quiet")
    world.testing(KIM)
    for reference in ("housing@challenger", "housing@1.1.0", f"housing@{KIM}", f"housing@{world.on(KIM).revision}"):
        told = place.type("fix", reference, "--handle", "typo", "--dry-run")
        assert f"-c fix--housing--typo--kim origin/{KIM}" in told.stdout, told.stderr
    world.push("fix--housing--typo--kim", start=KIM)
    world.settle()
    told = place.type("fix", "housing@fix--housing--typo--kim", "--handle", "more")
    assert (told.exit_code, "is a fix itself" in told.stderr) == (2, True)


def test_sync_merges_the_trunk_and_pushes(place: Place) -> None:
    git = place.git
    git.write(ALEX, {"housing/branchline.toml": APP})
    trunk = git.write("main", {"other.txt": "new\n"})
    assert place.type("sync", ALEX, "--dry-run").stdout.splitlines()[-1] == f"plan     git      git push origin {ALEX}"
    told = place.type("sync", ALEX)
    assert told.exit_code == 0, told.stderr
    assert trunk in git.parents(git.tip(ALEX))
    assert "up to date" in place.type("sync").stderr
    git.git("pull", "--quiet")
    git.write("main", {"other.txt": "theirs\n"})
    git.write(ALEX, {"other.txt": "mine\n"})
    git.git("pull", "--quiet")
    told = place.type("sync")
    assert told.exit_code == 1
    assert "error[BL205]" in told.stderr
    assert "other.txt" in told.stderr


def test_following_a_fix_ends_when_it_is_part_of_its_challenger(place: Place) -> None:
    """Killer: a branch without a row that is not the incumbent was waited for, for ever."""
    world = place.world
    world.released()
    world.testing()
    tip = world.push("fix--housing--typo--sam", start=SAM)
    world.settle()
    world.record(law.Won("fix--housing--typo--sam"))
    world.settle()
    found = follow.to_the_rest(
        place.client, "housing", "fix--housing--typo--sam", tip, 0, lambda note: None, 120, lambda row: None
    )
    assert (found.code, found.word) == (0, "absorbed")
