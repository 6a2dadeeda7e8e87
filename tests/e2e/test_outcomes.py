"""This file kills (-9) who reports outcomes, and who keeps them, in the middle of batches: each counts once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.levels import levels
from tests.typed import Shell, request

ROOT = Path(__file__).resolve().parents[2]
MANY = 1200  # outcomes
KILLS = 3
PATIENT = ('mde = 0.3, window = "1s"', 'mde = 0.001, window = "1h"')
KEPT = "SELECT key, reported FROM outcome WHERE service = 'shop'"
# A service's own process: it reports at some pace whatever became of its answers, from the first on, and ends; not
# before it may, so that whoever is to be killed meanwhile is, on a busy machine, too.
SENDER = """
import json, os, sys, threading
from branchline.sdk import reporter

reporter.BATCH = 40
outcomes, pace = reporter.Reporter("shop"), threading.Event()
*most, last = json.load(open(sys.argv[1]))
for request_id, value in (*most, last):
    while request_id == last[0] and not os.path.exists(sys.argv[1] + ".end"):
        pace.wait(0.01)
    assert outcomes.report(request_id, value)
    pace.wait(0.001)
print(outcomes.flush(600), json.dumps(outcomes.counts()))
"""


@dataclass
class Told:
    """Outcomes of requests that were served under test, with a value each, in a file that the sender reads."""

    shell: Shell
    path: Path
    values: dict[str, float]

    @classmethod
    def of(cls, shell: Shell, name: str) -> Told:
        """Those of so many new units."""
        with shell.connected() as connection:
            asked = [request(connection, "/shop/", "POST", {}, f"{name}-{n}", {}) for n in range(MANY)]
        assert {each.status for each in asked} == {200}
        values = {each.headers["x-request-id"]: n / MANY for n, each in enumerate(asked)}
        path = shell.folder / name
        path.write_text(json.dumps(list(values.items())))
        return cls(shell, path, values)

    @contextmanager
    def sending(self) -> Iterator[subprocess.Popen[str]]:
        """A process that reports them."""
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        env["BRANCHLINE_GATEWAY"] = f"http://127.0.0.1:{self.shell.port}"
        command = [sys.executable, "-c", SENDER, str(self.path)]
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def ended(self, process: subprocess.Popen[str]) -> dict[str, int]:
        """Let a sender end; what it says of what became of them; all were answered."""
        self.path.with_name(f"{self.path.name}.end").touch()
        out, _ = process.communicate(timeout=900)
        assert (process.returncode, out[:5]) == (0, "True "), out
        return dict(json.loads(out[5:]))

    def kept(self) -> int:
        """How many of them the ledger holds."""
        return len(self.values.keys() & {key.removeprefix("request:") for key, _ in self.rows()})

    def rows(self) -> list[tuple[str, float]]:
        """What the ledger holds of the service's outcomes: by key, what was reported."""
        return [(key, value) for key, value in self.shell.ledger(KEPT)]

    def until(self, part: int) -> None:
        """Wait until so many of KILLS + 1 parts are kept."""
        least = MANY * part // (KILLS + 1)
        self.shell.until(f"{least} are kept", lambda: self.kept() >= least)


@pytest.mark.timeout(1200)
def test_each_outcome_counts_once_whoever_is_killed(own: Shell) -> None:
    """1.30, I16, F74, F75: kill -9 of the sender, who begins anew; kill -9 of the daemon, whose sender goes on."""
    own.type("up")
    files = levels("shop")
    files["shop/branchline.toml"] = files["shop/branchline.toml"].replace(*PATIENT)
    own.first("shop", files)
    branch = own.push("ada", {"shop/level": "0.6\n"}, "shop")
    own.until_state(branch, "A/B test")

    for large in ([{"unit": "u", "value": 1, "id": "x" * (10 << 20)}], [{"unit": "u", "value": 1}] * 10**6):  # F74
        answer = own.call("/shop/-/outcomes", "POST", large)
        assert (answer.status, json.loads(answer.body)["code"]) == (413, "BL509")

    first = Told.of(own, "first")
    for part in range(1, KILLS + 1):
        with first.sending():
            first.until(part)  # and it is killed
        assert first.kept() < MANY, "it had ended before it was killed"
    with first.sending() as sender:
        words = first.ended(sender)
    assert (words["kept"] + words["duplicate"], words["dropped"]) == (MANY, 0)
    assert words["duplicate"] >= MANY * KILLS // (KILLS + 1)

    second = Told.of(own, "second")
    with second.sending() as sender:
        for part in range(1, KILLS + 1):
            second.until(part)
            own.kill()
            assert sender.poll() is None, "it had ended before the daemon was killed"
            own.type("up")
        words = second.ended(sender)
    assert (words["kept"] + words.get("duplicate", 0), words["dropped"]) == (MANY, 0)

    said = {f"request:{request}": value for each in (first, second) for request, value in each.values.items()}
    rows = first.rows()
    assert len(rows) == len(said) == 2 * MANY
    assert dict(rows) == said
    ((counted,),) = own.ledger("SELECT sum(n) FROM tally WHERE service = 'shop' AND what = 'outcomes'")
    assert counted == 2 * MANY, "each unit has one"
    assert own.row(branch)["state"] == "A/B test"
