"""This file gives a test of the engine a world of fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A controller over fakes; nothing has happened yet."""
    return World(tmp_path)
