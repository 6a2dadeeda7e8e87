"""This file keeps what a step returned in a folder, and finds it again.

A folder holds exactly one of: `value.json` (None, texts, numbers, truth values, and lists and mappings that JSON gives
back as they were), `value.bin` (bytes), `file/NAME` (a file or folder whose path was returned, copied), `value.pkl`
(anything else). A pickle runs its author's code as it is read: it is read only inside the service's own environment.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def save(value: Any, folder: Path) -> str:
    """Keep a value in a folder that is made for it, and say in a few words what was kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(value, Path):
        return save_path(value, folder)
    if isinstance(value, bytes):
        (folder / "value.bin").write_bytes(value)
        return f"bytes, {size(folder)}"
    text = as_json(value)
    if text is not None:
        (folder / "value.json").write_text(text, encoding="utf-8")
        return text if len(text) <= 60 else f"{type(value).__name__}, {size(folder)}"
    with (folder / "value.pkl").open("wb") as file:
        pickle.dump(value, file, protocol=5)
    return f"{type(value).__name__}, {size(folder)}"


def save_path(path: Path, folder: Path) -> str:
    """Copy a returned file or folder; raises ValueError for anything else, a link included."""
    kept = folder / "file" / path.resolve().name
    if path.is_dir():
        shutil.copytree(path, kept, symlinks=True)
    elif path.is_file():
        kept.parent.mkdir()
        shutil.copyfile(path, kept)
    else:
        raise ValueError(f"the path that was returned, {path}, is neither a file nor a folder")
    return f"{kept.name}, {size(folder)}"


def load(folder: Path) -> Any:
    """Find a value again; the path of the copy for a file or folder. Raises ValueError when there is none."""
    if (folder / "value.json").exists():
        return json.loads((folder / "value.json").read_text(encoding="utf-8"))
    if (folder / "value.bin").exists():
        return (folder / "value.bin").read_bytes()
    if (folder / "value.pkl").exists():
        with (folder / "value.pkl").open("rb") as file:
            return pickle.load(file)
    return where(folder)


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
    for name in ("value.json", "value.bin", "value.pkl"):
        if (folder / name).exists():
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


def plain(value: Any) -> Any:
    """Numbers and arrays of an array library as Python's own, for `json.dumps`; raises TypeError for anything else."""
    for name in ("tolist", "to_list", "item"):
        if hasattr(value, name):
            return getattr(value, name)()
    raise TypeError(f"JSON has no form for a {type(value).__name__}")
