"""This file collects the code that a step may run: its own definition, and all that this one leads to.

The lines of the closure are part of the step's key. What they cannot see, the trace of a run guards: a fact's value is
computed here too, from the same files. Both are closures over one graph, whose nodes are named as their lines:
`code m:f` a definition, `import m:np` what a name is imported as, `effects m` the running of a module, `whole m` all
of a module, `file p` a file that a text names. The graph is kept: all steps of a build share it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from branchline.core.effects import File, Found, Modules
from branchline.core.reuse import ABSENT, FOLDER, Line, Notice, key
from branchline.core.source import Cell, Module, digest
from branchline.core.unsure import Seen, noticed, told

UNNAMED = ("<lambda>", "<genexpr>", "<listcomp>", "<setcomp>", "<dictcomp>")
Asked = tuple[str, frozenset[str], bool]  # the call of a step, the variables that it declares, whether it is traced

__all__ = ["Closure", "File", "Project", "closure_of", "covered_by", "value_of"]


class Part(NamedTuple):
    """One node of the graph: its line (none without a hash), how a path calls it, and where it leads."""

    hash: str = ""
    where: str = ""
    label: str = ""
    docs: str = ""
    next: tuple[str, ...] = ()
    seen: tuple[Seen, ...] = ()
    asks: tuple[str, ...] = ()  # what can only be told of a closure as a whole


@dataclass(frozen=True, slots=True)
class Closure:
    """The code of a step: its lines of the key, what a person should know of it, and the modules that it imports."""

    lines: tuple[Line, ...] = ()
    notices: tuple[Notice, ...] = ()
    imported: frozenset[str] = frozenset()


class Collected(NamedTuple):
    """A closure, where it began, and the nodes that it is made of ((): it is more than they)."""

    closure: Closure
    start: tuple[str, ...]
    nodes: tuple[str, ...]


class Project(Modules):
    """What a service is made of, with the graph between its definitions, computed where it is asked for.

    `before` is the project of an earlier build: a closure is taken from there as long as each of its parts, computed
    anew, is what it was.
    """

    def __init__(
        self, files: Mapping[str, File], roots: Sequence[str], summary_of: Callable[[str], Module],
        before: Project | None = None,
    ) -> None:  # fmt: skip
        super().__init__(files, roots, summary_of)
        self._parts: dict[str, Part] = {}
        # Its parts and closures, not itself: it would keep the one before it, and so on.
        self._parts_before = before._parts if before else {}
        self._before = before._collected if before else {}
        self._same: set[str] = set()  # parts that are what they were before
        self._collected: dict[Asked, Collected] = {}
        self._at: dict[str, dict[str, int]] = {}
        self._values: dict[tuple[str, ...], str] = {}
        self._covered: dict[tuple[str, frozenset[str]], frozenset[str]] = {}
        self._listings: dict[str, list[str]] = {}

    def part(self, node: str) -> Part:
        """One node, by its name."""
        if node not in self._parts:
            kind, _, name = node.partition(" ")
            self._parts[node] = PARTS[kind](self, name)
        return self._parts[node]

    def at(self, module: str) -> Mapping[str, int]:
        """Where each cell of a module stands, by its name."""
        if module not in self._at:
            self._at[module] = {cell.name: at for at, cell in enumerate(self.summary(module).cells)}
        return self._at[module]

    def covered(self, module: str, held: frozenset[str]) -> frozenset[str]:
        """The names of a module all of whose meanings are among these cells; so are those without a name."""
        if (module, held) not in self._covered:
            summary = self.summary(module)
            rest = {at for at, cell in enumerate(summary.cells) if cell.name not in held}
            missing = {name for name, found in summary.binds.items() if not rest.isdisjoint(found)}
            unnamed = any("unnamed" in summary.cells[at].flags for at in rest)
            imported = {name for name, found in summary.binds.items() if all(isinstance(each, str) for each in found)}
            names = summary.binds.keys() - missing - imported
            self._covered[module, held] = frozenset(names if unnamed else {*names, *UNNAMED})
        return self._covered[module, held]

    def place(self, module: str, line: int = 0) -> str:
        path = self.paths.get(module, module)
        return f"{path}:{line}" if line else path

    def nodes(self, found: Found) -> Iterator[str]:
        for module, at, _ in found.cells:
            yield f"code {module}:{self.summary(module).cells[at].name}"
        yield from found.nodes

    # -- the kinds of nodes

    def _of_code(self, name: str) -> Part:
        module = name.partition(":")[0]
        position = self.at(module)[name.partition(":")[2]]
        cell = self.summary(module).cells[position]
        onward, seen = [f"effects {module}"], list[Seen]()
        for reference, line in cell.refs.items():
            found = self.found(module, reference)
            onward.extend(self.nodes(found))
            why = cell.wide.get(reference, ("it is used as a value", line))[0]
            seen.extend(Seen("wide", f"{each[6:]} {why}", line) for each in found.nodes if each.startswith("whole "))
            seen.extend(Seen("outside", each, line) for each in found.outside)
        for reference, (why, line) in cell.wide.items():
            if reference == "*":
                seen.append(Seen("wide", f"* {why}", line))
            elif not reference or reference.endswith(":"):
                target = self.absolute(module, reference[:-1]) if reference else module
                onward.extend([f"whole {target}"] if self.has(target) else [])
                seen.extend([Seen("wide", f"{target} {why}", line)] if self.has(target) else [])
        for spec in cell.imports:
            onward.extend(f"effects {each}" for each in self.run(module, spec))
        onward.extend(each for text in cell.strings for each in self.nodes(self.named(module, text)))
        for read, line in cell.reads.items():
            reader, _, variable = read.partition(" ")
            seen.extend(Seen("variable", f"{each} {variable}", line) for each in self.found(module, reader).outside)
        onward = [each for each in dict.fromkeys(onward) if each != f"code {name}"]
        asks = [*({"subclasses", "computed"} & set(cell.flags)), *(["everywhere"] if "*" in cell.wide else [])]
        where, hashed = self.place(module, cell.line), self._hash(module, position, cell)
        return Part(hashed, where, cell.name, cell.docs, tuple(onward), tuple(seen), tuple(asks))

    def _hash(self, module: str, position: int, cell: Cell) -> str:
        """A value that is computed by importing also depends on what was done before it, and so does, beside a star,
        any definition: the star may replace it.
        """
        summary = self.summary(module)
        if cell.kind == "docs" or ("fresh" in cell.flags and not summary.stars) or position in self.effects(module):
            return cell.hash
        sequence = set(self.sequence(module))
        order = summary.order if sequence else ()
        count = sum(1 for each in order[: order.index(position)] if each in sequence) if sequence else 0
        return digest(cell.hash, str(count)) if count else cell.hash

    def _of_import(self, name: str) -> Part:
        module, _, bound = name.partition(":")
        summary = self.summary(module)
        specs = summary.stars if bound == "*" else summary.binds[bound]
        targets = []
        for each in specs:
            spec, _, attribute = each.partition(":") if isinstance(each, str) else ("", "", "")
            target = self.absolute(module, spec)
            targets.append(f"{target}:{attribute}:{'here' if self.has(target) else ''}")
        return Part(digest("import", *targets), self.place(module), "")

    def _of_effects(self, module: str) -> Part:
        summary = self.summary(module)
        if summary.unread:
            return Part(label=f"import {module}", next=(f"whole {module}",))
        names = [each if isinstance(each, str) else summary.cells[each].name for each in self.sequence(module)]
        onward = [f"code {module}:{summary.cells[each].name}" for each in sorted(self.effects(module))]
        onward.extend(f"effects {each}" for each in self.imports(module))
        asks = ("docs",) if summary.reads_docs else ()
        hashed = digest("effects", *names) if names else ""
        return Part(hashed, self.place(module), f"import {module}", "", tuple(onward), (), asks)

    def _of_whole(self, module: str) -> Part:
        summary = self.summary(module)
        if module not in self.paths:  # a package without a file of its own
            return Part(digest("package"), module, f"all of {module}")
        if summary.unread:
            seen = (Seen("unread", f"{module} {summary.unread}", 0),)
            return Part(summary.whole, self.place(module), f"all of {module}", "", ("project ",), seen)
        onward = [f"effects {module}", *(f"code {module}:{cell.name}" for cell in summary.cells)]
        names = (name for name, found in summary.binds.items() if any(isinstance(each, str) for each in found))
        onward.extend(chain.from_iterable(self.nodes(self.found(module, name)) for name in names))
        onward = [each for each in onward if not each.startswith("whole ")]
        return Part(summary.whole, self.place(module), f"all of {module}", "", tuple(dict.fromkeys(onward)))

    def _of_file(self, path: str) -> Part:
        return Part(self.files[path].digest, path, path)

    def _of_project(self, _: str) -> Part:
        natives = (f"file {path}" for path in self.paths.values() if not path.endswith(".py"))
        modules = (f"whole {each}" for each, path in self.paths.items() if path.endswith(".py"))
        return Part(label="all of the project", next=(*modules, *natives))

    # -- closures

    def closure(self, asked: Asked) -> Closure:
        """The closure of a step, computed once."""
        if asked not in self._collected:
            call, declared, traced = asked
            module, _, name = call.partition(":")
            imports = (f"effects {each}" for each in self.run("", f"{module}:"))
            shadows = (f"whole {each}" for each in self.shadowing)
            start = (*self.nodes(self.found("", call)), *imports, *shadows)
            known = self._before.get(asked)
            if known is None or known.start != start or not self._unchanged(known.nodes):
                known = self._collect(name, start, declared, traced)
            self._collected[asked] = known
        return self._collected[asked].closure

    def _collect(self, name: str, start: tuple[str, ...], declared: frozenset[str], traced: bool) -> Collected:
        ways = self.reached(start, traced)
        imported = frozenset(node[8:] for node in ways if node.startswith("effects "))
        parts = [self._parts[node] for node in ways]
        notices = noticed(told(name, ((part.where, each) for part in parts for each in part.seen), declared))
        alone = {ask for part in parts for ask in part.asks} <= {"docs"}
        nodes = tuple(ways) if alone else ()
        return Collected(Closure(self.lines(ways), notices, imported), start, nodes)

    def _unchanged(self, nodes: Sequence[str]) -> bool:
        """Whether what was collected from these nodes, the nearest first, is collected again: no part has changed.

        Where one leads is part of it, so as long as none has changed there is a next one. Without nodes nothing can be
        said: what is asked of a closure as a whole is no matter of its parts.
        """
        for node in nodes:
            if node not in self._same:
                if self.part(node) != self._parts_before[node]:
                    return False
                self._same.add(node)
        return bool(nodes)

    def reached(self, start: Iterable[str], traced: bool = True) -> dict[str, tuple[str, ...]]:
        """Every node that these lead to, each with the shortest way there."""
        parts, ways = self._parts, dict[str, tuple[str, ...]]()
        waiting, asked = deque[str](), set[str]()

        def go(nodes: Iterable[str], way: tuple[str, ...]) -> None:
            for node in nodes:
                if node not in ways:
                    label = (parts.get(node) or self.part(node)).label
                    ways[node] = (*way, label) if label else way
                    waiting.append(node)

        go(start, ())
        while waiting:
            while waiting:
                node = waiting.popleft()
                part = parts[node]
                go(part.next, ways[node])
                if part.asks:
                    asked.update(part.asks)
            imported = [each[8:] for each in ways if each.startswith("effects ")] if asked else []
            if "computed" in asked and not traced:
                go(["project "], ("an import by a computed name",))
            if "everywhere" in asked:
                go([f"whole {each}" for each in imported], ("sys.modules",))
            if "subclasses" in asked:
                go([each for module in imported for each in self._derived(module)], ("__subclasses__",))
        return ways

    def _derived(self, module: str) -> Iterator[str]:
        for cell in self.summary(module).cells:
            if any(self.found(module, base).cells for base in cell.bases if base):
                yield f"code {module}:{cell.name}"

    def lines(self, ways: Mapping[str, tuple[str, ...]]) -> tuple[Line, ...]:
        parts = self._parts
        docs = any("docs" in parts[node].asks for node in ways)
        found = []
        for node in sorted(ways):
            part = parts[node]
            hashed = digest(part.hash, part.docs) if docs and part.docs else part.hash
            if hashed:
                found.append(Line(node, hashed, part.where, ways[node]))
        return tuple(found)

    def value(self, *start: str) -> str:
        """The digest of all that these nodes lead to."""
        if start not in self._values:
            self._values[start] = key(self.lines(self.reached(start)))
        return self._values[start]

    def listing(self, folder: str) -> list[str] | None:
        """The names in a folder, sorted; None when there is no such folder."""
        if not self._listings:
            found: dict[str, set[str]] = {"": set()}
            for path in self.files:
                while path:
                    above, _, name = path.rpartition("/")
                    found.setdefault(above, set()).add(name)
                    path = above
            self._listings = {each: sorted(names) for each, names in found.items()}
        return self._listings.get(folder)


PARTS: Mapping[str, Callable[[Project, str], Part]] = {
    "code": Project._of_code,
    "import": Project._of_import,
    "effects": Project._of_effects,
    "whole": Project._of_whole,
    "file": Project._of_file,
    "project": Project._of_project,
}


def closure_of(project: Project, call: str, declared: Iterable[str] = (), traced: bool = True) -> Closure:
    """The closure of the step `module:function`, computed once; `declared` are variables it may read.

    A step that runs untraced has all of the project in its closure when it imports by a computed name. A step that
    is not in the project has no code line: its environment's digest is all that is known of it.
    """
    return project.closure((call, frozenset(declared), traced))


def covered_by(project: Project, lines: Iterable[Line]) -> dict[str, frozenset[str]]:
    """The definitions that a closure's lines hold, by module: names at its top, which cover what is defined in them."""
    held: dict[str, set[str]] = {}
    for line in lines:
        if line.name.startswith("code "):
            module, _, name = line.name[5:].partition(":")
            held.setdefault(module, set()).add(name)
    return {module: project.covered(module, frozenset(names)) for module, names in held.items()}


def value_of(project: Project, kind: str, name: str) -> str:
    """The value of a fact now: what a file, a listing, a size, a module or a definition is.

    A module's value, and that of a definition that ran, hold all that their code leads to: a constant is read
    without anything being run. Kinds: file, listing, stat, module, ran.
    """
    path = name.strip("/").removeprefix("./") if name != "." else ""
    if kind == "module":
        return project.value(f"whole {name}") if name in project.paths else ABSENT
    if kind == "ran":
        module, _, definition = name.partition(":")
        if module not in project.paths:
            return ABSENT
        found = project.summary(module).binds.get(definition.partition(".")[0], ())
        cells = [project.summary(module).cells[each].name for each in found if isinstance(each, int)]
        return (
            project.value(*(f"code {module}:{each}" for each in cells)) if cells else project.value(f"whole {module}")
        )
    listing = project.listing(path)
    if kind == "listing":
        return digest("listing", *listing) if listing is not None else ABSENT
    if path in project.files:
        return project.files[path].digest if kind == "file" else str(project.files[path].size)
    return FOLDER if listing is not None else ABSENT
