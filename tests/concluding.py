"""This file concludes services until all are done, and dies at any moment: the process that the kill tests kill.

`python -m tests.concluding FOLDER REMOTE SERVICES` does what a daemon does after each start: open the mirror, conclude
and delete one branch after another, all of which it may have done already.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from branchline.core.names import experiment
from branchline.ports import Change, Stamp
from tests.repositories import RealGit

ROOT = Path(__file__).resolve().parents[1]
STAMP = Stamp(3, 1)


def name(number: int) -> str:
    """The number-th service."""
    return f"service-{number}"


def conclude_all(world: RealGit, services: int) -> None:
    """Conclude and delete what is left, in order."""
    world.repository.fetch()
    for number in range(services):
        service, branch = name(number), experiment(name(number), "alex")
        judged = world.git("rev-parse", f"refs/judged/{service}", at=world.truth)
        change = Change(
            service=service, closure=(service,), ref="main", revision=judged, seen=None, version="1.0.0", event=3,
            message=f"Conclude {service} 1.0.0", actor="", at=1_700_000_000.0 + number, stamp=STAMP,
        )  # fmt: skip
        world.writer.tell(service, STAMP)
        world.writer.hold(service, judged, "1.0.0")
        world.writer.conclude(change)
        files = {"1.0.0.json": f"{number}\n".encode(), "index.json": b"[]\n"}
        world.writer.deposit(service, files, f"Dossier of {service}", change.at, STAMP)
        world.writer.delete(service, branch, judged, STAMP)


def kill_often(folder: Path, *, remote: bool, kills: int, seed: int, services: int) -> RealGit:
    """Prepare services, run this file, and kill it or one of its git commands until enough were killed; then finish.

    Where everything was concluded before enough were killed, the trunk and the branches are set back.
    """
    dice = random.Random(seed)
    world = RealGit(folder, remote=remote)
    start = world.tip("main")
    for number in range(services):
        service = name(number)
        commit = world.write(experiment(service, "alex"), {f"{service}/model.py": f"{number}\n"})
        world.git("update-ref", f"refs/judged/{service}", commit, at=world.truth)
    killed = 0
    while killed < kills:
        if world.tip("main") != start and not world.git("for-each-ref", "refs/heads/experiment--*", at=world.truth):
            _begin_again(world, start, services)
        killed += _run_and_kill(folder, remote, services, dice)
    conclude_all(RealGit.at(folder, remote=remote), services)
    return world


def check_each_was_concluded_once(world: RealGit, services: int) -> None:
    """One merge each, the trunk shows it, branch gone, archived, tagged, its dossier kept; every object is whole."""
    told = world.git(
        "log",
        "--first-parent",
        "--format=%(trailers:key=Branchline-Event,valueonly,separator=)",
        "main",
        at=world.truth,
    )
    assert sorted(filter(None, told.splitlines())) == sorted(f"{name(number)}/3" for number in range(services))
    heads = world.repository.fetch()
    assert set(heads) == {"main"}
    kept = world.kept()
    for number in range(services):
        service = name(number)
        judged = world.git("rev-parse", f"refs/judged/{service}", at=world.truth)
        assert world.repository.shows("main", service, [service], [judged]) == judged
        assert kept[f"refs/tags/{service}@v1.0.0"] == judged
        dossiers = f"refs/branchline/dossiers/{service}"
        assert kept[dossiers] == world.git("rev-parse", dossiers, at=world.repository.path)
        assert world.git("log", "--format=%s", dossiers, at=world.truth) == f"Dossier of {service}"
        assert kept[f"refs/branchline/archive/{experiment(service, 'alex')}/{judged}"] == judged
    for place in (world.truth, world.repository.path):
        assert world.git("fsck", "--strict", "--no-dangling", at=place) == ""
        assert [path for path in place.rglob("*.lock") if "objects" not in path.parts] == []


def _begin_again(world: RealGit, start: str, services: int) -> None:
    world.reset("main", start)
    for number in range(services):
        world.reset(experiment(name(number), "alex"), f"refs/judged/{name(number)}")


def _run_and_kill(folder: Path, remote: bool, services: int, dice: random.Random) -> int:
    """Start this file, kill it (one time in three a git command of it first) after a while; how many were killed."""
    words = [sys.executable, "-m", "tests.concluding", str(folder), str(int(remote)), str(services)]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    try:
        process.wait(dice.uniform(0, 0.8))
    except subprocess.TimeoutExpired:
        killed = 1
        if dice.random() < 0.33:
            children = psutil.Process(process.pid).children()  # not what these start in the truth
            if children:
                _kill(dice.choice(children).pid)
                killed += 1
            with suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0, 0.3))
        _kill(process.pid)
    else:
        killed = 0
    process.wait()
    process.stdout.close()
    return killed


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    print("begun", flush=True)
    conclude_all(RealGit.at(Path(sys.argv[1]), remote=sys.argv[2] == "1"), int(sys.argv[3]))
