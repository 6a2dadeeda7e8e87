"""This file says what every Launcher does: the fake and real processes (3.15, I2, F52, F73)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from branchline.adapters.processes import ProcessLauncher
from branchline.core.spec import Limits
from branchline.errors import Fenced
from branchline.ports import Group, Instance, Launcher, Stamp
from tests.fakes.launcher import FakeLauncher
from tests.servers import SERVER
from tests.waiting import wait_until

NOW = Stamp(5, 1)


@dataclass
class House:
    """A launcher, and groups that behave as their revision is called: well, dies, hangs, late."""

    launcher: Launcher
    folder: Path
    behaviours: tuple[str, ...] = ("well", "dies", "hangs", "late")
    begun: list[Instance] = field(default_factory=list)

    def group(self, behaviour: str = "well", perimeter: str = "production", instances: int = 1) -> Group:
        return Group(
            service="housing",
            revision=behaviour,
            version="1.0.0",
            perimeter=perimeter,
            argv=(sys.executable, "-c", SERVER, {"late": "hangs"}.get(behaviour, behaviour)),
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
            health="/-/health",
            start_seconds=0.5 if behaviour == "late" else 60,
            drain_seconds=2,
            instances=instances,
        )

    def launch(
        self, behaviour: str = "well", stamp: Stamp = NOW, perimeter: str = "production", n: int = 1
    ) -> Instance:
        self.begun.append(self.launcher.launch(self.group(behaviour, perimeter, n), stamp))
        return self.begun[-1]

    def now(self, nonce: str) -> Instance:
        return next(instance for instance in self.launcher.instances() if instance.nonce == nonce)

    def becomes(self, nonce: str, state: str) -> bool:
        return wait_until(lambda: self.now(nonce).state == state)

    def lose(self, nonce: str) -> None:
        """Kill the first of an incarnation's processes that still runs."""
        if isinstance(self.launcher, FakeLauncher):
            self.launcher.lose(nonce)
        else:
            os.kill(self.now(nonce).pids[1], signal.SIGKILL)


@pytest.fixture(params=["fake", "processes"])
def house(request: pytest.FixtureRequest, tmp_path: Path, runtime_dir: Path) -> Iterator[House]:
    fake = FakeLauncher()
    fake.behave = {word: word for word in House.behaviours}
    made = House(fake if request.param == "fake" else ProcessLauncher(tmp_path / "state", runtime_dir), tmp_path)
    yield made
    for instance in made.launcher.instances():
        made.launcher.stop(instance.nonce, Stamp(99, 99))


def test_a_group_that_answers_becomes_ready(house: House) -> None:
    begun = house.launch()
    assert begun.state in ("starting", "ready")
    assert house.becomes(begun.nonce, "ready")
    ready = house.now(begun.nonce)
    assert (ready.service, ready.revision, ready.version, ready.perimeter) == ("housing", "well", "1.0.0", "production")
    assert (ready.health, ready.nonce_aware, ready.tail) == ("/-/health", True, "")
    assert ready.pids
    assert len(ready.sockets) == 1


def test_every_socket_is_of_this_incarnation_alone(house: House) -> None:
    """M16: a new incarnation is a new address; the name carries the nonce (F73)."""
    one = house.launch(n=2)
    assert house.becomes(one.nonce, "ready")
    house.launcher.stop(one.nonce, NOW)
    two = house.launch(n=2)
    assert len({*one.sockets, *two.sockets}) == 4
    for instance in (one, two):
        assert all(instance.nonce in Path(socket).name for socket in instance.sockets)


def test_launching_again_starts_nothing(house: House) -> None:
    one = house.launch()
    assert house.launch().nonce == one.nonce
    assert house.becomes(one.nonce, "ready")
    assert house.launch().nonce == one.nonce
    assert len(house.launcher.instances()) == 1


