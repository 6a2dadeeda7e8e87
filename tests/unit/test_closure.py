"""This file tests what the closure of a step's code says of the corpus of edits, and facts' values (1.16, 2.02)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha256

import pytest

from branchline.core.closure import Closure, File, Project, closure_of, covered_by, value_of
from branchline.core.reuse import key
from branchline.core.source import Module, summary
from tests.edits import CORPUS, REBUILD, SAME, UNSEEN, Edit


@cache
def read(text: str) -> Module:
    return summary(text.encode())


def project(files: Mapping[str, str], *roots: str, before: Project | None = None) -> Project:
    held = {path: File(sha256(text.encode()).hexdigest(), len(text)) for path, text in files.items()}
    return Project(held, roots or ("",), lambda path: read(files[path]), before)


def closure(files: Mapping[str, str], step: str = "train:step", declared: tuple[str, ...] = ()) -> Closure:
    return closure_of(project(files), step, declared)


def value(files: Mapping[str, str], kind: str, name: str) -> str:
    return value_of(project(files), kind, name)


def names(found: Closure) -> set[str]:
    return {line.name for line in found.lines}


def verdict(edit: Edit) -> str:
    """What the closure alone says of an edit, in the words of the corpus."""
    before = closure_of(project(edit.files, *edit.roots), edit.step)
    after = closure_of(project(edit.after, *edit.roots), edit.step)
    if key(before.lines) != key(after.lines):
        return REBUILD
    return UNSEEN if edit.must == REBUILD else SAME


def test_the_closure_says_of_every_edit_what_the_corpus_says() -> None:
    """One test for all of them, since most of a test's time would be its own making."""
    wrong = {edit.id: (said, edit.title) for edit in CORPUS if (said := verdict(edit)) != edit.static}
    assert not wrong


def test_what_is_taken_from_the_build_before_is_what_would_be_found_anew() -> None:
    """Lines, places, ways and notices, over each edit and back. Killers: look whether hashes have changed, not parts;
    whether the nodes that a closure begins with have.
    """
    for edit in CORPUS:
        known = None
        for files in (edit.files, edit.after, moved(edit.after), edit.files):
            known = project(files, *edit.roots, before=known)
            anew = closure_of(project(files, *edit.roots), edit.step)
            assert closure_of(known, edit.step) == anew, edit.id


def moved(files: Mapping[str, str]) -> dict[str, str]:
    """The same code, each line of it one further down."""
    return {path: f"# moved\n{text}" if path.endswith(".py") else text for path, text in files.items()}


def test_a_closure_is_taken_from_the_build_before_where_no_part_of_it_has_changed() -> None:
    """Performance 8: what an edit does not reach is not collected again."""
    files = {
        "train.py": "from a import f\ndef step(): return f()\ndef other(): return 1\n",
        "a.py": "def f(): return 1\n",
    }
    first = project(files)
    second = project({**files, "a.py": "def f(): return 2\n"}, before=first)
    steps = ("train:step", "train:other")
    was, now = ([closure_of(each, step) for step in steps] for each in (first, second))
    assert [a is b for a, b in zip(was, now, strict=True)] == [False, True]
    third = project({**files, "b.py": "x = 1\n"}, before=first)
    assert [closure_of(third, step) is known for step, known in zip(steps, was, strict=True)] == [True, True]


def test_what_asks_for_more_than_its_parts_is_collected_anew() -> None:
    """A class that nothing names is met by `__subclasses__`. Killer: take over such a closure, too."""
    files = {
        "base.py": "class Base: ...\n",
        "more.py": "from base import Base\n",
        "train.py": "import more\nfrom base import Base\ndef step(): return len(Base.__subclasses__())\n",
    }
    known = project(files)
    assert "code more:One" not in names(closure_of(known, "train:step"))
    files["more.py"] += "class One(Base): ...\n"
    assert "code more:One" in names(closure_of(project(files, before=known), "train:step"))


@pytest.mark.parametrize("edit", [edit for edit in CORPUS if edit.must.startswith("BL")], ids=lambda edit: edit.id)
def test_a_step_that_is_not_sure_to_be_the_same_is_told_of(edit: Edit) -> None:
    assert edit.must in {each.code for each in closure_of(project(edit.files), edit.step).notices}


def test_the_corpus_is_as_large_as_is_published_and_each_case_has_its_own_id() -> None:
    assert len({edit.id for edit in CORPUS}) == len(CORPUS) >= 80
    assert [edit.id for edit in CORPUS if edit.id.startswith("P")] == [f"P{each:02}" for each in range(1, 21)]


