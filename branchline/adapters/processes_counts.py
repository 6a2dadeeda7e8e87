"""This file is the Vitals port: what the processes of each revision printed that worries, and their threads.

Rules. Of a log each line is read once: where the reader stands is kept beside the log, so a restart counts nothing
twice. A log is known by its inode and by how it begins, for an inode is given again; what was renamed to `log.1`
meanwhile is finished first. A line counts as a warning when a logger or Python's `warnings` says so, a traceback as an
exception. Threads are those of the supervisor's tree, without the supervisor, which is ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from branchline.ports import Key, Vital

KEPT = "counts.json"
HEAD = 256  # bytes that a log is known by
TRACEBACK = b"Traceback (most recent call last)"
WARNING = re.compile(rb'\bWARN(?:ING)?\b|\w+Warning: |"(?:level|levelname|severity)": ?"[Ww]arn(?:ing)?"')


@dataclass(frozen=True, slots=True)
class Read:
    """How far a log was read, and what was found in it and in those before: `head` is how its first `length` bytes
    begin, as a digest.
    """

    inode: int = 0
    length: int = 0
    head: str = ""
    offset: int = 0
    warnings: int = 0
    exceptions: int = 0


class ProcessVitals:
    """The processes of all incarnations below `state/instances`."""

    def __init__(self, state: Path) -> None:
        self._home = state / "instances"
        self._known: dict[Path, tuple[Key, Read]] = {}
        self._keys: dict[Path, Key] = {}  # by the folder of an incarnation, which stays what it is

    def read(self) -> Mapping[Key, Vital]:
        """How the processes of each revision are; see the port."""
        threads, places = threads_by_root(), list(self._places())
        found: dict[Key, Vital] = {}
        for place, key in places:
            _, before = self._known.get(place) or (key, kept(place))
            after = read_on(place, before)
            if after != before:
                keep(place, after)
            self._known[place] = key, after
            root = read(place / "state.json")
            add(found, key, threads=threads.get((root.get("pid", 0), root.get("ticks", 0)), 0))
        for key, each in self._known.values():  # also of folders that were cleared away: nothing goes back
            add(found, key, warnings=each.warnings, exceptions=each.exceptions)
        return found

    def _places(self) -> Iterator[tuple[Path, Key]]:
        """The folder of each process of each incarnation, with service and version."""
        for path in sorted(self._home.glob("*/group.json")):
            home = path.parent
            if home not in self._keys and (group := read(path)):
                self._keys[home] = str(group["service"]), str(group["version"])
            if home in self._keys:
                yield from ((log.parent, self._keys[home]) for log in sorted(home.glob("*/log")))


def add(found: dict[Key, Vital], key: Key, *, threads: int = 0, warnings: int = 0, exceptions: int = 0) -> None:
    """Add what one process has."""
    before = found.get(key, Vital())
    found[key] = Vital(before.threads + threads, before.warnings + warnings, before.exceptions + exceptions)


def read(path: Path) -> dict[str, Any]:
    """A JSON document; {} of one that is not there, or is none."""
    with suppress(OSError, ValueError):
        document = json.loads(path.read_text(encoding="utf-8"))
        return document if isinstance(document, dict) else {}
    return {}


# ------------------------------------------------------------------------------------------------ logs


def kept(place: Path) -> Read:
    """Where the reader before us stood; the very beginning when nobody says."""
    try:
        return Read(**read(place / KEPT))
    except TypeError:
        return Read()


def keep(place: Path, found: Read) -> None:
    """Lay down where we stand; a full disk keeps nobody from counting."""
    with suppress(OSError):
        fresh = place / f"{KEPT}.new"
        fresh.write_text(json.dumps(asdict(found)), encoding="utf-8")
        fresh.replace(place / KEPT)


def read_on(place: Path, before: Read) -> Read:
    """Read what was printed since, the rest of a log that was put aside first."""
    opened: list[BinaryIO] = []
    try:
        for name in ("log", "log.1"):  # in this order: what is put aside meanwhile is then found as `log.1` or twice
            with suppress(OSError):
                opened.append((place / name).open("rb"))
        files = [
            file
            for at, file in enumerate(opened)
            if not at or not os.path.sameopenfile(file.fileno(), opened[0].fileno())
        ]
        at = next((number for number, file in enumerate(files) if is_of(file, before)), len(files))
        for file in reversed(files[: at + 1]):
            begun = before if is_of(file, before) else replace(before, inode=0, length=0, head="", offset=0)
            before = counted(file, begun, whole=file is not files[0])
        return before
    finally:
        for file in opened:
            file.close()


def is_of(file: BinaryIO, found: Read) -> bool:
    """Whether this is the log that was being read."""
    if os.fstat(file.fileno()).st_ino != found.inode:
        return False
    return digest(file, found.length) == found.head


def digest(file: BinaryIO, length: int) -> str:
    """How a file begins."""
    file.seek(0)
    return hashlib.sha256(file.read(length)).hexdigest()[:16]


def counted(file: BinaryIO, found: Read, whole: bool) -> Read:
    """Count the whole lines after where the reader stands; of a log that grows no more (`whole`) all that is left."""
    file.seek(found.offset)
    offset, warnings, exceptions = found.offset, found.warnings, found.exceptions
    for line in file:
        if not whole and not line.endswith(b"\n"):
            break
        offset += len(line)
        exceptions += TRACEBACK in line
        warnings += bool(WARNING.search(line))
    length = min(offset, HEAD)
    inode = os.fstat(file.fileno()).st_ino
    return Read(inode, length, digest(file, length), offset, warnings, exceptions)


# ------------------------------------------------------------------------------------------------ threads


def threads_by_root() -> dict[tuple[int, int], int]:
    """The threads below each process of this machine, by its id and start ticks; without its own."""
    parents: dict[int, int] = {}
    own: dict[int, tuple[int, int]] = {}
    for pid, words in processes(os.scandir("/proc")):
        parents[pid], own[pid] = int(words[1]), (int(words[19]), int(words[17]))  # proc(5): 4, 22, 20
    found = {(pid, ticks): 0 for pid, (ticks, _) in own.items()}
    for pid, (_, threads) in own.items():
        above = parents[pid]
        while above in own:
            found[above, own[above][0]] += threads
            above = parents[above]
    return found


def processes(entries: Iterable[os.DirEntry[str]]) -> Iterator[tuple[int, list[bytes]]]:
    """Each process with what the kernel says of it from its state on; one that has just ended is not there."""
    for entry in entries:
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
