"""This file tests that steps share a machine: what does not fit waits, what never fits is refused (2.16, 2.02)."""

from __future__ import annotations

import threading

import pytest

from branchline.core.spec import Step
from branchline.engine.budgeting import Budget, machine
from branchline.errors import DoesNotFit
from tests.waiting import wait_until


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Step("train", cores=3), "asks for 3 cores, and there are 2 here"),
        (Step("train", memory=2000), "asks for 2000 bytes of memory, and there are 1000 here"),
        (Step("train", gpus=2), "asks for 2 GPUs, and there are 1 here"),
    ],
)
def test_what_never_fits_is_refused_before_anything_runs(step: Step, told: str) -> None:
    with pytest.raises(DoesNotFit) as caught:
        Budget(2, 1000, (0,)).holds(step)
    assert caught.value.message == f"Step train {told}"
    Budget(3, 2000, (0, 1)).holds(step)


@pytest.mark.parametrize("other", [Step("b", cores=2), Step("b", memory=600), Step("b", gpus=1)])
def test_what_does_not_fit_beside_another_waits(other: Step) -> None:
    """Killer: give without asking whether it fits, and both run at once."""
    budget, entered = Budget(2, 1000, (7,)), threading.Event()

    def second() -> None:
        with budget.given(other, never):
            entered.set()

    with budget.given(Step("a", memory=600, gpus=1), never) as share:
        assert share.gpus == (7,)
        waiting = threading.Thread(target=second)
        waiting.start()
        assert not entered.wait(0.3)
    waiting.join(60)
    assert entered.is_set()


def test_what_fits_runs_beside_it_and_has_other_gpus() -> None:
    budget = Budget(2, 1000, (3, 5))
    with budget.given(Step("a", gpus=1), never) as one, budget.given(Step("b", gpus=1), never) as other:
        assert {*one.gpus, *other.gpus} == {3, 5}


def test_steps_that_run_at_once_have_other_processors() -> None:
    """Killer: give each the first one, and two steps take twice as long beside a processor that does nothing."""
    budget = Budget(3, 1000, cpus=(4, 5, 6))
    with budget.given(Step("a", cores=1.5), never) as one, budget.given(Step("b"), never) as other:
        assert (one.cpus, other.cpus) == ((4, 5), (6,))
        with budget.given(Step("c", cores=0.5), never) as third:
            assert third.cpus == (4,)


def test_who_is_stopped_waits_no_longer() -> None:
    budget, stopped = Budget(1, 1000), threading.Event()
    ended: list[bool] = []

    def second() -> None:
        with budget.given(Step("b"), stopped.is_set):
            ended.append(True)

    with budget.given(Step("a"), never):
        waiting = threading.Thread(target=second)
        waiting.start()
        stopped.set()
        wait_until(lambda: bool(ended))
    waiting.join(60)


def test_a_machine_has_cores_and_memory() -> None:
    found = machine()
    assert found.cores == len(found.cpus) >= 1
    assert found.memory > 1 << 26