def test_a_line_tells_its_place_and_the_shortest_way_to_it() -> None:
    files = {
        "train.py": "import lib\ndef step():\n    return build()\ndef build():\n    return lib.scale()\n",
        "lib.py": "\n\ndef scale():\n    return 1\n",
    }
    line = next(each for each in closure(files).lines if each.name == "code lib:scale")
    assert (line.where, line.via) == ("lib.py:3", ("step", "build", "scale"))


def test_what_is_imported_and_covered_is_told_to_the_recorder() -> None:
    files = {
        "train.py": "import pkg.lib\ndef step():\n    return pkg.lib.scale()\n",
        "pkg/__init__.py": "",
        "pkg/lib.py": "def scale():\n    return 1\ndef scale():\n    return 2\ndef other():\n    return 3\n",
    }
    found = closure(files)
    assert found.imported == {"train", "pkg", "pkg.lib"}
    covered = covered_by(project(files), found.lines)
    assert {"scale", "<lambda>"} <= covered["pkg.lib"]
    assert "other" not in covered["pkg.lib"]


def test_a_nameless_function_is_covered_only_when_all_of_its_module_are() -> None:
    files = {"train.py": "def step():\n    return one()\none = lambda: 1\ndef two(a=lambda: 2):\n    return a\n"}
    assert "<lambda>" not in covered_by(project(files), closure(files).lines)["train"]


def test_a_step_that_is_not_of_the_project_has_no_code_line() -> None:
    assert closure({"lib.py": "A = 1\n"}, "elsewhere:step").lines == ()


def test_without_a_trace_a_computed_import_holds_all_of_the_project() -> None:
    files = {
        "train.py": "import importlib\ndef step(name):\n    return importlib.import_module(name)\n",
        "lib.py": "A = 1\n",
    }
    assert "whole lib" not in names(closure(files))
    assert "whole lib" in names(closure_of(project(files), "train:step", traced=False))


def test_a_native_module_of_the_project_counts_as_a_file() -> None:
    files = {
        "train.py": "import fast\ndef step():\n    return fast.run() + eval('1'*2)\n",
        "fast.cpython-312-x86_64-linux-gnu.so": "binary",
        "fast.py": "def run():\n    return 1\n",
        "broken.py": "def (",
    }
    found = closure_of(project(files), "train:step", traced=False)
    assert "file fast.cpython-312-x86_64-linux-gnu.so" in names(found)
    assert "code fast:run" not in names(found)


def test_a_package_without_a_file_may_be_a_value() -> None:
    files = {"train.py": "import pkg\nimport pkg.lib\ndef step():\n    return print(pkg)\n", "pkg/lib.py": "A = 1\n"}
    assert "whole pkg" in names(closure(files))


@pytest.mark.parametrize(
    ("text", "there_for_what_it_does"),
    [
        ("import hdf5plugin", True),
        ("import hdf5plugin.more", True),
        ("from hdf5plugin import f as g", True),
        ("import hdf5plugin as h\nX = h", False),
        ("import hdf5plugin.more\ndef f():\n    return hdf5plugin.more", False),
        ("import json", False),
    ],
)
def test_an_import_that_nothing_uses_is_there_for_what_it_does(text: str, there_for_what_it_does: bool) -> None:
    step = "\ndef step():\n    return 1\n"
    assert (key(closure({"train.py": text + step}).lines) != key(closure({"train.py": step}).lines)) == (
        there_for_what_it_does
    )


def test_imports_that_go_in_circles_end() -> None:
    files = {
        "train.py": "from a import *\nimport a\ndef step():\n    return x() + a.nothing\n",
        "a.py": "from b import *\nfrom b import x\ndef f(): return g()\ndef g(): return f()\nA = f()\n",
        "b.py": "from pkg.session import session as p\nX = p\nfrom a import *\nfrom a import x\nclass B(B): pass\n",
        "pkg/__init__.py": "from .session import session\nfrom pkg import session\nimport pkg.session\n",
        "pkg/session.py": "import pkg.session as s\nfrom pkg.session import s as session\nfrom ... import above\n",
    }
    assert "import a:x" in names(closure(files))


def test_one_project_serves_all_steps_and_says_the_same_again() -> None:
    files = {
        "train.py": "import lib\nlib.f()\nX = lib.f()\nY = lib.f()\ndef one(): return X\ndef two(): return Y\n",
        "lib.py": "def f():\n    return 1\n",
        "more.py": "import lib\nimport train\ndef three():\n    return 1\n",
    }
    shared = project(files)
    for step in ("train:one", "train:two", "train:one", "more:three"):
        assert closure_of(shared, step) == closure(files, step)
    for kind, name in (("module", "lib"), ("module", "lib"), ("listing", ""), ("listing", "")):
        assert value_of(shared, kind, name) == value(files, kind, name)


# -- notices


