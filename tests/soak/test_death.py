"""This file lets daemon, ledger and remote be dead for ten minutes under load: 0 requests fail (F63, 1.27, 1.52)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.test_death import outlived


@pytest.mark.timeout(3600)
def test_ten_minutes_of_death(tmp_path: Path) -> None:
    outlived(tmp_path, float(os.environ.get("SOAK_SECONDS", "600")))
