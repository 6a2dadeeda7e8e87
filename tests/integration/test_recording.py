"""This file tests what the recorder hears of a step (2.02, 2.04), on every Python found here; ids name them."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stepping import Project, Stepper, interpreters


@pytest.fixture(scope="module", params=sorted(interpreters().items()), ids=operator.itemgetter(0))
def python(request: pytest.FixtureRequest) -> Iterator[Stepper]:
    stepper = Stepper(request.param[1])
    yield stepper
    stepper.close()


@pytest.fixture
def project(tmp_path: Path, python: Stepper) -> Project:
    root = tmp_path / "tree"
    root.mkdir()
    return Project(root, python)


def test_python_3_11_is_always_here() -> None:
    print(*interpreters().items(), sep="\n")
    assert any(version.startswith("3.11.") for version in interpreters())


# Each way to meet something, and what is told of it. "sql/q.sql" is there, "absent" is not.
READS = {
    "open": ("return open('sql/q.sql').read()", [("file", "sql/q.sql")]),
    "pathlib": ("return Path('sql', 'q.sql').read_text()", [("file", "sql/q.sql")]),
    "absolute": ("return Path(__file__).with_name('sql').joinpath('q.sql').read_text()", [("file", "sql/q.sql")]),
    "bytes": ("return open(b'sql/../sql/q.sql').read()", [("file", "sql/q.sql")]),
    "os.open": ("return os.read(os.open(Path('sql/q.sql'), os.O_RDONLY), 9)", [("file", "sql/q.sql")]),
    "dir_fd": (
        "return os.open('q.sql', os.O_RDONLY, dir_fd=os.open('sql', os.O_RDONLY | os.O_DIRECTORY)) > 0",
        [("file", "q.sql"), ("file", "sql/q.sql")],
    ),
    "fails": ("try: open('absent')\nexcept OSError: return 'no'", [("file", "absent")]),
    "once": ("return [open('sql/q.sql').read() for _ in range(3)]", [("file", "sql/q.sql")]),
    "other folder": ("os.chdir('sql')\nreturn open('q.sql').read()", [("file", "sql/q.sql")]),
    "update": ("return open('sql/q.sql', 'r+').read()", [("file", "sql/q.sql")]),
    "package data": ("import pkgutil\nreturn pkgutil.get_data('step', 'sql/q.sql')", [("file", "sql/q.sql")]),
    "sqlite": (
        "import sqlite3\nsqlite3.connect(':memory:')\nsqlite3.connect('sql/q.sql')\n"
        "try: sqlite3.connect('file:sql/a%20b.db?mode=ro', uri=True)\nexcept sqlite3.Error: return 'no'",
        [("file", "sql/a b.db"), ("file", "sql/q.sql")],
    ),
    "dlopen": (
        "import ctypes\nctypes.CDLL(None)\ntry: ctypes.CDLL('./sql/q.sql')\nexcept OSError: return 'no'",
        [("file", "sql/q.sql")],
    ),
    "thread": (
        "import threading\nthread = threading.Thread(target=lambda: open('sql/q.sql').read())\n"
        "thread.start()\nreturn thread.join()",
        [("file", "sql/q.sql")],
    ),
    "fork": (
        "pid = os.fork()\nif pid == 0:\n    open('sql/q.sql').read()\n    os._exit(0)\nreturn os.waitpid(pid, 0)[1]",
        [("file", "sql/q.sql")],
    ),
    "source": (
        "import inspect\nreturn inspect.getsource(sys.modules['step'])[:4]",
        [("stat", "step.py"), ("file", "step.py")],
    ),
    "traceback as text": (
        "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: return len(traceback.format_exc())",
        [("stat", "step.py"), ("file", "step.py")],
    ),
    "listdir": ("return os.listdir('sql')", [("listing", "sql")]),
    "listdir of the root": ("return len(os.listdir())", [("listing", "")]),
    "listdir of a descriptor": (
        "return os.listdir(os.open('sql', os.O_RDONLY | os.O_DIRECTORY))",
        [("listing", "sql")],
    ),
    "iterdir": ("return [each.name for each in Path('sql').iterdir()]", [("listing", "sql")]),
    "glob": ("import glob\nreturn glob.glob('sql/*.sql')", [("listing", "sql")]),
    "Path.glob": ("return [*Path('sql').glob('*.sql')]", [("listing", "sql")]),
    "walk": ("return [*os.walk('sql')]", [("listing", "sql")]),
    "scandir tells sizes": (
        "return [each.stat().st_size for each in os.scandir('sql')]",
        [("listing", "sql"), ("stat", "sql/q.sql")],
    ),
    "stat": ("return os.stat('sql/q.sql').st_size", [("stat", "sql/q.sql")]),
    "lstat": ("return os.lstat(path='sql/q.sql').st_size", [("stat", "sql/q.sql")]),
    "access": ("return os.access('absent', os.R_OK, follow_symlinks=True)", [("stat", "absent")]),
    "exists": ("return os.path.exists('absent')", [("stat", "absent")]),
    "is_file": ("return Path('sql/q.sql').is_file()", [("stat", "sql/q.sql")]),
    "isdir": ("return os.path.isdir('sql')", [("stat", "sql")]),
    "stat at a descriptor": (
        "return os.stat('q.sql', dir_fd=os.open('sql', os.O_RDONLY | os.O_DIRECTORY)).st_size",
        [("stat", "sql/q.sql")],
    ),
    "fstat": (
        "return os.stat(os.open('sql/q.sql', os.O_RDONLY)).st_size",
        [("file", "sql/q.sql"), ("stat", "sql/q.sql")],
    ),
    "computed import": (
        "import importlib\ntry: importlib.import_module('ab' + 'sent')\nexcept ImportError: return 'no'",
        [("module", "absent")],
    ),
    "import that fails": ("try: import absent.below\nexcept ImportError: return 'no'", [("module", "absent")]),
    "dunder import": ("return __import__('ot' + 'her').ONE", [("module", "other")]),
    "find_spec": ("import importlib.util\nreturn importlib.util.find_spec('absent')", [("module", "absent")]),
    "of a package": (
        "import importlib\nreturn importlib.import_module('package.' + 'inner').ONE",
        [("module", "package"), ("module", "package.inner")],
    ),
    "submodule that is not there": (
        "try: from package import absent\nexcept ImportError: return 'no'",
        [("module", "package"), ("module", "package.absent")],
    ),
    "pickle": (
        "import pickle\nreturn pickle.loads(b'cother\\nThing\\n.').__name__",
        [("module", "other")],
    ),
    "run_path": ("import runpy\nreturn runpy.run_path('sql/q.sql') and 1", [("file", "sql/q.sql")]),
    "file by its place": (
        "from importlib.util import module_from_spec, spec_from_file_location\n"
        "spec = spec_from_file_location('x', Path('package', 'no-name.py').absolute())\n"
        "return spec.loader.exec_module(module_from_spec(spec))",
        [("file", "package/no-name.py")],
    ),
    "variable": ("return os.environ.get('A')", [("variable", "A")]),
    "getenv": ("return os.getenv('A'), os.path.expandvars('$B')", [("variable", "A"), ("variable", "B")]),
    "in": ("return 'A' in os.environ", [("variable", "A")]),
    "variable of bytes": ("return os.environb.get(b'A')", [("variable", "A")]),
    "variable that a library reads": ("import tempfile\ntempfile.tempdir = None\ntempfile.gettempdir()", []),
    "machine": (
        "return open('/etc/hosts').read(), Path('/proc/loadavg').read_text() and 1",
        [("outside", "/etc/hosts"), ("outside", "/proc/loadavg")],
    ),
    "variable that is set": ("return os.environ['HOME'] and 1", []),
}  # fmt: skip
BESIDES = {("stat", "sql")}  # some versions of the standard library ask for a folder before they list it


@pytest.mark.parametrize("way", READS)
def test_each_fact_is_told_once(project: Project, way: str) -> None:
    body, facts = READS[way]
    found = [fact[:2] for fact in project.facts(body)]
    assert sorted(set(facts) | (set(found) & BESIDES)) == sorted(found), project.result
    assert "Error" not in project.result


# What depends on nothing: the step's own files, and what Python reads for people.
NOTHING = {
    "written": "Path('new').write_text('1')\nreturn Path('new').read_text(), os.path.exists('new')",
    "replaced": "open('sql/q.sql', 'w').close()\nreturn open('sql/q.sql').read()",
    "renamed": "open('new', 'x').close()\nos.replace('new', 'other')\nreturn open('other').read()",
    "linked": "Path('new').write_text('1')\nos.link('new', 'a')\nreturn Path('a').read_text(), os.path.exists('a')",
    "symbolic": "Path('new').write_text('1')\nos.symlink('new', 'a')\nreturn Path('a').read_text()",
    "made folder": "os.makedirs('made/below')\nopen('made/below/new', 'w').close()\nreturn os.listdir('made/below')",
    "appended": "with open('new', 'a') as file: file.write('1')",
    "warning": "import warnings\nwarnings.warn('careful')",
    "logged": "import logging\ntry: 1 / 0\nexcept ZeroDivisionError: logging.exception('no')",
    "traceback": "import traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()",
    "scratch": "import tempfile\nwith tempfile.NamedTemporaryFile() as file: return Path(file.name).read_text()",
    "machine": "return open('/dev/null').read(), os.listdir('/etc') and 1",
    "standard library": "import json, email.mime.text, tomllib, xml.etree.ElementTree\nreturn 1",
    "metadata": "from importlib.metadata import entry_points\nreturn entry_points(group='x')",
    "class body": "class A:\n    def f(self): return 1\nreturn A().f(), [x for x in (1,)], (lambda: 1)()",
}  # fmt: skip


@pytest.mark.parametrize("way", NOTHING)
def test_what_depends_on_nothing_is_no_fact(project: Project, way: str) -> None:
    found = [fact for fact in project.facts(NOTHING[way]) if fact[0] != "stat" or way in ("written", "replaced")]
    assert (found, project.result.partition("Error")[1]) == ([], "")


def test_a_folder_that_was_there_is_not_the_step_s_own(project: Project) -> None:
    assert ("listing", "sql") in project.facts("os.makedirs('sql', exist_ok=True)\nreturn os.listdir('sql')")


def test_what_the_step_failed_to_write_is_not_its_own(project: Project) -> None:
    body = """
