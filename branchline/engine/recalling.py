"""This file recalls what became of a revision: why it was built as it was, what its gates said, what was decided.

A branch's name may be used again and again: what happened is therefore told of a commit, by the events that were about
that very one. Reading changes nothing.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from branchline.core.revision import GateResult, Result, Revision, StepRun
from branchline.core.schema import read as read_schema
from branchline.core.tracking import MOST, Query, as_made
from branchline.engine.asking import Desk, did_you_mean
from branchline.engine.observing import Observer
from branchline.engine.preparing import EXPERIMENT_LOG, spec_at
from branchline.engine.reading import moment
from branchline.engine.telling import override_of, reason_of
from branchline.engine.tracking import is_number, metrics_of
from branchline.errors import NothingToDo, UnknownService
from branchline.ports import Entry, Ports

Document = dict[str, Any]
FAR = 1000  # events that are looked through
COMMITS = 200  # commits of release notes
TAIL = 20  # lines of what failed
HYPOTHESIS = re.compile(r"^#+ *hypothesis *$(.*?)(?=^#|\Z)", re.IGNORECASE | re.MULTILINE | re.DOTALL)
BUILT = ("Built", "BuildFailed")
VERDICTS = ("Won", "Lost", "Undecided", "Overrode", "Breached", "Aborted", "Withdrew")


@dataclass(slots=True)
class Memory:
    """Recalls for people and programs."""

    ports: Ports
    desk: Desk
    observer: Observer

    def revision(self, reference: str) -> Document:
        """One revision with its gates and steps (1.09, 1.16)."""
        revision = self.desk.revision(reference)
        gates = self.ports.catalog.gates(revision.service, revision.commit)
        runs = self.ports.catalog.run(revision.service, revision.commit)
        return {
            "schema": "branchline.revision/1",
            **{k: v for k, v in asdict(revision).items() if k not in ("spec", "artifacts", "data", "schema")},
            "built": moment(revision.built),
            "interface": read_schema(revision.schema),
            "name": revision.name,
            "artifacts": dict(revision.artifacts),
            "data": dict(revision.data),
            "metrics": metrics_of(runs),
            "gates": gate_documents(gates),
            "steps": [step_document(run) for run in runs],
        }

    def why(self, reference: str, step: str = "") -> Document:
        """Why each step of a revision ran or was reused, what its gates found, and what became of it.

        A revision's step that reuses what an earlier run of its commit left is told as that run was: new data is tried
        before it has a branch. Of a step that is named also what its key was made of, and the facts that guard its
        result. A gate that did not pass has the last lines of what it printed. A run by its number is told as it was,
        alone. Raises NothingToDo for a step it does not have.
        """
        alone = is_number(reference)
        service, commit, runs = self._run(int(reference)) if alone else self._newest(reference)
        if step and not any(step in (run.step, run.name) for run in runs):
            known = list(dict.fromkeys(run.step for run in runs))
            raise NothingToDo(did_you_mean(step, known), what=f"{reference} has no step {step!r}")
        gates = () if step or alone else self.ports.catalog.gates(service, commit)
        events = () if step or alone else self._happened(service, commit)
        return {
            "schema": "branchline.why/1",
            "service": service,
            "commit": commit,
            "version": self._version(service, commit),
            "steps": [step_document(run, whole=bool(step)) for run in runs if step in ("", run.step, run.name)],
            "gates": [told | {"said": self._said(told)} for told in gate_documents(gates)],
            "events": [event_document(each) for each in events],
        }

    def log(self, reference: str, lines: int = 40) -> Document:
        """The last lines of a revision's instances, or of what was built and checked of it; of a run its steps'."""
        if is_number(reference):
            service, _, runs = self._run(int(reference))
            printed = [(run, text_of(self.ports, run.log, lines)) for run in runs if run.log]
            logs = [{"name": run.name, "state": run.state, "text": text} for run, text in printed]
            return {"schema": "branchline.logs/1", "service": service, "logs": logs}
        service, commit = self.desk.meant(reference)
        instances = [i for i in self.ports.launcher.instances() if (i.service, i.revision) == (service, commit)]
        logs = [
            {
                "name": f"{i.version} {i.perimeter} {i.nonce}",
                "state": i.state,
                "text": self.ports.launcher.log(i.nonce, lines),
            }
            for i in instances
        ]
        return {
            "schema": "branchline.logs/1",
            "service": service,
            "logs": [*logs, *self._evaluated(service, commit, lines)],
        }

    def notes(self, reference: str) -> Document:
        """What a release brings: the commits since what it replaced, its hypothesis, gates and verdict (3.10)."""
        revision = self.desk.revision(reference)
        before = self._replaced(revision)
        closure = self.observer.closure(revision.service, (revision.commit,))
        log = self.ports.repository.log
        commits = log(before.commit if before else "", revision.commit, closure, limit=COMMITS)
        events = self._happened(revision.service, revision.commit)
        verdict = next((each for each in reversed(events) if each.event in VERDICTS), None)
        return {
            "schema": "branchline.notes/1",
            "service": revision.service,
            "version": revision.version,
            "commit": revision.commit,
            "branch": revision.branch,
            "author": revision.author,
            "built": moment(revision.built),
            "replaces": {"version": before.version, "commit": before.commit} if before else None,
            "hypothesis": hypothesis_of(self.ports, revision.service, revision.commit, before.commit if before else ""),
            "commits": [dict(each) for each in commits],
            "gates": gate_documents(self.ports.catalog.gates(revision.service, revision.commit)),
            "verdict": event_document(verdict) if verdict else None,
        }

    def _run(self, number: int) -> tuple[str, str, tuple[StepRun, ...]]:
        """A run's service and commit, and what became of its steps."""
        run = self.ports.catalog.numbered(number)
        return run.service, run.commit, run.steps

    def _newest(self, reference: str) -> tuple[str, str, tuple[StepRun, ...]]:
        """The same of the newest run of what a reference means; a revision's as they were made."""
        service, commit = self._built(reference)
        runs = self.ports.catalog.run(service, commit)
        if not self._version(service, commit):
            return service, commit, runs
        return service, commit, as_made(runs, self.ports.catalog.runs(Query(service, commit=commit, limit=MOST)))

    def _built(self, reference: str) -> tuple[str, str]:
        """What a reference means; a service that was never deployed means what was run of it last."""
        try:
            return self.desk.meant(reference)
        except UnknownService:
            newest = self.ports.catalog.runs(Query(service=reference, limit=1))
            if not newest:
                raise
            return reference, newest[0].commit

    def _version(self, service: str, commit: str) -> str:
        return next((each.version for each in self.ports.catalog.revisions(service) if each.commit == commit), "")

    def _said(self, gate: Document) -> str:
        failed = gate["log"] and gate["result"] != Result.PASS.value
        return text_of(self.ports, gate["log"], TAIL) if failed else ""

    def _happened(self, service: str, commit: str) -> tuple[Entry, ...]:
        return tuple(about(self.ports.ledger.history(service, limit=FAR)[::-1], commit))

    def _evaluated(self, service: str, commit: str, lines: int) -> Iterator[Document]:
        """What was said of a commit that could not be built or started, and what its gates printed."""
        gates = self.ports.catalog.gates(service, commit)
        for entry in self._happened(service, commit)[-1:]:
            if entry.event == "BuildFailed" or (entry.event == "GatesFailed" and not gates):
                name = "build" if entry.event == "BuildFailed" else "start"
                yield {"name": f"{commit[:7]} {name}", "state": "failed", "text": str(entry.detail["reason"])}
        for gate in gates:
            if gate.log:
                text = text_of(self.ports, gate.log, lines)
                yield {"name": f"{commit[:7]} gate {gate.gate}", "state": gate.result.value, "text": text}

    def _replaced(self, revision: Revision) -> Revision | None:
        """What it replaced as incumbent; of what never was one, what serves now. None for the first."""
        lines = self.ports.ledger.service(revision.service).lines
        mine = [line for line in lines if revision.commit in line.history] or lines[-1:]
        before = [commit for line in mine for commit in line.history]
        if revision.commit in before:
            before = before[: before.index(revision.commit)]
        return self.ports.catalog.revision(revision.service, before[-1]) if before else None


