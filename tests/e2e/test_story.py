"""This file plays `branchline demo` and holds the story to the ledger and to git, not to what was printed.

Seed 1 on real data: a first revision, a winner, a tie, a harmful bug behind passing gates, a daemon that is killed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.typed import Shell

ADA, ALEX, SAM, ROBIN = (f"experiment--housing--{handle}" for handle in ("ada", "alex", "sam", "robin"))
FIX = "fix--housing--wording"
ENOUGH = 200  # outcomes: a mean with bounds is judged from a hundred of each arm on


class Story:
    """What was recorded of the service, read by the commands and straight from the ledger's file."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        entries = shell.ask("history", "housing", "--limit", "1000")["entries"]
        self.entries: list[dict[str, Any]] = list(reversed(entries))
        rows = shell.ledger('SELECT "commit", version FROM version WHERE service = ? AND final', "housing")
        self.versions = {str(commit): str(version) for commit, version in rows}

    def of(self, branch: str) -> list[str]:
        """What happened to a branch, in order."""
        return [entry["event"] for entry in self.entries if entry["detail"].get("branch") == branch]

    def detail(self, branch: str, event: str) -> dict[str, Any]:
        """The one event of a kind that a branch had."""
        (found,) = [e for e in self.entries if e["detail"].get("branch") == branch and e["event"] == event]
        return dict(found["detail"])

    def judged(self, branch: str) -> str:
        """The commit that was judged: the only one of the branch that was ever built."""
        (found,) = self.shell.ledger('SELECT "commit" FROM revision WHERE branch = ?', branch)
        return str(found[0])

    def outcomes(self, branch: str, event: str) -> int:
        """How many outcomes the verdict rests on, as it was recorded."""
        found = re.search(
            r"^ *(\d+) outcomes: \d+ incumbent, \d+ challenger", self.detail(branch, event)["reason"], re.M
        )
        assert found, self.detail(branch, event)
        return int(found[1])

    def counted(self, branch: str) -> dict[str, int]:
        """Arm -> units whose outcome came in time, under the branch's own experiment, by the ledger's rows."""
        rows = self.shell.ledger(
            "SELECT e.arm, count(DISTINCT e.number) FROM exposure e JOIN outcome o ON o.exposure = e.number"
            " WHERE NOT o.late AND e.experiment ="
            " (SELECT experiment FROM exposure WHERE arm = ? ORDER BY number LIMIT 1) GROUP BY e.arm",
            self.judged(branch),
        )
        return {str(arm): int(n) for arm, n in rows}

    def merges(self, branch: str) -> int:
        """How many commits of the trunk say that they merge a branch."""
        told = self.shell.git("log", "--first-parent", "--format=%b", "main", at=self.shell.truth)
        return told.count(f"Merges {branch} at ")


@pytest.mark.timeout(1200)
def test_the_whole_story_is_what_the_ledger_and_git_say(tmp_path: Path) -> None:
    """1.01-1.07, 1.30-1.52, 2.01-2.05, 3.02, 3.13: each part of the issue's demo, and nothing is left running."""
    home = tmp_path / "demo"
    shell = Shell(home, make=False, work="realty")
    home.mkdir()
    shell.work = tmp_path  # where the command is typed; the clone is made by the demo
    try:
        told = shell.type("demo", "--keep", "--folder", str(home), seconds=900)
        shell.work = home / "realty"
        story = Story(shell)
        check_the_first(story)
        check_the_winner(story)
        check_the_tie(story)
        check_the_harm(story)
        check_the_kill(story, "kill -9" in told.out)
        check_git(story)
    finally:
        shell.work = home / "realty"
        shell.end()
    assert shell.processes() == []


def check_the_first(story: Story) -> None:
    """Seed 1, a new service: 100 % at once, merged, deleted."""
    assert story.of(ADA) == ["Opened", "Built", "GatesPassed", "Recorded"]
    assert story.versions[story.judged(ADA)] == "1.0.0"
    assert story.merges(ADA) == 1


