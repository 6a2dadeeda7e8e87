"""This file clears away what nobody needs: artifacts, data versions, environments, and what was laid out of them.

Whatever is not reached by one of the reasons below goes, and nothing that is younger than a day (F49): what is being
made is not recorded yet. While something is being built, what was laid out is let be, and so is every result that was
ever recorded, for a build may have chosen it a moment ago. What goes can be made again from git, but for data: that is
kept for a month when nothing here pins it, since a branch that was never pushed may.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from branchline.core.revision import Revision
from branchline.core.service import OPEN
from branchline.core.tracking import MOST, Query
from branchline.engine.observing import Observer
from branchline.engine.preparing import LOCK_FILE, SERVICE_FILE
from branchline.errors import BadServiceFile
from branchline.ports import Ports

Document = dict[str, Any]
Named = tuple[str, str]  # service, commit
DAY = 86400.0
WEEK, MONTH = 7 * DAY, 30 * DAY
NEWEST = 100  # revisions of a service that can be brought back
SWEPT = "swept"  # what goes is moved there first, so that nobody meets half a folder


# ---- reasons: which revisions are in use, which are kept besides, and what is needed for their sake


def serving(ports: Ports) -> Iterator[Named]:
    """What serves, and what a rollback would give the traffic back to."""
    for name in ports.ledger.services():
        for line in ports.ledger.service(name).lines:
            yield from ((name, commit) for commit in line.history[-2:])


def candidates(ports: Ports) -> Iterator[Named]:
    """What may still come into traffic, or is looked at."""
    for name in ports.ledger.services():
        yield from ((name, each.revision) for each in ports.ledger.service(name).candidates if each.phase in OPEN)


def running(ports: Ports) -> Iterator[Named]:
    """What runs, whatever is recorded of it."""
    alive = (each for each in ports.launcher.instances() if each.state in ("starting", "ready"))
    yield from ((each.service, each.revision) for each in alive)


def checked_out(ports: Ports) -> Iterator[Named]:
    """What a person has beside their own work tree."""
    yield from ((each.reference.partition("@")[0], each.commit) for each in ports.repository.checkouts())


def referred(ports: Ports) -> Iterator[Named]:
    """What git keeps for ever, because it was deployed."""
    commits = {*ports.repository.marks().mirror.values()}
    for name in ports.ledger.services():
        yield from ((name, each.commit) for each in ports.catalog.revisions(name) if each.commit in commits)


def newest(ports: Ports) -> Iterator[Named]:
    """What was built last."""
    for name in ports.ledger.services():
        yield from ((name, each.commit) for each in ports.catalog.revisions(name)[:NEWEST])


def results(ports: Ports, revision: Revision) -> Iterator[str]:
    """What the revision is made of."""
    yield from (artifact for _, artifact in revision.artifacts)


def told(ports: Ports, revision: Revision) -> Iterator[str]:
    """What its runs left and printed, items and all."""
    for run in ports.catalog.runs(Query(revision.service, commit=revision.commit, limit=MOST)):
        for step in run.steps:
            yield from (step.artifact, step.log)


def judged(ports: Ports, revision: Revision) -> Iterator[str]:
    """What its gates printed."""
    yield from (gate.log for gate in ports.catalog.gates(revision.service, revision.commit))


IN_USE: Mapping[str, Callable[[Ports], Iterator[Named]]] = {
    "serving": serving, "candidates": candidates, "running": running, "checked out": checked_out,
}  # fmt: skip
KEPT: Mapping[str, Callable[[Ports], Iterator[Named]]] = {"referred": referred, "newest": newest}
NEEDED: Mapping[str, Callable[[Ports, Revision], Iterator[str]]] = {
    "results": results, "told": told, "judged": judged,
}  # fmt: skip


@dataclass(slots=True)
class Sweeper:
    """Clears away. `busy` says whether anything is being built."""

    ports: Ports
    observer: Observer
    busy: Callable[[], bool]
    in_use: Mapping[str, Callable[[Ports], Iterator[Named]]] = field(default_factory=lambda: IN_USE)
    kept: Mapping[str, Callable[[Ports], Iterator[Named]]] = field(default_factory=lambda: KEPT)
    needed: Mapping[str, Callable[[Ports, Revision], Iterator[str]]] = field(default_factory=lambda: NEEDED)

    def sweep(self, dry_run: bool = False) -> Document:
        """Clear away what nobody needs, or only say what that is: how many of each kind, and their bytes."""
        busy = self.busy()
        used = {each for reason in self.in_use.values() for each in reason(self.ports)}
        revisions = self._revisions(used.union(*(reason(self.ports) for reason in self.kept.values())))
        gone = [("data version", *self._data(revisions, dry_run))]
        keep = {artifact for artifact in self._artifacts(revisions, gone[0][3], busy) if artifact}
        swept = self.ports.artifacts.sweep(keep, DAY, dry_run)
        gone.append(("artifact", swept.artifacts, swept.bytes, ()))
        mine = [revision for revision in revisions if (revision.service, revision.commit) in used]
        environments = self.ports.environments.sweep(frozenset(self._environments(mine)), DAY, dry_run)
        gone.append(("environment", len(environments), sum(environments.values()), ()))
        if not busy:
            gone += self._folders(used, mine, dry_run)
        rows = [{"kind": kind, "count": count, "bytes": size} for kind, count, size, _ in gone]
        return {"schema": "branchline.gc/1", "dry_run": dry_run, "busy": busy, "gone": rows}

    def _revisions(self, wanted: Collection[Named]) -> list[Revision]:
        known = {name: self.ports.catalog.revisions(name) for name in {service for service, _ in wanted}}
        return [each for built in known.values() for each in built if (each.service, each.commit) in wanted]

    def _data(self, revisions: Iterable[Revision], dry_run: bool) -> tuple[int, int, Collection[str]]:
        """Forget data versions that nothing pins; how many, their bytes, and which. Nothing before git was read."""
        if not self.observer.fetched:
            return 0, 0, ()
        pinned = {*self._pinned(), *(digest for revision in revisions for _, digest in revision.data)}
        gone = self.ports.sources.sweep(pinned, MONTH, dry_run)
        return len(gone), sum(gone.values()), gone

    def _pinned(self) -> Iterator[str]:
        """The data versions that the tip of any branch pins."""
        ports = self.ports
        for tip in {*self.observer.refs.values()}:
            for folder in ports.repository.folders(tip, SERVICE_FILE):
                path = f"{folder}/{LOCK_FILE}"
                text = ports.repository.read(tip, path)
                try:
                    yield from ports.read_lock(text, path).values() if text is not None else ()
                except BadServiceFile:
                    continue  # whoever wrote it hears of it by `check`

    def _artifacts(self, revisions: Iterable[Revision], gone: Collection[str], busy: bool) -> Iterator[str]:
        """The artifacts that are needed: for revisions, for data, and for reuse."""
        for revision in revisions:
            for reason in self.needed.values():
                yield from reason(self.ports, revision)
        for digest, artifacts in self.ports.sources.versions().items():
            yield from artifacts if digest not in gone else ()
        yield from self._reusable(0.0 if busy else self.ports.clock.now() - MONTH)

    def _reusable(self, since: float) -> Iterator[str]:
        """What runs left and printed since then; what was only reused then, too."""
        before, at = 0, since
        while found := self.ports.catalog.runs(Query(limit=MOST, before=before)):
            for run in found:
                before, at = run.number, run.at or at
                if at < since:
                    return
                for step in run.steps:
                    yield from (step.artifact, step.log)

    def _environments(self, used: Iterable[Revision]) -> Iterator[str]:
        """The environments that these revisions serve in, and that their steps ran in."""
        for revision in used:
            yield revision.environment
            for run in self.ports.catalog.runs(Query(revision.service, commit=revision.commit)):
                for step in self.ports.catalog.numbered(run.number).steps:
                    yield from (line.hash for line in step.lines if line.name == "environment")

    def _folders(
        self, used: Collection[Named], mine: Iterable[Revision], dry_run: bool
    ) -> Iterator[tuple[str, int, int, Collection[str]]]:
        """Remove what was laid out of anything that is not in use: it is laid out again when it is wanted."""
        state, commits = self.ports.state, {commit for _, commit in used}
        laid = {artifact for revision in mine for _, artifact in revision.artifacts}
        data = {digest for revision in mine for _, digest in revision.data}
        places = (
            ("laid-out result", state.glob("laid/*"), laid, DAY),
            ("laid-out data", state.glob("data/*"), data, DAY),
            ("laid-out tree", state.glob("trees/*/*"), commits, DAY),
            ("home of a revision", state.glob("revisions/*/*"), commits, DAY),
            ("log folder", state.glob("runs/*"), (), WEEK),
        )
        bin_ = state / SWEPT
        for kind, paths, keep, age in places:
            gone = [path for path in paths if path.name.partition("-")[0] not in keep and self._is_old(path, age)]
            yield kind, len(gone), sum(map(own_bytes, gone)), ()
            for path in gone if not dry_run else ():
                bin_.mkdir(exist_ok=True)
                path.rename(bin_ / uuid.uuid4().hex)
        if not dry_run:
            shutil.rmtree(bin_, ignore_errors=True)

    def _is_old(self, path: Path, seconds: float) -> bool:
        return self.ports.clock.now() - path.lstat().st_mtime >= seconds


def own_bytes(path: Path) -> int:
    """Bytes of the disk that go with a file or folder: those of files that lie nowhere else, too."""
    files = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    found = [each.lstat() for each in files if each.is_symlink() or not each.is_dir()]
    return sum(each.st_blocks * 512 for each in found if each.st_nlink == 1)
