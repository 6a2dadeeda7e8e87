"""This file tests the project about itself: its shape, its layers, its words, its errors and its documents.

Each guard is a table and a loop; what it found is in the message. Where a guard is in the way, change the table here
and say why in `docs/architecture.md`: a rule that no machine holds is not a rule.
"""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement

from branchline import errors
from branchline.core.codes import NOTICES

ROOT = Path(__file__).resolve().parents[2]
MODULE_LINES, FUNCTION_LINES, DEPTH = 450, 60, 2
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # where a statement holds others
BANNED_WORDS = {"util", "utils", "helper", "helpers", "common", "base", "manager", "handler", "misc", "impl"}
TOUCHING = {"os", "io", "pathlib", "subprocess", "socket", "sqlite3"}
TOUCHING |= {"time", "random", "asyncio", "threading", "logging"}
# A third party's name → the layers, or the one file, that may import it. What is not here may be imported nowhere.
PRODUCTS = {
    "alembic": ("adapters",),
    "blake3": ("adapters",),
    "click": ("cli",),
    "cronsim": ("adapters",),
    "duckdb": ("adapters",),
    "fastapi": ("server",),
    "h2": ("adapters",),
    "psutil": ("adapters",),
    "psycopg": ("adapters",),
    "pydantic": ("adapters", "server"),
    "pyfastcdc": ("adapters",),
    "pysqlite3": ("adapters",),
    "sqlalchemy": ("adapters",),
    "starlette": ("server",),
    "watchfiles": ("adapters",),
    "uvicorn": ("server", "sdk"),  # sdk: the service's own, found in the service's environment
}


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that git tracks, or would after `git add`."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return tuple(sorted(ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def python(*folders: str) -> Iterator[Path]:
    """Each Python file below `folders`; the examples are users' code and follow their own customs."""
    return (path for path in tracked() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders)


