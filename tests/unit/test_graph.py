"""This file tests the order of steps, and that what they need is read from the text without running it.

Requirements: 1.17 (the steps are a DAG); F4 (a cycle is named), F5 (a missing step or input).
"""

from __future__ import annotations

import pytest

from branchline.core import graph
from branchline.core.spec import Source, Spec, Step
from branchline.errors import BadDag

TEXT = "def train(clean, /, rows, *, rate): ...\nasync def serve(): ...\nx = 1\n"


def spec(*steps: Step) -> Spec:
    return Spec("housing", "housing", data=(Source("sales", "data/*.csv"),), parameters=(("rate", "3"),), steps=steps)


def test_parameters_are_read_and_nothing_is_run() -> None:
    assert graph.parameters_of(TEXT, "train") == ("clean", "rows", "rate")
    assert graph.parameters_of(TEXT, "serve") == ()
    assert graph.parameters_of("raise SystemExit\n" + TEXT, "serve") == ()
    assert graph.parameters_of(TEXT, "gone") is None


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("steps:gone", "there is no function steps:gone"),
        ("nowhere:train", "there is no function nowhere:train"),
        ("broken:train", "broken is no Python: invalid syntax in line 2"),
    ],
)
def test_what_cannot_be_read_is_said(call: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        graph.needed_by(call, {"steps": TEXT, "broken": "x = 1\ndef ?\n"})


def test_steps_stand_after_what_they_need_1_17() -> None:
    dag = spec(
        Step("report", command=("make",), inputs=("train", "rate"), output="report.html"),
        Step("train", call="steps:train"),
        Step("clean", call="steps:clean"),
    )
    sources = {"steps": "def train(clean, rate): ...\ndef clean(sales): ...\n"}
    found = graph.needs(dag, sources)
    assert found == {"report": ("train", "rate"), "train": ("clean", "rate"), "clean": ("sales",)}
    assert graph.order(dag, found) == ("clean", "train", "report")


def test_all_that_is_missing_is_named_at_once_F5() -> None:
    dag = spec(
        Step("train", call="steps:train"),
        Step("gone", call="steps:gone"),
        Step("make", inputs=("nothing",), output="x"),
    )
    with pytest.raises(BadDag) as caught:
        graph.needs(dag, {"steps": TEXT})
    assert caught.value.cause == (
        "step train needs 'clean', which is no step, data source or parameter; "
        "step train needs 'rows', which is no step, data source or parameter; "
        "step gone: there is no function steps:gone; "
        "step make needs 'nothing', which is no step, data source or parameter"
    )


def test_a_cycle_is_printed_F4() -> None:
    dag = spec(Step("a", call="s:a"), Step("b", call="s:b"))
    with pytest.raises(BadDag) as caught:
        graph.needs(dag, {"s": "def a(b): ...\ndef b(a): ...\n"})
    assert caught.value.cause in ("a cycle: a > b > a", "a cycle: b > a > b")


@pytest.mark.parametrize(
    ("text", "hinted"),
    [
        ("def predict(request): ...", False),
        ("def predict(request: list): ...", True),
        ("async def predict(request) -> float: ...", True),
        ("def predict(request, *, rate: int): ...", True),
        ("def predict(", False),  # starting it will say what is wrong
        ("predict = made()", True),
    ],
)
def test_a_function_without_hints_need_not_be_asked(text: str, hinted: bool) -> None:
    assert graph.hinted("serving:predict", {"serving": text}) is hinted
    assert graph.hinted("elsewhere:predict", {"serving": text})


def test_a_step_comes_after_what_gives_its_items_and_what_has_to_be_true_1_17() -> None:
    dag = spec(
        Step("train", call="steps:train", for_each=("clean", "parts"), when="wanted"),
        Step("parts", command=("ls",), output="parts.json"),
        Step("wanted", command=("test",), output="wanted.json"),
    )
    found = graph.needs(dag, {"steps": "def train(clean, rate): ...\n"})
    assert found == {"train": ("rate",), "parts": (), "wanted": ()}
    assert graph.after(dag, found) == {"train": ("parts", "wanted"), "parts": (), "wanted": ()}
    assert graph.order(dag, found)[-1] == "train"


def test_a_step_has_to_take_what_it_is_run_for() -> None:
    with pytest.raises(BadDag) as caught:
        graph.needs(
            spec(Step("train", call="steps:train", for_each=("month", "rate"), when="gone")),
            {"steps": "def train(clean, rate): ...\n"},
        )
    assert "run for each month, but its function has no parameter of that name" in caught.value.cause
    assert "needs 'gone'" in caught.value.cause
