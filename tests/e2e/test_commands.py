"""This file types what people type, on two revisions of light services: what is printed, planned and done is one thing.

Each test has a service of its own in one repository, so that they run in any order.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.typed import Answer, Document, Shell, app, model, path_of, planned_deletions, planned_shares, shares_of

HOLDS = 1_000_000  # requests that no canary here ever gets


def lay(shell: Shell, files: Mapping[str, str], message: str) -> None:
    """Write files into the work tree and commit them there, as a person does."""
    for path, text in files.items():
        place = shell.work / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    shell.git("add", "--all")
    shell.git("commit", "--quiet", "-m", message)


def score(dice: random.Random) -> Callable[[Answer], float]:
    """An outcome that follows the level that was answered, with noise."""

    def value(answer: Answer) -> float:
        return min(1.0, max(0.0, float(json.loads(answer.body)["prediction"]) + dice.uniform(-0.1, 0.1)))

    return value


def planned_then_done(shell: Shell, *words: str) -> list[list[str]]:
    """Type a command as a dry run, which changes nothing, and then in earnest: the plan is the same.

    What was still to be done before would be in the first plan, and perhaps not in the second.
    """
    shell.until_rest()
    service = words[1].split("@")[0].split("--")[1] if "--" in words[1] else words[1]
    before = shell.history(service)
    planned = shell.ask(*words, "--dry-run")
    assert shell.history(service) == before
    done = shell.ask(*words, "--yes", "--because", "a test")
    assert (planned["schema"], planned["recorded"], done["recorded"]) == ("branchline.plan/1", False, True)
    assert planned["steps"] == done["steps"]
    assert "a test" in [entry["because"] for entry in shell.history(service)[len(before) :]]
    return [list(step) for step in done["steps"]]


def names_of(document: Document) -> set[str]:
    """The names of the steps in the notes or runs of a document."""
    return {step["step"] for step in document["steps"]}


def test_a_first_revision_from_the_work_tree_to_all_traffic(shell: Shell) -> None:
    """1.01, 1.09, 1.30: check, run twice, deploy; 100 %, merged, branch deleted; the second run reuses everything."""
    shell.git("fetch", "--quiet", "--prune")
    shell.git("switch", "--quiet", "--no-track", "-c", "experiment--first--ada", "origin/main")
    lay(shell, model("first", 0.4), "Answer 0.4")
    assert shell.ask("check", "first") | {"services": []} == {
        "schema": "branchline.check/1", "ok": True, "services": [], "problems": [], "notices": [],
    }  # fmt: skip
    runs = [shell.type("run", "first", "--json").out.splitlines() for _ in range(2)]
    notes = [[json.loads(line) for line in run] for run in runs]
    assert {note["schema"] for run in notes for note in run} == {"branchline.note/1"}
    marks = [
        {note["name"]: note["mark"] for note in reversed(run) if note["name"] in ("env", "level")} for run in notes
    ]
    assert marks[0]["level"] == "ok"
    assert marks[1] == {"env": "=", "level": "="}
    assert shell.history("first") == []  # what `run` made is no candidate

    judged = shell.git("rev-parse", "HEAD")
    deployed = shell.type("deploy")
    address = deployed.out.strip()
    home = deployed.err.splitlines()[-1].removeprefix("next     ")
    answer = shell.call(path_of(address), "POST", {})
    assert (answer.status, answer.revision, json.loads(answer.body)) == (200, "first@1.0.0", {"prediction": 0.4})
    row = shell.until_live("first", judged)
    assert (row["version"], row["share"], row["branch"]) == ("1.0.0", 100, "main")
    assert "experiment--first--ada" not in shell.heads()
    refs = shell.refs()
    assert refs["refs/tags/first@v1.0.0"] == judged
    assert shell.git("rev-parse", "main:first", at=shell.truth) == shell.git("rev-parse", f"{judged}:first")
    assert sum(line.startswith("first/") for line in shell.trailers()) == 1
    assert home == "git switch main && git pull --ff-only origin main"  # the branch that is checked out has gone
    subprocess.run(["sh", "-c", home], cwd=shell.work, check=True, capture_output=True)
    assert shell.git("rev-parse", "main") == shell.tip("main")
    lines = shell.type("notes", "first@1.0.0").out.splitlines()
    assert lines[0] == "# first 1.0.0"
    assert any(line.startswith("- Answer 0.4 (") for line in lines)
    why = shell.ask("why", "first@1.0.0")
    assert [(step["step"], step["state"]) for step in why["steps"]] == [("level", "ran")]


def test_two_revisions_share_traffic_until_the_verdict(shell: Shell) -> None:
    """1.34, 1.37, 1.38, 1.47, 1.51, 2.30, 3.02: the whole of an A/B test by commands, and a rollback of its winner."""
    first = shell.first("pair", model("pair", 0.2))
    shell.git("switch", "--quiet", "main")
    shell.git("pull", "--quiet", "--ff-only")
    started = shell.type("start", "pair", "--handle", "alex", "--because", "A higher level scores more")
    assert "experiment--pair--alex" in started.out
    lay(shell, {"pair/steps.py": model("pair", 0.9)["pair/steps.py"]}, "Answer 0.9")
    branch, judged = "experiment--pair--alex", shell.git("rev-parse", "HEAD")
    assert shell.ask("deploy")["rest"] == "serves"
    assert shares_of(shell, "pair") == {"1.0.0": 50, "1.1.0": 50}

    pinned = {"1.0.0": "1.0.0", "1.1.0": "1.1.0", "alex": "1.1.0", branch: "1.1.0", judged: "1.1.0"}
    for pin, version in pinned.items():
        by_path = shell.call(f"/pair@{pin}/", "POST", {})
        by_header = shell.call("/pair/", "POST", {}, x_branchline_pin=pin)
        assert (by_path.revision, by_header.revision) == (f"pair@{version}", f"pair@{version}"), pin

    def sticky() -> bool:  # but for the moment in which somebody steps in
        met = [{shell.call("/pair/", "POST", {}, unit).revision for _ in range(3)} for unit in ("a", "b", "c")]
        return all(len(revisions) == 1 for revisions in met)

    shell.until("each unit meets one revision", sticky)

    assert shell.type("conclude", branch, ok=5).err.splitlines()[-1].startswith("undecided yet")
    steps = planned_then_done(shell, "split", branch, "--share", "40")
    assert planned_shares(steps) == shares_of(shell, "pair") == {"1.0.0": 60, "1.1.0": 40}
    check_reads(shell, branch)
    assert shell.call("/pair/-/outcomes", "POST", [{"unit": "a", "value": 1}]).status == 200  # at once, F76
    check_outcomes(shell)

    dice, number = random.Random(7), 0
    while shell.row(branch).get("state") == "A/B test":
        shell.see("pair", [f"unit-{number + each}" for each in range(40)], score(dice))
        number += 40
        assert number <= 4000, shell.row(branch)
    assert shell.until_live("pair", judged)["version"] == "1.1.0"
    assert shares_of(shell, "pair") == {"1.1.0": 100}
    told = shell.call(
        "/pair/-/outcomes", "POST", [{"unit": unit, "value": 0.5, "id": "after"} for unit in ("a", "new")]
    )
    assert (told.status, json.loads(told.body)["outcomes"]) == (200, ["late", "unmeasured"])  # no client breaks now
    assert shell.events(branch)[-2:] == ["Won", "Recorded"]
    assert branch not in shell.heads()

    laid = shell.ask("checkout", "pair@1.0.0", "--into", str(shell.folder / "pair-1.0.0"))
    assert laid["schema"] == "branchline.checkout/1"
    assert "0.2" in (Path(laid["folder"]) / "pair" / "steps.py").read_text(encoding="utf-8")
    assert Path(laid["python"]).exists()
    assert (Path(laid["artifacts"]["level"]) / "value.json").exists()

    steps = planned_then_done(shell, "rollback", "pair")
    assert planned_shares(steps) == shares_of(shell, "pair") == {"1.0.0": 100}
    shell.until_live("pair", first)
    shown = [shell.git("rev-parse", f"{ref}:pair", at=shell.truth) for ref in ("main", first)]
    assert shown[0] == shown[1]
    assert shell.type("parity").code == 0


def check_reads(shell: Shell, branch: str) -> None:
    """Every command that looks prints a document with its schema id (2.30), and changes nothing."""
    before = shell.history("pair")
    wanted = {
        ("status",): "status", ("status", "pair"): "status", ("parity",): "parity", ("history", "pair"): "history",
        ("why", branch): "why", ("why", branch, "level"): "why", ("logs", branch): "logs", ("logs", "daemon"): "logs",
        ("logs", "gateway"): "logs", ("explain", "BL412"): "errors", ("explain",): "errors", ("up",): "up",
    }  # fmt: skip
    for words, schema in wanted.items():
        assert shell.ask(*words)["schema"] == f"branchline.{schema}/1", words
        typed = shell.type(*words)
        assert (typed.out + typed.err).strip(), words
    assert names_of(shell.ask("why", branch)) == {"level"}
    assert shell.history("pair") == before


def check_outcomes(shell: Shell) -> None:
    """F75, F77, F78: a duplicate counts once, another value and strangers not at all, what is no number is an error."""

    def told(*reports: Document) -> tuple[int, list[str]]:
        answer = shell.call("/pair/-/outcomes", "POST", list(reports))
        return answer.status, json.loads(answer.body).get("outcomes", [])

    asked: list[Answer] = []

    def kept() -> bool:  # at once; on a busy machine the window, a second, may be over by then
        unit = f"d{len(asked)}"
        asked.append(shell.call("/pair/", "POST", {}, unit))
        return told({"unit": unit, "value": 0.5}, {"unit": "nobody", "value": 0.5}) == (200, ["kept", "unknown"])

    shell.until("an outcome is kept", kept)
    unit = f"d{len(asked) - 1}"
    assert told({"unit": unit, "value": 0.5}) == (200, ["duplicate"])
    assert told({"unit": unit, "value": 0.6}) == (200, ["conflict"])
    assert told({"unit": "nobody", "value": 0.6}) == (200, ["unknown"])
    assert told({"request_id": asked[-1].headers["x-request-id"], "value": 0.5})[1] in (["kept"], ["late"])
    for body in ('[{"unit": "d", "value": NaN}]', '[{"unit": "d", "value": "1"}]', '[{"unit": "d", "value": true}]'):
        with shell.connected() as connection:
            connection.request("POST", "/pair/-/outcomes", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            problem = json.loads(answer.read())
            assert (answer.status // 100, problem["status"], problem["code"]) == (4, answer.status, "BL611")


def test_who_asks_for_approval_first_is_asked_in_staging(shell: Shell) -> None:
    """1.41, 3.15: what waits for a person answers at its staging address, and goes on when it is approved."""
    first = shell.push("first", app("before", rollout=', approval = "before"'), "before")
    commit = shell.until_waits(first, "approval")["commit"]
    shell.type("approve", "before@first", "--yes")
    shell.until_live("before", commit)
    branch = shell.push("alex", {"before/NOTE": "two\n"}, "before")
    judged = shell.tip(branch)
    shell.mine(branch)
    deployed = shell.ask("deploy", branch)
    assert (deployed["rest"], deployed["text"]) == ("waits", f"{branch} is queued and waits for: approval")
    staged = path_of(deployed["address"])  # it has its final version by now: the gateway hears of that name in a moment
    shell.until("it answers in staging", lambda: shell.call(staged).status == 200)
    assert shell.call(staged).revision.partition("-")[0] == "before@1.1.0"
    assert shares_of(shell, "before") == {"1.0.0": 100}
    assert shell.refused("approve", branch, ok=2)["code"] == "BL110"  # nobody to ask, and not told --yes
    steps = planned_then_done(shell, "approve", branch)
    assert planned_shares(steps) == {"1.0.0": 50, "1.1.0": 50}
    shell.ask_until_answered("before", "1.1.0")
    shell.until_live("before", judged)
    assert shell.history("before")[-1]["event"] in ("Recorded", "Cooled")


def test_who_asks_for_approval_last_concludes_when_told(shell: Shell) -> None:
    """1.41: a verdict that waits for a person is shown by `conclude`, which is how it is agreed to."""
    shell.first("after", app("after", rollout=', approval = "after"'))
    branch = shell.push("alex", {"after/NOTE": "two\n"}, "after")
    judged = shell.tip(branch)
    shell.until_state(branch, "canary")
    shell.ask_until_answered("after", "1.1.0")
    assert shell.until_state(branch, "won")["waits_for"] == "approval"
    steps = planned_then_done(shell, "conclude", branch)
    assert planned_shares(steps) == {"1.1.0": 100}
    assert planned_deletions(steps) == {branch}
    shell.until_live("after", judged)
    assert shares_of(shell, "after") == {"1.1.0": 100}
    assert branch not in shell.heads()


def test_a_freeze_holds_everybody_until_the_thaw(shell: Shell) -> None:
    """1.52, 3.13: frozen is waited for, nothing else changes; abort and rollback are not held (see below)."""
    shell.first("cold", app("cold"))
    assert planned_then_done(shell, "freeze", "cold") == []
    branch = shell.push("alex", {"cold/NOTE": "two\n"}, "cold")
    judged = shell.tip(branch)
    assert shell.until_waits(branch, "frozen")["state"] == "queued"
    assert shares_of(shell, "cold") == {"1.0.0": 100}
    assert any(line.startswith("frozen") for line in shell.type("status", "cold").out.splitlines())
    planned_then_done(shell, "thaw", "cold")
    shell.until_state(branch, "canary")
    shell.ask_until_answered("cold", "1.1.0")
    shell.until_live("cold", judged)


def test_an_abort_leaves_the_branch_and_a_close_archives_it(shell: Shell) -> None:
    """1.33, 1.44: out of traffic at once, frozen or not; given up, the branch goes unmerged and its code stays."""
    shell.first("left", app("left", requests=HOLDS))
    branch = shell.push("alex", {"left/NOTE": "two\n"}, "left")
    judged = shell.tip(branch)
    shell.until_state(branch, "canary")
    planned_then_done(shell, "freeze", "left")
    steps = planned_then_done(shell, "abort", branch)
    assert planned_shares(steps) == shares_of(shell, "left") == {"1.0.0": 100}
    assert shell.until_state(branch, "rolled back")["share"] == 0
    assert branch in shell.heads()
    steps = planned_then_done(shell, "close", branch)
    assert planned_deletions(steps) == {branch}
    shell.until("the branch is gone", lambda: branch not in shell.heads())
    shell.until_rest()
    assert shell.refs()[f"refs/branchline/archive/{branch}/{judged}"] == judged
    assert shell.git("for-each-ref", "--contains", judged, "refs/heads/", at=shell.truth) == ""
    assert sum(line.startswith("left/") for line in shell.trailers()) == 1


def test_a_rollback_needs_no_daemon_and_git_follows(shell: Shell) -> None:
    """1.44, 3.13, F57: the daemon is killed, the command works from the gateway's own files, the next daemon adopts."""
    first = shell.first("dead", app("dead"))
    branch = shell.push("alex", {"dead/NOTE": "two\n"}, "dead")
    second = shell.tip(branch)
    shell.until_state(branch, "canary")
    shell.ask_until_answered("dead", "1.1.0")
    shell.until_live("dead", second)
    assert shell.history("dead")[-1]["event"] in ("Recorded", "Cooled")
    shell.until("the one before is let go", lambda: shell.history("dead")[-1]["event"] == "Cooled")
    shell.until("the one before is gone", lambda: not shell.instances_of("dead", "1.0.0"))
    shell.until_rest()
    shell.kill()
    told = shell.refused("rollback", "dead", "--yes", ok=69)  # the one before does not run any more
    assert told["code"] == "BL503"
    shell.type("up")
    shell.until_rest()
    assert shell.row("dead@incumbent")["commit"] == second

    warm = app("dead")["dead/branchline.toml"].replace('warm = "0s"', 'warm = "1h"')
    third = shell.tip(shell.push("warm", {"dead/branchline.toml": warm}, "dead"))
    shell.until_state("experiment--dead--warm", "canary")
    shell.ask_until_answered("dead", "1.2.0")
    shell.until_live("dead", third)
    shell.kill()
    done = shell.type("rollback", "dead", "--yes", "--because", "it is red")
    assert "the daemon does not answer" in done.err
    assert shell.call("/dead/").revision == "dead@1.1.0"
    shell.type("up")
    shell.until_live("dead", second)
    rolled = [entry for entry in shell.history("dead") if entry["event"] == "RolledBack"]
    assert [(entry["because"], entry["actor"]) for entry in rolled] == [("it is red", "Test <test@example.invalid>")]
    shown = [shell.git("rev-parse", f"{ref}:dead", at=shell.truth) for ref in ("main", second, first)]
    assert shown[0] == shown[1] != shown[2]
