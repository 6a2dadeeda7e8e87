"""This file tests what a revision is called, and that a step's key holds all that may change its result.

Requirements: 1.09, 1.16, 3.03; I14 (reuse only for the identical), I25.
"""

from __future__ import annotations

from typing import Any

import pytest

from branchline.core.revision import Revision, digest, step_key

PARTS: dict[str, Any] = {
    "step": "train=steps:train", "tree": "t", "environment": "e", "parameters": {"rate": "3"},
    "data": {"sales": "d"}, "inputs": {"clean": "k"}, "sdk": "s",
}  # fmt: skip


def test_a_revision_is_called_by_service_and_version() -> None:
    revision = Revision("housing", "0123456789", "1.2.3", "b", "t", "e", "s", "{}")
    assert (revision.name, revision.short) == ("housing@1.2.3", "0123456")


def test_one_document_has_one_digest() -> None:
    assert digest({"b": 1, "a": [1, "ü"]}) == digest({"a": [1, "ü"], "b": 1})
    assert digest([1, 2]) != digest([2, 1])


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_key_counts_I14(part: str) -> None:
    other = {"x": "y"} if isinstance(PARTS[part], dict) else "other"
    assert step_key(**PARTS) == step_key(**PARTS)
    assert step_key(**PARTS | {part: other}) != step_key(**PARTS)
