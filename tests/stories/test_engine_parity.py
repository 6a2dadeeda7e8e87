"""This file tests parity: every way to disagree is named, with the command that repairs it; nothing is done about it.

Requirement 1.51; faults F33, F54, F64, F73. The same twelve, on real parts and with their commands typed, are in
`tests/e2e/test_parity.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from branchline.core import lifecycle as law
from branchline.core.parity import SORTS, UP, Drift, drift
from branchline.core.service import Phase
from branchline.engine.observing import Observer
from branchline.engine.parity import Parity
from branchline.engine.recording import Onlooker
from branchline.errors import GatewayDown, GitError
from branchline.ports import Checkout, Endpoint, Stamp, Stray
from tests.world import KIM, MODEL, SAM, World

KEPT, TAG = "refs/branchline/revisions/housing/1.0.0", "refs/tags/housing@v1.0.0"


def found(world: World) -> list[Drift]:
    """What every status shows."""
    return world.controller.parity.drifts(world.ledger.services())


def told(world: World) -> list[tuple[str, str, str]]:
    """What the command shows, git looked at anew: sort, text, repair."""
    return [(each["drift"], each["what"], each["repair"]) for each in world.controller.parity.document()["drifts"]]


def sole(world: World) -> Drift:
    (one,) = found(world)
    return one


def test_every_sort_says_where_it_shows_and_what_is_typed() -> None:
    assert {sort.kind for sort in SORTS.values()} == {"git", "traffic", "process", "ledger", "files"}
    assert all(sort.what and sort.repair for sort in SORTS.values())
    one = drift("missing process", "housing", step="start 1.0.0")
    assert one == Drift("housing", "missing process", "process", "to do: start 1.0.0", UP)


def test_parity_holds_at_rest_and_names_each_step_that_is_missing_1_51(world: World) -> None:
    world.released()
    world.testing()
    assert world.controller.parity.document() == {
        "schema": "branchline.parity/1", "ok": True, "services": ["housing"], "drifts": [],
    }  # fmt: skip
    world.launcher.end(world.launcher.running()[-1].nonce)
    assert [(each.drift, each.what, each.repair) for each in found(world)] == [
        ("shares", "to do: 1.0.0 100%", UP), ("missing process", "to do: start 1.1.0 in production", UP),
    ]  # fmt: skip
    world.settle()
    world.clock.advance(31)
    world.settle()
    assert world.parity()


def test_status_tells_the_same_of_one_service(world: World) -> None:
    world.released()
    world.launcher.end(world.launcher.running()[-1].nonce)
    parity = world.controller.reader.status("housing")["parity"]
    assert (parity["ok"], [each["drift"] for each in parity["drifts"]]) == (False, ["missing process"])
    assert World(world.ports.state).controller.reader.status()["parity"] == {"ok": True, "drifts": []}


# ── branches ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_challenger_whose_branch_is_gone_is_named_until_it_is_withdrawn(world: World) -> None:
    world.released()
    world.testing()
    world.git.remove(SAM)
    assert told(world) == [
        ("live revision without branch", f"{SAM} serves but its branch is gone: it is to leave traffic", UP)
    ]
    world.settle()
    assert (world.parity(), world.phase(SAM)) == (True, Phase.WITHDRAWN)


def test_a_branch_that_is_not_followed_yet_or_was_moved_or_deleted_is_named(world: World) -> None:
    world.released()
    world.ask("freeze", "housing")
    world.push(SAM)
    assert [row[0] for row in told(world)] == ["branch without deployment"]
    world.settle()
    tip = world.push(SAM)
    assert told(world) == [("unread push", f"{SAM} was moved to {tip[:7]}, which is not read yet", UP)]
    world.git.remove(SAM)
    assert [row[0] for row in told(world)] == ["branch gone"]
    world.settle()
    assert world.parity()


def test_without_a_daemon_the_same_branches_are_named(world: World) -> None:
    """Nobody has looked at them yet: who changed nothing but the log, or holds no service, is no candidate."""
    world.released()
    world.git.write(SAM, {"housing/EXPERIMENT.md": "# Hypothesis\nsoon\n"})
    world.git.write("experiment--housing--empty", {"housing": None})
    world.git.write(KIM, {"housing/branchline.toml": "not = toml = at all\n"})
    world.git.write("experiment--housing--real", {"housing/serving.py": "# new\n"})
    looking = Parity(world.ports, Onlooker(world.ledger, "main"), Observer(world.ports))
    entries, effects = len(world.ledger.entries), len(world.effects)
    drifts = looking.document()["drifts"]
    assert [(each["drift"], each["what"].split()[0]) for each in drifts] == [
        ("branch without deployment", KIM), ("branch without deployment", "experiment--housing--real"),
    ]  # fmt: skip
    assert (len(world.ledger.entries), len(world.effects)) == (entries, effects)
    world.settle()
    assert world.parity()


def test_a_branch_that_is_no_candidate_for_a_reason_that_is_told_is_no_drift(world: World) -> None:
    world.released()
    world.git.write(SAM, {"housing/EXPERIMENT.md": "# Hypothesis\nsoon\n"})
    world.settle()
    assert world.parity()
    assert "has changed nothing" in world.troubles()[0]


@pytest.mark.parametrize("remote", ["origin", ""])
def test_a_branch_that_cannot_be_followed_is_named_with_the_way_to_be_rid_of_it(world: World, remote: str) -> None:
    world.git.remote = remote
    world.released()
    world.push("fix--housing--typo--sam", start="main")
    world.settle()
    one = sole(world)
    assert (one.drift, one.what.partition(": ")[0]) == (
        "refused branch", "fix--housing--typo--sam cannot be followed",
    )  # fmt: skip
    away = "git push origin --delete " if remote else "git branch -D "
    assert one.repair == away + "fix--housing--typo--sam"


def test_a_branch_that_a_forge_merged_and_deleted_is_no_drift(world: World) -> None:
    world.released()
    tip = world.testing()
    world.git.reset("main", tip)
    world.git.remove(SAM)
    world.controller.observer.fetch()
    assert "live revision without branch" not in [each.drift for each in found(world)]


# ── trunks and conclusions ─────────────────────────────────────────────────────────────────────────────────────────

WAY_BACK = (
    "git switch main && git pull --ff-only origin main && git restore --source={} --staged --worktree -- housing"
    " && git commit -m 'Restore {}' && git push origin main"
)


def test_a_trunk_that_is_no_revision_is_named_with_the_commands_that_restore_it(world: World) -> None:
    first = world.released()
    world.git.write("main", {"housing/serving.py": "# by hand\n"})
    world.settle()
    one = sole(world)
    assert (one.drift, one.what) == ("trunk is not the incumbent", "main shows no known revision")
    assert one.repair == WAY_BACK.format(first[:12], first[:7])
    world.git.remote = ""
    assert sole(world).repair == (
        f"git switch main && git restore --source={first[:12]} --staged --worktree -- housing"
        f" && git commit -m 'Restore {first[:7]}'"
    )


def test_a_trunk_that_has_lost_the_service_is_named_the_same_way(world: World) -> None:
    first = world.released()
    world.git.write("main", {"housing": None})
    world.settle()
    assert [each.repair for each in found(world)] == [WAY_BACK.format(first[:12], first[:7])]


def test_a_foreign_trunk_under_a_conclusion_goes_back_to_what_it_showed(world: World) -> None:
    first = world.released()
    world.testing()
    world.git.write("main", {"housing/serving.py": "# by hand\n"})
    world.record(law.Won(SAM))
    world.settle()
    repairs = {each.drift: each.repair for each in found(world)}
    assert f"--source={first[:12]} " in repairs["trunk is not the incumbent"]


def test_a_foreign_trunk_under_a_new_major_goes_back_to_the_line_before_it(world: World) -> None:
    """Found: it was told to show the major that waits for it, which its author had then merged by hand."""
    first = world.released()
    world.git.write("main", {"housing/serving.py": "# by hand\n"})
    world.push(SAM, f"major = 2\n{MODEL}")
    world.settle()
    assert (world.phase(SAM), world.on(SAM).trouble) == (Phase.CONCLUDING, "foreign")
    repairs = {each.drift: each.repair for each in found(world)}
    assert repairs["trunk is not the incumbent"] == WAY_BACK.format(first[:12], first[:7])
    text = world.git.read(first, "housing/serving.py")
    assert text is not None
    world.git.write("main", {"housing/serving.py": text.decode()})
    world.settle()
    assert world.parity()
    assert len(world.merges()) == 2
    assert world.git.tip("major--housing--1")


def test_a_first_revision_over_a_foreign_trunk_has_only_itself(world: World) -> None:
    world.push()
    world.settle()
    assert world.parity()


def test_a_trunk_of_another_service_in_the_same_place_is_no_drift(world: World) -> None:
    world.released()
    world.git.write("major--housing--7", {"housing/serving.py": "# by hand\n"})
    world.settle()
    assert world.parity()


@pytest.mark.parametrize("trouble", ["permission", "remote", "checked out"])
def test_what_holds_a_conclusion_up_is_named_with_a_way_out(world: World, trouble: str) -> None:
    world.released()
    world.testing()
    if trouble == "permission":
        world.git.refusing = True
    elif trouble == "remote":
        world.git.reachable = False
    else:
        world.git.checked_out = "main"
    world.record(law.Won(SAM))
    world.settle()
    held = next(each for each in found(world) if each.drift == "conclusion held up")
    ways = {"permission": f"branchline abort {SAM}", "remote": "git ls-remote origin", "checked out": "git stash"}
    assert (held.what, held.repair) == (f"{SAM} is concluding: {trouble}", ways[trouble])
    assert "unwritten" in [each.drift for each in found(world)]


def test_git_that_was_not_seen_yet_is_one_drift_and_not_many(world: World) -> None:
    world.released()
    world.testing()
    world.git.reachable = False
    world.restart()
    world.settle()
    assert world.drifts() == ["git has not been seen since the daemon started"]


def test_a_remote_that_cannot_be_reached_is_said_by_who_asks(world: World) -> None:
    """What every status shows is compared with git as it was seen last; who asks for parity is told so."""
    world.released()
    world.git.reachable = False
    assert world.parity()
    what = "The remote 'origin' cannot be reached: it is compared as it was seen last"
    assert told(world) == [("unseen", what, "git ls-remote origin")]


# ── refs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_keep_ref_that_is_gone_is_named_with_the_command_that_sets_it(world: World) -> None:
    first = world.released()
    world.git.marked[KEPT] = ""
    assert told(world) == [("keep-ref gone", f"{KEPT} is gone", f"git push origin {first}:{KEPT}")]
    world.git.marked.clear()
    world.git.unheld.add(KEPT)
    assert told(world) == [("keep-ref gone", f"{KEPT} is gone", f"git push mirror.git {first}:{KEPT}")]


def test_a_tag_that_was_moved_is_named_and_left_alone(world: World) -> None:
    first, second = world.released(), "5" * 40
    world.git.marked[TAG] = second
    what = f"{TAG} is at 5555555, not at {first[:7]}"
    assert told(world) == [("tag moved", what, f"git push --force origin {first}:{TAG}")]
    world.git.remote = ""
    assert sole(world).repair == f"git update-ref {TAG} {first}"
    world.settle()
    assert not world.parity()


def test_a_revision_of_which_no_version_is_known_has_no_marks(world: World) -> None:
    world.released()
    world.catalog._revisions.clear()
    assert found(world) == []


# ── production ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_route_to_a_revision_that_nothing_knows_is_named(world: World) -> None:
    world.released()
    ghost = "f" * 40
    ends = [*world.router.endpoints("housing"), Endpoint(ghost, "6.6.6", "n6", ("/run/n6.sock",))]
    told_last = world.router.told()["housing"]
    world.router.offer("housing", ends, told_last)
    world.router.shift("housing", 1, [(ghost, 100)], told_last)
    one = sole(world)
    assert (one.drift, one.repair) == ("route to the unknown", UP)
    assert one.what == "fffffff has traffic, and nothing knows it; to do: 1.0.0 100%"
    world.settle()
    assert world.parity()


def test_a_process_that_the_gateway_does_not_know_yet_is_named(world: World) -> None:
    world.released()
    world.launcher.end(world.launcher.running()[-1].nonce)
    world.clock.advance(31)
    world.controller.reconciler.production("housing")
    world.clock.advance(31)
    world.controller.reconciler.production("housing")
    world.launcher.instances()
    assert [(each.drift, each.what) for each in found(world)] == [
        ("route to the dead", "1.0.0 runs, and the gateway does not know where")
    ]
    world.settle()
    assert world.parity()


def test_a_process_that_nothing_wants_is_named_and_stopped_by_the_daemon(world: World) -> None:
    world.released()
    group = replace(world.launcher.groups[-1], revision="f" * 40)
    world.launcher.launch(group, Stamp(99, 99))
    world.launcher.instances()
    assert (sole(world).drift, sole(world).repair) == ("orphan process", UP)
    world.settle()
    assert world.parity()


def test_a_process_that_nothing_knows_is_named_by_its_pid(world: World) -> None:
    world.released()
    world.launcher.strayed = [
        Stray("orphan", 4711, "housing", "housing@1.0.0"), Stray("stranger", 4712, "housing", "1.0.0 at /run/n.sock"),
    ]  # fmt: skip
    assert told(world) == [
        ("orphan process", "process 4711 serves housing@1.0.0, and nothing knows it", "kill 4711"),
        ("stranger on a socket", "1.0.0 at /run/n.sock is answered by process 4712, which is not ours", UP),
    ]
    assert world.parity()  # a status does not look at every process


def test_a_gateway_that_is_down_or_was_edited_is_named(world: World) -> None:
    world.released()
    world.router.edited = ["rds.pb"]
    assert (sole(world).drift, sole(world).what) == (
        "edited gateway file", f"{world.ports.state / 'gateway' / 'rds.pb'} is not what was written there",
    )  # fmt: skip
    world.router.edited, world.router.down = [], True
    assert (sole(world).drift, sole(world).repair) == ("gateway down", UP)
    world.router.taken = "127.0.0.1:20000"
    assert sole(world).what.startswith("127.0.0.1:20000, the gateway's address, is answered by")
    assert sole(world).repair == "branchline down --daemon-only; branchline up --port 20001"


def test_what_cannot_be_seen_is_a_drift(world: World) -> None:
    world.released()

    class Blind(type(world.router)):  # type: ignore[misc]
        def survey(self) -> None:
            raise GatewayDown

    world.router.__class__ = Blind
    assert sole(world) == Drift("", "unseen", "git", GatewayDown().message, UP)
    assert world.controller.parity.drifts([]) == []


def test_what_cannot_be_seen_of_one_service_hides_no_other(world: World) -> None:
    world.released()
    world.git.write(
        "experiment--cars--kim", {"cars/branchline.toml": MODEL, "cars/requirements.lock": "uvicorn==1.0\n"}
    )
    world.settle()
    shows = world.git.shows

    def broken(ref: str, service: str, closure: Sequence[str], revisions: Sequence[str]) -> str | None:
        if service == "housing":
            raise GitError("bad object")
        return shows(ref, service, closure, revisions)

    world.git.shows = broken  # type: ignore[method-assign]
    world.controller.observer._shows.clear()
    assert "unseen" in [each.drift for each in found(world) if each.service == "housing"]
    assert [each.service for each in found(world)].count("cars") == 0


# ── files ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_served_files_that_differ_are_named_and_put_back_when_told(world: World) -> None:
    first = world.released()
    folder = world.ports.state / "trees" / "housing" / first
    (folder / "housing" / "serving.py").write_text("# somebody was here\n")
    (folder / "housing" / "gates.py").unlink()
    (folder / "housing" / "written-by-the-server.txt").touch()
    what = f"{folder / 'housing' / 'gates.py'} (and 1 more) is not what the commit has, and is served from"
    assert told(world) == [("files differ", what, "branchline checkout housing@1.0.0 --again")]
    revision = world.controller.desk.revision("housing@1.0.0")
    assert world.controller.parity.mend(revision) == ("housing/gates.py", "housing/serving.py")
    assert (told(world), world.controller.parity.mend(revision)) == ([], ())


def test_a_tree_that_is_not_laid_out_has_no_files_that_differ(world: World) -> None:
    first = world.released()
    folder = world.ports.state / "trees" / "housing" / first
    folder.rename(folder.with_suffix(".away"))
    try:
        assert told(world) == []
        assert world.controller.parity.mend(world.controller.desk.revision("housing")) == ()
    finally:
        folder.with_suffix(".away").rename(folder)


def test_checked_out_files_that_differ_are_named(world: World) -> None:
    first, folder = world.released(), Path("/home/kim/my work")
    world.git.laid = [Checkout(Path("/home/kim/same"), "housing@1.0.0", first, ())]
    assert told(world) == []
    world.git.laid.append(Checkout(folder, "housing@1.0.0", first, ("housing/steps.py",)))
    repair = "branchline checkout housing@1.0.0 --again --into '/home/kim/my work'"
    assert told(world) == [("files differ", "/home/kim/my work/housing/steps.py is not what housing@1.0.0 has", repair)]
