"""This file tests the whole way of a worn group: real processes behind a real gateway, under load, and the engine's own
reconciler between them (I8, F67).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.adapters.processes import ProcessLauncher
from branchline.ports import Instance, Stamp
from tests.family import has_ended
from tests.gateways import Gateway, gateway
from tests.servers import SERVER
from tests.waiting import wait_until
from tests.world import MODEL, World

COMMAND = json.dumps([sys.executable, "-c", SERVER, "well"])
THREE = MODEL.replace('predict = "serving:predict"', f'command = {COMMAND}, drain = "1s", instances = 3')


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path / "gateway", runtime_dir) as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, runtime_dir: Path, real: Gateway) -> Iterator[World]:
    """A world whose processes and gateway are real, and whose impatience is a test's."""
    made = World(tmp_path / "state")
    launcher = ProcessLauncher(tmp_path / "state", runtime_dir, probe_seconds=1.0, silence=4.0)
    made.ports = replace(made.ports, launcher=launcher, router=real.writer)
    made.restart()
    yield made
    for instance in launcher.instances():
        for pid in instance.pids:
            if not has_ended(pid):
                os.kill(pid, signal.SIGCONT)
        launcher.stop(instance.nonce, Stamp(99, 99))


def serving(world: World) -> list[Instance]:
    """What is ready in production after one more round, and a moment, of the engine."""
    world.settle()
    world.clock.advance(1)
    return [i for i in world.ports.launcher.instances() if i.state == "ready" and i.perimeter == "production"]


def well(real: Gateway) -> int:
    """How many processes the gateway asks, of all that serve."""
    return sum(count for name, count in real.writer.envoy.healthy().items() if "@" in name)


def test_of_three_one_is_killed_and_one_frozen_and_the_third_answers_until_there_are_three_again_I8(
    world: World, real: Gateway
) -> None:
    """What is left is stopped only then: no request fails, but for those that the two had taken."""
    world.push(toml=THREE)
    assert wait_until(lambda: bool(serving(world)) and bool(real.writer.shown("housing")))
    (old,) = serving(world)
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            statuses.append(real.ask().status)

    os.kill(old.pids[1], signal.SIGKILL)
    os.kill(old.pids[3], signal.SIGSTOP)
    assert wait_until(lambda: well(real) == 1)  # the gateway has left them out
    client = threading.Thread(target=load)
    client.start()
    try:
        assert wait_until(lambda: [i.nonce for i in serving(world)][:1] not in ([], [old.nonce]))
    finally:
        stop.set()
        client.join()
    (new,) = serving(world)
    assert (new.lost, len(new.sockets)) == (0, 3)
    assert len(statuses) > 20
    assert set(statuses) == {200}
    assert world.troubles() == []
