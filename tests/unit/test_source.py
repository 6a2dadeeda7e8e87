"""This file tests what a summary holds of a module's text, and that it is kept as JSON."""

from __future__ import annotations

import sys

import pytest

from branchline.core.source import Cell, Module, summary


def cells(text: str) -> dict[str, Cell]:
    return {cell.name: cell for cell in summary(text.encode()).cells}


def refs(text: str, name: str = "f") -> set[str]:
    return set(cells(text)[name].refs)


TEXTS = {
    "everything": '''
"""Doc."""
from __future__ import annotations
import numpy as np, os.path
from . import near
from lib import *
log = make_logger()
X: int = 1
near.size = 2
A, (B, *C) = 1, (2, 3)
A += 1
del A
@register("a")
def f(a, /, b: "np.int" = X, *c, d=None, **e) -> list[int]:
    """Doc."""
    global G
    G = [each for each in c if (last := each)]
    return lambda: os.path.join(a, "b")
class K(f, metaclass=M):
    """Doc."""
    import json
    def g(self):
        return self
for each in C:
    print(each)
if __name__ == "__main__":
    f()
else:
    Z = 1
''',
    "unread": "def (",
    "nothing": "",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_summary_comes_back_from_json(text: str) -> None:
    kept = summary(text.encode())
    assert Module.from_json(kept.to_json()) == kept


@pytest.mark.parametrize("text", ['{"a": 1}', "[0, 1]"])
def test_a_summary_of_another_format_is_none(text: str) -> None:
    assert Module.from_json(text) is None


def test_a_cell_is_one_statement_with_a_name_that_lines_do_not_change() -> None:
    assert list(cells(TEXTS["everything"])) == [
        "log", "X", "near.size", "A", "A#2", "A#3", "f", "K", "each", "Z", "__doc__",
    ]  # fmt: skip
    assert list(cells("f()\nf()\n(1).g()\nwhile 1: pass")) == ["f", "f#2", "expr", "while"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"def (", "line 1: invalid syntax"),
        (b"x = '\x00'", "null bytes"),
        (b"x = " + b"(" * 300 + b")" * 300, "line 1: too many nested parentheses"),
        (b"x = " + b"+".join([b"1"] * 9000), "recursion"),
        (b"# coding: nowhere\n", "encoding"),
    ],
)
def test_a_text_that_cannot_be_read_has_a_reason_and_its_bytes_hash(text: bytes, why: str) -> None:
    found = summary(text)
    assert why in found.unread
    assert found.cells == ()
    assert found.whole != summary(text + b" ").whole


def test_old_spellings_warn_nobody() -> None:
    assert not summary(rb"x = '\d'").unread


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x = 1", "x = True"),
        ("x = 1", "x = 1.0"),
        ("x = 'a'", "x = b'a'"),
        ("x = f(a=1)", "x = f(b=1)"),
        ("x = f(*a)", "x = f(**a)"),
        ("from .a import x", "from ..a import x"),
        ("import a as x", "import b as x"),
        ("x = {**a}", "x = {a: None}"),
        ("try:\n  a()\nexcept E:\n  b()", "try:\n  a()\nexcept E as b:\n  b()"),
        ("def f(): a; b", "def f(): b; a"),
        ("x = ('a', 'b')", "x = ('a' 'b',)"),
    ],
)
def test_what_does_something_else_has_another_hash(one: str, two: str) -> None:
    assert summary(one.encode()).whole != summary(two.encode()).whole


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x = 1", "x=0b1 # one"),
        ("x = u'a'", 'x = """a"""'),
        ("def f():\n  'doc'\n  return 1", "def f():\n  # doc\n\n  return (1)"),
        ("x = 1\n'told'", "x = 1"),
        (f"x = {10**50}", f"x = {10**50:#x}"),
    ],
)
def test_what_does_the_same_has_the_same_hash(one: str, two: str) -> None:
    assert summary(one.encode()).whole == summary(two.encode()).whole


