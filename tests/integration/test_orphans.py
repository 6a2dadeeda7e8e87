"""This file tests that a process that is being started while somebody looks is taken for nobody's orphan."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.processes_probe import orphans
from branchline.ports import Stray

NONCE = "0123456789abcdef"


@pytest.fixture
def pid(runtime_dir: Path) -> Iterator[int]:
    """A process that serves, as far as its environment says."""
    env = {"PATH": os.environ["PATH"], "BRANCHLINE_SOCKET": f"{runtime_dir}/{NONCE}.0.sock"}
    with subprocess.Popen(["sleep", "600"], env=env) as process:
        yield process.pid
        process.kill()


def test_who_is_begun_while_all_are_looked_at_is_no_orphan(runtime_dir: Path, pid: int) -> None:
    """Killer: ask who is known before the look alone, and parity tells a person to kill what has just been started."""
    asked: list[int] = []

    def known() -> list[str]:
        asked.append(pid)
        return [NONCE] if len(asked) > 1 else []

    assert orphans(runtime_dir, known) == []
    assert orphans(runtime_dir, list) == [Stray("orphan", pid, NONCE, NONCE)]
