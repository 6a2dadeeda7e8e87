"""This file takes one rule of the fingerprints away at a time, and names the edits that are judged wrongly without it.

A spoilt rule is an edit of the text of a module of `core`; the modules that follow it are run again on the edited one,
beside the real ones, which have no switch to turn anything off.
"""

from __future__ import annotations

import builtins
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

from branchline.core import closure, effects, scopes, source, syntax

MODULES = (syntax, scopes, source, effects, closure)  # each imports those before it only


@dataclass(frozen=True)
class Spoilt:
    """One rule: its text, what stands there without it, and an edit of the corpus that shows it."""

    rule: str
    module: ModuleType
    text: str
    instead: str
    shown: str


@cache
def code(module: ModuleType) -> CodeType:
    return compile(inspect.getsource(module), "<spoilt>", "exec", dont_inherit=True)


def spoil(rule: Spoilt) -> Mapping[str, Any]:
    """The names of the modules without the rule."""
    text = inspect.getsource(rule.module)
    assert text.count(rule.text) == 1, f"{rule.module.__name__} has this {text.count(rule.text)} times: {rule.text}"
    edited = compile(text.replace(rule.text, rule.instead), "<spoilt>", "exec", dont_inherit=True)
    fresh: dict[str, SimpleNamespace] = {}

    def imported(name: str, *told: Any) -> Any:
        return fresh.get(name) or builtins.__import__(name, *told)

    names: dict[str, Any] = {}
    for module in MODULES[MODULES.index(rule.module) :]:
        seen = {"__name__": module.__name__, "__builtins__": {**vars(builtins), "__import__": imported}}
        exec(edited if module is rule.module else code(module), seen)  # noqa: S102  the project's own text
        fresh[module.__name__] = SimpleNamespace(**seen)
        names |= seen
    return {**vars(source), **vars(closure), **names}


