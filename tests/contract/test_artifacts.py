"""This file says what every Artifacts does: the fake and the folder (I13, F39, F49, M10)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.folder_chunks import BLOCK
from branchline.errors import ArtifactBroken, ReuseError, UnsafeArtifact
from branchline.ports import Artifacts, Swept
from tests.fakes.artifacts import FakeArtifacts


@pytest.fixture(params=["fake", "folder"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    return FakeArtifacts() if request.param == "fake" else FolderArtifacts(tmp_path / "store")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder as a step leaves it."""
    folder = tmp_path / "made"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "hollow").mkdir()
    (folder / "model.bin").write_bytes(os.urandom(1000))
    (folder / "deep" / "er" / "é \U0001f600.txt").write_text("x")
    (folder / "empty").touch()
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def test_a_folder_comes_back_as_it_was(artifacts: Artifacts, made: Path, tmp_path: Path) -> None:
    artifact = artifacts.put(made)
    artifacts.get(artifact, tmp_path / "a" / "b" / "back")
    assert tree(tmp_path / "a" / "b" / "back") == tree(made)
    assert os.access(tmp_path / "a/b/back/run.sh", os.X_OK)
    assert not os.access(tmp_path / "a/b/back/empty", os.X_OK)
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["back"]


def test_a_file_comes_back_as_it_was_and_its_name_is_no_matter(artifacts: Artifacts, tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_text("same")
    artifact = artifacts.put(tmp_path / "one")
    assert artifacts.put(tmp_path / "other") == artifact
    artifacts.get(artifact, tmp_path / "back")
    assert (tmp_path / "back").read_text() == "same"


def test_the_same_content_has_the_same_id_and_other_content_another(artifacts: Artifacts, made: Path) -> None:
    first = artifacts.put(made)
    assert artifacts.put(made) == first
    assert len(first) == 64
    (made / "model.bin").write_bytes(b"other")
    second = artifacts.put(made)
    (made / "model.bin").rename(made / "renamed.bin")
    third = artifacts.put(made)
    (made / "renamed.bin").chmod(0o755)
    assert len({first, second, third, artifacts.put(made)}) == 4


def test_what_is_kept_can_be_asked_for(artifacts: Artifacts, made: Path) -> None:
    artifact = artifacts.put(made)
    assert artifacts.has(artifact)
    assert not artifacts.has("0" * 64)
    assert artifacts.size(artifact) == sum(path.stat().st_size for path in made.rglob("*") if path.is_file())


def test_an_empty_folder_and_an_empty_file_are_something(artifacts: Artifacts, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "nil").touch()
    artifacts.get(artifacts.put(tmp_path / "none"), tmp_path / "none2")
    artifacts.get(artifacts.put(tmp_path / "nil"), tmp_path / "nil2")
    assert (tmp_path / "none2").is_dir()
    assert (tmp_path / "nil2").read_bytes() == b""


def test_what_is_larger_than_a_block_comes_back(artifacts: Artifacts, tmp_path: Path) -> None:
    content = os.urandom(BLOCK + 12_345) + bytes(BLOCK)
    (tmp_path / "large").write_bytes(content)
    artifact = artifacts.put(tmp_path / "large")
    artifacts.get(artifact, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert artifacts.size(artifact) == len(content)


@pytest.mark.parametrize("asked", ["0" * 64, "", "../../etc/passwd", "x" * 64])
def test_an_unknown_artifact_is_broken(artifacts: Artifacts, asked: str, tmp_path: Path) -> None:
    assert not artifacts.has(asked)
    with pytest.raises(ArtifactBroken):
        artifacts.get(asked, tmp_path / "back")
    with pytest.raises(ArtifactBroken):
        artifacts.size(asked)
    assert not (tmp_path / "back").exists()


def test_nothing_is_written_over(artifacts: Artifacts, made: Path) -> None:
    artifact = artifacts.put(made)
    with pytest.raises(ReuseError):
        artifacts.get(artifact, made)


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe", "nothing"])
def test_links_and_devices_are_refused_F39(artifacts: Artifacts, made: Path, kind: str) -> None:
    odd = made / "deep" / "odd"
    target = {"link to a file": "/etc/passwd", "link to a folder": "/etc", "dangling link": "gone"}.get(kind)
    if target:
        odd.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(odd)
    with pytest.raises(UnsafeArtifact):
        artifacts.put(odd)
    if kind != "nothing":
        with pytest.raises(UnsafeArtifact):
            artifacts.put(made)


# ---- what nobody needs any more


def test_a_sweep_keeps_what_is_wanted_whole_and_removes_the_rest_F49(artifacts: Artifacts, tmp_path: Path) -> None:
    """Killer: forget the chunks that a wanted artifact shares with one that is not."""
    shared, ids = os.urandom(300_000), list[str]()
    for _ in range(4):
        (tmp_path / "made").write_bytes(shared + os.urandom(100_000) + shared)
        ids.append(artifacts.put(tmp_path / "made"))
    content = (tmp_path / "made").read_bytes()
    assert sorted(artifacts.artifacts()) == sorted(ids)
    would = artifacts.sweep([ids[3]], older_than=0, dry_run=True)
    assert would.artifacts == 3
    assert would.bytes > 0
    assert sorted(artifacts.artifacts()) == sorted(ids)
    assert artifacts.sweep([ids[3]], older_than=0).artifacts == 3
    assert list(artifacts.artifacts()) == [ids[3]]
    assert [artifacts.has(each) for each in ids] == [False, False, False, True]
    artifacts.get(ids[3], tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    assert artifacts.sweep([ids[3]], older_than=0) == Swept(0, 0)
    with pytest.raises(ArtifactBroken):
        artifacts.get(ids[0], tmp_path / "gone")


def test_a_sweep_touches_nothing_young_F49(artifacts: Artifacts, made: Path) -> None:
    artifact = artifacts.put(made)
    assert artifacts.sweep([], older_than=3600) == Swept(0, 0)
    assert artifacts.has(artifact)


def test_what_was_swept_can_be_put_again(artifacts: Artifacts, made: Path, tmp_path: Path) -> None:
    artifact = artifacts.put(made)
    assert artifacts.sweep([], older_than=0).artifacts == 1
    assert list(artifacts.artifacts()) == []
    assert artifacts.put(made) == artifact
    artifacts.get(artifact, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(made)
