"""This file keeps the housing example whole: data, size, overlays, replay. No third-party part of it runs here."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import re
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from branchline.cli.demo_data import FALLEN
from examples.housing import replay

EXAMPLE = Path(replay.__file__).parent
SERVICE = EXAMPLE / "housing"
MONTHS = sorted((EXAMPLE / "data" / "sales").glob("*.csv"))
# Each challenger with what it branches from: a folder laid over another.
BASES = {
    "alex": [SERVICE],
    "sam": [SERVICE, EXAMPLE / "challengers/alex"],
    "robin-metres": [SERVICE, EXAMPLE / "challengers/alex"],
}


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".pytest_cache"} & set(path.parts)
    }


def test_there_are_55_months_of_2930_sales_in_26_columns() -> None:
    keys: set[str] = set()
    rows = 0
    for month in MONTHS:
        with month.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            sold = list(reader)
        assert len(reader.fieldnames or ()) == 26
        assert {f"{sale['year_sold']}-{sale['month_sold']:>02}" for sale in sold} == {month.stem}
        keys |= {sale["pid"] for sale in sold}
        rows += len(sold)
    assert (MONTHS[0].stem, MONTHS[-1].stem, len(MONTHS), rows, len(keys)) == ("2006-01", "2010-07", 55, 2930, 2930)
    assert sum(month.stat().st_size for month in MONTHS) < 350_000


def test_what_arrives_is_a_month_of_ames_but_for_its_prices() -> None:
    fallen, empty = (EXAMPLE / "arrivals" / f"2008-{month}.csv" for month in ("01", "02"))
    for path in (fallen, empty):
        with path.open(newline="", encoding="utf-8") as lines:
            arrives = list(csv.DictReader(lines))
        with (EXAMPLE / "data" / "sales" / path.name).open(newline="", encoding="utf-8") as lines:
            sold = list(csv.DictReader(lines))
        prices = [str(round(int(sale["price"]) * FALLEN)) if path == fallen else "" for sale in sold]
        assert arrives == [sale | {"price": price} for sale, price in zip(sold, prices, strict=True)]
    asked = [sale.truth for sale in replay.sales(since="2008-01", until="2008-01", level=FALLEN)]
    with fallen.open(newline="", encoding="utf-8") as lines:
        assert asked == [int(sale["price"]) for sale in csv.DictReader(lines)]


def test_the_data_says_whose_it_is() -> None:
    notice = (EXAMPLE / "data" / "NOTICE.md").read_text(encoding="utf-8")
    assert "De Cock" in notice
    assert "not under this project's licence" in notice


def test_3_05_a_service_file_has_at_most_15_lines_and_calls_what_there_is() -> None:
    for path in EXAMPLE.rglob("branchline.toml"):
        text = path.read_text(encoding="utf-8")
        assert len([line for line in text.splitlines() if line.strip()]) <= 15
        declared = tomllib.loads(text)
        called = [*declared["steps"].values(), declared["serve"]["predict"], declared["serve"]["load"]]
        for call in [*called, declared["gates"]["data"]]:
            module, _, name = call.partition(":")
            tree = ast.parse((SERVICE / f"{module}.py").read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, call
        assert json.loads((SERVICE / declared["serve"]["sample"]).read_text(encoding="utf-8"))


def test_2_28_the_lock_pins_every_package_by_hash_and_names_no_index() -> None:
    lock = (SERVICE / "requirements.lock").read_text(encoding="utf-8")
    wanted = (SERVICE / "requirements.in").read_text(encoding="utf-8").split()
    pins = re.findall(r"^([a-z0-9-]+)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", lock, re.M)
    assert set(wanted) <= set(pins)
    assert len(pins) == len(re.findall(r"^\S+==", lock, re.M))
    assert not re.search(r"://|--index|--find-links|--trusted", lock)


@pytest.mark.parametrize("name", sorted(BASES))
def test_a_challenger_is_only_the_files_that_differ_and_says_its_hypothesis(name: str) -> None:
    folder = EXAMPLE / "challengers" / name
    base = {path: digest(under / path) for under in BASES[name] for path in files(under)}
    for path in files(folder):
        assert path in base
        assert digest(folder / path) != base[path], path
    words = (folder / "EXPERIMENT.md").read_text(encoding="utf-8")
    assert [line for line in words.splitlines() if line.startswith("## ")] == ["## Hypothesis", "## Metric", "## Log"]


def test_robin_changed_the_server_and_not_the_model() -> None:
    assert files(EXAMPLE / "challengers/robin-metres") == {"EXPERIMENT.md", "branchline.toml", "serving.py"}


def test_the_replay_reads_each_later_sale_once_and_states_what_a_listing_states() -> None:
    asked = list(replay.sales())
    assert len(asked) == len({sale.unit for sale in asked}) == 1611
    assert len(list(replay.sales(since="2006-01", until="2007-12"))) == 1319
    sample = json.loads((SERVICE / "tests" / "sample.json").read_text(encoding="utf-8"))
    for unit, features, truth in asked:
        assert features.keys() == sample.keys()
        assert unit.isdecimal()
        assert truth > 0
        assert {name for name, value in features.items() if isinstance(value, str)} == replay.WORDS
    assert any(features["lot_frontage"] is None for _, features, _ in asked)


def test_the_replay_asks_on_one_connection_and_tells_the_truth_of_all_it_asked() -> None:
    rows = list(replay.sales())[:25]
    answers: list[replay.Answer] = []
    with gateway() as (url, seen):
        assert replay.replay(url, "housing", rows, answers.append, batch=10) == 25
    assert [(each.sale, each.revision, each.prediction) for each in answers] == [(row, "1.0.0", 1.5) for row in rows]
    assert [post.unit for post in seen["/housing/"]] == [row.unit for row in rows]
    assert [post.body for post in seen["/housing/"]] == [row.features for row in rows]
    told = [post.body for post in seen["/housing/-/outcomes"]]
    assert told == [[{"unit": row.unit, "value": row.truth} for row in rows[at : at + 10]] for at in (0, 10, 20)]
    assert len({post.port for posts in seen.values() for post in posts}) == 1


def test_the_replay_ends_when_it_is_told_to_and_still_reports() -> None:
    with gateway() as (url, seen):
        assert replay.replay(url, "housing", replay.sales(), lambda answer: False) == 1
    assert [len(posts) for posts in seen.values()] == [1, 1]


def test_the_replay_tells_again_what_nobody_took_and_minds_what_is_not_understood() -> None:
    rows = list(replay.sales())[:4]
    with gateway(503) as (url, seen):
        assert replay.replay(url, "housing", rows, batch=2) == 4
    assert [len(post.body) for post in seen["/housing/-/outcomes"]] == [2, 3, 1]
    with gateway(422) as (url, _), pytest.raises(HTTPException, match="422"):
        replay.replay(url, "housing", rows, batch=2)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Post(NamedTuple):
    unit: str | None
    body: Any
    port: int


@contextmanager
def gateway(*statuses: int) -> Iterator[tuple[str, dict[str, list[Post]]]]:
    """A gateway that answers listings with 1.5, outcomes with `statuses` and then 200, and notes what it was sent."""
    seen: dict[str, list[Post]] = {}
    left = list(statuses)

    class Gateway(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            post = Post(self.headers["x-branchline-unit"], body, self.client_address[1])
            seen.setdefault(self.path, []).append(post)
            said = json.dumps({"prediction": 1.5}).encode()
            self.send_response(left.pop(0) if left and self.path.endswith("/-/outcomes") else 200)
            self.send_header("x-branchline-revision", "1.0.0")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()
