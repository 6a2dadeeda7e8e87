"""This file says what every Sources does: the fake and the files of this machine (1.17, F46)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from branchline.adapters.folder import FolderArtifacts
from branchline.adapters.sources import LocalSources
from branchline.errors import DataGone, DataMissing, ReuseError
from branchline.ports import Sources
from tests.fakes.sources import FakeSources

WHERE = "data/sales/*"
FILES = {"2006.csv": b"id,price\n1,10\n2,20\n", "2007.csv": b"id,price\n3,30"}
Lie = Callable[[dict[str, bytes]], None]


@pytest.fixture(params=["fake", "local"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sources(kind: str, tmp_path: Path) -> Sources:
    if kind == "fake":
        return FakeSources()
    return LocalSources(tmp_path / "project", tmp_path / "pins", FolderArtifacts(tmp_path / "store"))


@pytest.fixture
def lie(sources: Sources, tmp_path: Path) -> Lie:
    """Make exactly these files lie at WHERE."""

    def lay(files: dict[str, bytes]) -> None:
        if isinstance(sources, FakeSources):
            sources.here = {WHERE: files}
            return
        folder = tmp_path / "project" / "data" / "sales"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)

    return lay


def test_a_version_says_what_it_is_made_of(sources: Sources, lie: Lie) -> None:
    lie(FILES)
    version = sources.pin("sales", WHERE)
    assert (version.source, version.files, version.rows) == ("sales", 2, 3)
    assert version.size == sum(map(len, FILES.values()))
    assert len(version.digest) == 64


def test_the_same_content_is_the_same_version_wherever_it_comes_from(sources: Sources, lie: Lie) -> None:
    lie(FILES)
    first = sources.pin("sales", WHERE)
    lie(dict(reversed(FILES.items())))
    assert sources.pin("sales", WHERE) == first
    other = FakeSources()
    other.here = {WHERE: FILES}
    assert other.pin("sales", WHERE) == first


def test_a_change_is_another_version_and_the_old_one_stays(sources: Sources, lie: Lie, tmp_path: Path) -> None:
    lie(FILES)
    old = sources.pin("sales", WHERE)
    lie({**FILES, "2007.csv": b"id,price\n3,31"})  # of the same size
    new = sources.pin("sales", WHERE)
    assert new.digest != old.digest
    sources.lay("sales", old.digest, tmp_path / "old")
    sources.lay("sales", new.digest, tmp_path / "new")
    assert (tmp_path / "old" / "2007.csv").read_bytes() == FILES["2007.csv"]
    assert (tmp_path / "new" / "2007.csv").read_bytes() == b"id,price\n3,31"
    assert (tmp_path / "new" / "2006.csv").read_bytes() == FILES["2006.csv"]


def test_nothing_there_is_missing(sources: Sources) -> None:
    with pytest.raises(DataMissing):
        sources.pin("sales", "data/none/*.csv")


def test_a_version_nobody_pinned_here_is_gone(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(DataGone):
        sources.lay("sales", "0" * 64, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(sources: Sources, lie: Lie, tmp_path: Path) -> None:
    lie(FILES)
    version = sources.pin("sales", WHERE)
    (tmp_path / "out").mkdir()
    with pytest.raises(ReuseError):
        sources.lay("sales", version.digest, tmp_path / "out")


def test_rows_are_lines_of_text_without_headers(sources: Sources, lie: Lie) -> None:
    lie({"a.csv": b"", "b.csv": b"id\n", "c.csv": b"id\n1\n2", "d.csv": b"\0\n\n"})
    assert sources.pin("sales", WHERE).rows == 2


def test_a_version_says_which_columns_it_has(sources: Sources, lie: Lie) -> None:
    """1.17: where the format tells. Killer: take the kind of the last file for that of all."""
    lie({"a.csv": b"id,price,note,zone\n1,10,,N\n2,nan,NaN,S\n", "b.csv": b"id,zone\n3,1\n"})
    version = sources.pin("sales", WHERE)
    assert dict(version.columns) == {"id": "number", "note": "empty", "price": "number", "zone": "text"}
    profile = sources.profile("sales", version.digest)
    assert [(each.path, each.rows) for each in profile.tables] == [("a.csv", 2), ("b.csv", 1)]
    assert (profile.unread, profile.duplicates) == ((), None)


def test_what_its_format_does_not_tell_is_not_guessed(sources: Sources, lie: Lie) -> None:
    lie({"a.jsonl": b'{"id": 1}\n{', "b.jsonl": b'{"id": 1, "x": null}\n\n', "c.txt": b"1\n2\n", "d.csv": b"\0\n"})
    version = sources.pin("sales", WHERE)
    assert version.columns == (("id", "number"), ("x", "empty"))
    assert version.rows == 5  # of broken ones the lines are counted
    assert sources.profile("sales", version.digest).unread == ("a.jsonl", "c.txt", "d.csv")


def test_rows_that_repeat_their_key_are_counted_over_all_files(sources: Sources, lie: Lie) -> None:
    lie({"a.csv": b"id,day\n1,1\n1,2\n1,1\n", "b.csv": b"day,id\n1,1\n", "c.txt": b"x"})
    digest = sources.pin("sales", WHERE).digest
    assert sources.profile("sales", digest, ("id", "day")).duplicates == 2
    assert sources.profile("sales", digest, ("id",)).duplicates == 3
    assert sources.profile("sales", digest, ("id", "day")).duplicates == 2
    assert sources.profile("sales", digest, ("other",)).duplicates is None
    assert sources.profile("sales", digest).duplicates is None
    with pytest.raises(DataGone):
        sources.profile("sales", "0" * 64)


def test_what_is_not_stored_is_there_until_it_changes(sources: Sources, lie: Lie, tmp_path: Path) -> None:
    """F46: the version that is pinned, or none. Killer: lay out whatever lies there now."""
    lie(FILES)
    version = sources.pin("sales", WHERE, store=False)
    sources.lay("sales", version.digest, tmp_path / "same")
    assert (tmp_path / "same" / "2006.csv").read_bytes() == FILES["2006.csv"]
    assert sources.profile("sales", version.digest, ("id",)).duplicates == 0
    lie({**FILES, "2007.csv": b"id,price\n3,31"})
    with pytest.raises(DataGone):
        sources.lay("sales", version.digest, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


class Crowded(FolderArtifacts):
    """A store in which, whenever something is laid out, somebody else is faster with the same."""

    faster: Callable[[], None] | None = None

    def get(self, artifact: str, path: Path) -> None:
        faster, self.faster = self.faster, None
        if faster:
            faster()
        super().get(artifact, path)


def test_two_that_lay_out_the_same_version_at_once_both_have_it(tmp_path: Path) -> None:
    """A build and a `run` of the same data; killer: let the rename fail for the slower of them."""
    store = Crowded(tmp_path / "store")
    sources = LocalSources(tmp_path / "project", tmp_path / "pins", store)
    (tmp_path / "project" / "data" / "sales").mkdir(parents=True)
    (tmp_path / "project" / "data" / "sales" / "2006.csv").write_bytes(FILES["2006.csv"])
    version = sources.pin("sales", WHERE)
    store.faster = lambda: sources.lay("sales", version.digest, tmp_path / "laid" / "v")
    sources.lay("sales", version.digest, tmp_path / "laid" / "v")
    assert [path.name for path in (tmp_path / "laid").iterdir()] == ["v"]
    assert (tmp_path / "laid" / "v" / "2006.csv").read_bytes() == FILES["2006.csv"]


def test_a_version_goes_when_nobody_keeps_it_and_it_is_not_young(sources: Sources, lie: Lie) -> None:
    """F49: and what it lies in is told as long as it is there."""
    lie(FILES)
    kept = sources.pin("sales", WHERE).digest
    lie({"2006.csv": b"id\n9\n"})
    lost = sources.pin("sales", WHERE).digest
    known = sources.versions()
    assert sorted(known) == sorted([kept, lost])
    assert all(known.values())
    assert sources.sweep([kept], 3600) == {}
    assert list(sources.sweep([kept], 0, dry_run=True)) == [lost]
    assert sorted(sources.versions()) == sorted([kept, lost])
    (size,) = sources.sweep([kept], 0).values()
    assert size > 0
    assert list(sources.versions()) == [kept]
    with pytest.raises(DataGone):
        sources.profile("sales", lost)


def test_a_version_that_is_not_stored_lies_in_no_artifact(sources: Sources, lie: Lie) -> None:
    lie(FILES)
    pinned = sources.pin("sales", WHERE, store=False).digest
    assert sources.versions() == {pinned: ()}
    sources.pin("sales", WHERE)
    assert sources.versions()[pinned]
    sources.pin("sales", WHERE, store=False)
    assert sources.versions()[pinned]