def test_a_number_too_long_to_print_is_no_trouble() -> None:
    assert not summary(b"x = 0x" + b"f" * 9000).unread


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import np\ndef f(): return np.a.b(1)", {"np.a.b"}),
        ("a = 1\ndef f(a): return a", set()),
        ("a = 1\ndef f(b=a): return b", {"a"}),
        ("a = 1\ndef f(*, b=a, **c): return b", {"a"}),
        ("a = 1\ndef f() -> 'a': pass", {"a"}),
        ("a = 1\ndef f(x: 'not code (', y: 'a.b'): pass", {"a.b"}),
        ("a = 1\ndef f():\n  x: a = 1", {"a"}),
        ("a = 1\ndef f():\n  for a in (): pass\n  return a", set()),
        ("a = 1\ndef f():\n  global a\n  a = a + 1", {"a"}),
        ("a = 1\ndef f():\n  a = 1\n  def g():\n    nonlocal a\n    a = 2\n  return g", set()),
        ("a = 1\ndef f():\n  return [a for b in ()]", {"a"}),
        ("a = 1\ndef f():\n  return {a: c for b in () for a in b for c in a}", set()),
        ("a = 1\ndef f():\n  return (lambda a: a)", set()),
        ("a = 1\ndef f():\n  try: pass\n  except E as a: return a", set()),
        ("a = 1\ndef f():\n  with open() as a: return a", set()),
        ("a = 1\ndef f(x):\n  match x:\n    case [a, *b]: return a\n    case {'k': 1, **a}: return a", set()),
        ("a = 1\ndef f(x):\n  match x:\n    case a.b(c=1): return 1", {"a.b"}),
        ("def f():\n  import a.b as c\n  return c.d.e", {"a.b:d.e"}),
        ("def f():\n  from .a import b\n  return b.c", {".a:b.c"}),
        ("def f():\n  import a.b\n  return a.b.c", {"a:b.c"}),
        ("a = 1\ndef f():\n  exec('a')\n  eval('not code (')", {"a"}),
        ("a = 1\ndef f():\n  return getattr(a, 'b'), getattr(a, 'b' + 'c', 1)", {"a", "a.b"}),
        ("a = 1\ndef f():\n  return getattr(f(), 'b'), hasattr(a, x)", {"a", "f"}),
        ("a = 1\ndef f():\n  return (a.b)[1].c", {"a.b"}),
        ("a = 1\nclass f:\n  a = a\n  def g(self): return a", {"a"}),
        ("a = 1\ndef f():\n  x = a\n  x += 1\n  del x", {"a"}),
        ("from b import *\ndef f(): return anything", {"anything"}),
        ("def f():\n  import importlib\n  importlib.import_module('a.b')", {"importlib:import_module", "a.b:"}),
    ],
)
def test_a_cell_refers_to_the_names_of_its_module_and_to_what_it_imports(text: str, found: set[str]) -> None:
    assert refs(text) - {"E"} == found


