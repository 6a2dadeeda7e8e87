"""This file tests what a service file may declare of judging, and that every wrong combination is refused in words."""

from __future__ import annotations

import pytest

from branchline.adapters import servicefile
from branchline.core.spec import Guardrails, Metric
from branchline.errors import BadServiceFile

PLAIN = "kind = 'app'\nserve = { command = ['x'] }\n"
SQL = "[metric.sql]\nquery = 'select :since'\nurl = 'sqlite:///a/b.db'\n"
WRONG = {
    "[watched.clicks]": "what is watched is beside a [metric], and has a name of its own",
    "[metric]\nname = 'clicks'\n[watched.clicks]": "what is watched is beside a [metric], and has a name of its own",
    "[metric]\nname = 'x'\n[watched.y]\nmde = 1": "unknown key watched.y.mde",
    "[metric]\nname = 'x'\n[watched.y]\nbounds = [1, 1]": "watched.y: bounds [1.0, 1.0] are empty",
    "[metric]\nname = 'x'\n[watched.y]\nkind = 'time-to'\nmissing = 'zero'": "watched.y: missing does not go with kind",
    "guardrails.slow_requests = 1": "guardrails.slow_requests.quantile: Input should be less than or equal to 0.999",
    "guardrails.slow_requests = { quantile = 0.9, above_ms = 5 }": "guardrails.slow_requests: exactly one of quantile, "
    "above_ms says what it is, not quantile and above_ms",
    f"[metric]\nname = 'x'\nkind = 'ratio'\n{SQL}": "metric: sql does not go with kind ratio: it is of "
    "sums, not of values",
    f"[metric]\nname = 'x'\nbefore = 1\n{SQL}": "metric: a query gives one value and nothing of "
    "before: leave before out, or report outcomes",
    "[metric]\nname = 'x'\nmde = 1\nmargin = 1": "metric: mde asks for better, margin for no worse: "
    "declare one of them",
    "[metric]\nname = 'x'\nmargin = 0": "metric.margin: Input should be greater than 0",
    "[metric]\nname = 'x'\nbounds = [0, 5]\nmde = 5": "metric: mde 5 is too large: all values lie between 0 and 5",
    "[metric]\nname = 'x'\nkind = 'binary'\nmargin = 2": "metric: margin 2 is too large: all values lie "
    "between 0 and 1",
    "[metric]\nname = 'x'\nbounds = [0, 5]\ncap = 4": "metric: its values have bounds already, so "
    "nothing is left to cap: leave cap out",
    "[metric]\nname = 'x'\nkind = 'ratio'\nbounds = [0, 1]\nbefore = 1": "metric: bounds, before does not go with "
    "kind ratio: it is of sums, not of values",
    "[metric]\nname = 'x'\nkind = 'time-to'\nmissing = 'zero'": "metric: missing does not go with kind time-to: it "
    "lies between 0 and its window, if none came",
    "[metric]\nname = 'x'\nkind = 'time-to'\nwindow = '5s'\nmde = 6": "metric: mde 6 is too large: all values lie "
    "between 0 and 5",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_means_nothing_is_refused_in_words(text: str) -> None:
    with pytest.raises(BadServiceFile) as refused:
        servicefile.read_service((PLAIN + text).encode(), "shop/branchline.toml")
    assert WRONG[text] in str(refused.value.cause)


def test_a_time_lies_between_nothing_and_its_window_and_less_is_better() -> None:
    text = "kind = 'app'\nserve = { command = ['x'] }\n[metric]\nname = 'x'\nkind = 'time-to'\nwindow = '5s'\nmde = 1"
    metric = servicefile.read_service(text.encode(), "shop/branchline.toml").metric
    assert metric == Metric("x", "time-to", "lower", 1.0, (0.0, 5.0), 5.0, "window")


def test_a_ratio_and_what_was_before_are_read() -> None:
    text = "kind = 'app'\nserve = { command = ['x'] }\n[metric]\nname = 'x'\n"
    ratio = servicefile.read_service(f"{text}kind = 'ratio'\nmde = 1".encode(), "shop/branchline.toml").metric
    assert ratio == Metric("x", "ratio", mde=1.0)
    assert (ratio.form, ratio.pooled) == ("ratio", "sum")
    known = servicefile.read_service(f"{text}before = 4.5".encode(), "shop/branchline.toml").metric
    assert known == Metric("x", before=4.5)
    assert (known.form, known.pooled) == ("adjusted", "mean")


@pytest.mark.parametrize(
    ("said", "rails"),
    [
        ("0.95", Guardrails(slow_quantile=0.95)),
        ("{ quantile = 0.5 }", Guardrails(slow_quantile=0.5)),
        ("{ above_ms = 250 }", Guardrails(slow_above=0.25)),
    ],
)
def test_slow_is_a_quantile_or_a_limit(said: str, rails: Guardrails) -> None:
    text = f"{PLAIN}guardrails.slow_requests = {said}"
    assert servicefile.read_service(text.encode(), "shop/branchline.toml").guardrails == rails


def test_what_is_watched_stands_beside_the_metric() -> None:
    text = (
        f"{PLAIN}[metric]\nname = 'x'\n[watched.wait]\nkind = 'time-to'\nwindow = 5\n[watched.clicks]\nbounds = [0, 9]"
    )
    metric = servicefile.read_service(text.encode(), "shop/branchline.toml").metric
    assert metric is not None
    wait = Metric("wait", "time-to", "lower", None, (0.0, 5.0), 5.0, "window")
    assert metric.watched == (Metric("clicks", bounds=(0.0, 9.0)), wait)
    assert [metric.called(name) for name in ("", "x", "wait", "z")] == [metric, metric, wait, None]
