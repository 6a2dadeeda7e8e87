"""This file finds the processes that a test has begun, and says whether one has ended."""

from __future__ import annotations

from pathlib import Path

import psutil


def children_with(start: str, at: Path | None = None) -> list[psutil.Process]:
    """The children of this process with a word that starts so in their command line, or those of them that work at a
    folder; who ended and waits for nobody has neither.
    """
    found = []
    for child in psutil.Process().children():
        try:
            if any(word.startswith(start) for word in child.cmdline()) and (at is None or Path(child.cwd()) == at):
                found.append(child)
        except psutil.Error:
            continue
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has ended; one that nobody collected has, and one that is collected while it is asked about."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
