"""This file kills the daemon hundreds of times while it concludes: each conclusion ends with one merge or none (I2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.test_kills import concluded_under_kills


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(2))
def test_conclusions_end_once_after_hundreds_of_kills(tmp_path: Path, seed: int) -> None:
    concluded_under_kills(tmp_path, int(os.environ.get("SOAK_KILLS", "200")), seed=seed)
