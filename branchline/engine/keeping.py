"""This file keeps the dossier of every concluded experiment in git, beside what is kept of its code.

Rules. What is wanted follows from the record: a dossier for each experiment that is concluded, of all that has happened
to it; what is there, from the list that git keeps with them. So a dossier that could not be written is written later,
and one that was written is not written again. A conclusion never waits for it, and fails by nothing in here; parity is
about code and traffic, so what is missing here is told as a trouble of its service.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from branchline.core import dossier_index as index
from branchline.core import names
from branchline.core.codes import understood
from branchline.core.dossier_page import page
from branchline.core.parity import Marks
from branchline.core.revision import Revision
from branchline.core.service import Service
from branchline.engine.admitting import Attempts
from branchline.engine.documenting import Document, Dossiers
from branchline.engine.recording import Recorder
from branchline.engine.replaying import History, states
from branchline.errors import BranchlineError, Fenced, NothingToDo, RefMoved, RemoteUnreachable
from branchline.ports import Ports

KEPT = "dossiers"  # which trouble of a service is told


@dataclass(slots=True)
class Keeping:
    """Keeps dossiers, and reads those that are kept."""

    ports: Ports
    recorder: Recorder
    dossiers: Dossiers
    troubles: dict[tuple[str, str], str]
    _done: dict[str, int] = field(default_factory=dict)  # service -> the generation up to which all of it is kept
    _attempts: dict[str, Attempts] = field(default_factory=dict)

    def look(self, name: str) -> bool:
        """Keep one dossier of a service that is not kept as it is now; says whether there was one.

        What cannot be kept is told, and tried again after a while, longer each time.
        """
        service, now = self.recorder.service(name), self.ports.clock.monotonic()
        attempts = self._attempts.get(name, Attempts())
        if self._done.get(name) == service.generation or now < attempts.again:
            return False
        try:
            done = self._keep(service)
        except (Fenced, RefMoved):
            return True  # something newer is recorded, or was written beside us: look again
        except RemoteUnreachable:
            return False  # our own mirror has it; whoever watches git tells, and it is soon tried again
        except Exception as error:
            found = understood(error)
            attempts.fail(now, f"{found.code}: {found.message}")
            self._attempts[name], self.troubles[name, KEPT] = attempts, attempts.why
            if found is not error:
                raise  # our own bug: it belongs into the log
            return False
        self._attempts.pop(name, None)
        self.troubles.pop((name, KEPT), None)
        if not done:
            self._done[name] = service.generation
        return done

    def _keep(self, service: Service) -> bool:
        """Write the first dossier that is missing or behind; when there is none, what only our own mirror has."""
        name, deposit, stamp = service.name, self.ports.writer.deposit, self.recorder.stamp(service)
        marks, failed = self.ports.repository.marks(), None
        rows = self._rows(name, marks)
        for revision, number, history in self._due(name, rows):
            try:
                document = self.dossiers.of(revision, history)
                files = index.files_of(document, page(document), rows)
            except BranchlineError as error:
                failed = error  # it stops no other one
                continue
            at = next(entry.at for entry, _ in history if entry.number == number)
            deposit(name, files, f"Dossier of {revision.name}\n\n{document['sentence']}\n", at, stamp)
            return True
        ref = names.dossiers(name)
        if marks.mirror.get(ref) != marks.truth.get(ref):
            deposit(name, {}, "", 0.0, stamp)
        if failed:
            raise failed
        return False

    def _due(self, name: str, rows: Sequence[Document]) -> Iterator[tuple[Revision, int, History]]:
        """What is concluded and not kept as it is now, with the number of the last entry about it."""
        known = {row["commit"]: row["entry"] for row in rows}
        built = {each.commit: each for each in self.ports.catalog.revisions(name)}
        try:
            history = states(self.ports, name)
        except NothingToDo:
            return  # another version has recorded it: nobody can tell it any more
        for commit, number in self.dossiers.ended(history):
            if known.get(commit, 0) < number and commit in built:
                yield built[commit], number, history

    def _rows(self, name: str, marks: Marks) -> list[Document]:
        tip = marks.mirror.get(names.dossiers(name))
        return index.rows_of(self.ports.repository.read(tip, index.ROWS)) if tip else []

    # ------------------------------------------------------------------------------------------ reading

    def dossier(self, reference: str) -> Document:
        """The dossier of an experiment: as it is kept, unless more has happened to it since; else as it is made now.

        It is kept soon after the verdict. Of a request that was under way then the gateway tells when it has ended, so
        what is made later may count one more: what was told once stays as it is.
        """
        return self._kept(self.dossiers.desk.revision(reference)) or self.dossiers.dossier(reference)

    def _kept(self, revision: Revision) -> Document | None:
        name = revision.service
        tip = self.ports.repository.marks().mirror.get(names.dossiers(name))
        last = dict(self.dossiers.ended(states(self.ports, name))).get(revision.commit)
        if tip is None or last is None:
            return None
        return index.document_of(
            self.ports.repository.read(tip, index.file_of(revision.version)), revision.commit, last
        )

    def listed(self, service: str = "") -> Document:
        """What is kept of a service, or of all of them, the newest verdict first."""
        marks = self.ports.repository.marks()
        services = [service] if service else self.ports.ledger.services()
        return index.listed(row for name in services for row in self._rows(name, marks))
