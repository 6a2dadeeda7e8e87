"""This file plays fixes and syncs on real parts: seed 1's four cases of experimenting and maintaining at once.

Each test has a service of its own in one repository, so that they run in any order; services need no package.
"""

from __future__ import annotations

import pytest

from tests.e2e.levels import absorbed, begin_fix, challenger, file_at, levels, released, until_won
from tests.typed import Shell, shares_of


@pytest.mark.timeout(600)
def test_the_four_bases_of_a_fix(shell: Shell) -> None:
    """1.53-1.57: sole revision, incumbent, challenger; and none of it waits for another engineer's experiment."""
    shell.first("base", levels("base", 0.2))
    sole = begin_fix(shell, "base", "--handle", "ada", text="one\n")
    assert (sole, shell.git("merge-base", "origin/main", f"origin/{sole}")) == (
        "fix--base--ada", shell.git("rev-parse", "origin/main"),
    )  # fmt: skip
    assert released(shell, "base", sole, "1.0.1")["version"] == "1.0.1"

    alex = challenger(shell, "base", "alex", 0.9)
    kim = shell.push("kim", {"base/level": "0.5\n"}, "base")
    shell.until_waits(kim, "slot")  # another engineer: built, evaluated, with a staging address of its own meanwhile
    before = shell.row(alex)
    hotfix = begin_fix(shell, "base", "--handle", "bob", text="two\n")
    incumbent = released(shell, "base", hotfix, "1.0.2")
    behind = shell.row(alex)["behind"]
    assert behind["serves"] == {"version": "1.0.2", "commit": incumbent["commit"], "branch": hotfix}
    assert behind["next"] == [f"branchline sync {alex}", f"branchline sync --keep {alex}"]
    told = shell.type("status", "base").out
    assert f"behind 1.0.2 ({hotfix}): branchline sync {alex}" in told
    assert shell.row(kim)["waits_for"] == "behind"
    (moved,) = [e for e in shell.history("base") if e["detail"].get("branch") == hotfix and e["event"] == "Recorded"]
    assert sorted(moved["detail"]["left_behind"]) == [alex, kim]
    assert f"{alex} is now behind" in shell.type("history", "base").out
    moving = dict.fromkeys(("behind", "detail", "measurement", "rates", "processes"))
    assert shell.row(alex) | moving == before | moving  # same commit, share and state: nobody was moved

    mend = begin_fix(shell, "base", "--on", "alex", "--handle", "cleo", path="words", text="three\n")
    assert mend == "fix--base--cleo--alex"
    assert shell.until_state(mend, "canary")["version"] == "1.1.1"  # of the challenger's version, not the incumbent's
    assert shares_of(shell, "base") == {"1.0.2": 60, "1.1.0": 20, "1.1.1": 20}  # inside its challenger's arm
    mended = absorbed(shell, "base", mend, "1.1.1")
    assert file_at(shell, alex, "base/words") == "three"
    assert (mended != before["commit"], mend in shell.heads()) == (True, False)
    assert shell.row(alex)["behind"]  # a fix of it is no sync

    synced = str(shell.ask("sync", alex)["branch"])
    assert synced == "fix--base--sync-1--alex"
    shell.until_state(synced, "canary")
    shell.ask_until_answered("base", "1.1.2")
    shell.kill()  # around its conclusion: the next daemon ends what this one began, once
    shell.type("up")
    absorbed(shell, "base", synced, "1.1.2")
    assert shell.events(synced).count("Recorded") == 1
    assert (shell.row(alex)["behind"], shell.row(alex)["version"]) == (None, "1.1.2")
    assert [file_at(shell, alex, f"base/{path}") for path in ("note", "words", "level")] == ["two", "three", "0.9"]
    judged = shell.row(alex)["commit"]
    until_won(shell, "base", alex)
    assert shell.until_live("base", judged)["version"] == "1.1.2"
    assert [file_at(shell, "main", f"base/{path}") for path in ("note", "words", "level")] == ["two", "three", "0.9"]
    assert shell.type("parity").code == 0
    check_a_sync_before_traffic(shell, kim)


def check_a_sync_before_traffic(shell: Shell, kim: str) -> None:
    """An ordinary merge, in the work tree, and a push: it is built anew and seated."""
    shell.mine(kim)
    assert shell.row(kim)["waits_for"] == "behind"
    told = shell.type("sync", kim, ok=1)  # both have changed the level
    assert "error[BL205]" in told.err
    assert "base/level" in told.err
    (shell.work / "base" / "level").write_text("0.5\n")
    shell.git("commit", "--quiet", "--all", "--no-edit")
    shell.type("deploy", kim)
    assert shell.until_state(kim, "A/B test")["behind"] is None


