"""This file is the process that tests kill: it puts and sweeps, and says what it was told is kept.

Run as `python -m tests.integration.artifact_writer WHAT STORE ...`, or as a victim (`tests.victims`) with these words;
what is printed is in the functions.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from branchline.adapters.folder import FolderArtifacts
from branchline.errors import BranchlineError

FULL = 100_000  # so small that a put seals several packs
NAMES = ("own", *(f"b{number}" for number in range(6)))  # the files of an artifact


def write(store: Path, folder: Path, start: int) -> None:
    """Keep artifacts from number `start` until killed; prints the number and the id of each."""
    artifacts = FolderArtifacts(store, full=FULL)
    for number in count(start):
        laid(folder, number)
        print(number, artifacts.put(folder), flush=True)


def sweep(store: Path, wanted: Path) -> None:
    """Sweep at once whatever is not in a file of ids, until killed."""
    artifacts, keep = FolderArtifacts(store), frozenset(wanted.read_text().split())
    while True:
        print(artifacts.sweep(keep, older_than=0), flush=True)


def peak(store: Path, path: Path) -> None:
    """Put a file and get it; prints the peak of memory before and after, in KiB."""
    artifacts = FolderArtifacts(store)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    artifacts.get(artifacts.put(path), path.with_name("back"))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def full(store: Path, path: Path, limit: int) -> None:
    """Put a file where no file may grow beyond the limit; prints what that came to."""
    artifacts = FolderArtifacts(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        print(artifacts.put(path))
    except BranchlineError as told:
        print(told.code)


def boundaries(home: Path, deed: str, first: int, step: int) -> None:
    """Do a deed, killed at each `step`th line of the store's code from the `first` on; prints how many kills it took.

    After each, another process looks whether all that was acknowledged is there, and does the deed again.
    """
    base, store = home / "base", home / "store"
    ids = _in_child(partial(_begun, home, base), home)
    for line in count(first, step):
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(base, store, copy_function=shutil.copy2)
        ended = _forked(partial(_killed_at, line, store, home, deed, ids))
        assert os.WIFEXITED(ended) or os.WTERMSIG(ended) == signal.SIGKILL
        assert _forked(partial(_looked, store, home, deed, ids)) == 0, f"{deed}, killed at line {line}"
        if os.WIFEXITED(ended):
            print((line - first) // step)
            return


def _begun(home: Path, base: Path) -> list[str]:
    """A store with an artifact that is wanted, and two that share parts with it and are not; then ids of four."""
    artifacts, ids = FolderArtifacts(base, full=FULL), list[str]()
    for number in range(4):
        laid(home / str(number), number)
        ids.append((artifacts if number < 3 else FolderArtifacts(home / "other")).put(home / str(number)))
    return ids


def _do(artifacts: FolderArtifacts, home: Path, deed: str, ids: list[str]) -> None:
    if deed == "put":
        assert artifacts.put(home / "3") == ids[3]
    else:
        artifacts.sweep(ids[1:2], older_than=0)


def _killed_at(line: int, store: Path, home: Path, deed: str, ids: list[str]) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "/adapters/folder" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    _do(FolderArtifacts(store, full=FULL), home, deed, ids)
    sys.settrace(None)


def _looked(store: Path, home: Path, deed: str, ids: list[str]) -> None:
    for turn in ("as it was left", "done again"):
        artifacts = FolderArtifacts(store, full=FULL)
        assert not any((store / "parts").iterdir())
        must = [0, 1, 2] if deed == "put" else [1]
        must += [3] if deed == "put" and turn == "done again" else []
        there = [number for number in range(4) if artifacts.has(ids[number])]
        assert set(must) <= set(there), there
        for number in there:  # what is visible is complete
            back = home / "back"
            shutil.rmtree(back, ignore_errors=True)
            artifacts.get(ids[number], back)
            for name in NAMES:
                assert (back / name).read_bytes() == content(number, name)
        if turn == "as it was left":
            _do(artifacts, home, deed, ids)
        elif deed == "sweep":
            assert list(artifacts.artifacts()) == [ids[1]]


def _forked(do: Callable[[], None]) -> int:
    """How a forked child ended that did something; nothing has begun a thread before."""
    child = os.fork()
    if not child:
        try:
            do()
        except BaseException as error:  # noqa: BLE001
            print(f"{error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def _in_child(do: Callable[[], list[str]], home: Path) -> list[str]:
    def told() -> None:
        (home / "ids").write_text(" ".join(do()))

    assert _forked(told) == 0
    return (home / "ids").read_text().split()


def laid(folder: Path, number: int) -> None:
    """Write the files of an artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).write_bytes(content(number, name))


def content(number: int, name: str) -> bytes:
    """What a file holds: a block that other numbers hold, too, or something of its own, cut into several chunks."""
    seeded = Random(f"{number} {name}")
    return Random(seeded.randrange(12)).randbytes(20_000) if name.startswith("b") else seeded.randbytes(80_000)


def main(what: str, place: str, *rest: str) -> None:
    """Do what is asked for."""
    if what == "write":
        write(Path(place), Path(rest[0]), int(rest[1]))
    elif what == "sweep":
        sweep(Path(place), Path(rest[0]))
    elif what == "boundaries":
        boundaries(Path(place), rest[0], int(rest[1]), int(rest[2]))
    elif what == "peak":
        peak(Path(place), Path(rest[0]))
    else:
        full(Path(place), Path(rest[0]), int(rest[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
