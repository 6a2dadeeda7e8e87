"""This file spoils every file of the gateway's folder, while it runs and before it starts (F64, F71, 3.19).

Nobody's request fails, nobody is moved, and the next look of the daemon puts it right.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from branchline.adapters.envoy_meter import GatewayLog
from branchline.adapters.envoy_wire import version_of
from branchline.errors import Fenced
from branchline.ports import Stamp
from tests.gateways import Gateway, gateway
from tests.waiting import wait_until

pytestmark = pytest.mark.slow  # a gateway of its own for each
A, B, C = "a" * 40, "b" * 40, "c" * 40
FILES = (
    "table.json", "table.copy.json", "journal.jsonl", "journal.copy.jsonl", "envoy.json", "lds.json", "cds.json",
    "rds.pb", "bootstrap.json", "counted.json", "access.number", "reserve",
)  # fmt: skip
MENDED = {"table.json", "table.copy.json", "envoy.json", "lds.json", "cds.json", "rds.pb", "bootstrap.json"}


def put(path: Path, content: bytes) -> None:
    """Write over a file as it lies there."""
    path.write_bytes(content)


def swapped(path: Path) -> None:
    """Lay another file of the folder in its place, whole."""
    other = FILES[(FILES.index(path.name) + 3) % len(FILES)]
    fresh = path.with_name("swapped")
    fresh.write_bytes((path.parent / other).read_bytes())
    fresh.replace(path)


SPOILT: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "truncated": lambda path: put(path, path.read_bytes()[: path.stat().st_size // 2]),
    "swapped": swapped,
    "empty": lambda path: put(path, b""),
}


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        one, other = made.backyard.add(A, "1.0.0"), made.backyard.add(B, "1.1.0")
        made.serve((one, 50), (other, 50))
        made.serve((made.backyard.add(C, "1.0.0"), 100), service="other")  # the listener is older than the rest
        GatewayLog(made.writer.envoy).sample()
        for name in FILES:
            (made.folder / name).touch()
        made.writer.ensure()
        yield made


def served(real: Gateway) -> dict[str, str]:
    """Who serves whom; nobody's request failed."""
    found = real.units(30)
    assert {answer.status for answer in found.values()} == {200}
    return {unit: answer.revision for unit, answer in found.items()}


def sound(real: Gateway) -> dict[str, bytes]:
    """What lies in the files that say what is served, without which version of it that is."""
    found = {name: (real.folder / name).read_bytes() for name in MENDED}
    versions = {name: json.loads(found[name])["version_info"] for name in ("lds.json", "cds.json")}
    versions["rds.pb"] = version_of(found["rds.pb"])
    for name, version in versions.items():
        assert version
        found[name] = found[name].replace(version.encode(), b"", 1)
    return found


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_spoilt_while_it_runs_fails_nobody(real: Gateway, name: str, how: str) -> None:
    """Killer: know the process by its file alone, and each spoilt envoy.json starts the gateway anew."""
    before, files, pid = served(real), sound(real), real.writer.envoy.pid
    SPOILT[how](real.folder / name)
    assert served(real) == before
    assert not real.writer.ensure()
    assert served(real) == before
    assert (real.writer.envoy.pid, sound(real)) == (pid, files)
    again = real.another()  # and a daemon that starts then, which remembers nothing
    assert not again.ensure()
    assert again.survey().edited == ()
    log = GatewayLog(again.envoy)
    assert log.sample() > 0
    assert wait_until(lambda: len(log.read("")[0]) == 90)
    again.shift("housing", 1, [(A, 100)], Stamp(9, 1))
    assert set(served(real).values()) == {A}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", SPOILT)
def test_a_file_that_is_spoilt_before_a_start_moves_nobody(real: Gateway, name: str, how: str) -> None:
    before = served(real)
    real.writer.stop()
    files = sound(real)
    SPOILT[how](real.folder / name)
    real.writer = real.another()
    assert real.writer.ensure()
    real.settled()
    assert served(real) == before
    del files["envoy.json"]
    assert sound(real).items() >= files.items()


@pytest.mark.parametrize("name", ["journal.jsonl", "journal.copy.jsonl"])
@pytest.mark.parametrize("how", SPOILT)
def test_a_journal_that_is_spoilt_forgets_no_rollback(real: Gateway, name: str, how: str) -> None:
    """1.52. Killer: keep it once."""
    real.another().roll_back("housing", actor="alex", because="why", at=5.0)
    SPOILT[how](real.folder / name)
    daemon = real.another()
    with pytest.raises(Fenced):
        daemon.shift("housing", 1, [(A, 50), (B, 50)], Stamp(1, 1))
    (entry,) = daemon.offline()
    assert (entry["because"], entry["after"]) == ("why", [[A, 100]])
    daemon.tell("housing", Stamp(2, 1))
    assert real.another().offline() == ()


@pytest.mark.parametrize("how", ["deleted", "truncated", "empty"])
def test_a_log_that_is_spoilt_is_gone_on_with(real: Gateway, how: str) -> None:
    """What was taken away with it is dropped, and counted where the file is gone."""
    log = GatewayLog(real.writer.envoy)
    served(real)
    assert wait_until(lambda: len(log.read("")[0]) == 30)
    _, position = log.read("")
    SPOILT[how](real.folder / "access.log")
    if how == "deleted":
        real.units(5, start=30)
        assert wait_until(lambda: (log.sample(), log.read(position), log.dropped())[2] == 5)
        assert wait_until(lambda: not log.rotate(position) and bool(real.units(1)) and access(real).exists())
    _, position = log.read(position)
    real.units(20, start=100)
    last = {f"user-{number}" for number in range(101, 120)}
    assert wait_until(lambda: last <= {each.unit for each in log.read(position)[0]})
    assert os.path.getsize(access(real)) > 0


def access(real: Gateway) -> Path:
    """The log that is being written."""
    return real.folder / "access.log"
