"""This file keeps what a step returned in a folder, and finds it again.

A folder holds exactly one of: a file `value.*` of the form that the step's `save` names (see `savers`), or `file/NAME`
(a file or folder whose path was returned, copied). A step that names no form has JSON for None, texts, numbers, truth
values, and lists and mappings that JSON gives back as they were, bytes for bytes, a copy for a path, and a pickle for
anything else. A pickle runs its author's code as it is read: it is read only inside the service's own environment. What
`for_each` made is a folder `items` of such folders, and reads as a list.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from branchline.sdk import savers
from branchline.sdk.savers import plain as plain

ITEMS = "items"


def save(value: Any, folder: Path, form: str = "") -> str:
    """Keep a value in a folder that is made for it, and say in a few words what was kept.

    `form` is the step's `save`; raises NotSaved when the value has another form, or its library is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if form not in ("", *savers.SAVERS):
        raise savers.NotSaved(f"save = '{form}' is not known; one of: {', '.join(savers.SAVERS)}")
    text = as_json(value) if form in ("", "json") else None
    if text is not None:
        (folder / "value.json").write_text(text, encoding="utf-8")
        return text if len(text) <= 60 else f"{type(value).__name__}, {size(folder)}"
    fitting = "folder" if isinstance(value, Path) else "bytes" if isinstance(value, bytes) else "pickle"
    savers.SAVERS[form or fitting](value, folder)
    called = where(folder).name if (folder / "file").exists() else type(value).__name__
    return f"{called}, {size(folder)}"


def load(folder: Path) -> Any:
    """Find a value again; the path of the copy for a file or folder. Raises ValueError when there is none."""
    if (folder / ITEMS).is_dir():
        return [load(each) for each in sorted((folder / ITEMS).iterdir())]
    path = where(folder)
    return savers.READERS[path.name](path) if kept(folder) else path


def kept(folder: Path) -> str:
    """The name of the file that a value was kept in; '' for a folder that a path or a command left."""
    return next((name for name in savers.READERS if (folder / name).exists()), "")


class Results(Mapping[str, Any]):
    """Results of steps by name, each loaded when it is asked for (those of another revision may not load here)."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.paths = dict(paths)

    def __getitem__(self, step: str) -> Any:
        return load(Path(self.paths[step]))

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, step: str) -> Path:
        """The path of a result, as a parameter annotated `Path` would get it."""
        return where(Path(self.paths[step]))


def where(folder: Path) -> Path:
    """The path of what a step left: its file or folder, the file of its value, or what a command wrote."""
    if name := kept(folder):
        return folder / name
    if (folder / "file").is_dir():
        return next((folder / "file").iterdir())
    if folder.exists():
        return folder
    raise ValueError(f"there is no result at {folder}")


def as_json(value: Any) -> str | None:
    """The value as JSON; None when reading it back would not give the same."""
    if isinstance(value, bool | int | float | str | type(None)) and type(value).__module__ != "builtins":
        return None  # a subclass (of numpy, say) must come back as what it was
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        return text if same(json.loads(text), value) else None
    except (TypeError, ValueError, RecursionError):
        return None


def same(read: Any, value: Any) -> bool:
    """Whether two values are equal and made of the same types throughout."""
    if type(read) is not type(value):
        return False
    if isinstance(read, list):
        return len(read) == len(value) and all(map(same, read, value))
    if isinstance(read, dict):
        return read.keys() == value.keys() and all(same(read[key], value[key]) for key in read)
    return bool(read == value)


def size(folder: Path) -> str:
    """The bytes below a folder, for people."""
    total: float = sum((Path(top) / name).lstat().st_size for top, _, names in os.walk(folder) for name in names)
    if total < 1000:
        return f"{total:.0f} B"
    for unit in ("kB", "MB", "GB"):
        total /= 1000
        if total < 1000 or unit == "GB":
            break
    return f"{total:.1f} {unit}" if total < 100 else f"{total:.0f} {unit}"
