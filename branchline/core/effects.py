"""This file finds what a name of one module is in another, and what importing a module does.

Names resolve as in Python, and where several things may be meant all of them count. A project's modules win over
installed ones; a name that leads to an installed package ends there, since the environment's lock covers it. Importing
runs a module: what that may change besides its own names is an *effect*, and belongs to every step that imports it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import dirname, normpath

from branchline.core.scopes import DECORATES, GIVEN, READING
from branchline.core.source import Cell, Module

NATIVE = (".so", ".pyd")
# Python itself, or any package, may import these; `test` is in the standard library for its own sake.
SHADOWING = (frozenset(sys.stdlib_module_names) | {"sitecustomize", "usercustomize"}) - {"test", "__main__"}
OF_A_MODULE = frozenset({"__name__", "__file__", "__path__", "__spec__", "__package__", "__loader__"})
TYPES = ("namedtuple", "NamedTuple", "TypedDict", "NewType", "TypeVar", "ParamSpec", "Enum", "IntEnum", "StrEnum")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a service: the digest of its content, and its size in bytes."""

    digest: str
    size: int = 0


@dataclass(slots=True)
class Found:
    """What a reference leads to: cells with what is asked of them, other nodes, and names outside of the project."""

    cells: list[tuple[str, int, tuple[str, ...]]] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


