"""This file draws the same cases on every machine, and says how to draw a failing one again."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("branchline", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("branchline")
