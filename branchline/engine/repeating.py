"""This file counts how often what is to be tested was tried before, unchanged: each time spends of the error rate.

Rules. Unchanged is what has the same artifacts, the same code and the same serving: the log of the experiment, comments
and layout, the metric and how traffic is given are no change. Counted is whoever was let into a test, by the history,
so that what was given up half way counts: it had been looked at. The number is recorded with the event that lets it in,
and nobody counts again.
"""

from __future__ import annotations

from collections.abc import Sequence

from branchline.core.revision import Revision
from branchline.core.source import summary
from branchline.engine.preparing import EXPERIMENT_LOG, SERVICE_FILE, spec_at
from branchline.engine.recalling import about
from branchline.engine.replaying import entries_of
from branchline.ports import Ports


def repeats_of(ports: Ports, revision: Revision, closure: Sequence[str]) -> int:
    """How often a revision, or one that differs from it in nothing, was let into a test; it itself may be, too."""
    before = ports.catalog.revisions(revision.service)
    same = [each.commit for each in before if is_same(ports, each, revision, closure)]
    entries = entries_of(ports, revision.service)
    return sum(entry.event == "GatesPassed" for commit in same for entry in about(entries, commit))


def is_same(ports: Ports, one: Revision, other: Revision, closure: Sequence[str]) -> bool:
    """Whether two revisions answer alike, as far as can be told: same artifacts, same serving and same code."""
    if one.artifacts != other.artifacts:
        return False
    changed = ports.repository.changed(one.commit, other.commit, closure)
    mine, others = (spec_at(ports, each.service, each.commit) for each in (one, other))
    if (mine.serving, mine.parameters) != (others.serving, others.parameters):
        return False
    silent = {f"{mine.folder}/{name}" for name in (EXPERIMENT_LOG, SERVICE_FILE)}
    return all(is_same_code(ports, one.commit, other.commit, path) for path in set(changed) - silent)


def is_same_code(ports: Ports, one: str, other: str, path: str) -> bool:
    """Whether a file that differs between two commits is Python that does the same in both."""
    texts = [ports.repository.read(commit, path) for commit in (one, other)]
    return path.endswith(".py") and None not in texts and len({summary(text or b"").whole for text in texts}) == 1
