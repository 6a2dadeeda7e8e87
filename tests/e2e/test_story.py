"""This file plays `branchline demo` and holds its stories to the ledger and to git, not to what was printed.

Seed 1 on real data: a first revision, a winner, a tie, a harmful bug behind passing gates, a daemon that is killed.
Beyond 7: a month of data opens an experiment by itself, wins and is merged; a spoiled one stops at the data gate.
Seed 3 with something small in the place of the real model: a microservice that asks it, a canary that passes, one that
is killed and one that fails, a hotfix, a rollback without the daemon, a twin in Node.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from branchline.adapters.envoy_meter import fields
from branchline.cli.demo_trouble import KILLS
from tests.typed import Shell

ROOT = Path(__file__).resolve().parents[2]
ADA, ALEX, SAM, ROBIN = (f"experiment--housing--{handle}" for handle in ("ada", "alex", "sam", "robin"))
FIX = "fix--housing--wording"
MACHINE = "branchline <branchline@localhost>"
FIRST, KIM, LOU, MAX = (f"experiment--listings--{handle}" for handle in ("ada", "kim", "lou", "max"))
TWIN, PERCENT = "experiment--listings-node--ada", "fix--listings--percent"
UNDO = "Our mail to buyers multiplies by a hundred, too."
ENOUGH = 200  # outcomes: a mean with bounds is judged from a hundred of each arm on


class Story:
    """What was recorded of a service, read by the commands and straight from the ledger's file."""

    def __init__(self, shell: Shell, service: str) -> None:
        self.shell, self.service = shell, service
        entries = shell.ask("history", service, "--limit", "1000")["entries"]
        self.entries: list[dict[str, Any]] = list(reversed(entries))
        rows = shell.ledger('SELECT "commit", version FROM version WHERE service = ? AND final', service)
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

    def answers(self, branch: str) -> dict[tuple[str, bool], int]:
        """(arm, whether it failed) -> requests under the branch's own experiment."""
        rows = self.shell.ledger(
            "SELECT arm, bad, count(*) FROM request WHERE experiment ="
            " (SELECT experiment FROM request WHERE arm = ? ORDER BY number LIMIT 1) GROUP BY 1, 2",
            self.judged(branch),
        )
        return {(str(arm), bool(failed)): int(n) for arm, failed, n in rows}

    def gates(self, branch: str) -> dict[str, str]:
        """What each gate of the branch's revision said."""
        return dict(self.shell.ledger('SELECT gate, result FROM gate_result WHERE "commit" = ?', self.judged(branch)))

    def row(self, branch: str) -> dict[str, Any]:
        """The one row of the status that a branch has."""
        services = self.shell.ask("status", self.service)["services"]
        (found,) = [dict(row) for each in services for row in each["rows"] if row["branch"] == branch]
        return found

    def merges(self, branch: str) -> int:
        """How many commits of the trunk say that they merge a branch."""
        told = self.shell.git("log", "--first-parent", "--format=%b", "main", at=self.shell.truth)
        return told.count(f"Merges {branch} at ")

    def tree(self, commit: str) -> str:
        """The tree of the service's folder at a commit of the truth."""
        return self.shell.git("rev-parse", f"{commit}:{self.service}", at=self.shell.truth)


@contextmanager
def played(tmp_path: Path, only: str) -> Iterator[tuple[Shell, str]]:
    """A demo that has been played and is still up: a shell in its clone, and what it printed; nothing is left after."""
    home, examples = tmp_path / "demo", tmp_path / "examples"
    shutil.copytree(ROOT / "examples", examples, ignore=shutil.ignore_patterns("__pycache__"))
    for file in examples.glob("**/branchline.toml"):  # answers take as long as they do on a busy machine
        file.write_text(file.read_text(encoding="utf-8").replace("p99_ms = 2000", "p99_ms = 60_000"), encoding="utf-8")
    shell = Shell(home, make=False, work="realty")
    home.mkdir()
    shell.work = tmp_path  # where the command is typed; the clone is made by the demo
    try:
        told = shell.type(
            "demo", "--only", only, "--keep", "--folder", str(home), "--examples", str(examples), seconds=2000
        )
        shell.work = home / "realty"
        yield shell, told.out
    finally:
        shell.work = home / "realty"
        shell.end()
    assert shell.processes() == []