def test_a_type_parameter_is_a_local_name_where_python_knows_it() -> None:
    """PEP 695 came with 3.12: an older Python cannot read it, and says so."""
    generic = "T = 1\na = 1\ndef f[T](x: T) -> T: return a"
    if sys.version_info < (3, 12):
        assert summary(generic.encode()).unread.startswith("line 3: ")
        return
    assert refs(generic) == {"a"}
    assert "T" not in refs("T = 1\nclass f[T]: x: 'T'")
    assert cells("type X = int")["X"].kind == "value"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("def f(): pass", {"fresh"}),
        ("def f(a=g()): pass", set()),
        ("@d\ndef f(): pass", set()),
        ("f = 1", {"fresh"}),
        ("f = g()", {"made", "calls"}),
        ("f = logging.getLogger()", {"made", "calls", "logger"}),
        ("f = [x for x in ()]", {"unnamed"}),
        ("f = lambda: 1", {"fresh", "unnamed"}),
        ("def f(a=lambda: 1): return [x for x in a]", {"fresh", "unnamed"}),
        ("def f(): return lambda: 1", {"fresh"}),
        ("class f(metaclass=M): pass", {"hooks"}),
        ("class f(metaclass=abc.ABCMeta): pass", set()),
        ("class f:\n  def __init_subclass__(cls): pass", {"hooks"}),
        ("def f(): return a.__subclasses__()", {"fresh", "subclasses"}),
        ("def f(): return g().__subclasses__()", {"fresh", "subclasses"}),
        ("def f(a): return import_module(a)", {"fresh", "computed"}),
        ("def f(a): a.b = 1", {"fresh", "given"}),
        ("def f(a): a.append(1)", {"fresh", "given"}),
        ("def f(a): a()", {"fresh", "given"}),
        ("def f(a):\n  b = a\n  b[0] = 1", {"fresh", "given"}),
        ("def f(a): a.get(1)", {"fresh"}),
        ("def f():\n  b = []\n  b.append(1)", {"fresh"}),
        ("def f(): g.b = 1", {"fresh", "changes"}),
        ("def f(): del g[0]", {"fresh", "changes"}),
        ("def f(): h(1)[0] = 1", {"fresh", "changes"}),
        ("def f(): (1).b = 1", {"fresh", "changes"}),
        ("def f(): setattr(g, 'b', 1)", {"fresh", "changes"}),
        ("def f():\n  global g\n  g = 1", {"fresh", "changes"}),
        ("def f():\n  import g\n  g.b = 1", {"fresh", "changes"}),
        ("def f():\n  with g as b: b.c = 1", {"fresh", "changes"}),
        ("class f:\n  def g(self): self.a = 1", set()),
        ("class f:\n  def g(self): self.__class__.a = 1", {"changes"}),
        ("class f:\n  a = []\n  a[:] = [1]", set()),
        ("f = [x.append(1) for x in g]", {"runs", "calls", "unnamed"}),
        ("f = setattr(g, 'b', 1)", {"runs", "calls", "made"}),
        ("f = import_module('g')", {"runs", "calls", "made"}),
        ("global f\nf = 1", {"fresh"}),
    ],
)
def test_a_cell_tells_what_it_may_change(text: str, flags: set[str]) -> None:
    assert set(cells(text)["f"].flags) == flags


@pytest.mark.parametrize(
    ("text", "target", "why"),
    [
        ("def f(): return globals()", "", "globals()"),
        ("def f(): return vars(a.b)", "a.b", "vars()"),
        ("def f(): return eval(g)", "", "eval of a computed text"),
        ("def f(): return getattr(a, g)", "a", "getattr with a computed name"),
        ("import sys\ndef f(): return sys.modules", "*", "it looks into sys.modules"),
        ("f = locals()", "", "locals()"),
    ],
)
def test_a_cell_tells_what_it_may_reach_any_part_of(text: str, target: str, why: str) -> None:
    assert cells(text)["f"].wide[target][0] == why


def test_locals_of_a_function_reach_no_further() -> None:
    assert not cells("def f(): return locals()")["f"].wide


def test_what_importing_runs_is_in_its_order() -> None:
    text = "import a.b\nfrom .c import d as e\nX = 1\nclass K:\n  import g\nimport a.b\nif X:\n  import h\n"
    assert summary(text.encode()).order == ("a.b:", ".c:d", 0, "g:", 1, "h:", 2)


def test_what_only_a_type_checker_runs_binds_and_does_nothing() -> None:
    text = "if typing.TYPE_CHECKING:\n  import a\n  def g(): pass\n  print()\nelse:\n  import b\n"
    found = summary(text.encode())
    assert found.binds["a"] == ("a:",)
    assert "a:" not in found.order
    assert "runs" not in found.cells[1].flags


@pytest.mark.parametrize("test", ["__name__ == 'other'", "__name__ != '__main__'", "x", "a < b < c"])
def test_any_other_if_is_run(test: str) -> None:
    assert list(cells(f"if {test}:\n  g()")) == ["if"]


def test_a_module_counts_whole_without_its_docstrings() -> None:
    """On 3.11 a module that is imported counts whole: its docstring moves no other place, and says nothing itself."""
    bare = b"from x import y\n\n\ndef f():\n    return 1\n\n\ndef g():\n    return 2\n"
    said = b'"""Said."""\n# aside\n' + bare.replace(b"return 2", b'"""Said, too."""\n    return 2')
    assert summary(bare).whole == summary(said).whole
    assert summary(bare).whole != summary(bare.replace(b"2", b"3")).whole
