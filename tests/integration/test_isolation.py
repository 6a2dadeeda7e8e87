"""This file switches on each leak that `tests/conftest.py` guards against, in a session of its own, and sees it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.family import has_ended
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


def session(folder: Path, source: str, *arguments: str, **leaks: str) -> subprocess.CompletedProcess[str]:
    """Run a test file under our conftest, in a process whose environment leaks `leaks` in."""
    path = folder / "test_it.py"
    path.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    command += ["--rootdir", str(folder), "-c", os.devnull, str(path), *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | leaks, capture_output=True, text=True)


def test_a_process_left_behind_fails_the_session_and_is_ended(tmp_path: Path) -> None:
    source = f"""
import pathlib, subprocess, sys
def test_detaches():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
    child.returncode = 0
"""
    ended = session(tmp_path, source)
    assert ended.returncode == 1, ended.stdout
    assert "left running" in ended.stdout
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    assert wait_until(lambda: has_ended(pid))


def test_a_changed_environment_fails_the_test_that_changed_it(tmp_path: Path) -> None:
    ended = session(tmp_path, "import os\ndef test_it(): os.environ['LEFT'] = 'x'\ndef test_next(): pass\n")
    assert "left the environment changed: ['LEFT']" in ended.stdout
    assert "2 passed, 1 error" in ended.stdout


def test_a_changed_folder_fails_the_test_and_is_left(tmp_path: Path) -> None:
    source = "import os, pathlib\ndef test_it(): os.chdir('/')\ndef test_next(): assert pathlib.Path.cwd().name\n"
    assert "2 passed, 1 error" in session(tmp_path, source).stdout


def test_nothing_of_the_machine_leaks_in(tmp_path: Path) -> None:
    """HOME is empty, git knows only our configuration, and a developer's variables are gone."""
    source = """
import os, pathlib, subprocess
def test_it(runtime_dir):
    assert {path.name for path in pathlib.Path.home().iterdir()} == {".gitconfig", "run"}
    listed = subprocess.run(["git", "config", "--list", "--show-origin"], capture_output=True, text=True, cwd="/")
    assert {line.split("\\t")[0] for line in listed.stdout.splitlines()} == {f"file:{pathlib.Path.home()}/.gitconfig"}
    assert not {"GIT_DIR", "BRANCHLINE_STATE", "NO_COLOR", "PYTHONDONTWRITEBYTECODE"} & set(os.environ)
    assert len(str(runtime_dir)) < 30 and runtime_dir.stat().st_mode & 0o777 == 0o700
"""
    leaks = {"GIT_DIR": "/nowhere", "BRANCHLINE_STATE": "/nowhere", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    ended = session(tmp_path, source, HOME=str(ROOT), **leaks)
    assert "1 passed" in ended.stdout, ended.stdout


PAGE = "def test_it(printed): printed({page!r}, 'table', 'new')\n"


def test_a_page_behind_the_code_is_seen_and_written_by_make_docs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- printed: table -->\nold\n<!-- /printed -->\nafter\n", encoding="utf-8")
    source = PAGE.format(page=str(page))
    assert "is behind the code" in session(tmp_path, source).stdout
    assert session(tmp_path, source, "--write-docs", "-m", "printed").returncode == 0
    assert page.read_text(encoding="utf-8") == "before\n<!-- printed: table -->\nnew\n<!-- /printed -->\nafter\n"
    assert session(tmp_path, source).returncode == 0
