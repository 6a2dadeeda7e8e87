"""This file tests what a step or gate is given and gives back: values that come, functions that do not (F20)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.workers import WarmWorkers
from branchline.ports import Bench
from branchline.sdk import values

ROOT = Path(__file__).resolve().parents[2]
STEPS = """
from __future__ import annotations
import os, sys, time
before = set(sys.modules)
from pathlib import Path
import iniconfig
import shapes

def clean(sales: Path, seed: int = 0):
    rows = (sales / "rows.txt").read_text().split()
    print("counted", len(rows), "rows")
    return {"rows": len(rows), "seed": seed}

def train(clean):
    return shapes.Model(clean["rows"])

def export(train, clean: Path):
    path = Path(os.environ["TMPDIR"]) / "model.bin"
    path.write_bytes(b"%d %s" % (train.weight, clean.name.encode()))
    return path

def quiet(): return None
def boom(clean): return shapes.broken(clean)
def typo(claen): return claen
def hang(): time.sleep(600)
def quit(): os._exit(0)
def leave(): sys.exit(3)
def kill(): os.kill(os.getpid(), 9)
def preloaded(): return "iniconfig" in before and "shapes" not in before
def folder():
    path = Path(os.environ["TMPDIR"]) / "out"
    path.mkdir()
    (path / "a").write_text("1")
    return path
def nowhere(): return Path("/no/such/file")
def escape():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()
    return 1

def better(train, incumbent, staging):
    assert incumbent is None or train.weight > incumbent["train"].weight, "not better than the incumbent"
    return {"ok": True, "weight": train.weight, "staging": staging}
def checks_nothing(): pass
def predict(train, house: House) -> list[float]: ...
class House(dict): pass
"""
SHAPES = """
class Model:
    def __init__(self, weight): self.weight = weight

def broken(rows):
    return rows["rows"] / 0
"""


ENV = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}


class Shop:
    """A service folder with steps, and the workers that are asked to run them."""

    def __init__(self, home: Path, workers: WarmWorkers) -> None:
        self.home, self.service, self.workers = home, home / "service", workers
        self.service.mkdir()
        (self.service / "steps.py").write_text(STEPS)
        (self.service / "shapes.py").write_text(SHAPES)
        (home / "sales").mkdir()
        (home / "sales" / "rows.txt").write_text("1\n2\n3\n")

    def order(self, name: str, *inputs: str, **more: Any) -> dict[str, Any]:
        return {
            "step": name,
            "call": f"steps:{name}",
            "inputs": {step: str(self.home / "out" / step) for step in inputs},
            "output": str(self.home / "out" / name),
            "log": str(self.home / "logs" / name),
            "seconds": 60,
            "cwd": str(self.service),
            "env": {**ENV, "PYTHONPATH": f"{ROOT}:{self.service}"},
            **more,
        }

    def one(self, name: str, *inputs: str, **more: Any) -> dict[str, Any]:
        return dict(self.workers.do(Bench(Path(sys.executable), ROOT, ENV), self.order(name, *inputs, **more)))


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmWorkers]:
    """The same warm process for every test here: what one does is nothing to another."""
    warm = WarmWorkers(tmp_path_factory.mktemp("workers"), grace=1, every=0.02)
    yield warm
    warm.close()


@pytest.fixture
def shop(tmp_path: Path, workers: WarmWorkers) -> Shop:
    return Shop(tmp_path, workers)


@pytest.fixture
def built(shop: Shop) -> Shop:
    """With the steps `clean` and `train` done."""
    clean = shop.one("clean", data={"sales": str(shop.home / "sales")}, parameters={"seed": "7"})
    assert [clean["ok"], shop.one("train", "clean")["ok"]] == [True, True]
    return shop


def test_steps_hand_their_results_on(built: Shop) -> None:
    answer = built.one("export", "train", "clean")
    assert (answer["ok"], answer["summary"]) == (True, "model.bin, 12 B")
    assert values.load(built.home / "out" / "export").read_bytes() == b"3 value.json"
    assert json.loads((built.home / "out" / "clean" / "value.json").read_text()) == {"rows": 3, "seed": 7}


def test_what_a_step_printed_last_is_its_summary_and_small_values_are_in_the_answer(shop: Shop) -> None:
    answer = shop.one("clean", data={"sales": str(shop.home / "sales")}, parameters={})
    assert (answer["summary"], answer["value"]) == ("counted 3 rows", {"rows": 3, "seed": 0})
    assert (shop.home / "logs" / "clean").read_text() == "counted 3 rows\n"


def test_every_step_is_a_fresh_fork_of_a_worker_that_knows_the_packages_only(shop: Shop) -> None:
    """Locked packages are imported once, the service's own code anew in each fork."""
    assert [shop.one("preloaded")["value"] for _ in range(2)] == [True, True]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("boom", "ZeroDivisionError: division by zero (shapes.py:6)"),
        ("typo", "steps:typo: nothing is called 'claen' (did you mean clean?); it may ask for: clean"),
        ("quit", "ended the process with exit 0 before it returned"),
        ("leave", "ended the process with exit 3 before it returned"),
        ("kill", "killed (exit 137); out of memory?"),
        ("nowhere", "ValueError: the path that was returned, /no/such/file, is neither a file nor a folder"),
        ("absent", "steps:absent: module steps has no absent"),
    ],
)
def test_a_step_that_fails_says_how(built: Shop, name: str, error: str) -> None:
    """F20: what leaves without a result has failed, with exit 0 too."""
    answer = built.one(name, "clean")
    assert not answer["ok"]
    assert answer["error"].startswith(error)


