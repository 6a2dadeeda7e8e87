"""This file measures the artifact store beside DVC: a large file that changes a little, and ten thousand small files.

The change is 1 % of the bytes, in 40 places: written over, or inserted. Every step is a process of its own: ours tells
the seconds of the call (opening the store and syncing to the disk included), DVC's are those of `dvc add` and of `dvc
push` to a remote on the same disk, which syncs nothing; to get is `git clone` and `dvc pull`. DVC's bytes are those of
its remote alone, for its cache holds them a second time. What was written before is synced before each step; the two
take turns in going first. Medians of rounds, and of their ratios. DVC is installed below `.cache/`, by itself.
Run small: python bench/store.py --size 64 --files 1000 --rounds 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _peers import ROOT, program

from branchline.adapters.folder import FolderArtifacts

DVC = "dvc==3.67.1"
PLACES = 40
Step = tuple[float, int, int]  # seconds, peak of memory in KiB, bytes that the store grew by
# The target of each figure that has one: at most this share of DVC's.
TARGETS = {"1 % written over": 1 / 10, "1 % inserted": 1 / 10, "put small files": 1 / 20, "get small files": 1 / 5}
BYTES = 1 / 40


def timed(argv: list[str], cwd: Path) -> tuple[float, int, str]:
    """Run a command to its end: seconds, peak of its memory, what it printed."""
    os.sync()
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore"}
    begun = time.perf_counter()
    process = subprocess.Popen(
        argv, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = process.stdout.read()
    complaint = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)}: {complaint}")
    return time.perf_counter() - begun, usage.ru_maxrss, said


def taken(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Ours:
    """The store of this project."""

    def __init__(self, home: Path) -> None:
        self.home, self.store, self.ids = home, home / "store", dict[str, str]()
        home.mkdir()

    def put(self, path: Path) -> Step:
        """Keep what is there."""
        before = taken(self.store)
        _, peak, said = timed([sys.executable, __file__, "--do", "put", str(self.store), str(path)], self.home)
        seconds, self.ids[path.name] = said.split()
        return float(seconds), peak, taken(self.store) - before

    def get(self, name: str) -> Step:
        """Lay out what was kept last under a name."""
        back = self.home / "back"
        argv = [sys.executable, __file__, "--do", "get", str(self.store), str(back), self.ids[name]]
        _, peak, said = timed(argv, self.home)
        shutil.rmtree(back) if back.is_dir() else back.unlink()
        return float(said), peak, 0


class Dvc:
    """A repository with a remote on the same disk."""

    def __init__(self, home: Path, dvc: Path) -> None:
        self.home, self.dvc, self.remote = home, str(dvc), home / "remote"
        self.repo = home / "repo"
        for folder in (self.remote, self.repo):
            folder.mkdir(parents=True)
        self.git("init", "-q")
        for argv in (["init", "-q"], ["remote", "add", "-q", "-d", "there", str(self.remote)]):
            timed([self.dvc, *argv], self.repo)
        self.start = timed([self.dvc, "--version"], self.repo)[0]

    def git(self, *argv: str) -> None:
        """Run git without the person's configuration."""
        named = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"]
        subprocess.run(["git", *named, *argv], cwd=self.repo, check=True, capture_output=True)

    def put(self, path: Path) -> Step:
        """Add and push what is there; it is laid into the repository before."""
        place = self.repo / path.name
        shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
        shutil.copytree(path, place) if path.is_dir() else shutil.copyfile(path, place)
        before = taken(self.remote)
        added = timed([self.dvc, "add", "-q", path.name], self.repo)
        pushed = timed([self.dvc, "push", "-q"], self.repo)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "bench")
        return added[0] + pushed[0], max(added[1], pushed[1]), taken(self.remote) - before

    def get(self, name: str) -> Step:
        """Clone and pull."""
        back = self.home / "back"
        cloned = timed(["git", "clone", "-q", str(self.repo), str(back)], self.home)
        pulled = timed([self.dvc, "pull", "-q", name + ".dvc"], back)
        shutil.rmtree(back)
        return cloned[0] + pulled[0], pulled[1], 0