def modules(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Each of them, parsed."""
    return ((path, parsed(path)) for path in python(*folders))


@cache
def statements(tree: ast.Module) -> tuple[ast.stmt, ...]:
    """Every statement, however deep: expressions hold none, and are most of what there is to walk through."""
    found: list[ast.AST] = [tree]
    for node in found:
        found += (part for name in BLOCKS for part in getattr(node, name, ()))
    return tuple(node for node in found if isinstance(node, ast.stmt))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in statements(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imported(tree: ast.Module) -> Iterator[str]:
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def layer(path: Path) -> str:
    return path.relative_to(ROOT / "branchline").parts[0].removesuffix(".py")


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("branchline", cache_dir=None)


# ── shape ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    long = {
        named(path): lines
        for path in python("branchline", "tests", "bench", "docs")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MODULE_LINES
    }
    assert not long


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{named(path)}:{function.lineno} {function.name}": lines
        for path, tree in modules("branchline", "tests", "bench", "docs")
        for function in functions(tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES
    }
    assert not long


def test_the_tree_is_two_levels_deep() -> None:
    deep = [
        named(path)
        for folder in ("branchline", "tests")
        for path in python(folder)
        if len(path.relative_to(ROOT / folder).parts) > DEPTH
    ]
    assert not deep


def test_every_module_says_what_it_is() -> None:
    every = modules("branchline", "tests", "bench", "docs")
    silent = [named(path) for path, tree in every if not ast.get_docstring(tree)]
    assert not silent


def test_no_name_says_nothing() -> None:
    empty = [
        f"{named(path)} {name}"
        for path, tree in modules("branchline")
        for name in [path.stem, *(node.name for node in statements(tree) if isinstance(node, ast.ClassDef))]
        if BANNED_WORDS & {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
    ]
    assert not empty


def test_nouns_return() -> None:
    got = [
        f"{named(path)}:{function.lineno} {function.name}"
        for path, tree in modules("branchline")
        for function in functions(tree)
        if function.name.startswith("get_") and function.name != "get_command"  # click's word for it
    ]
    assert not got


def test_few_entries_at_the_root() -> None:
    entries = {path.relative_to(ROOT).parts[0] for path in tracked()}
    assert entries <= {
        *(".ci", ".gitignore", "LICENSE", "Makefile", "pyproject.toml", "requirements.lock"),
        *("README.md", "CHANGELOG.md", "CONTRIBUTING.md"),
        *("bench", "branchline", "docs", "examples", "tests"),
    }


# ── layers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_layers_hold() -> None:
    layers = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert layers.returncode == 0, layers.stdout + layers.stderr


def test_nothing_imports_in_a_circle() -> None:
    circle: list[str] = []
    try:
        graphlib.TopologicalSorter(
            {module: graph().find_modules_directly_imported_by(module) for module in graph().modules}
        ).prepare()
    except graphlib.CycleError as found:
        circle = found.args[1]
    assert not circle


def test_core_and_errors_touch_nothing() -> None:
    touching = [
        f"{named(path)} imports {name}"
        for path, tree in modules("branchline")
        if layer(path) in {"core", "errors"}
        for name in imported(tree)
        if (top := name.partition(".")[0]) in TOUCHING or (top not in sys.stdlib_module_names and top != "branchline")
    ]
    assert not touching


def test_adapters_do_not_know_one_another() -> None:
    """Files of one product share their first word (`envoy`, `envoy_documents`) and may import each other."""
    package = "branchline.adapters."
    known = [
        f"{one} imports {other}"
        for one in sorted(graph().modules)
        if one.startswith(package)
        for other in graph().find_modules_directly_imported_by(one)
        if other.startswith(package)
        if one.removeprefix(package).partition("_")[0] != other.removeprefix(package).partition("_")[0]
    ]
    assert not known


def test_a_product_is_imported_where_it_belongs() -> None:
    astray = [
        f"{named(path)} imports {name}"
        for path, tree in modules("branchline")
        for name in imported(tree)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names and top != "branchline"
        if layer(path) not in PRODUCTS.get(top, ())
    ]
    assert not astray


def test_import_branchline_brings_no_third_party() -> None:
    """`core`, `sdk` and `errors` ride into a service's own environment: whatever is there, they ask for none of it."""
    ride = sorted(name for name in graph().modules if re.match(r"branchline(\.(core|sdk|errors)(\.|$)|$)", name))
    program = (
        "import sys, importlib\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        f"for name in {ride!r}: importlib.import_module(name)\n"
        "import branchline; branchline.sdk; branchline.spec\n"
        "after = {name.partition('.')[0] for name in sys.modules} - before\n"
        "print(*sorted(after - sys.stdlib_module_names))\n"
    )
    fresh = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (fresh.stdout.split(), fresh.stderr) == (["branchline"], "")


def test_import_branchline_loads_nothing_before_it_is_asked() -> None:
    program = "import sys, branchline; print(*sorted(name for name in sys.modules if name.startswith('branchline')))"
    fresh = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (fresh.stdout.split(), fresh.stderr) == (["branchline"], "")


# ── tests ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_mocks_and_no_sleeps() -> None:
    """A test waits with `tests.waiting.wait_until`, and replaces nothing but by a fake that passes the contract."""
    patched = [
        f"{named(path)}:{node.lineno} {ast.unparse(node.func)}"
        for path in python("tests")
        if named(path) != "tests/waiting.py" and re.search(r"sleep|setattr", path.read_text(encoding="utf-8"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep", "monkeypatch.setattr"}
    ]
    assert not patched


def test_every_port_has_a_contract_suite() -> None:
    """A port is a Protocol of `ports`; a file of `tests/contract` says which by naming it."""
    ports = {
        node.name
        for path, tree in modules("branchline")
        if path.parent.name == "ports"
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    }
    folder = ROOT / "tests" / "contract"
    suites = "\n".join(path.read_text(encoding="utf-8") for path in python("tests") if path.parent == folder)
    assert not sorted(port for port in ports if not re.search(rf"\b{port}\b", suites))


# ── errors ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def tree_of_errors() -> tuple[type[errors.BranchlineError], ...]:
    found: list[type[errors.BranchlineError]] = [errors.BranchlineError]
    for error in found:
        found += error.__subclasses__()
    return tuple(found)


def test_every_error_has_a_code_a_message_and_a_next_command() -> None:
    told = tree_of_errors()[1:]
    codes = [error.code for error in told]
    assert len(codes) == len(set(codes)), sorted({code for code in codes if codes.count(code) > 1})
    for error in told:
        assert re.fullmatch(r"BL[1-7]\d\d", error.code), error
        assert error.__doc__, f"{error.__name__} says nothing"
        assert error.hint.strip(), f"{error.__name__} has no hint"


def test_every_error_keeps_to_the_hundred_of_its_family() -> None:
    families = errors.BranchlineError.__subclasses__()
    strays = [
        f"{error.__name__} {error.code}"
        for family in families
        for error in tree_of_errors()
        if issubclass(error, family) and error.code[:3] != family.code[:3]
    ]
    assert not strays


# ── documents ──────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def documents() -> tuple[tuple[Path, str], ...]:
    return tuple((path, path.read_text(encoding="utf-8")) for path in tracked() if path.suffix == ".md")


def test_documents_name_only_codes_that_exist() -> None:
    codes = {error.code for error in tree_of_errors()} | set(NOTICES)
    unknown = [
        f"{named(path)} {code}" for path, text in documents() for code in set(re.findall(r"\bBL\d{3}\b", text)) - codes
    ]
    assert not unknown


def test_documents_and_hints_name_only_commands_that_exist() -> None:
    from click import Context

    from branchline.cli.main import main

    commands = set(main.list_commands(Context(main)))
    code = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
    texts = [(named(path), part) for path, text in documents() for part in code.findall(text)]
    texts += [(error.__name__, error.hint) for error in tree_of_errors()]
    unknown = [
        f"{place}: branchline {word}"
        for place, text in texts
        for word in re.findall(r"(?:^|[`$/>:(] ?|&& )branchline ([a-z][a-z-]*)", text, re.M)
        if word not in commands
    ]
    assert not unknown


def test_documents_link_to_what_is_there() -> None:
    broken = [
        f"{named(path)} → {target}"
        for path, text in documents()
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
        if not (path.parent / target).exists()
    ]
    assert not broken


# ── the lock, and what must not be in the tree ─────────────────────────────────────────────────────────────────────


def test_the_lock_holds_every_dependency_by_hash_and_names_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [Requirement(line) for line in project["project"]["dependencies"] + project["dependency-groups"]["dev"]]
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = [entry for entry in re.split(r"\n(?=\S)", lock) if entry and not entry.startswith("#")]
    locked = {}
    for entry in entries:
        pinned = Requirement(entry.partition("\\")[0].strip())
        assert "--hash=sha256:" in entry, f"{pinned} has no hash"
        locked[pinned.name] = next(iter(pinned.specifier)).version
    assert not re.findall(r"^\s*(?:-i|--index-url|--extra-index-url|--find-links|-f)\b.*|\w+://.*", lock, re.M)
    stale = [str(want) for want in asked if want.name not in locked or locked[want.name] not in want.specifier]
    assert not stale, "write the lock anew (CONTRIBUTING.md says how)"


def test_no_tracked_file_names_the_host_of_a_registry() -> None:
    """An index is the machine's to choose; the names are put together here so that this file passes, too."""
    words = "pypi org, pythonhosted org, npmjs org, npmjs com, yarnpkg com, proxy golang org, static crates io"
    words += ", deb debian org, archive ubuntu com, ghcr io, docker io, huggingface co"
    hosts = [host.replace(" ", ".").encode() for host in words.split(", ")]
    found = [
        f"{named(path)} names {host.decode()}"
        for path in tracked()
        for content in [path.read_bytes()]
        for host in hosts
        if host in content
    ]
    assert not found
