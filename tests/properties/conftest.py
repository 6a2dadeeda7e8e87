"""This file draws the same cases on every machine, and says how to draw a failing one again."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# On a busy machine even drawing may take its time.
settings.register_profile(
    "branchline", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("branchline")
