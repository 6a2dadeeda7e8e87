"""This file finds where something came from and what came of it: of a request, a revision, data, or a result.

Backwards, a request id leads to the revision that answered, and a revision to all that it was made of. Forwards, the
digest of a data version or of a result leads to every result and revision that it went into. Reading changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from branchline.core.lineage import Edge, Lineage, Node, backwards, data_node, forwards, joined, revision_id
from branchline.core.revision import Revision, StepRun
from branchline.core.tracking import MOST, Query, Run
from branchline.engine.asking import Desk
from branchline.engine.reading import moment
from branchline.errors import BadName, UnknownReference, UnknownService
from branchline.ports import Ports, Request

Document = dict[str, Any]
DIGEST = re.compile("[0-9a-f]{6,64}")  # how one begins
LOOKED = 20  # runs of a commit among which a step that ran is looked for


@dataclass(slots=True)
class Tracing:
    """Follows what was made of what."""

    ports: Ports
    desk: Desk

    def lineage(self, reference: str) -> Document:
        """The graph of a request id, a revision, a data version's digest or an artifact (or how one of these begins).

        Raises UnknownReference for what is none of them, and for a digest that begins two.
        """
        found = self._revision(reference) or self._request(reference) or self._digest(reference)
        if found is None:
            cause = "nor is it a request that is on record, or how the digest of data or of a result begins"
            raise UnknownReference(cause, reference=reference)
        return {"schema": "branchline.lineage/1", "of": reference, **asdict(found)}

    def _revision(self, reference: str) -> Lineage | None:
        try:
            return joined(self._backwards(self.desk.revision(reference)))
        except (BadName, UnknownReference, UnknownService):
            return None

    def _request(self, reference: str) -> Lineage | None:
        """Requests of a test are on record for good; the others, and who stepped in, while the gateway's logs last."""
        known = (self.ports.observations.request(name, reference) for name in self.ports.ledger.services())
        found = next(filter(None, known), None)
        if found is None or found.bad:
            served = self.ports.meter.find(reference)
            if served:
                commit = served.answered or served.assigned
                found = Request(served.service, served.unit, served.request, commit, served.bad, served.at)
        if found is None:
            return None
        revision = self.ports.catalog.revision(found.service, found.commit)
        return joined(of_request(found, revision), self._backwards(revision))

    def _digest(self, reference: str) -> Lineage | None:
        """What was made of the one data version or result whose digest begins so."""
        if not DIGEST.fullmatch(reference):
            return None
        services = self.ports.ledger.services()
        revisions = [each for service in services for each in self.ports.catalog.revisions(service)]
        runs = [
            self.ports.catalog.numbered(each.number)
            for service in services
            for each in self.ports.catalog.runs(Query(service, limit=MOST))
        ]
        known = dict(digests(revisions, runs))
        meant = sorted(digest for digest in known if digest.startswith(reference))
        if len(meant) > 1:
            raise UnknownReference("it begins " + ", ".join(each[:16] for each in meant), reference=reference)
        if not meant:
            return None
        return joined([known[meant[0]]], forwards(meant[0], runs, revisions))

    def _backwards(self, revision: Revision) -> Iterator[Node | Edge]:
        """What a revision was made of. A step is told by the run that knows what its key was made of."""
        catalog = self.ports.catalog
        told: dict[tuple[str, str], StepRun] = {}
        for run in catalog.runs(Query(revision.service, commit=revision.commit, limit=LOOKED)):
            for step in catalog.numbered(run.number).steps:
                known = told.get((step.step, step.item))
                if step.artifact and (known is None or not known.lines):
                    told[step.step, step.item] = step
        return backwards(revision, tuple(told.values()), catalog.gates(revision.service, revision.commit))


def of_request(request: Request, revision: Revision) -> Iterator[Node | Edge]:
    """One answer that was given, and by whom."""
    mine = f"request {request.request}"
    told = (("unit", request.unit), ("at", moment(request.at)), ("failed", "yes" if request.bad else ""))
    yield Node("request", mine, f"request {request.request}", tuple(each for each in told if each[1]))
    yield Edge(mine, "answered by", revision_id(revision))


def digests(revisions: Iterable[Revision], runs: Iterable[Run]) -> Iterator[tuple[str, Node]]:
    """Every data version and result that is on record, by its digest."""
    for run in runs:
        for step in run.steps:
            yield step.artifact, Node("artifact", f"artifact {step.artifact}", step.step)
            for line in step.lines:
                if line.name.startswith("data "):
                    yield line.hash, data_node(line.name.removeprefix("data "), line.hash)
    for revision in revisions:
        yield from ((digest, data_node(source, digest)) for source, digest in revision.data)
        yield from ((each, Node("artifact", f"artifact {each}", step)) for step, each in revision.artifacts)
