"""This file opens an experiment of itself when new data has come, and says what was made of which data.

For a service that is live, and whose file on the trunk says `watch` or `every` of a source: once it has been quiet for
a while, what lies there is pinned; where the trunk pins something else, a commit on the trunk's tip whose diff is
`data.lock` alone is built beside the law. Only where a result differs from the incumbent's, or the data or the build is
bad, does it become the branch `experiment--SERVICE--data-DIGEST8` by a machine user; from there on the ordinary law
judges, and the gates say what is bad. Nothing is opened twice for the same data, and nothing while such a branch is
under way: the newest data waits, and what came between is never tried.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from branchline.core.codes import understood
from branchline.core.names import branch, counted
from branchline.core.revision import digest as digest_of
from branchline.core.service import PREPARING, SERVING, Service
from branchline.core.spec import Source, Spec
from branchline.core.world import policy_of
from branchline.engine.admitting import Attempts
from branchline.engine.building import build
from branchline.engine.observing import Observer
from branchline.engine.preparing import LOCK_FILE, governed_spec, prepare, spec_at
from branchline.engine.profiling import spoiled
from branchline.engine.progress import Progress
from branchline.engine.recording import Recorder
from branchline.engine.working import Workshop
from branchline.errors import BadServiceFile, BranchlineError, NothingToDo, UnknownService
from branchline.ports import DataVersion, Ports

MACHINE = "branchline <branchline@localhost>"
QUIET = 2.0  # seconds without news before what came is pinned
PATIENCE = 30.0  # but a source that is never quiet is pinned after so long
HANDLE = "data-"


@dataclass(slots=True)
class Heard:
    """Of which sources there was news, since when, and the newest."""

    first: float
    last: float
    sources: frozenset[str]

    def ready(self, now: float) -> bool:
        """Whether it has been quiet, or has not been for too long."""
        return now - self.last >= QUIET or now - self.first >= PATIENCE


@dataclass(slots=True)
class Arrivals:
    """Listens for new data, and opens what it is worth."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    progress: Progress
    troubles: dict[tuple[str, str], str]
    workshop: Workshop
    opened: Callable[[], None]  # called when a branch was made: somebody should look at git
    _heard: dict[str, Heard] = field(default_factory=dict)
    _due: dict[tuple[str, Source], float] = field(default_factory=dict)
    _specs: dict[str, tuple[str, Spec]] = field(default_factory=dict)
    _over: set[tuple[str, str, str]] = field(default_factory=set)  # service, incumbent, data not to be looked at again
    _tried: dict[tuple[str, str, str], float] = field(default_factory=dict)  # service, tip, data -> since when
    _attempts: dict[str, Attempts] = field(default_factory=dict)
    _busy: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> bool:
        """Take up what is heard and what is due, and begin whatever has been quiet; says whether anything was begun."""
        specs = dict(self._live())
        self._listen(specs)
        now, begun = self.ports.clock.monotonic(), False
        for name, heard in tuple(self._heard.items()):
            if name not in specs:
                self._heard.pop(name)
            elif heard.ready(now) and self._may(name, specs[name], now):
                begun = True
                self._begin(name, self._heard.pop(name).sources)
        return begun

    def arrived(self, service: str = "", source: str = "") -> tuple[tuple[str, str], ...]:
        """Somebody says that there is new data: of a service, of one source, of all; returns what is looked at.

        Raises UnknownService or NothingToDo when that is nothing that is live.
        """
        if service and service not in self.ports.ledger.services():
            raise UnknownService(name=service)
        found = [
            (name, each.name)
            for name, spec in self._live()
            for each in spec.data
            if service in ("", name) and source in ("", each.name)
        ]
        if not found:
            of = f" of {service}" if service else ""
            what = f"no live service{of} reads {source or 'any data'}"
            raise NothingToDo(what=what, hint="branchline data log")
        for name, each in found:
            self._hear(name, each)
        return tuple(found)

    def busy(self) -> bool:
        """Whether new data is being tried."""
        return bool(self._busy)

    # ------------------------------------------------------------------------------------------------ listening

    def _live(self) -> Iterator[tuple[str, Spec]]:
        """The services that are live and read data, each as its trunk's file says."""
        for name in self.ports.ledger.services():
            service = self.recorder.service(name)
            tip = self.observer.refs.get(service.default, "")
            if name in self.recorder.older or not service.lines or not tip:
                continue
            if self._specs.get(name, ("",))[0] != tip:
                try:
                    self._specs[name] = tip, spec_at(self.ports, name, tip)
                except BranchlineError:  # whoever watches the trunk says so
                    continue
            if self._specs[name][1].data:
                yield name, self._specs[name][1]

    def _listen(self, specs: dict[str, Spec]) -> None:
        """Take up what was written and what is due; what is listened to for the first time counts as both."""
        sources = [(name, each) for name, spec in specs.items() for each in spec.data]
        watched = [(name, each) for name, each in sources if each.watch]
        self.ports.lookout.watch({each.where for _, each in watched})
        written = self.ports.lookout.heard()
        for name, each in watched:
            if each.where in written:
                self._hear(name, each.name)
        now = self.ports.clock.now()
        for name, each in sources:
            if each.every and now >= self._due.get((name, each), -inf):
                self._hear(name, each.name)
                self._due[name, each] = self._next(name, each, now)

    def _next(self, name: str, source: Source, now: float) -> float:
        try:
            return self.ports.due(source.every, now)
        except BranchlineError as error:
            self.troubles[name, f"schedule of {source.name}"] = f"{error.code}: {error.message}"
            return inf

    def _hear(self, name: str, *sources: str) -> None:
        with self._lock:
            now = self.ports.clock.monotonic()
            heard = self._heard.get(name, Heard(now, now, frozenset()))
            self._heard[name] = Heard(heard.first, now, heard.sources | set(sources))

    def _may(self, name: str, spec: Spec, now: float) -> bool:
        """Whether there is nothing to wait for: a try that is under way, one that failed just now, or a trunk that
        does not show what serves.
        """
        service = self.recorder.service(name)
        if name in self._busy or (name in self._attempts and now < self._attempts[name].again):
            return False
        phases = {each.branch: each.phase for each in service.candidates}
        for ref in (*phases, *self.observer.branches(name)):
            named = branch(ref)
            is_own = named is not None and named.kind == "experiment" and named.handle.startswith(HANDLE)
            if is_own and phases.get(ref) in (None, *PREPARING, *SERVING):
                return False
        incumbent = service.line(spec.major).incumbent
        return incumbent is not None and self.observer.trunk(service, policy_of(service, spec.major)) == incumbent

    # ------------------------------------------------------------------------------------------------ opening

    def _begin(self, name: str, sources: frozenset[str]) -> None:
        self._busy.add(name)

        def run() -> None:
            try:
                self._arrive(name, sources)
                self._attempts.pop(name, None)
                self.troubles.pop((name, "data"), None)
            except Exception as error:  # noqa: BLE001 - one service's surprise stops nobody else, and is told (I24)
                if not self.workshop.closing():
                    self._failed(name, sources, understood(error))
            finally:
                self._busy.discard(name)

        self.workshop.begin(run)

    def _failed(self, name: str, sources: frozenset[str], error: BranchlineError) -> None:
        """Tell it; it is tried again after a while, and at the next news."""
        why = f"{error.code}: {error.message}" + (f": {error.cause}" if error.cause else "")
        self.troubles[name, "data"] = why
        self._attempts.setdefault(name, Attempts()).fail(self.ports.clock.monotonic(), why)
        if error.transient:
            self._hear(name, *sources)

    def _arrive(self, name: str, sources: frozenset[str]) -> None:
        """Pin what is there, and open an experiment where that is new and makes a difference."""
        ports, service = self.ports, self.recorder.service(name)
        tip, spec = self._specs[name]
        path = f"{spec.folder}/{LOCK_FILE}"
        text = ports.repository.read(tip, path)
        pinned = ports.read_lock(text, path) if text is not None else {}
        wanted = [each for each in spec.data if each.name in sources]
        versions = [ports.sources.pin(each.name, each.where, each.store) for each in wanted]
        fresh = [each for each in versions if pinned.get(each.source) != each.digest]
        if not fresh or self._is_known(service, spec, fresh):
            return
        topic = f"experiment--{name}--{HANDLE}{mark(fresh)}"
        told = "; ".join(f"{each.source} {each.digest[:8]}, {counted(each.rows, 'row')}" for each in fresh)
        lock = {path: ports.relock(text, path, fresh)}
        # Tried again it is the same commit, not one a moment younger: its branch tells what the first trial ran.
        at = self._tried.setdefault((name, tip, mark(fresh)), ports.clock.now())
        commit = ports.writer.draft(tip, lock, message(name, fresh, pinned), MACHINE, at)
        self.progress.note(name, topic, "..", "data", told)
        incumbent = service.line(spec.major).incumbent or ""
        if not self._differs(name, commit, tip, incumbent, topic):
            self.progress.note(name, topic, "=", "data", "every result is the incumbent's: nothing to try")
        elif ports.writer.begin(name, topic, commit, self.recorder.stamp(self.recorder.service(name))):
            self.progress.note(name, topic, "ok", "opened", topic)
            self.opened()
            return
        self._over.add((name, incumbent, mark(fresh)))

    def _is_known(self, service: Service, spec: Spec, fresh: Sequence[DataVersion]) -> bool:
        """Whether this data was tried: it makes no difference, its branch was closed, a revision was built of it, or a
        branch pins it.
        """
        ports, name, wanted = self.ports, service.name, {(each.source, each.digest) for each in fresh}
        if (name, service.line(spec.major).incumbent or "", mark(fresh)) in self._over:
            return True
        if any(wanted <= set(each.data) for each in ports.catalog.revisions(name)):
            return True
        path = f"{spec.folder}/{LOCK_FILE}"
        for tip in self.observer.branches(name).values():
            text = ports.repository.read(tip, path)
            try:
                pins = ports.read_lock(text, path) if text is not None else {}
            except BadServiceFile:
                continue
            if wanted <= set(pins.items()):
                return True
        return False

    def _differs(self, name: str, commit: str, tip: str, incumbent: str, topic: str) -> bool:
        """Whether the commit gives another result than the incumbent, or none: then its branch says why.

        What it builds is in the store when the branch is built. Raises what passes by itself.
        """
        ports = self.ports
        before = ports.catalog.revision(name, incumbent)
        try:
            spec = governed_spec(ports, name, commit, tip)
            prepared = prepare(ports, spec, commit)
            if spoiled(ports, spec, prepared.data_digests, before):
                return True
            runs = build(ports, prepared, self.progress, topic, self.workshop.closing)
        except BranchlineError as error:
            if error.transient or self.workshop.closing():
                raise
            return True
        return tuple((run.step, run.artifact) for run in runs) != before.artifacts


def mark(fresh: Sequence[DataVersion]) -> str:
    """What a branch with this data is named by: the digest of its one version, or of all together; 8 characters."""
    digests = {each.source: each.digest for each in fresh}
    return (next(iter(digests.values())) if len(digests) == 1 else digest_of(digests))[:8]


def message(service: str, fresh: Sequence[DataVersion], was: Mapping[str, str]) -> str:
    """What the machine user says of its commit; `was` is what the trunk pins."""
    lines = [
        f"{each.source}: {each.digest[:8]}, {counted(each.files, 'file')}, {counted(each.rows, 'row')}"
        + (f" (was {was[each.source][:8]})" if each.source in was else "")
        for each in fresh
    ]
    return f"Try {service} on new data\n\n" + "\n".join(lines) + "\n"


def made_of(ports: Ports, service: str) -> dict[str, list[str]]:
    """Digest of a data version -> the names of the revisions that were made of it, the oldest first."""
    made: dict[str, list[str]] = {}
    for revision in reversed(ports.catalog.revisions(service)):
        for _, digest in revision.data:
            made.setdefault(digest, []).append(revision.name)
    return made
