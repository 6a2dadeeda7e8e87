"""This file tests the commands as clients of the daemon's API: the real API over a world of fakes, on a real socket.

What is asked is what happens: after each change the effects on git, traffic and processes are compared with the plan
that `--dry-run` printed.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.cli import follow
from branchline.cli.session import Session
from branchline.cli.ship import followed
from branchline.cli.work import onward
from branchline.engine.asking import described
from tests.places import Place
from tests.waiting import wait_until
from tests.world import ALEX, APP, MODEL, SAM

APPROVED = MODEL.replace('rollout = { warm = "60s" }', 'rollout = { warm = "60s", approval = "after" }')


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made_place = Place(tmp_path)
    with made_place.answering():
        yield made_place


# ------------------------------------------------------------------------------------------------ looking


def test_status_shows_who_serves_and_how_every_branch_stands(place: Place) -> None:
    """3.25: revision by place, each with its branch, share and state."""
    place.world.released()
    place.world.testing()
    told = place.type("status")
    assert told.exit_code == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0].split() == ["SERVICE", "BRANCH", "REVISION", "PERIMETER", "TRAFFIC", "STATE"]
    assert lines[1].split()[:7] == ["housing", "main", "1.0.0", "production", "50%", "####", "incumbent"]
    assert lines[2].split()[:6] == [SAM, "1.1.0", "production", "50%", "####", "A/B"]
    assert "parity    ok" in told.stdout
    found = place.read("status", "housing")
    assert found["schema"] == "branchline.status/1"
    assert [row["branch"] for row in found["services"][0]["rows"]] == ["main", SAM]


def test_status_counts_the_processes_where_there_are_several(place: Place) -> None:
    """1.20: 1/2, and a table without that column where every revision has one."""
    world = place.world
    world.released(toml=MODEL.replace('"serving:predict"', '"serving:predict", instances = 2'))
    head, row = (line.split() for line in place.type("status").stdout.splitlines()[:2])
    assert dict(zip(head, row, strict=False)) | {"READY": "2/2"} == dict(zip(head, row, strict=False))
    world.launcher.lose(world.launcher.running()[-1].nonce)
    assert place.type("status").stdout.splitlines()[1].split()[head.index("READY")] == "1/2"


def test_status_of_nothing_says_what_to_type(place: Place) -> None:
    assert "branchline init" in place.type("status").stdout


def test_an_unknown_service_is_answered_with_what_is_near(place: Place) -> None:
    place.world.released()
    told = place.type("status", "hosing")
    assert told.exit_code == 2
    assert "error[BL102]" in told.stderr
    assert "did you mean housing?" in told.stderr
    problem = json.loads(place.type("status", "hosing", "--json").stderr)
    assert (problem["code"], problem["status"]) == ("BL102", 404)


def test_the_history_of_nobody_is_an_error_and_of_who_is_new_is_empty(place: Place) -> None:
    place.git.write("main", {"rent/branchline.toml": MODEL})
    place.git.git("pull", "--quiet")
    fresh = place.type("history", "rent")
    assert (fresh.exit_code, fresh.stderr) == (0, "nothing has happened yet to rent\n")
    told = place.type("history", "rnet")
    assert (told.exit_code, "error[BL102]" in told.stderr) == (2, True)
    assert "Did you mean 'rent'?" in told.stderr


def test_a_state_folder_that_cannot_be_is_no_bug_of_ours(place: Place, tmp_path: Path) -> None:
    """Killer: ask for a report of it."""
    (tmp_path / "file").write_text("")
    for folder, why in (("/proc/zz", "No such file or directory"), (str(tmp_path / "file" / "x"), "Not a directory")):
        for words in (["up"], ["status"]):
            told = place.type("--state", folder, *words)
            said = [f"error[BL111]: The folder {folder} cannot be made or written", f"  cause: {why}"]
            assert (told.exit_code, told.stderr.splitlines()[-3:-1]) == (2, said)


def test_a_refusal_names_what_was_typed(place: Place) -> None:
    """Killer: the event's own name, which nobody types."""
    place.world.released()
    place.world.testing()
    told = place.type("thaw", "housing")
    assert (told.exit_code, told.stderr.splitlines()[0]) == (3, "error[BL105]: thaw cannot happen to housing now")


