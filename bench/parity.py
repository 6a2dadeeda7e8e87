"""This file prints how long `status` and `parity` take with many services and branches, and how that grows.

"After a start" is what the first who asks a daemon waits for: nothing is remembered, and git has just been fetched. It
stands beside a limit of the same run: one `git for-each-ref` and one `git cat-file --batch` of what there is to look
at, every revision with its tree, which are as many objects as the daemon asks for.

Real: the repository with its refs, tags and keep-refs, the mirror and its fetches, the ledger and the catalog in SQLite
with every event, the laid-out trees, the gateway's memory and documents, the search through /proc. Not real: no server
and no Envoy runs; a fake launcher says that each revision is ready. Run: python bench/parity.py [SERVICES BRANCHES]...
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from branchline.adapters.envoy_router import RouteWriter
from branchline.adapters.envoy_table import Gateway as Memory
from branchline.adapters.git_conclusion import Conclusion
from branchline.adapters.git_mirror import Mirror
from branchline.adapters.servicefile import read_service
from branchline.adapters.sqlite import SqliteFile
from branchline.adapters.sqlite_catalog import SqliteCatalog
from branchline.adapters.sqlite_ledger import SqliteLedger
from branchline.adapters.sqlite_observations import SqliteObservations
from branchline.core.events import BuildFailed, Built, Event, GatesPassed, Opened, Recorded
from branchline.core.lifecycle import move
from branchline.core.records import event_to_json
from branchline.core.revision import Revision
from branchline.core.service import Method, Service
from branchline.engine.controlling import Controller
from branchline.engine.preparing import code_of, spec_at
from branchline.ports import Ports, Survey
from tests.fakes.router import FakeRouter
from tests.world import APP, World

SIZES = ((20, 200), (200, 2000))
AGAIN = 5
ASKED: dict[str, Callable[[Controller], object]] = {
    "status": lambda controller: json.dumps(controller.reader.status()),
    "parity": lambda controller: json.dumps(controller.parity.document()),
    "a look at git": Controller.watch,
    "a pass over git": lambda controller: [controller.reconciler.git(name) for name in controller.services()],
}
FIRST, LIMIT = "status, after a start", "limit: git alone, the same objects"
GOAL = 2.0  # seconds


@dataclass(frozen=True)
class Made:
    """A controller over what was made, and its parts."""

    controller: Controller
    ports: Ports


class Gateway(FakeRouter):
    """Routes that are kept where the real writer keeps them, and are looked at as it does; no Envoy reads them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.writer = RouteWriter(folder, folder, ingest=folder / "ingest.sock")
        self._written = 0

    def survey(self) -> Survey:
        """What the files say, as if an Envoy had accepted them."""
        if self._written != len(self.calls):
            self._written = len(self.calls)
            self.writer._save(Memory(20000, self._written, dict(self.services)))
        return replace(self.writer.survey(), running=True, taken="", edited=())

    def address(self, service: str, pin: str = "") -> str:
        """The real writer's answer."""
        return self.writer.address(service, pin)


def git(*words: str, at: Path, stdin: str = "") -> str:
    """Run git; returns what it printed."""
    done = subprocess.run(("git", *words), cwd=at, input=stdin, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def repository(folder: Path, services: int, branches: int) -> tuple[list[str], list[tuple[str, str]]]:
    """A remote with a commit for each service and each branch, and a clone of it; returns the commits of both."""
    truth, work = folder / "remote.git", folder / "work"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(truth), at=folder)
    rows: list[str] = []

    def commit(ref: str, start: str, files: dict[str, str], mark: int) -> None:
        rows.extend(
            [f"commit {ref}", f"mark :{mark}", f"committer Kim <kim@example.invalid> {1_600_000_000 + mark} +0000"]
        )
        rows.append("data 4\nWork")
        rows.extend([f"from {start}"] if start else [])
        rows.extend(f"M 100644 inline {path}\ndata {len(text)}\n{text}" for path, text in files.items())

    for n in range(services):
        files = {"branchline.toml": APP, "serving.py": f"LEVEL = {n}\n", "requirements.lock": "uvicorn==1.0\n"}
        commit("refs/heads/main", f":{n}" if n else "", {f"s{n}/{path}": text for path, text in files.items()}, n + 1)
        for ref in (f"refs/tags/s{n}@v1.0.0", f"refs/branchline/revisions/s{n}/1.0.0"):
            rows.append(f"reset {ref}\nfrom :{n + 1}\n")
    names = [f"experiment--s{n % services}--b{n}" for n in range(branches)]
    for n, name in enumerate(names):
        at = services + n + 1
        commit(f"refs/heads/{name}", f":{services}", {f"s{n % services}/serving.py": f"LEVEL = -{at}\n"}, at)
    git("fast-import", "--quiet", f"--export-marks={folder / 'marks'}", at=truth, stdin="\n".join(rows) + "\n")
    marks = dict(line.split() for line in (folder / "marks").read_text().splitlines())
    git("clone", "--quiet", "--single-branch", str(truth), str(work), at=folder)
    firsts = [marks[f":{n + 1}"] for n in range(services)]
    return firsts, [(name, marks[f":{services + n + 1}"]) for n, name in enumerate(names)]


