"""This file is the Meter on Envoy's access log: every request of a split route exactly once, whatever is killed.

Rules. A position names a file by its number and its first line, which no other file has, and an offset at which a
whole line ends; so it survives renames, restarts, reused inodes, and clocks that are set back: files are read in the
order of their numbers, starts of Envoy in the order of their names, and no time decides. The reader leaves a file only
when the next one is there, for then Envoy has let go of it. A line that was never finished is never read. Every start
of Envoy writes its name into its lines: what it had counted, as far as somebody asked in time, minus its lines, is
the loss. One that another took over from writes on for a while; it is settled when it is gone. What the one that runs
was given to write, minus its lines, is what it dropped, once it says that it did. A log has an end: where nobody
rotates it, or reads what was rotated, Envoy drops what comes, and serves on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from branchline.adapters.envoy import Envoy
from branchline.adapters.envoy_files import aside, next_number, number_of, rotated
from branchline.adapters.envoy_listener import TOLD
from branchline.errors import GatewayDown
from branchline.ports import Behind, Served

KEPT = 3
LARGEST_OWN = 8 << 20  # bytes of Envoy's own log
_COUNTERS = "http.gateway.downstream_rq_(total|active)|filesystem.(write_buffered|write_failed|write_total_buffered)"
# A call that failed is HTTP 200: UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS as their HTTP kin.
FAILED_CALLS = {2: 500, 4: 504, 13: 500, 14: 503, 15: 500}
COUNTED = 1 << 20  # bytes of each unread log whose lines are counted; those of the rest are reckoned from them


@dataclass(frozen=True, slots=True)
class Name:
    """What a log is known by: its number, and a digest of its first line, which also knows it under another number."""

    number: int = 0
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.number:06d}-{self.digest}" if self.digest else ""

    @classmethod
    def read(cls, text: str) -> Name:
        """Read what `str` wrote; a name that begins with a time is an older one, known by its digest alone."""
        number, _, digest = text.partition("-")
        return cls(int(number) if number.isdigit() else 0, digest)


@dataclass(slots=True)
class Position:
    """Where the reader stands: file and offset; and for the loss, the lines of each start of Envoy that may write on,
    the newest last, and what those before have lost.

    It moves with each line: a new one for each would cost as much as all the rest of reading it.
    """

    file: Name = Name()
    offset: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    lost: int = 0

    def __str__(self) -> str:
        counts = "+".join(map(str, self.lines.values())) or "0"
        return f"{self.file}:{self.offset}:{'+'.join(self.lines)}:{counts}:{self.lost}"

    @property
    def boot(self) -> str:
        """The newest start of Envoy that has written a line; '' before the first."""
        return next(reversed(self.lines), "")

    @classmethod
    def read(cls, text: str) -> Position:
        """Read what `str` wrote; '' is the very start."""
        if not text:
            return cls()
        file, offset, boots, counts, lost = text.split(":")
        lines = dict(zip(boots.split("+"), map(int, counts.split("+")), strict=True)) if boots else {}
        return cls(Name.read(file), int(offset), lines, int(lost))


class GatewayLog:
    """The requests of split routes in the log of one gateway."""

    def __init__(self, envoy: Envoy, *, rotate_bytes: int = 64 << 20) -> None:
        self._envoy = envoy
        self._folder = envoy.folder
        self._rotate_bytes = rotate_bytes
        self._lost = 0
        self._given = ("", 0)  # which start of Envoy has failed to write, and the lines it had been given by then
        self._dropped = ("", 0)

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests of split routes after a position, at most `limit`, and the new position."""
        here, given, leaving = Position.read(position), self._given, self._envoy.leaving
        served: list[Served] = []
        with contextlib.ExitStack() as opened:
            for name, file, offset in self._unread(here, opened):
                here.file, here.offset = name, offset
                for line, here.offset in _lines(file, offset):
                    self._count(here, line, leaving)
                    served += _served(line)
                    if len(served) >= limit:
                        break
                if len(served) >= limit:
                    break
        if len(served) < limit:
            self._settle(here, [boot for boot in here.lines if boot != here.boot and boot not in leaving])
            self._drop(here, *given)
        self._lost = here.lost
        return tuple(served), str(here)

    def behind(self, position: str) -> Behind:
        """How much of the logs is not read yet at a position, and how long the oldest request of it has waited."""
        here, lines, size, since = Position.read(position), 0, 0, 0.0
        with contextlib.ExitStack() as opened:
            for _, file, offset in self._unread(here, opened):
                rest = os.fstat(file.fileno()).st_size - offset
                file.seek(offset)
                seen = file.read(COUNTED)
                lines += round(seen.count(b"\n") * max(1.0, rest / COUNTED))
                size += rest
                since = since or float(fields(seen.partition(b"\n")[0]).get("at") or 0)
        return Behind(lines, size, max(0.0, time.time() - since) if since else 0.0)

    def find(self, request: str) -> Served | None:
        """The newest request with this id that a log still holds; the newest log is read first."""
        mark, found = request.encode(), None
        with contextlib.ExitStack() as opened:
            for _, file in reversed(self._files(opened)[0]):
                file.seek(0)
                for line in (each for each in file if mark in each):
                    found = next((each for each in _served(fields(line)) if each.request == request), found)
                if found:
                    return found
        return None

    def loss(self) -> int:
        """Requests that gateways which were killed had counted and never logged, up to what was read last."""
        return self._lost

    def dropped(self) -> int:
        """Requests that the gateway which runs could not log (for want of room), by the newest `sample` and `read`."""
        return self._dropped[1]

    def sample(self) -> int:
        """Note how many requests the gateway has counted; asked every 100 ms, a kill hides no more than that."""
        boot = self._envoy.boot
        try:
            found = self._envoy.statistics(_COUNTERS)
        except GatewayDown:
            return 0
        done = int(found.get("http.gateway.downstream_rq_total", 0)) - int(
            found.get("http.gateway.downstream_rq_active", 0)
        )
        failed = int(found.get("filesystem.write_failed", 0)) or not (self._folder / "access.log").is_file()
        if failed and not int(found.get("filesystem.write_total_buffered", 0)):
            self._given = boot, int(found.get("filesystem.write_buffered", 0))
        counted = self._counts()
        if counted.get(boot, -1) < done:
            kept = dict(sorted({**counted, boot: done}.items())[-20:])
            fresh = self._folder / "counted.json.new"
            with contextlib.suppress(OSError):  # no room: it is written as soon as there is some
                fresh.write_text(json.dumps(kept), encoding="utf-8")
                fresh.replace(self._folder / "counted.json")
        return done

    def rotate(self, position: str = "") -> bool:
        """Begin a new log once this one is large; delete old ones that were read, but the newest few. Say whether.

        What Envoy itself has to say is cut to its end then, and kept once more as it was.
        """
        self._shorten()
        active = self._folder / "access.log"
        if not active.exists():
            with contextlib.suppress(GatewayDown):
                self._envoy.reopen()  # somebody took it away: Envoy writes on where nobody reads
            return False
        if active.stat().st_size < self._rotate_bytes:
            return False
        here = Position.read(position).file
        read = [path for path in rotated(self._folder) if number_of(path) < here.number]
        if sum(path.stat().st_size for path in rotated(self._folder) if path not in read) > self._envoy.largest_log:
            return False  # nobody reads
        aside(self._folder)
        self._envoy.reopen()
        for path in read[:-KEPT]:
            path.unlink()
        return True

    def _shorten(self) -> None:
        """Begin Envoy's own log anew once it is large: it is written by appending, so it goes on at the beginning."""
        own = self._folder / "envoy.log"
        if own.exists() and own.stat().st_size > LARGEST_OWN:
            with contextlib.suppress(OSError):  # without room it is cut all the same
                shutil.copyfile(own, own.with_name("envoy.old.log"))
            os.truncate(own, 0)

    def _files(self, opened: contextlib.ExitStack) -> tuple[list[tuple[Name, BinaryIO]], int]:
        """Every log with a whole line, the oldest first: its name, and the open file, for paths may change hands.

        And the number of the log that is being written, whether it has a line or not.
        """
        while True:
            paths, number = rotated(self._folder), next_number(self._folder)
            files: list[tuple[Name, BinaryIO]] = []
            for each, path in (*((number_of(path), path) for path in paths), (number, self._folder / "access.log")):
                if not path.is_file():
                    continue  # nothing there, or something without an end
                with contextlib.suppress(FileNotFoundError):
                    file = opened.enter_context(path.open("rb"))
                    if digest := _digest(file):
                        files.append((Name(each, digest), file))
            if rotated(self._folder) == paths:  # else one was renamed while they were opened, and is missing
                return files, number

    def _unread(self, here: Position, opened: contextlib.ExitStack) -> list[tuple[Name, BinaryIO, int]]:
        """The logs from a position on, each with the offset from which it is to be read."""
        files, number = self._files(opened)
        known = next((place for place, (name, _) in enumerate(files) if name.digest == here.file.digest), None)
        if known is not None:
            cut = min(here.offset, os.fstat(files[known][1].fileno()).st_size)
            return [(name, file, 0 if place else cut) for place, (name, file) in enumerate(files[known:])]
        # The file of the position is gone. A number beyond all there are: so is their folder, and this is another.
        after = here.file.number if here.file.number <= number else 0
        return [(name, file, 0) for name, file in files if name.number >= after]

    def _count(self, here: Position, line: Mapping[str, Any], leaving: Container[str]) -> None:
        """Count a line for its start of Envoy; on a new start, settle those before that write no more."""
        boot = str(line.get("boot") or "")
        if boot in here.lines:
            here.lines[boot] += 1
        elif boot > here.boot:  # else it is spoilt: a full disk cut it, and the next one was written on
            before = {*here.lines, *(name for name in self._counts() if here.boot < name < boot)}
            here.lines[boot] = 1
            self._settle(here, [name for name in before if name not in leaving])

    def _settle(self, here: Position, boots: Collection[str]) -> None:
        """Reckon what these starts of Envoy have lost: what each had counted, but for its lines."""
        counted = self._counts() if boots else {}
        here.lost += sum(max(0, counted.get(boot, 0) - here.lines.pop(boot, 0)) for boot in boots)

    def _drop(self, here: Position, boot: str, given: int) -> None:
        """Note what a start of Envoy was given to write before all that was read, and what of it is not there."""
        if boot != self._envoy.boot:
            self._dropped = "", 0  # what it had lost is settled with the first line of the next
        elif boot:
            before = self._dropped[1] if self._dropped[0] == boot else 0
            self._dropped = boot, max(before, given - here.lines.get(boot, 0))

    def _counts(self) -> dict[str, int]:
        try:
            found = json.loads((self._folder / "counted.json").read_text(encoding="utf-8", errors="replace"))
            return {str(boot): int(count) for boot, count in found.items() if boot.isdigit()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}  # spoilt: the next sample writes it anew


