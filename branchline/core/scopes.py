"""This file reads one definition: which names of its module it uses, what it calls, and what it may change.

A name is looked up as Python does: a local that shares a global's name is no reference. Where a reading is in doubt it
takes more, never less: too much costs a run, too little reuses a stale result. References are dotted text: `np.mean`
begins with a name of the module, `pkg.lib:f.x` with something that was imported on the spot.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from branchline.core.syntax import (
    COMPREHENSIONS,
    FIELDS,
    FUNCTIONS,
    Node,
    bound,
    chain,
    children,
    imports,
    rooted,
    steps,
    text_of,
    walked,
)

# Methods that change nothing of what they are called on, whatever the object is.
READ_ONLY = (
    "get items keys values copy index count split rsplit splitlines join format strip lstrip rstrip lower upper title "
    "replace startswith endswith encode decode isdigit union intersection difference find read_text read_bytes exists "
    "is_file is_dir with_name with_suffix joinpath resolve absolute parent_of relative_to iterdir glob rglob"
)
READING = frozenset(READ_ONLY.split())
CHANGING = frozenset({"setattr", "delattr", "exec", "eval", "globals", "vars"})
# What a call tells besides its name: it was given something of the module, it decorates, it is of a call's result.
GIVEN, DECORATES = 1, 2


@dataclass(slots=True)
class Scope:
    """The names of one function, class or comprehension: all, those that came from a caller, those that are another
    name of something of a module, those that were imported there, and those that are declared global.
    """

    names: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    imported: dict[str, str] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    of_class: bool = False


class Reading:
    """What one cell uses, calls and changes; `read` fills it."""

    def __init__(self, walrus: bool, outside: bool) -> None:
        self.walrus = walrus  # is there a `:=` in it, and a `global`?
        self.outside = outside
        self.refs: dict[str, int] = {}
        self.imports: dict[str, int] = {}  # run when the cell runs
        self.strings: dict[str, None] = {}
        self.calls: dict[str, int] = {}  # made by importing the module, with what is known of them
        self.inner: dict[str, int] = {}  # made when a function of the cell runs
        self.wide: dict[str, tuple[str, int]] = {}  # "" is the own module, "*" any that is imported
        self.reads: dict[str, int] = {}  # "os.environ BATCH"
        self.globals: dict[str, str] = {}  # bound by a function, with what it imported as that name
        self.words: set[str] = set()
        self.changes = False  # the state of a module, when a function of it runs
        self.changes_given = False  # what a function of it was given
        self.stores = False  # into an attribute or item, by importing
        self.called_at_import = False
        self.quoted = False  # may a text be code?
        self.line = 0
        self.depth = 0
        self.scopes: list[Scope] = []

    # -- names

    def scope_of(self, name: str) -> Scope | None:
        """The scope that a name belongs to, None for a global (or a builtin)."""
        for position, scope in enumerate(reversed(self.scopes)):
            if name in scope.outside:
                return None
            if name in scope.names and not (scope.of_class and position):
                return scope
        return None

    def use(self, parts: list[str]) -> None:
        scope = self.scope_of(parts[0])
        if scope is not None and parts[0] in scope.imported:
            module, _, name = scope.imported[parts[0]].partition(":")
            self.refs.setdefault(f"{module}:{'.'.join([*filter(None, [name]), *parts[1:]])}", self.line)
        elif scope is None or scope.of_class:
            self.refs.setdefault(".".join(parts), self.line)
        for part in parts[1:]:
            if part.startswith("__"):
                self.words.add(part)

    def change(self, name: str) -> None:
        """Something changes an attribute or an item of what `name` holds."""
        scope = self.scope_of(name) if name else None
        if not self.depth:
            self.stores |= scope is None or name in scope.given
        elif not name or scope is None or name in scope.imported or name in scope.shared:
            self.changes = True
        elif name in scope.given:
            self.changes_given = True

    # -- walking

    def read(self, node: Node) -> None:
        self.line = getattr(node, "lineno", self.line)
        special = SPECIAL.get(type(node))
        if special:
            special(self, node)
        else:
            self.below(node)

    def below(self, node: Node) -> None:
        for name in FIELDS[type(node)]:
            value = getattr(node, name, None)
            if isinstance(value, list):
                for each in value:
                    if isinstance(each, ast.AST):
                        self.read(each)
            elif isinstance(value, ast.AST):
                self.read(value)

    def every(self, nodes: Iterable[Node | None]) -> None:
        for node in nodes:
            if node is not None:
                self.read(node)

    def name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.use([node.id])

    def attribute(self, node: ast.Attribute) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.change(changed(node.value))
        if node.attr.startswith("__"):
            self.words.add(node.attr)
        parts = chain(node)
        if parts:
            self.use(parts)
            if parts[:2] == ["sys", "modules"]:
                self.wide.setdefault("*", ("it looks into sys.modules", self.line))
        else:
            self.read(node.value)

    def subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self.change(changed(node.value))
        parts, text = chain(node.value), text_of(node.slice)
        if parts == ["sys", "modules"] and (text or chain(node.slice) == ["__name__"]):
            self.wide.setdefault(f"{text}:" if text else "", ("it looks into sys.modules", self.line))
            return
        if text and parts and parts[-1] == "environ":
            self.reads.setdefault(f"{'.'.join(parts)} {text}", self.line)
        self.read(node.value)
        self.read(node.slice)

    def constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and 0 < len(node.value) < 256 and "\n" not in node.value:
            self.strings[node.value] = None
            if self.quoted:
                self.unquoted(node.value)

    def unquoted(self, text: str) -> None:
        line = self.line
        try:
            self.every([ast.parse(text, mode="eval").body])
        except SyntaxError:
            return  # a text, and no annotation
        finally:
            self.line = line

    def annotation(self, node: Node | None) -> None:
        """An annotation, or a part of one, may be text: the names in it count."""
        self.quoted = True
        self.every([node])
        self.quoted = False

    def annotated(self, node: ast.AnnAssign) -> None:
        self.annotation(node.annotation)
        self.assigned(node)

    def assigned(
        self, node: ast.Assign | ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor | ast.withitem
    ) -> None:
        """A local that is given something from outside is that thing under another name."""
        source = next((each for name in ("value", "iter", "context_expr") if (each := getattr(node, name, None))), None)
        if self.scopes and source is not None:
            root, here = rooted(source), self.scopes[-1]
            scope = self.scope_of(root) if root else here
            targets = [*getattr(node, "targets", []), getattr(node, "target", None)]
            targets.append(getattr(node, "optional_vars", None))
            names = [name for name, _ in bound((each for each in targets if each is not None), walrus=False)]
            if scope is None or root in scope.shared:
                here.shared.update(names)
            elif root in scope.given:
                here.given.update(names)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            self.use([node.target.id])
        for name in FIELDS[type(node)]:
            if name != "annotation":
                value = getattr(node, name, None)
                self.every(value if isinstance(value, list) else [value if isinstance(value, ast.AST) else None])

    def told_global(self, node: ast.Global | ast.Nonlocal) -> None:
        if isinstance(node, ast.Global) and self.scopes:
            self.changes = True
            self.globals.update(dict.fromkeys(node.names, ""))

    def importing(self, node: ast.Import | ast.ImportFrom) -> None:
        for name, found, run in imports(node):
            self.imports.setdefault(run, node.lineno)
            if self.scopes and name in self.scopes[-1].outside:
                self.globals[name] = found
            elif self.scopes:
                self.scopes[-1].imported.setdefault(name, found)

    # -- scopes

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        asked = node.args
        every = [*asked.posonlyargs, *asked.args, *asked.kwonlyargs]
        every += [each for each in (asked.vararg, asked.kwarg) if each]
        self.every([*asked.defaults, *asked.kw_defaults])
        scope = Scope(names={each.arg for each in every}, given={each.arg for each in every})
        if self.scopes and self.scopes[-1].of_class:
            scope.given.discard("self")  # a new object is its maker's own; a class is not
        if not isinstance(node, ast.Lambda):
            for decorator in node.decorator_list:
                self.decorated(decorator)
            scope.names |= {each.name for each in getattr(node, "type_params", ())}
            for annotation in (*(each.annotation for each in every), node.returns):
                self.annotation(annotation)
            scope.names |= {name for name, _ in bound(node.body, self.walrus)}
            inside = (each for each in walked(node.body if self.outside else ()) if isinstance(each, ast.Global))
            scope.outside = {name for each in inside for name in each.names}
        self.scopes.append(scope)
        self.depth += 1
        self.every(node.body if isinstance(node.body, list) else [node.body])
        self.every(getattr(node, "type_params", ()))
        self.depth -= 1
        self.scopes.pop()

    def decorated(self, node: ast.expr) -> None:
        called = node.func if isinstance(node, ast.Call) else node
        self.called(called, DECORATES)
        self.read(node)

    def class_(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.decorated(decorator)
        self.every([*node.bases, *node.keywords])
        kinds = {each.name for each in getattr(node, "type_params", ())}
        self.scopes.append(Scope(names={name for name, _ in bound(node.body, self.walrus)} | kinds, of_class=True))
        self.every([*getattr(node, "type_params", ()), *node.body])
        self.scopes.pop()

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        first = node.generators[0]
        self.read(first.iter)
        names = {name for each in node.generators for name, _ in bound([each.target])}
        self.scopes.append(Scope(names=names, given=set(names)))
        for each in node.generators:
            self.every([each.target, *([] if each is first else [each.iter]), *each.ifs])
        self.every([getattr(node, name, None) for name in ("key", "value", "elt")])
        self.scopes.pop()

    # -- calls

    def called(self, func: Node, told: int) -> None:
        """Note a call by its name: `a.b`, or `a.*.c` for a method of what `a()` or `a[0]` is."""
        parts = steps(func)
        scope = self.scope_of(parts[0]) if parts else None
        if parts and scope is None:
            calls = self.inner if self.depth else self.calls
            calls[".".join(parts)] = calls.get(".".join(parts), 0) | told
        elif scope and parts[0] in scope.imported:
            self.inner[f"{scope.imported[parts[0]]}.{'.'.join(parts[1:])}".rstrip(".")] = told
        elif scope and (len(parts) == 1 or parts[-1] not in READING):
            self.change(changed(func))

    def call(self, node: ast.Call) -> None:
        self.called_at_import |= not self.depth
        parts = chain(node.func)
        first = node.args[0] if node.args else None
        given = any(map(self.given, (*node.args, *(each.value for each in node.keywords))))
        self.called(node.func, GIVEN if given else 0)
        name = parts[-1] if parts else ""
        if len(parts) == 1 and self.scope_of(name) is None and self.builtin(name, node):
            return
        text = text_of(first)
        if name in {"import_module", "__import__"}:
            self.stores |= not self.depth
            if text is None:
                self.words.add("import_module")
            else:
                self.imports.setdefault(f"{text}:", self.line)
                self.refs.setdefault(f"{text}:", self.line)
        if text and (name == "getenv" or "environ" in parts[:-1]):
            self.reads.setdefault(f"{'.'.join(parts)} {text}", self.line)
        self.below(node)

    def given(self, node: Node) -> bool:
        """May this argument hold something of a module?"""
        root = rooted(node)
        if root:
            return self.scope_of(root) is None
        return not isinstance(node, ast.Constant) and any(map(self.given, children(node)))

    def builtin(self, name: str, node: ast.Call) -> bool:
        """What the builtins mean that reach names by text; true when nothing is left to read."""
        first, second = (*node.args[:2], None, None)[:2]
        if name in CHANGING:
            self.changes |= bool(self.depth)
            self.stores |= not self.depth
        if name in {"exec", "eval"} and first is not None:
            text = text_of(first)
            try:
                self.every(ast.parse(text).body if text is not None else [])
            except SyntaxError:
                text = None
            if text is None:
                self.wide.setdefault("", (f"{name} of a computed text", self.line))
        elif name in {"globals", "vars", "locals"} and first is None:
            if name != "locals" or not self.depth:
                self.wide.setdefault("", (f"{name}()", self.line))
        elif name == "vars":
            self.wide.setdefault(".".join(chain(first)), ("vars()", self.line))
        elif name in {"getattr", "hasattr", "setattr", "delattr"} and chain(first):
            attribute = text_of(second)
            if attribute is not None:
                self.use([*chain(first), attribute])
                self.every([*node.args[1:], *node.keywords])
                return True
            self.wide.setdefault(".".join(chain(first)), (f"{name} with a computed name", self.line))
        return False


def changed(node: Node) -> str:
    """The name of what a store goes into, nothing when that is not told by a name: a class, by way of its object."""
    return "" if "__class__" in steps(node) else rooted(node)


SPECIAL: dict[type[Node], Callable[[Reading, Any], None]] = {
    ast.Name: Reading.name,
    ast.Attribute: Reading.attribute,
    ast.Subscript: Reading.subscript,
    ast.Constant: Reading.constant,
    ast.AnnAssign: Reading.annotated,
    ast.Global: Reading.told_global,
    ast.Nonlocal: Reading.told_global,
    ast.Lambda: Reading.function,
    ast.ClassDef: Reading.class_,
    ast.Call: Reading.call,
    **dict.fromkeys((ast.Assign, ast.AugAssign, ast.For, ast.AsyncFor, ast.withitem), Reading.assigned),
    **dict.fromkeys((ast.Import, ast.ImportFrom), Reading.importing),
    **dict.fromkeys(FUNCTIONS, Reading.function),
    **dict.fromkeys(COMPREHENSIONS, Reading.comprehension),
}
