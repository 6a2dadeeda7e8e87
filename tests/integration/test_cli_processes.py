"""This file tests what commands do with the daemon's own process, and with the routes when there is no daemon."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from branchline.adapters.envoy import is_free
from branchline.app import Daemon
from tests.gateways import gateway
from tests.places import Place
from tests.world import SAM

# ------------------------------------------------------------------------------------------------ without the daemon


def test_rollback_works_from_the_files_alone(tmp_path: Path, runtime_dir: Path) -> None:
    """With everything else dead the command is the route writer, and the journal tells the daemon."""
    place = Place(tmp_path)
    with gateway(place.settings.state, place.settings.runtime) as real:
        old, new = real.backyard.add("a" * 40, "1.0.0"), real.backyard.add("b" * 40, "1.1.0")
        real.serve((old, 50), (new, 50))
        planned = place.type("rollback", "housing", "--dry-run")
        assert planned.exit_code == 0, planned.stderr
        assert place.type("abort", SAM).exit_code == 2
        assert "every challenger of its newest line leaves traffic" in planned.stdout
        told = place.type("abort", SAM, "--yes", "--because", "it hurts")
        assert told.exit_code == 0, told.stderr
        assert "the daemon does not answer" in told.stderr
        assert "every challenger of its newest line leaves traffic, whoever was named" in told.stderr
        assert f"done     abort of housing: {old.revision[:7]} 100%; out of traffic: {new.revision[:7]}" in told.stderr
        assert {answer.revision for answer in real.units(20).values()} == {old.revision}
        (entry,) = real.another().offline()
        assert (entry["because"], entry["actor"]) == ("it hurts", "Test <test@example.invalid>")
        nothing = place.type("rollback", "housing", "--yes")
        assert nothing.exit_code == 69


def test_an_abort_without_the_daemon_never_takes_the_incumbent_out(tmp_path: Path, runtime_dir: Path) -> None:
    """Killer: let an abort of nothing go back to the one before, as a rollback does."""
    place = Place(tmp_path)
    with gateway(place.settings.state, place.settings.runtime) as real:
        old, new = real.backyard.add("a" * 40, "1.0.0"), real.backyard.add("b" * 40, "1.1.0")
        real.serve((old, 100))
        real.serve((old, 0), (new, 100))
        told = place.type("abort", SAM, "--yes")
        assert (told.exit_code, "housing has nothing under test" in told.stderr) == (69, True)
        assert {answer.revision for answer in real.units(20).values()} == {new.revision}
        told = place.type("rollback", "housing", "--yes")
        assert told.exit_code == 0, told.stderr
        assert {answer.revision for answer in real.units(20).values()} == {old.revision}


def test_a_rollback_without_the_daemon_first_ends_the_test_and_says_so(tmp_path: Path, runtime_dir: Path) -> None:
    place = Place(tmp_path)
    with gateway(place.settings.state, place.settings.runtime) as real:
        old, new = real.backyard.add("a" * 40, "1.0.0"), real.backyard.add("b" * 40, "1.1.0")
        real.serve((old, 50), (new, 50))
        told = place.type("rollback", "housing", "--yes")
        assert "done     abort of housing" in told.stderr
        assert "note     the test was ended; what served before: branchline rollback housing" in told.stderr


def test_without_daemon_and_gateway_nothing_can_be_rolled_back(tmp_path: Path) -> None:
    told = Place(tmp_path).type("rollback", "housing", "--yes")
    assert told.exit_code == 69
    assert "error[BL701]" in told.stderr


# ------------------------------------------------------------------------------------------------ the daemon itself


def test_up_starts_it_once_and_down_leaves_nothing(tmp_path: Path) -> None:
    """The daemon's real process: started by whoever needs it, a second one exits 75, `down` ends all."""
    place = Place(tmp_path)
    client = place.client
    plan = place.run("up", "--dry-run")
    assert plan.stdout.startswith("plan     process  start the daemon")
    assert not client.answers()
    try:
        told = place.run("status")
        assert told.returncode == 0, told.stderr
        assert "starting it" in told.stderr
        pid = client.pid()
        again = place.run("up", "--json")
        assert json.loads(again.stdout)["pid"] == pid
        second = place.run("up", "--foreground")
        assert second.returncode == 75
        assert "error[BL702]" in second.stderr
        assert place.run("down", "--daemon-only").returncode == 0
        assert not client.answers()
        assert place.run("down", "--dry-run").stdout.count("plan") == 2, "the gateway serves on"
    finally:
        ended = place.run("down")
    assert ended.returncode == 0, ended.stderr
    assert not client.answers()
    assert "nothing runs" in place.run("down").stderr


def free() -> list[int]:
    """Two ports that nobody uses, below those the kernel gives away."""
    return [port for port in random.sample(range(20000, 32000), 50) if is_free("127.0.0.1", port)][:2]


def test_the_gateways_port_is_the_projects_unless_another_is_asked_for(tmp_path: Path) -> None:
    """Given > the project's > the one it had; while the daemon runs it stays, and `up` says how to change it."""
    place = Place(tmp_path)
    asked, given = free()
    text = f'[project]\nname = "shop"\ndefault_branch = "shown"\ngateway_port = {asked}\n'
    (place.git.work / "branchline.toml").write_text(text)
    try:
        told = place.run("up", "--json")
        assert json.loads(told.stdout)["gateway"] == f"http://127.0.0.1:{asked}/", told.stderr
        assert place.run("up", "--port", str(asked)).returncode == 0
        for more in ([], ["--dry-run"]):
            told = place.run("up", "--port", str(given), *more)
            assert told.returncode == 2
            assert f"the gateway stays at http://127.0.0.1:{asked}/" in told.stderr
            assert f"branchline down; branchline up --port {given}" in told.stderr
        assert "nothing changes" in place.run("up", "--dry-run").stdout
        assert place.run("down").returncode == 0
        told = place.run("up", "--json", "--port", str(given))
        assert json.loads(told.stdout)["gateway"] == f"http://127.0.0.1:{given}/", told.stderr
    finally:
        place.run("down")


def test_the_daemon_takes_port_and_default_branch_from_the_projects_file(tmp_path: Path, runtime_dir: Path) -> None:
    """Killer: leave one of them to git, or to chance."""
    place = Place(tmp_path)
    asked, given = free()
    text = f'[project]\nname = "shop"\ndefault_branch = "shown"\ngateway_port = {asked}\n'
    (place.git.work / "branchline.toml").write_text(text)
    for port, wanted in ((0, asked), (given, given)):
        daemon = Daemon(place.settings, port)
        try:
            assert daemon.gateway.address("housing") == f"http://127.0.0.1:{wanted}/housing/"
            assert daemon.controller.recorder.service("housing").default == "shown"
        finally:
            daemon.stop(everything=True)


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input: Envoy missing."""
    monkeypatch.setenv("BRANCHLINE_ENVOY", str(tmp_path / "none"))
    told = Place(tmp_path).type("up")
    assert told.exit_code == 69
    assert "error[BL501]" in told.stderr
    assert "BRANCHLINE_ENVOY" in told.stderr
