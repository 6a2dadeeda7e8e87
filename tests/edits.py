"""This file reads the corpus of edits: a small project, one edit of it, and whether its step must run again.

`tests/corpus/*.txt` hold them. A case begins with `==== ID must/static title`, `## path` begins a file, `-- path` the
lines of it that change (`- ` to `+ `, each old block found once), `++ path` a file that the edit adds, `xx path` one
that it takes away; after the title may stand `[step=m:f roots=src python=3.12]`.

`must` is what an exact build does: SAME (what is there is reused), REBUILD, or a notice as BL303. `static` is what the
closure of the code alone says; UNSEEN means that it misses the edit, which only the trace of a run can catch. A case
that must be SAME and is statically REBUILD is a needless run that is accepted; its title says why.

A step is a function without parameters. Run after an edit that must rebuild it, it returns something else (`repr`) than
before, and after any other the same. `tests/unit/test_closure.py` has the static half, `tests/integration` the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SAME, REBUILD, UNSEEN = "same", "rebuild", "unseen"
FOLDER = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Edit:
    """One case: `files` are texts by path, `edit` the new texts of some (None: it is gone), `roots` where modules are
    imported from, `python` the oldest Python that can run it.
    """

    id: str
    title: str
    files: Mapping[str, str]
    edit: Mapping[str, str | None]
    must: str
    static: str
    step: str = "train:step"
    roots: tuple[str, ...] = ("",)
    python: tuple[int, ...] = (3, 11)

    @property
    def after(self) -> dict[str, str]:
        """The files after the edit."""
        return {path: text for path, text in {**self.files, **self.edit}.items() if text is not None}


def corpus() -> tuple[Edit, ...]:
    """Every case, by file and place in it."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.txt")))
    return tuple(read(part) for text in texts for part in text.split("\n==== ") if not part.startswith("#"))


def read(text: str) -> Edit:
    """One case from its text."""
    head, *lines = text.removeprefix("==== ").strip("\n").split("\n")
    match = re.fullmatch(r"(\S+) (\w+)/(\w+) (.*?)(?: \[(.*)\])?", head)
    assert match, head
    id, must, static, title, told = match.groups()
    told = dict(each.split("=") for each in (told or "").split())
    files: dict[str, str] = {}
    edit: dict[str, str | None] = {}
    for mark, path, body in parts(lines):
        if mark == "##":
            files[path] = "\n".join(body) + "\n"
        elif mark == "--":
            edit[path] = changed(id, files[path], body)
        else:
            edit[path] = "\n".join(body) + "\n" if mark == "++" else None
    roots = tuple(told.get("roots", "").split(","))
    python = tuple(map(int, told.get("python", "3.11").split(".")))
    return Edit(id, title, files, edit, must, static, told.get("step", "train:step"), roots, python)


def parts(lines: list[str]) -> list[tuple[str, str, list[str]]]:
    """The marked blocks of a case."""
    found: list[tuple[str, str, list[str]]] = []
    for line in lines:
        match = re.fullmatch(r"(##|--|\+\+|xx) ([\w./-]+)", line)
        if match:
            found.append((match[1], match[2], []))
        else:
            found[-1][2].append(line)
    return found


def changed(id: str, text: str, lines: list[str]) -> str:
    """A text with blocks of lines put in the place of others."""
    blocks = re.findall(r"((?:- .*\n)+)((?:\+.*\n)*)", "\n".join(lines) + "\n")
    assert blocks, f"{id}: no change"
    for old, new in blocks:
        was = "".join(line[2:] + "\n" for line in old.splitlines())
        assert f"\n{text}".count(f"\n{was}") == 1, f"{id}: not once there: {was}"
        text = f"\n{text}".replace(f"\n{was}", "\n" + "".join(line[2:] + "\n" for line in new.splitlines()))[1:]
    return text


CORPUS = corpus()
