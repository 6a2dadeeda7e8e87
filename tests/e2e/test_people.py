"""This file types what people decide: more time, a benchmark, and whatever cannot be decided now.

Approval, freeze, thaw, split, abort and close on their straight way are in `test_commands`. What is refused names its
code and the next command, and leaves history, git and gateway as they were.
"""

from __future__ import annotations

import os

import pytest

from tests.typed import LOG, Shell, app, shares_of

ENVIRON = {"UV_OFFLINE": "1"}
HOLDS = 1_000_000  # requests that no canary here ever gets
METRIC = 'metric = { name = "score", bounds = [0, 1], mde = 0.3, window = "1s" }'


def tried(name: str) -> dict[str, str]:
    """The files of a service that is tested by A/B, for a second and not longer."""
    files = app(name, rollout=', max_duration = "1s"', more=METRIC)
    return {**files, f"{name}/branchline.toml": files[f"{name}/branchline.toml"].replace('"app"', '"model"')}


def ask_until(shell: Shell, service: str, branch: str, state: str) -> None:
    """Send requests of ever new units until a branch is in a state."""

    def there() -> bool:
        shell.call(f"/{service}/", unit=os.urandom(6).hex())
        return shell.row(branch).get("state") == state

    shell.until(f"{branch} is {state}", there)


def test_a_test_without_a_verdict_gets_more_time(shell: Shell) -> None:
    """1.42: out of traffic, the branch stays; `extend` puts the same revision under test again."""
    shell.first("slow", {**tried("slow"), "slow/EXPERIMENT.md": LOG})
    branch = shell.push("alex", {"slow/NOTE": "two\n"}, "slow")
    judged = shell.tip(branch)
    shell.until_state(branch, "A/B test")
    assert shell.refused("extend", branch, ok=3)["code"] == "BL105"  # it has time left
    ask_until(shell, "slow", branch, "inconclusive")
    assert shell.events(branch)[-1] == "Undecided"
    shell.until_rest()
    assert shares_of(shell, "slow") == {"1.0.0": 100}
    assert branch in shell.heads()
    extended = shell.ask("extend", branch, "--because", "holidays")
    assert (extended["event"], extended["recorded"]) == ("Extended", True)
    assert ["traffic", "1.0.0 50%, 1.1.0 50%"] in extended["steps"]
    assert shell.until_state(branch, "A/B test", "inconclusive")["commit"] == judged
    (entry,) = [each for each in shell.history("slow") if each["event"] == "Extended"]
    assert (entry["because"], entry["actor"]) == ("holidays", "Test <test@example.invalid>")
    assert shell.git("rev-parse", "main:slow", at=shell.truth) != shell.git(
        "rev-parse", f"{judged}:slow", at=shell.truth
    )
    shell.type("close", branch, "--yes")
    shell.until("it is archived", lambda: f"refs/branchline/archive/{branch}/{judged}" in shell.refs())
    shell.until_rest()


def test_a_benchmark_is_measured_and_gets_no_traffic(shell: Shell) -> None:
    """Seed 1, V0: built, started in staging, put to its gates; no version, no route, no process afterwards."""
    shell.first("yard", app("yard"))
    files = app("yard", note="the average of last year")
    files["yard/branchline.toml"] = f"benchmark = true\n{files['yard/branchline.toml']}"
    branch = shell.push("zero", files, "yard")
    judged = shell.tip(branch)
    shell.mine(branch)
    deployed = shell.ask("deploy", branch)
    assert (deployed["rest"], deployed["commit"]) == ("measured", judged)
    row = shell.until_state(branch, "measured")
    assert (row["share"], row["version"], row["detail"]) == (0, "1.1.0-zero.1", "files: exit 0")
    assert [line for line in shell.type("status", "yard").out.splitlines() if "measured" in line]
    assert shares_of(shell, "yard") == {"1.0.0": 100}
    shell.until("staging is empty", lambda: not shell.instances_of("yard", "1.1.0-zero.1"))
    finals = shell.ledger('SELECT version FROM version WHERE service = ? AND final AND "commit" = ?', "yard", judged)
    assert finals == []
    assert shell.events(branch) == ["Opened", "Built", "GatesPassed"]
    for words in (("approve", branch), ("split", branch, "--share", "20"), ("extend", branch), ("abort", branch)):
        assert shell.refused(*words, *([] if words[0] == "extend" else ["--yes"]), ok=3)["code"] == "BL105", words
    shell.write(branch, {"yard/branchline.toml": app("yard")["yard/branchline.toml"]}, message="In earnest")
    shell.until_state(branch, "canary")  # it is a candidate like any other now
    shell.type("close", branch, "--yes")
    shell.until_rest()


@pytest.fixture(scope="module")
def odd(shell: Shell) -> str:
    """A service with a canary that never ends; returns its branch."""
    shell.first("odd", app("odd", requests=HOLDS))
    branch = shell.push("alex", {"odd/NOTE": "two\n"}, "odd")
    shell.until_state(branch, "canary")
    return branch


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("approve BRANCH", "BL105"),
        ("extend BRANCH", "BL105"),
        ("split BRANCH --share 20", "BL105"),
        ("thaw odd", "BL105"),
        ("retire odd 1", "BL105"),
        ("retire odd 2", "BL105"),
        ("close odd@incumbent", "BL105"),
        ("abort odd@1.0.0", "BL105"),
        ("close experiment--odd--nobody", "BL104"),
        ("approve odd@9.9.9", "BL104"),
        ("freeze od", "BL102"),
        ("close Odd", "BL101"),
    ],
)
def test_what_cannot_be_decided_is_refused_with_words(shell: Shell, odd: str, words: str, code: str) -> None:
    """I9: nothing is recorded; code, cause and what to type next are told."""
    typed = words.replace("BRANCH", odd).split()
    asked = [] if typed[0] in ("extend", "thaw", "freeze") else ["--yes"]
    before, heads, shares = shell.history("odd"), shell.heads(), shares_of(shell, "odd")
    told = shell.refused(*typed, *asked, ok=3 if code == "BL105" else 2)
    assert (told["code"], bool(told["title"]), bool(told["hint"])) == (code, True, True)
    assert told.get("detail") or code != "BL105"
    assert (shell.history("odd"), shares_of(shell, "odd")) == (before, shares)
    assert heads - shell.heads() == set()


def test_what_changes_production_asks_first(shell: Shell, odd: str) -> None:
    """Without a terminal there is nobody to ask: --yes has to be said (BL110); a freeze is taken back as easily."""
    before = shell.history("odd")
    asking = (("approve", odd), ("close", odd), ("abort", odd), ("retire", "odd", "1"), ("rollback", "odd"))
    for words in (*asking, ("split", odd, "--share", "20")):
        told = shell.type(*words, "--json", ok=(2, 3)).problem
        assert told["code"] in ("BL110", "BL105"), words  # what cannot be is not asked for
    shell.type("split", odd, "--share", "99", ok=2)
    assert shell.history("odd") == before
    for command, then in (("freeze", "thaw"), ("thaw", "freeze")):
        assert shell.type(command, "odd").err.splitlines()[-1].endswith(f"undo: branchline {then} odd")
        assert shell.refused(command, "odd", ok=3)["code"] == "BL105"  # it is so already
