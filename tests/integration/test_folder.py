"""This file tests the store and the sources on a real disk: what is shared, broken, hostile, swept, or changes."""

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
from pathlib import Path

import pytest

from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.folder_packs import Draft, named, table
from branchline.adapters.sources import LocalSources
from branchline.errors import ArtifactBroken, DataChanged, DataGone, DataMissing, ReuseError
from branchline.ports import Swept

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ---- what is written


def put(artifacts: FolderArtifacts, path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return artifacts.put(path)


def taken(store: Path) -> int:
    return sum(path.stat().st_size for path in files(store / "packs"))


def test_the_same_content_has_the_same_id_in_every_release(store: Path, tmp_path: Path) -> None:
    """Killer: another size of chunks. A cutter that cuts elsewhere would make every step's result another one."""
    content = random.Random(1).randbytes(1_000_000) + b"id,price\n1,2\n" * 50_000
    artifact = put(FolderArtifacts(store), tmp_path / "made", content)
    assert artifact == "8ca590dd6ca3acb406b368947e6427d0d786a668e1787e0179d7acbea0fe9179"


@pytest.mark.parametrize("edit", ["changed in place", "inserted", "deleted"])
def test_a_change_costs_what_it_changes_insertions_included(store: Path, tmp_path: Path, edit: str) -> None:
    """Killer: cut every file at fixed places."""
    artifacts, seeded = FolderArtifacts(store), random.Random(2)
    content = seeded.randbytes(20_000_000)
    put(artifacts, tmp_path / "made", content)
    before, at, size = taken(store), 7_777_777, 200_000
    put_in = b"" if edit == "deleted" else seeded.randbytes(size)
    other = content[:at] + put_in + content[at + (0 if edit == "inserted" else size) :]
    artifact = put(artifacts, tmp_path / "made", other)
    assert taken(store) - before <= len(put_in) + 300_000
    artifacts.get(artifact, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == other
    before = taken(store)
    artifacts.put(tmp_path / "made")
    assert taken(store) == before


def test_many_small_files_are_one_pack(store: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    for number in range(500):
        (tmp_path / "made" / str(number)).write_bytes(random.Random(number).randbytes(number))
    artifacts = FolderArtifacts(store)
    artifact = artifacts.put(tmp_path / "made")
    assert len(files(store / "packs")) == 1
    artifacts.get(artifact, tmp_path / "back")
    for number in range(500):
        name = str(number)
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()


def test_a_large_artifact_is_several_packs_and_shares_them_with_the_next(store: Path, tmp_path: Path) -> None:
    artifacts, content = FolderArtifacts(store, full=1_000_000), random.Random(5).randbytes(5_000_000)
    first = put(artifacts, tmp_path / "made", content)
    assert len(files(store / "packs")) in (6, 7)
    second = put(artifacts, tmp_path / "made", content + b"!")
    assert taken(store) < 5_700_000
    assert artifacts.sweep([second], older_than=0).artifacts == 1
    assert not artifacts.has(first)
    artifacts.get(second, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content + b"!"


def test_the_memory_of_a_put_and_a_get_does_not_grow_with_the_content(store: Path, tmp_path: Path) -> None:
    (tmp_path / "made").touch()
    os.truncate(tmp_path / "made", 1 << 30)
    argv = [sys.executable, "-m", "tests.integration.artifact_writer", "peak"]
    ended = subprocess.run([*argv, str(store), str(tmp_path / "made")], cwd=ROOT, capture_output=True, text=True)
    before, after = map(int, ended.stdout.split())
    assert after - before < 64 << 10  # KiB


def test_what_was_put_by_another_process_is_found(store: Path, tmp_path: Path) -> None:
    ours, theirs = FolderArtifacts(store), FolderArtifacts(store)
    assert not ours.has("0" * 64)
    artifact = put(theirs, tmp_path / "made", b"content")
    assert ours.has(artifact)
    assert ours.sweep([], older_than=0).artifacts == 1
    assert not theirs.has(artifact)
    assert put(theirs, tmp_path / "made", b"content") == artifact
    assert ours.has(artifact)


def test_a_folder_of_an_older_layout_opens(store: Path, tmp_path: Path) -> None:
    for name in ("chunks/aa", "artifacts/aa", "parts"):
        (store / name).mkdir(parents=True)
        (store / name / ("a" * 64)).write_bytes(b"old")
    artifacts = FolderArtifacts(store)
    assert list(artifacts.artifacts()) == []
    assert artifacts.has(put(artifacts, tmp_path / "made", b"content"))


def test_an_index_is_made_by_who_is_alone_whoever_puts_first_at_once(tmp_path: Path) -> None:
    """Killer: let everybody make it who finds none, and SQLite tells one of them that it is locked."""
    made = tmp_path / "made"
    made.write_bytes(b"content")
    for number in range(10):
        store, start, ids = tmp_path / "stores" / str(number), threading.Barrier(4), list[str]()
        assert not FolderArtifacts(store)._index.open(alone=False)

        def first(artifacts: FolderArtifacts, start: threading.Barrier = start, ids: list[str] = ids) -> None:
            start.wait()
            ids.append(artifacts.put(made))

        threads = [threading.Thread(target=first, args=(FolderArtifacts(store),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(ids), len(set(ids))) == (4, 1)
        assert FolderArtifacts(store)._index.open(alone=False)


# ---- broken and hostile content


BROKEN = ["chunk", "cut", "lost", "manifest", "table", "index", "lost index", "lost wal"]


def damage(store: Path, kind: str) -> None:
    """Do to the only pack, or to the index, what disks and people do."""
    (pack,) = files(store / "packs")
    text = bytearray(pack.read_bytes())
    if kind == "lost":
        pack.unlink()
    elif kind == "cut":
        pack.write_bytes(text[: len(text) // 2])
    elif kind in ("chunk", "manifest", "table"):
        text[{"chunk": 10, "manifest": text.index(b'"artifact"'), "table": len(text) - 20}[kind]] ^= 1
        pack.write_bytes(text)
    elif kind == "lost wal":
        (store / "index.sqlite3-wal").unlink(missing_ok=True)
    elif kind == "index":
        (store / "index.sqlite3").write_bytes(b"SQLite format 3\0" + random.Random(6).randbytes(20_000))
    else:
        (store / "index.sqlite3").unlink()


@pytest.mark.parametrize("again", [False, True], ids=["in use", "opened again"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_artifact_is_never_handed_out_and_putting_it_again_mends_it_I13_F40(
    store: Path, tmp_path: Path, kind: str, again: bool
) -> None:
    """What is found damaged is named, denied by `has`, and mended by the next put of the same: by rebuilding."""
    artifacts, content = FolderArtifacts(store), random.Random(4).randbytes(500_000)
    artifact = put(artifacts, tmp_path / "made", content)
    damage(store, kind)
    artifacts = FolderArtifacts(store) if again else artifacts
    told = ""
    try:
        artifacts.get(artifact, tmp_path / "back")
        (tmp_path / "back").unlink()
    except ReuseError as error:
        told = str(error)
    if kind in ("chunk", "cut", "lost", "manifest") or (kind == "table" and again and told):
        assert artifact in told
        assert not artifacts.has(artifact)
    else:  # an index that breaks while it is used is made anew by who uses it next
        assert not told or "index" in kind or kind == "lost wal"
    assert [path.name for path in tmp_path.iterdir() if "back" in path.name] == []
    assert artifacts.put(tmp_path / "made") == artifact
    assert artifacts.has(artifact)
    artifacts.get(artifact, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    fresh = FolderArtifacts(store)  # what was quarantined stays so
    fresh.get(artifact, tmp_path / "back2")
    fresh.sweep([artifact], older_than=0)
    fresh.get(artifact, tmp_path / "back3")
    assert files(store / "damaged") == [] or len(files(store / "packs")) == 2


def test_a_damaged_part_is_told_by_file_and_hurts_no_other_artifact_F40(store: Path, tmp_path: Path) -> None:
    artifacts = FolderArtifacts(store)
    (tmp_path / "made").mkdir()
    for name in ("model.bin", "other.bin"):
        (tmp_path / "made" / name).write_bytes(name.encode() * 10_000)
    both = artifacts.put(tmp_path / "made")
    alone = artifacts.put(tmp_path / "made" / "other.bin")
    pack = next(path for path in files(store / "packs") if b"model.bin" * 100 in path.read_bytes())
    pack.write_bytes(pack.read_bytes().replace(b"model.bin", b"model.bim", 1))
    with pytest.raises(ArtifactBroken, match=both) as told:
        artifacts.get(both, tmp_path / "back")
    assert "model.bin" in told.value.cause
    assert told.value.next.startswith("branchline run")
    assert not artifacts.has(both)
    assert artifacts.has(alone)
    artifacts.get(alone, tmp_path / "back")


def test_the_index_is_made_anew_from_the_packs(store: Path, tmp_path: Path) -> None:
    artifacts = FolderArtifacts(store)
    ids = [put(artifacts, tmp_path / "made", random.Random(number).randbytes(100_000)) for number in range(5)]
    for path in store.glob("index.sqlite3*"):
        path.unlink()
    for opened in (artifacts, FolderArtifacts(store)):
        assert sorted(opened.artifacts()) == sorted(ids)
        assert all(opened.has(each) for each in ids)


HOSTILE = ["../out", "/etc/out", "a/../../out", "a//b", "./a", "a\0b", "..", ".", "", "a/", "\udc80"]


@pytest.mark.parametrize("label", HOSTILE)
def test_a_name_that_leads_out_is_refused_F39(store: Path, tmp_path: Path, label: str) -> None:
    artifacts = FolderArtifacts(store)
    put(artifacts, tmp_path / "made", b"x")
    member = {"chunks": named(b"x").hex(), "executable": False, "path": label, "size": 1}
    text = json.dumps({"artifact": 2, "members": [{**member, "path": "a"}, member]}).encode()
    draft = Draft(store / "parts")
    draft.add(named(text, manifest=True), text, manifest=True)
    draft.seal(store / "packs")
    digest = hashlib.sha256(text).hexdigest()
    artifacts = FolderArtifacts(store)
    with pytest.raises(ArtifactBroken):
        artifacts.get(digest, tmp_path / "deep" / "back")
    assert not artifacts.has(digest)
    assert not (tmp_path / "deep" / "back").exists()
    assert not (tmp_path / "out").exists()


def test_a_pack_that_is_no_pack_is_ignored_and_swept_when_it_is_old(store: Path, tmp_path: Path) -> None:
    artifacts = FolderArtifacts(store)
    artifact = put(artifacts, tmp_path / "made", b"x")
    (store / "packs" / f"{'0' * 64}.pack").write_bytes(b"junk")
    artifacts = FolderArtifacts(store)
    assert list(artifacts.artifacts()) == [artifact]
    artifacts.sweep([artifact], older_than=3600)
    assert len(files(store / "packs")) == 2
    artifacts.sweep([artifact], older_than=0)
    assert len(files(store / "packs")) == 1


def test_only_what_nobody_writes_is_cleared_away(store: Path) -> None:
    artifacts = FolderArtifacts(store)
    (store / "parts" / "left").touch()
    with artifacts._held():  # somebody puts
        FolderArtifacts(store)
        assert files(store / "parts") != []
    FolderArtifacts(store)
    assert files(store / "parts") == []


# ---- sweeps


def test_many_small_packs_become_one_and_thin_ones_are_written_again(store: Path, tmp_path: Path) -> None:
    artifacts = FolderArtifacts(store)
    ids = [put(artifacts, tmp_path / "made", f"{number}".encode()) for number in range(70)]
    assert len(files(store / "packs")) == 70
    assert artifacts.sweep(ids, older_than=0).artifacts == 0
    assert len(files(store / "packs")) == 1
    assert all(artifacts.has(each) for each in ids)
    assert artifacts.sweep(ids[:10], older_than=0).artifacts == 60
    assert all(artifacts.has(each) for each in ids[:10])
    (pack,) = files(store / "packs")
    assert len(table(pack)) == 20
    assert FolderArtifacts(store).sweep(ids[:10], older_than=0) == Swept(0, 0)


def test_what_is_put_again_is_young_again_F49(store: Path, tmp_path: Path) -> None:
    """Killer: leave the old time. A result that is met again was not recorded yet when a sweep comes."""
    artifacts = FolderArtifacts(store)
    artifact = put(artifacts, tmp_path / "made", b"content")
    (pack,) = files(store / "packs")
    os.utime(pack, (1_000_000_000, 1_000_000_000))
    assert artifacts.sweep([], older_than=3600, dry_run=True).artifacts == 1
    assert artifacts.put(tmp_path / "made") == artifact
    assert artifacts.sweep([], older_than=3600).artifacts == 0
    os.utime(pack, (4_000_000_000, 4_000_000_000))  # the clock was set back since
    assert artifacts.sweep([], older_than=3600).artifacts == 0
    os.utime(pack, (1_000_000_000, 1_000_000_000))
    assert artifacts.sweep([], older_than=3600).artifacts == 1
    assert files(store / "packs") == []


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
    fresh = project / "data/sales/2006.csv"
    fresh.write_text("id\nother\n")
    os.utime(fresh, (4_000_000_000, 4_000_000_000))  # not over yet, whatever the test takes: it is not remembered
    for puts in (3, 4):
        assert again.pin("sales", "data/sales/*.csv") != version
        assert artifacts.puts == puts
    shutil.rmtree(store / "packs")
    (store / "packs").mkdir()
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
    shutil.rmtree(store / "packs")
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
