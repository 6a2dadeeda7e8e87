"""This file tests what a step's or server's function gets for its parameters (1.16, 3.01)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from branchline.sdk.binding import Unbound, bind, function


def wants_all(sales, seed: int, rate: float = 0.5, staging="", *rest, **others):  # type: ignore[no-untyped-def]
    ...


def wants_text(seed: str, on: bool = False) -> None: ...


def test_names_mean_data_parameters_and_what_is_given() -> None:
    bound, free = bind(
        wants_all, data={"sales": Path("/data")}, parameters={"seed": "7", "rate": "2"}, given={"staging": "http://x"}
    )
    assert (bound, free) == ({"sales": Path("/data"), "seed": 7, "rate": 2.0, "staging": "http://x"}, "")


def test_a_default_stands_where_nothing_is_declared() -> None:
    bound, _ = bind(wants_all, data={"sales": Path("/data")}, parameters={"seed": 7})
    assert bound == {"sales": Path("/data"), "seed": 7}


def test_a_dash_is_written_as_an_underscore() -> None:
    assert bind(lambda ames_sales: None, data={"ames-sales": Path("/d")})[0] == {"ames_sales": Path("/d")}


@pytest.mark.parametrize(
    ("declared", "wanted"), [("1.10", "1.10"), ('"1.10"', "1.10"), ("true", "true"), (5, 5)], ids=str
)
def test_a_text_stays_a_text_where_one_is_wanted(declared: object, wanted: object) -> None:
    assert bind(wants_text, parameters={"seed": declared})[0]["seed"] == wanted


@pytest.mark.parametrize(("declared", "wanted"), [("3", 3), ("1.5", 1.5), ("true", True), ("ridge", "ridge")])
def test_without_an_annotation_a_parameter_is_what_json_reads(declared: str, wanted: object) -> None:
    assert bind(lambda seed: None, parameters={"seed": declared})[0] == {"seed": wanted}


@pytest.mark.parametrize("declared", ["ridge", "true", "null", "[1]"])
def test_what_cannot_be_the_number_that_is_wanted_is_told(declared: str) -> None:
    with pytest.raises(Unbound, match="'seed' should be int"):
        bind(wants_all, data={"sales": Path("/data")}, parameters={"seed": declared})


def test_a_truth_value_is_no_number_and_no_text() -> None:
    assert bind(wants_text, parameters={"seed": "a", "on": "true"})[0]["on"] is True
    with pytest.raises(Unbound, match="'on' should be bool"):
        bind(wants_text, parameters={"seed": "a", "on": "1"})


def test_a_name_that_means_nothing_is_told_with_what_it_may_mean() -> None:
    with pytest.raises(
        Unbound, match=r"nothing is called 'salse' \(did you mean sales\?\); it may ask for: sales, seed"
    ):
        bind(lambda salse: None, data={"sales": Path("/d")}, parameters={"seed": 1})


def test_a_name_that_means_two_things_is_told() -> None:
    with pytest.raises(Unbound, match="'sales' means two things: a data source and a parameter"):
        bind(lambda sales: None, data={"sales": Path("/d")}, parameters={"sales": 1})


def positional(seed, /): ...  # type: ignore[no-untyped-def]


def test_a_parameter_without_a_name_is_told() -> None:
    with pytest.raises(Unbound, match="by position"):
        bind(positional, parameters={"seed": 1})


def test_one_parameter_is_left_for_the_request() -> None:
    bound, free = bind(lambda body, model: None, given={"model": 3}, free="the request")
    assert (bound, free) == ({"model": 3}, "body")


@pytest.mark.parametrize(
    ("predict", "told"),
    [
        (lambda model: None, "no parameter is left for the request"),
        (lambda one, two, model: None, "one parameter gets the request, but one and two are left"),
    ],
)
def test_no_parameter_or_two_for_the_request_are_told(predict: Callable[..., Any], told: str) -> None:
    with pytest.raises(Unbound, match=told):
        bind(predict, given={"model": 3}, free="the request")


def test_a_function_is_found_by_module_and_name() -> None:
    assert function("json:dumps")([1]) == "[1]"
    assert function("pathlib:Path.cwd")() == Path.cwd()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("dumps", "should read module:function"),
        ("no_such_module:f", "there is no module no_such_module"),
        ("json:dunps", r"json has no dunps \(did you mean dumps\?\)"),
        ("json:__name__", "is no function"),
    ],
)
def test_a_function_that_is_not_there_is_told(call: str, told: str) -> None:
    with pytest.raises(Unbound, match=told):
        function(call)
