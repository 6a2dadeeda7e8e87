"""This file reads a real gateway's log while it is rotated, cut and killed: exactly once, losses told (1.38, I10)."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.adapters.envoy_files import rotated
from branchline.adapters.envoy_meter import LARGEST_OWN, GatewayLog, fields
from branchline.ports import Served
from tests.gateways import Gateway, gateway
from tests.waiting import wait_until

A = "a" * 40


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        made.serve((made.backyard.add(A, "1.0.0"), 100))
        yield made


def drain(log: GatewayLog, position: str, count: int, kept: list[Served]) -> str:
    """Read, and keep with the position, until so many are kept."""

    def enough() -> bool:
        nonlocal position
        more, position = log.read(position, 97)
        kept.extend(more)
        return len(kept) >= count

    assert wait_until(enough)
    return position


def test_exactly_once_across_rotation_and_a_killed_reader(real: Gateway) -> None:
    """Each batch is kept together with its position; a reader that dies between reading and keeping reads it again."""
    kept: list[Served] = []
    position, chance = "", random.Random(7)
    for turn in range(6):
        real.units(60, start=turn * 60)
        for _ in range(10):
            log = GatewayLog(real.writer.envoy, rotate_bytes=1)  # a new reader each time, as after a kill
            more, after = log.read(position, chance.randrange(1, 40))
            if chance.random() < 0.5:
                kept.extend(more)
                position = after
        assert wait_until(functools.partial(log.rotate, position))
    position = drain(GatewayLog(real.writer.envoy), position, 360, kept)
    assert sorted(served.unit for served in kept) == sorted(f"user-{n}" for n in range(360))
    assert len({served.request for served in kept}) == 360
    assert GatewayLog(real.writer.envoy).read(position)[0] == ()


def an_hour_ahead(folder: Path) -> None:
    """Let everything that lies there be from a time when the clock was an hour ahead, and three requests be lost."""
    for path in folder.glob("access*.log"):
        lines = [fields(line) for line in path.read_bytes().splitlines()]
        ahead = [{**each, "at": float(each["at"]) + 3600, "boot": later(each["boot"])} for each in lines]
        path.write_text("".join(json.dumps(each) + "\n" for each in ahead))
    started = json.loads((folder / "envoy.json").read_text())
    (folder / "envoy.json").write_text(json.dumps({**started, "boot": later(started["boot"])}))
    counted = json.loads((folder / "counted.json").read_text())
    (folder / "counted.json").write_text(json.dumps({later(boot): count + 3 for boot, count in counted.items()}))


def later(boot: str) -> str:
    return f"{int(boot) + 3_600_000:013d}"


def test_a_clock_that_is_set_back_loses_no_line(real: Gateway) -> None:
    """F56: an hour back, a rotation and a restart in between. Killer: order logs, or starts, by when they began."""
    log, kept = GatewayLog(real.writer.envoy, rotate_bytes=1), list[Served]()
    real.units(20)
    assert wait_until(lambda: len(log.read("")[0]) == 20)
    log.sample()
    assert log.rotate("")
    real.units(20, start=20)
    assert wait_until(lambda: log.sample() == 40 and len(log.read("")[0]) == 40)
    real.writer.stop()
    an_hour_ahead(real.folder)
    more, position = log.read("", 7)
    kept.extend(more)
    real.writer.ensure()
    real.units(20, start=40)
    position = drain(log, position, 60, kept)
    assert log.rotate(position)
    real.units(20, start=60)
    position = drain(log, position, 80, kept)
    assert sorted(served.unit for served in kept) == sorted(f"user-{n}" for n in range(80))
    assert (log.loss(), log.read(position)) == (3, ((), position))
    os.kill(real.writer.envoy.pid, signal.SIGKILL)  # and what is lost from here on is still counted
    assert wait_until(lambda: not real.writer.envoy.pid)
    boot = real.writer.envoy.boot
    counted = json.loads((real.folder / "counted.json").read_text())
    (real.folder / "counted.json").write_text(json.dumps({**counted, boot: 45}))
    real.writer.ensure()
    real.units(1, start=80)
    drain(log, position, 81, kept)
    assert log.loss() == 3 + 5, "45 were counted of that start, 40 stand in the log"


def test_a_position_that_named_its_log_by_a_time_is_read_once_more(real: Gateway) -> None:
    """What an older version kept, before a log had a number: nothing is read twice."""
    log = GatewayLog(real.writer.envoy, rotate_bytes=1)
    real.units(10)
    assert wait_until(lambda: len(log.read("")[0]) == 10)
    assert log.rotate("")
    _, position = log.read("", 4)
    name, rest = position.split(":", 1)
    old = f"1764000000.123456-{name.partition('-')[2]}:{rest}"
    real.units(5, start=10)
    assert wait_until(lambda: len(log.read(old)[0]) == 11)
    assert log.read(old) == log.read(position)


def test_lines_that_an_older_version_wrote_are_read_as_they_are(real: Gateway) -> None:
    """One value for each name, a status as a number, `-` for no flags; newer ones follow in the same file."""
    real.units(3)
    before = real.logged(3)
    (real.folder / "access.log").write_text("".join(json.dumps(older(each)) + "\n" for each in lines(real)))
    assert real.logged(3) == before
    real.units(2, start=3)
    assert [served.unit for served in real.logged(5)] == [f"user-{number}" for number in range(5)]


def lines(real: Gateway) -> list[dict[str, str]]:
    return [fields(line) for line in (real.folder / "access.log").read_bytes().splitlines()]


def older(line: dict[str, str]) -> dict[str, object]:
    numbers = {name: int(line[name]) for name in ("status", "us")}
    return {"flags": "-", "grpc": None, **line, **numbers}


def test_a_number_is_never_given_to_two_logs(real: Gateway) -> None:
    """Killer: number them by those that are there."""
    log, kept = GatewayLog(real.writer.envoy, rotate_bytes=1), list[Served]()
    position = ""
    for turn in range(3):
        real.units(5, start=turn * 5)
        position = drain(log, position, turn * 5 + 5, kept)
        assert log.rotate(position)
    for path in real.folder.glob("access.0*.log"):
        path.unlink()
    for turn in range(3, 6):
        real.units(5, start=turn * 5)
        assert wait_until(lambda: log.rotate(""))
    drain(log, position, 30, kept)
    assert [served.unit for served in kept] == [f"user-{n}" for n in range(30)]


def test_a_full_disk_under_the_log_is_counted_and_requests_go_on(real: Gateway) -> None:
    """Bad input: a full disk under the access log. Killer: believe what Envoy was given to write."""
    log = GatewayLog(real.writer.envoy, rotate_bytes=1)
    real.units(10)
    assert wait_until(lambda: len(log.read("")[0]) == 10)
    assert log.rotate("")
    assert wait_until((real.folder / "access.log").exists)
    (real.folder / "access.log").unlink()
    (real.folder / "access.log").symlink_to("/dev/full")
    real.writer.envoy.ask("/reopen_logs", "POST")
    assert {answer.status for answer in real.units(7, start=10).values()} == {200}

    def told() -> int:
        log.sample()
        log.read("")
        return log.dropped()

    assert wait_until(lambda: told() == 7)
    (real.folder / "access.log").unlink()
    real.writer.envoy.ask("/reopen_logs", "POST")
    real.units(3, start=17)
    assert wait_until(lambda: len(log.read("")[0]) == 13)
    assert told() == 7
    assert wait_until(lambda: log.sample() == 20)
    real.writer.stop()
    real.writer.ensure()
    real.units(1, start=20)
    assert wait_until(lambda: len(log.read("")[0]) == 14)
    assert (told(), log.loss()) == (0, 7)


def test_a_log_that_nobody_rotates_has_an_end_and_what_comes_then_is_counted(real: Gateway) -> None:
    """Issue 6, 7: disk use is bounded without the daemon, and each request is in the ledger once, or counted as lost.

    Killer: let it grow until somebody is back.
    """
    real.writer.stop()
    real.writer.envoy.largest_log = 50_000
    real.writer.ensure()
    real.settled()
    active = real.folder / "access.log"
    sent = 0

    def full() -> bool:
        nonlocal sent
        assert {answer.status for answer in real.units(50, start=sent).values()} == {200}
        sent += 50
        return active.stat().st_size == 50_000 and sent > 300

    assert wait_until(full)
    log, kept = GatewayLog(real.writer.envoy, rotate_bytes=40_000), list[Served]()  # the daemon is back

    def told() -> int:
        log.sample()
        log.read("")
        return log.dropped()

    whole = len(active.read_bytes().splitlines()) - 1  # the last is cut
    assert wait_until(lambda: told() == sent - whole)
    position = drain(log, "", whole, kept)
    assert log.rotate(position)
    real.units(20, start=sent)
    position = drain(log, position, whole + 20, kept)
    assert wait_until(lambda: log.sample() == sent + 20)
    real.writer.stop()
    real.writer.ensure()
    real.units(1, start=sent + 20)
    drain(log, position, whole + 21, kept)
    assert log.loss() + len(kept) == sent + 21
    assert len({served.unit for served in kept}) == len(kept)


def test_logs_that_nobody_reads_are_not_rotated_for_ever(real: Gateway) -> None:
    """The same while a daemon lives whose reader hangs: what is full stays, and Envoy drops. Killer: rotate anyway."""
    real.writer.envoy.largest_log = 8_000
    log, sent = GatewayLog(real.writer.envoy, rotate_bytes=1), 0
    for _ in range(8):
        real.units(10, start=sent)
        sent += 10
        assert wait_until(lambda: sum(len(path.read_bytes().splitlines()) for path in logs(real)) == sent)  # noqa: B023
        log.rotate("")
    assert 8_000 < sum(path.stat().st_size for path in logs(real)[:-1]) < 16_000
    position = drain(log, "", sent, [])
    assert log.rotate(position), "it is read, and goes on"


def logs(real: Gateway) -> list[Path]:
    return [*rotated(real.folder), *real.folder.glob("access.log")]


def test_old_logs_are_deleted_only_when_read(real: Gateway) -> None:
    log = GatewayLog(real.writer.envoy, rotate_bytes=1)
    kept: list[Served] = []
    for turn in range(6):
        real.units(5, start=turn * 5)
        assert wait_until(lambda: log.rotate(""))
    assert len(list(real.folder.glob("access.0*.log"))) == 6, "nothing was read yet"
    position = drain(log, "", 30, kept)
    real.units(5, start=30)
    position = drain(log, position, 35, kept)
    assert wait_until(lambda: log.rotate(position))
    assert len(list(real.folder.glob("access.0*.log"))) == 4, "three that were read, and the newest"
    assert sorted(s.unit for s in kept) == sorted(f"user-{n}" for n in range(35))


def test_a_position_whose_file_is_gone_reads_nothing_twice(real: Gateway) -> None:
    log, kept = GatewayLog(real.writer.envoy, rotate_bytes=1), list[Served]()
    positions = [""]
    for turn in range(3):
        real.units(5, start=turn * 5)
        positions.append(drain(log, positions[-1], 5 * turn + 5, kept))
        assert log.rotate(positions[-1])
    real.units(5, start=15)
    assert wait_until(lambda: len(log.read("")[0]) == 20)
    (real.folder / "access.000002.log").unlink()
    assert [served.unit for served in log.read(positions[2])[0]] == [f"user-{n}" for n in range(10, 20)]


def test_a_line_that_a_kill_cut_is_not_read(real: Gateway) -> None:
    real.units(3)
    log = GatewayLog(real.writer.envoy)
    assert wait_until(lambda: len(log.read("")[0]) == 3)
    real.writer.stop()
    with (real.folder / "access.log").open("a") as file:
        file.write('{"route":"split/hou')
    before, position = log.read("")
    assert len(before) == 3
    real.writer.ensure()
    real.units(2, start=3)
    assert wait_until(lambda: len(log.read(position)[0]) == 2)
    assert [served.unit for served in log.read("")[0]] == [f"user-{n}" for n in range(5)]


def test_what_a_killed_gateway_did_not_write_is_counted(real: Gateway) -> None:
    """Its counters minus the lines, and the numbers are in the position: they survive the reader."""
    real.units(5)
    log = GatewayLog(real.writer.envoy)
    assert wait_until(lambda: len(log.read("")[0]) == 5)
    real.units(40, start=5)
    assert wait_until(lambda: log.sample() == 45)
    os.kill(real.writer.envoy.pid, signal.SIGKILL)
    assert wait_until(lambda: not real.writer.envoy.pid)
    real.writer.ensure()
    log.sample()
    real.units(3, start=100)
    assert wait_until(lambda: log.read("")[0][-1].unit == "user-102")
    served, position = log.read("")
    assert log.loss() == 48 - len(served)
    again = GatewayLog(real.writer.envoy)
    assert again.read(position)[0] == ()
    assert again.loss() == log.loss()


def test_what_envoy_itself_has_to_say_does_not_grow_for_ever(real: Gateway) -> None:
    """Disk use is bounded. Killer: never cut it."""
    own = real.folder / "envoy.log"
    with own.open("a") as file:
        file.write("an old line\n" * (LARGEST_OWN // 10))
    GatewayLog(real.writer.envoy).rotate("")
    assert own.stat().st_size == 0
    assert (real.folder / "envoy.old.log").stat().st_size > LARGEST_OWN
    fresh = real.folder / "lds.json.new"
    fresh.write_text('{"version_info":"x","resources":[{"@type":"nonsense"}]}')
    fresh.replace(real.folder / "lds.json")
    assert wait_until(lambda: "nonsense" in real.writer.envoy.reason(9)), "it goes on writing where people look"
    assert not own.read_bytes().startswith(b"\0")


def test_a_stopped_gateway_loses_nothing(real: Gateway) -> None:
    real.units(20)
    log = GatewayLog(real.writer.envoy)
    log.sample()
    real.writer.stop()
    real.writer.ensure()
    real.units(1, start=20)
    assert wait_until(lambda: len(log.read("")[0]) == 21)
    assert log.loss() == 0


def test_pins_are_logged_and_are_no_exposures(real: Gateway) -> None:
    real.ask("/housing@1.0.0/", x_branchline_unit="me")
    real.ask("/nowhere/")
    real.ask("/housing/", x_branchline_unit="me")
    log = GatewayLog(real.writer.envoy)
    assert wait_until(lambda: len((real.folder / "access.log").read_text().splitlines()) == 3)
    assert len(log.read("")[0]) == 1


def test_a_client_that_leaves_is_an_exposure_and_no_bad_request(real: Gateway) -> None:
    upstream = real.backyard.add("b" * 40, "1.1.0", delay=30.0)
    one = real.backyard.add(A, "1.0.0", delay=30.0)
    real.serve((one, 50), (upstream, 50))
    port = int(real.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /housing/ HTTP/1.1\r\nhost: x\r\nx-branchline-unit: me\r\n\r\n")
        assert wait_until(lambda: one.requests + upstream.requests == 1)
    (served,) = real.logged(1)
    assert (served.status, served.flags, served.bad, served.unit) == (0, "DC", False, "me")


def test_a_hostile_unit_stays_one_line(real: Gateway) -> None:
    unit = 'x","assigned":"forged\\u000a\\'
    real.serve((real.backyard.add(A, "1.0.0"), 50), (real.backyard.add("b" * 40, "1.1.0"), 50))
    real.ask(x_branchline_unit=unit.replace(",", ";"))
    (served,) = real.logged(1)
    assert served.unit == unit.replace(",", ";")
    for line in (real.folder / "access.log").read_text().splitlines():
        json.loads(line)
