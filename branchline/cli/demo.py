"""This file is `branchline demo`: the whole idea on real parts: git with a bare remote, environments, processes, Envoy,
traffic, verdicts.

What is played stands in `demo_housing`, `demo_data` and `demo_listings`, and where in `stage`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

import click

from branchline.cli import demo_data, demo_housing, demo_listings
from branchline.cli.stage import Stage, say, told
from branchline.errors import UsageError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave everything up to look at.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to play; a new folder.")
@click.option("--only", type=click.Choice(["housing", "listings"]), help="One of the two examples.")
@click.option(
    "--examples", type=click.Path(path_type=Path, exists=True), default=EXAMPLES, show_default=False, hidden=True
)
def demo(keep: bool, folder: Path | None, only: str | None, examples: Path) -> None:
    """Play the whole story.

    A model: a first revision, a winner, a tie, a harmful bug, a killed daemon, a month of new data, a spoiled month.
    Then a microservice that asks it: a canary, a hotfix, a rollback, and a twin in Node.
    """
    if not (examples / "housing").is_dir():
        raise click.ClickException("the example is not here: run the demo from a checkout of the project (make demo)")
    home = (folder or Path(tempfile.mkdtemp(prefix="branchline-demo-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    if any(home.iterdir()):
        raise UsageError(f"{home} is not empty: the demo plays in a new folder", hint="branchline demo --folder NEW")
    stage = Stage(home, examples)
    begun = time.monotonic()
    leave, stays = keep, True  # what runs, and the folder, unless it ends well or somebody ends it
    signal.signal(signal.SIGTERM, ended_by)
    try:
        prepare(stage)
        if only != "listings":
            demo_housing.play(stage)
            demo_data.play(stage)
        if only != "housing":
            demo_listings.play(stage, alone=only == "listings")
        ending(stage, keep, time.monotonic() - begun)
        stays = keep or folder is not None
    except KeyboardInterrupt as error:
        say("interrupted; stopping what was begun")
        leave, stays = False, folder is not None
        raise click.exceptions.Exit(128 + (error.args[0] if error.args else signal.SIGINT)) from None
    except Exception:
        if keep:
            say(f"What was begun still runs. To stop it: cd {stage.clone} && branchline down")
        raise
    finally:
        if not leave:
            with_down(stage, quiet=not stays)
        if not stays:
            shutil.rmtree(home, ignore_errors=True)


def ended_by(number: int, frame: object) -> NoReturn:
    """End as by Ctrl-C, so that nothing is left running."""
    raise KeyboardInterrupt(number)


def with_down(stage: Stage, *, quiet: bool) -> None:
    """Leave nothing running, however impatient somebody is; quietly where there will be no folder to go on in."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if (stage.clone / ".git" / "branchline").is_dir():
        said = subprocess.DEVNULL if quiet else None
        subprocess.run([sys.executable, "-m", "branchline.cli.main", "down"], cwd=stage.clone, stderr=said, check=False)


def prepare(stage: Stage) -> None:
    """A bare remote, a clone with a first commit, the daemon."""
    say("A scratch repository with a bare remote", bold=True)
    told(["git", "init", "--quiet", "--bare", "--initial-branch=main", "remote.git"], stage.home)
    told(["git", "clone", "--quiet", "remote.git", "realty"], stage.home)
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        told(["git", "config", key, value], stage.clone)
    (stage.clone / ".gitignore").write_text("data/\n__pycache__/\n")
    (stage.clone / "README.md").write_text("# Realty\n")
    told(["git", "checkout", "--quiet", "-B", "main"], stage.clone)
    stage.git("add", ".")
    stage.git("commit", "--quiet", "-m", "Begin")
    stage.git("push", "--quiet", "-u", "origin", "main")
    stage.type("up")


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
        say("")
        say("Everything is still up. Try:", bold=True)
        click.echo(f"  cd {stage.clone}")
        sample = next(stage.clone.glob("housing/**/sample.json")).relative_to(stage.clone)
        click.echo(f"  curl -s {stage.address('housing')} -H 'x-branchline-unit: me' -d @{sample}")
        click.echo("  branchline status --watch")
        click.echo("  branchline history housing")
        click.echo("  branchline checkout housing@1.0.0")
        click.echo("  branchline down")
    else:
        say("Nothing is left running. `make demo KEEP=1` leaves everything up to look at.")
