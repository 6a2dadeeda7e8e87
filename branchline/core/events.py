"""This file names everything that can happen to a service: by a builder, by evidence, by people, by the clock, by git.

Rules: an event is a fact and carries its verdict in its type. Facts that the law cannot know (a tip, whether it
contains what its base is now, why somebody said no) ride on the event. Every field survives JSON (`core.records`).
"""

from __future__ import annotations

from dataclasses import dataclass

from branchline.core.service import Method


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a service."""


@dataclass(frozen=True, slots=True)
class BranchEvent(Event):
    """Something that happened to the candidate of a branch."""

    branch: str


@dataclass(frozen=True, slots=True)
class Opened(BranchEvent):
    """A branch was begun: by a person, by `fix`, by `sync` of a branch under test, by new data."""

    tip: str
    method: Method = Method.AB_TEST
    base: str | None = None  # the branch of the challenger to fix; None: the trunk
    line: int = 1
    synced: bool = False  # its code contains the judged commit of that challenger
    outdated: bool = False  # its code was made from something else than the incumbent: it begins (or stays) behind


@dataclass(frozen=True, slots=True)
class Pushed(BranchEvent):
    """A commit, a force-push, or a sync (synced: it contains what its base is now)."""

    tip: str
    synced: bool = False
    outdated: bool = False  # a fix of a challenger contains that one, but no more of the incumbent than it does


@dataclass(frozen=True, slots=True)
class Built(BranchEvent):
    """The steps of the build are done, and what its file says of itself is known."""

    line: int = 0  # the major that it is for; 0: the one it was opened for
    method: Method | None = None  # None: as it was opened
    synced: bool = False  # for another line than before: it contains that one's incumbent


@dataclass(frozen=True, slots=True)
class BuildFailed(BranchEvent):
    """A step of the build failed."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class GatesPassed(BranchEvent):
    """All gates passed; the share it declares is frozen now (0: an even one among the slots)."""

    share: int = 0
    repeats: int = 0  # how often the same was let into a test before


@dataclass(frozen=True, slots=True)
class GatesFailed(BranchEvent):
    """A gate said no."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Won(BranchEvent):
    """The verdict is the challenger, or the canary passed (reason "unproven": no breach, and the wait is over)."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Lost(BranchEvent):
    """The verdict is the incumbent."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Undecided(BranchEvent):
    """There is no verdict, and there will be none."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Overrode(BranchEvent):
    """A person ends the test in the verdict's place, before it or against it: for `side` (challenger, incumbent or
    nobody), and answers for it by name and reason; `said` is what the evidence said by then.
    """

    side: str
    reason: str
    by: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Extended(BranchEvent):
    """A person wants to measure longer; the evidence is kept."""


@dataclass(frozen=True, slots=True)
class Breached(BranchEvent):
    """A guardrail says that it does harm."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Aborted(BranchEvent):
    """A person takes it out of evaluation or out of traffic, now."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Withdrew(BranchEvent):
    """A person closed it or deleted its branch."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Approved(BranchEvent):
    """A person lets it go on."""


@dataclass(frozen=True, slots=True)
class Kept(BranchEvent):
    """`sync --keep`: the judged tree replaces its base as it is."""


@dataclass(frozen=True, slots=True)
class Ramped(BranchEvent):
    """It gets another share: a person says so, or the evidence allows for it on a harm budget."""

    share: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Recorded(BranchEvent):
    """Observed: git has what the conclusion wanted there."""

    tip: str = ""  # of the challenger's branch, seen with its fix in it; "": the fix itself


@dataclass(frozen=True, slots=True)
class Refused(BranchEvent):
    """Observed: git would not ("remote", "permission", "foreign", "checked out", ...)."""

    reason: str = "remote"


@dataclass(frozen=True, slots=True)
class LineEvent(Event):
    """Something that happened to a line of a service."""

    line: int = 1


@dataclass(frozen=True, slots=True)
class RolledBack(LineEvent):
    """After its conclusion an incumbent goes, by a person or by a guardrail; the one before serves again."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cooled(LineEvent):
    """The time to keep the previous incumbent running is over."""


@dataclass(frozen=True, slots=True)
class Retired(LineEvent):
    """A person ends a line; another one lives."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Frozen(Event):
    """Nobody goes on until thawed; who serves goes on serving."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Thawed(Event):
    """The freeze is over."""


@dataclass(frozen=True, slots=True)
class Scaled(Event):
    """A person wants a revision to have that many processes in production, whatever its file says (1.20)."""

    revision: str
    instances: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Configured(Event):
    """The trunk's service file now says this of the service itself."""

    slots: int = 1
    slice: int = 10
    approval: str = ""
