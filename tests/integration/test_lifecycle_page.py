"""This file prints the law from what the explorer saw of it, and holds `docs/lifecycle.md` to that."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from inspect import getsource

from branchline.core import service
from branchline.core.lifecycle import ENDED, PREPARING, RESTING, SERVING, Phase
from branchline.core.records import EVENTS
from tests.fencing import HARM, Mode
from tests.found import EDGES, FIGURES
from tests.happenings import Scenario
from tests.killers import KILLERS
from tests.scenarios import SCENARIOS

Print = Callable[[str, str, str], None]
PAGE = "docs/lifecycle.md"
EVERYWHERE = {"Pushed", "Withdrew", "Retired"}  # possible nearly everywhere: in the table, not in the diagram
KINDS = {"before traffic": PREPARING, "in traffic": SERVING, "at rest": RESTING, "ended": ENDED}


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def words(event: str) -> str:
    """An event as people say it: `GatesPassed of another` is "gates passed of another"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", event).lower()


def state(phase: str) -> str:
    return re.sub(r"\W+", "_", phase)


def order(phase: str) -> int:
    return [each.value for each in Phase].index(phase) if phase else -1


def test_the_diagram_is_what_the_explorer_saw(printed: Print) -> None:
    drawn: dict[tuple[str, str], set[str]] = {}
    for old, event, new in EDGES:
        if event.split()[0] not in EVERYWHERE and old != new:
            drawn.setdefault((old, new), set()).add(words(event))
    lines = [f'    state "{phase.value}" as {state(phase.value)}' for phase in Phase]
    for (old, new), events in sorted(drawn.items(), key=lambda each: (order(each[0][0]), order(each[0][1]))):
        label = ", ".join(sorted(each for each in events if not each.endswith("of another"))) or "an event of another"
        lines.append(f"    {state(old) if old else '[*]'} --> {state(new)}: {label}")
    printed(PAGE, "diagram", "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"]))


def test_every_phase_is_explained(printed: Print) -> None:
    said = dict(re.findall(r"^    ([A-Z_]+) = \".*\"  # (.*)$", getsource(service.Phase), re.M))
    kind = {phase: name for name, phases in KINDS.items() for phase in phases}
    rows = ([f"**{phase.value}**", kind[phase], said[phase.name]] for phase in Phase)
    printed(PAGE, "phases", table("phase | kind | meaning", rows))


def test_the_table_is_what_the_explorer_saw(printed: Print) -> None:
    rows: dict[tuple[str, str], set[str]] = {}
    for old, event, new in EDGES:
        rows.setdefault((event, "the same" if old == new else new), set()).add(old)
    events = list(EVENTS)

    def place(row: tuple[str, str]) -> tuple[int, bool, int]:
        event, new = row
        return events.index(event.split()[0]), " " in event, -1 if new == "the same" else order(new)

    printed(
        PAGE,
        "transitions",
        table(
            "event | from | to",
            (
                [words(event), ", ".join(sorted(rows[event, new], key=order)) or "nothing", new]
                for event, new in sorted(rows, key=place)
            ),
        ),
    )


def test_the_scenarios_are_listed(printed: Print) -> None:
    def row(scenario: Scenario) -> list[str]:
        also = {
            "processes die": scenario.deaths,
            "staging": scenario.staging,
            "pushes": bool(scenario.pushes) and not scenario.unread,
            "pushes and openings before they are told": scenario.unread,
            "a foreign commit": scenario.foreign,
        }
        told = ", ".join(word for word, there in also.items() if there)
        states, repair = FIGURES[scenario.name]
        return [scenario.name, told, f"{states:,}", str(repair)]

    rows = [row(each) for each in SCENARIOS]
    states, repairs = zip(*(FIGURES[each.name] for each in SCENARIOS), strict=True)
    total = ["**all**", "", f"**{sum(states):,}**", f"**{max(repairs)}**"]
    printed(PAGE, "scenarios", table("scenario | with | states | repair", [*rows, total]))


def test_the_killers_are_listed(printed: Print) -> None:
    printed(PAGE, "killers", table("without | this breaks", ([each.protection, each.broken] for each in KILLERS)))


def test_the_fence_is_told(printed: Print) -> None:
    assert [mode for mode, harm in HARM.items() if not harm] == [Mode.TOLD_TWICE]
    rows = ([mode.value, f"{harm:,}"] for mode, harm in HARM.items())
    printed(PAGE, "fence", table("who compares, who is told | harmful late steps", rows))
