"""This file tests the grammar of names: what is a branch, a version, a reference, and that all else is none.

Requirements: 1.24 and 1.55, 1.56 (the names of branches); F8 (metacharacters never get further), F9 (case and Unicode).
"""

from __future__ import annotations

import pytest

from branchline.core import names
from branchline.core.names import Branch, Reference, Version
from branchline.errors import BadName

HOSTILE = [
    "", "-", "a-", "-a", "a--b", "A", "ä", "a_b", "a.b", "a b", "a\n", "a/b", "..", "@{", "$(id)", "`id`", ";", "a|b",
    "&", "${IFS}", "\u202ea", "ｈｏｕｓｉｎｇ", "--upload-pack=x", "a" * 41, "a\0b", "²",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_is_a_name_F8_F9(text: str) -> None:
    assert not names.is_word(text)
    with pytest.raises(BadName):
        names.checked("service", text)
    assert names.branch(f"experiment--{text}--alex") is None
    assert names.branch(f"experiment--housing--{text}") is None


@pytest.mark.parametrize("text", ["a", "housing", "a-1-b", "0", "a" * 40])
def test_a_word_is_a_name(text: str) -> None:
    assert names.checked("handle", text) == text


@pytest.mark.parametrize(
    ("name", "branch"),
    [
        ("experiment--housing--alex", Branch("experiment", "housing", "alex")),
        ("fix--housing--typo", Branch("fix", "housing", "typo")),
        ("fix--housing--typo--sam", Branch("fix", "housing", "typo", "experiment--housing--sam")),
    ],
)
def test_a_branch_is_its_name_1_24_1_55_1_56(name: str, branch: Branch) -> None:
    assert names.branch(name) == branch
    assert branch.name == name


@pytest.mark.parametrize(
    "name",
    ["main", "experiment--housing", "experiment--a--b--c", "fix--housing", "fix--a--b--c--d", "major--housing--1"],
)
def test_other_branches_mean_nothing(name: str) -> None:
    assert names.branch(name) is None


@pytest.mark.parametrize(
    ("person", "handle"),
    [
        ("Alex Ämple", "alex-mple"), ("alex.smith@example.invalid", "alex-smith"), ("---", ""),
        ("x" * 39 + " y", "x" * 39), ("x" * 50, "x" * 40),
    ],
)  # fmt: skip
def test_a_handle_is_made_as_well_as_it_goes(person: str, handle: str) -> None:
    assert names.handle_from(person) == handle


def test_versions_are_semantic_and_ordered() -> None:
    texts = ["0.0.1", "1.0.0", "1.2.3-alex.1", "10.20.30"]
    assert [str(names.version(text)) for text in texts] == texts
    for wrong in ("1", "1.2", "01.2.3", "1.2.3-", "v1.2.3", "1.2.3+x", "-1.0.0"):
        assert names.version(wrong) is None
    assert Version(1, 9, 0) < Version(1, 10, 0)


@pytest.mark.parametrize(
    ("taken", "bump", "line", "following"),
    [
        ("", "minor", 0, "1.0.0"),
        ("1.0.0-alex.1", "patch", 1, "1.0.0"),
        ("1.0.0 1.3.0", "minor", 0, "1.4.0"),
        ("1.0.0 1.3.0", "patch", 1, "1.3.1"),
        ("1.0.0 1.3.0", "major", 0, "2.0.0"),
        ("1.3.2 2.0.0", "patch", 1, "1.3.3"),
        ("1.3.2 2.0.0", "minor", 0, "2.1.0"),
        ("1.3.2", "minor", 3, "3.0.0"),
        ("", "minor", 3, "3.0.0"),
        ("", "major", 0, "1.0.0"),
    ],
)
def test_the_next_version_is_never_one_that_was_given(taken: str, bump: str, line: int, following: str) -> None:
    versions = [version for text in taken.split() if (version := names.version(text))]
    assert str(names.following(versions, bump, line)) == following


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("housing", Reference("housing", "service")),
        ("housing@1.2.3", Reference("housing", "version", "1.2.3")),
        ("housing@v1.2.3-sam.4", Reference("housing", "version", "1.2.3-sam.4")),
        ("housing@incumbent", Reference("housing", "role", "incumbent")),
        ("housing@production", Reference("housing", "role", "incumbent")),
        ("housing@challenger", Reference("housing", "role", "challenger")),
        ("housing@sam", Reference("housing", "branch", "experiment--housing--sam")),
        ("housing@fix--housing--typo", Reference("housing", "branch", "fix--housing--typo")),
        ("experiment--housing--sam", Reference("housing", "branch", "experiment--housing--sam")),
        ("0123456", Reference("", "commit", "0123456")),
        ("housing@abc1234", Reference("housing", "commit", "abc1234")),
        ("defaced", Reference("defaced", "service")),  # a word of these letters alone is a service before a commit
    ],
)
def test_a_reference_is_what_a_person_wrote(text: str, reference: Reference) -> None:
    assert names.reference(text) == reference


@pytest.mark.parametrize("text", ["", "@", "Housing", "housing@", "housing@..", "a b@1.0.0", "housing@$(id)"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(BadName):
        names.reference(text)
