"""This file measures how soon a released revision is back: code, environment, data and results, from the store alone.

A service with a thousand files, 64 MB of data and a result of 64 MB is released by the commands that people type. Each
round everything that was laid out is taken away, the environment, too, and `branchline checkout` brings it back; beside
it `git worktree add` and `cp` of the same files take turns. Medians, and of the ratios the median of each round's.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.servers import SERVER

ROUNDS = 7
FILES = 1000
SIZE = 64 << 20
SLOWING = {"PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_START"}
ENVIRON = {name: value for name, value in os.environ.items() if name not in SLOWING}
SERVICE = """\
kind = "app"
serve = { command = ["python", "server.py", "well"] }
steps = { bytes = "steps:make" }
data = { raw = "data/*.bin" }
gates = { files = { command = ["test", "-f", "server.py"] } }
"""
STEPS = """\
from pathlib import Path


def make(raw):
    return next(Path(raw).iterdir()).read_bytes()[::-1]
"""


def ran(folder: Path, *command: str) -> str:
    """What a command prints."""
    done = subprocess.run(command, cwd=folder, env=ENVIRON, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stdout}\n{done.stderr}")
    return done.stdout.strip()


def typed(folder: Path, *words: str) -> str:
    """What a command of ours prints."""
    return ran(folder, sys.executable, "-P", "-m", "branchline.cli.main", *words)


def released(top: Path) -> dict[str, Any]:
    """Make a repository with a service, release it, and say what is laid out of it."""
    ran(top.parent, "git", "init", "-q", "-b", "main", str(top))
    for name, value in (("user.name", "bench"), ("user.email", "bench@localhost")):
        ran(top, "git", "config", name, value)
    ran(top, "git", "commit", "-q", "--allow-empty", "-m", "Begin")
    texts = {"branchline.toml": SERVICE, "steps.py": STEPS, "server.py": SERVER, "requirements.lock": "# nothing\n"}
    texts |= {f"notes/{number}.txt": f"{number}\n" * 100 for number in range(FILES)}
    texts |= {"EXPERIMENT.md": "# Hypothesis\nIt is soon back.\n\n# Metric\nseconds\n\n# Log\n- begun\n"}
    ran(top, "git", "switch", "-q", "-c", "experiment--big--bench")
    for name, text in texts.items():
        path = top / "big" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (top / "data").mkdir()
    (top / "data" / "raw.bin").write_bytes(os.urandom(SIZE))
    (top / ".gitignore").write_text("/data/\n")
    typed(top, "data", "update", "big")
    ran(top, "git", "add", "--all")
    ran(top, "git", "commit", "-q", "-m", "A big one")
    typed(top, "deploy")
    found: dict[str, Any] = json.loads(
        typed(top, "checkout", "big@1.0.0", "--into", str(top.parent / "first"), "--json")
    )
    return found


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def round_(top: Path, found: dict[str, Any], kept: Path) -> tuple[float, float]:
    """Seconds of ours and of git and cp, each with nothing laid out before."""
    python = Path(found["python"])
    laid = [python.parents[2], *map(Path, found["artifacts"].values()), *map(Path, found["data"].values())]
    if not kept.exists():
        for number, path in enumerate(laid):
            shutil.copytree(path, kept / str(number), symlinks=True)
    for path in (*laid, Path(found["artifacts"]["bytes"]).parents[1] / "trees"):
        shutil.rmtree(path)
    ours, plain, copies = top.parent / "ours", top.parent / "plain", top.parent / "copies"
    mine = seconds(lambda: typed(top, "checkout", "big@1.0.0", "--into", str(ours)))

    def others() -> None:
        ran(top, "git", "worktree", "add", "--detach", str(plain), found["commit"])
        ran(top, "cp", "-r", str(kept), str(copies))

    theirs = seconds(others)
    assert all(path.exists() for path in laid)
    for folder in (ours, plain):
        ran(top, "git", "worktree", "remove", "--force", str(folder))
    shutil.rmtree(copies)
    return mine, theirs


def main() -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "repo"
        try:
            found = released(top)
            taken = [round_(top, found, Path(folder) / "kept") for _ in range(ROUNDS + 1)][1:]
        finally:
            typed(top, "down")
    ours, theirs = zip(*taken, strict=True)
    ratio = statistics.median(mine / other for mine, other in taken)
    for name, these, times in (("branchline checkout", ours, ratio), ("git worktree add, cp", theirs, 1.0)):
        print(f"{name:<22} {statistics.median(these):6.2f} s   at most {max(these):6.2f} s   x {times:.2f}")


if __name__ == "__main__":
    main()
