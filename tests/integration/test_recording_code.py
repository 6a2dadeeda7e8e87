"""This file tests what the recorder hears of code, modules and worker processes, and that it changes nothing else."""

from __future__ import annotations

import operator
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.sdk.record import heard
from tests.stepping import CALL, ROOT, Project, Stepper, interpreters


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


# ------------------------------------------------------------------------------------------------------------- code

HELPERS = """
import functools, operator
def covered(): return helper()
def helper(): return 1
def unused(): return 2
class Kind:
    size = len("abc")
    def method(self): return [each for each in (1,)]
TABLE = sorted([2, 1], key=lambda each: -each)
def decorated(f):
    @functools.wraps(f)
    def wrapper(): return f()
    return wrapper
@decorated
def wrapped(): return 3
PAIR, = sorted([2], key=lambda each: -each)
"""
CODE = {
    "helper": ("return helpers.covered()", ["covered"], ["helper"]),
    "class": ("return getattr(helpers, 'Ki' + 'nd')().method()", [], ["Kind"]),
    "wrapper": ("return helpers.wrapped()", ["wrapped"], []),
    "thread": (
        "import threading\nthread = threading.Thread(target=helpers.helper)\nthread.start()\nthread.join()",
        [],
        ["helper"],
    ),
}


@pytest.mark.parametrize("way", CODE)
def test_code_that_runs_outside_of_the_closure_is_told(project: Project, way: str) -> None:
    """From 3.12 on by definition; on 3.11 its module counts whole, covered or not."""
    body, covered, ran = CODE[way]
    plan = {"imported": ["step", "helpers"], "covered": {"step": ["step"], "helpers": [*covered, "TABLE", "<lambda>"]}}
    found = project.facts(body, plan, {"helpers.py": HELPERS}, "import helpers")
    fine = [("ran", "helpers:decorated"), *(("ran", f"helpers:{name}") for name in ran)]
    assert found == (fine if project.sees_code else [("module", "helpers")])


def test_a_lambda_is_asked_for_by_the_name_it_stands_in(project: Project) -> None:
    plan = {"imported": ["step", "helpers"], "covered": {"step": ["step"], "helpers": ["decorated"]}}
    found = project.facts("return 1", plan, {"helpers.py": HELPERS}, "import helpers")
    fine = [("ran", "helpers:TABLE"), ("module", "helpers")]  # PAIR is bound by unpacking: the module counts whole
    assert found == (fine if project.sees_code else fine[1:])


def test_a_module_outside_of_the_closure_counts_whole(project: Project) -> None:
    assert project.facts("import other\nreturn other.Thing()") == [("module", "other")]


def test_a_folder_that_the_step_imports_from_is_told_by_its_files(project: Project) -> None:
    """One of them may come and win the import, also in the place of the standard library."""
    body = """
sys.path.insert(0, "kept")
import inside.deep
try: import fast
except ImportError: import colorsys
return 1
"""
    files = {"kept/inside/__init__.py": "", "kept/inside/deep.py": ""}
    found = set(project.facts(body, files=files))
    assert {("file", "kept/fast.py"), ("file", "kept/fast/__init__.py"), ("module", "fast")} <= found
    assert {("file", "kept/colorsys.py"), ("file", "kept/inside/deep.py"), ("module", "kept.inside.deep")} <= found


def test_packages_that_were_imported_ahead_are_told(tmp_path: Path) -> None:
    """A file of the project that takes such a name is imported in its place, also by other packages."""
    (tmp_path / "ahead.py").write_text("")
    plan = {"root": str(tmp_path / "tree"), "roots": [], "allowed": [], "imported": ["known"], "covered": {}}
    text = f"import ahead, json; from branchline.sdk import record; record.begin(1, {plan!r})"
    env = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    said = subprocess.run((sys.executable, "-P", "-S", "-c", text), env=env, check=True, capture_output=True).stdout
    assert heard(said) == [["module", "ahead"]]


def test_a_file_with_two_names_is_told_by_the_one_that_the_closure_has(project: Project) -> None:
    folder = project.root / "service"
    plan = {
        "roots": [str(folder), str(project.root)],
        "imported": ["step", "service.helpers"],
        "covered": {"step": ["step"], "service.helpers": []},
    }
    found = project.facts("return service.helpers.one()", plan, {"service/helpers.py": "def one(): return 1"}, "import service.helpers")  # fmt: skip  # noqa: E501
    assert found == [
        ("module", "service"),
        ("ran", "service.helpers:one") if project.sees_code else ("module", "service.helpers"),
    ]


# ---------------------------------------------------------------------------------------------------------- workers

WORKERS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
def work(name): return open(name).read()
"""


@pytest.mark.parametrize("way", ["spawn", "forkserver", "fork"])
def test_workers_of_multiprocessing_record_too(project: Project, way: str) -> None:
    body = f"""
