"""This file is what the fake of git is made of: commits as trees of text, by path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OURS = "branchline <branchline@localhost>"


@dataclass(frozen=True)
class Commit:
    """A tree of texts, where it comes from, and what was said."""

    files: Mapping[str, str]
    parents: tuple[str, ...]
    message: str
    author: str
    at: int


def text_of(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def within(path: str, closure: Sequence[str]) -> bool:
    return any(top == "" or path == top or path.startswith(top + "/") for top in closure)