def _digest(file: BinaryIO) -> str:
    """What no other log has: a digest of the first line; '' while there is none."""
    file.seek(0)
    line = file.readline()
    return hashlib.sha256(line).hexdigest()[:16] if line.endswith(b"\n") else ""


def _lines(file: BinaryIO, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole lines after an offset, each with the offset of its end."""
    file.seek(offset)
    for line in file:
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        yield fields(line), offset


def fields(line: bytes) -> dict[str, Any]:
    """What a line of the log says, by name; nothing at all of a line that a kill cut.

    Each name had a value of its own in lines of before: those are read as they are.
    """
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    if "told" in found:
        words = str(found.pop("told")).split(" ", len(TOLD) - 1)  # the last, a request's id, may have blanks
        found |= {name: word for name, word in zip(TOLD, words, strict=False) if word != "-"}
    return found


def _served(line: Mapping[str, Any]) -> list[Served]:
    """A line of a split route as a request; none of any other."""
    words = str(line.get("route") or "").split("/")
    if words[0] != "split" or len(words) != 5 or not line.get("assigned"):
        return []
    _, service, _, experiment, table = words
    flags = str(line.get("flags") or "")
    return [
        Served(
            service=service,
            unit=line.get("unit") or "",
            request=line.get("request") or "",
            assigned=line["assigned"],
            answered=line.get("answered") or "",
            experiment=experiment,
            table=int(table),
            status=FAILED_CALLS.get(int(line.get("grpc") or 0)) or int(line.get("status") or 0),
            flags="" if flags == "-" else flags,
            seconds=int(line.get("us") or 0) / 1e6,
            at=float(line["at"]),
            prediction=_number_in(str(line["prediction"])) if line.get("prediction") else None,
        )
    ]


def _number_in(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text) else None
