"""This file plays some of the very sequences that fakes play on real git, SQLite, processes and Envoy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ground import played_really
from tests.machine import run

PARTS, EACH = 10, 5


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(PARTS))
def test_the_same_sequences_hold_on_real_parts(tmp_path: Path, runtime_dir: Path, seed: int) -> None:
    """50 of them: those of a seed with the most deeds, played on fakes first."""
    stages = sorted(run(tmp_path / "fakes", 2 * EACH, seed=1000 + seed), key=lambda each: -len(each.deeds))
    for number, stage in enumerate(stages[:EACH]):
        played_really(stage, tmp_path / f"real-{number}", runtime_dir / str(number))
