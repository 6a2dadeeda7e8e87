"""This file releases a service by a change of colours on real parts, and asks both of them by the request console.

Requirements: 3.18 (blue/green), 2.45 (a request console), 1.45 and 1.46 (nothing is lost on the way, nor on the way
back).
"""

from __future__ import annotations

import os

import pytest

from tests.typed import Answer, Shell, app, path_of, planned_shares, shares_of

ENVIRON = {"UV_OFFLINE": "1"}
BLUE, GREEN = "paint@1.0.0", "paint@1.1.0"


def colours(note: str) -> dict[str, str]:
    """A service that is released by a change of colours."""
    files = app("paint", rollout=', method = "blue-green"', note=note)
    return {path: text.replace('warm = "0s"', 'warm = "1h"') for path, text in files.items()}


def ask_while(shell: Shell, *words: str) -> list[Answer]:
    """What ever new units were answered while a command was typed, and just after it."""
    typing, answers = shell.begin(*words), list[Answer]()
    while typing.poll() is None:
        answers.append(shell.call("/paint/", unit=os.urandom(6).hex()))
    assert typing.wait() == 0, typing.communicate()
    typing.communicate()
    return [*answers, shell.call("/paint/", unit="last")]


@pytest.mark.timeout(600)
def test_a_second_colour_stands_by_takes_all_at_a_word_and_gives_it_back_3_18(shell: Shell) -> None:
    shell.first("paint", colours("blue"))
    branch = shell.push("green", colours("green"), "paint")
    judged = shell.tip(branch)
    shell.until("green stands by", lambda: shell.row(branch).get("waits_for") and shell.row(branch)["healthy"])
    shell.mine(branch)
    shell.git("switch", "--quiet", branch)
    deployed = shell.type("deploy")
    assert path_of(deployed.out.strip()) == "/paint@1.1.0/"  # its own address: nobody else is led there
    assert f" ..  production         {deployed.out.strip()}" in deployed.err.splitlines()
    assert deployed.err.splitlines()[-1] == f"next     branchline approve {branch}"
    shell.on_main()
    told = shell.type("status", "paint").out
    assert f"queued, stands by without traffic; waits for: approval (branchline approve {branch})" in told
    assert shares_of(shell, "paint") == {"1.0.0": 100}
    assert {shell.call("/paint/", unit=f"u{number}").revision for number in range(30)} == {BLUE}
    shell.until("its address answers", lambda: shell.call("/paint@green/").revision == GREEN)
    assert shell.call("/paint/", x_branchline_pin="1.1.0").revision == GREEN
    tried = shell.ask("try", "paint")  # 2.45
    assert [(each["revision"], each["status"]) for each in tried["answers"]] == [(GREEN, 200), (BLUE, 200)]

    blue, green = (shell.instances_of("paint", version) for version in ("1.0.0", "1.1.0"))
    assert planned_shares(shell.ask("approve", branch, "--dry-run")["steps"]) == {"1.1.0": 100}
    answers = ask_while(shell, "approve", branch, "--yes")
    assert {each.status for each in answers} == {200}
    assert answers[-1].revision == GREEN
    shell.until_live("paint", judged)
    assert (shell.instances_of("paint", "1.0.0"), shell.instances_of("paint", "1.1.0")) == (blue, green)

    answers = ask_while(shell, "rollback", "paint", "--yes", "--because", "blue was nicer")
    assert {each.status for each in answers} == {200}
    assert answers[-1].revision == BLUE
    shell.until_rest()
    assert shell.instances_of("paint", "1.0.0") == blue