def check_the_winner(story: Story) -> None:
    """Seed 1, success: judged by an A/B test between 200 and 400 outcomes; it takes over, merged, deleted."""
    events = story.of(ALEX)
    assert (events[-3:], events.count("Won"), events.count("Recorded")) == (["GatesPassed", "Won", "Recorded"], 1, 1)
    assert story.detail(ALEX, "Won")["reason"].startswith("challenger: the challenger is better")
    assert ENOUGH <= story.outcomes(ALEX, "Won") <= 400
    counted = story.counted(ALEX)
    assert set(counted) == {story.judged(ADA), story.judged(ALEX)}
    assert sum(counted.values()) >= story.outcomes(ALEX, "Won")
    assert min(counted.values()) >= ENOUGH // 2
    assert story.versions[story.judged(ALEX)] == "1.1.0"
    assert story.merges(ALEX) == 1


def check_the_tie(story: Story) -> None:
    """Seed 1, failure: futile; out of production, deleted unmerged, its code archived."""
    assert story.of(SAM)[-2:] == ["GatesPassed", "Lost"]
    assert story.detail(SAM, "Lost")["reason"].startswith("incumbent: an effect of 3 is ruled out")
    assert ENOUGH <= story.outcomes(SAM, "Lost") <= 1611
    judged = story.judged(SAM)
    assert story.shell.refs()[f"refs/branchline/archive/{SAM}/{judged}"] == judged
    assert story.merges(SAM) == 0
    assert story.shell.git("for-each-ref", "--contains", judged, "refs/heads/", at=story.shell.truth) == ""


def check_the_harm(story: Story) -> None:
    """Seed 3: the holdout gate passes, bad outcomes are seen in traffic, it is rolled back; the branch stays."""
    shell, judged = story.shell, story.judged(ROBIN)
    gates = shell.ledger('SELECT gate, result FROM gate_result WHERE "commit" = ?', judged)
    assert ("holdout", "pass") in gates
    assert {result for _, result in gates} == {"pass"}
    assert story.of(ROBIN)[-2:] == ["GatesPassed", "Breached"]
    assert "guardrail breached: bad outcomes" in story.detail(ROBIN, "Breached")["reason"]
    requests = dict(
        shell.ledger(
            "SELECT arm, count(*) FROM request WHERE experiment ="
            " (SELECT experiment FROM request WHERE arm = ? ORDER BY number LIMIT 1) GROUP BY arm",
            judged,
        )
    )
    assert requests[judged] < requests[story.judged(ALEX)]  # a tenth of the units, and soon none
    (row,) = [r for s in shell.ask("status", "housing")["services"] for r in s["rows"] if r["branch"] == ROBIN]
    assert (row["state"], row["share"], row["commit"]) == ("rolled back", 0, judged)
    assert story.merges(ROBIN) == 0


def check_the_kill(story: Story, killed: bool) -> None:
    """I2: a fix by canary, concluded exactly once, by a second daemon if the first one died over it."""
    events = story.of(FIX)
    assert (events[-2:], events.count("Won"), events.count("Recorded")) == (["Won", "Recorded"], 1, 1)
    assert story.merges(FIX) == 1
    assert story.versions[story.judged(FIX)] == "1.1.1"
    assert len(story.shell.ledger("SELECT number FROM epoch")) == 1 + killed


def check_git(story: Story) -> None:
    """I1: the trunk shows the incumbent, one conclusion each; tags, kept code and branches are as they should be."""
    shell = story.shell
    assert shell.ask("parity") == {
        "schema": "branchline.parity/1", "ok": True, "services": ["housing"], "drifts": [],
    }  # fmt: skip
    (incumbent,) = [r for s in shell.ask("status")["services"] for r in s["rows"] if r["phase"] == "live"]
    assert (incumbent["version"], incumbent["share"], incumbent["healthy"]) == ("1.1.1", 100, True)
    judged = {version: story.judged(branch) for branch, version in ((ADA, "1.0.0"), (ALEX, "1.1.0"), (FIX, "1.1.1"))}
    assert incumbent["commit"] == judged["1.1.1"]
    trees = [shell.git("rev-parse", f"{commit}:housing", at=shell.truth) for commit in ("main", judged["1.1.1"])]
    assert trees[0] == trees[1]
    trailers = shell.trailers()
    assert (len(trailers), len(set(trailers))) == (3, 3)
    assert all(re.fullmatch(r"housing/\d+", trailer) for trailer in trailers)
    refs = shell.refs()
    for version, commit in judged.items():
        assert refs[f"refs/tags/housing@v{version}"] == commit
        assert refs[f"refs/branchline/revisions/housing/{version}"] == commit
    assert [name for name in refs if name.startswith(f"refs/branchline/archive/{ALEX}/")]
    assert shell.heads() == {"main", ROBIN}
    assert shell.is_whole()
