"""This file tests the forms that results are kept in: what goes in comes out, with the real libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from branchline.adapters.uv import UvEnvironments
from branchline.adapters.workers import WarmWorkers
from branchline.core.revision import Measure
from branchline.core.tracking import told
from branchline.ports import Bench
from branchline.sdk import savers, values

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("numpy==2.4.6", "pandas==3.1.1", "pyarrow==26.0.1", "polars==2.1.0", "skops==0.16.0", "safetensors==0.8.0",
            "matplotlib==3.11.2", "joblib==1.6.0", "scikit-learn==1.9.1")  # fmt: skip
BEGIN = """
import sys
from pathlib import Path
from branchline.sdk import savers, values
home, form = Path(sys.argv[1]), sys.argv[2]
def again(value, form):
    values.save(value, home / "kept", form)
    return values.load(home / "kept")
import numpy as np
"""
# form -> what is kept and held to be the same when it is read again
CASES: Mapping[str, str] = {
    "joblib": "assert again({'a': np.arange(1000)}, form)['a'].sum() == 499500",
    "skops": """
from sklearn.linear_model import LinearRegression
model = LinearRegression().fit([[1.0], [2.0]], [3.0, 5.0])
assert abs(again(model, form).predict([[3.0]])[0] - 7) < 1e-9
assert savers.read_skops(home / 'kept' / 'value.skops', trust=False).coef_[0] == model.coef_[0]
""",
    "safetensors": """
found = again({'w': np.eye(3, dtype=np.float32)}, form)
assert list(found) == ['w'] and found['w'].dtype == np.float32 and found['w'].trace() == 3
""",
    "parquet pandas": """
import pandas
table = pandas.DataFrame({'m2': [30.5, 60.0], 'city': ['Lyon', 'Nice']}, index=[7, 9])
pandas.testing.assert_frame_equal(again(table, 'parquet'), table)
""",
    "parquet polars": """
import polars
table = polars.DataFrame({'m2': [30.5, 60.0], 'city': ['Lyon', 'Nice']})
assert again(table, 'parquet').equals(table)
""",
    "parquet pyarrow": """
import pyarrow
table = pyarrow.table({'m2': [30.5, 60.0]})
assert again(table, 'parquet').equals(table)
""",
    "figure": """
import matplotlib
matplotlib.use('agg')
from matplotlib import pyplot
figure, axes = pyplot.subplots()
axes.plot([1, 2])
path = again(axes, form)
assert path.name == 'value.png' and path.read_bytes().startswith(b'\\x89PNG')
first = path.read_bytes()
assert again(figure, form).read_bytes() == first
""",
    "json": "assert again({'a': np.float32(0.5), 'b': np.arange(3)}, form) == {'a': 0.5, 'b': [0, 1, 2]}",
}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("environment")
    uv = str(UvEnvironments(home).uv)
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, home / "env"], check=True)
    interpreter = home / "env" / "bin" / "python"
    subprocess.run([uv, "pip", "install", "-q", "--python", interpreter, *PACKAGES], check=True)
    return interpreter


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_a_library_keeps_comes_back_as_it_was(python: Path, tmp_path: Path, case: str) -> None:
    command = [str(python), "-P", "-c", BEGIN + CASES[case], str(tmp_path), case]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(tmp_path)}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_worker_keeps_a_result_as_the_step_says_and_what_it_told_is_read(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(
        "import branchline\n\ndef report():\n"
        "    for n in (1, 2):\n        branchline.log(step=n, loss=1 / n)\n    return 'all is well'\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    order = {
        "step": "report", "call": "steps:report", "output": str(tmp_path / "out"),
        "log": str(tmp_path / "logs" / "log"),
        "seconds": 60, "cwd": str(tmp_path), "env": {**env, "PYTHONPATH": f"{ROOT}:{tmp_path}"}, "save": "text",
        "metrics": str(tmp_path / "metrics"),
    }  # fmt: skip
    workers = WarmWorkers(tmp_path / "workers", grace=1, every=0.02)
    try:
        answer = workers.do(Bench(Path(sys.executable), ROOT, env), order)
    finally:
        workers.close()
    assert answer["ok"], answer["error"]
    assert (values.kept(tmp_path / "out"), values.load(tmp_path / "out")) == ("value.txt", "all is well")
    assert told((tmp_path / "metrics").read_bytes()) == (Measure("loss", 1.0, 1.0), Measure("loss", 0.5, 2.0))


@pytest.mark.parametrize(
    ("form", "value", "name"),
    [
        ("json", [1, "two", None], "value.json"),
        ("text", "zwei\r\ndrei", "value.txt"),
        ("bytes", b"\x00\xff", "value.bin"),
        ("pickle", {1, 2}, "value.pkl"),
        ("pickle", "a text", "value.pkl"),
    ],
)
def test_a_form_is_kept_under_its_name_and_read_by_it(tmp_path: Path, form: str, value: Any, name: str) -> None:
    values.save(value, tmp_path / "kept", form)
    assert values.kept(tmp_path / "kept") == name
    assert values.load(tmp_path / "kept") == value


def test_a_folder_is_copied(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("hello")
    assert values.save(tmp_path / "site", tmp_path / "kept", "folder") == "site, 5 B"
    assert (values.load(tmp_path / "kept") / "index.html").read_text() == "hello"


@pytest.mark.parametrize(
    ("form", "value", "said"),
    [
        ("text", 5, "keeps str, and the step returned int"),
        ("bytes", "x", "keeps bytes"),
        ("folder", "x", "keeps pathlib.Path"),
        ("safetensors", [1], "keeps arrays by name"),
        ("parquet", [1], "a table of pandas, Polars or PyArrow"),
        ("figure", 5, "a figure of Matplotlib"),
        ("joblib", 5, "needs the package joblib in the service's lock"),
        ("skops", 5, "needs the package skops"),
        ("safetensors", MappingProxyType({}), "needs the package safetensors"),
        ("onnx", 5, "one of: json, text, bytes"),
    ],
)
def test_what_does_not_fit_its_form_is_said(tmp_path: Path, form: str, value: Any, said: str) -> None:
    with pytest.raises(savers.NotSaved, match=said):
        values.save(value, tmp_path / "kept", form)


def test_what_json_cannot_hold_is_refused_where_json_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON has no form for a set"):
        values.save({1}, tmp_path / "kept", "json")
    with pytest.raises(ValueError, match="JSON"):
        values.save(float("nan"), tmp_path / "kept", "json")
