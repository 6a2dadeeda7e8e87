"""This file notes what a step met: which paths of a project are facts, by which names, and who in the project asked.

A fact is a line of JSON `[kind, name, detail?]`, written once by each process; `record` sees what happens and says what
the kinds are. Rules. A path is named from the project's root, "" is the root itself. The deepest folder decides where a
path lies: what is allowed is no fact, wherever it is. What the step made itself is no fact, nor is what Python reads to
show source to people: in a warning, a log, a traceback that is printed; a traceback that the step is given as text is
another matter. A path outside of the project counts only if it is there. What lies in the machine's own folders is
allowed to packages and to Python, and outside for the project's own code: /proc is never twice the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the package
STANDARD = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
MACHINE = ("/dev", "/proc", "/sys", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib64")  # not the project's to version
ANYBODYS = ("/dev", "/usr/share/zoneinfo")  # of them, what the project's own code may read, too
PYTHON = frozenset(
    path for given in (sys.prefix, sys.base_prefix, sys.exec_prefix, HERE) for path in (given, os.path.realpath(given))
)
OURS = PYTHON.union(MACHINE, map(os.path.realpath, MACHINE))
SHOWING = ("logging", "warnings")
READING_SOURCE = ("tokenize", "linecache")


Spots = Sequence[tuple[str, str, bool]]


def spots(roots: Iterable[str], allowed: Iterable[str]) -> Spots:
    """Folders and files that paths are looked up in, deepest first: each, what is below begins with, the project's?"""
    found = dict.fromkeys(map(os.path.normpath, allowed), False) | dict.fromkeys(map(os.path.normpath, roots), True)
    return [(path, path + os.sep, found[path]) for path in sorted(found, key=len, reverse=True)]


def place(path: str, known: Spots) -> tuple[str, str]:
    """Where a path lies: ("project", its name there), ("allowed", "") or ("outside", path)."""
    for spot, below, inside in known:
        if path.startswith(below) or path == spot:
            return ("project", path[len(below) :]) if inside else ("allowed", "")
    return "outside", path


def module_names(path: str, roots: Iterable[str]) -> list[str]:
    """The names that a Python file can be imported by, in the order of the folders to import from."""
    names = []
    for root in roots:
        if path.startswith(root + os.sep) and path.endswith(".py"):
            parts = path[len(root) + 1 : -3].split(os.sep)
            if parts[-1] == "__init__":
                parts.pop()
            if parts and all(part.isidentifier() for part in parts):
                names.append(".".join(parts))
    return names


def absolute(path: Any, folder: int | None = None) -> str:
    """A path as a step may give one, made absolute: text, bytes, path-like, a descriptor, or None for `.`."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    text = path if type(path) is str else os.fsdecode("." if path is None else path)
    if not text.startswith(os.sep):
        text = f"{os.getcwd() if folder is None else absolute(folder)}{os.sep}{text}"
    return os.path.normpath(text)


def heard(text: bytes) -> list[list[str]]:
    """What was told, each once, in order; a line that is torn is a `blind` fact."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        try:
            fact = [str(part) for part in json.loads(line)]
            found.setdefault((fact[0], fact[1]), fact)
        except (ValueError, TypeError, LookupError):
            found.setdefault(("blind", "torn"), ["blind", "torn"])
    return list(found.values())


def mark(path: str) -> tuple[int, ...] | None:
    """What a file is told by to have been written since; None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def module_of(frame: FrameType | None) -> str:
    """The name of the module that a frame runs in; '' beyond the last."""
    return "" if frame is None else str(frame.f_globals.get("__name__"))


def beyond(frame: FrameType | None, modules: Iterable[str]) -> FrameType | None:
    """The first frame, from this one up, that is of none of these modules."""
    while frame is not None and module_of(frame) in modules:
        frame = frame.f_back
    return frame


def imports(frame: FrameType | None) -> bool:
    """Whether a frame is the import system's own."""
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")


def shows(frame: FrameType) -> bool:
    """Whether source is read to be shown to people: in a warning, a log, or a traceback that is printed."""
    asker, last = beyond(frame, READING_SOURCE), None
    if asker is frame:
        return False
    while asker is not None and module_of(asker) == "traceback":
        asker, last = asker.f_back, asker
    printed = last is not None and last.f_code.co_name.startswith("print_") and last.f_locals.get("file") is None
    return printed or module_of(asker) in SHOWING


def standard(frame: FrameType) -> bool:
    """Whether a frame runs code of the standard library, or ours."""
    name = frame.f_code.co_filename
    return name.startswith(("<frozen ", HERE)) or (name.startswith(STANDARD) and "site-packages" not in name)


