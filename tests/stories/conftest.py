"""This file gives a test of the engine a world of fakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import World


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state folder for all worlds: what lies there is named by its content."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture
def world(shared_state: Path) -> World:
    """A controller over fakes; nothing has happened yet."""
    return World(shared_state)
