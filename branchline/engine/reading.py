"""This file answers questions: what is where, and what happened.

Answers are plain JSON documents with a schema id; reading changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from branchline.core import lifecycle as law
from branchline.core.dossier import watched_document
from branchline.core.service import Candidate, Phase, Service
from branchline.core.verdict import bad_of
from branchline.core.waiting import waits_for
from branchline.core.world import PRODUCTION, desired, perimeter_of
from branchline.engine.addressing import count_of, leaders
from branchline.engine.asking import Desk
from branchline.engine.comparing import behind_document, told
from branchline.engine.gauging import Gauging
from branchline.engine.judging import Judge
from branchline.engine.measurement import Measurement
from branchline.engine.observing import Observer, Sight, View
from branchline.engine.parity import Parity
from branchline.engine.recording import Recorder
from branchline.ports import Entry, Ports

Document = dict[str, Any]


@dataclass(slots=True)
class Reader:
    """Reads for people and programs."""

    ports: Ports
    recorder: Recorder
    observer: Observer
    judge: Judge
    desk: Desk
    troubles: Mapping[tuple[str, str], str]
    parity: Parity
    gauging: Gauging = field(init=False)

    def __post_init__(self) -> None:
        self.gauging = Gauging(self.ports)

    def status(self, only: str = "") -> Document:
        """Revision by place, each with its branch, share and state (3.25)."""
        known = self.ports.ledger.services()
        chosen = [self.desk.meant(only)[0]] if only else list(known)
        view = self.observer.view(chosen[0] if only else "")
        services = [self.service(name, view) for name in chosen]
        looked_at = chosen if only else {*known, *self.recorder.older}
        drifts = [asdict(drift) for drift in self.parity.drifts(looked_at, view)]
        return {
            "schema": "branchline.status/1",
            "services": services,
            "parity": {"ok": not drifts, "drifts": drifts},
            "remote": {"reachable": self.observer.reachable},
        }

    def service(self, name: str, view: View | None = None) -> Document:
        """One service: its lines, a row for every branch that is open or serves, and its troubles."""
        service = self.recorder.service(name)
        sight = self.observer.production(service, view or self.observer.view(name))
        shares = {revision: share for _, line in sight.world.routes for revision, share in line}
        versions = {r.commit: r.version for r in self.ports.catalog.revisions(name)}
        said = self.ports.ledger.history(name, limit=100) if service.candidates else ()
        rows = [self._incumbent(service, line, shares, versions, sight) for line in service.lines]
        for candidate in service.candidates:
            if candidate.phase in law.OPEN:
                rows.append(self._row(service, candidate, shares, versions, sight, said))
        shown = {row["commit"] for row in rows}
        rows += [
            self._leaving(service, commit, share, versions, sight)
            for commit, share in shares.items()
            if commit not in shown
        ]
        for row in rows:
            row |= self.gauging.document(name, row["version"])
        return {
            "name": name,
            "generation": service.generation,
            "frozen": service.frozen,
            "address": self.ports.router.address(name),
            "rows": rows,
            "troubles": [text for (owner, _), text in sorted(self.troubles.items()) if owner == name],
        }

    def _incumbent(
        self, service: Service, line: law.Line, shares: Mapping[str, int], versions: Mapping[str, str], sight: Sight
    ) -> Document:
        commit = line.incumbent or ""
        trunks = {revision: ref for ref, revision in desired(service).trunks}
        owner = service.owner(commit)
        return {
            "branch": trunks.get(commit, service.default),
            "commit": commit,
            "version": versions.get(commit, ""),
            "perimeter": PRODUCTION,
            "share": shares.get(commit, 0),
            "state": "incumbent",
            "phase": Phase.LIVE.value,
            "detail": "; ".join(filter(None, ("the one before is warm" if line.warm else "", told_override(owner)))),
            "override": owner.overridden if owner else "",
            **standing(service, sight, commit, PRODUCTION),
            "address": self.ports.router.address(service.name, older(service, line)),
            "line": line.major,
        }

    def _leaving(
        self, service: Service, commit: str, share: int, versions: Mapping[str, str], sight: Sight
    ) -> Document:
        """Who still has traffic although nothing recorded wants it: what replaces it is not up yet."""
        return {
            "branch": "",
            "commit": commit,
            "version": versions.get(commit, ""),
            "perimeter": PRODUCTION,
            "share": share,
            "state": "leaving",
            "phase": "",
            "detail": "serves until what follows it is up",
            **standing(service, sight, commit, PRODUCTION),
            "address": "",
            "line": 0,
        }

    def _row(
        self,
        service: Service,
        candidate: Candidate,
        shares: Mapping[str, int],
        versions: Mapping[str, str],
        sight: Sight,
        said: Sequence[Entry],
    ) -> Document:
        perimeter = perimeter_of(candidate)
        version = versions.get(candidate.revision, "")
        waits = waits_for(service, candidate)
        behind = behind_document(self.ports, self.observer, service, candidate)
        return {
            "branch": candidate.branch,
            "commit": candidate.revision,
            "version": version,
            "perimeter": perimeter,
            "share": shares.get(candidate.revision, 0),
            "state": candidate.phase.value,
            "phase": candidate.phase.value,
            "waits_for": waits,
            "behind": behind,
            "detail": "; ".join(
                filter(None, (self._detail(service, candidate, waits, said), told(behind), told_override(candidate)))
            ),
            "override": candidate.overridden,
            **standing(service, sight, candidate.revision, perimeter),
            "address": self.ports.router.address(service.name, version) if perimeter and version else "",
            "line": candidate.line,
            "tip": candidate.tip,
            "measurement": self.measured(service.name, candidate.branch),
        }

    def _detail(self, service: Service, candidate: Candidate, waits: str, said: Sequence[Entry]) -> str:
        if waits:
            stands = "stands by without traffic; " if candidate.stands_by else ""
            word = f" (branchline approve {candidate.branch})" if waits == "approval" else ""
            return f"{stands}waits for: {waits}{word}"
        if candidate.phase in (Phase.TESTING, Phase.CANARY):
            measured = self.measured(service.name, candidate.branch)
            return str(measured["text"]) if measured else "no traffic yet"
        if candidate.phase is Phase.MEASURED:
            return "; ".join(self._found(service.name, candidate.revision))
        for entry in said if not candidate.overridden else ():
            if entry.detail.get("branch") == candidate.branch:
                if entry.event in ("Opened", "Pushed"):
                    return ""  # what was said before was said of another commit
                if entry.detail.get("reason"):  # beside the state, which a verdict for nobody begins with, too
                    return str(entry.detail["reason"]).splitlines()[0].removeprefix(f"{candidate.phase.value}: ")
        return ""

    def _found(self, service: str, commit: str) -> Iterator[str]:
        """The numbers that the gates of a benchmark found, in words."""
        for gate in self.ports.catalog.gates(service, commit):
            if gate.numbers:
                yield f"{gate.gate}: {gate.summary}"

    def measured(self, service: str, branch: str) -> Document | None:
        """What the judge has seen of a candidate so far."""
        known = self.judge.measurements.get((service, branch))
        return measurement_document(known[1]) if known else None

    def history(self, service: str = "", limit: int = 50, before: int = 0) -> Document:
        """The audit, newest first (3.02, 3.09)."""
        entries = self.ports.ledger.history(service, limit=limit, before=before)
        told = [asdict(entry) | {"at": moment(entry.at)} for entry in entries]
        return {"schema": "branchline.history/1", "entries": told}


def told_override(candidate: Candidate | None) -> str:
    """Who decided in the verdict's place, and why; '' for who has a verdict, or none yet."""
    return f"override by {candidate.overridden}" if candidate and candidate.overridden else ""


