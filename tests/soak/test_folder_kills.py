"""This file kills the artifact store at every line of a put and of a sweep (I13); `make test` does so at every 41st."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.integration.test_folder_kills import ROOT, WRITER


@pytest.mark.parametrize("first", range(4))
@pytest.mark.parametrize("deed", ["put", "sweep"])
def test_kill_9_at_every_line_of_a_deed_I13(tmp_path: Path, deed: str, first: int) -> None:
    argv = [*WRITER, "boundaries", str(tmp_path), deed, str(first), "4"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 100
