"""This file turns the text of one Python module into a summary: its definitions, and what each uses and does.

A summary is a function of the module's bytes alone, so it may be kept by their digest. One statement of the module is
one *cell*; a class is one cell, since which method a call reaches cannot be told. A cell's hash leaves out positions,
comments, layout and docstrings (they have a hash of their own, for modules that read them).
"""

from __future__ import annotations

import ast
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from branchline.core.scopes import Reading
from branchline.core.syntax import COMPREHENSIONS, FUNCTIONS, Node, bound, chain, imports, text_of, walked, write

FORMAT = 1  # a kept summary of another format is no summary
READS_DOCS = (b"__doc__", b"getdoc", b"cleandoc")
BLOCKS = (ast.If, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.For, ast.AsyncFor, ast.While, ast.Match)
FRESH = (ast.Constant, ast.Lambda)


class Cell(NamedTuple):
    """One statement of a module.

    `name` is unique in its module. `refs` are the names it uses and `line`s where (see `scopes`), `imports` what its
    functions import, `calls` what importing it calls, `inner` what its functions call, `wide` which modules it may
    reach any part of and why, `reads` the variables of the environment it reads, `flags` what else is true of it.
    """

    name: str
    kind: str
    line: int
    hash: str
    docs: str
    refs: Mapping[str, int]
    imports: Mapping[str, int]
    strings: tuple[str, ...]
    calls: Mapping[str, int]
    inner: Mapping[str, int]
    wide: Mapping[str, tuple[str, int]]
    reads: Mapping[str, int]
    bases: tuple[str, ...]
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Module:
    """One module's summary.

    `whole` is the hash of all of it (of its bytes when `unread` says why it has no cells), `binds` what each name may
    be: a cell's position or what is imported, `order` what importing it does, cell by cell and import by import.
    """

    whole: str
    unread: str = ""
    cells: tuple[Cell, ...] = ()
    binds: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    order: tuple[int | str, ...] = ()
    stars: tuple[str, ...] = ()
    reads_docs: bool = False

    def to_json(self) -> str:
        return json.dumps([FORMAT, *(getattr(self, name) for name in self.__slots__)], separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Module | None:
        """The summary that `to_json` wrote; None when another release wrote it in another format."""
        kept = json.loads(text)
        if not isinstance(kept, list) or kept[:1] != [FORMAT]:
            return None
        whole, unread, cells, binds, order, stars, reads_docs = kept[1:]
        names = {name: tuple(found) for name, found in binds.items()}
        read = tuple(Cell(*map(_frozen, each)) for each in cells)
        return cls(whole, unread, read, names, tuple(order), tuple(stars), reads_docs)


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return {name: tuple(each) if isinstance(each, list) else each for name, each in value.items()}
    return value


def digest(*parts: str) -> str:
    """A SHA-256, as 32 hexadecimal digits, of parts that cannot run into one another."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def summary(text: bytes) -> Module:
    """Read a module. One that does not parse (in the Python that reads) has its bytes' hash and a reason, no cells."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a reader of old code is told by their own Python
            tree = ast.parse(text)
        return _Summary(tree, any(word in text for word in READS_DOCS)).module()
    except SyntaxError as error:
        return Module(digest("bytes", sha256(text).hexdigest()), f"line {error.lineno or 1}: {error.msg}")
    except (ValueError, RecursionError, MemoryError) as error:
        return Module(digest("bytes", sha256(text).hexdigest()), str(error) or "it is nested too deeply")


class _Summary:
    """A module that is being read, statement by statement."""

    def __init__(self, tree: ast.Module, reads_docs: bool) -> None:
        self.tree = tree
        self.reads_docs = reads_docs
        self.cells: list[Cell] = []
        self.binds: dict[str, list[int | str]] = {}
        self.order: list[int | str] = []
        self.stars: list[str] = []
        self.seen: Counter[str] = Counter()
        future = (node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__")
        self.salt = " ".join(sorted(alias.name for node in future for alias in node.names))

    def module(self) -> Module:
        self.statements(self.tree.body, typing=False)
        whole = digest(
            "module",
            self.salt,
            *(f"{each.name} {each.hash}" for each in self.cells),
            *(f"{name} {tuple(dict.fromkeys(found))}" for name, found in sorted(self.binds.items())),
            *map(str, self.order),
        )
        if docs := ast.get_docstring(self.tree, clean=False):  # last: no place of anything else depends on it
            self.binds["__doc__"] = [len(self.cells)]
            self.cells.append(Cell("__doc__", "docs", 1, "", digest(docs), {}, {}, (), {}, {}, {}, {}, (), ("fresh",)))
        binds = {name: tuple(dict.fromkeys(found)) for name, found in self.binds.items()}
        cells = tuple(each._replace(refs=self.known(each.refs), calls=self.known(each.calls)) for each in self.cells)
        cells = tuple(each._replace(inner=self.known(each.inner)) for each in cells)
        stars = tuple(dict.fromkeys(self.stars))
        return Module(whole, "", cells, binds, tuple(self.order), stars, self.reads_docs)

    def known(self, names: Mapping[str, int]) -> Mapping[str, int]:
        """Only what begins with a name of the module; with a star import that may be any name."""
        if self.stars:
            return names
        return {each: told for each, told in names.items() if ":" in each or each.partition(".")[0] in self.binds}

    def statements(self, body: Iterable[ast.stmt], typing: bool) -> None:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.importing([node], typing)
            elif isinstance(node, ast.If) and _names_main(node.test):
                self.block(node.orelse, typing)
            elif isinstance(node, ast.If) and chain(node.test)[-1:] == ["TYPE_CHECKING"]:
                self.statements(node.body, typing=True)
                self.block(node.orelse, typing)
            elif not isinstance(node, ast.Pass) and not (
                isinstance(node, ast.Expr) and text_of(node.value) is not None
            ):
                self.cell(node, typing)

    def block(self, body: list[ast.stmt], typing: bool) -> None:
        """What is left of an `if` of which one half never runs here."""
        if body:
            self.cell(ast.copy_location(ast.If(ast.Constant(value=True), body, []), body[0]), typing)

    def importing(self, nodes: Iterable[ast.Import | ast.ImportFrom], typing: bool) -> None:
        for node in nodes:
            for name, found, run in imports(node):
                if name == "*":
                    self.stars.append(found)
                else:
                    self.binds.setdefault(name, []).append(found)
                if not typing and run not in self.order:
                    self.order.append(run)

    def cell(self, node: ast.stmt, typing: bool) -> None:
        out: list[str] = [self.salt]
        docs: list[str] = []
        write(node, out, docs)
        reading = Reading("NamedExpr" in out, "Global" in out)
        reading.read(node)
        at_import = [each for each in walked([node]) if isinstance(each, ast.Import | ast.ImportFrom)]
        if isinstance(node, BLOCKS):
            self.importing(at_import, typing)
        elif isinstance(node, ast.ClassDef):
            self.order.extend(
                run
                for each in walked(node.body)
                if isinstance(each, (ast.Import, ast.ImportFrom))
                for _, _, run in imports(each)
            )
        names = list(
            dict.fromkeys(name for name, binder in bound([node]) if not isinstance(binder, ast.Import | ast.ImportFrom))
        )
        kind = _kind(node)
        position = len(self.cells)
        self.cells.append(
            Cell(
                name=self.named(names, node),
                kind=kind,
                line=node.lineno,
                hash=digest("cell", "\0".join(out)),
                docs=digest(*docs) if docs else "",
                refs=reading.refs,
                imports=reading.imports,
                strings=tuple(reading.strings),
                calls=reading.calls,
                inner=reading.inner,
                wide=reading.wide,
                reads=reading.reads,
                bases=tuple(".".join(chain(each)) for each in node.bases) if isinstance(node, ast.ClassDef) else (),
                flags=tuple(sorted(_flags(node, kind, reading, typing))),
            )
        )
        for name in names:
            self.binds.setdefault(name, []).append(position)
        for name, found in reading.globals.items():
            self.binds.setdefault(name, []).extend([position, *([found] if found else [])])
        self.order.append(position)

    def named(self, names: list[str], node: ast.stmt) -> str:
        """A name that does not change when lines move: what is bound, or what is done; `#2` for a second one."""
        asked = node.value if isinstance(node, ast.Expr | ast.AugAssign) else node
        done = ast.unparse(node.targets[0])[:60] if isinstance(node, ast.Assign | ast.Delete) else ""
        name = names[0] if names else done or _called(asked) or type(node).__name__.lower()
        self.seen[name] += 1
        return name if self.seen[name] == 1 else f"{name}#{self.seen[name]}"


def _called(node: Node | None) -> str:
    return ".".join(chain(node.func)) if isinstance(node, ast.Call) else ""


def _names_main(test: ast.expr) -> bool:
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = (test.left, test.comparators[0])
    return any(chain(each) == ["__name__"] for each in sides) and any(text_of(each) == "__main__" for each in sides)


def _kind(node: ast.stmt) -> str:
    if isinstance(node, FUNCTIONS):
        return "def"
    if isinstance(node, ast.ClassDef):
        return "class"
    return "value" if isinstance(node, ast.Assign | ast.AnnAssign) or type(node).__name__ == "TypeAlias" else "block"


def _flags(node: ast.stmt, kind: str, reading: Reading, typing: bool) -> Iterator[str]:
    """What the links ask of a cell besides its names.

    runs: it does something when the module is imported; calls: it calls something then; made: it is what a call
    returned; changes, given: its functions change a module's state, or what they are given; fresh: nothing in it
    depends on when it runs; logger: its methods change nothing that counts; hooks: classes below it do something by
    being made; computed: it imports by a computed name; subclasses: it asks for them; unnamed: functions of it have
    no name of their own.
    """
    value = getattr(node, "value", None)
    if (kind == "block" or reading.stores) and not typing:
        yield "runs"
    if reading.changes:
        yield "changes"
    if reading.changes_given:
        yield "given"
    if "__subclasses__" in reading.words:
        yield "subclasses"
    if "import_module" in reading.words:
        yield "computed"
    if kind == "value" and _called(value).endswith(("getLogger", "get_logger")):
        yield "logger"
    if kind == "value" and reading.called_at_import:
        yield "calls"
    if kind == "value" and isinstance(value, ast.Call):
        yield "made"
    if isinstance(node, ast.ClassDef):
        made = {each.name for each in node.body if isinstance(each, FUNCTIONS)}
        meta = (chain(each.value)[-1:] for each in node.keywords if each.arg == "metaclass")
        if "__init_subclass__" in made or any(each not in (["ABCMeta"], ["EnumMeta"], ["EnumType"]) for each in meta):
            yield "hooks"
    elif isinstance(value, FRESH) or (isinstance(node, FUNCTIONS) and _plain(node)):
        yield "fresh"
    # What has no name of its own at the top of the module.
    at_import: list[Node] = [node]
    if isinstance(node, FUNCTIONS):
        at_import = [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
    if any(isinstance(each, (ast.Lambda, *COMPREHENSIONS)) for each in walked(at_import)):
        yield "unnamed"


def _plain(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A function whose making computes nothing: no decorator, and defaults that are constants."""
    defaults = [each for each in (*node.args.defaults, *node.args.kw_defaults) if each is not None]
    return not node.decorator_list and all(isinstance(each, FRESH) for each in defaults)
