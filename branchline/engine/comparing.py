"""This file says what a branch that is behind was made from, what serves instead, what it lacks, and what helps.

`behind` is compared and never stored (`core.waiting`); here it is put into words for people and programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from branchline.core.lifecycle import PREPARING, RESTING, SERVING
from branchline.core.service import Candidate, Phase, Service
from branchline.core.waiting import behind, replaced
from branchline.core.world import trunk_of
from branchline.engine.observing import Observer
from branchline.errors import UnknownReference
from branchline.ports import Ports

Document = dict[str, Any]
MOST = 50  # commits that are named


def behind_document(ports: Ports, observer: Observer, service: Service, candidate: Candidate) -> Document | None:
    """What a candidate is behind of and the commands that help, the best first; None when it is not behind.

    Of who is under test the paths that a sync would need a person for, too: there are few of those.
    """
    if candidate.phase is Phase.CONCLUDING or not behind(service, candidate):
        return None
    made_from = candidate.holds if candidate.base is None else candidate.onto
    theirs = target_of(observer, service, candidate) if candidate.phase in SERVING else ""
    related = theirs and ports.repository.base(candidate.revision, theirs)
    return {
        "serves": _named(ports, service, replaced(service, candidate)),
        "made_from": _named(ports, service, made_from),
        "conflicts": list(ports.repository.clashes(candidate.revision, theirs)) if related else [],
        "next": [f"branchline {command} {candidate.branch}" for command in ways_out(candidate)],
    }


def ways_out(candidate: Candidate) -> tuple[str, ...]:
    """The commands that bring a candidate up to date: what is inside another's arm cannot take its own over."""
    syncable = candidate.has_slot or candidate.phase in PREPARING | RESTING
    return ("sync", "sync --keep") if syncable else ("sync --keep",)


def told(document: Document | None) -> str:
    """A line for people: who serves now, and what to type; '' for who is not behind."""
    if document is None:
        return ""
    serves = document["serves"]
    whose = f" ({serves['branch']})" if serves["branch"] else ""
    clashes = f", conflict in {', '.join(document['conflicts'])}" if document["conflicts"] else ""
    return f"behind {serves['version'] or serves['commit'][:7]}{whose}{clashes}: {document['next'][0]}"


def lacks(ports: Ports, observer: Observer, service: Service, candidate: Candidate) -> tuple[Mapping[str, str], ...]:
    """The commits of what it would replace that touch the service and are not in its judged commit, newest first."""
    until = target_of(observer, service, candidate)
    closure = observer.closure(service.name, (candidate.revision,))
    return ports.repository.log(candidate.revision, until, closure, limit=MOST) if until else ()


def target_of(observer: Observer, service: Service, candidate: Candidate) -> str:
    """The commit that a sync would merge: the tip of its trunk, or what its challenger holds; '' without a trunk."""
    if candidate.base is not None:
        return service.on(candidate.base).revision
    newest = max((line.major for line in service.lines), default=candidate.line)
    return observer.refs.get(trunk_of(service, candidate.line, newest), "")


def _named(ports: Ports, service: Service, commit: str | None) -> Document:
    """A revision by version, commit and the branch that it came from."""
    try:
        found = ports.catalog.revision(service.name, commit or "")
    except UnknownReference:
        return {"version": "", "commit": commit or "", "branch": ""}
    owner = service.owner(found.commit)
    return {"version": found.version, "commit": found.commit, "branch": owner.branch if owner else found.branch}
