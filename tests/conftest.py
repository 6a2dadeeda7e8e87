"""This file gives every test a home of its own, and notices what a test leaves behind.

Set before anything is collected: an empty HOME, a git configuration of our own, a short run-time folder (a socket's
path has at most 107 bytes), and none of the variables by which a developer's machine leaks in. uv's cache alone is
shared between sessions, in `.cache/uv`, for environments are what takes time.
Noticed at the end: a changed environment or folder (each test), a process that still runs (each session).
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests import prometheus
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]
LEAKS = ("GIT_", "BRANCHLINE_", "XDG_", "CLICOLOR", "SSH_", "LC_", "COV_")
LEAKING = {
    "CI",
    "COLUMNS",
    "LINES",
    "NO_COLOR",
    "FORCE_COLOR",
    "PAGER",
    "LESS",
    "BROWSER",
    "EDITOR",
    "VISUAL",
    "LANG",
    "TZ",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONWARNINGS",
    "PYTHONHASHSEED",
}
GIT_CONFIG = """\
[user]
    name = Test
    email = test@example.invalid
[init]
    defaultBranch = main
[commit]
    gpgSign = false
[tag]
    gpgSign = false
[gc]
    auto = 0
[maintenance]
    auto = false
"""
MORE_WORKERS = 4  # at most, than cores: each has a gateway and services of its own in memory
HOME = pytest.StashKey[Path]()
BEGUN = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make docs` write what the tests otherwise compare."""
    parser.addoption("--write-docs", action="store_true", help="write the printed parts of the pages")


def pytest_configure(config: pytest.Config) -> None:
    """Move this process, and all that it starts, into a home of its own."""
    home = Path(tempfile.mkdtemp(prefix="bl-", dir="/tmp"))
    config.stash[HOME], config.stash[BEGUN] = home, time.time()
    gc.disable()  # until all is collected: hardly any of it goes, and it is looked through ever again
    for name in [name for name in os.environ if name in LEAKING or name.startswith(LEAKS)]:
        del os.environ[name]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins deaf to Ctrl-C
    (home / ".gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    (home / "run").mkdir(mode=0o700)
    os.environ |= {
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_TERMINAL_PROMPT": "0",
        "XDG_RUNTIME_DIR": str(home / "run"),
        "UV_SYSTEM_CERTS": "1",
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(ROOT / ".cache" / "uv")),
    }


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the home."""
    shutil.rmtree(config.stash[HOME], ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what nobody would notice else: that files for Prometheus were read by our own reader only."""
    if why := prometheus.missing(config.stash[BEGUN]):
        terminalreporter.write_line(
            f"without promtool and Prometheus, for this machine has neither them nor their package ({why}): "
            "what they would have read was read by tests/exposition.py alone"
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what prints a page, for `make docs` to find."""
    for item in items:
        if "printed" in getattr(item, "fixturenames", ()):
            item.add_marker("printed")


def pytest_collection_finish() -> None:
    """Look for garbage from here on, and in nothing that was there before."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many workers `-n auto` starts: more than cores, as half of a test's time is waiting for processes."""
    cores = os.cpu_count() or 1
    return cores + min(cores, MORE_WORKERS)


@pytest.fixture
def printed(pytestconfig: pytest.Config) -> Callable[[str, str, str], None]:
    """Hold a part of a page to what the code prints: call it with page, name of the part, and text.

    A part stands between the lines `<!-- printed: NAME -->` and `<!-- /printed -->`. `make docs` writes it anew.
    """

    def compare(page: str, name: str, text: str) -> None:
        path = ROOT / page
        whole = path.read_text(encoding="utf-8")
        head, opened, rest = whole.partition(f"<!-- printed: {name} -->\n")
        now, closed, tail = rest.partition("<!-- /printed -->")
        assert closed, f"{page} has no part {name!r}"
        wanted = text.strip("\n") + "\n"
        if pytestconfig.getoption("--write-docs"):
            path.write_text("".join((head, opened, wanted, closed, tail)), encoding="utf-8")
        else:
            assert now == wanted, f"{page} is behind the code; to print it: make docs"

    return compare


@pytest.fixture(scope="session", autouse=True)
def no_process_left(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail the session whose tests leave a process running, and end that process."""
    homes = [str(pytestconfig.stash[HOME])]
    yield
    # Not getbasetemp(): where nobody asked for a folder it makes one, and then clears away those of older sessions.
    if tmp_path_factory._basetemp:
        homes.append(str(tmp_path_factory._basetemp))
    left: list[psutil.Process] = []
    above = {os.getpid(), *(each.pid for each in psutil.Process().parents())}

    def none_left() -> bool:
        left[:] = [each for each in psutil.process_iter() if each.pid not in above and belongs(each, homes)]
        return not left

    if not wait_until(none_left, seconds=10):
        told = [f"{process.pid}: {' '.join(process.cmdline())}" for process in left if process.is_running()]
        for process in left:
            process.kill()
        pytest.fail("left running:\n" + "\n".join(told), pytrace=False)


def belongs(process: psutil.Process, homes: list[str]) -> bool:
    """Whether a process, however detached, was started by this session: it lives in a folder of ours."""
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.ppid() == os.getpid() and process.cmdline()[-2:] == ["cat-file", "--batch"]:
            return False  # what a mirror reads through ends with us: test_git_objects holds it to that
        words = [process.environ().get("HOME", ""), process.cwd(), *process.cmdline()]
    except psutil.Error:
        return False
    return any(f"{home}/" in f"{word}/" for word in words for home in homes)


def environment() -> dict[bytes, bytes]:
    """The environment as it is kept: to decode it twice a test takes longer than most unit tests."""
    return dict(vars(os.environ)["_data"])


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail the test that changes the environment or the current folder for the next one (use monkeypatch)."""
    before, folder = environment(), os.getcwd()
    yield
    after, here = environment(), os.getcwd()
    for name in (b"PYTEST_CURRENT_TEST", b"PYTEST_VERSION"):
        before.pop(name, None), after.pop(name, None)
    if (before, folder) != (after, here):
        os.chdir(folder)
        changed = sorted(os.fsdecode(n) for n in before.keys() | after.keys() if before.get(n) != after.get(n))
        pytest.fail(f"left the environment changed: {changed}, folder {here}", pytrace=False)


@pytest.fixture
def runtime_dir(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A folder with a path short enough for sockets (under 30 bytes), this test's own, 0700."""
    folder = Path(tempfile.mkdtemp(prefix="", dir=pytestconfig.stash[HOME] / "run"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
