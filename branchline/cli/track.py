"""This file is the commands that look at recorded runs: `runs` finds them, `compare` puts two side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from branchline.cli import show
from branchline.cli.session import Session, as_json, naming, pass_session

Document = Mapping[str, Any]
COLOUR = {"failed": "red", "reused": "bright_black"}
SHOWN = 5  # metrics in a line of `runs`


@click.command()
@naming("service", required=False, default="")
@click.option("--step", metavar="NAME", default="", help="Only runs with this step; bounds and --state are of it.")
@click.option("--where", metavar="BOUND", multiple=True, help="A bound of a metric, as 'mape<10'; may be given again.")
@click.option("--state", type=click.Choice(["ran", "reused", "failed", "stopped"]), default=None, help="How it ended.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@click.option("--before", type=click.IntRange(0), default=0, metavar="NUMBER", help="Only what is older than this one.")
@as_json
@pass_session
def runs(
    session: Session, service: str, step: str, where: Sequence[str], state: str | None, limit: int, before: int
) -> None:
    """Find runs by step, metric and state.

    What steps tell by branchline.log(name=value) is found by its last value; a reused step has told what it did when
    it ran.
    """
    bounds = ",".join(where)
    found = session.client().get(
        "/v1/runs", service=service, step=step, state=state or "", where=bounds, limit=limit, before=before
    )
    if session.json:
        show.document(found)
        return
    now = time.time()
    for line in show.table([run_cells(run, now) for run in found["runs"]]):
        show.out(line)
    if not found["runs"]:
        show.say("no run is like that" if step or where or state else "nothing was run here yet")


def run_cells(run: Document, now: float) -> tuple[str, ...]:
    """One line of `runs`."""
    name = "@".join(filter(None, (run["service"], run["version"])))
    metrics = [f"{name}={value:g}" for name, value in run["metrics"].items()]
    more = [f"and {len(metrics) - SHOWN} more"] if len(metrics) > SHOWN else []
    state = click.style(run["state"], fg=COLOUR.get(run["state"]))
    at = show.when(run["at"], now) if run["at"] else "-"
    words = " ".join([*metrics[:SHOWN], *more])
    return (str(run["run"]), at, name, run["commit"][:7], run["branch"] or "-", state, f"{run['seconds']:.1f}s", words)


@click.command()
@naming("one", metavar="A")
@naming("other", metavar="B")
@click.option("--md", is_flag=True, help="Print Markdown, for a pull request.")
@as_json
@pass_session
def compare(session: Session, one: str, other: str, md: bool) -> None:
    """Put two runs side by side.

    Code, data, environment, parameters, metrics, time. A and B are numbers of runs, revisions or branches.
    """
    found = session.client().get("/v1/compare", a=one, b=other)
    if session.json:
        show.document(found)
        return
    for line in markdown(found) if md else show.table(list(compare_cells(found))):
        show.out(line)


def compare_cells(found: Document) -> Iterator[tuple[str, ...]]:
    """A comparison as a table: what differs stands out."""
    yield ("", "", *map(title, found["sides"]), "")
    part = ""
    for row in found["rows"]:
        change = difference(row)
        colour = "bright_black" if row["same"] else None
        cells = (label(row), cell(row["name"], row["a"]), cell(row["name"], row["b"]), change)
        yield (row["part"] if row["part"] != part else "", *(click.style(each, fg=colour) for each in cells))
        part = row["part"]


def markdown(found: Document) -> Iterator[str]:
    """A comparison as Markdown."""
    yield "| | | " + " | ".join(map(title, found["sides"])) + " | |"
    yield "|---|---|---|---|---|"
    for row in found["rows"]:
        cells = (row["part"], label(row), cell(row["name"], row["a"]), cell(row["name"], row["b"]), difference(row))
        yield "| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |"


def title(side: Document) -> str:
    """What one side of a comparison is called."""
    name = "@".join(filter(None, (side["service"], side["version"])))
    return f"{name} (run {side['run']})"


def label(row: Document) -> str:
    """What a row is about, without the words that its part says."""
    return str(row["name"]).removeprefix(f"{row['part']} ").removeprefix("parameter ")


def cell(name: str, value: object) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if name.endswith(" peak") and isinstance(value, int):
        return f"{value / 1e6:.0f} MB"
    if isinstance(value, float) and name.endswith((" seconds", " cpu")):
        return f"{value:.3f}s"
    return f"{value:g}" if isinstance(value, float) else str(value)


def difference(row: Document) -> str:
    """How B is against A: how much more or less, or that it is the same."""
    a, b = row["a"], row["b"]
    if row["same"]:
        return "="
    if not all(isinstance(value, int | float) for value in (a, b)):
        return "changed" if None not in (a, b) else "only B" if a is None else "only A"
    if row["name"].endswith(" peak"):
        return f"{more:+d} MB" if (more := round((b - a) / 1e6)) else "="
    return f"{b - a:+.4g}" + (f" ({(b - a) / abs(a):+.1%})" if a else "")
