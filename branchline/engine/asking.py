"""This file turns what a person asks into an event, and says beforehand what git, traffic and processes will see of
it.

The plan that is shown is the law's own: the steps from what is observed to what the state after the event wants.
What is done afterwards is exactly that, because nothing else is ever done.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from branchline.core import lifecycle as law
from branchline.core import names
from branchline.core.events import Event
from branchline.core.revision import Revision
from branchline.core.service import Candidate, Phase, Service
from branchline.core.waiting import replaced
from branchline.core.world import PRODUCTION, Absorb, Delete, Route, Start, Step, Stop, World, Write, desired, plan
from branchline.engine.addressing import worn
from branchline.engine.comparing import lacks
from branchline.engine.observing import Observer
from branchline.engine.recording import Recorder
from branchline.errors import IllegalMove, NothingToDo, UnknownReference, UnknownService, UsageError
from branchline.ports import Ports

BESIDE = "a new set beside, which takes over when it is ready"


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a request: the event, the steps it leads to as (kind, text), and whether it was recorded.

    `loses` are the commits that a `keep` throws away: what came to the trunk meanwhile and is in no tree afterwards.
    """

    service: str
    event: str
    steps: tuple[tuple[str, str], ...]
    recorded: bool
    generation: int
    loses: tuple[Mapping[str, str], ...] = ()


