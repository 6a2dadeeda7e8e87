"""This file plays what data does by itself: a month arrives and opens an experiment, which wins; a spoiled one stops.

Nobody types anything for it but the copying of a file. The months stand in the example's `arrivals`; what is made up of
them is said where they are played, too.
"""

from __future__ import annotations

import json
import shutil
from http.client import HTTPConnection
from urllib.parse import urlsplit

import click

from branchline.cli.demo_housing import SERVICE, replay_of
from branchline.cli.stage import Stage, say, until

WORKING = {"building", "evaluating", "queued"}
FALLEN = 0.85  # what houses bring from January 2008 on, of what they brought in Ames


def play(stage: Stage) -> None:
    """Play parts 6 and 7."""
    month(stage)
    spoiled(stage)


def month(stage: Stage) -> None:
    """Prices have moved; the same code trained with the newest ones wins, and is merged."""
    with stage.part("a month arrives, prices have fallen: an experiment opens itself, wins, is merged"):
        say("   from January 2008 on houses bring 15 % less here; that is made up, Ames had no such fall")
        stage.on_main()
        priced(stage)
        branch = arriving(stage, "2008-01", "A/B test")
        stage.show("log", "-1", "--stat", "--format=%an <%ae>%n%B", f"origin/{branch}")
        stage.type("why", branch)
        player = replay_of(stage, since="2008-02", level=FALLEN)
        stage.send(branch, "A/B test", player, 2.0, "requests and their outcomes")
        stage.until_gone(branch)
        stage.on_main()
        stage.type("data", "log", "sales")
        stage.type("status")


def spoiled(stage: Stage) -> None:
    """The column of prices is empty: nothing is built with it, and what served serves on."""
    with stage.part("a spoiled month arrives: it stops at the data gate, and what served serves on"):
        branch = arriving(stage, "2008-02", "evaluation failed")
        stage.type("why", branch)
        stage.type("status", SERVICE)
        priced(stage)
        stage.type("close", branch, "--because", "The county sends February again, with prices.", "--yes")
        stage.until_gone(branch)


def arriving(stage: Stage, name: str, state: str) -> str:
    """A month is laid beside the others; returns the branch that opens of it, once it is so far."""
    before = {row["branch"] for row in stage.rows(SERVICE)}
    say(f"$ cp {name}.csv data/sales/", dim=True)
    shutil.copy(stage.examples / SERVICE / "arrivals" / f"{name}.csv", stage.clone / "data" / "sales")
    found: list[str] = []

    def there() -> bool:
        found[:] = [row["branch"] for row in stage.rows(SERVICE) if row["branch"] not in before]
        return bool(found)

    until(f"{name} opens an experiment", there)
    say(f"   nothing else was typed: {found[0]} has opened itself")
    until(f"the gates of {found[0]} have spoken", lambda: stage.row(found[0]).get("state", "building") not in WORKING)
    if (row := stage.row(found[0]))["state"] != state:
        raise click.ClickException(f"{found[0]} is not in {state} but: {row['state']}, {row['detail']}")
    stage.git("fetch", "--quiet")
    return found[0]


def priced(stage: Stage) -> None:
    """What one and the same house is worth by now, and by whom."""
    address, sample = stage.address(SERVICE), stage.clone / SERVICE / "tests" / "sample.json"
    say(f"$ curl {address} -d @{sample.relative_to(stage.clone)}", dim=True)
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    connection.request("POST", urlsplit(address).path, sample.read_bytes(), {"x-branchline-unit": "me"})
    answer = connection.getresponse()
    say(f"{answer.headers['x-branchline-revision']}: {json.dumps(json.load(answer))}")
    connection.close()
