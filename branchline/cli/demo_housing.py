"""This file plays seed 1 on real data: a first revision, a winner, a tie, a harmful bug, a daemon that is killed.

The traffic is the example's own replay: the sales of 2008 to 2010, each with its outcome.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from branchline.cli.stage import PATIENCE, Stage, say, told, until

SERVICE = "housing"
SALES = Path("housing") / "data" / "sales"
OPEN = {"building", "evaluating", "queued", "A/B test", "canary", "won", "concluding"}


def play(stage: Stage) -> None:
    """Play parts 1 to 5."""
    first_revision(stage)
    winner(stage)
    tie(stage)
    harm(stage)
    killed(stage)


def data(stage: Stage) -> None:
    """Put 2006 and 2007 beside the code; what came later is asked for below, and sold meanwhile."""
    past = stage.clone / "data" / "sales"
    past.mkdir(parents=True)
    for month in sorted((stage.examples / SALES).glob("200[67]-*.csv")):
        shutil.copy(month, past)


def first_revision(stage: Stage) -> None:
    """The first of a service takes 100 %, is merged, and its branch deleted."""
    with stage.part(f"{SERVICE} 1.0.0: the first revision takes all traffic and is merged"):
        data(stage)
        branch = f"experiment--{SERVICE}--ada"
        stage.git("switch", "--quiet", "-c", branch)
        stage.lay("housing/housing", SERVICE)
        stage.type("data", "update", SERVICE)
        stage.commit(SERVICE, "Predict house prices by ridge regression")
        stage.type("check", SERVICE)
        stage.type("deploy")
        stage.until_gone(branch)
        stage.type("status")


def replay_of(stage: Stage, since: str = "2008-01", level: float = 1.0) -> Callable[[str, Callable[[], bool]], int]:
    """The months to July 2010, at so many times their prices, sent by the example's own replay, which is imported from
    its file.
    """
    path = stage.examples / "housing" / "replay.py"
    spec = importlib.util.spec_from_file_location("branchline_demo_replay", path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{path} cannot be read")
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def send(gateway: str, going: Callable[[], bool]) -> int:
        sales = module.sales(stage.examples / SALES, since=since, level=level)
        return int(module.replay(gateway, SERVICE, sales, lambda _: going()))

    return send


def experiment(stage: Stage, handle: str, source: str, because: str, message: str) -> str:
    """Deploy a challenger and send traffic until its test is over; returns its branch."""
    branch = stage.propose(SERVICE, handle, f"housing/challengers/{source}", because, message)
    stage.type("deploy")
    stage.send(branch, "A/B test", replay_of(stage), 2.0, "requests and their outcomes")
    return branch


def winner(stage: Stage) -> None:
    """It takes over 100 %, merged, deleted."""
    with stage.part("alex's challenger wins: it takes all traffic, its branch is merged"):
        because = "Gradient boosting on twenty columns errs less than ridge on six."
        branch = experiment(stage, "alex", "alex", because, "Predict by gradient boosting")
        stage.until_gone(branch)
        stage.type("history", SERVICE, "--limit", "6")
        page = str(stage.home / "alex.html")
        stage.type("dossier", branch, "--html", page)
        stage.type("dossier", "verify", page)
        stage.type("status")


def tie(stage: Stage) -> None:
    """It leaves production, deleted unmerged, archived."""
    with stage.part("sam's challenger ties: futile, it leaves production, its branch is deleted unmerged"):
        because = "A ridge on all columns is as good and simpler."
        stage.until_gone(experiment(stage, "sam", "sam", because, "Predict by ridge on all columns"))
        stage.type("status")


def harm(stage: Stage) -> None:
    """The success rate dips beyond a threshold, and it is rolled back; the branch stays."""
    with stage.part("robin's challenger serves square metres: every gate passes, the guardrail rolls it back"):
        because = "Callers send square metres soon."
        branch = experiment(stage, "robin", "robin-metres", because, "Read areas in square metres")
        until("it is rolled back", lambda: stage.row(branch).get("state") == "rolled back")
        stage.type("status")


def killed(stage: Stage) -> None:
    """The daemon dies in the middle of a conclusion, and the next one finishes it once."""
    with stage.part("a fix by canary; the daemon is killed (-9) while it concludes, and the next one finishes it"):
        branch = f"fix--{SERVICE}--wording"
        stage.on_main()
        stage.git("switch", "--quiet", "-c", branch)
        readme = stage.clone / SERVICE / "README.md"
        readme.write_text("# housing\n\nPredicts what a house is sold for, in dollars.\n")
        stage.commit(SERVICE, "Say what the service answers")
        stage.type("deploy")
        hook = slow_remote(stage)
        killer = threading.Thread(target=kill_while_concluding, args=(stage, branch), daemon=True)
        killer.start()
        stage.send(branch, "canary", replay_of(stage), 2.0, "requests and their outcomes")
        killer.join(timeout=PATIENCE)
        stage.type("up")
        stage.until_gone(branch)
        hook.unlink()
        merges = told(["git", "ls-remote", "origin", "main"], stage.clone).split()[0]
        stage.git("fetch", "--quiet")
        found = told(["git", "log", "--format=%H", f"--grep=Merges {branch}", merges], stage.clone).splitlines()
        say(f"   merges of {branch} on main: {len(found)}")
        stage.type("status")
        stage.type("parity")


def slow_remote(stage: Stage) -> Path:
    """Let the remote take a second for each push, as one across the world does: time to be killed in."""
    hook = stage.home / "remote.git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nsleep 1\n")
    hook.chmod(0o755)
    say("   the remote takes a second for each push from now on")
    return hook


def kill_while_concluding(stage: Stage, branch: str) -> None:
    """Kill the daemon as soon as the branch is seen concluding."""
    while (state := stage.row(branch).get("state")) in OPEN:
        if state == "concluding":
            pid = stage.daemon()
            os.kill(pid, signal.SIGKILL)
            say(f"   kill -9 {pid}, in the middle of the conclusion")
            return
        time.sleep(0.02)
    say("   it was too quick for the kill")