def edited(path: Path, insert: bool) -> None:
    """Change 1 % of a file in some places."""
    size = path.stat().st_size
    seeded = random.Random(size)
    part = size // 100 // PLACES
    places = sorted(seeded.randrange(size - part) for _ in range(PLACES))
    whole = path.with_name("whole")
    with path.open("rb") as source, whole.open("wb") as target:
        for place in places:
            while (left := place - source.tell()) > 0 and (block := source.read(min(left, 1 << 20))):
                target.write(block)
            target.write(os.urandom(part))
            if not insert:
                source.seek(part, os.SEEK_CUR)
        shutil.copyfileobj(source, target, 1 << 20)
    whole.replace(path)


def steps(home: Path, size: int, files: int) -> list[tuple[str, Callable[[], None], Callable[[Ours | Dvc], Step]]]:
    """What is measured: its name, what is done before, and the step."""
    large, small = home / "large.bin", home / "small"

    def grow() -> None:
        with large.open("wb") as file:
            for _ in range(size):
                file.write(os.urandom(1 << 20))
        small.mkdir()
        for number in range(files):
            (small / f"{number:06}").write_bytes(os.urandom(10 << 10))

    return [
        ("put", grow, lambda store: store.put(large)),
        ("put unchanged", lambda: None, lambda store: store.put(large)),
        ("1 % written over", lambda: edited(large, insert=False), lambda store: store.put(large)),
        ("1 % inserted", lambda: edited(large, insert=True), lambda store: store.put(large)),
        ("get", lambda: None, lambda store: store.get(large.name)),
        ("put small files", lambda: None, lambda store: store.put(small)),
        ("get small files", lambda: None, lambda store: store.get(small.name)),
    ]


def measured(number: int, home: Path, dvc: Path, size: int, files: int) -> tuple[dict[str, tuple[Step, Step]], float]:
    """One round: each step by both, who goes first in turns; and how long DVC takes to say its version."""
    home.mkdir()
    ours, theirs = Ours(home / "ours"), Dvc(home / "dvc", dvc)
    found: dict[str, tuple[Step, Step]] = {}
    for name, prepare, step in steps(home, size, files):
        prepare()
        if number % 2:
            other = step(theirs)
            found[name] = (step(ours), other)
        else:
            found[name] = (step(ours), step(theirs))
    shutil.rmtree(home)
    return found, theirs.start


def shown(rounds: list[dict[str, tuple[Step, Step]]]) -> None:
    """Print the table."""
    print(f"{'':18}{'ours s':>9}{'DVC s':>9}{'ratio':>9}{'target':>9}", end="")
    print(f"{'MiB':>9}{'DVC MiB':>9}{'ratio':>9}{'peak MiB':>10}{'DVC':>7}")
    for name in rounds[0]:
        pairs = [each[name] for each in rounds]

        def middle(which: int, what: int, pairs: list[tuple[Step, Step]] = pairs) -> float:
            return statistics.median(pair[which][what] for pair in pairs)

        ratio = statistics.median(ours[0] / theirs[0] for ours, theirs in pairs)
        target = f"1/{1 / TARGETS[name]:.0f}" if name in TARGETS else ""
        line = f"{name:18}{middle(0, 0):9.2f}{middle(1, 0):9.2f}{'1/%.1f' % (1 / ratio):>9}{target:>9}"
        added, other = middle(0, 2) / (1 << 20), middle(1, 2) / (1 << 20)
        share = f"1/{other / added:.1f}" if added and other else ""
        print(f"{line}{added:9.1f}{other:9.1f}{share:>9}{middle(0, 1) / 1024:10.0f}{middle(1, 1) / 1024:7.0f}")
    print(f"\nbytes of a changed file: at most 1/{1 / BYTES:.0f} of DVC's are asked for")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the large file")
    parser.add_argument("--files", type=int, default=10_000, help="small files, of 10 KiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--do", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.do:
        what, store, path, *artifact = given.do
        begun = time.perf_counter()
        artifacts = FolderArtifacts(Path(store))
        kept = ""
        if what == "put":
            kept = artifacts.put(Path(path))
        else:
            artifacts.get(artifact[0], Path(path))
        print(time.perf_counter() - begun, kept)
        return
    dvc = Path(program(DVC))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / ".cache") as name:
        rounds = [measured(n, Path(name) / str(n), dvc, given.size, given.files) for n in range(given.rounds)]
    print(f"{given.size} MiB, {given.files} files of 10 KiB, {given.rounds} rounds")
    shown([each for each, _ in rounds])
    print(f"of DVC's seconds its start is {statistics.median(start for _, start in rounds):.2f} s a command")


if __name__ == "__main__":
    main()
