"""This file tests what a service file may say of others' numbers: a database, a Prometheus (issue 7 item 2)."""

from __future__ import annotations

import re

import pytest

from branchline.adapters.servicefile import read_service
from branchline.core.counters import PrometheusGuardrail
from branchline.core.outcome_query import SqlQuery
from branchline.errors import BadServiceFile

HEAD = "kind = 'app'\nserve = { command = ['x'] }\n[metric]\nname = 'price'\nmde = 1\n[metric.sql]\n"
QUERY = "query = 'select unit, time, value from t where time > :since'\n"
SERVER = 'url = "postgresql://reader@db.example.org:5432/shop"\n'


def problems(text: str) -> list[str]:
    with pytest.raises(BadServiceFile) as refused:
        read_service((HEAD + text).encode(), "shop/branchline.toml")
    return [re.sub("^line [0-9]+: ", "", each) for each in refused.value.fields["problems"]]


def test_a_query_with_an_address_of_the_project_or_of_a_server() -> None:
    text = HEAD + QUERY + 'url = "duckdb:///data/sales.db"\nevery = "15s"\noverlap = "2h"\n'
    metric = read_service(text.encode(), "shop/branchline.toml").metric
    assert metric is not None
    query = "select unit, time, value from t where time > :since"
    assert metric.sql == SqlQuery(query, "duckdb:///data/sales.db", "", 15.0, 7200.0)
    metric = read_service((HEAD + QUERY + SERVER).encode(), "shop/branchline.toml").metric
    assert metric is not None
    assert metric.sql == SqlQuery(query, "postgresql://reader@db.example.org:5432/shop")


def test_a_variable_of_the_daemon() -> None:
    text = HEAD + QUERY + 'variable = "BRANCHLINE_SQL_SHOP"\n'
    metric = read_service(text.encode(), "shop/branchline.toml").metric
    assert metric is not None
    assert metric.sql is not None
    assert (metric.sql.url, metric.sql.variable) == ("", "BRANCHLINE_SQL_SHOP")


WRONG = {
    QUERY: "metric.sql: exactly one of url, variable says what it is, not none",
    SERVER + "query = 'select 1'\n": "metric.sql.query: :since does not stand in it; at every look all there is would "
    "be read: compare the time with :since, which is Unix seconds",
    QUERY + "url = 'mysql://there/shop'\n": "metric.sql.url: 'mysql://there/shop' is no address of sqlite, duckdb, "
    "postgresql; sqlite:///folder/file.db is one",
    QUERY + "url = 'postgresql://me:secret@there/shop'\n": "metric.sql.url: a password stands in it, where everybody "
    "reads it: name a variable, BRANCHLINE_SQL_...",
    QUERY + "url = 'postgresql://there/shop?password=x'\n": "metric.sql.url: a password stands in it, where everybody "
    "reads it: name a variable, BRANCHLINE_SQL_...",
    QUERY + "url = 'sqlite://there/x.db'\n": "metric.sql.url: 'sqlite://there/x.db' names a server; a file has three "
    "strokes: sqlite:///folder/file.db",
    QUERY + "url = 'sqlite:////etc/x.db'\n": "metric.sql.url: '/etc/x.db' leads out of the project; write a path below "
    "it",
    QUERY + "url = 'duckdb:///../x.db'\n": "metric.sql.url: '../x.db' leads out of the project; write a path below it",
    QUERY + "url = 'sqlite:///'\n": "metric.sql.url: '' leads out of the project; write a path below it",
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said(text: str) -> None:
    assert problems(text) == [WRONG[text]]


def test_a_branch_names_no_variable_that_is_not_meant_for_it() -> None:
    """Killer: any variable allowed, a branch could send AWS_SECRET_ACCESS_KEY to a server of its own as an address."""
    (found,) = problems(QUERY + "variable = 'DATABASE_URL'\n")
    assert found.startswith("metric.sql.variable:")


def test_what_is_no_address_at_all_is_refused() -> None:
    (found,) = problems(QUERY + "url = 'postgresql://[x/shop'\n")
    assert "is no address" in found


# ── counters of a Prometheus ───────────────────────────────────────────────────────────────────────────────────────

CART = "kind = 'app'\nserve = { command = ['x'] }\n[guardrails.prometheus.cart]\n"
TWO = "all = 'sum(x{r=\"$revision\"})'\nbad = 'sum(y{r=\"$revision\"})'\n"


def test_a_guardrail_on_counters() -> None:
    text = CART + TWO + "url = 'http://127.0.0.1:9090/prom'\nevery = '30s'\n"
    rules = read_service(text.encode(), "shop/branchline.toml").guardrails.prometheus
    all_of, bad = 'sum(x{r="$revision"})', 'sum(y{r="$revision"})'
    assert rules == (PrometheusGuardrail("cart", "http://127.0.0.1:9090/prom", all_of, bad, 30.0),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWO + "url = 'ftp://there'\n", "is no address of a Prometheus; http://127.0.0.1:9090 is one"),
        (TWO + "url = 'http://there/?x=1'\n", "is no address of a Prometheus"),
        (TWO + "url = 'http://me:secret@there'\n", "a user or a password stands in it"),
        (TWO.replace("$revision", "1") + "url = 'http://there'\n", "of both arms it would give the same number"),
    ],
)
def test_a_guardrail_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadServiceFile) as refused:
        read_service((CART + text).encode(), "shop/branchline.toml")
    assert any(said in each for each in refused.value.fields["problems"])