@dataclass(slots=True)
class Desk:
    """Takes requests; `weigh` brings the evidence on a branch up to now, and says in a line what it is."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    weigh: Callable[[str, str], str] = field(default=lambda service, branch: "")

    def ask(
        self, command: str, reference: str, args: Mapping[str, Any], *, actor: str, because: str, dry_run: bool,
        within: float = 0.0,
    ) -> Asked:  # fmt: skip
        """Record what a command means, or with `dry_run` only say it; raises IllegalMove when it cannot happen now.

        Who has another way asks for an answer `within` so many seconds: LedgerBusy where nothing can be recorded by
        then, also of a plan. 0 waits as long as it takes.
        """
        if within:
            self.ports.ledger.ready(within)
        if command not in MEANINGS:
            raise UsageError(f"there is no command {command!r}; known: {', '.join(sorted(MEANINGS))}")
        service, candidate = self.find(reference)
        told = {**args, "because": because, "actor": actor}
        if command == "conclude" and args.get("override"):  # nobody decides past a guardrail that is breached by now
            told["said"] = self.weigh(service.name, _branch(service, candidate))
            service, candidate = self.find(reference)
        event = MEANINGS[command](service, candidate, told)
        with as_typed(command):
            if isinstance(event, law.Overrode) and event.side == "challenger":
                self._stands(service, event)
            before, after = self.recorder.preview(service.name, event)
            steps, kept = self.steps(before, after), isinstance(event, law.Kept) and candidate
            loses = lacks(self.ports, self.observer, before, kept) if kept else ()
            if not dry_run:
                after = self.recorder.record(service.name, event, actor=actor, because=because)
        return Asked(service.name, type(event).__name__, steps, not dry_run, after.generation, loses)

    def _stands(self, service: Service, event: law.Overrode) -> None:
        """Raise IllegalMove where what would be replaced does not run: nobody could go back to it."""
        old = replaced(service, service.on(event.branch))
        up = self.observer.production(service, self.observer.view(service.name)).world.running
        if all((each.revision, each.perimeter) != (old, PRODUCTION) for each in up):
            why = "what it would replace does not run: there is nothing to go back to"
            hint = f"branchline status {service.name}"
            raise IllegalMove(why, hint=hint, event=type(event).__name__, subject=event.branch)

    def find(self, reference: str) -> tuple[Service, Candidate | None]:
        """The service and, where one is meant, the candidate that a reference names; None for what is no branch any
        more.
        """
        named = names.reference(reference)
        if named.kind == "service":
            service = self._known(named.service)
            return service, sole(service)
        name, commit = self.meant(reference)
        service = self.ports.ledger.service(name)
        same = named.text if named.kind == "branch" else commit
        found = [each for each in service.candidates if same == each.branch]
        return service, found[0] if found else service.owner(same)

    def meant(self, reference: str) -> tuple[str, str]:
        """Service and commit that a reference names, now or once; a bare service means its one open candidate, else
        its incumbent.

        Raises UnknownService, or UnknownReference with what is near.
        """
        named = names.reference(reference)
        for name in [self._known(named.service).name] if named.service else self.ports.ledger.services():
            service, built = self.ports.ledger.service(name), self.ports.catalog.revisions(name)
            if commit := next(_commits(named, service, built), ""):
                return name, commit
        if named.kind in ("service", "role") and named.text != "challenger":
            raise UnknownReference(f"nothing of {named.service} has been released yet", reference=reference)
        raise UnknownReference(self._near(named), reference=reference)

    def _known(self, name: str) -> Service:
        if name not in self.ports.ledger.services():
            raise UnknownService(did_you_mean(name, self.ports.ledger.services()), name=name)
        return self.ports.ledger.service(name)

    def _near(self, named: names.Reference) -> str:
        if not named.service:
            return ""
        known = [each.branch for each in self.ports.ledger.service(named.service).candidates]
        if named.kind == "version":
            known = [each.version for each in self.ports.catalog.revisions(named.service)]
        return did_you_mean(named.text, list(dict.fromkeys(known)))

    def revision(self, reference: str) -> Revision:
        """The built revision that a reference names; raises UnknownReference for what was never built."""
        service, commit = self.meant(reference)
        try:
            return self.ports.catalog.revision(service, commit)
        except UnknownReference:
            raise UnknownReference(f"{commit[:7]} has not been built", reference=reference) from None

    def steps(self, before: Service, after: Service) -> tuple[tuple[str, str], ...]:
        """What git, traffic and processes will see, in order, as (kind, text).

        A conclusion leads on: what follows when git is seen to have it belongs to the plan. A new set of processes is
        told where one runs that has not the number that a person wants.
        """
        versions = {r.commit: r.version for r in self.ports.catalog.revisions(after.name)}
        seen, wanted = self.observer.whole(before), desired(after)
        world = seen.world
        todo = plan(world, wanted)
        for each in after.candidates:
            if each.phase is Phase.CONCLUDING:
                world = arrived(world, wanted)
                after = law.move(after, law.Recorded(each.branch))
                wanted = desired(after)
                todo += plan(world, wanted)
        scales = dict(after.scales)
        groups = worn(wanted.running, seen.instances, after)
        renewed = [
            f"run {versions.get(each, each[:7])} in {names.counted(scales[each], 'process', 'es')}: {BESIDE}"
            for each, perimeter, _ in groups
            if perimeter == PRODUCTION and each in scales
        ]
        return (*(described(step, versions) for step in todo), *(("process", text) for text in renewed))


@contextmanager
def as_typed(command: str) -> Iterator[None]:
    """Let a refusal name what somebody typed, not the event that it would have been."""
    try:
        yield
    except IllegalMove as error:
        error.fields["event"] = command
        raise


def arrived(world: World, wanted: World) -> World:
    """The world when all that is wanted has been done."""
    gone = {(each.branch, each.tip) for each in wanted.doomed}
    return replace(wanted, branches=world.branches - gone, doomed=frozenset())


def sole(service: Service) -> Candidate | None:
    """The one open candidate that a bare service name can mean; None when there is none or more than one."""
    busy = [c for c in service.candidates if c.phase in law.OPEN]
    return busy[0] if len(busy) == 1 else None


def _commits(named: names.Reference, service: Service, built: Sequence[Revision]) -> Iterator[str]:
    """The commits of a service that a reference can mean, the likeliest first: what is open before what is past."""
    candidates = service.candidates[::-1]
    match named.kind:
        case "service" if one := sole(service):
            yield one.revision
        case "role" if named.text == "challenger":
            yield from (each.revision for each in candidates if each.phase in law.SERVING)
        case "service" | "role":
            yield from (str(line.incumbent) for line in service.lines[-1:])
        case "version":
            yield from (each.commit for each in built if each.version == named.text)
        case "branch":
            yield from (each.revision for each in candidates if each.branch == named.text)
            yield from (each.commit for each in built if each.branch == named.text)
        case _:
            known = [*(each.revision for each in candidates), *(each.commit for each in built)]
            yield from (commit for commit in known if commit.startswith(named.text))


def described(step: Step, versions: Mapping[str, str]) -> tuple[str, str]:
    """One step in words."""

    def name(revision: str) -> str:
        return versions.get(revision, revision[:7])

    match step:
        case Start():
            return "process", f"start {name(step.revision)} in {step.perimeter}"
        case Stop():
            return "process", f"drain and stop {name(step.revision)} in {step.perimeter}"
        case Route():
            shares = ", ".join(f"{name(revision)} {share}%" for revision, share in step.shares)
            return "traffic", shares or f"end the route of line {step.line}"
        case Write():
            return "git", f"make {step.ref} show {name(step.revision)} ({step.revision[:7]})"
        case Absorb():
            return "git", f"merge {name(step.revision)} into {step.branch}"
        case Delete():
            return "git", f"archive and delete {step.branch} at {step.tip[:7]}"
        case _:
            return "git", f"archive and delete {step.ref}"


def did_you_mean(text: str, known: Sequence[str]) -> str:
    """A cause that names what is near."""
    near = difflib.get_close_matches(text, known, 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"known: {', '.join(known)}" if known else "none is known yet"


def _share(args: Mapping[str, Any]) -> int:
    try:
        return int(args["share"])
    except (KeyError, ValueError):
        raise UsageError("say which share, in whole per cent: split BRANCH --share 30") from None


def _branch(service: Service, candidate: Candidate | None) -> str:
    if candidate is None:
        busy = [c.branch for c in service.candidates if c.phase in law.OPEN]
        raise NothingToDo(
            "name one of: " + ", ".join(busy) if busy else "push a branch first",
            what=f"{service.name} has {names.counted(len(busy), 'open branch', 'es')}",
        )
    return candidate.branch


def _line(service: Service, args: Mapping[str, Any]) -> int:
    return int(args.get("line") or max((line.major for line in service.lines), default=1))


def _scale(service: Service, candidate: Candidate | None, args: Mapping[str, Any]) -> Event:
    try:
        return law.Scaled(str(args["revision"]), int(args["instances"]), reason=str(args["because"]))
    except (KeyError, ValueError):
        raise UsageError("say of which revision, and how many: scale SERVICE@REVISION 4") from None


def _conclude(service: Service, candidate: Candidate | None, args: Mapping[str, Any]) -> Event:
    branch = _branch(service, candidate)
    if reason := str(args.get("override", "")):
        side, said = str(args.get("side", "")), str(args.get("said", ""))
        return law.Overrode(branch, side, reason, by=str(args["actor"]).partition(" <")[0], said=said)
    if service.on(branch).phase is not Phase.WON:
        raise NothingToDo("there is no verdict for it yet", what=f"{branch} cannot be concluded")
    return law.Approved(branch)


def _rollback(service: Service, candidate: Candidate | None, args: Mapping[str, Any]) -> Event:
    """Back to the one before; with a winner concluding, or a test and nothing before, to abort that is the way back."""
    line = _line(service, args)
    serving = [each for each in service.candidates if each.line == line and each.phase in law.SERVING]
    sole = len(service.line(line).history) < 2
    for each in serving:
        if each.phase is Phase.CONCLUDING or sole:
            return law.Aborted(each.branch, reason=str(args["because"]))
    return law.RolledBack(line=line, reason=str(args["because"]))


MEANINGS: dict[str, Callable[[Service, Candidate | None, Mapping[str, Any]], Event]] = {
    "approve": lambda s, c, a: law.Approved(_branch(s, c)),
    "split": lambda s, c, a: law.Ramped(_branch(s, c), share=_share(a)),
    "conclude": _conclude,
    "extend": lambda s, c, a: law.Extended(_branch(s, c)),
    "keep": lambda s, c, a: law.Kept(_branch(s, c)),
    "close": lambda s, c, a: law.Withdrew(_branch(s, c), reason=str(a["because"])),
    "abort": lambda s, c, a: law.Aborted(_branch(s, c), reason=str(a["because"])),
    "rollback": _rollback,
    "retire": lambda s, c, a: law.Retired(line=_line(s, a), reason=str(a["because"])),
    "freeze": lambda s, c, a: law.Frozen(reason=str(a["because"])),
    "scale": _scale,
    "thaw": lambda s, c, a: law.Thawed(),
}