def moment(at: float) -> str:
    """A moment as programs read it: ISO 8601, UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def older(service: Service, line: law.Line) -> str:
    """The word that pins a line's address; '' for the newest, whose address is the service's own."""
    return "" if line == service.lines[-1] else f"v{line.major}"


def standing(service: Service, sight: Sight, revision: str, perimeter: str) -> Document:
    """How a revision stands in a perimeter: whether it is `healthy` (a ready incarnation of it runs), and how many of
    the processes that it is to have are ready, and by what its limits are kept (`level`; '' when it has none).

    Wanted is what a person said, else what the newest incarnation was begun with; None where none was begun.
    """
    mine = [i for i in sight.instances if (i.revision, i.perimeter) == (revision, perimeter) and i.state != "stopped"]
    serves = leaders(mine).get((revision, perimeter))
    newest = max(mine, key=lambda i: i.since, default=None)
    if newest is None:
        return {"healthy": False, "instances": None}
    counts = {
        "ready": len(serves.sockets) - serves.lost if serves else 0,
        "wanted": count_of(service, revision, perimeter, len(newest.sockets)),
        "level": (serves or newest).level,
    }
    return {"healthy": serves is not None, "instances": counts}


def signed(number: float) -> str:
    """A difference as people read it, however small: four digits, or all that stand before the point."""
    return f"{number:+,.0f}" if abs(number) >= 10_000 else f"{number:+.4g}"


def measurement_document(seen: Measurement) -> Document:
    """A measurement in numbers and in one line."""
    judged = seen.judgement
    document: Document = {
        "metric": seen.metric.name if seen.metric else "",
        "guardrails": {
            name: {"bad": g.bad, "requests": g.requests, "evidence": g.highest, "answer": str(g.answer)}
            for name, g in seen.guards.items()
        },
        **({"slow_above": seen.slowness.limit} if seen.slowness else {}),
        "verdict": {"side": str(seen.verdict.side), "reason": seen.verdict.reason} if seen.verdict else None,
    }
    text = "no outcome yet"
    if judged is not None and judged.estimate is not None:
        document |= {"estimate": judged.estimate, "low": judged.low, "high": judged.high, "units": judged.units}
        document["alpha"] = judged.plan.alpha
        text = f"{judged.units} outcomes"
        if judged.low is not None and judged.high is not None:  # no number without its interval
            text += f", {signed(judged.estimate)} [{signed(judged.low)}, {signed(judged.high)}]"
        if judged.plan.cap is not None:
            document["cap"] = judged.plan.cap
            text += f", values cut at {judged.plan.cap:.4g}"
        if judged.reason:
            text += f", {judged.reason}"
        if seen.cost:
            document["harm"] = asdict(seen.cost)
            text += f"; {seen.cost.reason}"
    elif seen.far or seen.guards:
        guards = (f"{name}: {bad_of(g.bad, g.requests)}" for name, g in seen.guards.items())
        text = "; ".join(filter(None, (seen.far, *guards)))
    if seen.beside:
        document["watched"] = watched_document(seen.beside)
        for name, each in document["watched"].items():
            if each["judged"]:
                text += f"; {name} {signed(each['estimate'])} [{signed(each['low'])}, {signed(each['high'])}]"
                text += f" on {sum(each['units'])}"
    return {**document, "text": text}