try: os.mkdir("sql/q.sql/below")
except OSError: pass
try: open("sql", "w")
except OSError: pass
try: os.rename("absent", "other.py")
except OSError: pass
return open("other.py").read(), os.listdir("sql")
"""
    assert project.facts(body) == [("file", "other.py"), ("listing", "sql")]


def test_a_file_that_a_package_asks_for_counts_with_its_content(project: Project, tmp_path: Path) -> None:
    """It may be read in C, unseen."""
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "arrow.py").write_text("import os\ndef read(path): return os.path.exists(path)\n")
    body = "sys.path.append('../site-packages')\nimport arrow\nreturn arrow.read('sql/q.sql'), arrow.read('sql')"
    assert project.facts(body, {"allowed": [str(site)]}) == [
        ("module", "arrow"),
        ("stat", "sql/q.sql"),
        ("file", "sql/q.sql"),
        ("stat", "sql"),
    ]


def test_a_time_zone_is_not_outside(project: Project) -> None:
    found = project.facts("from zoneinfo import ZoneInfo\nreturn ZoneInfo('Europe/Berlin').key")
    assert [fact for fact in found if fact[0] == "outside"] == []


def test_what_a_package_reads_of_the_machine_is_no_fact(project: Project, tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    site.mkdir()
    (site / "cores.py").write_text("def count(): return open('/proc/cpuinfo').read().count('processor')\n")
    body = "sys.path.append('../site-packages')\nimport cores\nreturn cores.count() and 1"
    assert project.facts(body, {"allowed": [str(site)]}) == [("module", "cores")]


def test_the_project_may_be_named_by_a_link(project: Project) -> None:
    link = project.root.parent / "link"
    link.symlink_to(project.root)
    real, project.root = project.root, link
    found = project.facts(f"return open('{real}/sql/q.sql').read(), Path('{link}/other.py').resolve().read_text()")
    assert [fact for fact in found if fact[0] != "stat"] == [("file", "sql/q.sql"), ("file", "other.py")]


def test_a_link_is_told_with_what_it_leads_to(project: Project) -> None:
    outside = project.root.parent / "outside"
    outside.write_text("")
    (project.root / "link").symlink_to("sql")
    (project.root / "away").symlink_to("../outside")
    assert project.facts("return open('link/q.sql').read(), os.listdir('link'), open('away').read()") == [
        ("file", "link/q.sql"),
        ("file", "sql/q.sql"),
        ("listing", "link"),
        ("listing", "sql"),
        ("file", "away"),
        ("outside", str(outside), "step.py:5"),
    ]


def test_allowed_folders_may_lie_inside_the_project_and_it_inside_of_them(project: Project) -> None:
    body = "return open('sql/q.sql').read(), open('other.py').read()"
    allowed = [str(project.root / "sql"), str(project.root.parent)]
    assert project.facts(body, {"allowed": allowed}) == [("file", "other.py")]


def test_what_cannot_be_asked_for_again_is_told_with_its_place(project: Project) -> None:
    """BL301, BL302, BL306, BL307."""
    outside = project.root.parent / "outside"
    outside.mkdir()
    (outside / "x.csv").write_text("")
    body = f"""