@pytest.mark.timeout(600)
def test_a_sync_that_conflicts_says_what_to_type_and_touches_nothing(shell: Shell) -> None:
    """1.57: the work tree stays as it is; what is typed by hand is canaried and absorbed all the same."""
    shell.first("clash", levels("clash", 0.2))
    alex = shell.push("alex", {"clash/level": "0.9\n", "clash/note": "alex\n"}, "clash")
    shell.until_state(alex, "A/B test")
    released(shell, "clash", begin_fix(shell, "clash", "--handle", "ada", text="ada\n"), "1.0.1")
    shell.on_main()
    (shell.work / "clash" / "note").write_text("my own words, not committed\n")
    assert shell.row(alex)["behind"]["conflicts"] == ["clash/note"]  # known before anything is tried
    planned = shell.ask("sync", alex, "--dry-run")
    assert (planned["branch"], planned["done"]) == ("fix--clash--sync-1--alex", False)
    assert "fix--clash--sync-1--alex" not in shell.heads()
    problem = shell.refused("sync", alex, ok=1)
    assert (problem["code"], "clash/note" in problem["title"]) == ("BL205", True)
    assert (shell.work / "clash" / "note").read_text() == "my own words, not committed\n"
    assert shell.git("symbolic-ref", "--short", "HEAD") == "main"
    shell.git("checkout", "--quiet", "--", "clash/note")
    first, merge = problem["hint"].partition(";")[0].split(" && ")
    shell.git(*first.split()[1:])
    with pytest.raises(Exception, match="merge"):  # it conflicts
        shell.git(*merge.split()[1:])
    (shell.work / "clash" / "note").write_text("both\n")
    shell.git("commit", "--quiet", "--all", "-m", "Merge both")
    shell.type("deploy")
    assert "under way" in shell.refused("sync", alex, ok=3)["detail"]
    absorbed(shell, "clash", "fix--clash--sync-1--alex", "1.1.1")
    assert (file_at(shell, alex, "clash/note"), shell.row(alex)["behind"]) == ("both", None)
    assert "it was up to date" in shell.type("sync", alex).err


@pytest.mark.timeout(600)
def test_keep_replaces_what_came_meanwhile_and_says_so_before(shell: Shell) -> None:
    """1.57: a winner that waits for nothing but `behind` concludes by --keep; the patch is named, and is gone."""
    shell.first("keep", levels("keep", 0.2))
    alex = challenger(shell, "keep", "alex", 0.9)
    patch = begin_fix(shell, "keep", "--handle", "ada", text="ada\n")
    commit = released(shell, "keep", patch, "1.0.1")["commit"]
    until_won(shell, "keep", alex)
    row = shell.until_waits(alex, "behind")
    assert (row["state"], shares_of(shell, "keep")) == ("won", {"1.0.1": 60, "1.1.0": 40})  # traffic as it was
    planned = shell.ask("sync", "--keep", alex, "--dry-run")
    assert commit in [lost["commit"] for lost in planned["loses"]]
    said = shell.type("sync", "--keep", alex, ok=2)  # nobody to ask, and not told --yes
    assert "loses" in said.err
    assert "Mend note" in said.err
    assert shell.row(alex)["state"] == "won"
    done = shell.type("sync", "--keep", alex, "--yes", "--because", "it is another thing altogether")
    assert "Mend note" in done.err
    shell.until_live("keep", row["commit"])
    assert (file_at(shell, "main", "keep/note"), file_at(shell, "main", "keep/level")) == ("first", "0.9")


@pytest.mark.timeout(600)
def test_a_bad_fix_leaves_its_challenger_and_a_gone_challenger_takes_its_fixes_along(shell: Shell) -> None:
    """law: breached in a challenger's arm, only the fix goes back; aborted, the challenger's fixes are superseded."""
    shell.first("bad", levels("bad", 0.2, requests=200))
    alex = challenger(shell, "bad", "alex", 0.9)
    judged = shell.row(alex)["commit"]
    harm = begin_fix(shell, "bad", "--on", "alex", "--handle", "ada", path="mode", text="fails\n")
    shell.until_state(harm, "canary")
    number = 0
    while shell.row(harm).get("state") == "canary":
        for each in range(number, number + 40):
            shell.call("/bad/", "POST", {}, f"unit-{each}")
        number += 40
        assert number <= 4000, shell.row(harm)
    assert shell.row(harm)["state"] == "rolled back"
    shell.until("its arm is its own again", lambda: shares_of(shell, "bad") == {"1.0.0": 60, "1.1.0": 40})
    assert (shell.row(alex)["state"], shell.row(alex)["commit"]) == ("A/B test", judged)

    mend = begin_fix(shell, "bad", "--on", "alex", "--handle", "bob")
    shell.until_state(mend, "canary")
    shell.type("abort", alex, "--yes", "--because", "it is red")
    assert shell.until_state(mend, "superseded")["share"] == 0
    shell.until("all is the incumbent's", lambda: shares_of(shell, "bad") == {"1.0.0": 100})
    assert {alex, mend} <= shell.heads()  # nothing is lost
    problem = shell.refused("fix", "bad", "--on", "alex", "--handle", "late", ok=3)
    assert f"git switch {alex}" in problem["hint"]


@pytest.mark.timeout(600)
def test_a_winner_and_a_hotfix_want_the_same_arm(shell: Shell) -> None:
    """law: who is in it first goes on, the other waits (`arm busy`) and is then behind."""
    shell.first("busy", levels("busy", 0.2, requests=100_000))
    alex = challenger(shell, "busy", "alex", 0.9)
    hotfix = begin_fix(shell, "busy", "--handle", "ada")
    shell.until_state(hotfix, "canary")
    assert shares_of(shell, "busy") == {"1.0.0": 30, "1.0.1": 30, "1.1.0": 40}
    until_won(shell, "busy", alex)
    assert shell.until_waits(alex, "arm busy")["state"] == "won"
    shell.type("abort", hotfix, "--yes")  # who was first leaves: the winner goes on by itself
    shell.until_live("busy", shell.row(alex).get("commit") or shell.row("busy@incumbent")["commit"])
    assert shares_of(shell, "busy") == {"1.1.0": 100}
