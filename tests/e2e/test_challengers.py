"""This file plays several challengers of one service on real parts: slots, units, order, and what a win does to others.

The service needs no package. One story: each state is where the next one begins.
"""

from __future__ import annotations

import pytest

from tests.e2e.levels import absorbed, challenger, file_at, levels, until_won
from tests.typed import Shell, shares_of

UNITS = [f"unit-{number}" for number in range(120)]


def arms(shell: Shell, name: str) -> dict[str, str]:
    """Unit -> version that answers it, as all of them were answered twice: once somebody may have stepped in."""
    found: list[dict[str, str]] = []

    def same() -> bool:
        answers = {unit: shell.call(f"/{name}/", "POST", {}, unit).revision for unit in UNITS}
        found.append({unit: revision.partition("@")[2] for unit, revision in answers.items()})
        return found[-1] in found[-2:-1]

    shell.until("each unit is answered by its arm", same)
    return found[-1]


@pytest.mark.timeout(600)
def test_when_one_of_several_wins_the_others_stay_where_they_are(shell: Shell) -> None:
    """1.25, law: units of their own, seated in order; a win voids the others' verdicts, and nobody is moved."""
    shell.first("many", levels("many", 0.2, slots=2, share=30))
    alex, kim = challenger(shell, "many", "alex", 0.5), challenger(shell, "many", "kim", 0.9)
    sam = shell.push("sam", {"many/words": "sam\n"}, "many")
    assert shell.until_waits(sam, "slot")["state"] == "queued"
    assert shares_of(shell, "many") == {"1.0.0": 40, "1.1.0": 30, "1.2.0": 30}
    before = arms(shell, "many")
    assert before == arms(shell, "many")  # each unit has one arm, and keeps it
    assert set(before.values()) == {"1.0.0", "1.1.0", "1.2.0"}

    shell.type("freeze", "many", "--because", "both are to have their verdict")
    seen = until_won(shell, "many", kim, "won") + until_won(shell, "many", alex, "won")
    judged = {branch: shell.row(branch) for branch in (alex, kim)}
    assert {row["measurement"]["alpha"] for row in judged.values()} == {0.025}  # divided by the slots when seated
    shell.type("thaw", "many")
    shell.until_live("many", judged[alex]["commit"])  # the longer waiting
    check_the_other(shell, kim, alex, judged[kim]["commit"], seen)
    after = arms(shell, "many")
    assert after == {unit: version if version == "1.2.0" else "1.1.0" for unit, version in before.items()}
    assert shell.until_waits(sam, "behind")["state"] == "queued"  # never seated against what it was not made from

    until_won(shell, "many", kim, "won")
    assert shell.until_waits(kim, "behind")["share"] == 30
    synced = str(shell.refused("sync", kim, ok=1)["hint"])  # both changed the level: by hand
    shell.on_main()
    first, merge = synced.partition(";")[0].split(" && ")
    shell.git(*first.split()[1:])
    shell.git(*merge.split()[1:], "--strategy-option", "ours")
    shell.type("deploy")
    commit = shell.git("rev-parse", "HEAD")
    shell.ask_until_answered("many", "1.2.1")
    assert shell.until_live("many", commit)["version"] == "1.2.1"
    assert (file_at(shell, "main", "many/level"), shares_of(shell, "many")) == ("0.9", {"1.2.1": 100})
    shell.mine(sam)
    shell.type("sync", sam)
    version = shell.until_state(sam, "A/B test")["version"]
    check_a_rollback_beside(shell, sam, version)
    assert shell.type("parity").code == 0


def check_a_rollback_beside(shell: Shell, sam: str, version: str) -> None:
    """law: who is under test stays where it is, is behind of what serves again, and a sync brings it there."""
    before = arms(shell, "many")
    shell.type("rollback", "many", "--yes", "--because", "it is red")
    shell.until("alex serves again", lambda: shares_of(shell, "many") == {"1.1.0": 70, version: 30})
    shell.until_rest()
    row = shell.row(sam)
    assert (row["state"], row["behind"]["serves"]["version"]) == ("A/B test", "1.1.0")
    assert arms(shell, "many") == {unit: "1.1.0" if each == "1.2.1" else each for unit, each in before.items()}
    synced = str(shell.ask("sync", sam)["branch"])
    absorbed(shell, "many", synced, f"{version.rpartition('.')[0]}.1")
    assert (shell.row(sam)["behind"], file_at(shell, sam, "many/level"), file_at(shell, sam, "many/words")) == (
        None, "0.5", "sam",
    )  # fmt: skip


def check_the_other(shell: Shell, other: str, winner: str, judged: str, seen: int) -> None:
    """Its verdict is void, it has its share and its commit, and its evidence begins anew."""
    row = shell.row(other)
    assert (row["commit"], row["share"], row["state"]) == (judged, 30, "A/B test")
    assert row["behind"]["serves"]["branch"] == winner
    assert shares_of(shell, "many") == {"1.1.0": 70, "1.2.0": 30}
    (moved,) = [e for e in shell.history("many") if e["event"] == "Recorded" and e["detail"].get("branch") == winner]
    assert other in moved["detail"]["left_behind"]
    shell.until("it is measured anew", lambda: (shell.row(other)["measurement"] or {}).get("units", 0) < seen / 4)
