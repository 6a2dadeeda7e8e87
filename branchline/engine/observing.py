"""This file looks: at processes, routes and git, and says in the law's words what they show of a service.

Every answer is read from the thing itself. The last fetched branches are kept, so that a dead remote blinds nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from branchline.core.service import Service
from branchline.core.world import FOREIGN, PRODUCTION, STAGING, Running, World, desired
from branchline.engine.preparing import SERVICE_FILE
from branchline.errors import RemoteUnreachable
from branchline.ports import Instance, Ports, Shown

UNKNOWN = "?"  # how the repository marks a tree that is of no revision it was asked about


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen of one service: its world in the law's words, its instances, and its routes with their tables."""

    world: World
    instances: tuple[Instance, ...]
    shown: Mapping[int, Shown]


class Observer:
    """Looks at the world through the ports."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._lock = threading.Lock()
        self._refs: dict[str, str] = {}
        self.reachable = True
        self.fetched = False

    def fetch(self) -> Mapping[str, str]:
        """Bring the known branches up to date; when the remote is dead, the last known ones stay, and `reachable` is
        false.
        """
        try:
            refs = dict(self._ports.repository.fetch())
        except RemoteUnreachable:
            self.reachable = False
            raise
        with self._lock:
            self._refs, self.reachable, self.fetched = refs, True, True
        return refs

    @property
    def refs(self) -> Mapping[str, str]:
        """The branches as they were last seen."""
        with self._lock:
            return dict(self._refs)

    def production(self, service: Service) -> Sight:
        """Processes and routes of a service, with git as it is wanted: for whoever acts on production alone."""
        wanted = desired(service)
        instances = tuple(i for i in self._ports.launcher.instances() if i.service == service.name)
        shown = self._ports.router.shown(service.name)
        lines = line_of(service)
        ready = [i for i in instances if i.state == "ready" and i.perimeter in (PRODUCTION, STAGING)]
        running = {Running(i.revision, i.perimeter, lines.get(i.revision, 1)) for i in ready}
        routes = tuple(sorted((line, each.shares) for line, each in shown.items() if each.shares))
        world = World(trunks=wanted.trunks, routes=routes, running=frozenset(running), absorbed=wanted.absorbed)
        return Sight(world, instances, shown)

    def whole(self, service: Service) -> Sight:
        """Everything of a service, git as it was last fetched; before it ever was, as it is wanted."""
        sight, refs = self.production(service), self.refs
        if not self.fetched:
            return sight
        trunks = []
        for ref in sorted({ref for ref, _ in desired(service).trunks} | older_trunks(service.name, refs)):
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
        known = tuple(dict.fromkeys([*candidates_first(service)]))
        shows = self._ports.repository.shows(ref, service.name, self.closure(service.name, (*known, tip)), known)
        if shows is None or not shows.startswith(UNKNOWN):
            return shows
        return FOREIGN if service.lines else None

    def closure(self, service: str, commits: Iterable[str]) -> tuple[str, ...]:
        """The paths that a service is made of, as the first of the commits that has it declares them."""
        repository = self._ports.repository
        for commit in commits:
            for folder in repository.folders(commit, SERVICE_FILE):
                if folder.rsplit("/", 1)[-1] == service:
                    path = f"{folder}/{SERVICE_FILE}"
                    return self._ports.read_spec(repository.read(commit, path) or b"", path).closure
        return (service,)


def candidates_first(service: Service) -> Iterable[str]:
    """Every revision a trunk may show: who concludes, then the incumbents, the newest first."""
    for candidate in service.candidates:
        if candidate.phase.value == "concluding":
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
