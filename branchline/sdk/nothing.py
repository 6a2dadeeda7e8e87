"""This file is imported and called as a step would be, to no effect: a rehearsal (see `run.rehearse`)."""

from __future__ import annotations


def nothing() -> None:
    """Do nothing."""
