"""This file tests what is recalled of a revision: why it was built so, what its gates said, what became of it.

Requirements: 1.09 and 1.16 (a revision and its evidence), 3.10 (release notes). A name used again hides nothing.
"""

from __future__ import annotations

import pytest

from branchline.core import lifecycle as law
from branchline.core.revision import StepRun
from branchline.core.service import Phase
from branchline.core.tracking import Query
from branchline.engine.recalling import Memory, about
from branchline.errors import NothingToDo, UnknownReference, UnknownService
from branchline.ports import Finished, Task
from tests.fakes.runner import printed
from tests.world import ALEX, LOG, MODEL, SAM, World


def memory(world: World) -> Memory:
    return world.controller.memory


def test_a_revision_has_its_gates_and_steps_1_16(world: World) -> None:
    first = world.released()
    document = memory(world).revision("housing@1.0.0")
    assert (document["name"], document["commit"], document["trained"]) == ("housing@1.0.0", first, first)
    assert [(gate["gate"], gate["result"]) for gate in document["gates"]] == [
        ("test-plan", "pass"), ("log", "pass"), ("unit", "pass"),
    ]  # fmt: skip
    assert [(step["step"], step["state"]) for step in document["steps"]] == [("train", "ran")]
    assert document["artifacts"].keys() == {"train"}
    assert "spec" not in document


def test_why_each_step_ran_or_was_reused(world: World) -> None:
    world.push(says={"unit": False})
    world.settle()
    (step,) = memory(world).why(ALEX)["steps"]
    assert (step["state"], step["why"]) == ("ran", "nothing of it was built before")
    world.git.write(ALEX, {"notes.md": "only words\n"})
    world.settle()
    (step,) = memory(world).why(ALEX, "train")["steps"]
    assert (step["state"], step["why"]) == ("reused", "nothing it depends on changed")
    assert {"code steps:train", "environment", "sdk", "step"} <= {line["name"] for line in step["lines"]}
    assert [(fact["kind"], fact["name"]) for fact in step["facts"]] == [("file", "housing/says.json")]
    assert "lines" not in memory(world).why(ALEX)["steps"][0]


def test_why_a_step_ran_again_names_what_changed(world: World) -> None:
    world.released()
    world.testing()
    (step,) = memory(world).why(SAM)["steps"]
    assert step["why"] == "changed: housing/says.json (read while it ran)"


def test_why_a_step_ran_is_told_of_the_run_that_left_its_result_when_a_later_one_of_that_commit_reused_it(
    world: World,
) -> None:
    """beyond 7: new data is tried before it has a branch. Killer: tell what the newest run of a commit says."""
    commit = world.push()
    world.settle()
    catalog = world.ports.catalog
    (ran,) = catalog.run("housing", commit)
    catalog.keep_run("housing", commit, [StepRun("train", "reused", ran.key, ran.artifact, why="nothing changed")])
    (step,) = memory(world).why(ALEX)["steps"]
    assert (step["state"], step["why"]) == ("ran", "nothing of it was built before")
    catalog.keep_run("housing", commit, [StepRun("train", "same", ran.key, ran.artifact, why="to verify")])
    (step,) = memory(world).why(ALEX)["steps"]
    assert (step["state"], step["why"]) == ("ran", "nothing of it was built before")
    catalog.keep_run("housing", commit, [StepRun("train", "reused", "another", ran.artifact, why="nothing changed")])
    (step,) = memory(world).why(ALEX)["steps"]
    assert (step["state"], step["why"]) == ("reused", "nothing changed")


def test_a_run_that_was_never_deployed_is_told_as_it_was(world: World) -> None:
    """Killer: tell of it, too, what an earlier run of its commit did."""
    commit, catalog = "a" * 40, world.ports.catalog
    catalog.keep_run("housing", commit, [StepRun("train", "ran", "k", "art", why="first")])
    catalog.keep_run("housing", commit, [StepRun("train", "reused", "k", "art", why="nothing changed")])
    (step,) = memory(world).why("housing")["steps"]
    assert (step["state"], step["why"]) == ("reused", "nothing changed")