class Modules:
    """The modules of a project, by the names that Python imports them by.

    `files` are paths from the repository's root, `roots` the folders that modules are imported from, first one first
    ("" is the repository's root). What is found is kept: one object serves all steps of a build.
    """

    def __init__(self, files: Mapping[str, File], roots: Sequence[str], summary_of: Callable[[str], Module]) -> None:
        self.files = files
        self.roots = tuple(root.strip("/") for root in roots)
        self.summary_of = summary_of
        self.paths: dict[str, str] = {}
        self.folders: set[str] = set()
        for root in self.roots:
            here = _modules(files, root)
            for name, path in here.items():
                self.paths.setdefault(name, path)
        for name in self.paths:
            parts = name.split(".")
            self.folders.update(".".join(parts[:end]) for end in range(1, len(parts)))
        self._summaries: dict[str, Module] = {}
        self._loud: dict[tuple[str, int], bool] = {}
        self._stirring: dict[str, bool] = {}
        self._effects: dict[str, frozenset[int]] = {}
        self._imports: dict[str, list[str]] = {}
        self._sequences: dict[str, list[str | int]] = {}

    def has(self, module: str) -> bool:
        return module in self.paths or module in self.folders

    def summary(self, module: str) -> Module:
        if module not in self._summaries:
            path = self.paths.get(module, "")
            self._summaries[module] = self.summary_of(path) if path.endswith(".py") else Module("")
        return self._summaries[module]

    @property
    def shadowing(self) -> list[str]:
        """Modules of the project that Python, or any package, imports in the place of its own."""
        return sorted(name for name in self.paths if name in SHADOWING)

    # -- names

    def absolute(self, module: str, spec: str) -> str:
        """The module that `..a.b` is, said in `module`; without dots it is itself."""
        name = spec.lstrip(".")
        level = len(spec) - len(name)
        if not level:
            return name
        package = module.split(".")
        if not self.paths.get(module, "").endswith("/__init__.py"):
            level += 1
        above = package[: max(0, len(package) - level + 1)]
        return ".".join([*above, *([name] if name else [])])

    def found(self, module: str, reference: str) -> Found:
        """All that a reference of a module may lead to."""
        into = Found()
        if ":" in reference:
            spec, _, rest = reference.partition(":")
            self._module(module, spec, tuple(filter(None, rest.split("."))), into, set())
        else:
            self._bound(module, tuple(reference.split(".")), into, set())
        return into

    def _bound(self, module: str, parts: tuple[str, ...], into: Found, seen: set[tuple[str, ...]]) -> bool:
        if (module, *parts) in seen:
            return True
        seen.add((module, *parts))
        summary, name, rest = self.summary(module), parts[0], parts[1:]
        for each in summary.binds.get(name, ()):
            if isinstance(each, int):
                into.cells.append((module, each, rest))
            else:
                into.nodes.append(f"import {module}:{name}")
                spec, _, attribute = each.partition(":")
                if attribute:
                    self._inside(self.absolute(module, spec), (attribute, *rest), into, seen)
                else:
                    self._module(module, spec, rest, into, seen)
        known = name in summary.binds
        for star in summary.stars:
            source = self.absolute(module, star.partition(":")[0])
            if source in self.paths and self._bound(source, parts, into, seen):
                known = True
                into.nodes.append(f"import {module}:*")
                self._bound(source, ("__all__",), into, seen)
        return known

    def _module(self, module: str, spec: str, parts: tuple[str, ...], into: Found, seen: set[tuple[str, ...]]) -> None:
        """The same of a module that is imported: the package above it may bind its name to something else."""
        target = self.absolute(module, spec)
        self._inside(target, parts, into, seen)
        above, _, last = target.rpartition(".")
        if above in self.paths and above != module:
            self._bound(above, (last, *parts), into, seen)

    def _inside(self, module: str, parts: tuple[str, ...], into: Found, seen: set[tuple[str, ...]]) -> None:
        if not self.has(module):
            into.outside.append(".".join([module, *parts]))
            return
        path = self.paths.get(module, "")
        if path.endswith(NATIVE):
            into.nodes.append(f"file {path}")
            return
        if not parts or parts[0] == "__dict__" or self.summary(module).unread:
            into.nodes.append(f"whole {module}")
            return
        name, below = parts[0], f"{module}.{parts[0]}"
        known = self._bound(module, parts, into, seen) if path else False
        if self.has(below):
            known = True
            self._inside(below, parts[1:], into, seen)
        if not known and name not in OF_A_MODULE and "__getattr__" in self.summary(module).binds:
            into.nodes.append(f"whole {module}")

    def run(self, module: str, spec: str) -> list[str]:
        """The modules of the project that an import runs, with the packages above them."""
        source, _, name = spec.partition(":")
        target = self.absolute(module, source)
        first, dot, _ = target.partition(".")
        if first not in self.paths and first not in self.folders:
            return []
        ends = (at for at, letter in enumerate(f"{target}.") if letter == ".") if dot else (len(target),)
        return [each for each in (*(target[:end] for end in ends), f"{target}.{name}") if each in self.paths]

    # -- what importing does

    def effects(self, module: str) -> frozenset[int]:
        """The positions of the cells that change more than their own names when the module is imported."""
        if module not in self._effects:
            cells = enumerate(self.summary(module).cells)
            self._effects[module] = frozenset(at for at, cell in cells if self._runs(module, at, cell))
        return self._effects[module]

    def _runs(self, module: str, at: int, cell: Cell) -> bool:
        return (
            "runs" in cell.flags
            or any(self._loud_call(module, call, told) for call, told in cell.calls.items())
            or (cell.kind == "class" and self._hooked(module, cell, set()))
            or ("calls" in cell.flags and self._loud_inside(module, at, cell))
        )

    def _loud_inside(self, module: str, at: int, cell: Cell) -> bool:
        """May a call of anything, as `map`, call a function that changes state: one that it was given, or a lambda?"""
        named = (each for reference in cell.refs for each in self.found(module, reference).cells)
        return self.loud(module, at) or any(
            not rest and self.summary(where).cells[index].kind == "def" and self.loud(where, index)
            for where, index, rest in named
        )

    def _hooked(self, module: str, cell: Cell, seen: set[str]) -> bool:
        """Is something done by making this class: a metaclass, or `__init_subclass__` of a class above it?"""
        if "hooks" in cell.flags:
            return True
        if f"{module}:{cell.name}" in seen:
            return False
        seen.add(f"{module}:{cell.name}")
        for base in filter(None, cell.bases):
            for where, at, _ in self.found(module, base).cells:
                above = self.summary(where).cells[at]
                if above.kind == "class" and self._hooked(where, above, seen):
                    return True
                if "made" in above.flags and not self._type(above):
                    return True
        return False

    @staticmethod
    def _type(cell: Cell) -> bool:
        return any(call.rpartition(".")[2] in TYPES for call in cell.calls)

    def _loud_call(self, module: str, call: str, told: int) -> bool:
        """May this call change the state of a module?"""
        for where, at, rest in self.found(module, call).cells:
            cell = self.summary(where).cells[at]
            if self._loud_on(cell, rest, told) or ((not rest or cell.kind == "class") and self.loud(where, at)):
                return True
        return False

    def _loud_on(self, cell: Cell, rest: tuple[str, ...], told: int) -> bool:
        """The same, by what is called alone: a method of an object of the project, or a thing it was made of."""
        if rest:
            quiet = (rest[-1] in READING and not told & DECORATES) or "logger" in cell.flags
            return not quiet and (cell.kind != "class" or "given" in cell.flags)
        if cell.kind in {"def", "class"}:
            return "given" in cell.flags and bool(told & GIVEN)
        return cell.kind == "block" or ("made" in cell.flags and not self._type(cell))

    def loud(self, module: str, at: int) -> bool:
        """May running the functions of this cell change the state of a module? Cycles of calls count as quiet."""
        start = (module, at)
        if start not in self._loud:
            waiting, seen, loud = [start], {start}, False
            while waiting and not loud:
                where, position = waiting.pop()
                cell = self.summary(where).cells[position]
                loud = "changes" in cell.flags
                for call, told in (*cell.inner.items(), *cell.calls.items()):
                    for found, index, rest in self.found(where, call).cells:
                        loud = loud or self._loud_on(self.summary(found).cells[index], rest, told)
                        if (found, index) not in seen:
                            seen.add((found, index))
                            waiting.append((found, index))
            self._loud[start] = loud
        return self._loud[start]

    def stirring(self, module: str) -> bool:
        """Has the module, or one that is imported by importing it, an effect?"""
        if module not in self._stirring:
            waiting, importers, reached = [module], dict[str, set[str]](), {module}
            while waiting:
                each = waiting.pop()
                for other in self.imports(each):
                    importers.setdefault(other, set()).add(each)
                    if other not in reached and other not in self._stirring:
                        waiting.append(other)
                    reached.add(other)
            stirred = [each for each in reached if self._stirring.get(each) or self.effects(each)]
            done = set(stirred)
            while stirred:
                new = importers.get(stirred.pop(), set()) - done
                done |= new
                stirred.extend(new)
            self._stirring.update({each: each in done for each in reached})
        return self._stirring[module]

    def imports(self, module: str) -> list[str]:
        """The modules of the project that are imported by importing this one, in order, packages above it first."""
        if module not in self._imports:
            order = (each for each in self.summary(module).order if isinstance(each, str))
            found = [*self.run("", f"{module}:"), *(other for each in order for other in self.run(module, each))]
            self._imports[module] = [each for each in dict.fromkeys(found) if each != module]
        return self._imports[module]

    def sequence(self, module: str) -> list[str | int]:
        """What importing the module does that others can see, in order: cells and imports.

        An import of an installed package that nothing uses is there for what it does. A name that is bound twice
        counts, and beside a star, which may bind any name, every import: which comes last decides what the name is.
        """
        if module not in self._sequences:
            self._sequences[module] = self._sequence(module)
        return self._sequences[module]

    def _sequence(self, module: str) -> list[str | int]:
        summary = self.summary(module)
        effects = self.effects(module)
        twice = {each for found in summary.binds.values() if len(found) > 1 for each in found}
        return [
            each
            for each in summary.order
            if each in twice
            or (each in effects if isinstance(each, int) else summary.stars or self._stirs(module, each))
        ]

    def _stirs(self, module: str, spec: str) -> bool:
        """May an import do more than bind: has it an effect, or is it of an installed package and never used?"""
        first = spec.partition(":")[0].partition(".")[0]
        if not first or self.has(first):
            return any(self.stirring(each) for each in self.run(module, spec) if each != module)
        return first not in sys.stdlib_module_names and not self._uses(module, spec)

    def _uses(self, module: str, spec: str) -> bool:
        summary = self.summary(module)
        names = {name for name, found in summary.binds.items() if spec in found} or {spec.partition(".")[0]}
        return any(reference.partition(".")[0] in names for cell in summary.cells for reference in cell.refs)

    # -- texts that name something

    def named(self, module: str, text: str) -> Found:
        """What a text of the program names: a file of the project, or a definition by its dotted path."""
        found = Found()
        here = dirname(self.paths.get(module, ""))
        for folder in dict.fromkeys(("", *self.roots, here)):
            path = normpath(f"{folder}/{text}" if folder else text)
            if path in self.files:
                found.nodes.append(f"file {path}")
        first, dot, _ = text.replace(":", ".", 1).partition(".")
        if dot and self.has(first) and all(map(str.isidentifier, text.replace(":", ".", 1).split("."))):
            self._inside(first, tuple(text.replace(":", ".", 1).split(".")[1:]), found, set())
        return found


def _modules(files: Mapping[str, File], root: str) -> dict[str, str]:
    """Module name → path below one folder; a package wins over a file beside it, a native module over Python."""
    below = f"{root}/" if root else ""
    found: dict[str, tuple[int, str]] = {}
    for path in files:
        if not path.startswith(below) or not path.endswith((".py", *NATIVE)):
            continue
        parts = path[len(below) :].split("/")
        last = parts.pop()
        stem = last.removesuffix(".py") if last.endswith(".py") else last.partition(".")[0]
        rank = 2 if path.endswith(".py") else 1
        if stem == "__init__":
            rank = 0
        else:
            parts.append(stem)
        name = ".".join(parts)
        if parts and all(map(str.isidentifier, parts)) and found.get(name, (9, ""))[0] > rank:
            found[name] = (rank, path)
    return {name: path for name, (_, path) in found.items()}
