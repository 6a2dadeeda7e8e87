"""This file plays the whole idea on real parts: git with a bare remote, environments, processes, Envoy, traffic,
verdicts.

It types the released commands, one after the other, in a scratch folder, and sends real requests and outcomes with
the example's own replay. Nothing here reaches into the daemon: what it shows is what the commands answer.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from branchline.cli.transport import Answered, Client
from branchline.errors import DaemonDown
from branchline.settings import settings_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "housing"
SERVICE = "housing"
PATIENCE = 120.0
OPEN = {"building", "evaluating", "queued", "A/B test", "canary", "won", "concluding"}


@dataclass(slots=True)
class Stage:
    """Where the story plays: a scratch folder with a bare remote and a clone, and how long each part took."""

    home: Path
    examples: Path
    times: list[tuple[str, float]] = field(default_factory=list)

    @property
    def clone(self) -> Path:
        """The work tree that alex, sam and the others share."""
        return self.home / "realty"

    def git(self, *words: str) -> str:
        """Type a git command, shown."""
        say(f"$ git {' '.join(map(quoted, words))}", dim=True)
        return told(["git", *words], self.clone)

    def type(self, *words: str, ok: tuple[int, ...] = (0,)) -> int:
        """Type a branchline command, its output passing through."""
        say(f"$ branchline {' '.join(quoted(word) for word in words)}", dim=True)
        ended = subprocess.run([sys.executable, "-m", "branchline.cli.main", *words], cwd=self.clone, check=False)
        if ended.returncode not in ok:
            raise click.ClickException(f"branchline {words[0]} ended with {ended.returncode}; look in {self.home}")
        return ended.returncode

    def ask(self, *words: str) -> Any:
        """What a reading command answers as JSON."""
        return json.loads(told([sys.executable, "-m", "branchline.cli.main", *words, "--json"], self.clone))

    def row(self, branch: str) -> dict[str, Any]:
        """The status row of a branch; {} when it has none any more, or when no daemon answers."""
        client = Client(settings_of(self.clone, self.clone / ".git").socket)
        try:
            services = client.get("/v1/status", reference=SERVICE)["services"]
        except (DaemonDown, Answered):
            return {}
        return next((dict(row) for service in services for row in service["rows"] if row["branch"] == branch), {})

    def daemon(self) -> int:
        """The daemon's process id."""
        return int(json.loads((self.clone / ".git" / "branchline" / "daemon.json").read_text())["pid"])

    @contextmanager
    def part(self, number: int, title: str) -> Iterator[None]:
        """One part of the story, timed."""
        say("")
        say(f"── {number}. {title}", bold=True)
        begun = time.monotonic()
        yield
        self.times.append((title, time.monotonic() - begun))

    def overlay(self, name: str) -> None:
        """Put a challenger's files over the service's."""
        source = self.examples / "challengers" / name if name else self.examples / SERVICE
        ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache")
        shutil.copytree(source, self.clone / SERVICE, dirs_exist_ok=True, ignore=ignored)


def say(text: str, *, bold: bool = False, dim: bool = False) -> None:
    """One line of the story."""
    click.echo(click.style(text, bold=bold, dim=dim))


def quoted(word: str) -> str:
    """A word as a person would type it."""
    return json.dumps(word) if " " in word else word


def told(command: list[str], cwd: Path) -> str:
    """What a command prints; the whole of its complaint when it fails."""
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise click.ClickException(
            f"{' '.join(command[:3])} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}"
        )
    return ended.stdout.strip()


