"""This file says what is remembered of a service: its lines, its candidates, and the phase of each.

Rules: records only, frozen, and every field survives JSON (`core.records`). A service holds one record per branch;
history belongs to the ledger. The order of `candidates` is their age and part of the law: the longest waiting goes
first. Shares are whole per cents.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from branchline.errors import IllegalMove


class Phase(Enum):
    """Where a candidate is, from the opening of its branch to its end."""

    BUILDING = "building"  # its steps are running
    EVALUATING = "evaluating"  # it runs in staging, its gates are running
    FAILED = "evaluation failed"  # a gate or a person said no before any traffic; the branch stays
    MEASURED = "measured"  # a benchmark (V0): evaluated, never promoted; the branch stays
    QUEUED = "queued"  # it passed, and waits for what waits_for() names
    TESTING = "A/B test"  # it has a share of its own beside the incumbent
    CANARY = "canary"  # it has a slice of the arm that it wants to replace
    WON = "won"  # the evidence is for it; waits_for() names what blocks its conclusion
    CONCLUDING = "concluding"  # the arm is wholly its own, git is being told
    LIVE = "live"  # it is the incumbent, and the trunk says so; the branch goes
    ABSORBED = "absorbed"  # a fix that is now part of the challenger it was made for; the branch goes
    RETIRED = "retired"  # it was live; another revision of its line serves
    ROLLED_BACK = "rolled back"  # a guardrail or a person took it out of traffic; the branch stays
    DECLINED = "declined"  # the incumbent won; the branch goes, unmerged
    INCONCLUSIVE = "inconclusive"  # no verdict; out of traffic, the branch stays, labelled
    WITHDRAWN = "withdrawn"  # its author gave up, or deleted the branch; the branch goes
    SUPERSEDED = "superseded"  # the arm or the line that it was made for is gone; the branch stays


PREPARING = frozenset({Phase.BUILDING, Phase.EVALUATING, Phase.QUEUED})
SERVING = frozenset({Phase.TESTING, Phase.CANARY, Phase.WON, Phase.CONCLUDING})
RESTING = frozenset({Phase.FAILED, Phase.MEASURED, Phase.ROLLED_BACK, Phase.INCONCLUSIVE, Phase.SUPERSEDED})
OPEN = PREPARING | SERVING | RESTING
ENDED = frozenset({Phase.LIVE, Phase.ABSORBED, Phase.RETIRED, Phase.DECLINED, Phase.WITHDRAWN})


class Method(Enum):
    """How a candidate takes over the arm that it wants."""

    AB_TEST = "A/B test"  # a new solution of kind model: judged for effect, on a share of its own
    CANARY = "canary"  # a new solution of kind app: judged for harm, inside the arm it replaces
    BLUE_GREEN = "blue/green"  # a new solution of kind app: stands by, and takes the whole arm at a person's word
    PATCH = "patch"  # a fix or a sync: as a canary, and it voids nobody's verdict
    BENCHMARK = "benchmark"  # V0: measured, never promoted


@dataclass(frozen=True, slots=True)
class Candidate:
    """One branch's try, from Opened to its end."""

    branch: str
    revision: str  # the judged commit; under test only an absorbed fix changes it
    tip: str  # the newest commit seen on the branch
    holds: str | None = None  # the incumbent that its code contains; None: begun before there was one
    method: Method = Method.AB_TEST
    base: str | None = None  # the branch of the challenger whose arm it fixes; None: the trunk
    onto: str | None = None  # the revision of that challenger that its code contains
    line: int = 1  # the major
    phase: Phase = Phase.BUILDING
    share: int = 50  # per cent of its line's traffic while it is under test
    segment: int = 0  # grows whenever either side of the comparison changes
    approved: bool = False
    seated: int = 0  # the slots there were when it got one: into so many parts the error rate was divided
    repeats: int = 0  # how often the same was let into a test before: each halves its part of the error rate
    extended: bool = False  # a person wants it measured for as long as it takes
    overridden: str = ""  # who ended its test in the verdict's place, and why
    trouble: str = ""  # why git refused, while it concludes: "remote", "permission", "foreign", ...

    @property
    def has_slot(self) -> bool:
        """Whether it is a challenger under test: it has an arm of its own, which a fix may take over."""
        return self.method is Method.AB_TEST and self.phase in (Phase.TESTING, Phase.WON)

    @property
    def stands_by(self) -> bool:
        """Whether it is the second colour: warm in production beside the incumbent, without any traffic."""
        return self.method is Method.BLUE_GREEN and self.phase is Phase.QUEUED


@dataclass(frozen=True, slots=True)
class Line:
    """One live major of a service."""

    major: int
    history: tuple[str, ...] = ()  # what has been incumbent, newest last
    warm: bool = False  # the incumbent before is still running

    @property
    def incumbent(self) -> str | None:
        """The revision that holds the trunk's arm, or None."""
        return self.history[-1] if self.history else None


@dataclass(frozen=True, slots=True)
class Service:
    """All that the law knows of one service."""

    name: str
    default: str = "main"  # the default branch: the trunk of the newest line
    lines: tuple[Line, ...] = ()  # by major, only those that have an incumbent
    candidates: tuple[Candidate, ...] = ()
    slots: int = 1  # challengers under test at once, per line
    slice: int = 10  # per cent of an arm that a canary gets
    approval: str = ""  # "", "before" the test or "after" the verdict
    frozen: bool = False
    scales: tuple[tuple[str, int], ...] = ()  # (revision, processes), where a person wants another number than declared
    generation: int = 0  # grows by one with each accepted event; travels on every effect

    def on(self, branch: str) -> Candidate:
        """The candidate of a branch; raises IllegalMove when there is none."""
        for candidate in self.candidates:
            if candidate.branch == branch:
                return candidate
        raise IllegalMove("it has no candidate", event="that", subject=branch)

    def owner(self, revision: str) -> Candidate | None:
        """The candidate whose judged commit that is, those that have not ended first: a fix that was absorbed has the
        commit of its challenger, and is no more.
        """
        mine = [each for each in self.candidates if each.revision == revision]
        alive = [each for each in mine if each.phase in OPEN or each.phase is Phase.LIVE]
        return next(reversed(alive or mine), None)

    def instances_of(self, revision: str, declared: int) -> int:
        """How many processes a revision is to have in production."""
        return dict(self.scales).get(revision, declared)

    def line(self, major: int) -> Line:
        """The line of a major, without history when nothing of it serves."""
        return next((line for line in self.lines if line.major == major), Line(major))

    def may_have(self, major: int) -> bool:
        """Whether a candidate can be for a major: it serves, it follows the newest, or nothing serves yet."""
        majors = [line.major for line in self.lines]
        return not majors or major in majors or major == max(majors) + 1

    def with_candidate(self, *changed: Candidate) -> Service:
        """This service, with candidates of known branches in the place of the old ones."""
        new = {candidate.branch: candidate for candidate in changed}
        return replace(self, candidates=tuple(new.get(old.branch, old) for old in self.candidates))

    def with_line(self, line: Line) -> Service:
        """This service with one line changed; a line without history is no line."""
        others: Iterable[Line] = (old for old in self.lines if old.major != line.major)
        lines = [*others, line] if line.history else [*others]
        return replace(self, lines=tuple(sorted(lines, key=lambda each: each.major)))

    def under_test(self, major: int) -> tuple[Candidate, ...]:
        """The challengers that hold a slot of a line."""
        return tuple(each for each in self.candidates if each.has_slot and each.line == major)
