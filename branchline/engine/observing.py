"""This file looks: at processes, routes and git, and says in the law's words what they show of a service.

Every answer is read from the thing itself. The last fetched branches are kept, so that a dead remote blinds nobody.
What follows from a commit never changes and is remembered: whoever looks at 200 services asks git of what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from branchline.core import names
from branchline.core.service import Phase, Service
from branchline.core.world import FOREIGN, PRODUCTION, STAGING, Running, World, desired
from branchline.engine.preparing import SERVICE_FILE
from branchline.errors import BadServiceFile, RemoteUnreachable
from branchline.ports import Instance, Ports, Shown, Survey

Key = TypeVar("Key")
Value = TypeVar("Value")
REMEMBERED = 20_000
UNKNOWN = "?"  # how the repository marks a tree that is of no revision it was asked about


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one service: its world in the law's words, its instances, and its routes with their tables."""

    world: World
    instances: tuple[Instance, ...]
    shown: Mapping[int, Shown]


@dataclass(frozen=True, slots=True)
class View:
    """One look at everything, for whoever asks about many services: instances by service, and the gateway as it is."""

    instances: Mapping[str, tuple[Instance, ...]]
    survey: Survey


class Observer:
    """Looks at the world through the ports."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._lock = threading.Lock()
        self._refs: Mapping[str, str] = {}
        self._majors: list[str] = []
        self._branches: Mapping[str, Mapping[str, str]] = {}
        self._fetches = [0, 0]  # begun, ended
        self._shows: dict[tuple[object, ...], str] = {}
        self._closures: dict[tuple[str, str], tuple[str, ...]] = {}
        self.reachable = True
        self.fetched = False

    def fetch(self) -> Mapping[str, str]:
        """Bring the known branches up to date; when the remote is dead, the last known ones stay, and `reachable` is
        false.
        """
        self._count(0)
        try:
            refs = dict(self._ports.repository.fetch())
        except RemoteUnreachable:
            self.reachable = False
            raise
        finally:
            self._count(1)
        branches: dict[str, dict[str, str]] = {}
        for ref, tip in refs.items():
            if branch := names.branch(ref):
                branches.setdefault(branch.service, {})[ref] = tip
        majors = [ref for ref in refs if ref.startswith("major--")]
        with self._lock:
            self._majors = majors
            self._refs, self._branches, self.reachable, self.fetched = refs, branches, True, True
        return refs

    def _count(self, which: int) -> None:
        with self._lock:
            self._fetches[which] += 1

    @property
    def refs(self) -> Mapping[str, str]:
        """The branches as they were last seen; never changed, only replaced."""
        return self._refs

    def branches(self, service: str) -> Mapping[str, str]:
        """Those of them that are experiments and fixes of a service."""
        return self._branches.get(service, {})

    def view(self, service: str = "") -> View:
        """Look once at all instances (or those of a service) and at the gateway; starts nothing."""
        instances: dict[str, tuple[Instance, ...]] = {}
        for each in self._ports.launcher.instances(service):
            instances[each.service] = (*instances.get(each.service, ()), each)
        return View(instances, self._ports.router.survey())

    def production(self, service: Service, view: View | None = None) -> Sight:
        """Processes and routes of a service, with git as it is wanted: for whoever acts on production alone.

        Without a view the gateway is asked itself, and started when it is not there.
        """
        wanted = desired(service)
        if view is None:
            instances, shown = self._ports.launcher.instances(service.name), self._ports.router.shown(service.name)
        else:
            instances = view.instances.get(service.name, ())
            shown = view.survey.routes.get(service.name, {})
        lines = line_of(service)
        ready = [i for i in instances if i.state == "ready" and i.perimeter in (PRODUCTION, STAGING)]
        running = {Running(i.revision, i.perimeter, lines.get(i.revision, 1)) for i in ready}
        routes = tuple(sorted((line, each.shares) for line, each in shown.items() if each.shares))
        world = World(trunks=wanted.trunks, routes=routes, running=frozenset(running), absorbed=wanted.absorbed)
        return Sight(world, instances, shown)

    def whole(self, service: Service, view: View | None = None) -> Sight:
        """Everything of a service, git as it was last fetched; before it ever was, as it is wanted."""
        sight, refs = self.production(service, view), self.refs
        if not self.fetched:
            return sight
        trunks = []
        for ref in sorted({ref for ref, _ in desired(service).trunks} | older_trunks(service.name, self._majors)):
            shows = self.trunk(service, ref)
            if shows is not None:
                trunks.append((ref, shows))
        branches = frozenset((c.branch, refs[c.branch]) for c in service.candidates if c.branch in refs)
        absorbed = frozenset(
            (base, revision)
            for base, revision in desired(service).absorbed
            if base in refs and self._ports.repository.base(refs[base], revision) == revision
        )
        world = replace(sight.world, trunks=tuple(trunks), branches=branches, absorbed=absorbed)
        return replace(sight, world=world)

    def trunk(self, service: Service, ref: str) -> str | None:
        """Which revision a trunk shows: FOREIGN when it is none of them, None when the service is not there.

        Before a line has an incumbent, what lies on its trunk is only where the first revision was begun: None.
        """
        tip = self.refs.get(ref)
        if tip is None:
            return None
        known, fetches = tuple(dict.fromkeys([*candidates_first(service)])), [*self._fetches]
        key = (service.name, ref, tip, known)
        if key in self._shows:
            return self._shows[key]
        shows = self._ports.repository.shows(ref, service.name, self.closure(service.name, (*known, tip)), known)
        wanted = [revision for at, revision in desired(service).trunks if at == ref]
        if shows is None or shows not in wanted:
            heads = [line.incumbent for line in service.lines if shows and line.incumbent]
            if lent := next((each for each in heads if self.lent(service.name, ref, each)), ""):
                return lent
            foreign = shows is not None and shows.startswith(UNKNOWN)
            return (FOREIGN if service.lines else None) if foreign else shows
        if fetches[0] == fetches[1] and fetches == self._fetches:  # else it may have been said of another tip
            remember(self._shows, key, shows)
        return shows

    def lent(self, service: str, ref: str, revision: str) -> dict[str, str]:
        """Shared paths in which a trunk differs from a revision, each with the service whose conclusion changed it.

        {} when nothing differs, or anything that no other service's conclusion explains.
        """
        tip, closure, tree = self.refs[ref], self.closure(service, (revision,)), self._ports.repository.tree
        if tree(tip, closure) == tree(revision, closure):
            return {}
        differing = [path for path in closure if tree(tip, (path,)) != tree(revision, (path,))]
        found = {path: self._lender(service, ref, path, tree(tip, (path,))) for path in differing}
        return found if all(found.values()) else {}

    def _lender(self, service: str, ref: str, path: str, shown: str) -> str:
        """The other service that has a path as the trunk shows it, by the revision that it wants there; '' if none."""
        for other in self._ports.ledger.services():
            for at, head in desired(self._ports.ledger.service(other)).trunks:
                theirs = self.closure(other, (head,)) if other != service and at == ref else ()
                inside = any(f"{path}/".startswith(f"{each}/") for each in theirs)
                if inside and self._ports.repository.tree(head, (path,)) == shown:
                    return other
        return ""

    def closure(self, service: str, commits: Iterable[str]) -> tuple[str, ...]:
        """The paths that a service is made of, as the first of the commits that has it declares them."""
        for commit in commits:
            if (service, commit) not in self._closures:
                remember(self._closures, (service, commit), self._closure(service, commit))
            if found := self._closures[service, commit]:
                return found
        return (service,)

    def _closure(self, service: str, commit: str) -> tuple[str, ...]:
        repository = self._ports.repository
        for folder in repository.folders(commit, SERVICE_FILE):
            if folder.rsplit("/", 1)[-1] == service:
                path = f"{folder}/{SERVICE_FILE}"
                try:
                    return self._ports.read_spec(repository.read(commit, path) or b"", path).closure
                except BadServiceFile:  # building it will say so; nothing else of the service waits for that (I24)
                    return (folder,)
        return ()


def remember(memory: dict[Key, Value], key: Key, value: Value) -> None:
    """Keep what can be found out again, and forget all of it when it has become too much."""
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[key] = value


def candidates_first(service: Service) -> Iterable[str]:
    """Every revision a trunk may show: who concludes, then the incumbents, the newest first."""
    for candidate in service.candidates:
        if candidate.phase is Phase.CONCLUDING:
            yield candidate.revision
    for line in service.lines:
        yield from reversed(line.history)
    for candidate in service.candidates:
        yield candidate.revision


def line_of(service: Service) -> dict[str, int]:
    """Revision -> the line it belongs to."""
    lines = {candidate.revision: candidate.line for candidate in service.candidates}
    return lines | {revision: line.major for line in service.lines for revision in line.history}


def older_trunks(service: str, refs: Iterable[str]) -> set[str]:
    """The refs that are trunks of older majors of a service."""
    return {ref for ref in refs if ref.startswith(f"major--{service}--")}
