"""This file ends a demo before its end, as whoever has no keyboard does: nothing of it runs on, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.family import has_ended
from tests.waiting import wait_until


def test_a_demo_plays_in_no_folder_that_has_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine\n")
    command = [sys.executable, "-P", "-m", "branchline.cli.main", "demo", "--folder", str(tmp_path)]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (told.returncode, "is not empty" in told.stderr) == (2, True)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_ends_a_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    """Killer: let `--keep` hold for a story that was not told to its end, or let a TERM end the demo at once."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    command = [sys.executable, "-P", "-m", "branchline.cli.main", "demo", "--only", "listings", "--keep"]
    environ = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as demo:
        try:
            written = "branchline-demo-*/realty/.git/branchline/daemon.json"
            assert wait_until(lambda: any(scratch.glob(written)), seconds=120)
            (told,) = scratch.glob(written)
            assert wait_until(lambda: told.read_text(encoding="utf-8").endswith("}"))
            pid = json.loads(told.read_text(encoding="utf-8"))["pid"]
            demo.send_signal(number)
            said, _ = demo.communicate(timeout=120)
        finally:
            demo.kill()
    assert demo.returncode == 128 + number, said
    assert "interrupted; stopping what was begun" in said
    assert has_ended(pid)
    assert wait_until(lambda: not any(str(scratch) in word for word in words()))
    assert not [*scratch.glob("branchline-demo-*")]


def words() -> list[str]:
    """What all processes were started with; nothing of those that are gone or another's."""
    return [word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ()]
