"""This file kills the daemon again and again while it concludes: nothing is lost, doubled or restarted.

A few services are released at once under traffic and outcomes, some of them aborted on the way; the daemon is killed
(-9) at random moments, most of them around a conclusion, and started again by `up`. SOAK_KILLS says how often.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import pytest

from branchline.cli.transport import Answered
from branchline.errors import DaemonDown
from tests.typed import Shell, app, request
from tests.waiting import wait_until

SERVICES = ("east", "north", "south", "west")
METRIC = 'metric = { name = "score", bounds = [0, 1], mde = 0.5, window = "1h" }'
WANTED = 20  # of a challenger's requests, before it concludes
ENOUGH = 100  # outcomes that were acknowledged
A_ROUND = 7  # kills of one round of releases, at most
A_WHILE = 0.02  # seconds between two people: more of them would meet nothing else, and slow down what is tested


@dataclass
class Traffic:
    """Requests and outcomes to every service for as long as the story lasts, and which outcomes were acknowledged."""

    shell: Shell
    over: threading.Event = field(default_factory=threading.Event)
    kept: list[tuple[str, str]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def flow(self) -> None:
        """Ask and report in turn; a connection that breaks is opened again."""
        number = 0
        while not self.over.is_set():
            with contextlib.suppress(OSError, HTTPException), self.shell.connected() as connection:
                while not self.over.wait(A_WHILE):
                    number += 1
                    for service in SERVICES:
                        asked = request(connection, f"/{service}/", "GET", None, f"unit-{number}", {})
                        self.statuses[asked.status] += 1
                    if number % 5 == 0:
                        self.report(connection, number)

    def report(self, connection: object, number: int) -> None:
        """Report the outcomes of the last units; what is answered with 200 and `kept` is promised."""
        for service in SERVICES:
            told = [{"unit": f"unit-{n}", "value": 0.5, "id": f"{service}-{n}"} for n in range(number - 4, number + 1)]
            answer = request(connection, f"/{service}/-/outcomes", "POST", told, "", {})  # type: ignore[arg-type]
            words = json.loads(answer.body)["outcomes"] if answer.status == 200 else []
            self.kept += [
                (service, f"of:{len(str(each['unit']))}:{each['unit']}:{each['id']}")
                for each, word in zip(told, words, strict=False)
                if word == "kept"
            ]


@contextmanager
def flowing(shell: Shell) -> Iterator[Traffic]:
    """Traffic meanwhile."""
    traffic = Traffic(shell)
    thread = threading.Thread(target=traffic.flow)
    thread.start()
    try:
        yield traffic
    finally:
        traffic.over.set()
        thread.join()


def concluded_under_kills(folder: Path, kills: int, seed: int) -> None:
    """Release round after round until the daemon has been killed often enough; then everything is as it should be."""
    dice, shell = random.Random(seed), Shell(folder, environ={"UV_OFFLINE": "1"})
    files = {name: app(name, requests=WANTED, more=METRIC) for name in SERVICES}
    branches: list[str] = []
    try:
        shell.type("up")
        for name in SERVICES:
            branches.append(shell.push("first", files[name], name))
        shell.until("all serve", lambda: all(f"{name}@incumbent" in shell.rows() for name in SERVICES))
        shell.until_rest()
        with flowing(shell) as traffic:
            killed = number = 0
            while killed < kills or len(traffic.kept) <= ENOUGH:  # on a slow machine a kill meets few people
                number += 1
                killed += one_round(shell, number, branches, min(A_ROUND, kills - killed), dice)
        check(shell, branches, traffic)
    finally:
        shell.end()


def one_round(shell: Shell, number: int, branches: list[str], kills: int, dice: random.Random) -> int:
    """Push a new solution of every service and kill the daemon while they conclude; how often it was."""
    pushed = [shell.push(f"try-{number}", {f"{name}/NOTE": f"{number}\n"}, name) for name in SERVICES]
    branches += pushed
    aborted = dice.choice([*pushed, ""])
    killed = 0

    def ended() -> bool:
        rows = shell.rows()
        states = {branch: rows.get(branch, {}).get("state", "") for branch in pushed}
        return (
            bool(rows)
            and set(states.values()) <= {"", "rolled back", "evaluation failed"}
            and all(shell.events(b) for b in pushed)
        )

    def concluding() -> bool:
        return any(row["state"] in ("won", "concluding") for row in shell.rows().values()) or ended()

    while killed < kills:
        wait_until(concluding if dice.random() < 0.7 else ended, dice.uniform(0.5, 6))
        if wait_until(ended, dice.uniform(0, 0.25)):
            break
        if aborted and dice.random() < 0.4:
            with contextlib.suppress(DaemonDown, Answered):
                shell.client.post("/v1/ask", {"command": "abort", "reference": aborted, "args": {}})
        kill(shell)
        killed += 1
    shell.until(f"round {number} has ended", ended)
    shell.until_rest()
    return killed


def kill(shell: Shell) -> None:
    """Kill the daemon and start it again: who was the incumbent and still is was not touched (I23)."""
    rows = shell.rows()
    before = {name: rows[f"{name}@incumbent"]["version"] for name in SERVICES if f"{name}@incumbent" in rows}
    pids = {name: shell.instances_of(name, version) for name, version in before.items()}
    shell.kill()
    pid = shell.ask("up")["pid"]
    after = {name: shell.instances_of(name, version) for name, version in before.items()}
    rows = shell.rows()  # read last: who is still the incumbent now was so when its processes were looked at
    for name, version in before.items():
        if rows.get(f"{name}@incumbent", {}).get("version") == version:
            assert set(pids[name]) <= set(after[name]), name
    assert shell.pid == pid, shell.told()  # it lives until it is killed


def check(shell: Shell, branches: list[str], traffic: Traffic) -> None:
    """I1, I2, I16, I22: exactly one merge or none, parity, whole objects, one instance each, every outcome once."""
    shell.until_rest()
    assert shell.type("parity").code == 0
    bodies = shell.git("log", "--first-parent", "--reverse", "--format=%s%x1f%b%x1e", "main", at=shell.truth)
    commits, refs = [commit.strip().partition("\x1f") for commit in bodies.split("\x1e")], shell.refs().keys()
    for branch in branches:
        service, events = branch.split("--")[1], shell.events(branch)
        merged = [at for at, (_, _, body) in enumerate(commits) if body.startswith(f"Merges {branch} at ")]
        if "Recorded" in events:
            assert (events.count("Recorded"), len(merged)) == (1, 1), (branch, events)
            version = commits[merged[0]][0].rpartition("@")[2]
            assert {f"refs/tags/{service}@v{version}", f"refs/branchline/revisions/{service}/{version}"} <= refs, branch
        else:
            back = [at for at, (title, _, _) in enumerate(commits) if title.startswith(f"Roll {service} back to ")]
            assert "Aborted" in events, [entry["detail"] for entry in shell.history(service)]
            assert len(merged) <= 1, branch
            assert not merged or any(at > merged[0] for at in back), branch
        assert (branch in shell.heads()) == ("Aborted" in events), (branch, events)
    trailers = shell.trailers()
    assert len(trailers) == len(set(trailers))
    assert shell.is_whole()
    for name in SERVICES:
        shell.until("one group serves", lambda name=name: len(shell.running(name)) == 1)  # type: ignore[misc]
        assert [(version, place) for _, version, place, _ in shell.running(name)] == [
            (shell.row(f"{name}@incumbent")["version"], "production")
        ]
    check_outcomes(shell, traffic)


def check_outcomes(shell: Shell, traffic: Traffic) -> None:
    """I16: what was acknowledged is there once; hardly a request failed, with the daemon dead or alive."""
    found = Counter(shell.ledger("SELECT service, key FROM outcome"))
    assert len(traffic.kept) > ENOUGH
    assert [each for each in traffic.kept if found[each] != 1] == []
    failed = sum(n for status, n in traffic.statuses.items() if status != 200)
    assert failed * 200 <= sum(traffic.statuses.values()), traffic.statuses


@pytest.mark.timeout(1200)
def test_conclusions_end_once_however_often_the_daemon_is_killed(tmp_path: Path) -> None:
    """I1, I2, I16, I22, I23, F24, F37, F57."""
    concluded_under_kills(tmp_path, int(os.environ.get("SOAK_KILLS", "20")), seed=3)
