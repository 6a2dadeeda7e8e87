"""This file tests builds at one time: one key is run once, who waits can be stopped, what has ended is recorded.

Requirements: 1.17; F24 (the daemon goes in the middle of a build), F28 (two builds of one key).
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from branchline.engine import building
from branchline.engine.building import build
from branchline.engine.preparing import prepare, spec_at
from branchline.errors import StepFailed
from branchline.ports import Finished, Task
from tests.builds import built, commit, rendered, states, with_dag
from tests.waiting import wait_until
from tests.world import World


@pytest.fixture
def dag(world: World) -> World:
    return with_dag(world)


def test_two_builds_of_one_key_run_it_once_F28(dag: World) -> None:
    """Killer: let both run, and it is called twice."""
    entered, leave, calls = threading.Event(), threading.Event(), []

    def slow(order: dict[str, Any]) -> str:
        calls.append(order)
        entered.set()
        leave.wait(60)
        return "once"

    dag.runner.calls["steps:clean"] = slow
    tip = commit(dag)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(built, dag, tip)
        assert entered.wait(60)
        other = pool.submit(built, dag, tip)
        assert wait_until(lambda: sum(building._under_way.values()) > 0)
        leave.set()
        found = [states(each.result(60))["clean"] for each in (one, other)]
    assert (sorted(found), len(calls)) == (["ran", "reused"], 1)


def test_what_has_ended_is_recorded_while_a_step_runs_for_hours_F24(dag: World) -> None:
    """Killer: record with the next step that ends, and a daemon that is killed meanwhile has lost all before it."""
    tip = commit(dag)

    def slow(task: Task) -> Finished:
        assert wait_until(lambda: {"clean", "train"} <= {run.step for run in dag.catalog.run("housing", tip)})
        return rendered(task)

    dag.runner.commands["render"] = slow
    assert set(states(built(dag, tip)).values()) == {"ran"}


def test_who_waits_for_a_build_of_the_same_key_can_be_stopped(dag: World) -> None:
    """Killer: wait for the other's end whatever happens."""
    entered, leave, stopped = threading.Event(), threading.Event(), threading.Event()

    def slow(order: dict[str, Any]) -> str:
        entered.set()
        leave.wait(60)
        return "once"

    dag.runner.calls["steps:clean"] = slow
    tip = commit(dag)
    prepared = prepare(dag.ports, spec_at(dag.ports, "housing", tip), tip)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(built, dag, tip)
        assert entered.wait(60)
        other = pool.submit(build, dag.ports, prepared, dag.controller.progress, "other", stopped.is_set)
        assert wait_until(lambda: sum(building._under_way.values()) > 0)
        stopped.set()
        assert isinstance(other.exception(60), StepFailed)
        leave.set()
        assert states(one.result(60))["clean"] == "ran"
