"""This file follows what is printed: logs that grow, are put aside when they are full, and begin where there were none.

The files are read where they lie, so that following asks nothing of the daemon and outlives it. Of what is there when
it begins the last lines are shown, of what begins later every one. A line is shown once it is whole.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from os.path import sameopenfile
from pathlib import Path
from typing import Any, BinaryIO

import click

from branchline.cli import show

EVERY = 0.1  # seconds between two looks at what is known
FIND = 5  # of these looks one is for what is new
COLOURS = ("cyan", "magenta", "green", "yellow", "blue")
Found = Mapping[Path, "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log it is: one process of an incarnation; all empty for a log of our own. `ended`: it was stopped."""

    version: str = ""
    perimeter: str = ""
    nonce: str = ""
    process: int = 0
    ended: bool = False

    def __str__(self) -> str:
        """As a line is marked; production goes without saying."""
        where = "" if self.perimeter == "production" else self.perimeter
        return " ".join(filter(None, (self.version, where, f"{self.nonce[:4]}.{self.process}")))


class Tail:
    """One log, through the files that it lies in; `last` lines of what is there already, or with None all of it."""

    def __init__(self, path: Path, last: int | None) -> None:
        self._path, self._last = path, last
        self._file: BinaryIO | None = None
        self._part = b""

    def lines(self) -> list[str]:
        """The whole lines since the last call."""
        *whole, self._part = (self._part + b"".join(self._pieces())).split(b"\n")
        if self._last is not None:
            whole, self._last = whole[max(0, len(whole) - self._last) :], None
        return [line.decode("utf-8", "replace") for line in whole]

    def close(self) -> None:
        """Let go of the file."""
        if self._file:
            self._file.close()

    def _pieces(self) -> Iterator[bytes]:
        """What is new in the file that is open, and in those that came after it."""
        if self._file is None:
            self._file = opened(self._path)
            if self._file and self._last is not None:  # the older half belongs to the last lines, too
                yield contents(self._path.with_name(self._path.name + ".1"))
        while self._file:
            following = opened(self._path)
            yield self._file.read()  # after the look: what was put aside before it grows no more
            if following is None or sameopenfile(following.fileno(), self._file.fileno()):
                if following:
                    following.close()
                return
            aside = opened(self._path.with_name(self._path.name + ".1"))
            if aside:
                if not sameopenfile(aside.fileno(), self._file.fileno()):  # put aside twice since
                    yield aside.read()
                aside.close()
            self._file.close()
            self._file = following


def opened(path: Path) -> BinaryIO | None:
    """A file to read; None when it is not there."""
    with suppress(FileNotFoundError):
        return path.open("rb")
    return None


def contents(path: Path) -> bytes:
    """All of a file; nothing when it is not there."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""


def processes(state: Path, service: str, commit: str) -> dict[Path, Source]:
    """The logs of all processes of a revision; with no commit of all revisions of the service."""
    found: dict[Path, Source] = {}
    for path in sorted((state / "instances").glob("*/group.json")):
        try:
            group = json.loads(contents(path) or b"{}")
        except ValueError:
            continue
        if group.get("service") == service and commit in ("", group.get("revision")):
            home = path.parent
            ended = (home / "stopped").exists() or (home / "failed").exists()
            for log in sorted(home.glob("*/log")):
                source = Source(group["version"], group["perimeter"], home.name, int(log.parent.name), ended)
                found[log] = source
    return found


def follow(find: Callable[[], Found], lines: int, tell: Callable[[Source, str, bool], None]) -> None:
    """Tell every line of what is found, with whose it is and whether there are several; ends with the person's Ctrl-C.

    Those that had ended before are left out.
    """
    known = find()
    passed = {path for path, source in known.items() if source.ended}
    tails = {path: Tail(path, lines) for path in known if path not in passed}
    sources = dict(known)
    looks = 0
    try:
        while True:
            several = len(tails) > 1
            for path, tail in tails.items():
                for line in tail.lines():
                    tell(sources[path], line, several)
            time.sleep(EVERY)
            looks += 1
            if looks % FIND == 0:
                sources |= (found := find())
                tails |= {path: Tail(path, None) for path in found if path not in tails and path not in passed}
    finally:
        for tail in tails.values():
            tail.close()


def teller(service: str, as_json: bool) -> Callable[[Source, str, bool], None]:
    """What prints a line: as a document, or marked with whose it is where there are several."""
    marks: dict[Source, str] = {}

    def tell(source: Source, line: str, several: bool) -> None:
        if as_json:
            told: dict[str, Any] = {"schema": "branchline.line/1", "service": service}
            told |= {name: getattr(source, name) for name in ("version", "perimeter", "nonce", "process")}
            show.document({**told, "text": line}, line=True)
        elif several:
            named = str(source)
            mark = marks.setdefault(source, click.style(f"{named} |", fg=COLOURS[len(marks) % len(COLOURS)]))
            show.out(f"{mark} {line}")
        else:
            show.out(line)

    return tell