class Facts:
    """What one process has met, told into a descriptor line by line."""

    def __init__(self, told: int, plan: Mapping[str, Any]) -> None:
        self.told = told
        self.root = os.path.normpath(plan["root"])
        self.roots = [os.path.normpath(folder) for folder in plan["roots"]]
        self.allowed = [str(path) for path in plan["allowed"]]
        self.known = spots([self.root], [*self.allowed, *OURS])
        self.real: Spots = ()
        self.open_to_all = spots([self.root], [*self.allowed, *PYTHON, *ANYBODYS])
        self.files = frozenset(plan["files"]) if plan.get("files") is not None else None
        self.imported = frozenset(plan["imported"])
        self.seen: dict[tuple[str, str], object] = {}
        self.passed: set[tuple[str, str]] = set()
        self.made: dict[str, object] = {}
        self.sources: dict[str, str] = {}
        self.modules: dict[str, str | None] = {}

    def note(self, kind: str, name: str, detail: str = "") -> None:
        """Tell a fact unless this process has told it."""
        mine = object()
        if self.seen.setdefault((kind, name), mine) is mine:
            os.write(self.told, json.dumps([kind, name, detail] if detail else [kind, name]).encode() + b"\n")

    def path(self, frame: FrameType, kind: str, path: str) -> None:
        """Note a file that is read, a folder that is listed or a path that is asked for, if it is a fact."""
        if (kind, path) in self.passed:
            return
        where, name = self.where(path)
        if where == "allowed" and kind == "file" and place(path, self.open_to_all)[0] == "outside" and self.asks(frame):
            where = "outside"
        if where == "allowed" or self.own(name) or shows(frame):
            return
        if where == "outside":
            if kind != "stat" and os.path.lexists(path):
                self.note("outside", path, self.asker(frame))
            return
        if kind != "listing" and not self.known_file(name) and os.path.isfile(path):
            self.note("outside", path, self.asker(frame))  # it lies in the tree, but nobody would say that it changed
        elif name or kind == "listing":
            self.note(kind, name)
        self.passed.add((kind, path))
        self.path(frame, kind, os.path.realpath(path))  # a link is one thing, what it leads to another

    def known_file(self, name: str) -> bool:
        """Whether a file, or a folder above it, is the project's."""
        while self.files is not None and name and name not in self.files:
            name = name.rpartition(os.sep)[0]
        return self.files is None or name in self.files

    def where(self, path: str) -> tuple[str, str]:
        """Where a path lies, also by its real name."""
        found = place(path, self.known)
        if found[0] != "outside":
            return found
        if not self.real:
            self.real = spots([os.path.realpath(self.root)], [*map(os.path.realpath, self.allowed), *OURS])
        return place(os.path.realpath(path), self.real)

    def inside(self, path: str) -> str:
        """The name in the project of a file as a code object has it; '' elsewhere."""
        if path not in self.sources:
            where, name = place(os.path.normpath(path), self.known) if path.startswith(os.sep) else ("", "")
            self.sources[path] = name if where == "project" else ""
        return self.sources[path]

    def make(self, path: str) -> None:
        """A file or a folder is about to be made, unless it is a folder that is there already."""
        where, name = self.where(path)
        if where == "project" and not os.path.isdir(path):
            self.made[name] = mark(path)

    def own(self, name: str) -> bool:
        """Whether the step made a path of the project, or a folder above it; it may have tried in vain."""
        while self.made and name:
            if name in self.made and mark(os.path.join(self.root, name)) != self.made[name]:
                return True
            name = name.rpartition(os.sep)[0]
        return False

    def module(self, path: str) -> str | None:
        """The name of a file of the project as a module, that of the closure if it has several; None elsewhere."""
        if path not in self.modules:
            names = module_names(os.path.normpath(path), self.roots) if self.inside(path) else []
            known = [name for name in names if name in self.imported]
            self.modules[path] = next(iter(known or names), None)
        return self.modules[path]

    def asks(self, frame: FrameType | None) -> bool:
        """Whether the project's own code asks, itself or by the standard library, and not a package."""
        while frame is not None and standard(frame):
            frame = frame.f_back
        return frame is not None and bool(self.inside(frame.f_code.co_filename))

    def asker(self, frame: FrameType | None) -> str:
        """The place in the project that asked, as `train.py:12`; '' when no code of it did."""
        while frame is not None:
            if name := self.inside(frame.f_code.co_filename):
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return ""
