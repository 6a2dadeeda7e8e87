"""This file decides whether a step's result may be reused, and says why not.

Two stages, as ccache's manifests and the verifying traces of Mokhov, Mitchell and Peyton Jones, "Build systems à la
carte" (ICFP 2018). All that is known before a step runs are *lines*, a name and a hash each, and their digest is the
step's key. What a run meets besides are *facts*, each with the value that it had. A result is reused when its key is
the same and every fact still has its value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

NOTHING = "nothing of it was built before"
# What is said of a fact that does not hold: how the run met it.
MET = {
    "file": "read while it ran",
    "listing": "listed while it ran",
    "stat": "looked at while it ran",
    "module": "imported while it ran",
    "ran": "ran",
}
DOES = {"file": "reads", "listing": "lists", "stat": "looks at", "module": "imports", "ran": "runs"}
ABSENT, FOLDER = "absent", "folder"  # the values of what a run looked for and did not find, and of a folder
NAMED = 3  # of each kind, where facts are told
ORDER = {"changed": 0, "new": 1, "gone": 2}


@dataclass(frozen=True, slots=True)
class Line:
    """One part of a key: `name` is a kind and what it is of (`code features:scale`, `input clean`, `parameter seed`,
    `data sales`, `variable BATCH`, `environment`); `where` is a place as `features.py:14`, `via` how it was reached.
    """

    name: str
    hash: str
    where: str = ""
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """What a run met besides its key: `kind` is file, listing, stat, module or ran; `name` is a path from the
    repository's root, a module, or `module:qualname`.
    """

    kind: str
    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """One result that is kept under a key: what a run left, and the facts that guard it."""

    artifact: str
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """What a person should know of a build, BL301 to BL311; one that `refuses` makes the step run every time."""

    code: str
    text: str
    where: str = ""
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One line that two keys do not share: changed, new or gone."""

    what: str
    line: Line


def key(lines: Iterable[Line]) -> str:
    """The digest of what is known before a step runs: names and hashes in the order of names, never places or ways."""
    text = "".join(f"{len(name)}:{name}{len(value)}:{value}" for name, value in sorted((x.name, x.hash) for x in lines))
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def held(trace: Trace, value_of: Callable[[str, str], str]) -> Fact | None:
    """The first fact of a trace that has another value now (with the value it had), None when all still hold."""
    return next((fact for fact in trace.facts if value_of(fact.kind, fact.name) != fact.value), None)


def changes(before: Iterable[Line], now: Iterable[Line]) -> tuple[Change, ...]:
    """What is in one key and not in the other, nearest to the step first.

    A line that only sums up others (`whole models`, `effects plugs`) is left out when one of those says it better.
    """
    old = {line.name: line for line in before}
    new = {line.name: line for line in now}
    found = []
    for name in sorted({*old, *new}):
        line, was = new.get(name), old.get(name)
        if line is None or was is None or line.hash != was.hash:
            what = "gone" if line is None else "new" if was is None else "changed"
            found.append(Change(what, line or old[name]))
    said = {each.line.name.partition(" ")[2].partition(":")[0] for each in found if each.line.name.startswith("code ")}
    rest = (each for each in found if _kind(each) not in {"whole", "effects"} or _named(each) not in said)
    return tuple(sorted(rest, key=lambda each: (ORDER[each.what], len(each.line.via), each.line.name)))


def explained(before: Iterable[Line] | None, now: Iterable[Line], broken: Fact | None = None) -> tuple[str, ...]:
    """Why a step must run, line by line, against the lines of before, if any: what changed, where, and how the step
    reaches it; () when nothing did.
    """
    if before is None:
        return (NOTHING,)
    found = changes(before, now)
    rows = [(_place(each), each.line.name, each.what, " > ".join(each.line.via)) for each in found]
    if broken is not None:
        rows.append((broken.name.partition(":")[0], f"{broken.kind} {broken.name}", "changed", MET[broken.kind]))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    return tuple("  ".join(map(str.ljust, row, (*widths, 0))).rstrip() for row in rows)


def one_line(before: Iterable[Line] | None, now: Iterable[Line], broken: Fact | None = None) -> str:
    """The same in one line: the nearest change, and how many there are besides."""
    if before is None:
        return NOTHING
    found = changes(before, now)
    if not found:
        return f"changed: {broken.name} ({MET[broken.kind]})" if broken else "nothing changed"
    first = found[0]
    name = first.line.name.removeprefix("code ").removeprefix("file ")
    place = f" ({first.line.where})" if first.line.where not in {"", name} else ""
    way = f", via {' > '.join(first.line.via)}" if len(first.line.via) > 1 else ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{first.what}: {name}{place}{way}{more}"


def guarding(step: str, facts: Iterable[Fact], before: Iterable[Fact]) -> Notice | None:
    """BL308: what a run found besides its key that its run before did not; None when there is nothing new."""
    known = {(fact.kind, fact.name) for fact in before}
    new: dict[str, list[str]] = {}
    for fact in facts:
        if fact.value not in (ABSENT, FOLDER) and (fact.kind, fact.name) not in known:
            new.setdefault(fact.kind, []).append(fact.name)
    if not new:
        return None
    told = []
    for kind, names in new.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        told.append(f"{DOES[kind]} {', '.join(f'`{name}`' for name in names[:NAMED])}{more}")
    return Notice("BL308", f"`{step}` also {', '.join(told)}: a change of that will run it again")


def _kind(change: Change) -> str:
    return change.line.name.partition(" ")[0]


def _named(change: Change) -> str:
    return change.line.name.partition(" ")[2]


def _place(change: Change) -> str:
    return change.line.where or "-"
