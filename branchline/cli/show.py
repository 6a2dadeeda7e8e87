"""This file prints: data on standard output, talk on standard error, colour only where a person looks.

NO_COLOR and CLICOLOR_FORCE are honoured. Widths are reckoned in plain text, colours are put on last.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

import click

Document = Mapping[str, Any]
COLOURS = {"ok": "green", "no": "red", "??": "yellow", "=": "bright_black", "..": "bright_black"}
KINDS = {"git": "cyan", "traffic": "magenta", "process": "blue"}
LOG_LINES = 20
BAR = 8


class Answered(Exception):
    """The daemon answered with an error: `problem` is its problem details, shown as they are."""

    def __init__(self, problem: Document) -> None:
        self.problem = problem
        super().__init__(str(problem.get("title", "")))


def colours(stream: TextIO) -> bool:
    """Whether colour is wanted on a stream."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def person(stream: TextIO | None = None) -> bool:
    """Whether a person can be asked: in and out are a terminal."""
    return sys.stdin.isatty() and (stream or sys.stderr).isatty()


def out(text: str = "") -> None:
    """One line of data."""
    click.echo(text, color=colours(sys.stdout))


def say(text: str = "") -> None:
    """One line of talk."""
    click.echo(text, err=True, color=colours(sys.stderr))


def document(found: Document, *, line: bool = False) -> None:
    """A JSON document: on lines of its own, or as one line of many."""
    out(json.dumps(found, ensure_ascii=False, **({} if line else {"indent": 2})))  # type: ignore[arg-type]


def problem(found: Document, as_json: bool = False) -> None:
    """An error: what, why, the last lines of what failed, and the next command to type (RFC 9457 as JSON)."""
    if as_json:
        click.echo(json.dumps(dict(found), ensure_ascii=False), err=True)
        return
    say(click.style(f"error[{found['code']}]", fg="red", bold=True) + f": {found.get('title', '')}")
    cause = str(found.get("detail") or "").splitlines()
    for number, line in enumerate(cause):
        say(("  cause: " if not number else "         ") + line)
    for line in str(found.get("log") or "").splitlines()[-LOG_LINES:]:
        say(click.style(f"  | {line}", dim=True))
    if found.get("hint"):
        say(f"  hint:  {found['hint']}")


def table(rows: Sequence[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Lines whose cells stand under one another; colours in them do not count."""
    widths = [max(len(click.unstyle(row[at])) for row in rows) for at in range(len(rows[0]))] if rows else []
    return [
        gap.join(
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def note(found: Document) -> str:
    """One line of progress: mark, name, the rest, seconds."""
    mark, text = str(found["mark"]), str(found["text"])
    first, *more = text.splitlines() or [""]
    took = found.get("seconds")
    seconds = f"{took:.1f}s" if took is not None else ""
    line = f" {click.style(mark.ljust(2), fg=COLOURS.get(mark))}  {found['name']:<18} {first:<56} {seconds}".rstrip()
    return "\n".join([line, *(f"       {each}" for each in more)])


def plan(steps: Iterable[Sequence[str]]) -> list[str]:
    """What git, traffic and processes will see, one line each."""
    lines = [f"plan     {click.style(kind.ljust(8), fg=KINDS.get(kind))} {text}" for kind, text in steps]
    return lines or ["plan     nothing changes in git, traffic or processes"]


def losses(commits: Iterable[Document]) -> list[str]:
    """What is thrown away, a commit a line."""
    return [f"{click.style('loses', fg='red')}    {each['commit'][:7]} {each['subject']}  ({each['author']})"
            for each in commits]  # fmt: skip


def ran(commands: Iterable[str]) -> list[str]:
    """Commands that were run, or would be, one under the other."""
    return [("ran      " if not number else "         ") + each for number, each in enumerate(commands)]


def override(found: Document, actor: str = "") -> str:
    """A person's word in the verdict's place: whose, for whom and why; below it the evidence as recorded then."""
    whom = "nobody" if found["side"] == "nobody" else f"the {found['side']}"
    who = f"by {actor.partition(' <')[0]} " if actor else ""
    first = (str(found["said"]).splitlines() or ["nothing was measured"])[0]
    return f"{who}for {whom}: {found['reason']}\nthe evidence by then: {first}"


def bar(share: int) -> str:
    """A share as a few signs."""
    return "#" * max(round(share * BAR / 100), 1 if share else 0)


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean ...?`, or nothing when nothing is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), 1)
    return f" Did you mean {near[0]!r}?" if near else ""


def ago(seconds: float) -> str:
    """A time that has passed, as people say it."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"


def when(at: str, now: float | None = None) -> str:
    """A moment (ISO 8601) for people: local time, and how long ago."""
    from datetime import datetime

    moment = datetime.fromisoformat(at)
    passed = (time.time() if now is None else now) - moment.timestamp()
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S} ({ago(passed)} ago)"
