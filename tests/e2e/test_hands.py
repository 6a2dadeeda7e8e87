"""This file lets hands into git while Branchline works, on real parts: a commit of somebody's own, a forge's button.

Only a verdict changes what serves; what was done by hand is named, with what to type, and nothing is lost. The rest of
what hands can do is played in `tests/stories/test_engine_hands.py`. Faults F30 to F33.
"""

from __future__ import annotations

import json

import pytest

from tests.typed import Shell, app, shares_of

ENVIRON = {"UV_OFFLINE": "1"}


def note(shell: Shell, name: str, ref: str = "main") -> str:
    """What the file of a service says in the truth."""
    return shell.git("show", f"{ref}:{name}/NOTE", at=shell.truth)


@pytest.mark.timeout(600)
def test_somebodys_own_commit_on_the_trunk_is_named_and_tried_as_a_fix(shell: Shell) -> None:
    """F33: a newcomer's commit on main. Who begins there is told; typed as it is printed, it goes the usual way."""
    shell.first("desk", app("desk", note="first"))
    shell.write("main", {"desk/NOTE": "by hand\n"}, message="Just a small thing")
    shell.until("it is told", lambda: "BL206: main holds" in json.dumps(shell.status()))
    drift = next(each for each in shell.type("parity", "--json", ok=1).document["drifts"] if each["service"] == "desk")
    assert (drift["drift"], drift["what"]) == ("trunk is not the incumbent", "main shows no known revision")
    shell.on_main()
    begun = shell.type("start", "desk", "--handle", "kim", "--because", "It is nicer.")
    assert "note     main shows no known revision of desk: somebody wrote there. Your branch holds that" in begun.err
    assert f"undo it  {drift['repair']}" in begun.err
    assert "or else  branchline fix desk && branchline deploy tries it as a fix" in begun.err
    shell.on_main()
    shell.type("fix", "desk", "--handle", "kim")
    shell.type("deploy")
    branch = "fix--desk--kim"
    shell.until_state(branch, "canary")
    shell.until("the trunk shows what serves", lambda: note(shell, "desk") == "first")
    commit = shell.tip(branch)
    shell.ask_until_answered("desk", "1.0.1")
    shell.until_live("desk", commit)
    assert note(shell, "desk") == "by hand"
    assert shell.type("parity").code == 0
    shell.remove("experiment--desk--kim")


@pytest.mark.timeout(600)
def test_what_a_forge_merged_without_a_verdict_is_undone_and_says_how_to_try_it_again(shell: Shell) -> None:
    """F31: merged and deleted at once, as their button does. Before that, a force-push that waits for its turn."""
    shell.first("shelf", app("shelf", note="first"))
    branch = shell.push("sam", app("shelf", requests=10_000, note="second"), "shelf")
    version = shell.until_state(branch, "canary")["version"]
    judged = shell.tip(branch)
    shell.reset(branch, shell.write("rewritten", app("shelf", requests=10_000, note="rewritten")))  # at one stroke
    shell.until("the push is noted", lambda: "Pushed" in shell.events(branch))
    assert (shell.row(branch)["commit"], set(shares_of(shell, "shelf"))) == (judged, {"1.0.0", version})
    shell.reset(branch, judged)
    shell.until("that one, too", lambda: shell.events(branch).count("Pushed") == 2)
    words = ("commit-tree", f"{judged}^{{tree}}", "-p", "main", "-m", "Merge pull request (#7)")
    squashed = shell.git(*words, at=shell.truth)
    button = f"update refs/heads/main {squashed}\ndelete refs/heads/{branch}\n"
    shell.git("update-ref", "--stdin", at=shell.truth, stdin=button)
    shell.until("it is withdrawn", lambda: "Withdrew" in shell.events(branch))
    shell.until("the trunk shows what serves", lambda: note(shell, "shelf") == "first")
    shell.until_rest()
    assert shares_of(shell, "shelf") == {"1.0.0": 100}
    (why,) = [each["detail"]["reason"] for each in shell.history("shelf") if each["event"] == "Withdrew"]
    again = f"branchline start shelf, then: git checkout {squashed[:12]} -- shelf"
    assert why == f"it was merged by hand without a verdict: main shows what serves again; to try it again: {again}"
    assert why in shell.type("history", "shelf").out
    shell.on_main()
    shell.type("start", "shelf", "--handle", "sam", "--because", "It was good.")
    shell.git("checkout", squashed[:12], "--", "shelf")
    shell.git("commit", "--quiet", "-m", "Try it again")
    shell.type("deploy")
    assert shell.until_state(branch, "canary")["commit"] == shell.tip(branch) != judged
    assert shell.type("parity").code == 0
