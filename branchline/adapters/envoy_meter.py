"""This file is the Meter on Envoy's access log: every request of a split route exactly once, whatever is killed.

Rules. A position names a file by its first line, which no other file has, and an offset at which a whole line ends;
so it survives renames, restarts and reused inodes. The reader leaves a file only when the next one is there, for then
Envoy has let go of it. A line that was never finished is never read. Every start of Envoy writes its name into its
lines: what it had counted, as far as somebody asked in time, minus its lines, is the loss.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from branchline.adapters.envoy import Envoy
from branchline.adapters.envoy_files import aside, rotated
from branchline.errors import GatewayDown
from branchline.ports import Served

KEPT = 3
_COUNTERS = "http.gateway.downstream_rq_(total|active)"


@dataclass(frozen=True, slots=True)
class Position:
    """Where the reader stands: file and offset; and for the loss, which start of Envoy, its lines, what was lost."""

    file: str = ""
    offset: int = 0
    boot: str = ""
    lines: int = 0
    lost: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.offset}:{self.boot}:{self.lines}:{self.lost}"

    @classmethod
    def read(cls, text: str) -> Position:
        """Read what `str` wrote; '' is the very start."""
        if not text:
            return cls()
        file, offset, boot, lines, lost = text.split(":")
        return cls(file, int(offset), boot, int(lines), int(lost))


class GatewayLog:
    """The requests of split routes in the log of one gateway."""

    def __init__(self, envoy: Envoy, *, rotate_bytes: int = 64 << 20) -> None:
        self._envoy = envoy
        self._folder = envoy.folder
        self._rotate_bytes = rotate_bytes
        self._lost = 0

    def read(self, position: str, limit: int = 5000) -> tuple[tuple[Served, ...], str]:
        """The next requests of split routes after a position, at most `limit`, and the new position."""
        here = Position.read(position)
        served: list[Served] = []
        with contextlib.ExitStack() as opened:
            for name, file in self._files(opened):
                if name < here.file:
                    continue
                if name > here.file:
                    here = replace(here, file=name, offset=0)
                for line, end in _lines(file, here.offset):
                    here = self._counted(replace(here, offset=end), line)
                    served += _served(line)
                    if len(served) >= limit:
                        break
                if len(served) >= limit:
                    break
        self._lost = here.lost
        return tuple(served), str(here)

    def loss(self) -> int:
        """Requests that gateways which were killed had counted and never logged, up to what was read last."""
        return self._lost

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
        counted = self._counts()
        if counted.get(boot) != done:
            kept = dict(sorted({**counted, boot: done}.items())[-20:])
            fresh = self._folder / "counted.json.new"
            fresh.write_text(json.dumps(kept), encoding="utf-8")
            fresh.replace(self._folder / "counted.json")
        return done

    def rotate(self, position: str = "") -> bool:
        """Begin a new log once this one is large; delete old ones that were read, but the newest few. Say whether."""
        active = self._folder / "access.log"
        if not active.exists() or active.stat().st_size < self._rotate_bytes:
            return False
        aside(self._folder)
        self._envoy.ask("/reopen_logs", "POST")
        here = Position.read(position).file
        read: list[Path] = []
        for path in rotated(self._folder):
            with path.open("rb") as file:
                if _name(file) < here:
                    read.append(path)
        for path in read[:-KEPT]:
            path.unlink()
        return True

    def _files(self, opened: contextlib.ExitStack) -> list[tuple[str, BinaryIO]]:
        """Every log with a whole line, the oldest first: its name, and the open file, for paths may change hands."""
        while True:
            paths = rotated(self._folder)
            files: list[tuple[str, BinaryIO]] = []
            for path in (*paths, self._folder / "access.log"):
                with contextlib.suppress(FileNotFoundError):
                    file = opened.enter_context(path.open("rb"))
                    files.append((_name(file), file))
            if rotated(self._folder) == paths:  # else one was renamed while they were opened, and is missing
                return [(name, file) for name, file in files if name]

    def _counted(self, here: Position, line: Mapping[str, Any]) -> Position:
        """Count a line for its start of Envoy; on a new start, settle what the ones before had lost."""
        boot = str(line.get("boot") or "")
        if boot == here.boot:
            return replace(here, lines=here.lines + 1)
        ended = {name: count for name, count in self._counts().items() if here.boot <= name < boot}
        logged = {here.boot: here.lines}
        lost = sum(max(0, count - logged.get(name, 0)) for name, count in ended.items())
        return replace(here, boot=boot, lines=1, lost=here.lost + lost)

    def _counts(self) -> dict[str, int]:
        try:
            found = json.loads((self._folder / "counted.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(boot): int(count) for boot, count in found.items()}


def _name(file: BinaryIO) -> str:
    """A log's name, by which logs sort: when its first line began, and a digest of it; '' while it has none."""
    file.seek(0)
    line = file.readline()
    if not line.endswith(b"\n"):
        return ""
    return f"{float(_parsed(line).get('at', 0)):017.6f}-{hashlib.sha256(line).hexdigest()[:16]}"


def _lines(file: BinaryIO, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """The whole lines after an offset, each with the offset of its end."""
    file.seek(offset)
    for line in file:
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        yield _parsed(line), offset


def _parsed(line: bytes) -> dict[str, Any]:
    """A line as JSON; nothing at all of a line that a kill cut."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _served(line: Mapping[str, Any]) -> list[Served]:
    """A line of a split route as a request; none of any other."""
    kind, *words = str(line.get("route") or "").split("/")
    if kind != "split" or len(words) != 4 or not line.get("assigned"):
        return []
    service, _, experiment, table = words
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
            status=int(line.get("status") or 0),
            flags="" if flags == "-" else flags,
            seconds=int(line.get("us") or 0) / 1e6,
            at=float(line["at"]),
            prediction=_number_in(str(line.get("prediction") or "")),
        )
    ]


def _number_in(text: str) -> float | None:
    return float(text) if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text) else None