@pytest.mark.timeout(2400)
def test_the_whole_story_is_what_the_ledger_and_git_say(tmp_path: Path) -> None:
    """1.01-1.07, 1.30-1.52, 2.01-2.05, 3.02-3.04, 3.13, F47, beyond 7: each part of it, and none runs on."""
    with played(tmp_path, "housing") as (shell, told):
        story = Story(shell, "housing")
        check_the_first(story)
        check_the_winner(story)
        check_the_tie(story)
        check_the_harm(story)
        check_the_kill(story, "kill -9" in told)
        arrived, spoiled = opened_by_data(story)
        check_the_month(story, arrived)
        check_the_spoiled_month(story, spoiled)
        check_git(story, arrived, spoiled)
        check_the_dossiers(story, tmp_path)


@pytest.mark.timeout(2400)
def test_a_microservice_asks_another_is_fixed_and_rolled_back(tmp_path: Path) -> None:
    """3.05, 3.18: an app goes by canary, and a service without any Python is one like any other."""
    with played(tmp_path, "listings") as (shell, told):
        story = Story(shell, "listings")
        check_the_canary(story)
        check_the_dead(story)
        check_the_breach(story)
        check_the_hotfix(story)
        check_the_rollback(story)
        check_the_twin(Story(shell, "listings-node"))
        check_the_units(shell, "listings", "1.1.0")
        check_the_units(shell, "listings-node", "1.0.0")
        check_git_of_listings(story)
        killed, rolled_back = re.findall(r"\d+ requests, (\d+) failed(?:, (\d+) cut)?", told)
        assert (killed[0], rolled_back) == ("0", ("0", ""))
        assert int(killed[1] or 0) <= KILLS, "a server that writes head and body apart, and is killed between them"


def check_the_dossiers(story: Story, folder: Path) -> None:
    """Beyond 14: every verdict is found again from its dossier alone, document or page, whoever made it and when."""
    sides = {"Won": "challenger", "Lost": "incumbent", "Breached": "incumbent"}
    for branch in (ALEX, SAM, ROBIN, FIX):
        judged, page = story.judged(branch), folder / f"{branch}.html"
        made = story.shell.ask("dossier", judged)
        assert sides[made["verdict"]["event"]] == made["measurement"]["answer"]["side"]
        assert made["verdict"]["reason"] == story.detail(branch, made["verdict"]["event"])["reason"]
        assert story.shell.ask("dossier", judged, "--html", str(page)) == made
        story.shell.type("dossier", "verify", str(page))
        kept = f"refs/branchline/dossiers/housing:{made['version']}.json"
        assert json.loads(story.shell.git("show", kept, at=story.shell.truth)) == made
        if branch in (ALEX, SAM):
            assert sum(made["measurement"]["answer"]["units"]) == story.outcomes(branch, made["verdict"]["event"])

    named = story.shell.git(
        "log", "--format=%(trailers:key=Branchline-Dossier,valueonly)", "main", at=story.shell.truth
    )
    rows = story.shell.ask("dossier")["dossiers"]
    assert named.split() == [
        f"refs/branchline/dossiers/housing:{v['version']}.html" for v in rows if v["event"] == "Won"
    ]


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
    judged, gates = story.judged(ROBIN), story.gates(ROBIN)
    assert gates["holdout"] == "pass"
    assert set(gates.values()) == {"pass"}
    assert story.of(ROBIN)[-2:] == ["GatesPassed", "Breached"]
    assert "guardrail breached: bad outcomes" in story.detail(ROBIN, "Breached")["reason"]
    requests = story.answers(ROBIN)
    assert requests[judged, False] < requests[story.judged(ALEX), False]  # a tenth of the units, and soon none
    row = story.row(ROBIN)
    assert (row["state"], row["share"], row["commit"]) == ("rolled back", 0, judged)
    assert story.merges(ROBIN) == 0


def check_the_kill(story: Story, killed: bool) -> None:
    """I2: a fix by canary, concluded exactly once, by a second daemon if the first one died over it."""
    events = story.of(FIX)
    assert (events[-2:], events.count("Won"), events.count("Recorded")) == (["Won", "Recorded"], 1, 1)
    assert story.merges(FIX) == 1
    assert story.versions[story.judged(FIX)] == "1.1.1"
    assert len(story.shell.ledger("SELECT number FROM epoch")) == 1 + killed


def opened_by_data(story: Story) -> list[str]:
    """The branches that opened themselves, in order."""
    opened = [entry["detail"] for entry in story.entries if entry["event"] == "Opened"]
    return [detail["branch"] for detail in opened if "--data-" in detail["branch"]]