def test_two_launches_at_once_begin_one_incarnation(house: House) -> None:
    threads = [threading.Thread(target=house.launch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({instance.nonce for instance in house.begun}) == 1


def test_staging_and_production_are_different_groups(house: House) -> None:
    assert house.launch().nonce != house.launch(perimeter="staging").nonce


def test_who_does_not_become_ready_in_time_has_failed_for_good(house: House) -> None:
    begun = house.launch("late")
    assert house.becomes(begun.nonce, "failed")
    assert "not ready after" in house.now(begun.nonce).tail


def test_who_ends_has_failed_and_its_last_lines_are_there(house: House) -> None:
    begun = house.launch("dies")
    assert house.becomes(begun.nonce, "failed")
    failed = house.now(begun.nonce)
    assert "ended by itself with exit" in failed.tail
    assert house.launcher.log(begun.nonce).splitlines()[-1] in failed.tail


def test_after_a_failure_a_launch_begins_anew(house: House) -> None:
    one = house.launch("dies")
    assert house.becomes(one.nonce, "failed")
    assert house.launch("dies").nonce != one.nonce


def test_who_is_starting_is_left_to_start(house: House) -> None:
    begun = house.launch("hangs")
    assert house.now(begun.nonce).state == "starting"
    assert house.launch("hangs").nonce == begun.nonce


def test_a_stopped_incarnation_is_gone_and_may_be_stopped_again(house: House) -> None:
    begun = house.launch()
    assert house.becomes(begun.nonce, "ready")
    for _ in range(2):
        house.launcher.stop(begun.nonce, NOW)
        stopped = house.now(begun.nonce)
        assert (stopped.state, stopped.pids) == ("stopped", ())
    house.launcher.stop("0" * 16, NOW)


def test_what_was_planned_before_a_newer_decision_is_refused(house: House) -> None:
    """I2, F52: told on recording, checked at every effect."""
    begun = house.launch(stamp=Stamp(3, 1))
    house.launcher.tell("housing", Stamp(4, 1))
    house.launcher.tell("housing", Stamp(2, 7))
    with pytest.raises(Fenced):
        house.launcher.launch(house.group("well", "staging"), Stamp(3, 9))
    with pytest.raises(Fenced):
        house.launcher.stop(begun.nonce, Stamp(4, 0))
    house.launcher.stop(begun.nonce, Stamp(4, 1))


def test_a_decision_about_one_service_fences_no_other(house: House) -> None:
    house.launcher.tell("listings", Stamp(9, 9))
    begun = house.launch(stamp=Stamp(1, 1))
    assert begun.nonce in [each.nonce for each in house.launcher.instances("housing")]


def test_the_log_is_what_was_printed_last(house: House) -> None:
    begun = house.launch()
    assert house.becomes(begun.nonce, "ready")
    assert wait_until(lambda: "starts" in house.launcher.log(begun.nonce))  # it comes by way of its supervisor
    assert len(house.launcher.log(begun.nonce, 1).splitlines()) == 1
    assert house.launcher.log("0" * 16) == ""


def test_one_service_is_asked_for_alone_and_its_mark_is_remembered(house: House) -> None:
    begun = house.launch()
    assert [each.nonce for each in house.launcher.instances("housing")] == [begun.nonce]
    assert house.launcher.instances("listings") == ()
    house.launcher.tell("housing", Stamp(7, 2))
    house.launcher.tell("listings", Stamp(1, 2))
    assert dict(house.launcher.told()) == {"housing": Stamp(7, 2), "listings": Stamp(1, 2)}


def test_who_was_launched_is_no_stray(house: House) -> None:
    begun = house.launch(n=2)
    assert house.becomes(begun.nonce, "ready")
    assert house.launcher.strays() == ()


def test_one_dead_process_of_three_is_lost_and_the_others_serve_on_I8(house: House) -> None:
    begun = house.launch(n=3)
    assert house.becomes(begun.nonce, "ready")
    whole = house.now(begun.nonce)
    house.lose(begun.nonce)
    assert wait_until(lambda: house.now(begun.nonce).lost == 1)
    worn = house.now(begun.nonce)
    assert (worn.state, worn.pids, worn.sockets) == ("ready", whole.pids[2:], whole.sockets)
    assert "it ended by itself with exit 137" in worn.tail.splitlines()[0]


def test_beside_one_that_has_lost_a_process_a_new_one_is_launched_once_I8(house: House) -> None:
    """It has addresses of its own, and the one before is touched by nobody but whoever stops it."""
    worn = house.launch(n=3)
    assert house.becomes(worn.nonce, "ready")
    house.lose(worn.nonce)
    assert wait_until(lambda: house.now(worn.nonce).lost == 1)
    new = house.launch(n=3)
    assert not {*new.sockets} & {*worn.sockets}
    assert house.launch(n=3).nonce == new.nonce
    assert house.becomes(new.nonce, "ready")
    assert house.launch(n=3).nonce == new.nonce
    assert [(each.nonce, each.state) for each in house.launcher.instances()] == [
        (worn.nonce, "ready"),
        (new.nonce, "ready"),
    ]


def test_beside_one_with_another_number_of_processes_a_new_one_is_launched_once(house: House) -> None:
    """1.20: how many there are is changed by a new set beside the old one, which serves on."""
    one = house.launch(n=1)
    assert house.becomes(one.nonce, "ready")
    two = house.launch(n=2)
    assert two.nonce != one.nonce
    assert house.becomes(two.nonce, "ready")
    assert house.launch(n=2).nonce == two.nonce
    assert (house.now(one.nonce).state, len(house.now(two.nonce).sockets)) == ("ready", 2)


def test_who_has_lost_all_its_processes_has_failed(house: House) -> None:
    begun = house.launch(n=2)
    assert house.becomes(begun.nonce, "ready")
    house.lose(begun.nonce)
    assert wait_until(lambda: house.now(begun.nonce).lost == 1)
    house.lose(begun.nonce)
    assert house.becomes(begun.nonce, "failed")
    assert (house.now(begun.nonce).lost, house.now(begun.nonce).pids) == (0, ())


def test_who_loses_a_process_while_it_starts_has_failed(house: House) -> None:
    begun = house.launch("hangs", n=2)
    assert house.now(begun.nonce).state == "starting"
    house.lose(begun.nonce)
    assert house.becomes(begun.nonce, "failed")


def test_who_has_limits_says_how_they_are_kept_1_21(house: House) -> None:
    limited = house.launcher.launch(replace(house.group(), limits=Limits(memory=10**9, files=99)), NOW)
    free = house.launcher.launch(house.group(perimeter="staging"), NOW)
    assert limited.level in ("v2", "v1", "limits")
    assert free.level == ""
    assert house.becomes(limited.nonce, "ready")
    assert house.now(limited.nonce).level == limited.level
