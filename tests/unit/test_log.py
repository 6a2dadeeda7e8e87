"""This file tests what a step tells of itself, and that `import branchline` brings nothing along (2.09, 2.12)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import branchline
from branchline.core.revision import Measure
from branchline.core.tracking import told
from branchline.sdk import log

ROOT = Path(__file__).resolve().parents[2]


def ran(script: str, metrics: Path | None, *options: str) -> subprocess.CompletedProcess[str]:
    """A process that is a step's, or with no file for metrics anybody's."""
    env: Mapping[str, str] = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    env = {**env, **({"BRANCHLINE_METRICS": str(metrics)} if metrics else {})}
    command = [sys.executable, *options, "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_numbers_and_curves_are_told(tmp_path: Path) -> None:
    script = (
        "import branchline\nbranchline.log(mape=9.5, rows=3)\nfor n in range(2): branchline.log(step=n, loss=1/(n+1))"
    )
    ended = ran(script, tmp_path / "metrics")
    assert (ended.returncode, ended.stderr) == (0, "")
    expected = (Measure("mape", 9.5), Measure("rows", 3.0), Measure("loss", 1.0, 0.0), Measure("loss", 0.5, 1.0))
    assert told((tmp_path / "metrics").read_bytes()) == expected


def test_what_was_told_outlives_a_kill_and_children_tell_too(tmp_path: Path) -> None:
    script = """
import branchline, os, signal, subprocess, sys
branchline.log(a=1)
if os.fork() == 0:
    branchline.log(b=2)
    os._exit(0)
os.wait()
subprocess.run([sys.executable, "-c", "import branchline; branchline.log(c=3)"], check=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert ran(script, tmp_path / "metrics").returncode == -9
    assert [each.name for each in told((tmp_path / "metrics").read_bytes())] == ["a", "b", "c"]


def test_threads_do_not_tear_one_anothers_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.METRICS, str(tmp_path / "metrics"))

    def tell(name: str) -> None:
        for n in range(200):
            branchline.log(step=n, **{name: n})

    threads = [threading.Thread(target=tell, args=(f"m{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told((tmp_path / "metrics").read_bytes())) == 800


def test_without_a_run_it_says_so_once_and_does_nothing() -> None:
    ended = ran("import branchline\nfor n in range(3): branchline.log(a=n)", None)
    assert (ended.returncode, ended.stderr.count("no run records")) == (0, 1)


@pytest.mark.parametrize("value", [True, "0.9", b"1", None, [1.0], 1j])
def test_what_is_no_number_is_a_wrong_call_with_or_without_a_run(value: Any) -> None:
    with pytest.raises(TypeError, match=r"branchline.log\(auc=...\) takes a number"):
        branchline.log(auc=value)
    with pytest.raises(TypeError, match="step"):
        branchline.log(step=[value], auc=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "a<b", "a=b"])
def test_a_name_that_nobody_could_ask_for_is_a_wrong_call(name: str) -> None:
    with pytest.raises(ValueError, match="no spaces"):
        branchline.log(**{name: 1})


def test_what_a_run_brings_about_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    script = "import branchline\nfor n in range(3): branchline.log(step=n, loss=float('nan'), rows=n)"
    ended = ran(script, tmp_path / "metrics")
    assert (ended.returncode, ended.stderr.count("loss was not finite")) == (0, 1)
    assert [each.name for each in told((tmp_path / "metrics").read_bytes())] == ["rows"] * 3
    ended = ran("import branchline\nfor n in range(3): branchline.log(a=n)", Path("/dev/full"))
    assert (ended.returncode, ended.stderr.count("cannot be kept")) == (0, 1)


def test_numbers_of_other_libraries_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log.METRICS, str(tmp_path / "metrics"))
    branchline.log(price=Decimal("2.5"), huge=10**30)
    assert told((tmp_path / "metrics").read_bytes()) == (Measure("price", 2.5), Measure("huge", 1e30))


def test_import_branchline_brings_the_standard_library_alone() -> None:
    script = """
import sys
before = set(sys.modules)
import branchline
assert {name for name in set(sys.modules) - before if name.startswith("branchline")} == {"branchline"}
branchline.log, branchline.load, branchline.runs
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*(loaded - sys.stdlib_module_names - {"branchline"}))
"""
    ended = ran(script, None)
    assert (ended.stdout.strip(), ended.stderr) == ("", "")
    assert {"log", "load", "runs"} <= set(dir(branchline))