with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context({way!r})) as pool:
    return pool.submit(work, "sql/q.sql").result()
"""
    found = project.facts(body, {"covered": {"step": ["step", "work"]}}, top=WORKERS)
    assert found == [("file", "sql/q.sql")]
    assert project.result == "''"


def test_workers_that_are_started_as_a_module_record_too(project: Project) -> None:
    """As loky starts them: past subprocess, by `-m`, with few descriptors and an environment of their own."""
    body = """
import _posixsubprocess, multiprocessing.util as util
words = [sys.executable, *sys.orig_argv[1:3], "-X", "utf8", "-m", "worker", "sql/q.sql"]
pid = util.spawnv_passfds(os.fsencode(sys.executable), [os.fsencode(word) for word in words], [])
return os.waitpid(pid, 0)[1]
"""
    worker = "import sys\nassert sys.argv[1:] == ['sql/q.sql'] and __name__ == '__main__'\nopen(sys.argv[1]).close()\n"
    found = project.facts(body, files={"worker.py": worker}, env={"PYTHONPATH": str(project.root)})
    assert project.result == "0"
    assert {("module", "worker"), ("file", "sql/q.sql")} <= set(found)


def test_another_program_started_past_subprocess_is_a_child(project: Project) -> None:
    body = """
import multiprocessing.util as util
return os.waitpid(util.spawnv_passfds(b"/bin/true", [b"/bin/true"], []), 0)[1]
"""
    assert project.facts(body) == [("child", "/bin/true", "step.py:6")]


# ------------------------------------------------------------------------------------------- nothing else is changed

SAME = {
    "stat": "return os.stat in os.supports_dir_fd, os.stat in os.supports_fd, os.stat in os.supports_follow_symlinks",
    "open": "return os.open in os.supports_dir_fd",
    "shutil": "import shutil\nreturn shutil._use_fd_functions, shutil.rmtree.avoids_symlink_attacks",
    "names": "return os.stat.__name__, os.stat.__doc__[:40], os.access.__module__ in ('os', 'posix')",
    "pickled": "import pickle\nreturn pickle.loads(pickle.dumps(os.stat)) is os.stat",
    "wrong": "try: os.stat(1.5)\nexcept TypeError as error: return str(error)",
    "missing": "try: os.stat('absent')\nexcept OSError as error: return error.errno, error.filename, str(error)",
    "null": "try: open('a\\0b')\nexcept ValueError as error: return str(error)",
    "null asked": "return os.path.exists('a\\0b')",
    "links": "os.symlink('nowhere', 'l')\nreturn os.path.lexists('l'), os.path.exists('l'), os.lstat('l').st_size",
    "variables": "os.environ['A'] = '1'\nreturn os.environ.pop('A'), os.environ.setdefault('A', '3')",
    "no variable": "try: os.environ['NONE']\nexcept KeyError as error: return repr(error), error.__cause__",
    "environment": "return isinstance(os.environ, os._Environ), type(os.environ.copy()), repr(os.environ)[:8]",
    "import": "try: import absent\nexcept ImportError as error: return str(error), error.name",
    "descriptor": "return os.path.exists(0), os.stat(os.pipe()[0]).st_size",
    "recursion": "def deep(n):\n    return deep(n + 1)\ntry: deep(0)\nexcept RecursionError as error: return 'deep'",
    "no folder": "os.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\ntry: open('x')\nexcept OSError as error: return str(error)",  # noqa: E501
    "argv": "import subprocess\nreturn subprocess.run([sys.executable, '-c', 'import sys; print(sys.orig_argv[1:])'], capture_output=True, text=True).stdout",  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("way", SAME)
def test_a_step_computes_the_same_with_and_without(project: Project, way: str) -> None:
    project.facts(SAME[way])
    with_it = project.result
    for name in ("l", "gone"):
        (project.root / name).unlink(missing_ok=True)
    assert (with_it, "Error: " in with_it) == (project.python.run(project.root, CALL)[0], "Error: " in with_it)


def test_a_recorder_that_fails_says_so_and_lets_the_step_go_on(project: Project) -> None:
    """Then the run leaves no trace: I13."""
    body = "os.mkdir('gone')\nos.chdir('gone')\nos.rmdir('../gone')\ntry: open('x')\nexcept OSError: return 'went on'"
    assert (project.facts(body)[-1], project.result) == (("blind", "recorder"), "'went on'")


def test_a_stack_at_its_end_is_not_silent(project: Project) -> None:
    body = """
def deep(n):
    try: return deep(n + 1)
    except RecursionError: pass
    try: return open("sql/q.sql").read()
    except RecursionError: raise
return deep(0)
"""
    found = project.facts(body)
    assert ("file", "sql/q.sql") in found or ("blind", "recorder") in found or "Recursion" in project.result
