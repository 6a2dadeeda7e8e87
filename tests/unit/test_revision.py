"""This file tests what a revision is called, and that one document has one digest (1.09, 1.16, I25)."""

from __future__ import annotations

from branchline.core.revision import Revision, digest


def test_a_revision_is_called_by_service_and_version() -> None:
    revision = Revision("housing", "0123456789", "1.2.3", "b", "t", "e", "s", "{}")
    assert (revision.name, revision.short) == ("housing@1.2.3", "0123456")


def test_one_document_has_one_digest() -> None:
    assert digest({"b": 1, "a": [1, "ü"]}) == digest({"a": [1, "ü"], "b": 1})
    assert digest([1, 2]) != digest([2, 1])
