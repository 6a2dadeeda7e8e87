"""This file finds what a merge commit says, and whether its tree was to be kept, from recorded facts alone.

The same facts give the same bytes, so every retry of a conclusion makes the same commit.
"""

from __future__ import annotations

from collections.abc import Sequence

from branchline.core import names
from branchline.core.revision import Revision
from branchline.core.service import OPEN, Candidate, Phase, Service
from branchline.core.world import Write
from branchline.ports import Entry, Ports

FORWARD = (
    "Won",
    "Overrode",
    "GatesPassed",
    "Approved",
    "Kept",
)  # none of them can happen to who is concluding: it stays the same
DECIDED = ("Won", "Overrode")
BEGIN = ("Opened", "Pushed", "Extended")
BACK = ("RolledBack", "Breached", "Aborted", "Withdrew", "Retired")


def conclusion_message(ports: Ports, service: Service, step: Write, revision: Revision) -> tuple[Entry, str, str]:
    """The recorded entry that made the trunk want this revision, the commit text for it, and where the dossier of the
    verdict is kept.
    """
    entries, dossier = ports.ledger.history(service.name, limit=200), ""
    taker = next((c for c in service.candidates if (c.revision, c.phase) == (step.revision, Phase.CONCLUDING)), None)
    if taker is None and is_by_hand(service, step, entries):
        entry = _cause(entries, ("Recorded", "Restored"), "")
        title = f"Show {revision.name} again"
        body = [f"{step.ref} was made to show {step.seen:.7} by hand. Only a verdict changes what serves."]
    elif taker is None and step.seen is not None and revision.commit in service.line(step.line).history:
        entry = _cause(entries, BACK, "")
        title = f"Roll {service.name} back to {revision.version}"
        body = [f"{entry.event}: {reason_of(entry)}" if reason_of(entry) else entry.event]
    else:
        branch = taker.branch if taker else revision.branch
        entry = _cause(entries, FORWARD, branch)
        title = f"Release {revision.name}"
        body = [f"Merges {branch} at {revision.short}, the judged commit."]
        verdict = next((e for e in entries if e.event in DECIDED and e.detail.get("branch") == branch), None)
        body.append(verdict_text(verdict) if verdict else "The first revision of the service.")
        if verdict:
            dossier = f"{names.dossiers(service.name)}:{revision.version}.html"
            body.append(f"dossier: branchline dossier {revision.name}")
        for gate in ports.catalog.gates(service.name, revision.commit):
            body.append(f"gate {gate.gate}: {gate.result.value}  {gate.summary}")
    return entry, "\n".join([title, "", *body]), dossier


def is_by_hand(service: Service, step: Write, entries: Sequence[Entry]) -> bool:
    """Whether somebody made a trunk show what no verdict has brought there: an incumbent of before, or who is tried.

    A winner that was taken back while git was being told is none of these: the push that landed late was our own.
    """
    tried = {each.revision for each in service.candidates if each.phase in OPEN and not _had_won(each, entries)}
    return step.seen in tried | {*service.line(step.line).history} - {step.revision}


def _had_won(candidate: Candidate, entries: Sequence[Entry]) -> bool:
    """Whether the attempt that a person or a guardrail ended had its verdict already."""
    mine = [e.event for e in entries if e.detail.get("branch") == candidate.branch]
    begun = next((at for at, event in enumerate(mine) if event in BEGIN), len(mine))
    return candidate.phase is Phase.ROLLED_BACK and not set(DECIDED).isdisjoint(mine[:begun])


def was_kept(ports: Ports, service: Service, candidate: Candidate) -> bool:
    """Whether a person said of this very try that its tree replaces the base as it is."""
    for entry in ports.ledger.history(service.name, limit=200):
        if entry.detail.get("branch") != candidate.branch:
            continue
        if entry.event == "Kept":
            return True
        if entry.event in ("Opened", "Pushed"):
            return False
    return False


def verdict_text(entry: Entry) -> str:
    """A verdict as a merge commit has it; of a person's word in its place also whose that is, and what was known."""
    if entry.event != "Overrode":
        return reason_of(entry)
    side, said = override_of(entry).values()
    whom = side if side == "nobody" else f"the {side}"
    evidence = said or "nothing was measured"
    return f"OVERRIDE for {whom} by {entry.actor}: {reason_of(entry)}\n  the evidence by then: {evidence}"


def override_of(entry: Entry) -> dict[str, str]:
    """For whom a person decided in the verdict's place, and the evidence as it was recorded then; {} of all else."""
    if entry.event != "Overrode":
        return {}
    return {"side": str(entry.detail["side"]), "said": str(entry.detail.get("said", ""))}


def reason_of(entry: Entry) -> str:
    """Why it happened, in the words it was recorded with."""
    return str(entry.detail.get("reason") or entry.because)


def _cause(entries: tuple[Entry, ...], kinds: tuple[str, ...], branch: str) -> Entry:
    """The newest entry of these kinds, of a branch if it is named; the newest of all when there is none."""
    told = (e for e in entries if e.event in kinds and branch in ("", e.detail.get("branch")))
    return next(told, entries[0])
