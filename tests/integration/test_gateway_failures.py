"""This file kills what stands behind, beside and under a real gateway, and asks what clients notice (F16, F63-F73)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from branchline.adapters.envoy import Envoy
from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.envoy_wire import version_of
from branchline.errors import DiskFull, EnvoyMissing, EnvoyRejected, Fenced, NotWarm, PortTaken, Unserved
from branchline.ports import Endpoint, Stamp
from tests.gateways import Gateway, gateway, nonsense
from tests.upstreams import Upstream
from tests.waiting import wait_until

A, B, C = "a" * 40, "b" * 40, "c" * 40
TWO = Stamp(2, 1)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def real(tmp_path: Path, runtime_dir: Path) -> Iterator[Gateway]:
    with gateway(tmp_path, runtime_dir) as made:
        yield made


@pytest.fixture
def pair(real: Gateway) -> tuple[Upstream, Upstream]:
    """An incumbent and a challenger with half of the traffic each."""
    one, other = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0")
    real.serve((one, 50), (other, 50))
    return one, other


def clusters(real: Gateway) -> set[str]:
    """Those of services that Envoy knows."""
    return {name for name in real.writer.envoy.healthy() if "@" in name}


# ------------------------------------------------------------------------------------------------ behind it


def test_a_dead_challenger_is_stepped_in_for_and_the_log_says_so(
    real: Gateway, pair: tuple[Upstream, Upstream]
) -> None:
    """M14: clients see 200; assigned and answered differ, which is a bad request of the arm."""
    pair[1].die()
    found = real.units(200)
    assert {answer.status for answer in found.values()} == {200}
    assert {answer.revision for answer in found.values()} == {A}
    log = {served.unit: served for served in real.logged(200)}
    hit = [served for served in log.values() if served.assigned == B]
    assert 60 < len(hit) < 140
    assert {(served.answered, served.bad) for served in hit} == {(A, True)}
    assert not any(served.bad for served in log.values() if served.assigned == A)
    assert real.ask("/housing@1.1.0/").status == 503, "a pin says honestly that its revision is gone"
    pair[1].live()
    assert wait_until(lambda: {a.revision for a in real.units(40).values()} == {A, B})


def test_the_incumbent_is_not_stepped_in_for(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F69: the challenger is what is under test; nobody is sent to it whom the split did not send."""
    pair[0].die()
    assert wait_until(lambda: 503 in {answer.status for answer in real.units(40).values()})
    answers = real.units(100)
    assert {answer.revision for answer in answers.values() if answer.status == 200} == {B}


