"""This file finds the processes that a test has begun, and says whether one has ended."""

from __future__ import annotations

import psutil


def children_with(word: str) -> list[psutil.Process]:
    """The children of this process that have a word in their command line; who ended and waits for nobody has none."""
    found = []
    for child in psutil.Process().children():
        try:
            if word in child.cmdline():
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