def test_the_traceback_in_the_log_begins_in_the_services_code(built: Shop) -> None:
    built.one("boom", "clean")
    log = (built.home / "logs" / "boom").read_text()
    assert "in broken" in log
    assert "branchline/sdk" not in log


def test_a_step_that_hangs_is_stopped_at_its_time(shop: Shop) -> None:
    """F15."""
    answer = shop.one("hang", seconds=0.3)
    assert (answer["timed_out"], answer["error"]) == (True, "stopped after 0.3 s")


def test_what_a_step_leaves_running_is_swept_and_counted(shop: Shop) -> None:
    """F16."""
    answer = shop.one("escape")
    assert (answer["ok"], answer["left"]) == (True, 1)


def test_a_scratch_folder_is_there_for_the_step_and_gone_after_it(shop: Shop) -> None:
    assert shop.one("folder")["ok"]
    assert (shop.home / "out" / "folder" / "file" / "out" / "a").read_text() == "1"
    assert [path.name for path in (shop.home / "logs").iterdir()] == ["folder"]


def test_hints_are_read_where_the_service_runs_and_nothing_is_called(shop: Shop) -> None:
    """1.10: nothing of the service is imported by the control plane, also not to know what it accepts."""
    told = shop.one("predict", gate=True, describe=True, known=["train"])
    assert told["value"] == {"request": {}, "response": {"type": "array", "items": {"type": "number"}}}
    wrong = shop.one("predicts", gate=True, describe=True)
    assert (wrong["ok"], wrong["error"]) == (
        False,
        "steps:predicts: module steps has no predicts (did you mean predict?)",
    )


def test_a_gate_gets_the_incumbents_results_and_the_staging_address(built: Shop) -> None:
    """1.17g, 1.20."""
    more = {"gate": True, "staging": "http://127.0.0.1:1/x"}
    rival = {"incumbent": {"train": str(built.home / "out" / "train")}}
    told = [
        built.one("better", "train", incumbent=None, **more),
        built.one("better", "train", **rival, **more),
        built.one("checks_nothing", gate=True),
    ]
    assert told[0]["value"] == {"ok": True, "weight": 3, "staging": "http://127.0.0.1:1/x"}
    assert (told[1]["ok"], told[1]["error"].partition(" (")[0]) == (
        False,
        "AssertionError: not better than the incumbent",
    )
    assert (told[2]["ok"], told[2]["value"]) == (True, None)


# ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [None, "a", 3, 2.5, True, [1, [2]], {"a": {"b": None}}, "é"])
def test_plain_values_are_kept_as_json(tmp_path: Path, value: object) -> None:
    values.save(value, tmp_path / "kept")
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["value.json"]
    assert values.load(tmp_path / "kept") == value


@pytest.mark.parametrize("value", [(1, 2), {1: "a"}, {"a": (1,)}, float("inf"), date(2026, 1, 2), {1, 2}, [b"x"]])
def test_values_that_json_would_change_come_back_as_they_were(tmp_path: Path, value: object) -> None:
    values.save(value, tmp_path / "kept")
    assert values.load(tmp_path / "kept") == value
    assert values.where(tmp_path / "kept").name == "value.pkl"


def test_bytes_are_kept_as_they_are(tmp_path: Path) -> None:
    assert values.save(b"\x00" * 1500, tmp_path / "kept") == "bytes, 1.5 kB"
    assert values.load(tmp_path / "kept") == b"\x00" * 1500


def test_a_result_that_a_command_wrote_is_its_path(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"1")
    assert values.load(tmp_path / "model.bin") == tmp_path / "model.bin"
    assert values.load(tmp_path) == tmp_path


def test_no_result_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no result"):
        values.load(tmp_path / "nothing")


def test_results_of_another_revision_load_when_they_are_asked_for(tmp_path: Path) -> None:
    values.save(5, tmp_path / "five")
    results = values.Results({"five": str(tmp_path / "five"), "gone": str(tmp_path / "gone")})
    assert (len(results), list(results), results["five"]) == (2, ["five", "gone"], 5)
    assert results.path("five").name == "value.json"
