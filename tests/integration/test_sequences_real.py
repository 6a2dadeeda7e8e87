"""This file plays a few drawn sequences of deeds on real git, SQLite, processes and Envoy; `make soak` plays fifty."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ground import played_really
from tests.machine import run


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_sequence_that_fakes_have_played_holds_on_real_parts(tmp_path: Path, runtime_dir: Path, seed: int) -> None:
    """Of some sequences the one with the fewest deeds that still had a challenger and an event after it."""
    stages = run(tmp_path / "fakes", 8, seed=2000 + seed, steps=8)
    eventful = [each for each in stages if each.service.generation >= 8] or stages
    played_really(min(eventful, key=lambda each: len(each.deeds)), tmp_path / "real", runtime_dir)