def test_what_makes_reuse_unsure_is_told_with_its_place() -> None:
    text = """
import subprocess as sp, os, time, random, uuid, urllib.request
import numpy.random
from os import environ
import lib
def step():
    sp.run(["cat"])
    urllib.request.urlopen("http://x")
    time.time()
    random.random()
    uuid.uuid4()
    environ["ONE"], os.environ.get("TWO"), os.getenv("THREE"), os.environ["FOUR"]
    getattr(lib, random.choice("ab"))
    numpy.random.rand()
"""
    found = closure({"train.py": text, "lib.py": "A = 1\n"}, declared=("THREE",)).notices
    told = {(each.code, each.where, each.refuses) for each in found}
    assert told == {
        ("BL301", "train.py:7", True),
        ("BL302", "train.py:8", True),
        ("BL303", "train.py:9", False),
        ("BL303", "train.py:10", False),
        ("BL303", "train.py:11", False),
        ("BL303", "train.py:13", False),
        ("BL303", "train.py:14", False),
        ("BL305", "train.py:13", False),
        ("BL306", "train.py:12", False),
    }
    texts = " ".join(each.text for each in found)
    assert "`step` starts a process (subprocess.run, train.py:7)" in texts
    assert "`step` depends on all of `lib`: getattr with a computed name (train.py:13)" in texts
    assert all(f'env = {{ {name} = "..." }}' in texts for name in ("ONE", "TWO", "FOUR"))
    assert "THREE" not in texts


def test_a_seed_makes_draws_repeatable() -> None:
    text = "import random\ndef step():\n    random.seed(1)\n    return random.random()\n"
    assert closure({"train.py": text}).notices == ()


def test_a_file_that_does_not_parse_puts_all_of_the_project_into_the_key_and_says_so() -> None:
    files = {"train.py": "import broken\ndef step():\n    return broken.run()\n", "broken.py": "def (", "lib.py": ""}
    found = closure(files)
    assert {"whole broken", "whole lib"} <= names(found)
    assert (found.notices[0].code, found.notices[0].where) == ("BL304", "broken.py")


def test_every_module_that_is_imported_is_told_by_a_look_into_sys_modules() -> None:
    text = "import sys\ndef step(name):\n    return sys.modules[name], sys.modules['lib'], sys.modules[__name__]\n"
    texts = [each.text for each in closure({"train.py": text, "lib.py": "A = 1\n"}).notices]
    assert len(texts) == 3
    assert "every module that it imports: it looks into sys.modules (train.py:3)" in texts[2]


# -- the values of facts

TREE = {"a/one.txt": "1", "a/b/two.txt": "22", "lib.py": "A = 1\ndef f():\n    return A\n", "pkg/mod.py": "B = 1\n"}


def test_a_file_is_its_digest_a_folder_or_absent() -> None:
    assert value(TREE, "file", "a/one.txt") == sha256(b"1").hexdigest()
    assert value(TREE, "file", "a/b") == "folder"
    assert value(TREE, "file", "a/c") == "absent"


def test_a_listing_is_its_names_and_not_what_they_hold() -> None:
    assert value(TREE, "listing", "a") == value({**TREE, "a/one.txt": "3"}, "listing", "a/")
    assert value(TREE, "listing", "a") != value({**TREE, "a/two.txt": "3"}, "listing", "a")
    assert value(TREE, "listing", ".") != value({**TREE, "new": ""}, "listing", "")
    assert value(TREE, "listing", "nowhere") == "absent"


def test_a_stat_is_a_size() -> None:
    assert [value(TREE, "stat", name) for name in ("a/b/two.txt", "a", "c")] == ["2", "folder", "absent"]


def test_a_module_is_all_that_its_code_leads_to() -> None:
    user = {**TREE, "user.py": "from lib import A\n"}
    assert value(user, "module", "user") != value({**user, "lib.py": "A = 2\n"}, "module", "user")
    assert value(TREE, "module", "lib") == value({**TREE, "lib.py": "# A\n" + TREE["lib.py"]}, "module", "lib")
    assert value(TREE, "module", "nothing") == "absent"
    assert value(TREE, "module", "pkg") == "absent"


def test_a_definition_that_ran_is_all_that_it_leads_to() -> None:
    other = {**TREE, "lib.py": TREE["lib.py"] + "def other():\n    return 2\n"}
    changed = {**TREE, "lib.py": TREE["lib.py"].replace("A = 1", "A = 2")}
    assert value(TREE, "ran", "lib:f.<locals>.g") == value(other, "ran", "lib:f.<locals>.g")
    assert value(TREE, "ran", "lib:f") != value(changed, "ran", "lib:f")
    assert value(TREE, "ran", "lib:<lambda>") != value(other, "ran", "lib:<lambda>")
    assert value(TREE, "ran", "gone:f") == "absent"