os.system("true x")
import subprocess, socket
subprocess.run("/bin/echo x", shell=True, stdout=subprocess.DEVNULL)
subprocess.run(["/bin/true", "x"])
if os.fork() == 0: os.execv("/bin/cat", ["cat", "/dev/null"])
os.wait()
try: socket.create_connection(("127.0.0.1", 1), 1)
except OSError: pass
local = socket.socket(socket.AF_UNIX)
try: local.connect("sock")
except OSError: pass
local.close()
open("{outside}/x.csv").close()
os.listdir("{outside}")
try: open("{outside}/absent")
except OSError: pass
os.environ.get("NAME")
"""
    found = project.facts(body)
    assert found == [
        ("child", "true", "step.py:5"),
        ("child", "/bin/echo", "step.py:7"),
        ("child", "/bin/true", "step.py:8"),
        ("child", "cat", "step.py:9"),
        ("network", "127.0.0.1:1", "step.py:11"),
        ("network", "sock", "step.py:14"),
        ("outside", f"{outside}/x.csv", "step.py:17"),
        ("outside", str(outside), "step.py:18"),
        ("variable", "NAME", "step.py:21"),
    ]


def test_a_probe_of_the_standard_library_is_no_child(project: Project) -> None:
    found = project.facts("import platform, subprocess\nplatform.processor()\nsubprocess.run(['uname'], stdout=-3)")
    assert [fact for fact in found if fact[0] == "child"] == [("child", "uname", "step.py:7")]


def test_a_file_of_the_tree_that_is_not_the_project_s_is_outside(project: Project) -> None:
    """Nobody could say that it changed; a file that is not there could come, and is a fact."""
    body = """
open('sql/q.sql').close()
open('other.py').close()
open('package/inner.py').close()
return os.path.exists('absent'), os.path.isdir('sql')
"""
    assert project.facts(body, {"files": ["step.py", "other.py", "package"]}) == [
        ("outside", str(project.root / "sql/q.sql"), "step.py:5"),
        ("file", "other.py"),
        ("file", "package/inner.py"),
        ("stat", "absent"),
        ("stat", "sql"),
    ]
