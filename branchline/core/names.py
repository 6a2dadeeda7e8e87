"""This file says what names look like: services, handles, branches, versions, references.

The branch name is the interface: `experiment--SERVICE--HANDLE` is an experiment, `fix--SERVICE--HANDLE` a fix of the
trunk, `fix--SERVICE--HANDLE--ON` a fix of the challenger `experiment--SERVICE--ON`. Everything else that git would
accept means nothing to Branchline and is no error. What does not match the grammar never reaches a command line
(F8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from branchline.errors import BadName

WORD = r"[a-z0-9]+(?:-[a-z0-9]+)*"
LONGEST = 40
_WORD = re.compile(WORD)
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(?:-([0-9A-Za-z.-]+))?")


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch that is an experiment or a fix; `on` is the experiment branch that a fix was made for."""

    kind: str
    service: str
    handle: str
    on: str = ""

    @property
    def name(self) -> str:
        """The name git knows it by."""
        return "--".join([self.kind, self.service, self.handle, *([self.on.rsplit("--", 1)[1]] if self.on else [])])


def dossiers(service: str) -> str:
    """The ref that keeps the dossiers of a service."""
    return f"refs/branchline/dossiers/{service}"


def is_word(text: str) -> bool:
    """Whether the text can name a service or a handle: `[a-z0-9]+(-[a-z0-9]+)*`, at most 40 characters."""
    return len(text) <= LONGEST and _WORD.fullmatch(text) is not None


def checked(what: str, name: str) -> str:
    """Return the name, or raise `BadName` when it is none."""
    if not is_word(name):
        raise BadName(what=what, name=name)
    return name


def branch(name: str) -> Branch | None:
    """Read a branch name; None when it is nothing that Branchline delivers."""
    kind, *words = name.split("--")
    if not all(is_word(word) for word in words):
        return None
    if kind == "experiment" and len(words) == 2:
        return Branch(kind, words[0], words[1])
    if kind == "fix" and len(words) == 2:
        return Branch(kind, words[0], words[1])
    if kind == "fix" and len(words) == 3:
        return Branch(kind, words[0], words[1], experiment(words[0], words[2]))
    return None


def experiment(service: str, handle: str) -> str:
    """The branch of an experiment (1.24)."""
    return f"experiment--{checked('service', service)}--{checked('handle', handle)}"


def handle_from(person: str) -> str:
    """Make a handle of a person's name or address as well as it goes; '' when nothing is left."""
    words = re.findall(r"[a-z0-9]+", person.split("@")[0].lower())
    return "-".join(words)[:LONGEST].rstrip("-")


def counted(number: int, noun: str, plural: str = "s") -> str:
    """A number of things as people say it: `no branches`, `1 branch`, `2 branches`."""
    return f"{f'{number:,}' if number else 'no'} {noun}{'' if number == 1 else plural}"


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version; `pre` is '' for a final one (semver.org 2.0.0)."""

    major: int
    minor: int
    patch: int
    pre: str = ""

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" + (f"-{self.pre}" if self.pre else "")


def version(text: str) -> Version | None:
    """Read a version; None when it is none."""
    found = _VERSION.fullmatch(text)
    return Version(int(found[1]), int(found[2]), int(found[3]), found[4] or "") if found else None


def following(taken: list[Version], bump: str, line: int = 0, after: str = "") -> Version:
    """The version after those that are taken: `bump` is major, minor or patch, `line` the major it belongs to (0:
    newest).

    The first of a line is LINE.0.0. A patch follows the patches of the version `after` that it mends, or without one
    the newest final version of its line.
    """
    finals = [v for v in taken if not v.pre]
    newest_line = max((v.major for v in finals), default=0)
    if bump == "major":
        return Version(newest_line + 1, 0, 0)
    mine = [v for v in finals if v.major == (line or newest_line)]
    if not mine:
        return Version(line or 1, 0, 0)
    newest = max(mine)
    if bump == "patch":
        mended = version(after) or newest
        newest = max((v for v in mine if (v.major, v.minor) == (mended.major, mended.minor)), default=newest)
        return Version(newest.major, newest.minor, newest.patch + 1)
    return Version(newest.major, newest.minor + 1, 0)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a person wrote to name a revision: `kind` is service, version, branch, role or commit."""

    service: str
    kind: str
    text: str = ""


def reference(text: str) -> Reference:
    """Read `SERVICE`, `SERVICE@VERSION`, `SERVICE@ROLE`, `SERVICE@BRANCH`, `BRANCH` or a commit.

    Raises BadName for anything else.
    """
    service, at, rest = text.partition("@")
    if not at:
        named = branch(text)
        if named:
            return Reference(named.service, "branch", text)
        if _COMMIT.fullmatch(text) and any(c.isdigit() for c in text):
            return Reference("", "commit", text)
        return Reference(checked("service", text), "service")
    checked("service", service)
    if rest in {"incumbent", "production"}:
        return Reference(service, "role", "incumbent")
    if rest == "challenger":
        return Reference(service, "role", rest)
    if version(rest.removeprefix("v")):
        return Reference(service, "version", rest.removeprefix("v"))
    if branch(rest):
        return Reference(service, "branch", rest)
    if _COMMIT.fullmatch(rest):
        return Reference(service, "commit", rest)
    if is_word(rest):
        return Reference(service, "branch", experiment(service, rest))
    raise BadName(what="reference", name=text)
