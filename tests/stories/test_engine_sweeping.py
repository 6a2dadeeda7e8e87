"""This file tests what is cleared away, and that each reason for keeping something keeps it (F49, 3.30).

Every reason has a killer: without it something is lost that is needed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from branchline.core import lifecycle as law
from branchline.core.revision import GateResult, Result, Revision, StepRun
from branchline.engine.preparing import laid
from branchline.engine.sweeping import IN_USE, KEPT, MONTH, NEEDED, NEWEST, SWEPT, Sweeper, own_bytes
from branchline.ports import Checkout
from tests.world import ALEX, KIM, SAM, World

YEAR = 365 * 86400.0


@dataclass
class Past:
    """A world in which a year has gone by: `first` was deployed and supplanted, `live` serves, `open` is under test,
    `built` was built once, and `mine` is in a work tree.
    """

    world: World
    first: Revision
    live: Revision
    open: Revision
    built: Revision

    def sweeper(self, **reasons: Any) -> Sweeper:
        """Nobody builds anything."""
        return replace(self.world.controller.sweeper, busy=lambda: False, **reasons)

    def count(self, kind: str, found: dict[str, Any]) -> int:
        """How many of a kind went."""
        return int(next(each["count"] for each in found["gone"] if each["kind"] == kind))

    def has(self, revision: Revision) -> bool:
        """Whether its results are all there."""
        return all(self.world.artifacts.has(artifact) for _, artifact in revision.artifacts)


@pytest.fixture
def past(tmp_path: Path) -> Past:
    world = World(tmp_path / "state")
    first = world.released(ALEX)
    live = world.testing(SAM)
    world.record(law.Won(SAM))
    world.settle()
    built = world.push(KIM, says={"unit": False, "train": {"loss": 77}})
    world.settle()
    world.ask("close", KIM, because="no")
    world.settle()
    tested = world.testing("experiment--housing--mia")
    revisions = [world.catalog.revision("housing", commit) for commit in (first, live, tested, built)]
    made = Past(world, revisions[0], revisions[1], revisions[2], revisions[3])
    aged(world)
    return made


def aged(world: World) -> None:
    """Let a year go by."""
    world.clock.advance(YEAR)
    world.artifacts.put_at.clear()
    world.environments.used = dict.fromkeys(world.environments.built, 0.0)
    world.sources.pinned_at = dict.fromkeys(world.sources.kept, 0.0)
    for path in world.ports.state.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)


def buried(past: Past) -> None:
    """Build so much that the revisions of the story are none of the newest."""
    for number in range(NEWEST + 1):
        past.world.catalog.add(replace(past.built, commit=f"{number:040}", artifacts=()), "minor", 1)


def test_nothing_goes_that_is_needed(past: Past) -> None:
    """Everything here was built lately enough to be brought back, and what is in use can serve on."""
    before = set(past.world.artifacts.kept)
    assert past.count("artifact", past.sweeper().sweep()) == 0
    assert set(past.world.artifacts.kept) == before
    past.world.settle()
    assert past.world.parity()


def test_what_nobody_needs_goes_and_is_said_before(past: Past) -> None:
    buried(past)
    orphan = past.world.ports.state / "orphan"
    orphan.write_text("made by a run that nobody recorded")
    lost = past.world.artifacts.put(orphan)
    past.world.artifacts.put_at.clear()
    planned = past.sweeper().sweep(dry_run=True)
    assert past.world.artifacts.has(lost)
    done = past.sweeper().sweep()
    assert done == planned | {"dry_run": False}
    assert past.count("artifact", done) >= 1
    assert not past.world.artifacts.has(lost)
    assert all(map(past.has, (past.first, past.live, past.open)))
    assert past.count("artifact", past.sweeper().sweep()) == 0


def test_what_is_young_never_goes_F49(past: Past) -> None:
    world = past.world
    orphan = world.ports.state / "orphan"
    orphan.write_text("it is being made, and not recorded yet")
    artifact = world.artifacts.put(orphan)
    past.sweeper().sweep()
    assert world.artifacts.has(artifact)


def test_killer_each_revision_is_kept_for_a_reason(past: Past) -> None:
    """Without it, and with nothing else to keep the revision, its results are lost."""
    buried(past)
    past.world.git.laid.append(Checkout(Path("/x"), past.built.name, past.built.commit, ()))
    about = {
        "serving": past.first, "candidates": past.open, "running": past.live, "checked out": past.built,
        "referred": past.first,
    }  # fmt: skip
    assert {*about, "newest"} == {*IN_USE, *KEPT}
    for name, revision in about.items():
        for wanted in (name, ""):
            uses = {each: reason for each, reason in IN_USE.items() if each == wanted}
            kept = {each: reason for each, reason in KEPT.items() if each == wanted}
            found = set(past.world.artifacts.kept)
            sweeper = past.sweeper(in_use=uses, kept=kept)
            sweeper.sweep(dry_run=True)
            before = dict(past.world.artifacts.kept)
            sweeper.sweep()
            assert past.has(revision) == bool(wanted), (name, wanted)
            past.world.artifacts.kept = before
            assert set(past.world.artifacts.kept) == found


def test_killer_the_newest_are_kept(past: Past) -> None:
    before = dict(past.world.artifacts.kept)
    past.sweeper(in_use={}, kept={"newest": KEPT["newest"]}).sweep()
    assert all(map(past.has, (past.first, past.live, past.open, past.built)))
    past.world.artifacts.kept = before
    past.sweeper(in_use={}, kept={}).sweep()
    assert not any(map(past.has, (past.first, past.live, past.open, past.built)))


def artifact(world: World, text: str) -> str:
    path = world.ports.state / "text"
    path.write_text(text)
    found = world.artifacts.put(path)
    world.artifacts.put_at.clear()
    return found


def test_killer_what_a_revision_is_made_of_and_what_was_told_of_it(past: Past) -> None:
    """Its results, what its runs left and printed, and what its gates printed, each on its own."""
    world = past.world
    log, item, said, result = (artifact(world, text) for text in ("log", "item", "said", "result"))
    commit = past.live.commit
    world.catalog.keep_run("housing", commit, [StepRun("train", "ran", "k", item, item="a", log=log, at=1.0)])
    world.catalog.keep_gates("housing", commit, [GateResult("unit", Result.PASS, "", log=said)])
    world.catalog._revisions["housing", commit] = replace(past.live, artifacts=(("train", result),))
    about = {"told": {log, item}, "judged": {said}, "results": {result}}
    assert set(about) == set(NEEDED)
    before = dict(world.artifacts.kept)
    past.sweeper().sweep()
    assert {log, item, said, result} <= set(world.artifacts.kept)
    for name, needed in about.items():
        world.artifacts.kept = dict(before)
        past.sweeper(needed={each: reason for each, reason in NEEDED.items() if each != name}).sweep()
        assert not needed & set(world.artifacts.kept), name


def test_results_of_the_last_month_are_kept_for_reuse_and_older_ones_go(past: Past) -> None:
    """What was only reused lately is as good as new; a run without a time is as old as the next newer one."""
    world = past.world
    now = world.clock.now()
    old, young, reused, log = (artifact(world, text) for text in ("old", "young", "reused", "log"))
    keep = world.catalog.keep_run
    keep("housing", "1" * 40, [StepRun("train", "ran", "k1", old, at=now - MONTH - 1)])
    keep("housing", "2" * 40, [StepRun("train", "ran", "k2", young, at=now - MONTH + 1, log=log)])
    keep("housing", "3" * 40, [StepRun("train", "reused", "k3", reused)])
    past.sweeper().sweep()
    assert [world.artifacts.has(each) for each in (old, young, log, reused)] == [False, True, True, True]


def test_killer_while_something_is_built_every_recorded_result_stays(past: Past) -> None:
    """A build chooses a result by its key long before it records that it did; and it reads what is laid out."""
    world = past.world
    old = artifact(world, "old")
    world.catalog.keep_run("housing", "1" * 40, [StepRun("train", "ran", "k1", old, at=1.0)])
    folder = laid(world.ports, old)
    os.utime(folder.parent, (1, 1))
    os.utime(folder, (1, 1))
    found = replace(past.sweeper(), busy=lambda: True).sweep()
    assert (found["busy"], world.artifacts.has(old), folder.exists()) == (True, True, True)
    past.sweeper().sweep()
    assert (world.artifacts.has(old), folder.exists()) == (False, False)


def test_what_is_busy_is_asked_of_everybody_who_builds(world: World) -> None:
    seen: list[bool] = []
    said = world.runner.calls["steps:train"]

    def look(order: dict[str, Any]) -> Any:
        seen.append(world.controller.busy())
        return said(order)

    world.runner.calls["steps:train"] = look
    assert not world.controller.busy()
    world.push()
    world.settle()
    world.try_out("housing", world.push("other", folder="housing", says={"train": 5}))
    assert seen == [True, True]


# ---- data


@pytest.fixture
def pinned(past: Past) -> dict[str, str]:
    """Digests of data versions by who pins them; each lies in an artifact of its own."""
    world, found = past.world, {}
    for name in ("branch", "revision", "nobody"):
        world.sources.here["data/*.csv"] = {"a.csv": f"x\n{name}\n".encode()}
        version = world.sources.pin("sales", "data/*.csv")
        found[name] = version.digest
        world.sources.artifacts[version.digest] = (artifact(world, name),)
        if name == "branch":
            lock = world.ports.relock(None, "housing/data.lock", [version]).decode()
    world.push("wip", folder="housing", files={"data.lock": lock})
    world.push("broken", folder="housing", files={"data.lock": "no lock"})
    world.controller.observer.fetch()
    commit = past.live.commit
    world.catalog._revisions["housing", commit] = replace(past.live, data=(("sales", found["revision"]),))
    world.sources.pinned_at = dict.fromkeys(world.sources.kept, 0.0)
    return found


def test_killer_data_that_a_branch_or_a_revision_pins_is_kept(past: Past, pinned: dict[str, str]) -> None:
    world = past.world
    lies = {name: world.sources.artifacts[digest][0] for name, digest in pinned.items()}
    found = past.sweeper().sweep()
    assert past.count("data version", found) == 1
    assert set(world.sources.kept) == {pinned["branch"], pinned["revision"]}
    assert {name for name, artifact in lies.items() if world.artifacts.has(artifact)} == {"branch", "revision"}
    past.sweeper(in_use={}, kept={}).sweep()
    assert set(world.sources.kept) == {pinned["branch"]}


def test_killer_data_that_was_pinned_lately_is_kept_with_its_bytes(past: Past, pinned: dict[str, str]) -> None:
    """A branch that nobody has pushed may pin it."""
    world = past.world
    world.sources.pinned_at[pinned["nobody"]] = 2e9
    past.sweeper().sweep()
    assert pinned["nobody"] in world.sources.kept
    assert world.artifacts.has(world.sources.artifacts[pinned["nobody"]][0])


def test_killer_no_data_goes_before_git_was_read(past: Past, pinned: dict[str, str]) -> None:
    """A daemon that starts while the remote is down knows no branch."""
    past.world.controller.observer.fetched = False
    assert past.count("data version", past.sweeper().sweep()) == 0
    assert set(pinned.values()) <= set(past.world.sources.kept)


# ---- environments and folders


def test_killer_environments_of_what_is_in_use_are_kept(past: Past) -> None:
    """Those that its steps ran in, too."""
    world = past.world
    own = past.live.environment
    world.environments.built += ["old" * 8, "of-a-step"]
    world.environments.used |= {"old" * 8: 0.0, "of-a-step": 0.0}
    (line,) = [each for each in world.catalog.run("housing", past.live.commit)[0].lines if each.name == "environment"]
    world.catalog.keep_run(
        "housing", past.live.commit,
        [StepRun("train", "ran", "k", "", at=1.0, lines=(replace(line, hash="of-a-step"),))],
    )  # fmt: skip
    found = past.sweeper().sweep()
    assert past.count("environment", found) == 1
    assert set(world.environments.built) == {own, "of-a-step"}
    past.sweeper(in_use={}).sweep()
    assert world.environments.built == []


@pytest.fixture
def folders(past: Past) -> Iterator[dict[str, Path]]:
    """Old folders of each kind that nobody needs."""
    state = past.world.ports.state
    names = {
        "laid-out result": "laid/abc", "laid-out data": "data/abc", "laid-out tree": "trees/housing/abc-shared",
        "home of a revision": "revisions/housing/abc", "log folder": "runs/abc",
    }  # fmt: skip
    found = {kind: state / name for kind, name in names.items()}
    for folder in found.values():
        folder.mkdir(parents=True)
        (folder / "file").write_text("x" * 5000)
        (folder / "link").symlink_to("file")
        os.utime(folder, (1, 1))
    yield found
    shutil.rmtree(state)


def test_what_was_laid_out_goes_unless_it_is_in_use(past: Past, folders: dict[str, Path]) -> None:
    state = past.world.ports.state
    used = [state / "laid" / dict(past.live.artifacts)["train"], state / "trees" / "housing" / past.live.commit,
            state / "revisions" / "housing" / past.live.commit]  # fmt: skip
    assert all(path.exists() for path in used)
    past.sweeper().sweep(dry_run=True)
    assert all(path.exists() for path in folders.values())
    found = past.sweeper().sweep()
    assert not any(path.exists() for path in folders.values())
    assert not (state / SWEPT).exists()
    assert all(path.exists() for path in used)
    assert {kind: past.count(kind, found) > 0 for kind in folders} == dict.fromkeys(folders, True)
    past.sweeper(in_use={}).sweep()
    assert not any(path.exists() for path in used)


def test_laid_out_data_of_what_is_in_use_stays(past: Past) -> None:
    world = past.world
    folder = world.ports.state / "data" / "digest"
    folder.mkdir(parents=True)
    os.utime(folder, (1, 1))
    commit = past.live.commit
    world.catalog._revisions["housing", commit] = replace(past.live, data=(("sales", "digest"),))
    past.sweeper().sweep()
    assert folder.exists()


def test_a_young_folder_stays_and_logs_stay_a_week(past: Past, folders: dict[str, Path]) -> None:
    now = past.world.clock.now()
    for kind, folder in folders.items():
        age = 6 * 86400 if kind == "log folder" else 86000
        os.utime(folder, (now - age, now - age))
    past.sweeper().sweep()
    assert all(path.exists() for path in folders.values())


def test_bytes_are_counted_once_and_not_where_they_lie_elsewhere_too(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "own").write_text("x" * 5000)
    alone = own_bytes(folder)
    assert alone >= 5000
    (tmp_path / "elsewhere").write_text("y" * 50000)
    os.link(tmp_path / "elsewhere", folder / "shared")
    assert own_bytes(folder) == alone
    assert own_bytes(tmp_path / "folder" / "own") == alone
