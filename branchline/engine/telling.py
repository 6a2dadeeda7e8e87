"""This file finds the words of git: what a merge commit says, taken from recorded facts alone.

The same facts give the same bytes, so every retry of a conclusion makes the same commit.
"""

from __future__ import annotations

from branchline.core.revision import Revision
from branchline.core.service import Service
from branchline.core.world import Write
from branchline.ports import Entry, Ports

CAUSES = ("Won", "GatesPassed", "RolledBack", "Breached", "Approved", "Retired", "Kept", "Aborted", "Thawed")


def conclusion_message(ports: Ports, service: Service, step: Write, revision: Revision) -> tuple[Entry, str]:
    """The recorded entry that made the trunk want this revision, and the commit text for it."""
    entries = ports.ledger.history(service.name, limit=200)
    candidate = next((c for c in service.candidates if c.revision == step.revision), None)
    going_back = (
        step.seen is not None and revision.commit in service.line(step.line).history and not _concluding(service, step)
    )
    entry = _cause(entries, candidate.branch if candidate and not going_back else "")
    if going_back:
        title = f"Roll {service.name} back to {revision.version}"
        body = [f"{entry.event}: {entry.because}" if entry.because else entry.event]
    else:
        title = f"Release {revision.name}"
        body = [f"Merges {revision.branch} at {revision.short}, the judged commit."]
        verdict = next((e for e in entries if e.event == "Won" and e.detail.get("branch") == revision.branch), None)
        body.append(
            str(verdict.detail.get("reason") or verdict.because) if verdict else "The first revision of the service."
        )
        for gate in ports.catalog.gates(service.name, revision.commit):
            body.append(f"gate {gate.gate}: {gate.result.value}  {gate.summary}")
    return entry, "\n".join([title, "", *body])


def _concluding(service: Service, step: Write) -> bool:
    return any(c.revision == step.revision and c.phase.value == "concluding" for c in service.candidates)


def _cause(entries: tuple[Entry, ...], branch: str) -> Entry:
    """The newest entry that can have moved the trunk's wish; the newest of all when there is none."""
    for entry in entries:
        if entry.event in CAUSES and (not branch or entry.detail.get("branch", branch) == branch):
            return entry
    return entries[0]