def check_the_month(story: Story, branch: str) -> None:
    """Beyond 7: no human step from a new file to a merged commit, by the ordinary law, judged by outcomes."""
    shell, judged = story.shell, story.judged(branch)
    events = story.of(branch)
    assert (events[-3:], events.count("Won"), events.count("Recorded")) == (["GatesPassed", "Won", "Recorded"], 1, 1)
    assert story.detail(branch, "Won")["reason"].startswith("challenger: the challenger is better")
    assert ENOUGH <= story.outcomes(branch, "Won") <= 400
    assert set(story.counted(branch)) == {story.judged(FIX), judged}
    assert set(story.gates(branch).values()) == {"pass"}
    assert story.versions[judged] == "1.4.0"  # after sam's and robin's
    assert story.merges(branch) == 1
    assert shell.git("show", "-s", "--format=%an <%ae>", judged, at=shell.truth) == MACHINE
    assert shell.git("diff", "--name-only", f"{judged}~", judged, at=shell.truth) == "housing/data.lock"
    steps = shell.ask("why", "housing@1.4.0")["steps"]
    assert [(step["step"], step["state"]) for step in steps] == [(s, "ran") for s in ("clean", "train", "evaluate")]
    assert [entry for entry in steps if not entry["why"].startswith("changed: ")] == []