def test_an_item_of_a_step_is_asked_for_as_it_is_told(world: World) -> None:
    catalog = world.ports.catalog
    items = [StepRun("fit", "ran", f"k{name}", "art", item=name) for name in ("north", "south")]
    catalog.keep_run("housing", "a" * 40, [*items, StepRun("fit", "ran", "k", "art")])
    assert [step["item"] for step in memory(world).why("housing", "fit[north]")["steps"]] == ["north"]
    assert len(memory(world).why("housing", "fit")["steps"]) == 3
    with pytest.raises(NothingToDo) as caught:
        memory(world).why("housing", "fit[west]")
    assert caught.value.cause == "known: fit"


def test_a_step_that_it_does_not_have_is_refused_with_what_is_near(world: World) -> None:
    world.released()
    with pytest.raises(NothingToDo) as caught:
        memory(world).why("housing", "trian")
    assert (caught.value.message, caught.value.cause) == ("housing has no step 'trian'", "did you mean train?")


def test_why_is_answered_even_when_the_build_failed(world: World) -> None:
    world.push(says={"train": "raise no rows"})
    world.settle()
    step = memory(world).why(ALEX)["steps"][0]
    assert (step["state"], step["summary"]) == ("failed", "ValueError: no rows")


def test_why_of_a_service_that_was_only_run_is_about_that_run(world: World) -> None:
    commit = world.push("work-in-progress", folder="housing")
    with pytest.raises(UnknownService):
        memory(world).why("housing")
    world.try_out("housing", commit)
    told = memory(world).why("housing", "train")
    assert (told["commit"], told["steps"][0]["state"]) == (commit, "ran")


def test_a_run_is_told_by_its_number_as_it_was(world: World) -> None:
    """What a later run says is another story."""

    def rendered(task: Task) -> Finished:
        (task.cwd / "report.html").write_text("<p>")
        return printed(task, "40 rows")

    world.runner.commands["render"] = rendered
    report = 'report = { command = ["render"], inputs = ["train"], output = "report.html" }'
    toml = MODEL.replace('train = "steps:train"', f'train = "steps:train", {report}')
    commit = world.push("work-in-progress", toml, folder="housing", says={"train": "raise no rows"})
    world.try_out("housing", commit)
    world.try_out("housing", world.push("work-in-progress", folder="housing", says={"train": {"loss": 1}}))
    first, second = sorted(run.number for run in world.ports.catalog.runs(Query("housing")))
    told = memory(world).why(str(first))
    assert (told["commit"], told["version"], told["gates"], told["events"]) == (commit, "", [], [])
    assert [(step["step"], step["state"], step["summary"]) for step in told["steps"]] == [
        ("train", "failed", "ValueError: no rows")
    ]
    assert memory(world).why(str(second), "train")["steps"][0]["state"] == "ran"
    assert [(log["name"], log["text"]) for log in memory(world).log(str(second))["logs"]] == [("report", "40 rows")]
    with pytest.raises(UnknownReference):
        memory(world).why("999")


def test_why_of_nothing_is_refused(world: World) -> None:
    world.push(says={"train": "raise no rows"})
    world.push("experiment--housing--sam", says={"train": "raise no rows"})
    world.settle()
    with pytest.raises(UnknownReference):
        memory(world).why("housing")


def test_logs_tell_why_a_build_failed_until_it_is_mended(world: World) -> None:
    first = world.push(says={"train": "raise no rows"})
    world.settle()
    (log,) = memory(world).log(ALEX)["logs"]
    assert (log["name"], log["state"]) == (f"{first[:7]} build", "failed")
    assert log["text"].endswith("ValueError: no rows")
    world.push(says={"train": {"loss": 1}, "unit": False})
    world.settle()
    assert [log["state"] for log in memory(world).log(ALEX)["logs"]] == ["stopped"]


def test_logs_have_what_each_gate_printed(world: World) -> None:
    world.runner.commands["check"] = lambda task: printed(task, "row 1\nrow 2\nrow 3")
    toml = MODEL.replace('gates = { unit = "gates:unit" }', 'gates = { own = { command = ["check"] } }')
    tip = world.push(toml=toml)
    world.settle()
    log = memory(world).log(ALEX, lines=2)["logs"][-1]
    assert log == {"name": f"{tip[:7]} gate own", "state": "pass", "text": "row 2\nrow 3"}


