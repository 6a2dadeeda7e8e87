"""This file says what every Workers does: the fake and warm processes (2.11, F15, F19, F20, F23)."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.workers import WarmWorkers
from branchline.ports import Bench, Workers
from tests.fakes.workers import FakeWorkers

ROOT = Path(__file__).resolve().parents[2]
STEPS = """
import os, time

def answer(): return 42
def boom(): raise ValueError("no such luck")
def hang(): time.sleep(600)
def leave(): os._exit(3)
def spoil(sales): (sales / "rows").write_text("other")
def add(a: int, b: int = 0): return a + b
"""


class Place:
    """A service's folder, its workers, and the orders that they get."""

    def __init__(self, workers: Workers, home: Path) -> None:
        self.workers, self.home = workers, home
        self.bench = Bench(Path(sys.executable), ROOT, {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"})
        (home / "service").mkdir()
        (home / "service" / "steps.py").write_text(STEPS)
        (home / "sales").mkdir()
        (home / "sales" / "rows").write_text("1")

    def do(self, name: str, stopped: Callable[[], bool] = lambda: False, **more: Any) -> dict[str, Any]:
        order = {
            "step": name,
            "call": f"steps:{name}",
            "output": str(self.home / "out" / name),
            "log": str(self.home / "logs" / name),
            "seconds": 60,
            "cwd": str(self.home / "service"),
            "env": {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{self.home / 'service'}"},
            **more,
        }
        return dict(self.workers.do(self.bench, order, stopped))


def hangs(order: dict[str, Any]) -> None:
    raise TimeoutError


def leaves(order: dict[str, Any]) -> None:
    raise SystemExit(3)


def booms(order: dict[str, Any]) -> None:
    raise ValueError("no such luck")


def spoils(order: dict[str, Any]) -> None:
    Path(order["data"]["sales"], "rows").write_text("other")


@pytest.fixture(params=["fake", "processes"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    fake = FakeWorkers({"steps:boom": booms, "steps:hang": hangs, "steps:leave": leaves, "steps:spoil": spoils})
    fake.calls |= {"steps:answer": lambda order: 42, "steps:add": lambda order: sum(order["parameters"].values())}
    real = WarmWorkers(tmp_path / "workers", grace=1, every=0.02)
    workers: Workers = fake if request.param == "fake" else real
    yield Place(workers, tmp_path)
    workers.close()


def test_what_a_function_returned_is_kept_and_told(place: Place) -> None:
    answer = place.do("answer")
    assert (answer["step"], answer["ok"], answer["reason"], answer["value"]) == ("answer", True, "ended", 42)
    assert json.loads((place.home / "out" / "answer" / "value.json").read_text()) == 42


def test_an_answer_says_what_it_took_2_12(place: Place) -> None:
    answer = place.do("answer")
    assert answer["seconds"] > 0
    assert answer["peak"] > 100_000
    assert answer["cpu"] >= 0
    assert answer["facts"] == answer["changed"] == []


def test_a_gates_value_is_told_and_not_kept(place: Place) -> None:
    answer = place.do("add", gate=True, parameters={"a": 1, "b": 2})
    assert (answer["ok"], answer["value"]) == (True, 3)
    assert not (place.home / "out").exists()


@pytest.mark.parametrize(
    ("name", "reason", "error"),
    [
        ("boom", "raised", "ValueError: no such luck"),
        ("leave", "left nothing", "ended the process with exit 3 before it returned"),
    ],
)
def test_what_fails_says_how_F20(place: Place, name: str, reason: str, error: str) -> None:
    answer = place.do(name)
    assert (answer["ok"], answer["reason"], answer["error"].partition(" (")[0]) == (False, reason, error)


def test_what_takes_too_long_is_stopped_F15(place: Place) -> None:
    answer = place.do("hang", seconds=0.2)
    assert (answer["ok"], answer["reason"], answer["timed_out"]) == (False, "timed out", True)
    assert answer["error"] == "stopped after 0.2 s"


def test_what_nobody_wants_any_more_is_stopped(place: Place) -> None:
    if isinstance(place.workers, FakeWorkers):
        place.workers.endless.add("steps:hang")
    answer = place.do("hang", lambda: True)
    assert (answer["ok"], answer["reason"], answer["timed_out"]) == (False, "stopped", False)
    assert place.do("answer")["ok"]


def test_what_was_changed_of_the_inputs_is_told_F23(place: Place) -> None:
    answer = place.do("spoil", data={"sales": str(place.home / "sales")})
    assert (answer["ok"], answer["changed"]) == (False, [str(place.home / "sales" / "rows")])
    assert answer["error"] == f"{place.home / 'sales' / 'rows'} was changed"


def test_several_are_asked_at_once(place: Place) -> None:
    with ThreadPoolExecutor(4) as pool:
        values = pool.map(
            lambda n: place.do(
                "add", parameters={"a": n, "b": 1}, output=str(place.home / str(n)), log=str(place.home / f"{n}.log")
            )["value"],
            range(8),
        )
        assert list(values) == [n + 1 for n in range(8)]


def test_what_comes_after_the_end_is_lost_and_told(place: Place) -> None:
    assert place.do("answer")["ok"]
    place.workers.close()
    place.workers.close()
    answer = place.do("answer")
    assert (answer["ok"], answer["reason"], answer["error"]) == (False, "lost", "the workers were closed")


def test_what_is_under_way_at_the_end_is_lost_and_told(place: Place) -> None:
    """The fake has nothing that could be under way in another thread."""
    if isinstance(place.workers, FakeWorkers):
        return
    begun = threading.Event()

    def look() -> bool:
        begun.set()
        return False

    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(place.do, "hang", look)
        assert begun.wait(60)
        place.workers.close()
        assert (told.result(60)["ok"], told.result()["reason"]) == (False, "lost")