def test_parity_is_an_exit_status(place: Place) -> None:
    """1.51: each drift with its repair."""
    place.world.released()
    told = place.type("parity")
    assert (told.exit_code, told.stdout) == (0, "ok: git and production agree for housing\n")
    place.world.testing()
    place.world.git.remove(SAM)
    place.world.controller.observer.fetch()
    told = place.type("parity")
    assert told.exit_code == 1
    assert "serves but its branch is gone" in told.stdout
    assert "repair    branchline up\n" in told.stdout
    assert "drift" in place.type("status").stdout
    assert json.loads(place.type("parity", "--json").stdout)["ok"] is False


def test_history_says_who_did_what(place: Place) -> None:
    """3.02, 3.09."""
    place.world.released()
    place.world.ask("freeze", "housing")
    told = place.type("history", "housing", "--limit", "2")
    assert told.exit_code == 0
    assert len(told.stdout.splitlines()) == 2
    assert "Frozen" in told.stdout.splitlines()[0]
    assert "said so" in told.stdout
    assert place.read("history", "--limit", "1")["entries"][0]["event"] == "Frozen"
    number = place.read("history", "--limit", "1")["entries"][0]["number"]
    assert "Frozen" not in place.type("history", "--before", str(number)).stdout


def test_watch_gives_a_line_whenever_something_changes_and_ends_with_130(place: Place) -> None:
    """NDJSON for programs; Ctrl-C detaches and cancels nothing."""
    place.world.released()
    command = [sys.executable, "-m", "branchline.cli.main", "status", "--watch", "--json"]
    with subprocess.Popen(
        command, cwd=place.git.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        first = json.loads(watching.stdout.readline())
        place.world.ask("freeze", "housing")
        second = json.loads(watching.stdout.readline())
        watching.send_signal(2)
        said = watching.stderr.read()
        assert watching.wait() == 130
    assert (first["services"][0]["frozen"], second["services"][0]["frozen"]) == (False, True)
    assert "goes on" in said


# ------------------------------------------------------------------------------------------------ changing


CHANGES: list[tuple[tuple[str, ...], str]] = [
    (("split", SAM, "--share", "30"), "Ramped"),
    (("abort", "housing@challenger"), "Aborted"),
    (("close", SAM), "Withdrew"),
    (("freeze", "housing"), "Frozen"),
]


@pytest.mark.parametrize(("words", "event"), CHANGES)
def test_what_is_done_is_the_plan_that_was_shown(place: Place, words: tuple[str, ...], event: str) -> None:
    """--dry-run prints the git, traffic and process plan and changes nothing; what follows is exactly that plan."""
    world = place.world
    world.released()
    world.testing()
    events, effects = list(world.events()), len(world.effects)
    planned = place.type(*words, "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert (world.events(), len(world.effects)) == (events, effects)
    as_json = json.loads(place.type(*words, "--dry-run", "--json").stdout)
    assert as_json["schema"] == "branchline.plan/1"
    with place.living():
        told = place.type(*words, "--yes", "--because", "kim says so")
    world.settle()
    assert told.exit_code == 0, told.stderr
    assert world.events()[-1] == event
    entry = world.last(event)
    assert (entry.actor, entry.because) == ("Test <test@example.invalid>", "kim says so")
    versions = {revision.commit: revision.version for revision in world.catalog.revisions("housing")}
    done = [list(described(step, versions)) for step in world.effects[effects:]]
    for kind in ("git", "traffic", "process"):  # each in its order; they do not wait for one another
        assert [step for step in done if step[0] == kind] == [step for step in as_json["steps"] if step[0] == kind]
    shown = [line.removeprefix("plan").split(None, 1) for line in planned.stdout.splitlines()]
    assert [[kind, text] for kind, text in shown] == as_json["steps"] or not as_json["steps"]


def test_what_changes_production_needs_a_yes_where_nobody_can_be_asked(place: Place) -> None:
    """Killer: let `agreed` return without a terminal."""
    place.world.released()
    place.world.testing()
    for words in (("abort", SAM), ("split", SAM, "--share", "10"), ("close", SAM, "--no-input")):
        told = place.type(*words)
        assert told.exit_code == 2
        assert "error[BL110]" in told.stderr
    assert place.world.events()[-1] == "GatesPassed"


@pytest.mark.parametrize(("answer", "code", "event"), [("housing", 0, "Aborted"), ("no", 1, "GatesPassed")])
def test_on_a_terminal_the_service_is_typed(place: Place, answer: str, code: int, event: str) -> None:
    place.world.released()
    place.world.testing()
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "branchline.cli.main", "abort", SAM]
    with place.living():
        asking = subprocess.Popen(
            command, cwd=place.git.work, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        said = b""
        while b"to abort" not in said:
            said += os.read(mine, 1000)
        os.write(mine, f"{answer}\n".encode())
        asking.communicate()
    os.close(mine)
    assert asking.returncode == code
    assert place.world.events()[-1] == event


def test_what_cannot_happen_now_is_refused_with_three(place: Place) -> None:
    place.world.released()
    told = place.type("approve", "housing@1.0.0", "--yes")
    assert told.exit_code == 3
    assert "error[BL105]" in told.stderr


def test_conclude_waits_for_evidence_and_then_for_a_person(place: Place) -> None:
    """Exit 5 while undecided; a won one that waits for approval is agreed to."""
    world = place.world
    world.released(toml=APPROVED)
    assert "no open branches" in place.type("conclude", "housing").stderr
    commit = world.testing()
    document = json.loads(place.type("conclude", "housing", "--json").stdout)
    assert (document["schema"], document["branch"], document["state"]) == ("branchline.verdict/1", SAM, "A/B test")
    undecided = place.type("conclude", "housing")
    assert undecided.exit_code == 5
    for number in range(8):
        world.play(200, {commit: lambda n: 8 + n % 2}, seed=f"a{number}-")
        arms = world.service().line(1).incumbent or ""
        world.play(200, {arms: lambda n: 2 + n % 2, commit: lambda n: 8 + n % 2}, seed=f"b{number}-")
        world.settle()
    assert world.on(SAM).phase.value == "won"
    planned = place.type("conclude", "housing", "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert "verdict  1.1.0: won" in planned.stderr
    assert "make main show 1.1.0" in planned.stdout
    with place.living():
        done = place.type("conclude", SAM, "--yes")
        assert done.exit_code == 0, done.stderr
        assert wait_until(lambda: world.service().line(1).incumbent == commit)
    assert "undo: branchline rollback housing" in done.stderr
    with place.living():
        back = place.type("rollback", "housing", "--yes")
        assert back.exit_code == 0
        assert back.stderr.splitlines()[-1] == "next     git pull --ff-only origin main", back.stderr
    assert world.events()[-1] in ("RolledBack", "Recorded")


def test_a_person_may_decide_in_the_verdicts_place_by_name_and_reason(place: Place) -> None:
    world = place.world
    old = world.released()
    commit = world.testing()
    for words in (("--override", "why"), ("--for", "challenger"), ("--override", " ", "--for", "nobody")):
        half = place.type("conclude", "housing", *words, "--yes")
        assert (half.exit_code, "an override needs both" in half.stderr) == (2, True), half.stderr
    planned = place.type("conclude", SAM, "--override", "a promise", "--for", "challenger", "--dry-run")
    assert "make main show 1.1.0" in planned.stdout
    assert world.shares() == {old: 50, commit: 50}
    unsure = place.type("conclude", "housing", "--override", "a promise", "--for", "challenger", "--no-input")
    assert "error[BL110]" in unsure.stderr, unsure.stderr
    with place.living():
        done = place.type("conclude", "housing", "--override", "a promise", "--for", "challenger", "--yes")
        assert done.exit_code == 0, done.stderr
        assert wait_until(lambda: world.service().line(1).incumbent == commit)
    assert world.last("Overrode").because == "a promise"
    assert "override by " in place.type("status").stdout
    assert "Overrode" in place.type("history", "housing").stdout


def test_what_brings_a_clone_after_a_change_is_said(place: Place) -> None:
    """A pull on the trunk, a fetch beside other work, the way home from a branch that goes, and else nothing."""

    def follows(*steps: str) -> str:
        return followed(Session(place.git.work), steps)

    trunk, gone = "make main show 1.0.0 (41daddf)", f"archive and delete {SAM} at 41daddf"
    assert follows(trunk, gone) == "git pull --ff-only origin main"
    assert follows("make major--housing--1 show 1.0.0 (41daddf)", gone) == ""
    place.git.git("switch", "--quiet", "-c", "of-my-own")
    assert follows(trunk, gone) == "git fetch origin main:main"
    place.git.git("switch", "--quiet", "-c", SAM)
    assert follows(trunk, gone) == "git switch main && git pull --ff-only origin main"
    place.git.git("remote", "remove", "origin")
    assert follows(trunk) == ""


# ------------------------------------------------------------------------------------------------ following


def test_following_a_branch_ends_where_it_rests(place: Place) -> None:
    """`deploy` after its push: notes as they come, the staging address, then the rest."""
    world = place.world
    tip = world.push(ALEX)
    notes: list[str] = []
    staged: list[str] = []
    with place.living():
        found = follow.to_the_rest(
            place.client, "housing", ALEX, tip, 0, lambda note: notes.append(note["name"]), 120,
            lambda row: staged.append(row["address"]),
        )  # fmt: skip
    assert (found.code, found.word) == (0, "serves")
    assert "gate unit" in notes
    bad = world.push(SAM, says={"unit": False})
    with place.living():
        found = follow.to_the_rest(
            place.client, "housing", SAM, bad, 0, lambda note: None, 120, lambda row: staged.append(row["address"])
        )
    assert (found.code, found.word) == (1, "stays")
    assert "unit" in found.text
    assert follow.told_so_far(place.client, "housing", SAM, bad) > 0
    found = follow.to_the_rest(
        place.client, "housing", "experiment--housing--kim", "c", 0, lambda note: None, 0, lambda row: None
    )
    assert found.code == 5


def test_of_a_second_colour_it_is_said_that_it_stands_by_in_production_3_18(place: Place) -> None:
    """Killer: call every address one of staging."""
    world = place.world
    colours = APP.replace("rollout = {", 'rollout = { method = "blue-green",')
    world.released(toml=colours)
    tip, staged = world.push(SAM, colours), list[tuple[str, str]]()
    world.settle()
    found = follow.to_the_rest(
        place.client, "housing", SAM, tip, 0, lambda note: None, 120,
        lambda row: staged.append((row["perimeter"], row["version"])),
    )  # fmt: skip
    assert staged == [("production", "1.1.0")]
    assert found.text == f"{SAM} stands by in production and waits for: approval"


def test_run_tells_every_step_and_gate_and_exits_with_their_answer(place: Place) -> None:
    """A gate that fails is a result: `no  gate ...`, exit 1, no code."""
    files = {"housing/branchline.toml": MODEL, "housing/EXPERIMENT.md": "x\n"}
    place.git.write("main", files)
    place.git.git("pull", "--quiet")
    world = place.world
    tip = world.push(ALEX)
    bad = world.push(SAM, says={"unit": False})
    client = place.client
    for commit, mark in ((tip, "ok"), (bad, "no")):
        topic = client.post("/v1/run", {"service": "housing", "commit": commit, "gates": True})["topic"]
        names: list[str] = []
        end = follow.to_the_end(client, topic, lambda note, names=names: names.append(note["name"]))  # type: ignore[misc]
        assert end["mark"] == mark
        assert "train" in names
    told = place.type("run", "housing")
    assert told.exit_code == 2
    assert "error[BL104]" in told.stderr, "the world of fakes does not know our commit"


def test_what_follows_a_run_is_said_also_before_a_branch_was_begun() -> None:
    """Without `start` there is neither a log for the gate nor a branch to deploy."""
    assert onward("housing", SAM, []) == ["git commit, then: branchline deploy"]
    assert onward("housing", SAM, ["log"]) == onward("housing", "main", ["unit"]) == []
    (line,) = onward("housing", "main", ["unit", "log"])
    assert line.startswith('branchline start housing --because "..."')
    (line,) = onward("housing", "", [])
    assert line == 'branchline start housing --because "...", git commit, then: branchline deploy'
