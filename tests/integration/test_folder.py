"""This file tests the store and the sources on a real disk: kills, broken bytes, hostile manifests, changing files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.sources import LocalSources
from branchline.errors import ArtifactBroken, DataChanged, DataGone, DataMissing, ReuseError
from tests.integration.artifact_writer import content
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
KILLS = 12


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ---- kills


def test_kill_9_while_writing_leaves_only_whole_artifacts_I13_M10(store: Path, tmp_path: Path) -> None:
    seeded, number, told = random.Random(3), 0, dict[int, str]()
    (tmp_path / "made").mkdir()
    for _ in range(KILLS):
        given = (str(store), str(tmp_path / "made"), str(number))
        argv = [sys.executable, "-m", "tests.integration.artifact_writer", *given]
        writer = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines: list[str] = []
        thread = threading.Thread(target=lines.extend, args=(writer.stdout,))
        thread.start()
        assert wait_until(partial(_as_many, lines, seeded.randrange(1, 12)), every=0.0005)
        writer.kill()
        writer.wait()
        thread.join()
        writer.stdout.close()
        told |= {int(line.split()[0]): line.split()[1] for line in lines if line.endswith("\n")}
        number = max(told) + 1
    artifacts = FolderArtifacts(store)
    for number, artifact in told.items():
        artifacts.get(artifact, tmp_path / "back" / str(number))
        assert (tmp_path / "back" / str(number) / "two").read_bytes() == content(number, "two")
    for path in files(store / "chunks") + files(store / "artifacts"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    for path in files(store / "artifacts"):
        assert artifacts.has(path.name)
    assert files(store / "parts") == []  # swept when the store was opened: their writers are gone


def _as_many(lines: list[str], enough: int) -> bool:
    return len(lines) >= enough


# ---- broken and hostile content


@pytest.mark.parametrize("kind", ["chunk", "cut chunk", "lost chunk", "manifest", "lost manifest"])
def test_a_broken_artifact_is_never_handed_out_and_putting_it_again_mends_it_I13(
    store: Path, tmp_path: Path, kind: str
) -> None:
    artifacts = FolderArtifacts(store)
    (tmp_path / "made").write_bytes(b"content")
    artifact = artifacts.put(tmp_path / "made")
    (path,) = files(store / ("artifacts" if "manifest" in kind else "chunks"))
    if "lost" in kind:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + (b"" if "cut" in kind else b"!"))
    with pytest.raises(ArtifactBroken):
        artifacts.get(artifact, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []
    assert artifacts.has(artifact) is (kind == "chunk")  # has() does not read content, get() does
    assert artifacts.put(tmp_path / "made") == artifact
    artifacts.get(artifact, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content"


HOSTILE = ["../out", "/etc/out", "a/../../out", "a//b", "./a", "a\0b", "..", ".", "", "a/", "\udc80"]


@pytest.mark.parametrize("label", HOSTILE)
def test_a_name_that_leads_out_is_refused_F39(store: Path, tmp_path: Path, label: str) -> None:
    artifacts = FolderArtifacts(store)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "a").write_bytes(b"x")
    artifacts.put(tmp_path / "made")
    (manifest,) = files(store / "artifacts")
    document = json.loads(manifest.read_bytes())
    document["members"].append({**document["members"][0], "path": label})
    text = json.dumps(document).encode()
    digest = hashlib.sha256(text).hexdigest()
    (store / "artifacts" / digest[:2]).mkdir(exist_ok=True)
    (store / "artifacts" / digest[:2] / digest).write_bytes(text)
    with pytest.raises(ArtifactBroken):
        artifacts.get(digest, tmp_path / "deep" / "back")
    assert not (tmp_path / "deep" / "back").exists()
    assert not (tmp_path / "out").exists()


def test_what_a_living_process_writes_is_not_swept(store: Path) -> None:
    FolderArtifacts(store)
    (store / "parts" / f"{os.getpid()}-x").touch()
    (store / "parts" / "999999999-x").touch()
    FolderArtifacts(store)
    assert [path.name for path in files(store / "parts")] == [f"{os.getpid()}-x"]


def test_threads_may_put_the_same_at_once(store: Path, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"x" * 3_000_000)
    artifacts, ids = FolderArtifacts(store), list[str]()
    threads = [threading.Thread(target=lambda: ids.append(artifacts.put(tmp_path / "made"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1
    artifacts.get(ids[0], tmp_path / "back")


# ---- sources


class Counting(FolderArtifacts):
    """A store that counts what it is given, and does something meanwhile."""

    puts = 0
    meanwhile: str = ""

    def put(self, path: Path) -> str:
        """Keep it."""
        self.puts += 1
        artifact = super().put(path)
        if self.meanwhile:
            path.write_text(self.meanwhile)
        return artifact


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "data" / "sales" / "deep").mkdir(parents=True)
    for name in ("2006.csv", "2007.csv", "deep/2008.csv", "notes.txt"):
        (folder / "data" / "sales" / name).write_text(f"id\n{name}\n")
        os.utime(folder / "data" / "sales" / name, (1_000_000_000, 1_000_000_000))
    return folder


def test_a_file_that_did_not_change_is_not_read_again(project: Path, store: Path, tmp_path: Path) -> None:
    artifacts = Counting(store)
    version = LocalSources(project, tmp_path / "pins", artifacts).pin("sales", "data/sales/*.csv")
    assert artifacts.puts == 2
    again = LocalSources(project, tmp_path / "pins", artifacts)
    assert again.pin("sales", "data/sales/*.csv") == version
    assert artifacts.puts == 2
    (project / "data/sales/2006.csv").write_text("id\nother\n")  # written now: too fresh to be remembered
    for puts in (3, 4):
        assert again.pin("sales", "data/sales/*.csv") != version
        assert artifacts.puts == puts
    shutil.rmtree(store / "chunks")
    (store / "chunks").mkdir()
    again.pin("sales", "data/sales/2007.csv")
    assert artifacts.puts == 5  # what the store has lost is read again


def test_a_file_that_changes_while_it_is_read_is_refused_F46(project: Path, store: Path, tmp_path: Path) -> None:
    artifacts = Counting(store)
    artifacts.meanwhile = "changed"
    with pytest.raises(DataChanged) as told:
        LocalSources(project, tmp_path / "pins", artifacts).pin("sales", "data/sales/2006.csv")
    assert told.value.transient
    assert list((tmp_path / "pins").glob("*.json")) == []


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("data/sales/2006.csv", ["2006.csv"]),
        ("data/sales", ["2006.csv", "2007.csv", "deep/2008.csv", "notes.txt"]),
        ("data/sales/*.csv", ["2006.csv", "2007.csv"]),
        ("data/**/*.csv", ["sales/2006.csv", "sales/2007.csv", "sales/deep/2008.csv"]),
        ("data/*/200[67].csv", ["sales/2006.csv", "sales/2007.csv"]),
    ],
)
def test_a_source_is_a_file_a_folder_or_a_glob(
    project: Path, store: Path, tmp_path: Path, where: str, names: list[str]
) -> None:
    sources = LocalSources(project, tmp_path / "pins", FolderArtifacts(store))
    version = sources.pin("sales", where)
    sources.lay("sales", version.digest, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in files(tmp_path / "out")] == names


@pytest.mark.parametrize("where", ["/etc/passwd", "../secret", "data/../../secret", "", "data/link", "data/linked/*"])
def test_a_source_outside_of_the_project_is_refused_F45(project: Path, store: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "secret").write_text("x")
    (project / "data" / "link").symlink_to("/etc/passwd")
    (project / "data" / "linked").symlink_to(tmp_path)
    with pytest.raises(DataMissing):
        LocalSources(project, tmp_path / "pins", FolderArtifacts(store)).pin("sales", where)


def test_a_version_that_the_store_lost_is_gone(project: Path, store: Path, tmp_path: Path) -> None:
    sources = LocalSources(project, tmp_path / "pins", FolderArtifacts(store))
    version = sources.pin("sales", "data/sales/*.csv")
    (tmp_path / "pins" / f"{version.digest}.json").write_text(json.dumps({"files": [], "artifacts": {}}))
    with pytest.raises(DataGone):
        sources.lay("sales", version.digest, tmp_path / "out")
    sources.pin("sales", "data/sales/*.csv")
    shutil.rmtree(store / "chunks")
    with pytest.raises(DataGone):
        sources.lay("sales", version.digest, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_who_lays_out_the_same_at_once_as_another_has_it_too(store: Path, tmp_path: Path) -> None:
    """Killer: let the rename fail for the slower of two. Who comes when it is there is told so, as ever."""
    artifacts = FolderArtifacts(store)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "one").write_bytes(b"1" * 1000)
    artifact = artifacts.put(tmp_path / "made")
    for number in range(20):
        place, start = tmp_path / "laid" / str(number), threading.Barrier(4)

        def lay(place: Path = place, start: threading.Barrier = start) -> None:
            start.wait()
            with suppress(ReuseError):  # what else is raised in a thread fails the test
                artifacts.get(artifact, place)

        threads = [threading.Thread(target=lay) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (place / "one").read_bytes() == b"1" * 1000
    assert len([*(tmp_path / "laid").iterdir()]) == 20