RULES = (
    # What a definition's hash is of.
    Spoilt(
        "positions do not count",
        syntax,
        "for each in kind._fields if",
        "for each in (*kind._fields, *kind._attributes) if",
        "P01",
    ),
    Spoilt("docstrings do not count", syntax, "docs.append(text)", "out.append(text)", "P02"),
    Spoilt("docstrings count where they are read", closure, 'any("docs" in', 'any("no" in', "S17"),
    Spoilt("a value has its type", syntax, 'f"{type(value).__name__} {value!r}"', 'f"int {value:x}"', "S55"),
    Spoilt("from __future__ counts", source, "out: list[str] = [self.salt]", "out: list[str] = []", "S54"),
    # Which names it uses.
    Spoilt("a local hides a global", scopes, "if name in scope.names and", "if False and", "S26"),
    Spoilt("a class may take a global", scopes, "elif scope is None or scope.of_class:", "elif scope is None:", "S91"),
    Spoilt("a comprehension has its own names", syntax, "isinstance(node, COMPREHENSIONS)", "False", "S31"),
    Spoilt("a walrus binds", source, '"NamedExpr" in out', "False", "S83"),
    Spoilt("an annotation in quotes is read", scopes, "self.quoted = True", "self.quoted = False", "S16"),
    Spoilt("an import inside of a function binds", scopes, "elif self.scopes:", "elif False:", "S24"),
    Spoilt("a function may import for all", source, "*([found] if found else [])", "", "S67"),
    Spoilt("a text that is executed is read", scopes, "ast.parse(text).body if text is not None", "[] if text", "S35"),
    # What the names lead to.
    Spoilt("relative imports", effects, "if not level:", "if True:", "S20"),
    Spoilt("what a name is imported as", effects, 'into.nodes.append(f"import {module}:{name}")', "pass", "S02"),
    Spoilt("every binding of a name", effects, "summary.binds.get(name, ())", "summary.binds.get(name, ())[:1]", "S32"),
    Spoilt("modules below a package", effects, "if self.has(below):", "if False:", "S20"),
    Spoilt("a package may bind its module's name", effects, "if above in self.paths and", "if False and", "S99"),
    Spoilt("star imports", effects, "for star in summary.stars:", "for star in ():", "P17"),
    Spoilt("__all__ of a star import", effects, 'self._bound(source, ("__all__",), into, seen)', "pass", "S12"),
    Spoilt("earlier roots win", effects, "for root in self.roots:", "for root in self.roots[::-1]:", "S23"),
    Spoilt("texts that are files", effects, "if path in self.files:", "if False:", "S51"),
    Spoilt("texts that are dotted paths", effects, "if dot and self.has(first)", "if False", "S52"),
    Spoilt("import_module of a text", scopes, 'self.refs.setdefault(f"{text}:", self.line)', "pass", "S53"),
    # What importing does.
    Spoilt("a module of Python's own name", effects, "if name in SHADOWING", "if False", "S84"),
    Spoilt("a bare call at import is an effect", source, '(kind == "block" or', "(", "S92"),
    Spoilt("a store into a module is an effect", source, " or reading.stores)", ")", "P16"),
    Spoilt("a call that changes state is an effect", effects, 'loud = "changes" in cell.flags', "loud = False", "P09"),
    Spoilt("so is one two calls down", effects, "waiting.append((found, index))", "pass", "S90"),
    Spoilt("and one of a decorated function", effects, "(*cell.inner.items(), *cell.calls.items())", "()", "S72"),
    Spoilt(
        "a global that is bound is state",
        scopes,
        "self.changes = True\n            self.globals",
        "self.globals",
        "S85",
    ),
    Spoilt("what a call is given is state", scopes, "self.changes_given = True", "pass", "S45"),
    Spoilt("so is another name for it", scopes, "here.shared.update(names)", "pass", "S65"),
    Spoilt("calling what is given", scopes, "len(parts) == 1 or ", "len(parts) > 1 and ", "S71"),
    Spoilt("a class is given to its methods", scopes, 'discard("self")', "clear()", "S70"),
    Spoilt("a method of an object is an effect", effects, 'cell.kind != "class" or "given"', '"given"', "S46"),
    Spoilt("a function that a call is given", effects, "return self.loud(module, at) or any(", "return any(", "S97"),
    Spoilt("a lambda that a call is given", effects, "not rest and self.summary", "False and self.summary", "S96"),
    Spoilt("but not one that reads", effects, "rest[-1] in READING and", "False and", "S86"),
    Spoilt("nor one of a logger", effects, ' or "logger" in cell.flags', "", "S50"),
    Spoilt("any method that decorates is an effect", effects, " and not told & DECORATES", "", "S47"),
    Spoilt("what a decorator is given alone is its own", effects, "bool(told & GIVEN)", "True", "S49"),
    Spoilt("a named tuple is no effect", effects, '"made" in cell.flags and not self._type(cell)', "True", "S80"),
    Spoilt("__init_subclass__", source, '"__init_subclass__" in made or', "", "P18"),
    Spoilt("a metaclass", source, "or any(each not in", "or all(each in", "S43"),
    Spoilt("classes above the one above", effects, "self._hooked(where, above, seen)", "False", "S78"),
    Spoilt("a class that a call made", effects, '"made" in above.flags', "False", "S79"),
    Spoilt("packages above a module are run", effects, "(target[:end] for end in ends)", "[target]", "S21"),
    Spoilt("imports inside of a function are run", closure, "for spec in cell.imports:", "for spec in ():", "S87"),
    Spoilt("imports with effects have an order", effects, "self._stirs(module, each)", "False", "S07"),
    Spoilt("star imports have an order", effects, "summary.stars or", "", "S94"),
    Spoilt("a name that is bound twice has an order", effects, "if each in twice", "if False", "S09"),
    Spoilt("a value is taken after so many effects", closure, "digest(cell.hash, str(count))", "cell.hash", "S06"),
    Spoilt("but not a plain function", closure, '"fresh" in cell.flags and', "False and", "S89"),
    Spoilt("unless a star may replace it", closure, " and not summary.stars", "", "S93"),
    Spoilt("what only a type checker runs", source, '== ["TYPE_CHECKING"]', "== []", "S34"),
    Spoilt('what stands under __name__ == "__main__"', source, "and _names_main(node.test)", "and False", "S33"),
    # What is taken whole.
    Spoilt(
        "a module that is a value", effects, "if not parts or", "if not parts:\n            return\n        if", "S40"
    ),
    Spoilt("the __dict__ of a module", effects, ' or parts[0] == "__dict__"', "", "S88"),
    Spoilt("globals()", scopes, '("", (f"{name}()", self.line))', '("none", ("", 1))', "S37"),
    Spoilt("eval of a computed text", scopes, '("", (f"{name} of a computed text"', '("none", ("a"', "S36"),
    Spoilt("sys.modules", closure, 'if "everywhere" in asked', "if False", "S39"),
    Spoilt("__getattr__ of a module", effects, "if not known and", "if False and", "S41"),
    Spoilt("__subclasses__", closure, 'if "subclasses" in asked', "if False", "S42"),
    Spoilt("a file that does not parse", closure, '("project ",), seen', "(), seen", "S95"),
)