def test_logs_are_those_of_the_revision_that_is_meant(world: World) -> None:
    world.released()
    world.testing()
    assert [log["name"] for log in memory(world).log("housing@incumbent")["logs"]] == [
        "1.0.0-alex.1 staging 0000000000000001", "1.0.0 production 0000000000000002",
    ]  # fmt: skip
    mine = memory(world).log(SAM)["logs"]
    assert mine[-1]["text"] == "housing@1.1.0 starts"
    assert mine[-1]["state"] == "ready"
    world.ask("abort", SAM)
    assert len(memory(world).log("housing")["logs"]) == 2  # the incumbent's, when no branch is meant
    assert world.phase(SAM) is Phase.ROLLED_BACK


def test_what_failed_to_start_is_told_by_why_and_logs(world: World) -> None:
    """A branch whose only failure is its start: nothing was built of it that could tell."""
    tip = world.push()
    world.launcher.behave[f"{tip}/staging"] = "dies"
    world.settle()
    told = memory(world).why(ALEX)
    assert told["events"][-1]["event"] == "GatesFailed"
    assert told["events"][-1]["reason"].startswith("error[BL412]")
    assert any("error[BL412]" in log["text"] for log in memory(world).log(ALEX)["logs"])


def test_why_has_the_last_lines_of_a_gate_that_failed(world: World) -> None:
    world.runner.commands["check"] = lambda task: printed(task, "\n".join(map(str, range(30))), exit=1)
    world.push(toml=MODEL.replace('gates = { unit = "gates:unit" }', 'gates = { own = { command = ["check"] } }'))
    world.settle()
    gate = memory(world).why(ALEX)["gates"][-1]
    assert (gate["result"], gate["said"].splitlines()[0], gate["said"].splitlines()[-1]) == ("fail", "10", "29")
    del world.artifacts.kept[gate["log"]]
    assert memory(world).why(ALEX)["gates"][-1]["said"] == ""


def test_every_try_of_a_branch_keeps_its_own_story(world: World) -> None:
    first = world.released()
    second = world.testing(ALEX)
    later = world.push(ALEX)
    world.settle()
    world.ask("abort", ALEX)
    world.settle()

    def names(commit: str) -> list[str]:
        return [each["event"] for each in memory(world).why(commit)["events"]]

    assert names(first) == ["Opened", "Built", "GatesPassed", "Recorded"]
    assert names(second) == ["Opened", "Built", "GatesPassed", "Aborted"]
    assert next(entry.event for entry in about(world.ledger.entries, later)) == "Pushed"


# ── release notes ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_release_notes_are_commits_gates_and_verdict_3_10(world: World) -> None:
    first = world.released()
    second = world.push(SAM, files={"EXPERIMENT.md": LOG.replace("Better.", "Better still.")})
    world.settle()
    world.record(law.Won(SAM, reason="challenger: better\n  20 outcomes"))
    world.settle()
    notes = memory(world).notes("housing@1.1.0")
    assert (notes["version"], notes["commit"], notes["branch"]) == ("1.1.0", second, SAM)
    assert notes["replaces"] == {"version": "1.0.0", "commit": first}
    assert notes["hypothesis"] == "Better still."
    assert [each["commit"] for each in notes["commits"]] == [second]
    assert [gate["gate"] for gate in notes["gates"]] == ["test-plan", "log", "unit"]
    assert (notes["verdict"]["event"], notes["verdict"]["reason"].splitlines()[0]) == ("Won", "challenger: better")


def test_release_notes_tell_no_hypothesis_of_an_older_experiment(world: World) -> None:
    """New data opens an experiment whose log is the one before's. Killer: read the log, whose ever it is."""
    world.released()
    world.testing()
    assert memory(world).notes(SAM)["hypothesis"] == ""


def test_release_notes_of_the_first_begin_at_nothing(world: World) -> None:
    first = world.released()
    notes = memory(world).notes("housing@1.0.0")
    assert (notes["replaces"], notes["hypothesis"], notes["verdict"]) == (None, "Better.", None)
    assert first in [each["commit"] for each in notes["commits"]]


def test_release_notes_can_be_read_before_the_release(world: World) -> None:
    first = world.released()
    world.push(SAM, files={"EXPERIMENT.md": None})
    world.settle()
    notes = memory(world).notes(SAM)
    assert (notes["replaces"]["commit"], notes["hypothesis"], notes["verdict"]) == (first, "", None)
