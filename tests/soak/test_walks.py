"""This file walks the law at random for long: ten branches, two majors, fixes, syncs, deaths, a million steps."""

from __future__ import annotations

import pytest

from tests.walks import walks


@pytest.mark.parametrize("seed", range(16))
def test_walks(seed: int) -> None:
    assert walks(count=500, length=125, seed=1000 + seed) < 20
