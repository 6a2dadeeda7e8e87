"""This file tests when a result may be reused, and what is said of one that may not (1.18, 3.27)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from branchline.core.reuse import ABSENT, FOLDER, Fact, Line, Trace, changes, explained, guarding, held, key, one_line

SCALE = Line("code features:scale", "1", "features.py:14", ("train", "build", "scale"))
SALES = Line("data sales", "1")
RIDGE = Line("code plugs:ridge", "1", "plugs.py:2", ("import plugs", "ridge"))
BEFORE = (SALES, SCALE)
TRACE = Trace("artifact", (Fact("file", "sql/q.sql", "a"), Fact("module", "mm", "b")))


def new(line: Line, value: str = "2") -> Line:
    return Line(line.name, value, line.where, line.via)


def test_a_key_is_of_names_and_hashes_and_of_nothing_else() -> None:
    moved = Line(SCALE.name, SCALE.hash, "features.py:99", ("other",))
    assert key((SCALE, SALES)) == key((SALES, moved))
    assert key((SCALE, SALES)) != key((SCALE, new(SALES)))
    assert key((Line("a", "bc"),)) != key((Line("ab", "c"),))
    assert key((SCALE,)) != key((SCALE, SALES))


def test_a_trace_holds_while_every_fact_has_its_value() -> None:
    values = {("file", "sql/q.sql"): "a", ("module", "mm"): "b"}
    assert held(TRACE, lambda kind, name: values[kind, name]) is None
    values["module", "mm"] = "c"
    assert held(TRACE, lambda kind, name: values[kind, name]) == Fact("module", "mm", "b")


@pytest.mark.parametrize(
    ("now", "broken", "said"),
    [
        ((SALES, new(SCALE)), None, "changed: features:scale (features.py:14), via train > build > scale"),
        ((new(SALES), SCALE), None, "changed: data sales"),
        ((new(SALES), new(SCALE)), None, "changed: data sales and 1 more"),
        ((SALES, SCALE, RIDGE), None, "new: plugs:ridge (plugs.py:2), via import plugs > ridge"),
        ((SCALE,), None, "gone: data sales"),
        ((SALES, SCALE), Fact("file", "sql/q.sql"), "changed: sql/q.sql (read while it ran)"),
        ((SALES, SCALE), Fact("ran", "mm:M"), "changed: mm:M (ran)"),
        ((SALES, SCALE), None, "nothing changed"),
    ],
)
def test_one_line_says_why_a_step_must_run(now: Sequence[Line], broken: Fact | None, said: str) -> None:
    assert one_line(BEFORE, now, broken) == said


def test_a_file_is_said_once() -> None:
    line = Line("file sql/q.sql", "1", "sql/q.sql", ("train",))
    assert one_line((line,), (new(line),)) == "changed: sql/q.sql"


def test_a_step_without_a_trace_was_never_built() -> None:
    assert one_line(None, (SCALE,)) == "nothing of it was built before"
    assert explained(None, (SCALE,)) == ("nothing of it was built before",)


def test_every_change_is_explained_with_its_place_and_way() -> None:
    now = (new(SALES), new(SCALE), RIDGE)
    assert explained(BEFORE, now, Fact("listing", "sql")) == (
        "-               data sales           changed",
        "features.py:14  code features:scale  changed  train > build > scale",
        "plugs.py:2      code plugs:ridge     new      import plugs > ridge",
        "sql             listing sql          changed  listed while it ran",
    )
    assert explained(BEFORE, BEFORE) == ()


def test_what_a_run_met_for_the_first_time_is_told_BL308() -> None:
    facts = [Fact("file", name, "1") for name in ("a", "b", "c", "d", "e")] + [
        Fact("ran", "mm:M", "1"),
        Fact("module", "numpy", ABSENT),
        Fact("stat", "shop", FOLDER),
    ]
    found = guarding("train", facts, [Fact("file", "a", "other")])
    assert found is not None
    assert (found.code, found.refuses) == ("BL308", False)
    assert found.text == "`train` also reads `b`, `c`, `d` and 1 more, runs `mm:M`: a change of that will run it again"
    assert guarding("train", facts, facts) is None


def test_a_sum_is_left_out_when_a_part_of_it_says_it_better() -> None:
    whole, order = Line("whole plugs", "1"), Line("effects plugs", "1")
    found = changes((whole, order, RIDGE), (new(whole), new(order), new(RIDGE)))
    assert [each.line.name for each in found] == ["code plugs:ridge"]
    assert [each.line.name for each in changes((whole, order), (new(whole), new(order)))] == [
        "effects plugs",
        "whole plugs",
    ]
