"""This file shows what changes by itself: how revisions serve at this moment, on a screen that is drawn again.

A number that nobody knows is a dash. Of a terminal the whole screen is taken and given back as it was; into a pipe goes
what is new.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from branchline.cli import show
from branchline.core.codes import problem
from branchline.errors import DaemonDown

Document = Mapping[str, Any]
EVERY = 1.0  # seconds between two looks
FULL_SCREEN, BACK = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HEAD = ("SHARE", "REQ/S", "FAILED", "P50", "P95", "P99", "THREADS", "WARN", "EXCEPT")


def watched(look: Callable[[], Document], lines_of: Callable[[Document], list[str]], as_json: bool) -> None:
    """Show the status again and again: on the whole terminal, or what is new as lines."""
    whole = sys.stdout.isatty() and not as_json
    last: object = None
    if whole:
        print(FULL_SCREEN, end="")
    try:
        while True:
            try:
                found = look()
                lines = lines_of(found)
            except DaemonDown as error:
                found, lines = {"schema": "branchline.status/1", "problem": problem(error)}, [error.message]
            now: object = found if as_json else lines
            if now != last:
                last = now
                if as_json:
                    show.document(found, line=True)
                elif whole:
                    print("\x1b[H\x1b[J", end="")
                    show.out("\n".join([*lines, "", click.style("Ctrl-C detaches", dim=True)]))
                else:
                    show.out("\n".join([time.strftime("%H:%M:%S"), *lines]))
                sys.stdout.flush()
            time.sleep(EVERY)
    finally:
        if whole:
            print(BACK, end="", flush=True)


def live_lines(service: Document) -> list[str]:
    """How each revision of a service that runs is asked and answers; nothing before anybody looked, and before the
    second look that it is being measured.
    """
    rows = [row for row in service["rows"] if row["perimeter"] and (row.get("rates") or row.get("processes"))]
    if not rows:
        return []
    seconds = max((row["rates"]["seconds"] for row in rows if row["rates"]), default=0)
    over = f"LAST {seconds:.0f} s" if seconds else "MEASURING"
    return ["", *columns([(over, *HEAD), *map(live_cells, rows)]), ""]


def live_cells(row: Document) -> tuple[str, ...]:
    """One line: shares and rates of the gateway, then what is known of the processes."""
    rates, processes = row["rates"] or {}, row["processes"] or {}
    asked = bool(rates.get("requests"))
    failed = rates.get("failed_percent") or 0.0
    return (
        str(row["version"] or row["commit"][:7]),
        f"{row['share']}%" if row["share"] else "-",
        f"{rates['per_second']:.{1 if rates['per_second'] < 100 else 0}f}" if asked else "-",
        worrying(f"{failed:.{1 if failed < 10 else 0}f}% ±{spread(rates)}", failed, "red") if asked else "-",
        *(took(rates.get(f"{name}_ms")) for name in ("p50", "p95", "p99")),
        str(processes.get("threads") or "-"),
        *(
            worrying(str(processes[name]), processes[name], colour) if processes else "-"
            for name, colour in (("warnings", "yellow"), ("exceptions", "red"))
        ),
    )


def spread(rates: Document) -> str:
    """How far the true share of failures may be from the one that was seen, in per cent, of so many requests."""
    from branchline.core.planning import proportion

    seen = rates["failed"] / rates["requests"]
    off = 100 * max(abs(each - seen) for each in proportion(rates["failed"], rates["requests"]))
    return f"{off:.{1 if off < 10 else 0}f}"


def worrying(text: str, number: float, colour: str) -> str:
    """A number that should be 0, in colour when it is not."""
    return click.style(text, fg=colour) if number else text


def took(milliseconds: float | None) -> str:
    """A time as people read it, three digits at most."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1:  # the gateway counts whole ones
        return "<1 ms"
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.{1 if milliseconds < 10_000 else 0}f} s"
    return f"{milliseconds:.{1 if milliseconds < 10 else 0}f} ms"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of numbers: all but the first column stand to the right; colours in them do not count."""
    widths = [max(len(click.unstyle(row[at])) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(
            cell + " " * room if not at else " " * room + cell
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            for room in (width - len(click.unstyle(cell)),)
        ).rstrip()
        for row in rows
    ]
