"""This file runs the corpus of edits for real: a step, its trace, the edit, and whether what is there would be reused.

Each case runs on every Python found here, the recorder on: key and facts as a build has them, then the edit, then the
question. The case itself is proven: the step runs again after the edit, and what it returns must differ exactly when
the case says that it must be rebuilt. Nothing stale may be reused (I13). Needless runs are those that the corpus names;
on 3.11 there are more, for a module that was executed counts whole there: `pytest -rP` prints them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from branchline.core.closure import File, Project, closure_of, covered_by, value_of
from branchline.core.reuse import Fact, Trace, held, key
from branchline.core.source import summary
from tests.edits import CORPUS, REBUILD, SAME, Edit
from tests.stepping import Stepper, interpreters

ASKABLE = ("file", "listing", "stat", "module", "ran")
TOLD = {"child": "BL301", "network": "BL302", "variable": "BL306", "outside": "BL307"}
FINE = (3, 12)  # from here on Python tells which code runs


@pytest.fixture(scope="module", params=sorted(interpreters().items()), ids=operator.itemgetter(0))
def python(request: pytest.FixtureRequest) -> Iterator[Stepper]:
    stepper = Stepper(request.param[1])
    yield stepper
    stepper.close()


def project_of(files: Mapping[str, str], roots: tuple[str, ...]) -> Project:
    """What the engine knows of such files."""
    found = {path: File(sha256(text.encode()).hexdigest(), len(text.encode())) for path, text in files.items()}
    return Project(found, roots, lambda path: summary(files[path].encode()))


class Scratch:
    """A folder that is as a case has it, before or after its edit."""

    def __init__(self, root: Path, edit: Edit, python: Stepper) -> None:
        self.root, self.edit, self.python = root, edit, python
        self.roots = [str(root / folder) if folder else str(root) for folder in edit.roots]

    def write(self, files: Mapping[str, str]) -> None:
        """Make the folder hold these files and no others."""
        self.root.mkdir(exist_ok=True)
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())

    def run(self, project: Project | None = None) -> tuple[str, list[list[str]]]:
        """What the step returns, and what is told of it when its project is known."""
        if project is None:
            return self.python.run(self.root, self.edit.step, None, roots=self.roots)
        closure = closure_of(project, self.edit.step)
        covered = {module: sorted(names) for module, names in covered_by(project, closure.lines).items()}
        plan = {"roots": self.roots, "imported": sorted(closure.imported), "covered": covered}
        plan["files"] = sorted(self.edit.files)
        return self.python.run(self.root, self.edit.step, plan)


@pytest.mark.parametrize("edit", CORPUS, ids=operator.attrgetter("id"))
def test_an_edit_rebuilds_what_it_must(edit: Edit, python: Stepper, tmp_path: Path) -> None:
    if python.version < edit.python:
        pytest.skip(f"needs Python {edit.python}")
    scratch = Scratch(tmp_path / "tree", edit, python)
    before, after = project_of(edit.files, edit.roots), project_of(edit.after, edit.roots)
    was, now = closure_of(before, edit.step), closure_of(after, edit.step)
    scratch.write(edit.files)
    first, told = scratch.run(before)
    facts = tuple(Fact(kind, name, value_of(before, kind, name)) for kind, name, *_ in told if kind in ASKABLE)
    refused = [fact for fact in told if fact[0] not in ASKABLE and fact[0] != "variable"]
    if edit.must not in (SAME, REBUILD):
        assert edit.must in {notice.code for notice in was.notices} | {TOLD.get(fact[0]) for fact in told}
        return
    broken = held(Trace("", facts), lambda kind, name: value_of(after, kind, name))
    reused = key(was.lines) == key(now.lines) and broken is None and not refused
    scratch.write(edit.after)
    second, _ = scratch.run()
    assert (first != second) == (edit.must == REBUILD), f"the case is wrong: {first}, then {second}"
    if edit.must == REBUILD:
        assert not reused, "stale"
    elif not reused and edit.static != REBUILD:
        print(f"{edit.id} {edit.title}: needless, {broken}")
        assert python.version < FINE, (broken, refused)
        assert broken is not None
        assert broken.kind == "module"