def test_errors_of_a_challenger_are_not_hidden(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F68: that is the guardrail's business, and it needs to see them."""
    pair[1].status = 500
    statuses = {unit: answer.status for unit, answer in real.units(100).items()}
    log = {served.unit: served for served in real.logged(100)}
    assert {served.unit for served in log.values() if served.assigned == B} == {
        unit for unit, status in statuses.items() if status == 500
    }
    assert {served.bad for served in log.values() if served.assigned == B} == {True}


def test_a_stranger_on_the_socket_gets_nothing(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F73, M17: another incarnation's answer is not ours, neither at the start nor later."""
    stranger = real.backyard.add(C, "1.2.0", says="another")
    quick = real.another(warm_seconds=1.0)
    with pytest.raises(NotWarm):
        quick.offer("housing", [u.endpoint for u in (*pair, stranger)], TWO)
    own, arm = "housing@1.1.0~n002", "housing@1.1.0~n002!>housing@1.0.0~n001"
    assert clusters(real) == {"housing@1.0.0~n001", own, f"{own}!", arm}
    pair[1].says = "another"
    assert wait_until(lambda: {answer.revision for answer in real.units(40).values()} == {A})


def test_an_endpoint_that_never_answers_changes_nothing(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F65, M16."""
    before, known = real.writer.shown("housing"), clusters(real)
    gone = Endpoint(C, "1.2.0", "n999", (str(real.runtime / "n999.sock"),), health="/health")
    with pytest.raises(NotWarm):
        real.another(warm_seconds=1.0).offer("housing", [gone], TWO)
    assert (real.writer.shown("housing"), clusters(real)) == (before, known)
    assert real.ask(f"/housing@{C[:7]}/").status == 404


def test_nobody_waits_for_a_slow_start_of_another_service(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """A start that hangs must not hold up another's shift."""
    slow = real.backyard.add(C, "1.0.0")
    slow.die()
    late = real.another(warm_seconds=60.0)
    waiting = threading.Thread(target=late.offer, args=("other", [slow.endpoint], TWO))
    waiting.start()
    try:
        assert wait_until(lambda: f"other@1.0.0~{slow.nonce}" in clusters(real))
        real.writer.shift("housing", 1, [(A, 100)], TWO)
        assert waiting.is_alive()
        assert {answer.revision for answer in real.units(20).values()} == {A}
        assert real.ask(f"/other@{C[:7]}/").status == 404
    finally:
        slow.live()
        waiting.join()
    assert real.ask(f"/other@{C[:7]}/").revision == C


def test_a_new_incarnation_takes_over_without_a_failed_request(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            statuses.extend(answer.status for answer in real.units(20).values())

    client = threading.Thread(target=load)
    client.start()
    try:
        for number in range(5):
            again = [real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0")]
            real.writer.offer("housing", [u.endpoint for u in again], Stamp(2 + number, 1))
            real.writer.shift("housing", 1, [(A, 50 - number), (B, 50 + number)], Stamp(2 + number, 1))
        assert wait_until(lambda: len(statuses) > 20)
    finally:
        stop.set()
        client.join()
    assert set(statuses) == {200}
    real.settled()  # who is under test counts once it is known to be well
    assert len(clusters(real)) == 4, "two endpoints, one of them twice, and one arm: the old ones are gone"


def test_a_slow_request_outlives_its_arm(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    pair[1].delay = 1.0
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        answer = real.ask("/housing@1.1.0/")
        answers.append((answer.status, answer.revision))

    client = threading.Thread(target=ask)
    client.start()
    assert wait_until(lambda: pair[1].requests == 1)
    real.writer.shift("housing", 1, [(A, 100)], TWO)
    real.writer.offer("housing", [pair[0].endpoint], TWO)
    assert clusters(real) == {"housing@1.0.0~n001"}
    client.join()
    assert answers == [(200, B)]


# ------------------------------------------------------------------------------------------------ its documents


def test_a_rejected_document_leaves_the_last_good_one(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """M11, F64: and the next good change goes through, and so does a restart."""
    before = real.writer.shown("housing")
    bad = replace(pair[1].endpoint, nonce="n999", sockets=("/" + "x" * 200,))
    with pytest.raises(EnvoyRejected):
        real.writer.offer("housing", [pair[0].endpoint, bad], TWO)
    assert real.writer.shown("housing") == before
    assert {answer.revision for answer in real.units(40).values()} == {A, B}
    real.writer.stop()
    assert real.writer.ensure()
    real.writer.shift("housing", 1, [(A, 100)], TWO)
    assert {answer.revision for answer in real.units(40).values()} == {A}


def test_a_route_to_a_cluster_that_is_not_there_is_rejected(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """M11: by default Envoy takes it, and answers 503."""
    table = (real.folder / "rds.pb").read_bytes()
    (real.folder / "wrong").write_bytes(table.replace(b"housing@1.0.0~n001", b"nowhere@1.0.0~n001"))
    (real.folder / "wrong").replace(real.folder / "rds.pb")
    assert wait_until(lambda: real.writer.envoy.accepted("rds") == (version_of(table), 1))
    assert "nowhere" in real.writer.envoy.reason()


def refused_more_than(real: Gateway, count: int) -> bool:
    return real.writer.envoy.accepted("rds")[1] > count


def test_what_another_writer_was_refused_is_not_taken_for_ones_own(
    real: Gateway, pair: tuple[Upstream, Upstream]
) -> None:
    """A refusal is told by a count; who remembers an old count must notice that somebody else has written since."""
    real.writer.shift("housing", 1, [(A, 60), (B, 40)], Stamp(2, 1))
    for number in range(3):
        fresh = real.folder / "rds.pb.new"
        fresh.write_bytes(nonsense(f"x{number}"))
        fresh.replace(real.folder / "rds.pb")
        assert wait_until(partial(refused_more_than, real, number))
        real.writer.shift("housing", 1, [(A, 50 + number), (B, 50 - number)], Stamp(3 + number, 1))
        assert dict(real.writer.shown("housing")[1].shares) == {A: 50 + number, B: 50 - number}


@pytest.mark.parametrize("name", ["rds.pb", "cds.json"])
def test_a_document_somebody_overwrote_is_written_anew(
    real: Gateway, pair: tuple[Upstream, Upstream], name: str
) -> None:
    """F64: Envoy keeps the last good one; the next look mends the file."""
    good = (real.folder / name).read_bytes()
    (real.folder / "cut").write_bytes(good[:200])
    (real.folder / "cut").replace(real.folder / name)
    assert {answer.revision for answer in real.units(40).values()} == {A, B}
    real.writer.shown("housing")
    assert (real.folder / name).read_bytes()[200:] == good[200:]


def test_a_wiped_folder_comes_back_from_what_is_planned(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F71: also when Envoy still runs, deaf, with its folder gone from under it."""
    port = int(real.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])
    shutil.rmtree(real.folder)
    again = real.another(port=port)
    assert again.shown("housing") == {}
    real.writer = again
    real.serve(*((upstream, 50) for upstream in pair), stamp=TWO)
    assert {answer.revision for answer in real.units(40).values()} == {A, B}


def test_a_full_disk_is_met_by_the_reserve(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """An abort still works; the reserve is laid aside again when there is room."""
    assert (real.folder / "reserve").stat().st_size > 1 << 20
    for name in ("table.json", "rds.pb", "cds.json"):
        (real.folder / f"{name}.new").symlink_to("/dev/full")
    real.writer.shift("housing", 1, [(A, 100)], TWO)
    assert {answer.revision for answer in real.units(40).values()} == {A}
    assert (real.folder / "reserve").exists()


def test_a_disk_that_stays_full_is_said(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F6: and traffic goes on as it was."""
    (real.folder / "table.json.new").mkdir()  # cannot even be removed
    with pytest.raises(OSError, match="table"):
        real.writer.shift("housing", 1, [(A, 100)], TWO)
    (real.folder / "table.json.new").rmdir()
    assert {answer.revision for answer in real.units(40).values()} == {A, B}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_abort_on_a_disk_without_a_free_byte(real: Gateway, tmp_path: Path) -> None:
    small = tmp_path / "gateway"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("no mounting here")
    try:
        one, other = real.backyard.add(A, "1.0.0"), real.backyard.add(B, "1.1.0")
        real.serve((one, 50), (other, 50))
        fill(small / "filling")
        real.writer.shift("housing", 1, [(A, 100)], TWO)
        assert {answer.revision for answer in real.units(40).values()} == {A}
        (small / "reserve").unlink()
        fill(small / "filling")
        with pytest.raises(DiskFull):
            real.writer.shift("housing", 1, [(B, 100)], Stamp(3, 1))
        assert {answer.revision for answer in real.units(40).values()} == {A}
    finally:
        real.writer.stop()
        subprocess.run(["umount", "-l", small], check=True)


def fill(path: Path) -> None:
    """Leave no free byte where the path is."""
    with path.open("ab", buffering=0) as file:
        for block in (1 << 16, 1 << 9, 1):
            try:
                while file.write(b"x" * block):
                    pass
            except OSError:
                continue


# ------------------------------------------------------------------------------------------------ the gateway itself


def test_it_outlives_who_started_it_and_is_adopted(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """1.27, F63: a daemon that is killed takes nothing with it."""
    real.writer.stop()
    program = (
        "import os, sys; from pathlib import Path; from branchline.adapters.envoy_router import RouteWriter\n"
        "folder, runtime = map(Path, sys.argv[1:])\n"
        "assert RouteWriter(folder, runtime, ingest=runtime / 'ingest.sock').ensure()\n"
        "os.kill(os.getpid(), 9)"
    )
    daemon = subprocess.run([sys.executable, "-c", program, real.folder, real.runtime], cwd=ROOT)
    assert daemon.returncode == -signal.SIGKILL
    pid = real.writer.envoy.pid
    assert pid
    assert not real.writer.ensure()
    assert real.writer.envoy.pid == pid
    real.settled()
    assert {answer.revision for answer in real.units(40).values()} == {A, B}


def test_a_killed_gateway_comes_back_from_its_files_alone(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F63, M15: with the same assignments, and without asking anything of Branchline but to start it."""
    before = real.units(100)
    port = int(real.writer.address("housing").rsplit(":", 1)[1].partition("/")[0])
    os.kill(real.writer.envoy.pid, signal.SIGKILL)
    assert wait_until(lambda: not real.writer.envoy.pid)
    Envoy(real.folder, real.runtime).start("127.0.0.1", port)
    real.settled()
    after = real.units(100)
    assert {u: a.revision for u, a in after.items()} == {u: a.revision for u, a in before.items()}


def test_a_gateway_that_died_is_noticed_and_started(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    os.kill(real.writer.envoy.pid, signal.SIGKILL)
    assert wait_until(lambda: not real.writer.envoy.pid)
    assert real.writer.ensure()
    real.settled()
    assert {answer.revision for answer in real.units(40).values()} == {A, B}
    assert not real.writer.ensure()


def test_a_taken_port_is_said(real: Gateway) -> None:
    """M17: two gateways on one port would share the requests in silence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            real.another(port=port).ensure()


def test_a_missing_envoy_is_said(real: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRANCHLINE_ENVOY", "/nowhere/envoy")
    with pytest.raises(EnvoyMissing):
        real.writer.ensure()


# ------------------------------------------------------------------------------------------------ without a daemon


def test_abort_and_rollback_with_everything_else_dead(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """1.52: another process, no daemon, Envoy dead as well."""
    told = {"actor": "alex", "because": "prices are wrong", "at": 5.0}
    os.kill(real.writer.envoy.pid, signal.SIGKILL)
    command = real.another()
    assert command.roll_back("housing", **told)["kind"] == "abort"  # type: ignore[arg-type]
    assert {answer.revision for answer in real.units(40).values()} == {A}
    with pytest.raises(Unserved):
        command.roll_back("housing", **told)  # type: ignore[arg-type]
    late = real.writer
    with pytest.raises(Fenced):
        late.shift("housing", 1, [(A, 50), (B, 50)], Stamp(1, 1))
    daemon = real.another()
    daemon.tell("housing", Stamp(1, 2))
    (entry,) = daemon.offline()
    assert (entry["because"], entry["at"]) == ("prices are wrong", 5.0)
    daemon.tell("housing", TWO)
    assert daemon.offline() == ()
    daemon.shift("housing", 1, [(B, 100)], TWO)
    assert command.roll_back("housing", **told)["kind"] == "rollback"  # type: ignore[arg-type]
    assert {answer.revision for answer in real.units(40).values()} == {A}


class Killed(RouteWriter):
    """A command that is killed as it begins to change routes."""

    def _apply(self, *_: object) -> None:
        raise SystemExit


class Refused(RouteWriter):
    """A command that finds no room for the routes."""

    def _apply(self, *_: object) -> None:
        raise DiskFull("no room", what="rds.pb")


def test_a_rollback_that_is_killed_half_way_is_not_undone(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """1.52: what a person did without the daemon stands, wherever kill -9 hits. Killer: write the journal last."""
    told = {"actor": "alex", "because": "prices are wrong", "at": 5.0}
    with pytest.raises(SystemExit):
        real.another(kind=Killed).roll_back("housing", **told)  # type: ignore[arg-type]
    (entry,) = real.another().offline()
    assert (entry["kind"], entry["after"]) == ("abort", [[A, 100]])


def test_a_rollback_that_is_refused_is_not_told(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """Killer: leave in the journal what did not happen."""
    full = real.another(kind=Refused)
    with pytest.raises(DiskFull):
        full.roll_back("housing", actor="alex", because="", at=5.0)
    assert real.another().offline() == ()


def test_a_spoilt_journal_stops_nobody(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F71: a line that was cut, bytes that are no text. Killer: read it as a whole."""
    real.another().roll_back("housing", actor="alex", because="why", at=5.0)
    journal = real.folder / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"id": "hous\n\xff\n[]\n')
    (entry,) = real.another().offline()
    assert entry["because"] == "why"


def test_rollback_is_refused_when_the_incumbent_does_not_run(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    pair[0].die()
    assert wait_until(lambda: not real.writer.envoy.healthy()["housing@1.0.0~n001"])
    with pytest.raises(NotWarm):
        real.another().roll_back("housing", actor="alex", because="", at=5.0)
    assert real.writer.shown("housing")[1].shares == ((A, 50), (B, 50))


def test_a_shift_to_what_has_died_is_refused_and_one_away_from_it_is_not(
    real: Gateway, pair: tuple[Upstream, Upstream]
) -> None:
    """I5: abort needs neither the challenger nor its health."""
    pair[1].die()
    assert wait_until(lambda: not real.writer.envoy.healthy()["housing@1.1.0~n002"])
    with pytest.raises(NotWarm):
        real.another(warm_seconds=0.5).shift("housing", 1, [(A, 40), (B, 60)], TWO)
    real.writer.shift("housing", 1, [(A, 100)], TWO)
    assert {answer.revision for answer in real.units(40).values()} == {A}


def test_what_was_told_survives_the_teller(real: Gateway, pair: tuple[Upstream, Upstream]) -> None:
    """F16: durable, so an offline writer and a returning daemon know it too."""
    real.writer.tell("housing", Stamp(7, 3))
    with pytest.raises(Fenced):
        real.another().shift("housing", 1, [(A, 100)], Stamp(7, 2))
    assert {answer.revision for answer in real.units(40).values()} == {A, B}
