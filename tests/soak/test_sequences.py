"""This file plays a thousand sequences of people's and machines' deeds over fakes (SOAK_SEQUENCES: how many)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine import asked, run

PARTS = 20


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(PARTS))
def test_no_sequence_violates_an_invariant(tmp_path: Path, seed: int) -> None:
    each = -(-asked(1040) // PARTS)
    assert len(run(tmp_path, each, seed=1000 + seed)) >= each
