"""This file is the forms that a result is kept in, by the name that a step's `save` gives, and how each is read again.

A result is a file in a folder, and the file's name alone says how to read it. A form's library is imported when the
form is named, from the service's own environment, and never before. What `pickle` and `joblib` kept runs its author's
code as it is read; of what `skops` kept only types that are not known to be harmless could.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

CODE = ("value.pkl", "value.joblib")  # reading these runs code of whoever wrote them


class NotSaved(ValueError):
    """A result does not have the form that the step's `save` names, or the form's library is missing."""


def library(form: str, module: str, package: str = "") -> Any:
    """Import what a form needs; raises NotSaved with the package to add."""
    try:
        return import_module(module)
    except ImportError as error:
        package = package or module.partition(".")[0]
        raise NotSaved(f"save = '{form}' needs the package {package} in the service's lock ({error})") from None


def is_of(value: object, package: str) -> bool:
    """Whether a value is of a class of that package, which is not imported for that."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)


def plain(value: Any) -> Any:
    """Numbers and arrays of an array library as Python's own, for `json.dumps`; raises TypeError for anything else."""
    for name in ("tolist", "to_list", "item"):
        if hasattr(value, name):
            return getattr(value, name)()
    raise TypeError(f"JSON has no form for a {type(value).__name__}")


# ------------------------------------------------------------------------------------------------------------- keeping


def save_json(value: Any, folder: Path) -> None:
    """JSON; arrays and numbers of array libraries become lists and numbers, and stay so."""
    (folder / "value.json").write_text(
        json.dumps(value, allow_nan=False, ensure_ascii=False, default=plain), encoding="utf-8"
    )


def save_text(value: Any, folder: Path) -> None:
    """A text, as UTF-8."""
    (folder / "value.txt").write_bytes(expected("text", value, str).encode())


def save_bytes(value: Any, folder: Path) -> None:
    """Bytes as they are."""
    (folder / "value.bin").write_bytes(expected("bytes", value, bytes))


def save_pickle(value: Any, folder: Path) -> None:
    """Any object, with the standard library."""
    with (folder / "value.pkl").open("wb") as file:
        pickle.dump(value, file, protocol=5)


def save_joblib(value: Any, folder: Path) -> None:
    """Any object, large arrays apart."""
    library("joblib", "joblib").dump(value, folder / "value.joblib")


def save_skops(value: Any, folder: Path) -> None:
    """Models of scikit-learn and what is like them, without code."""
    library("skops", "skops.io").dump(value, folder / "value.skops")


def save_safetensors(value: Any, folder: Path) -> None:
    """Arrays by name, of NumPy or PyTorch."""
    arrays = dict(expected("safetensors", value, Mapping))
    torch = any(is_of(array, "torch") for array in arrays.values())
    name, module = ("value.torch.safetensors", "torch") if torch else ("value.safetensors", "numpy")
    library("safetensors", f"safetensors.{module}").save_file(arrays, str(folder / name))


def save_parquet(value: Any, folder: Path) -> None:
    """A table of pandas, Polars or PyArrow; it is read again by the same library."""
    if is_of(value, "pandas"):
        library("parquet", "pyarrow")
        value.to_parquet(folder / "value.parquet")
    elif is_of(value, "polars"):
        value.write_parquet(folder / "value.polars.parquet")
    elif is_of(value, "pyarrow"):
        library("parquet", "pyarrow.parquet").write_table(value, folder / "value.arrow.parquet")
    else:
        raise NotSaved(f"save = 'parquet' keeps a table of pandas, Polars or PyArrow, not {type(value).__name__}")


def save_figure(value: Any, folder: Path) -> None:
    """A figure of Matplotlib, or axes of one, as a picture."""
    figure: Any = value if hasattr(value, "savefig") else getattr(value, "figure", None)
    if not hasattr(figure, "savefig"):
        raise NotSaved(f"save = 'figure' keeps a figure of Matplotlib, not {type(value).__name__}")
    figure.savefig(folder / "value.png", metadata={"Software": None})


def save_folder(value: Any, folder: Path) -> None:
    """Copy a file or folder whose path was returned; raises ValueError for anything else, a link included."""
    path = expected("folder", value, Path)
    kept = folder / "file" / path.resolve().name
    if path.is_dir():
        shutil.copytree(path, kept, symlinks=True)
    elif path.is_file():
        kept.parent.mkdir()
        shutil.copyfile(path, kept)
    else:
        raise ValueError(f"the path that was returned, {path}, is neither a file nor a folder")


def expected(form: str, value: Any, kind: type) -> Any:
    """The value, if it is of the kind that a form keeps; raises NotSaved."""
    if not isinstance(value, kind):
        named = {"folder": "pathlib.Path", "safetensors": "arrays by name"}.get(form, kind.__name__)
        raise NotSaved(f"save = '{form}' keeps {named}, and the step returned {type(value).__name__}")
    return value


SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "json": save_json,
    "text": save_text,
    "bytes": save_bytes,
    "pickle": save_pickle,
    "joblib": save_joblib,
    "skops": save_skops,
    "safetensors": save_safetensors,
    "parquet": save_parquet,
    "folder": save_folder,
    "figure": save_figure,
}


# ------------------------------------------------------------------------------------------------------------- reading


def read_pickle(path: Path) -> Any:
    """Whatever was kept; its author's code runs."""
    with path.open("rb") as file:
        return pickle.load(file)


def read_skops(path: Path, trust: bool = True) -> Any:
    """A model; without `trust` skops raises for every type that it does not know to be harmless."""
    skops = library("skops", "skops.io")
    return skops.load(path, trusted=skops.get_untrusted_types(file=path) if trust else None)


READERS: dict[str, Callable[[Path], Any]] = {
    "value.json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    "value.txt": lambda path: path.read_bytes().decode(),
    "value.bin": Path.read_bytes,
    "value.pkl": read_pickle,
    "value.joblib": lambda path: library("joblib", "joblib").load(path),
    "value.skops": read_skops,
    "value.safetensors": lambda path: library("safetensors", "safetensors.numpy").load_file(str(path)),
    "value.torch.safetensors": lambda path: library("safetensors", "safetensors.torch").load_file(str(path)),
    "value.parquet": lambda path: library("parquet", "pandas").read_parquet(path),
    "value.polars.parquet": lambda path: library("parquet", "polars").read_parquet(path),
    "value.arrow.parquet": lambda path: library("parquet", "pyarrow.parquet").read_table(path),
    "value.png": lambda path: path,
}
