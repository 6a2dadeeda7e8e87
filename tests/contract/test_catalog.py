"""This file says what every Catalog does: the fake and SQLite (I25)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.core.revision import GateResult, Result, Revision, StepRun
from branchline.errors import UnknownReference
from branchline.ports import Catalog
from tests.fakes.catalog import FakeCatalog


@pytest.fixture(params=["fake", "sqlite"])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    if request.param == "fake":
        yield FakeCatalog()
        return
    file = SqliteFile(tmp_path / "ledger.sqlite3")
    yield SqliteCatalog(file)
    file.close()


def built(commit: str = "a", branch: str = "experiment--housing--alex", service: str = "housing") -> Revision:
    return Revision(
        service, commit * 40, "", branch, "tree", "env", "sdk", '{"spec": 1}', (("train", "id"),), (("sales", "d"),),
        trained="b" * 40, author="alex", built=12.5,
    )  # fmt: skip


def test_a_build_gets_the_pre_release_of_what_it_would_become(catalog: Catalog) -> None:
    first = catalog.add(built("a"), "minor", 0)
    assert (first.version, first.final) == ("1.0.0-alex.1", False)
    assert catalog.add(built("b"), "minor", 0).version == "1.0.0-alex.2"
    catalog.finish("housing", "a" * 40)
    assert catalog.add(built("c"), "minor", 1).version == "1.1.0-alex.3"
    assert catalog.add(built("d", "experiment--housing--sam"), "minor", 1).version == "1.1.0-sam.1"
    assert catalog.add(built("e", "fix--housing--alex"), "patch", 1).version == "1.0.1-alex.1"


def test_what_was_added_is_read_again_as_it_was(catalog: Catalog) -> None:
    added = catalog.add(built(), "minor", 0)
    assert catalog.revision("housing", "a" * 40) == added
    assert (added.artifacts, added.data, added.built) == ((("train", "id"),), (("sales", "d"),), 12.5)
    assert (added.spec, added.trained, added.author) == ('{"spec": 1}', "b" * 40, "alex")


def test_the_same_commit_again_is_returned_as_it_is(catalog: Catalog) -> None:
    added = catalog.add(built(), "minor", 0)
    assert catalog.add(built(branch="experiment--housing--sam"), "major", 0) == added
    final = catalog.finish("housing", "a" * 40)
    assert catalog.add(built(), "minor", 0) == final
    assert catalog.revisions("housing") == (final,)


def test_a_final_version_is_given_once_and_never_again_I25(catalog: Catalog) -> None:
    for commit in "abc":
        catalog.add(built(commit), "minor", 0)
    versions = [catalog.finish("housing", commit * 40) for commit in "abc"]
    assert [each.version for each in versions] == ["1.0.0", "1.1.0", "1.2.0"]
    assert all(each.final for each in versions)
    assert catalog.finish("housing", "b" * 40).version == "1.1.0"
    assert catalog.revision("housing", "b" * 40).name == "housing@1.1.0"


def test_a_patch_and_a_major_follow_their_line(catalog: Catalog) -> None:
    for commit, bump, line in (("a", "minor", 0), ("b", "major", 0), ("c", "patch", 1), ("d", "minor", 2)):
        catalog.add(built(commit), bump, line)
        catalog.finish("housing", commit * 40)
    versions = [each.version for each in reversed(catalog.revisions("housing"))]
    assert versions == ["1.0.0", "2.0.0", "1.0.1", "2.1.0"]


def test_a_patch_is_named_after_what_it_mends(catalog: Catalog) -> None:
    """A minor that lost keeps its number, and a fix of the incumbent is no patch of that one."""
    patches = (("c", "patch", "1.0.0"), ("d", "patch", "1.0.1"))
    for commit, bump, after in (("a", "minor", ""), ("b", "minor", ""), *patches):
        catalog.add(built(commit), bump, 1, after)
        catalog.finish("housing", commit * 40)
    versions = [each.version for each in reversed(catalog.revisions("housing"))]
    assert versions == ["1.0.0", "1.1.0", "1.0.1", "1.0.2"]


def test_handles_that_meet_still_get_versions_of_their_own(catalog: Catalog) -> None:
    one = catalog.add(built("a", "experiment--housing--alex"), "minor", 0)
    other = catalog.add(built("b", "fix--housing--alex"), "patch", 0)
    assert {one.version, other.version} == {"1.0.0-alex.1", "1.0.0-alex.2"}


def test_services_do_not_share_versions(catalog: Catalog) -> None:
    catalog.add(built("a"), "minor", 0)
    catalog.add(built("a", service="listings"), "minor", 0)
    assert catalog.finish("housing", "a" * 40).version == catalog.finish("listings", "a" * 40).version == "1.0.0"


def test_revisions_are_newest_first(catalog: Catalog) -> None:
    for commit in "cab":
        catalog.add(built(commit), "minor", 0)
    catalog.finish("housing", "c" * 40)
    assert [each.commit[0] for each in catalog.revisions("housing")] == ["b", "a", "c"]
    assert catalog.revisions("nobody") == ()


def test_an_unknown_revision_is_said_to_be_unknown(catalog: Catalog) -> None:
    with pytest.raises(UnknownReference):
        catalog.revision("housing", "a" * 40)
    with pytest.raises(UnknownReference):
        catalog.finish("housing", "a" * 40)


def test_the_newest_evaluation_is_read(catalog: Catalog) -> None:
    old = GateResult("unit", Result.FAIL, "1 failed")
    new = (
        GateResult("unit", Result.PASS, "12 passed", (("passed", 12.0),), 0.5, "log"),
        GateResult("data", Result.INCONCLUSIVE, "no rows"),
    )
    assert catalog.gates("housing", "a" * 40) == ()
    catalog.keep_gates("housing", "a" * 40, [old])
    catalog.keep_gates("housing", "a" * 40, new)
    assert catalog.gates("housing", "a" * 40) == new
    assert catalog.gates("housing", "b" * 40) == ()


def test_the_newest_run_is_read_and_its_artifacts_are_found_by_key(catalog: Catalog) -> None:
    clean = StepRun("clean", "ran", "k1", "art1", 1.5, "1,319 rows")
    runs = (clean, StepRun("train", "failed", "k2", "", 2.0, "", "exit 1"))
    catalog.keep_run("housing", "a" * 40, runs)
    assert catalog.run("housing", "a" * 40) == runs
    assert [left(catalog, key) for key in ("k1", "k2", "k3")] == ["art1", "", ""]
    again = (StepRun("clean", "reused", "k1", "art1"), StepRun("train", "ran", "k2", "art2"))
    catalog.keep_run("housing", "a" * 40, again)
    assert catalog.run("housing", "a" * 40) == again
    assert left(catalog, "k2") == "art2"


def test_a_newer_result_under_a_key_is_the_one_to_use(catalog: Catalog) -> None:
    for artifact in ("broken", "whole"):
        catalog.keep_run("housing", "a" * 40, [StepRun("train", "ran", "k", artifact)])
    assert left(catalog, "k") == "whole"


def left(catalog: Catalog, key: str) -> str:
    """The newest artifact that may be reused under a key; '' for none."""
    return next((trace.artifact for trace in catalog.traces([key]).get(key, ())), "")


def test_versions_that_git_knows_are_never_given_I25(catalog: Catalog) -> None:
    catalog.add(built("a"), "minor", 0)
    catalog.finish("housing", "a" * 40)
    for _ in range(2):
        catalog.reserve("housing", {"1.0.0": "a" * 40, "1.1.0": "d" * 40, "1.2.0": "e" * 40, "nonsense": "f" * 40})
    catalog.add(built("b"), "minor", 1)
    assert catalog.finish("housing", "b" * 40).version == "1.3.0"
    assert [each.version for each in catalog.revisions("housing")] == ["1.3.0", "1.0.0"]