def check_the_spoiled_month(story: Story, branch: str) -> None:
    """F47: bad data stops before anything is built with it; no revision is ever made of it, and 1.4.0 serves on."""
    shell = story.shell
    assert story.of(branch) == ["Opened", "BuildFailed", "Withdrew"]
    fault = "data sales: column price is empty or NaN in all 28 rows of 2008-02.csv"
    assert story.detail(branch, "BuildFailed")["reason"] == fault
    assert shell.ledger("SELECT count(*) FROM revision WHERE branch = ?", branch) == [(0,)]
    made = [row["made"] for row in shell.ask("data", "log", "sales")["versions"]["sales"]]
    assert made == [
        ["housing@1.4.0"],
        [f"housing@{version}" for version in ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.1.1")],
    ]
    assert story.merges(branch) == 0


def check_git(story: Story, arrived: str, spoiled: str) -> None:
    """I1: the trunk shows the incumbent, one conclusion each; tags, kept code and branches are as they should be."""
    shell = story.shell
    assert shell.ask("parity") == {
        "schema": "branchline.parity/1", "ok": True, "services": ["housing"], "drifts": [],
    }  # fmt: skip
    (incumbent,) = [r for s in shell.ask("status")["services"] for r in s["rows"] if r["phase"] == "live"]
    assert (incumbent["version"], incumbent["share"], incumbent["healthy"]) == ("1.4.0", 100, True)
    merged = {"1.0.0": ADA, "1.1.0": ALEX, "1.1.1": FIX, "1.4.0": arrived}
    judged = {version: story.judged(branch) for version, branch in merged.items()}
    assert incumbent["commit"] == judged["1.4.0"]
    assert story.tree("main") == story.tree(judged["1.4.0"])
    trailers = shell.trailers()
    assert (len(trailers), len(set(trailers))) == (4, 4)
    assert all(re.fullmatch(r"housing/\d+", trailer) for trailer in trailers)
    refs = shell.refs()
    for version, commit in judged.items():
        assert refs[f"refs/tags/housing@v{version}"] == commit
        assert refs[f"refs/branchline/revisions/housing/{version}"] == commit
    for branch in (ALEX, arrived, spoiled):
        assert [name for name in refs if name.startswith(f"refs/branchline/archive/{branch}/")]
    assert shell.heads() == {"main", ROBIN}
    assert shell.is_whole()


def check_the_canary(story: Story) -> None:
    """3.18: the first takes 100 % at once; the second answers enough visitors without a failure, and takes over."""
    assert story.of(FIRST) == ["Opened", "Built", "GatesPassed", "Recorded"]
    assert story.versions[story.judged(FIRST)] == "1.0.0"
    events = story.of(KIM)
    assert (events[-2:], events.count("Won"), events.count("Recorded")) == (["Won", "Recorded"], 1, 1)
    assert story.detail(KIM, "Won")["reason"].startswith("challenger: ")
    answers = story.answers(KIM)
    assert answers[story.judged(KIM), False] >= 60
    assert not [arm for arm, failed in answers if failed]
    assert story.versions[story.judged(KIM)] == "1.1.0"
    assert (story.merges(FIRST), story.merges(KIM)) == (1, 1)


def check_the_dead(story: Story) -> None:
    """F63, 1.27: what its servers did not answer, the incumbent did; it counts as failed, and that ended it."""
    assert story.of(LOU)[-2:] == ["GatesPassed", "Breached"]
    assert "guardrail breached: failed requests" in story.detail(LOU, "Breached")["reason"]
    answers = story.answers(LOU)
    assert answers[story.judged(LOU), True] > 0
    assert (story.judged(KIM), True) not in answers
    ((stepped_in,),) = story.shell.ledger(
        "SELECT n FROM tally WHERE arm = ? AND what = 'stepped_in'", story.judged(LOU)
    )
    assert stepped_in == answers[story.judged(LOU), True]
    assert story.row(LOU)["state"] == "rolled back"
    assert story.merges(LOU) == 0


def check_the_breach(story: Story) -> None:
    """Seed 3, F68: every gate passes, some pages fail, the guardrail rolls it back; the branch stays."""
    judged = story.judged(MAX)
    assert story.gates(MAX) == {"unit": "pass", "acceptance": "pass"}
    assert story.of(MAX)[-2:] == ["GatesPassed", "Breached"]
    assert "guardrail breached: failed requests" in story.detail(MAX, "Breached")["reason"]
    answers = story.answers(MAX)
    assert answers[judged, True] > 0
    assert (story.judged(KIM), True) not in answers
    row = story.row(MAX)
    assert (row["state"], row["share"], row["commit"]) == ("rolled back", 0, judged)
    assert story.merges(MAX) == 0


def check_the_hotfix(story: Story) -> None:
    """1.53: begun from the incumbent, by canary, a patch of it, merged once."""
    events = story.of(PERCENT)
    assert (events[-2:], events.count("Won"), events.count("Recorded")) == (["Won", "Recorded"], 1, 1)
    assert story.detail(PERCENT, "Opened")["method"] == "patch"
    assert story.versions[story.judged(PERCENT)] == "1.1.1"
    assert story.merges(PERCENT) == 1


def check_the_rollback(story: Story) -> None:
    """3.13, 1.52: what served before serves again, with who did it and why, though no daemon ran; git shows it."""
    (undone,) = [entry for entry in story.entries if entry["event"] == "RolledBack"]
    assert (undone["actor"], undone["because"]) == ("Ada <ada@example.org>", UNDO)
    assert len(story.shell.ledger("SELECT number FROM epoch")) == 2
    incumbent = story.row("main")
    assert (incumbent["version"], incumbent["share"], incumbent["healthy"]) == ("1.1.0", 100, True)
    assert incumbent["commit"] == story.judged(KIM)
    assert story.tree("main") == story.tree(story.judged(KIM)) != story.tree(story.judged(PERCENT))


def check_the_twin(story: Story) -> None:
    """Seed 3: released like any other; what runs is Node and nothing else, whatever language we are written in."""
    assert story.of(TWIN) == ["Opened", "Built", "GatesPassed", "Recorded"]
    assert story.versions[story.judged(TWIN)] == "1.0.0"
    assert story.merges(TWIN) == 1
    ((supervisor, server),) = story.shell.instances_of("listings-node", "1.0.0")
    tree = psutil.Process(supervisor).children(recursive=True)
    assert [(each.pid, Path(each.exe()).name) for each in tree] == [(server, "node")]


def check_the_units(shell: Shell, service: str, version: str) -> None:
    """A service meets another at its stable address, for the same unit, and both say which revision answered."""
    unit, log = f"somebody-at-{service}", shell.state / "gateway" / "access.log"
    told: list[object] = []

    def valued() -> bool:  # who asks waits a second for the other, and does without
        answer = shell.call(f"/{service}/1", unit=unit)
        assert (answer.status, answer.revision) == (200, f"{service}@{version}")
        told.append(json.loads(answer.body)["by"])
        return told[-1] is not None

    shell.until("the other has answered in time", valued)
    assert told[-1] == "housing@1.0.0"
    shell.until(f"{unit} was seen at both", lambda: asked(log, unit) >= {"housing", service})


def asked(log: Path, unit: str) -> set[str]:
    """The services that a unit asked, by the gateway's log."""
    lines = [fields(line) for line in log.read_bytes().splitlines() if f'"{unit}"'.encode() in line]
    return {line["route"].split("/")[1] for line in lines if line}


def check_git_of_listings(story: Story) -> None:
    """I1: git shows what serves, one conclusion each; a rollback takes no tag away."""
    shell = story.shell
    parity = shell.ask("parity")
    assert (parity["ok"], parity["services"]) == (True, ["housing", "listings", "listings-node"])
    trailers = [trailer.partition("/")[0] for trailer in shell.trailers()]
    assert sorted(trailers) == ["housing", *["listings"] * 4, "listings-node"]
    refs = shell.refs()
    for version, branch in (("1.0.0", FIRST), ("1.1.0", KIM), ("1.1.1", PERCENT)):
        assert refs[f"refs/tags/listings@v{version}"] == story.judged(branch)
    assert shell.heads() == {"main", LOU, MAX}
    assert shell.is_whole()
