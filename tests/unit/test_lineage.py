"""This file tests the graph of what was made of what (3.30)."""

from __future__ import annotations

from dataclasses import replace

from branchline.core.lineage import Edge, Lineage, Node, backwards, brief, forwards, joined
from branchline.core.reuse import Line
from branchline.core.revision import GateResult, Result, Revision, StepRun
from branchline.core.tracking import Run

DATA, OTHER, CLEAN, MODEL, ENV, SDK = (letter * 64 for letter in "dcabe5")
COMMIT = "1" * 40
REVISION = Revision(
    "housing", COMMIT, "1.0.0", "experiment--housing--alex", "t", ENV, SDK, "{}",
    artifacts=(("train", MODEL),), data=(("sales", DATA),), trained=COMMIT, author="alex",
)  # fmt: skip
CLEANED = StepRun("clean", "ran", "k1", CLEAN, lines=(Line("data sales", DATA), Line("code steps:clean", "x")))
TRAINED = StepRun("train", "ran", "k2", MODEL, lines=(Line("input clean", CLEAN), Line("parameter seed", "y")))


def run(*steps: StepRun, number: int = 1) -> Run:
    return Run(number, "housing", COMMIT, steps)


def names(found: Lineage, kind: str) -> list[str]:
    return [node.name for node in found.nodes if node.kind == kind]


def edges(found: Lineage) -> set[tuple[str, str, str]]:
    name = {node.id: node.name for node in found.nodes}
    return {(name[edge.made], edge.how, name[edge.of]) for edge in found.edges}


def test_a_revision_leads_back_to_all_that_it_was_made_of() -> None:
    gates = (GateResult("unit", Result.PASS, "3 passed"),)
    found = joined(backwards(REVISION, (CLEANED, TRAINED), gates))
    assert edges(found) == {
        ("housing@1.0.0", "built from", "1111111"),
        ("housing@1.0.0", "result of", "train"),
        ("train", "takes", "clean"),
        ("clean", "reads", "sales dddddddddddd"),
        ("housing@1.0.0", "made with", "sales dddddddddddd"),
        ("housing@1.0.0", "runs in", "environment eeeeeeeeeeee"),
        ("housing@1.0.0", "runs in", "sdk 555555555555"),
        ("housing@1.0.0", "judged by", "gate unit: pass"),
    }
    assert found.nodes[0].name == "housing@1.0.0"
    assert dict(found.nodes[1].told) == {"branch": "experiment--housing--alex", "author": "alex"}
    assert dict(next(each for each in found.nodes if each.name == "train").told)["made of"] == (
        "input clean, parameter seed"
    )


def test_what_was_trained_elsewhere_says_where() -> None:
    elsewhere = replace(REVISION, trained="2" * 40, branch="", author="")
    found = joined(backwards(elsewhere, (), ()))
    assert ("housing@1.0.0", "trained at", "2222222") in edges(found)
    assert ("housing@1.0.0", "trained at", "2222222") not in edges(
        joined(backwards(replace(REVISION, trained=""), (), ()))
    )


def test_a_step_that_left_nothing_and_one_of_several_are_told() -> None:
    skipped = StepRun("train", "failed", "k9", item="north")
    found = joined(backwards(REVISION, (skipped,), ()))
    assert names(found, "step") == ["train[north]"]


def test_data_leads_on_to_every_result_and_revision_however_far_off() -> None:
    """Killer: a result of a result was missed when its run is older than the one that left what it takes."""
    newer = run(CLEANED, number=2)
    older = run(TRAINED, StepRun("other", "ran", "k3", OTHER, lines=(Line("data listings", OTHER),)), number=1)
    root = Node("data", f"data {DATA}", "sales")
    mine, not_mine = (
        replace(REVISION, data=()),
        replace(REVISION, commit="3" * 40, version="2.0.0", data=(), artifacts=()),
    )
    for runs in ((newer, older), (older, newer)):
        found = joined([root], forwards(DATA, runs, (mine, not_mine)))
        assert edges(found) == {
            ("clean", "reads", "sales"), ("train", "takes", "clean"), ("housing@1.0.0", "result of", "train"),
        }  # fmt: skip
        assert names(found, "revision") == ["housing@1.0.0"]
    named = joined([root], forwards(DATA, (), (REVISION,)))
    assert edges(named) == {("housing@1.0.0", "made with", "sales")}


def test_a_revision_of_other_data_with_the_same_results_was_not_made_of_this() -> None:
    """3.30: who saw the bad month? Killer: go by the results' content alone."""
    data = (*REVISION.artifacts, ("clean", CLEAN))
    one, other = replace(REVISION, artifacts=data), replace(REVISION, commit="3" * 40, version="1.1.0", artifacts=data)
    other = replace(other, data=(("sales", OTHER),))
    again = replace(CLEANED, key="k7", lines=(Line("data sales", OTHER),))
    runs = (run(CLEANED, TRAINED), run(again, number=2))
    for digest, name in ((DATA, "1.0.0"), (OTHER, "1.1.0")):
        found = joined([Node("data", f"data {digest}", "sales")], forwards(digest, runs, (one, other)))
        assert names(found, "revision") == [f"housing@{name}"]
    both = joined([Node("artifact", f"artifact {CLEAN}", "clean")], forwards(CLEAN, runs, (one, other)))
    assert names(both, "revision") == ["housing@1.0.0", "housing@1.1.0"]
    changed = replace(other, artifacts=(("train", MODEL), ("clean", OTHER)))
    alone = joined([Node("artifact", f"artifact {CLEAN}", "clean")], forwards(CLEAN, runs, (one, changed)))
    assert names(alone, "revision") == ["housing@1.0.0"]


def test_an_artifact_leads_on_from_the_step_that_left_it() -> None:
    root = Node("artifact", f"artifact {CLEAN}", "clean")
    found = joined([root], forwards(CLEAN, (run(CLEANED, TRAINED),), (REVISION,)))
    assert found.nodes[0].kind == "step"  # who knows more of it
    assert {("train", "takes", "clean"), ("housing@1.0.0", "result of", "train")} <= edges(found)


def test_what_joins_items_was_made_of_them() -> None:
    """Killer: the way ended at every step that runs for each of a list."""
    item = StepRun("fit", "ran", "k4", OTHER, item="north", lines=(Line("data sales", DATA),))
    join = StepRun("fit", "ran", "k5", MODEL)
    found = joined([Node("data", f"data {DATA}", "sales")], forwards(DATA, (run(item, join),), (REVISION,)))
    assert ("fit", "takes", "fit[north]") in edges(found)
    assert names(found, "revision") == ["housing@1.0.0"]
    assert ("fit", "takes", "fit[north]") in edges(joined(backwards(REVISION, (item, join), ())))


def test_a_graph_has_each_thing_once_and_no_loose_ends() -> None:
    one = Node("data", "data x", "x")
    found = joined([one, Edge("a", "takes", "b")], [one, Node("data", "data x", "x", (("rows", "3"),))])
    assert found == Lineage((Node("data", "data x", "x", (("rows", "3"),)),), ())


def test_a_key_in_brief() -> None:
    lines = (
        Line("code a:f", ""),
        Line("code a:g", ""),
        Line("file q.sql", ""),
        Line("environment", ""),
        Line("data s", ""),
    )
    assert brief(lines) == "code 2, file 1, data s"