def until(what: str, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something holds; says what did not."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise click.ClickException(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(0.1)


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave everything up to look at.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to play; a new folder.")
@click.option(
    "--examples", type=click.Path(path_type=Path, exists=True), default=EXAMPLES, show_default=False, hidden=True
)
def demo(keep: bool, folder: Path | None, examples: Path) -> None:
    """Play the whole story: a first revision, a winner, a tie, a harmful bug, a killed daemon."""
    if not (examples / SERVICE).is_dir():
        raise click.ClickException("the example is not here: run the demo from a checkout of the project (make demo)")
    home = (folder or Path(tempfile.mkdtemp(prefix="branchline-demo-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    stage = Stage(home, examples)
    begun = time.monotonic()
    ended_well = False
    try:
        prepare(stage)
        first_revision(stage)
        winner(stage)
        tie(stage)
        harm(stage)
        killed(stage)
        ending(stage, keep, time.monotonic() - begun)
        ended_well = True
    finally:
        if not keep:
            with_down(stage)
            if ended_well and folder is None:
                shutil.rmtree(home, ignore_errors=True)


def with_down(stage: Stage) -> None:
    """Leave nothing running."""
    if (stage.clone / ".git" / "branchline").is_dir():
        subprocess.run([sys.executable, "-m", "branchline.cli.main", "down"], cwd=stage.clone, check=False)


def prepare(stage: Stage) -> None:
    """A bare remote, a clone with a first commit, the data beside the code."""
    say("A scratch repository with a bare remote", bold=True)
    told(["git", "init", "--quiet", "--bare", "--initial-branch=main", "remote.git"], stage.home)
    told(["git", "clone", "--quiet", "remote.git", "realty"], stage.home)
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        told(["git", "config", key, value], stage.clone)
    past = stage.clone / "data" / "sales"  # 2006 and 2007; what came later is asked for below, and sold meanwhile
    past.mkdir(parents=True)
    for month in sorted((stage.examples / "data" / "sales").glob("200[67]-*.csv")):
        shutil.copy(month, past)
    (stage.clone / ".gitignore").write_text("data/\n__pycache__/\n")
    (stage.clone / "README.md").write_text("# Realty\n")
    told(["git", "checkout", "--quiet", "-B", "main"], stage.clone)
    stage.git("add", ".")
    stage.git("commit", "--quiet", "-m", "Begin")
    stage.git("push", "--quiet", "-u", "origin", "main")
    stage.type("up")


def propose(stage: Stage, handle: str, overlay: str, because: str, message: str) -> str:
    """A person's work: a branch, some files, a commit, a deploy."""
    branch = f"experiment--{SERVICE}--{handle}"
    stage.git("switch", "--quiet", "main")
    stage.git("pull", "--quiet", "--ff-only")
    stage.type("start", SERVICE, "--handle", handle, "--because", because)
    stage.overlay(overlay)
    stage.git("add", SERVICE)
    stage.git("commit", "--quiet", "-m", message)
    return branch


def first_revision(stage: Stage) -> None:
    """The first of a service takes 100 %, is merged, and its branch deleted."""
    with stage.part(1, f"{SERVICE} 1.0.0: the first revision takes all traffic and is merged"):
        branch = f"experiment--{SERVICE}--ada"
        stage.git("switch", "--quiet", "-c", branch)
        stage.overlay("")
        stage.type("data", "update", SERVICE)
        stage.git("add", SERVICE)
        stage.git("commit", "--quiet", "-m", "Predict house prices by ridge regression")
        stage.type("check", SERVICE)
        stage.type("deploy")
        until("the branch is gone", lambda: gone(stage, branch))
        stage.type("status")


def gone(stage: Stage, branch: str) -> bool:
    """Whether the remote has no such branch any more."""
    return not told(["git", "ls-remote", "--heads", "origin", branch], stage.clone)


def traffic(stage: Stage, branch: str, states: set[str]) -> int:
    """Send the years 2008 to 2010 until the branch leaves its state; returns how many requests that took."""
    replay = replay_of(stage.examples)
    base = stage.ask("status", SERVICE)["services"][0]["address"].rsplit("/", 2)[0]
    over = threading.Event()

    def watch() -> None:
        while not over.is_set() and stage.row(branch).get("state") in states:
            over.wait(0.2)
        over.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    begun = time.monotonic()
    asked = 0
    while not over.is_set() and time.monotonic() - begun < PATIENCE:
        asked += replay.replay(
            base, SERVICE, replay.sales(stage.examples / "data" / "sales"), lambda _: not over.is_set()
        )
        over.wait(2.0)
    watcher.join(timeout=30)
    say(f"   {asked} requests and their outcomes in {time.monotonic() - begun:.1f} s")
    return asked


def replay_of(examples: Path) -> Any:
    """The example's own replay, imported from its file."""
    spec = importlib.util.spec_from_file_location("branchline_demo_replay", examples / "replay.py")
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{examples / 'replay.py'} cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def winner(stage: Stage) -> None:
    """It takes over 100 %, merged, deleted."""
    with stage.part(2, "alex's challenger wins: it takes all traffic, its branch is merged"):
        branch = propose(
            stage,
            "alex",
            "alex",
            "Gradient boosting on twenty columns errs less than ridge on six.",
            "Predict by gradient boosting",
        )
        stage.type("deploy")
        traffic(stage, branch, {"A/B test"})
        until("the branch is merged and gone", lambda: gone(stage, branch))
        stage.type("history", SERVICE, "--limit", "6")
        stage.type("status")


def tie(stage: Stage) -> None:
    """It leaves production, deleted unmerged, archived."""
    with stage.part(3, "sam's challenger ties: futile, it leaves production, its branch is deleted unmerged"):
        branch = propose(
            stage, "sam", "sam", "A ridge on all columns is as good and simpler.", "Predict by ridge on all columns"
        )
        stage.type("deploy")
        traffic(stage, branch, {"A/B test"})
        until("the branch is gone", lambda: gone(stage, branch))
        stage.type("status")


def harm(stage: Stage) -> None:
    """The success rate dips beyond a threshold, and it is rolled back; the branch stays."""
    with stage.part(4, "robin's challenger serves square metres: every gate passes, the guardrail rolls it back"):
        branch = propose(
            stage, "robin", "robin-metres", "Callers send square metres soon.", "Read areas in square metres"
        )
        stage.type("deploy")
        traffic(stage, branch, {"A/B test"})
        until("it is rolled back", lambda: stage.row(branch).get("state") == "rolled back")
        stage.type("status")


def killed(stage: Stage) -> None:
    """The daemon dies in the middle of a conclusion, and the next one finishes it once."""
    with stage.part(5, "a fix by canary; the daemon is killed (-9) while it concludes, and the next one finishes it"):
        branch = f"fix--{SERVICE}--wording"
        stage.git("switch", "--quiet", "main")
        stage.git("pull", "--quiet", "--ff-only")
        stage.git("switch", "--quiet", "-c", branch)
        readme = stage.clone / SERVICE / "README.md"
        readme.write_text("# housing\n\nPredicts what a house is sold for, in dollars.\n")
        stage.git("add", SERVICE)
        stage.git("commit", "--quiet", "-m", "Say what the service answers")
        stage.type("deploy")
        slow_remote(stage)
        killer = threading.Thread(target=kill_while_concluding, args=(stage, branch), daemon=True)
        killer.start()
        traffic(stage, branch, {"canary"})
        killer.join(timeout=PATIENCE)
        stage.type("up")
        until("the branch is merged and gone", lambda: gone(stage, branch))
        merges = told(["git", "ls-remote", "origin", "main"], stage.clone).split()[0]
        stage.git("fetch", "--quiet")
        found = told(["git", "log", "--format=%H", f"--grep=Merges {branch}", merges], stage.clone).splitlines()
        say(f"   merges of {branch} on main: {len(found)}")
        stage.type("status")
        stage.type("parity")


def slow_remote(stage: Stage) -> None:
    """Let the remote take a second for each push, as one across the world does: time to be killed in."""
    hook = stage.home / "remote.git" / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nsleep 1\n")
    hook.chmod(0o755)
    say("   the remote takes a second for each push from now on")


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


def ending(stage: Stage, keep: bool, seconds: float) -> None:
    """What it took, and what to look at next."""
    say("")
    say("── What happened in git", bold=True)
    stage.git("fetch", "--quiet", "--prune")
    click.echo(told(["git", "log", "--oneline", "--graph", "--decorate=no", "origin/main"], stage.clone))
    click.echo(told(["git", "ls-remote", "--heads", "--tags", "origin"], stage.clone))
    say("")
    for title, took in stage.times:
        click.echo(f"  {took:6.1f} s  {title}")
    say(f"  {seconds:6.1f} s  in all", bold=True)
    if keep:
        address = stage.ask("status", SERVICE)["services"][0]["address"]
        say("")
        say("Everything is still up. Try:", bold=True)
        click.echo(f"  cd {stage.clone}")
        click.echo(f"  curl -s {address} -H 'x-branchline-unit: me' -d @{SERVICE}/tests/sample.json")
        click.echo("  branchline status --watch")
        click.echo(f"  branchline history {SERVICE}")
        click.echo(f"  branchline checkout {SERVICE}@1.0.0")
        click.echo("  branchline down")
    else:
        say("Nothing is left running. `make demo KEEP=1` leaves everything up to look at.")
