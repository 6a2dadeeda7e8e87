"""This file tests a predict server in a real locked environment: from the lock to the answer, and under load (3.13)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from branchline.adapters.processes import ProcessLauncher
from branchline.adapters.processes_probe import UnixConnection
from branchline.adapters.uv import UvEnvironments
from branchline.ports import Group, Instance, Stamp
from branchline.sdk import values
from tests.locks import SERVER, TINY, lock_of
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NOW = Stamp(1, 1)
CODE = """
import os
def load(train): return {"slope": train["slope"], "warm": []}
def predict(house, model):
    model["warm"].append(house)
    if house == "exit":
        os._exit(9)
    return {"prediction": house["area"] * model["slope"], "asked": len(model["warm"])}
def wrong(house, modle): ...
"""


@dataclass
class House:
    """A service folder with one kept result, and what launches servers of it."""

    home: Path
    launcher: ProcessLauncher
    environments: UvEnvironments

    def launch(self, lock: tuple[str, ...] = SERVER, sample: object = None, predict: str = "serving:predict") -> str:
        (self.home / "requirements.lock").write_text(lock_of(*lock))
        environment = self.environments.ensure("housing", self.home, "")
        (self.home / "serving.py").write_text(CODE)
        values.save({"slope": 100}, self.home / "train")
        (self.home / "sample.json").write_text(json.dumps(sample))
        spec = {"predict": predict, "load": "serving:load", "results": {"train": str(self.home / "train")}}
        spec["sample"] = str(self.home / "sample.json") if sample is not None else ""
        (self.home / "serving.json").write_text(json.dumps(spec))
        folder = self.environments.sdk()[1]
        env = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{folder}:{self.home}",
            "PYTHONPYCACHEPREFIX": str(environment.python.parents[2] / "pycache"),
            "BRANCHLINE_SERVICE_SPEC": str(self.home / "serving.json"),
        }
        argv = (str(environment.python), "-P", "-m", "branchline.sdk.serve")
        group = Group("housing", "a1" * 20, "1.0.0", "staging", argv, self.home, env, "/-/health", 60, 5)
        return self.launcher.launch(group, NOW).nonce

    def now(self, nonce: str) -> Instance:
        return next(each for each in self.launcher.instances() if each.nonce == nonce)

    def settled(self, nonce: str) -> Instance:
        assert wait_until(lambda: self.now(nonce).state != "starting")
        return self.now(nonce)

    def ask(self, nonce: str, body: bytes, method: str = "POST") -> tuple[HTTPResponse, Any]:
        connection = UnixConnection(Path(self.now(nonce).sockets[0]), 10)
        connection.request(method, "/predict", body)
        answer = connection.getresponse()
        document = json.loads(answer.read())
        connection.close()
        return answer, document


@pytest.fixture
def house(tmp_path: Path, runtime_dir: Path) -> Iterator[House]:
    home = tmp_path / "housing"
    home.mkdir()
    made = House(home, ProcessLauncher(tmp_path / "state", runtime_dir), UvEnvironments(tmp_path / "state"))
    yield made
    for instance in made.launcher.instances():
        made.launcher.stop(instance.nonce, NOW)


def test_a_lock_and_a_function_become_a_warm_server(house: House) -> None:
    nonce = house.launch(sample={"area": 1})
    assert house.settled(nonce).state == "ready", house.now(nonce).tail
    answer, document = house.ask(nonce, b'{"area": 12}')
    assert (answer.status, document) == (200, {"prediction": 1200, "asked": 2})
    assert answer.headers["x-branchline-prediction"] == "1200.0"
    assert house.ask(nonce, b"{")[0].status == 400
    assert house.ask(nonce, b"{}")[0].status == 500
    assert wait_until(lambda: "KeyError: 'area'" in house.launcher.log(nonce))
    assert house.ask(nonce, b"", "GET")[0].status == 405


def test_a_sample_that_fails_keeps_the_server_from_getting_ready(house: House) -> None:
    failed = house.settled(house.launch(sample={}))
    assert failed.state == "failed"
    assert "KeyError: 'area'" in failed.tail


def test_an_environment_without_a_server_is_told(house: House) -> None:
    failed = house.settled(house.launch(lock=TINY))
    assert failed.state == "failed"
    assert "no ASGI server in this environment" in failed.tail


def test_a_parameter_that_means_nothing_is_told(house: House) -> None:
    failed = house.settled(house.launch(predict="serving:wrong"))
    assert "serving:wrong cannot be served" in failed.tail


def test_one_that_dies_in_a_request_has_failed(house: House) -> None:
    nonce = house.launch()
    assert house.settled(nonce).state == "ready"
    with pytest.raises(ConnectionError):
        house.ask(nonce, b'"exit"')
    assert wait_until(lambda: house.now(nonce).state == "failed")
    assert "ended by itself with exit 9" in house.now(nonce).tail


def test_a_load_test_counts_what_was_due(house: House) -> None:
    """1.17h: open loop, from the time each request was due; every request that failed is counted."""
    nonce = house.launch()
    assert house.settled(nonce).state == "ready"
    (house.home / "rows.jsonl").write_text('{"area": 1}\n{}\n')
    command = [sys.executable, "-P", "-m", "branchline.sdk.load", "--rps", "40", "--seconds", "1"]
    command += ["--url", f"unix:{house.now(nonce).sockets[0]}:/predict", "--sample", str(house.home / "rows.jsonl")]
    ran = subprocess.run(
        [*command, "--header", "x-a: b"], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    told = json.loads(ran.stdout)
    assert (told["sent"], told["failed"]) == (40, 20)
    assert 0 < told["p50_ms"] <= told["p99_ms"] <= told["max_ms"]


def test_a_load_test_against_nobody_fails_every_request() -> None:
    command = [sys.executable, "-P", "-m", "branchline.sdk.load", "--rps", "50", "--seconds", "0.2"]
    command += ["--url", "unix:/nowhere/at/all.sock"]
    ran = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert (told["sent"], told["failed"]) == (10, 10)
