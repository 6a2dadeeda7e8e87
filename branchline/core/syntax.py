"""This file walks Python's syntax tree: chains of names, what binds a name, what a node says without its layout."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

Node = ast.AST
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)
CLOSED = (*DEFINITIONS, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
# The fields of each kind of node that say what the code does: no positions, no contexts, no comments.
SILENT = {"ctx", "type_comment", "kind", "type_ignores"}
KINDS = [kind for kind in vars(ast).values() if isinstance(kind, type) and issubclass(kind, ast.AST)]
FIELDS = {kind: tuple(each for each in kind._fields if each not in SILENT) for kind in KINDS}
# Those below which a name may be bound, but for `:=`, which may stand in any expression.
PLACED = "targets target optional_vars body orelse finalbody handlers cases items elts pattern patterns"
BINDING = PLACED.split()
PLACES = {kind: tuple(each for each in found if each in BINDING) for kind, found in FIELDS.items()}
PLACES |= {ast.MatchClass: ("patterns", "kwd_patterns"), ast.Starred: ("value",)}


def children(node: Node, where: Mapping[type[Node], tuple[str, ...]] = FIELDS) -> list[Node]:
    """The nodes right below a node."""
    found: list[Node] = []
    for name in where[type(node)]:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found.extend([each for each in value if isinstance(each, ast.AST)])
        elif isinstance(value, ast.AST):
            found.append(value)
    return found


def chain(node: Node | None) -> list[str]:
    """`a.b.c` as its parts; empty when it does not begin with a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) else []


def rooted(node: Node) -> str:
    """The name that an expression as `a.b[0].c().d` begins with, or nothing."""
    while True:
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return node.id if isinstance(node, ast.Name) else ""


def steps(node: Node) -> list[str]:
    """`a.b().c` as a, b, *, c: a star for what is called or taken out; empty when it does not begin with a name."""
    parts: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Call | ast.Subscript):
            parts.append("*")
            node = node.func if isinstance(node, ast.Call) else node.value
        else:
            return []
    return [node.id, *reversed(parts)]


def text_of(node: Node | None) -> str | None:
    """The text that a node is, None for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def imports(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str, str]]:
    """What an import binds, to what, and what it runs: `import a.b` is (a, "a:", "a.b:"), `from .a import b` is
    (b, ".a:b", ".a:b"). A star binds `*`.
    """
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            found = f"{'.' * node.level}{node.module or ''}:{alias.name}"
            yield alias.asname or alias.name, found, found
        elif alias.asname:
            yield alias.asname, f"{alias.name}:", f"{alias.name}:"
        else:
            first = alias.name.partition(".")[0]
            yield first, f"{first}:", f"{alias.name}:"


def bound(nodes: Iterable[Node], walrus: bool = True) -> Iterator[tuple[str, Node]]:
    """The names that these nodes bind in their own scope, each with the node that binds it.

    Without `walrus` no `:=` is looked for, which is five times as fast.
    """
    where = FIELDS if walrus else PLACES
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                yield node.id, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((name, node) for name, _, _ in imports(node))
        elif isinstance(node, COMPREHENSIONS):
            inner = (each for each in ast.walk(node) if isinstance(each, ast.NamedExpr))
            yield from ((each.target.id, each) for each in inner)
        elif isinstance(node, DEFINITIONS):
            yield node.name, node
        elif not isinstance(node, ast.Lambda):
            named = getattr(node, "rest" if isinstance(node, ast.MatchMapping) else "name", None)
            if isinstance(named, str) and not isinstance(node, ast.alias):
                yield named, node
            waiting.extend(children(node, where)[::-1])


def walked(nodes: Iterable[Node]) -> Iterator[Node]:
    """These nodes and what is below them, in order, but not what is inside a function or class below them."""
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, CLOSED):
            waiting.extend(children(node)[::-1])


def write(node: Node, out: list[str], docs: list[str]) -> None:
    """Write what a node says: kinds, fields that are not empty, values. Bare strings, as docstrings, go to `docs`.

    Nothing that is written holds a NUL, which is put between.
    """
    kind = type(node)
    out.append(kind.__name__)
    if isinstance(node, ast.Constant):
        value = node.value
        out.append(f"{type(value).__name__} {value:x}" if type(value) is int else f"{type(value).__name__} {value!r}")
        return
    for name in FIELDS[kind]:
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            out.append(name)
            write(value, out, docs)
        elif isinstance(value, list):
            if value:
                out.append(f"{name}[")
                for each in value:
                    if isinstance(each, ast.Expr) and (text := text_of(each.value)) is not None:
                        docs.append(text)
                    elif isinstance(each, ast.AST):
                        write(each, out, docs)
                    else:
                        out.append(f"={each}")
        elif value is not None:
            out.append(f"{name}={value}")
    out.append(")")
