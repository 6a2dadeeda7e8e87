"""This file imports ahead the locked packages that a service's code asks for, and the code itself never.

Rules: which packages those are is read from the text of the service's modules; a module of the service is only parsed.
An import leaves the process as it was but for the modules it brought: what it did to the environment's variables is
noted, and done again for the steps that ask for such a module. A package that raises half-way or starts a thread cannot
be had ahead, since a fork would inherit the half of it: it is named, and each fork imports it by itself.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

Import = tuple[str, tuple[str, ...]]  # a module, and the names that are imported from it
Change = tuple[frozenset[str], dict[str, str | None]]  # modules that came together, variables that were changed by it

changes: list[Change] = []
had: set[Import] = set()
opened: set[int] = set()  # descriptors that packages keep


def preload(wanted: Collection[Import], unwanted: Collection[str] = ()) -> str:
    """Import these packages, those below an unwanted name left out; the name of one that cannot be had ahead, or ''.

    After such a name this process is no good any more: it holds the half of a package.
    """
    for module, names in wanted:
        if (module, names) in had or module.partition(".")[0] in unwanted:
            continue
        had.add((module, names))
        before = sys.modules.keys() | set()
        with undisturbed() as changed:
            try:
                __import__(module, None, None, [name for name in names if name != "*"])
                whole = True
            except (Exception, SystemExit):  # noqa: BLE001 - the fork meets the same error, and tells it where it belongs
                whole = False
        new = frozenset(sys.modules.keys() - before)
        if changed:
            changes.append((new, changed))
        if threading.active_count() > 1 or (new and not whole):
            return module.partition(".")[0]
    return ""


@contextlib.contextmanager
def undisturbed() -> Iterator[dict[str, str | None]]:
    """Put back what an import changes of the process; the variables of the environment that it changed are yielded."""
    environ, path, cwd = dict(os.environ), list(sys.path), os.getcwd()
    streams, mask = (sys.stdin, sys.stdout, sys.stderr, list(sys.argv)), os.umask(0o022)
    os.umask(mask)
    files = descriptors()
    changed: dict[str, str | None] = {}
    try:
        yield changed
    finally:
        changed |= {name: value for name, value in os.environ.items() if environ.get(name) != value}
        changed |= {name: None for name in environ if name not in os.environ}
        os.environ.update(environ)
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        sys.path[:] = path
        sys.stdin, sys.stdout, sys.stderr, sys.argv = streams
        os.chdir(cwd)
        os.umask(mask)
        opened.update(descriptors() - files)
        for stream in (sys.stdout, sys.stderr):  # or every fork would print it again
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def descriptors() -> set[int]:
    """The numbers of what this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing itself is closed by now
            os.fstat(int(name))
            found.add(int(name))
    return found


def redo(wanted: Collection[Import]) -> None:
    """Change the environment's variables as importing these packages has done."""
    named = {module for module, _ in wanted}
    for modules, changed in changes:
        if not modules.isdisjoint(named):
            for name, value in changed.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def forget(roots: Sequence[str]) -> None:
    """Take packages that the service's own modules of the same name hide out of `sys.modules`."""
    own = {name for root in roots for name in top_level(root)} - sys.stdlib_module_names - {"branchline"}
    hidden = [name for name in sys.modules if name.partition(".")[0] in own]
    for name in hidden:
        del sys.modules[name]


def top_level(root: str) -> Iterator[str]:
    """The names that can be imported from a folder; one without `__init__.py` hides nothing."""
    with contextlib.suppress(OSError), os.scandir(root) as entries:
        for entry in entries:
            name, dot, _ = entry.name.partition(".")
            if dot or os.path.exists(os.path.join(entry.path, "__init__.py")):
                yield name


def wanted(module: str, roots: Sequence[str]) -> list[Import]:
    """The packages that a module of the service, and its own modules below it, import at their top."""
    todo: list[Import] = [(module, ())]
    seen: set[Import] = set()
    found = []
    while todo:
        one = name, names = todo.pop()
        if one in seen or not name:
            continue
        seen.add(one)
        path = own_module(name, roots)
        if path is not None:
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            todo += [(f"{name}.{each}", ()) for each in names if own_module(f"{name}.{each}", roots)]
            todo += [(parent, ()) for parent in parents(name)]
            with contextlib.suppress(Exception):  # the step will meet it
                todo += imported(path.read_bytes(), package)
        elif name.partition(".")[0] not in sys.stdlib_module_names:
            found.append(one)
    return found


def own_module(name: str, roots: Sequence[str]) -> Path | None:
    """The file of a module that lies in the service's folders, found without importing anything."""
    for root in roots:
        base = os.path.join(root, *name.split("."))
        for path in (base + ".py", os.path.join(base, "__init__.py")):
            if os.path.isfile(path):
                return Path(path)
    return None


@lru_cache(maxsize=4096)
def imported(text: bytes, package: str) -> tuple[Import, ...]:
    """What a text imports at its top level. Raises SyntaxError, ValueError, ImportError."""
    found: list[Import] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            found += [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, package) if node.level else node.module
            found += [(base, tuple(alias.name for alias in node.names))] if base else []
    return tuple(found)


def parents(name: str) -> Iterator[str]:
    """The packages that are imported before a module of theirs."""
    while name := name.rpartition(".")[0]:
        yield name


def seed() -> None:
    """Seed anew what a package has seeded as it was imported; the standard library does so for itself."""
    legacy = sys.modules.get("numpy.random")
    if legacy is not None:
        legacy.seed()  # else all steps of one worker draw the same numbers