def hypothesis_of(ports: Ports, service: str, commit: str, before: str) -> str:
    """The section of that name in the log of the experiment; '' where there is none, or only that of the commit before
    ('': there was none).
    """
    path = f"{spec_at(ports, service, commit).folder}/{EXPERIMENT_LOG}"
    text = ports.repository.read(commit, path) or b""
    if before and text == ports.repository.read(before, path):
        return ""
    found = HYPOTHESIS.search(text.decode("utf-8", "replace"))
    return found[1].strip() if found else ""


def about(entries: Iterable[Entry], commit: str) -> Iterator[Entry]:
    """The events, oldest first, that were about one commit of a branch."""
    return (entry for whom, entry in attributed(entries) if whom == commit)


def attributed(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry]]:
    """The events, oldest first, each with the commit that it was about, '' for none.

    A push names the next commit; what follows is about the one before until that next one is built, for a challenger
    goes on while its branch does.
    """
    tips: dict[str, str] = {}
    judged: dict[str, str] = {}
    for entry in entries:
        branch, tip = str(entry.detail.get("branch", "")), str(entry.detail.get("tip", ""))
        if entry.event in ("Opened", "Pushed"):
            tips[branch] = tip
        if entry.event == "Opened" or entry.event in BUILT:
            judged[branch] = tips.get(branch, "")
        yield (tip if entry.event in ("Opened", "Pushed") else judged.get(branch, "")), entry


def step_document(run: StepRun, whole: bool = False) -> Document:
    """What became of a step as a document; its key's lines and its facts are hundreds, and part of the `whole` only."""
    document = asdict(run)
    brief = {name: value for name, value in document.items() if name not in ("lines", "facts")}
    return document if whole else brief


def event_document(entry: Entry) -> Document:
    """An event of a revision, with its reason in the words it was recorded with; of an override also for whom it was,
    and the evidence by then.
    """
    told = {"event": entry.event, "at": moment(entry.at), "actor": entry.actor, "reason": reason_of(entry)}
    return told | override_of(entry)


def gate_documents(gates: Sequence[GateResult]) -> list[Document]:
    """Gates with their numbers by name."""
    return [{**asdict(gate), "result": gate.result.value, "numbers": dict(gate.numbers)} for gate in gates]


def text_of(ports: Ports, artifact: str, lines: int) -> str:
    """The last lines of a log that was kept as an artifact; '' when it is not in the store any more."""
    if not ports.artifacts.has(artifact):
        return ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        ports.artifacts.get(artifact, path)
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
