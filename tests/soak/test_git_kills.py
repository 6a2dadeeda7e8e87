"""This file kills whoever concludes thousands of times: each conclusion ends exactly once (I1, I2, I25)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.concluding import check_each_was_concluded_once, kill_often


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("remote", [True, False], ids=["remote", "alone"])
def test_a_conclusion_ends_once_after_thousands_of_kills(tmp_path: Path, remote: bool, seed: int) -> None:
    world = kill_often(tmp_path, remote=remote, kills=250, seed=seed, services=20)
    check_each_was_concluded_once(world, 20)
