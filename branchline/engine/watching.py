"""This file turns what people did in git into events: a branch pushed, moved, deleted.

A branch's name is the interface (1.24): whatever is not named as an experiment or a fix means nothing here and is no
error. What a person did is an event and never drift: a branch deleted by hand is withdrawn, unless it was merged by
hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from branchline.core import names
from branchline.core.events import Configured, Event, Opened, Pushed, Withdrew
from branchline.core.lifecycle import OPEN, in_traffic, is_first
from branchline.core.service import Candidate, Method, Phase, Service
from branchline.core.world import policy_of
from branchline.engine.observing import Observer
from branchline.engine.preparing import EXPERIMENT_LOG, SERVICE_FILE, governed_spec, method_of, spec_at
from branchline.engine.recording import Recorder
from branchline.errors import BranchlineError, IllegalMove, UnknownService
from branchline.ports import Ports

EVENTS = (Configured, Opened, Pushed, Withdrew)  # what is seen in git


@dataclass(slots=True)
class Watcher:
    """Reads refs and records what became of them."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    troubles: dict[tuple[str, str], str]

    def look(self) -> bool:
        """Fetch, and record what is new; says whether anything was. Raises RemoteUnreachable.

        What is wrong with one service is kept beside it and hides nothing of another (I24).
        """
        refs = self.observer.fetch()
        for of, what in list(self.troubles):
            if names.branch(what) and what not in refs:
                self.troubles.pop((of, what), None)  # who has deleted a branch need not hear of it any more
        done = False
        for name in sorted(self._services(refs)):
            try:
                done |= self._look_at(self.recorder.service(name), refs)
                self.troubles.pop((name, "watch"), None)
            except BranchlineError as error:
                self.troubles[name, "watch"] = f"{error.code}: {error.message}"
        return done

    def _look_at(self, service: Service, refs: Mapping[str, str]) -> bool:
        for kind in EVENTS:
            self.troubles.pop((service.name, kind.__name__), None)  # what still cannot happen is told again below
        events = [*self._configured(service, refs), *self._moved(service, refs)]
        return any([self._record(service, event, actor) for event, actor in events])  # noqa: C419 - all of them

    def _services(self, refs: Mapping[str, str]) -> set[str]:
        """Services that are recorded or that a branch speaks of."""
        found = set(self.ports.ledger.services())
        found |= {branch.service for ref in refs if (branch := names.branch(ref))}
        return found

    def _configured(self, service: Service, refs: Mapping[str, str]) -> Iterator[tuple[Event, str]]:
        """What the trunk's service file says of slots, slice and approval; before there is one, the newest branch's."""
        commits = [refs[service.default]] if service.default in refs else []
        if not service.lines:
            commits += [c.tip for c in reversed(service.candidates)]
        for commit in commits:
            try:
                rollout = spec_at(self.ports, service.name, commit).rollout
            except BranchlineError:
                continue
            said = (rollout.slots, rollout.slice, rollout.approval)
            if said != (service.slots, service.slice, service.approval):
                yield Configured(slots=rollout.slots, slice=rollout.slice, approval=rollout.approval), "branchline"
            return

    def _moved(self, service: Service, refs: Mapping[str, str]) -> Iterator[tuple[Event, str]]:
        candidates = {candidate.branch: candidate for candidate in service.candidates}
        for ref, tip in sorted(self.observer.branches(service.name).items()):
            branch = names.branch(ref)
            assert branch is not None
            candidate = candidates.get(ref)
            if candidate is None or candidate.phase not in OPEN:
                known = candidate is not None and tip in (candidate.tip, candidate.revision)
                if (
                    not known
                    and self._holds_service(ref, tip, service.name)
                    and self._says_something(service, ref, tip)
                ):
                    yield self._opened(service, branch, tip), self._author(tip)
            elif tip != candidate.tip:
                yield self._pushed(service, candidate, tip), self._author(tip)
        for candidate in service.candidates:
            if candidate.phase in OPEN and candidate.branch not in refs and (why := self._gone(service, candidate)):
                yield Withdrew(candidate.branch, reason=why), "git"

    def _holds_service(self, ref: str, tip: str, service: str) -> bool:
        """A branch whose commit has no such service is noted once and otherwise left alone."""
        folders = self.ports.repository.folders(tip, SERVICE_FILE)
        if any(PurePosixPath(folder).name == service for folder in folders):
            self.troubles.pop((service, ref), None)
            return True
        self.troubles[service, ref] = f"BL102: {ref} has no folder named {service} with a {SERVICE_FILE}"
        return False

    def _says_something(self, service: Service, ref: str, tip: str) -> bool:
        """Whether a branch has begun; what has not is noted."""
        if has_begun(self.ports, self.observer, service, ref, tip):
            return True
        self.troubles[service.name, ref] = f"{ref} has changed nothing of {service.name} yet but its log"
        return False

    def _opened(self, service: Service, branch: names.Branch, tip: str) -> Opened:
        line = self._line(service, tip)
        method = Method.PATCH if branch.kind == "fix" else self._method(service, line, tip)
        fixed = next((c.revision for c in service.candidates if c.branch == branch.on), None)
        synced = fixed is not None and self._contains(tip, fixed)
        outdated = self._outdated(service, line, tip)
        base = branch.on or None
        return Opened(branch.name, tip=tip, method=method, base=base, line=line, synced=synced, outdated=outdated)

    def _outdated(self, service: Service, line: int, tip: str) -> bool:
        """Whether a branch was made from something else than what serves: an incumbent that has gone since.

        What counts is what the trunk showed where the branch left it. After a rollback every branch has the incumbent
        among its ancestors, and with it what was rolled back: so ancestry says nothing where another revision is shown.
        """
        incumbent, trunk = service.line(line).incumbent, self._trunk(service, line)
        if incumbent is None:
            return False
        repository, closure = self.ports.repository, spec_at(self.ports, service.name, incumbent).closure
        base = repository.base(trunk, tip) if trunk else ""
        shown = repository.tree(base, closure) if base else ""
        if shown == repository.tree(incumbent, closure):
            return False
        if not self._contains(tip, incumbent):
            return True
        gone = [each.revision for each in service.candidates if each.phase is Phase.RETIRED]
        return shown in {repository.tree(commit, closure) for commit in gone}

    def _method(self, service: Service, line: int, tip: str) -> Method:
        try:
            return method_of(governed_spec(self.ports, service.name, tip, self._trunk(service, line)))
        except BranchlineError:
            return Method.AB_TEST  # building it will say what is wrong with the file

    def _line(self, service: Service, tip: str) -> int:
        """The line that a commit's file says it is for; the newest, where it cannot be: building it will say why."""
        newest = max((line.major for line in service.lines), default=1)
        try:
            major = spec_at(self.ports, service.name, tip).major
        except BranchlineError:
            return newest
        return major if service.may_have(major) else newest

    def _trunk(self, service: Service, line: int) -> str:
        """The tip of a line's trunk, '' when there is none."""
        return self.observer.refs.get(policy_of(service, line), "")

    def _pushed(self, service: Service, candidate: Candidate, tip: str) -> Pushed:
        """A push, and what it contains of what it would replace.

        A fix whose challenger is gone is a fix of the trunk only once it is rid of that challenger's code: else what
        was declined would come back as a patch, untested.
        """
        line = service.line(candidate.line if candidate.base else self._line(service, tip))
        outdated = self._outdated(service, line.major, tip)
        if candidate.base is None:
            return Pushed(candidate.branch, tip=tip, synced=line.incumbent is not None and not outdated)
        inside = self._contains(tip, service.on(candidate.base).revision)
        if in_traffic(service, candidate.base):
            return Pushed(candidate.branch, tip=tip, synced=inside, outdated=inside and outdated)
        return Pushed(candidate.branch, tip=tip, synced=not inside and not outdated)

    def _contains(self, tip: str, commit: str) -> bool:
        return self.ports.repository.base(commit, tip) == commit

    def _gone(self, service: Service, candidate: Candidate) -> str:
        """Why a candidate without a branch is withdrawn; '' when it is not.

        Forges delete the branch as they merge it: of who concludes, and of a first revision, that is the conclusion's
        business. Anybody else has no verdict yet, and only a verdict changes what serves.
        """
        refs, trunk = self.observer.refs, policy_of(service, candidate.line)
        if candidate.base and candidate.base in refs and self._contains(refs[candidate.base], candidate.tip):
            return f"it was merged into {candidate.base} by hand: that is a push there"
        adopted = candidate.phase is Phase.CONCLUDING or is_first(service, candidate)
        if adopted and self.observer.trunk(service, trunk) == candidate.revision:
            return ""
        if shown := self._shown_by(service, candidate.revision, refs.get(trunk, "")):
            again = f"branchline start {service.name}, then: git checkout {shown:.12} -- {service.name}"
            return f"it was merged by hand without a verdict: {trunk} shows what serves again; to try it again: {again}"
        other = (ref for ref, tip in sorted(refs.items()) if tip == candidate.tip and names.branch(ref))
        return f"it was renamed to {ref}" if (ref := next(other, "")) else "its branch was deleted"

    def _shown_by(self, service: Service, revision: str, trunk: str) -> str:
        """The commit by which a trunk lately showed a revision, though it may have been put back since; '' if none."""
        repository, closure = self.ports.repository, self.observer.closure(service.name, (revision,))
        lately = repository.log("", trunk, closure, limit=20) if trunk else ()
        wanted, commits = repository.tree(revision, closure), (each["commit"] for each in lately)
        return next((commit for commit in commits if repository.tree(commit, closure) == wanted), "")

    def _author(self, tip: str) -> str:
        commits = self.ports.repository.log("", tip, limit=1)
        return f"{commits[0]['author']} <{commits[0]['email']}>" if commits else "git"

    def _because(self, service: Service, event: Event) -> str:
        """Why it is recorded; an A/B test that is skipped is a policy with a reason (1.41)."""
        if isinstance(event, Opened) and event.method in (Method.CANARY, Method.BLUE_GREEN):
            trunk = self._trunk(service, event.line)
            reason = governed_spec(self.ports, service.name, event.tip, trunk).rollout.skip_ab
            return f"seen in git; no A/B test: {reason}" if reason else "seen in git"
        return "seen in git"

    def _record(self, service: Service, event: Event, actor: str) -> bool:
        name = service.name
        try:
            self.recorder.record(name, event, actor=actor, because=self._because(service, event))
        except IllegalMove as error:
            why = f": {error.cause}" if error.cause else ""
            self.troubles[name, type(event).__name__] = f"{error.code}: {error.message}{why}"
            return False
        return True


def has_begun(ports: Ports, observer: Observer, service: Service, ref: str, tip: str) -> bool:
    """Whether a branch changes more of what serves than its log: before that, nobody wants it tested.

    A fix begins where its trunk holds what somebody else wrote, too: that, then, is what is to be tried. Raises
    UnknownService when the commit does not hold the service.
    """
    try:
        spec = spec_at(ports, service.name, tip)
    except UnknownService:
        raise
    except BranchlineError:
        return True  # building it will say what is wrong with the file
    repository, trunk = ports.repository, observer.refs.get(policy_of(service, spec.major), "")
    if not service.lines or not trunk:
        return True
    base = repository.base(trunk, tip)
    changed = repository.changed(base, tip, spec.closure) if base else (spec.folder,)
    if set(changed) - {f"{spec.folder}/{EXPERIMENT_LOG}"}:
        return True
    shown = repository.tree(base, spec.closure) if base and ref.startswith("fix--") else ""
    return bool(shown) and shown not in {
        repository.tree(each.commit, spec.closure) for each in ports.catalog.revisions(service.name)
    }