def recorded(ports: Ports, name: str, first: str, branches: list[tuple[str, str]]) -> None:
    """What happened to a service: its first revision serves, and each of its branches was built in vain."""
    born = f"experiment--{name}--first"
    events: list[Event] = [
        Opened(born, tip=first, method=Method.CANARY),
        Built(born),
        GatesPassed(born),
        Recorded(born),
    ]
    for branch, tip in branches:
        events += [Opened(branch, tip=tip, method=Method.CANARY), BuildFailed(branch, reason="no rows")]
    service = Service(name)
    for event in events:
        service = move(service, event)
        ports.ledger.record(service, event_to_json(event), actor="kim", because="bench", at=time.time())
    empty = Revision(name, first, "", born, "t", "e", "s", "{}")
    ports.catalog.add(empty, "minor", 1)
    ports.catalog.finish(name, first)
    code_of(ports, spec_at(ports, name, first), first)


def made(folder: Path, services: int, branches: int) -> Made:
    """Everything, at rest."""
    firsts, tips = repository(folder, services, branches)
    state = folder / "state"
    state.mkdir()
    file, fakes = SqliteFile(state / "ledger.sqlite3"), World(folder / "fakes")
    mirror = Mirror(state / "mirror.git", folder / "work")
    mirror.fetch()
    git("fetch", "--quiet", str(folder / "remote.git"), "refs/branchline/*:refs/branchline/*", at=state / "mirror.git")
    ports = replace(
        fakes.ports, ledger=SqliteLedger(file), catalog=SqliteCatalog(file), observations=SqliteObservations(file),
        repository=mirror, writer=Conclusion(mirror), router=Gateway(state / "gateway"), read_spec=read_service,
        state=state,
    )  # fmt: skip
    for n, first in enumerate(firsts):
        recorded(ports, f"s{n}", first, tips[n::services])
    controller = Controller(ports, "main")
    controller.watch()
    for name in ports.ledger.services():  # starts, offers, shifts: what a fake launcher and router are told
        while controller.reconciler.production(name):
            pass
    return Made(controller, ports)


def seconds(act: Callable[[], object]) -> float:
    """How long it takes once."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def started(old: Ports, folder: Path) -> Controller:
    """A controller as after the daemon's start: what the disk holds, and nothing in memory."""
    mirror = Mirror(old.state / "mirror.git", folder / "work")
    read_spec = lru_cache(maxsize=2000)(read_service)
    controller = Controller(replace(old, repository=mirror, writer=Conclusion(mirror), read_spec=read_spec), "main")
    controller.watch()
    return controller


def plain(mirror: Path, commits: list[str]) -> float:
    """Seconds that git itself takes to say every ref, and to give these commits with their trees."""

    def read() -> None:
        git("for-each-ref", at=mirror)
        asked = "".join(f"{commit}\n{commit}^{{tree}}\n" for commit in commits).encode()
        subprocess.run(("git", "cat-file", "--batch"), cwd=mirror, input=asked, capture_output=True, check=True)

    return min(seconds(read) for _ in range(AGAIN))


def figures(services: int, branches: int) -> dict[str, float]:
    """Seconds by what was asked: after a start, and the shortest of a few times later; and git alone."""
    with tempfile.TemporaryDirectory(prefix="bl-") as folder:
        ports = made(Path(folder), services, branches).ports
        commits = git("for-each-ref", "--format=%(objectname)", at=ports.state / "mirror.git").split()
        found = {}
        for what, asked in ASKED.items():
            act = partial(asked, started(ports, Path(folder)))
            found[f"{what}, after a start"] = seconds(act)
            found[what] = min(seconds(act) for _ in range(AGAIN))
        drifts = started(ports, Path(folder)).parity.document()["drifts"]
        assert not drifts, drifts[:3]
        return found | {LIMIT: plain(ports.state / "mirror.git", sorted(set(commits)))}


def main(words: list[str]) -> None:
    """Print the figures of each size, and how much the last is of the first."""
    numbers = [int(word) for word in words]
    sizes = tuple(zip(numbers[::2], numbers[1::2], strict=True)) or SIZES
    columns = [figures(*size) for size in sizes]
    heads = [f"{services} / {branches}" for services, branches in sizes]
    print(f"{'services / branches, seconds':36}" + "".join(f"{head:>14}" for head in heads) + f"{'growth':>10}")
    for what in columns[0]:
        values = [column[what] for column in columns]
        print(f"{what:36}" + "".join(f"{value:>14.3f}" for value in values) + f"{values[-1] / values[0]:>9.1f}x")
    print(f"{FIRST}: {', '.join(f'{each[FIRST] / each[LIMIT]:.1f}x' for each in columns)} the limit")
    print(f"goal: {GOAL:.0f} s for status and parity, and no more growth than there is more to look at")


if __name__ == "__main__":
    main(sys.argv[1:])
