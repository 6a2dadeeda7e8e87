"""This file tests what a person asks: each command is one event, and the plan that is shown is what is then done.

Requirements: 1.33 (close), 1.46, 1.49; beyond the seeds: the plan before the act is the act; F50 to F58 leave it alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from branchline.core import lifecycle as law
from branchline.core.service import Phase
from branchline.core.world import Absorb, Drop, Route
from branchline.engine.asking import MEANINGS, described, did_you_mean
from branchline.errors import (
    BadName,
    IllegalMove,
    LedgerBusy,
    NothingToDo,
    UnknownReference,
    UnknownService,
    UsageError,
)
from tests.world import ALEX, KIM, MODEL, SAM, World


def with_rollout(words: str) -> str:
    return MODEL.replace("rollout = {", f"rollout = {{ {words},")


def approve_first(world: World) -> None:
    world.push(ALEX, with_rollout('approval = "before"'))
    world.settle()


def queued(world: World) -> None:
    approve_first(world)
    world.ask("approve", ALEX)
    world.settle()
    world.push(SAM)
    world.settle()


def in_traffic(world: World) -> None:
    world.released()
    world.testing()


def won(world: World) -> None:
    world.released(toml=with_rollout('approval = "after"'))
    world.testing()
    world.record(law.Won(SAM))
    world.settle()


def beside(world: World) -> None:
    colours = with_rollout('method = "blue-green"').replace('"model"', '"app"')
    world.released(toml=colours)
    world.push(SAM)
    world.settle()


def replaced(world: World) -> None:
    in_traffic(world)
    world.record(law.Won(SAM))
    world.settle()


def replaced_and_in_traffic(world: World) -> None:
    replaced(world)
    world.testing(KIM)


def concluding(world: World) -> None:
    in_traffic(world)
    world.git.refusing = True
    world.record(law.Won(SAM))
    world.settle()


def inconclusive(world: World) -> None:
    in_traffic(world)
    world.record(law.Undecided(SAM))
    world.settle()


def frozen(world: World) -> None:
    world.released()
    world.ask("freeze", "housing")
    world.push(SAM)
    world.settle()


STORIES: list[tuple[str, Callable[[World], None], str, dict[str, int]]] = [
    ("approve", approve_first, ALEX, {}),
    ("approve", queued, SAM, {}),
    ("approve", won, SAM, {}),
    ("approve", beside, SAM, {}),
    ("conclude", won, SAM, {}),
    ("split", in_traffic, SAM, {"share": 20}),
    ("abort", in_traffic, SAM, {}),
    ("abort", queued, SAM, {}),
    ("abort", beside, SAM, {}),
    ("abort", concluding, SAM, {}),
    ("close", in_traffic, SAM, {}),
    ("close", queued, SAM, {}),
    ("extend", inconclusive, SAM, {}),
    ("rollback", replaced, "housing", {}),
    ("rollback", concluding, "housing", {}),
    ("rollback", replaced_and_in_traffic, "housing", {}),
    ("freeze", in_traffic, "housing", {}),
    ("thaw", frozen, "housing", {}),
]


@pytest.mark.parametrize(("command", "story", "reference", "args"), STORIES)
def test_what_is_shown_is_what_is_then_done(
    world: World, command: str, story: Callable[[World], None], reference: str, args: dict[str, int]
) -> None:
    """Killer for the plan: a step more, or a step less, and the two lists differ."""
    story(world)
    entries, effects = len(world.ledger.entries), len(world.effects)
    shown = world.plan(command, reference, **args)
    world.settle()
    assert (len(world.ledger.entries), len(world.effects)) == (entries, effects)  # only said
    assert world.ask(command, reference, **args) == shown
    world.settle()
    assert sorted(world.done(effects)) == sorted(shown)
    assert world.ledger.entries[entries].actor == "kim"
    assert world.ledger.entries[entries].because == "said so"
    assert world.plan("thaw" if command == "freeze" else "freeze", "housing") == ()  # nothing is left


def test_a_conclusion_is_shown_to_its_end(world: World) -> None:
    won(world)
    shown = world.plan("conclude", SAM)
    assert [kind for kind, _ in shown] == ["traffic", "git", "git"]
    assert shown[-1][1].startswith(f"archive and delete {SAM} at ")


def test_every_command_has_one_meaning() -> None:
    service = law.Service("x", candidates=(law.Candidate(SAM, "a", "a", phase=Phase.WON),))
    args = {"share": 30, "revision": "a", "instances": 2, "because": "so"}
    events = {name: type(meaning(service, service.on(SAM), args)).__name__ for name, meaning in MEANINGS.items()}
    assert events == {
        "approve": "Approved", "split": "Ramped", "conclude": "Approved", "extend": "Extended", "keep": "Kept",
        "close": "Withdrew", "abort": "Aborted", "rollback": "Aborted", "retire": "Retired", "freeze": "Frozen",
        "thaw": "Thawed", "scale": "Scaled",
    }  # fmt: skip
    assert MEANINGS["retire"](service, None, {"line": 3, "because": ""}) == law.Retired(line=3)


@pytest.mark.parametrize("args", [{}, {"share": "much"}])
def test_a_split_without_a_share_is_asked_back(world: World, args: dict[str, str]) -> None:
    in_traffic(world)
    with pytest.raises(UsageError, match="cannot be understood") as caught:
        world.ask("split", SAM, **args)
    assert "--share 30" in caught.value.cause


def test_an_unknown_command_is_answered_with_the_known_ones(world: World) -> None:
    with pytest.raises(UsageError) as caught:
        world.ask("promote", "housing")
    assert "there is no command 'promote'; known: abort, approve" in caught.value.cause


def test_what_cannot_happen_now_is_refused_and_recorded_nowhere(world: World) -> None:
    in_traffic(world)
    before = world.events()
    with pytest.raises(IllegalMove):
        world.ask("thaw", "housing")
    assert world.events() == before


def test_with_nothing_before_a_rollback_ends_the_test(world: World) -> None:
    """What a person wants is the way back; the same is done without a daemon."""
    in_traffic(world)
    world.ask("rollback", "housing")
    assert world.phase(SAM) is Phase.ROLLED_BACK
    with pytest.raises(IllegalMove):
        world.ask("rollback", "housing")


def test_without_a_verdict_there_is_nothing_to_conclude(world: World) -> None:
    in_traffic(world)
    with pytest.raises(NothingToDo) as caught:
        world.ask("conclude", SAM)
    assert (caught.value.message, caught.value.cause) == (
        f"{SAM} cannot be concluded", "there is no verdict for it yet",
    )  # fmt: skip


def test_a_bare_service_means_its_one_open_branch(world: World) -> None:
    in_traffic(world)
    world.ask("abort", "housing")
    assert world.phase(SAM) is Phase.ROLLED_BACK


def test_of_several_open_branches_one_has_to_be_named(world: World) -> None:
    world.released(toml=with_rollout("slots = 2, share = 30"))
    world.testing(SAM)
    world.testing(KIM)
    with pytest.raises(NothingToDo) as caught:
        world.ask("abort", "housing")
    assert caught.value.message == "housing has 2 open branches"
    assert caught.value.cause == f"name one of: {SAM}, {KIM}"


def test_of_none_a_push_comes_first(world: World) -> None:
    world.released()
    with pytest.raises(NothingToDo) as caught:
        world.ask("abort", "housing")
    assert (caught.value.message, caught.value.cause) == ("housing has no open branches", "push a branch first")


# ── references ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_candidate_is_found_by_every_name_it_has(world: World) -> None:
    first = world.released()
    second = world.testing()
    find = world.controller.desk.find
    for text in (SAM, "housing@sam", "housing@challenger", f"housing@{second[:7]}", "housing@1.1.0", "housing@v1.1.0"):
        candidate = find(text)[1]
        assert candidate is not None
        assert candidate.branch == SAM, text
    assert find(second[:9])[1] == world.on(SAM)
    incumbent = find("housing@incumbent")[1]
    assert incumbent is not None
    assert incumbent.revision == first


def test_a_revision_is_found_by_every_name_it_has(world: World) -> None:
    first = world.released()
    second = world.testing()
    revision = world.controller.desk.revision
    for text in (ALEX, "housing@incumbent", "housing@1.0.0", first[:8], f"housing@{first[:7]}"):
        assert revision(text).commit == first, text
    for text in (SAM, "housing", "housing@challenger", "housing@1.1.0", second):
        assert revision(text).commit == second, text
    world.ask("close", SAM)
    assert revision("housing").commit == first  # nothing is open any more
    assert revision(SAM).commit == second


def test_what_serves_is_found_although_its_branch_name_is_used_again(world: World) -> None:
    """1.09, 3.25: under test, after it was replaced, and after a rollback."""
    first = world.released()
    second = world.testing(ALEX)
    desk = world.controller.desk

    def all_found() -> None:
        assert desk.meant("housing@1.0.0") == ("housing", first)
        assert desk.meant("housing@1.1.0") == ("housing", second)
        assert desk.find("housing@1.0.0") == (world.service(), None)

    all_found()
    assert desk.meant("housing@incumbent") == ("housing", first)
    assert desk.meant("housing") == desk.meant(ALEX) == desk.meant("housing@challenger") == ("housing", second)
    world.record(law.Won(ALEX))
    world.settle()
    all_found()
    assert desk.meant("housing@incumbent") == ("housing", second)
    world.ask("rollback", "housing@1.0.0")
    world.settle()
    all_found()
    assert desk.meant("housing@incumbent") == desk.meant("housing") == ("housing", first)
    with pytest.raises(NothingToDo):
        world.ask("abort", "housing@1.0.0")


@pytest.mark.parametrize(
    ("text", "error", "cause"),
    [
        ("housign", UnknownService, "did you mean housing?"),
        ("cars", UnknownService, "known: housing"),
        ("housing@sma", UnknownReference, f"did you mean {SAM}?"),
        ("housing@9.9.9", UnknownReference, "known: 1.1.0, 1.0.0"),
        ("housing@1.0.1", UnknownReference, "did you mean 1.0.0?"),
        ("housing@0123456", UnknownReference, f"known: {ALEX}, {SAM}"),
        ("0123456789", UnknownReference, ""),
        ("Housing", BadName, ""),
    ],
)
def test_a_name_that_leads_nowhere_is_answered_with_what_is_near(
    world: World, text: str, error: type[Exception], cause: str
) -> None:
    in_traffic(world)
    with pytest.raises(error) as caught:
        world.controller.desk.find(text)
    assert getattr(caught.value, "cause", "") == cause


def test_before_anything_nothing_is_known(world: World) -> None:
    with pytest.raises(UnknownService) as caught:
        world.controller.desk.find("housing")
    assert caught.value.cause == "none is known yet"
    world.push()
    world.controller.watch()
    with pytest.raises(UnknownReference) as unreleased:
        world.controller.desk.revision("housing")
    assert "has not been built" in unreleased.value.cause
    world.ask("close", ALEX)
    for text in ("housing", "housing@incumbent"):
        with pytest.raises(UnknownReference) as unreleased:
            world.controller.desk.revision(text)
        assert unreleased.value.cause == "nothing of housing has been released yet"
    assert did_you_mean("x", []) == "none is known yet"


def test_who_has_another_way_waits_for_no_ledger_that_another_holds(world: World) -> None:
    """1.52. Killer: ask for the plan, which needs no write, and wait with the event."""
    in_traffic(world)
    world.ledger.busy = "database is locked"
    for dry_run in (True, False):
        with pytest.raises(LedgerBusy):
            world.controller.desk.ask("rollback", "housing", {}, actor="kim", because="", dry_run=dry_run, within=0.1)
    assert world.plan("rollback", "housing")


def test_every_step_has_words() -> None:
    assert described(Absorb(1, SAM, "abcdefghij"), {}) == ("git", f"merge abcdefg into {SAM}")
    assert described(Drop("major--housing--1"), {}) == ("git", "archive and delete major--housing--1")
    assert described(Route(2, ()), {}) == ("traffic", "end the route of line 2")
