"""This file kills who writes and who sweeps the store: at every line, at random, both at once; and fills the disk.

What was acknowledged is there and right, what is visible is complete, and the next to come goes on (I13, F49, M10).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.folder_packs import table
from branchline.errors import DiskFull
from tests.integration.artifact_writer import FULL, NAMES, content, laid
from tests.victims import Breeder, Victim, victims_of
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
WRITER = [sys.executable, "-m", "tests.integration.artifact_writer"]


@pytest.fixture
def told_by() -> Iterator[Breeder]:
    """Begins processes of the writer; none is left when the test is over."""
    with victims_of("tests.integration.artifact_writer") as begin:
        yield begin


def all_are_right(artifacts: FolderArtifacts, told: dict[int, str], back: Path) -> None:
    for number, artifact in told.items():
        artifacts.get(artifact, back / str(number))
        for name in NAMES:
            assert (back / str(number) / name).read_bytes() == content(number, name)


def has_swept(sweeper: Victim) -> bool:
    """Whether it has swept twice and more, and something in one of them."""
    return len(sweeper.lines) > 1 and any("artifacts=0" not in line for line in sweeper.lines)


@pytest.mark.parametrize("deed", ["put", "sweep"])
def test_kill_9_at_lines_of_a_deed_loses_nothing_and_leaves_nothing_half_I13(tmp_path: Path, deed: str) -> None:
    """Killer: add to the index before the pack is on the disk, or unlink a pack before its rows are gone."""
    argv = [*WRITER, "boundaries", str(tmp_path), deed, "3", "41"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 10


def test_kill_9_while_writing_leaves_only_whole_artifacts_I13_M10(tmp_path: Path, told_by: Breeder) -> None:
    store, seeded, number, told = tmp_path / "store", random.Random(3), 0, dict[int, str]()
    for _ in range(12):
        writer = told_by("write", str(store), str(tmp_path / "made"), str(number))
        assert wait_until(partial(writer.has_told, seeded.randrange(1, 12)), every=0.0005)
        writer.kill()
        told |= {int(line.split()[0]): line.split()[1] for line in writer.lines}
        number = max(told) + 1
    artifacts = FolderArtifacts(store)
    all_are_right(artifacts, told, tmp_path / "back")
    assert all(artifacts.has(each) for each in artifacts.artifacts())
    for path in (store / "packs").iterdir():
        assert table(path)
    assert [*(store / "parts").iterdir()] == []  # cleared when the store was opened: their writers are gone


def test_a_sweep_races_no_put_of_another_process_whoever_is_killed_F49(tmp_path: Path, told_by: Breeder) -> None:
    """Every other artifact is wanted; they are made of the same blocks as those that are swept at once.

    Killers: let the sweep share the store with who puts; let a put refer to what has no row any more.
    """
    store, scratch, seeded = tmp_path / "store", FolderArtifacts(tmp_path / "scratch", full=FULL), random.Random(5)
    wanted = dict[int, str]()
    for number in range(0, 100, 2):
        laid(tmp_path / "laid", number)
        wanted[number] = scratch.put(tmp_path / "laid")
    (tmp_path / "wanted").write_text(" ".join(wanted.values()))
    told, number, swept = dict[int, str](), 0, 0
    for _ in range(4):
        writers = [told_by("write", str(store), str(tmp_path / f"made{hand}"), str(number)) for hand in range(2)]
        sweeper = told_by("sweep", str(store), str(tmp_path / "wanted"))
        assert wait_until(partial(writers[0].has_told, seeded.randrange(6, 14)), every=0.0005)
        assert wait_until(partial(has_swept, sweeper), every=0.0005)
        for process in seeded.sample([*writers, sweeper], 3):
            assert not process.has_ended
            process.kill()
        for line in writers[0].lines + writers[1].lines:
            told[int(line.split()[0])] = line.split()[1]
        swept += has_swept(sweeper)
        number = min(max(told) + 1, 80)
    assert swept == 4
    kept = {number: artifact for number, artifact in told.items() if wanted.get(number) == artifact}
    assert len(kept) > 10
    assert all(artifact == wanted[number] for number, artifact in told.items() if number in wanted)
    artifacts = FolderArtifacts(store)
    all_are_right(artifacts, kept, tmp_path / "back")
    artifacts.sweep([*wanted.values()], older_than=0)
    all_are_right(artifacts, kept, tmp_path / "again")
    assert set(artifacts.artifacts()) <= set(wanted.values())


@pytest.mark.parametrize(("limit", "code"), [(10_000, "BL320"), (100_000, DiskFull.code), (800_000, DiskFull.code)])
def test_where_no_file_may_grow_a_put_says_so_and_leaves_nothing(tmp_path: Path, limit: int, code: str) -> None:
    (tmp_path / "made").write_bytes(os.urandom(1_000_000))
    argv = [*WRITER, "full", str(tmp_path / "store"), str(tmp_path / "made"), str(limit)]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.strip() == code, ended.stderr
    artifacts = FolderArtifacts(tmp_path / "store")
    assert list(artifacts.artifacts()) == []
    assert [*(tmp_path / "store" / "packs").iterdir()] == [*(tmp_path / "store" / "parts").iterdir()] == []
    artifacts.get(artifacts.put(tmp_path / "made"), tmp_path / "back")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes."""
    (tmp_path / "disk").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", tmp_path / "disk"], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield tmp_path / "disk"
    subprocess.run(["umount", "--lazy", tmp_path / "disk"], check=True)


def test_a_full_disk_loses_nothing_and_what_is_swept_makes_room(small: Path, tmp_path: Path) -> None:
    artifacts, kept, told = FolderArtifacts(small / "store", full=FULL), list[str](), ""
    for number in range(10):
        (tmp_path / "made").write_bytes(random.Random(number).randbytes(500_000))
        try:
            kept.append(artifacts.put(tmp_path / "made"))
        except DiskFull as error:
            told = error.code
            break
    assert told == DiskFull.code
    assert len(kept) > 2
    assert sorted(artifacts.artifacts()) == sorted(kept)
    with pytest.raises(DiskFull):
        artifacts.get(kept[0], small / "back")
    assert [path.name for path in small.iterdir()] == ["store"]
    artifacts.get(kept[0], tmp_path / "back")
    assert artifacts.sweep(kept[:1], older_than=0).artifacts == len(kept) - 1
    kept.append(artifacts.put(tmp_path / "made"))
    artifacts = FolderArtifacts(small / "store")
    assert artifacts.has(kept[0])
    assert artifacts.has(kept[-1])
