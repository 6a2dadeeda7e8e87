"""This file looks where git, production and the record disagree, and puts it in the words of `core.parity`.

Rules. Looking changes nothing: nothing is started, written, routed or recorded. `drifts` is what every status shows:
what is recorded against processes, routes and refs. `document` looks at git anew, and at every process and laid-out
file besides. What is asked once for all services is asked once.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from branchline.core.parity import UP, Drift, Marks, drift, of_branches, of_conclusions, of_marks, of_trunks, of_world
from branchline.core.revision import Revision
from branchline.core.service import OPEN, Service
from branchline.core.world import FOREIGN, PRODUCTION, desired, plan
from branchline.engine.asking import described
from branchline.engine.observing import Observer, View
from branchline.engine.recording import Recorder
from branchline.engine.watching import has_begun
from branchline.errors import BranchlineError, RemoteUnreachable, UnknownService
from branchline.ports import Ports, Stamp, Stray

Document = dict[str, Any]


@dataclass(slots=True)
class Parity:
    """Looks, for people and programs; `troubles` are those that the watcher keeps of branches."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    troubles: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def document(self) -> Document:
        """Every drift of every service, git as it is now (1.51)."""
        unseen = []
        try:
            self.observer.fetch()
        except RemoteUnreachable as error:
            what = f"{error.message}: it is compared as it was seen last"
            unseen.append(drift("unseen", "", what=what, command=error.next))
        self.recorder.notice(later(self.ports, self.recorder))
        services = self.ports.ledger.services()
        known = {*services, *self.recorder.older}
        found = [*self.strays(), *unseen, *self.drifts(known), *self.laid(services)]
        drifts = [asdict(each) for each in dict.fromkeys(found)]
        return {"schema": "branchline.parity/1", "ok": not drifts, "services": list(services), "drifts": drifts}

    def drifts(self, names: Iterable[str], view: View | None = None) -> list[Drift]:
        """What is recorded of these services against what production and the last seen git show."""
        chosen, found = sorted(names), list[Drift]()
        if not chosen:
            return found
        try:
            view = view or self.observer.view()
            marks = self.ports.repository.marks()
        except BranchlineError as error:
            return [drift("unseen", "", what=error.message, command=error.next)]
        found += self._gateway(view)
        for name in chosen:
            try:
                found += self._of(self.recorder.service(name), view, marks)
            except BranchlineError as error:
                found.append(drift("unseen", name, what=error.message, command=error.next))
        return found

    def _gateway(self, view: View) -> Iterator[Drift]:
        if view.survey.taken:
            command = f"branchline down --daemon-only; branchline up --port {self.ports.router.vacant()}"
            what = f"{view.survey.taken}, the gateway's address,"
            yield drift("stranger on a socket", "", what=what, who="somebody else", command=command)
        elif not view.survey.running:
            yield drift("gateway down", "")
        for name in view.survey.edited:
            yield drift("edited gateway file", "", what=str(self.ports.state / "gateway" / name))

    def _of(self, service: Service, view: View, marks: Marks) -> Iterator[Drift]:
        """The drifts of one service; of an older ledger nothing else is told, for nothing in it can be believed."""
        if newer := self.recorder.older.get(service.name):
            known = self.recorder.stamp(service)
            what = f"it knows {service.name} up to event {known.generation}, start {known.epoch}; "
            what += f"event {newer.generation}, start {newer.epoch} has been acted upon"
            yield drift("older ledger", service.name, what=what)
            return
        sight = self.observer.whole(service, view)
        versions = {r.commit: r.version for r in self.ports.catalog.revisions(service.name)}
        steps = [(step, described(step, versions)[1]) for step in plan(sight.world, desired(service))]
        for revision in sorted({revision for _, shares in sight.world.routes for revision, _ in shares}):
            up = {
                i.nonce
                for i in sight.instances
                if i.state == "ready" and (i.revision, i.perimeter) == (revision, PRODUCTION)
            }
            if up and not up & view.survey.known.get(service.name, frozenset()):
                yield drift("route to the dead", service.name, who=versions.get(revision, revision[:7]))
        if not self.observer.fetched:
            what = "git has not been seen since the daemon started"
            yield drift("unseen", service.name, what=what, command="git ls-remote origin")
            yield from of_world(service, sight.world, steps, ())
            yield from of_conclusions(service)
            return
        refs = self.observer.refs
        yield from of_world(service, sight.world, steps, refs)
        if any(of_trunks(service, sight.world, refs, (), "")):  # the paths are asked for where they are needed
            paths = self.observer.closure(service.name, [line.incumbent or "" for line in service.lines])
            yield from of_trunks(service, sight.world, refs, paths, marks.remote)
        for ref, revision in sight.world.trunks:
            for path, other in self.observer.lent(service.name, ref, revision).items() if revision != FOREIGN else ():
                yield drift("shared path moved", service.name, ref=ref, path=path, other=other)
        yield from of_conclusions(service)
        refused = self.troubles.get((service.name, "Opened"), "")
        branches = self.observer.branches(service.name)
        open_ones = {each.branch for each in service.candidates if each.phase in OPEN}
        quiet = {ref for ref, tip in branches.items() if ref not in open_ones and not self._begun(service, ref, tip)}
        yield from of_branches(service, sight.world, branches, quiet, refused, marks.remote)
        yield from of_marks(service, versions, marks)

    def _begun(self, service: Service, ref: str, tip: str) -> bool:
        """Whether a branch that is no candidate should be one."""
        try:
            told = (service.name, ref) in self.troubles
            return not told and has_begun(self.ports, self.observer, service, ref, tip)
        except UnknownService:
            return False

    def strays(self) -> Iterator[Drift]:
        """Processes that nobody knows, and those that sit where ours should."""
        for stray in self.ports.launcher.strays():
            yield of_stray(stray)

    def laid(self, services: Iterable[str]) -> Iterator[Drift]:
        """Files that are not as their commit has them: those that are served from, and those that were checked out."""
        for name in services:
            versions = {r.commit: r.version for r in self.ports.catalog.revisions(name)}
            for commit in sorted({group.revision for group in desired(self.recorder.service(name)).running}):
                folder = self.ports.state / "trees" / name / commit
                closure = self.observer.closure(name, (commit,))
                if folder.is_dir() and (altered := self.ports.repository.altered(commit, folder, closure)):
                    command = f"branchline checkout {name}@{versions.get(commit, commit)} --again"
                    what = f"{folder / altered[0]}{more(altered)} is not what the commit has, and is served from"
                    yield drift("files differ", name, what=what, command=command)
        for each in self.ports.repository.checkouts():
            if each.altered:
                command = f"branchline checkout {each.reference} --again --into {shlex.quote(os.fspath(each.folder))}"
                what = f"{each.folder / each.altered[0]}{more(each.altered)} is not what {each.reference} has"
                yield drift("files differ", each.reference.partition("@")[0], what=what, command=command)

    def mend(self, revision: Revision) -> tuple[str, ...]:
        """Put the files that a revision is served from back as its commit has them; returns those that were not."""
        folder = self.ports.state / "trees" / revision.service / revision.commit
        if not folder.is_dir():
            return ()
        closure = self.observer.closure(revision.service, (revision.commit,))
        return self.ports.repository.mend(revision.commit, folder, closure)


def of_stray(stray: Stray) -> Drift:
    """What is told of a process: one of ours is ended, a stranger is left alone and loses the address."""
    if stray.kind == "orphan":
        what = f"process {stray.pid} serves {stray.what}, and nothing knows it"
        return drift("orphan process", stray.service, what=what, command=f"kill {stray.pid}")
    who = f"process {stray.pid}, which is not ours"
    return drift("stranger on a socket", stray.service, what=stray.what, who=who, command=UP)


def more(paths: tuple[str, ...]) -> str:
    """How many there are besides the first."""
    return f" (and {len(paths) - 1} more)" if len(paths) > 1 else ""


def later(ports: Ports, recorder: Recorder) -> dict[str, Stamp]:
    """Service -> the newest stamp that anybody knows of: the gateway, the launcher, and conclusions on the trunk.

    Git is believed only where the ledger has an incumbent: a new one beside an old repository is no older copy.
    """
    found = dict(ports.router.told())
    for name, stamp in ports.launcher.told().items():
        found[name] = max(stamp, found.get(name, stamp))
    for name, generation in ports.repository.recorded(recorder.default).items():
        stamp = Stamp(generation, 0)
        if recorder.service(name).lines:
            found[name] = max(stamp, found.get(name, stamp))
    return found
